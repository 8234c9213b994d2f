/*
 * Errors of disks on their way to listeners: in order, like ones as one, and never more than fit.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/block_int.h"
#include "device/virtio/blk.h"
#include "machine/machine_int.h"

#define MOST 32 /* MAX_PENDING of disk_errors.c */

struct rig {
	struct machine *m;
	struct disk_errors *errors;
	struct blk_node *node;
	struct machine_listener listener;
	struct machine_block_error got[4 * MOST];
	unsigned count;
};

static void note(void *opaque, const struct machine_block_error *e)
{
	struct rig *r = opaque;

	assert_true(r->count < ARRAY_SIZE(r->got));
	r->got[r->count++] = *e;
}

static void start(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	r->m = calloc(1, sizeof(*r->m));
	assert_int_equal(loop_new(&r->m->vm.loop, "control", LOOP_VIRTUAL), 0);
	list_init(&r->m->listeners);
	r->listener = (struct machine_listener){.block_error = note, .opaque = r};
	list_add_tail(&r->m->listeners, &r->listener.node);
	assert_int_equal(blk_null_new("n", MiB, false, &r->node), 0);
	assert_int_equal(disk_errors_new(r->m, &r->errors), 0);
}

static void stop(struct rig *r)
{
	disk_errors_free(r->errors);
	blk_unref(r->node);
	loop_free(r->m->vm.loop);
	free(r->m);
}

static void add(struct rig *r, const char *device, int error, bool read)
{
	disk_errors_add(r->errors, &(struct virtio_blk_error){.device = device,
							      .node = r->node,
							      .read = read,
							      .error = -error,
							      .action = VIRTIO_BLK_STOP});
}

static void test_told(void **state)
{
	struct rig r;

	start(&r);
	add(&r, "disk0", ENOSPC, false);
	add(&r, "disk0", ENOSPC, false); /* nothing new */
	add(&r, "disk0", ENOSPC, true);
	add(&r, "disk1", EIO, true);
	assert_int_equal(r.count, 0);
	loop_step(r.m->vm.loop, 0);
	assert_int_equal(r.count, 3);
	assert_string_equal(r.got[0].device, "disk0");
	assert_string_equal(r.got[0].node, "n");
	assert_string_equal(r.got[0].drive, "");
	assert_string_equal(r.got[0].action, "stop");
	assert_int_equal(r.got[0].error, ENOSPC);
	assert_false(r.got[0].read);
	assert_true(r.got[1].read && r.got[2].read);
	assert_string_equal(r.got[2].device, "disk1");
	/* like the last one, but that one was told */
	add(&r, "disk1", EIO, true);
	loop_step(r.m->vm.loop, 0);
	assert_int_equal(r.count, 4);
	stop(&r);
	(void)state;
}

/* A guest that fails again and again before anybody listens. */
static void test_bound(void **state)
{
	struct rig r;

	start(&r);
	for (unsigned round = 0; round < 2; round++) {
		r.count = 0;
		for (unsigned i = 0; i < 100000; i++) {
			add(&r, i & 1 ? "disk0" : "disk1", EIO, false);
		}
		loop_step(r.m->vm.loop, 0);
		loop_step(r.m->vm.loop, 0);
		assert_int_equal(r.count, MOST);
		assert_string_equal(r.got[0].device, "disk1"); /* the first ones */
		assert_string_equal(r.got[1].device, "disk0");
	}
	add(&r, "disk0", EIO, false); /* one that nobody hears of any more */
	stop(&r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told),
		cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
