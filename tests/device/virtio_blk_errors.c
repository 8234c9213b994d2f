/*
 * virtio-blk on a disk that fails, fills up, grows: error policy, requests that wait for cont,
 * live resize, write cache.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "blk_rig.h"

struct seen {
	unsigned count;
	struct virtio_blk_error last;
};

static void note(void *opaque, const struct virtio_blk_error *e)
{
	struct seen *s = opaque;

	s->count++;
	s->last = *e;
}

static uint8_t status_of(struct blk_rig *b, unsigned slot)
{
	return *(uint8_t *)vdrv_ptr(&b->r.d, b->status + slot, 1);
}

static void fail_with(struct blk_rig *b, unsigned ops, int error)
{
	blk_fault_set(b->fault,
		      error ? &(struct blk_fault_rule){.ops = ops, .error = error} : NULL);
}

#define WRITES (1u << BLK_WRITE | 1u << BLK_FLUSH | 1u << BLK_DISCARD)

static void start(struct blk_rig *b, struct seen *s, enum virtio_blk_policy werror,
		  enum virtio_blk_policy rerror)
{
	memset(s, 0, sizeof(*s));
	blk_rig_init(b, &(struct virtio_blk_config){
				.werror = werror,
				.rerror = rerror,
				.error = note,
				.error_opaque = s,
			});
	vdrv_start(&b->r.d, UINT64_MAX, 0);
}

static void test_report_and_ignore(void **state)
{
	struct blk_rig b;
	struct seen s;

	start(&b, &s, VIRTIO_BLK_REPORT, VIRTIO_BLK_IGNORE);
	fail_with(&b, WRITES | 1u << BLK_READ, -EIO);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 1, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(s.count, 1);
	assert_string_equal(s.last.device, "disk0");
	assert_false(s.last.read);
	assert_int_equal(s.last.error, -EIO);
	assert_int_equal(s.last.action, VIRTIO_BLK_REPORT);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 1, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.used_len, 0); /* no data */
	assert_int_equal(s.count, 2);
	assert_true(s.last.read && s.last.action == VIRTIO_BLK_IGNORE);
	/* a flush is a write */
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(b.r.fv->power.count[POWER_IO_ERROR], 0);
	blk_rig_fini(&b);
	(void)state;
}

/* Writes slots 0 … n-1 and kicks; none of them comes back. */
static void stuck(struct blk_rig *b, struct seen *s, unsigned n)
{
	struct vdrv *d = &b->r.d;
	unsigned before = vdrv_used_total(&d->q[0]), errors = s->count;

	for (unsigned i = 0; i < n; i++) {
		memset(vdrv_ptr(d, b->data + i * (uint64_t)BLK_RIG_DATA, 512), (int)i + 1, 512);
		assert_true(blk_rig_add(b, i, VIRTIO_BLK_T_OUT, i, 512) >= 0);
	}
	vdrv_kick(&d->q[0]);
	for (int i = 0; i < 1000 && s->count < errors + n; i++) {
		vdrv_settle(d);
	}
	assert_int_equal(s->count, errors + n);
	assert_int_equal(vdrv_used_total(&d->q[0]), before);
	assert_int_equal(s->last.action, VIRTIO_BLK_STOP);
}

static void all_back(struct blk_rig *b, unsigned n)
{
	uint16_t head;
	uint32_t len;

	for (unsigned i = 0; i < n; i++) {
		assert_true(vdrv_wait(&b->r.d.q[0], &head, &len));
	}
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(status_of(b, i), VIRTIO_BLK_S_OK);
		assert_int_equal(b->disk[512 * i], i + 1);
		assert_int_equal(b->disk[512 * i + 511], i + 1);
	}
}

static struct state_out *save(struct blk_rig *b)
{
	struct err err = {.msg = ""};
	struct state_out *o;

	assert_int_equal(state_out_new(&o), 0);
	if (device_list_save(&b->r.fv->devices, o, &err)) {
		fail_msg("%s", err.msg);
	}
	return o;
}

static void load(struct blk_rig *b, struct state_out *o)
{
	struct err err = {.msg = ""};
	struct state_in *in;
	const void *data;
	size_t len;

	assert_int_equal(state_out_finish(o, &data, &len), 0);
	assert_int_equal(state_in_open(&in, data, len, &err), 0);
	if (device_list_load(&b->r.fv->devices, in, &err) || state_in_check_used(in, &err)) {
		fail_msg("%s", err.msg);
	}
	state_in_free(in);
	state_out_free(o);
}

static void test_stop_and_cont(void **state)
{
	struct blk_rig b;
	struct seen s;

	start(&b, &s, VIRTIO_BLK_STOP, VIRTIO_BLK_REPORT);
	fail_with(&b, WRITES, -EIO);
	stuck(&b, &s, 5);
	assert_int_equal(b.r.fv->power.count[POWER_IO_ERROR], 5);
	/* the machine can stop, be saved, and goes on in vain as often as it likes */
	for (int i = 0; i < 3; i++) {
		fake_vm_pause(b.r.fv);
		state_out_free(save(&b));
		device_list_resume(&b.r.fv->devices);
		fake_vm_settle(b.r.fv);
		assert_int_equal(s.count, 5u * (unsigned)(i + 2));
	}
	fake_vm_pause(b.r.fv);
	fail_with(&b, 0, 0);
	device_list_resume(&b.r.fv->devices);
	all_back(&b, 5);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 3, 512), VIRTIO_BLK_S_OK);
	blk_rig_fini(&b);
	(void)state;
}

/* A write of slot's data whose header ends in the middle of a descriptor. */
static void add_scattered(struct blk_rig *b, unsigned slot)
{
	struct vdrv *d = &b->r.d;
	gpa_t at = b->data + slot * (uint64_t)BLK_RIG_DATA, status = b->status + slot;
	struct virtio_blk_req_hdr *h = vdrv_ptr(d, at, sizeof(*h) + 512);

	*h = (struct virtio_blk_req_hdr){.type = le32_of(VIRTIO_BLK_T_OUT),
					 .sector = le64_of(slot)};
	memset(h + 1, (int)slot + 1, 512);
	*(uint8_t *)vdrv_ptr(d, status, 1) = 0xff;
	assert_true(vdrv_add(&d->q[0], (struct vdrv_seg[]){{at, 3}, {at + 3, 7}, {at + 10, 16},
							   {at + 26, 502}, {status, 1}},
			     4, 1, 0) >= 0);
}

/* Requests that wait are part of the state: whoever loads it does them, and each once. */
static void test_saved_while_kept(void **state)
{
	for (unsigned round = 0; round < 3; round++) {
		struct state_out *o;
		struct blk_rig b;
		struct seen s;
		struct vdrv *d = &b.r.d;
		uint16_t head;
		uint32_t len;

		start(&b, &s, VIRTIO_BLK_STOP, VIRTIO_BLK_STOP);
		/* some went through before, so that a packed ring has been written over */
		for (unsigned i = 0; i < 11 * round; i++) {
			assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 9, 512), VIRTIO_BLK_S_OK);
		}
		fail_with(&b, WRITES, -EIO);
		stuck(&b, &s, 3);
		add_scattered(&b, 3);
		memset(vdrv_ptr(d, b.data + 4 * (uint64_t)BLK_RIG_DATA, 512), 5, 512);
		assert_true(blk_rig_add_indirect(&b, 4, VIRTIO_BLK_T_OUT, 4, 512) >= 0);
		/* ends before those that wait */
		assert_true(blk_rig_add(&b, 5, VIRTIO_BLK_T_IN, 9, 512) >= 0);
		vdrv_kick(&d->q[0]);
		while (s.count < 5 || status_of(&b, 5) != VIRTIO_BLK_S_OK) {
			vdrv_settle(d);
		}
		assert_true(vdrv_wait(&d->q[0], &head, &len));
		fake_vm_pause(b.r.fv);
		o = save(&b);
		device_list_reset(&b.r.fv->devices); /* as another process would have it */
		load(&b, o);
		if (round == 1) {
			load(&b, save(&b)); /* nor does it get lost when it is moved on */
		}
		if (round == 2) {
			device_list_resume(&b.r.fv->devices); /* the disk fails here, too */
			fake_vm_settle(b.r.fv);
			assert_int_equal(s.count, 10);
			fake_vm_pause(b.r.fv);
			o = save(&b);
			device_list_reset(&b.r.fv->devices);
			load(&b, o);
		}
		fail_with(&b, 0, 0);
		device_list_resume(&b.r.fv->devices);
		all_back(&b, 5);
		for (int i = 0; i < 70; i++) {
			assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 9, 512), VIRTIO_BLK_S_OK);
		}
		blk_rig_fini(&b);
	}
	(void)state;
}

static void test_stop_only_when_full(void **state)
{
	struct blk_rig b;
	struct seen s;

	start(&b, &s, VIRTIO_BLK_ENOSPC, VIRTIO_BLK_REPORT);
	fail_with(&b, WRITES, -EIO);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 1, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(b.r.fv->power.count[POWER_IO_ERROR], 0);
	fail_with(&b, WRITES, -ENOSPC);
	stuck(&b, &s, 2);
	assert_int_equal(b.r.fv->power.count[POWER_IO_ERROR], 2);
	fake_vm_pause(b.r.fv);
	fail_with(&b, 0, 0);
	device_list_resume(&b.r.fv->devices);
	all_back(&b, 2);
	blk_rig_fini(&b);
	(void)state;
}

static void paused(void *opaque)
{
	(void)opaque;
}

/* Errors that come while the queue stops are kept, too. */
static void test_error_while_stopping(void **state)
{
	struct blk_rig b;
	struct seen s;

	start(&b, &s, VIRTIO_BLK_STOP, VIRTIO_BLK_STOP);
	fail_with(&b, WRITES, -EIO);
	blk_rig_hold(&b, true);
	for (unsigned i = 0; i < 3; i++) {
		memset(vdrv_ptr(&b.r.d, b.data + i * (uint64_t)BLK_RIG_DATA, 512), (int)i + 1,
		       512);
		assert_true(blk_rig_add(&b, i, VIRTIO_BLK_T_OUT, i, 512) >= 0);
	}
	vdrv_kick(&b.r.d.q[0]);
	while (blk_fault_held(b.fault) < 3) {
		vdrv_settle(&b.r.d);
	}
	device_list_pause(&b.r.fv->devices, paused, NULL);
	blk_rig_hold(&b, false);
	while (b.r.fv->devices.pausing) {
		loop_step(b.r.fv->vm.loop, 10);
	}
	assert_int_equal(s.count, 3);
	fail_with(&b, 0, 0);
	device_list_resume(&b.r.fv->devices);
	all_back(&b, 3);
	blk_rig_fini(&b);
	(void)state;
}

/* Whoever resets does not hear of old requests again: device, queue, machine. */
static void test_resets(void **state)
{
	for (int how = 0; how < 4; how++) {
		struct blk_rig b;
		struct vdrv *d = &b.r.d;
		struct seen s;
		gpa_t next;

		start(&b, &s, VIRTIO_BLK_STOP, VIRTIO_BLK_STOP);
		fail_with(&b, WRITES, -EIO);
		stuck(&b, &s, 4);
		switch (how) {
		case 0: /* the driver, before the machine stops */
			assert_true(vdrv_reset(d));
			break;
		case 1:
			assert_true(vdrv_queue_reset(d, 0));
			break;
		case 2: /* system_reset, stopped */
			fake_vm_pause(b.r.fv);
			device_list_reset(&b.r.fv->devices);
			device_list_resume(&b.r.fv->devices);
			next = d->mem_next;
			vdrv_init(d, b.r.fv, &b.r.root, d->devfn, RIG_BAR);
			d->mem_next = next;
			break;
		default: /* the queue stands still for a pause first */
			fake_vm_pause(b.r.fv);
			vdrv_status_set(d, 0);
			fake_vm_settle(b.r.fv);
			device_list_resume(&b.r.fv->devices);
			break;
		}
		fail_with(&b, 0, 0);
		if (how == 1) {
			vdrv_queue_setup(d, 0, 32);
			vdrv_queue_enable(d, 0);
		} else {
			vdrv_start(d, UINT64_MAX, 0);
		}
		for (int i = 0; i < 40; i++) {
			assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 9, 512),
					 VIRTIO_BLK_S_OK);
		}
		assert_int_equal(b.disk[0] | b.disk[512], 0);
		assert_int_equal(s.count, 4);
		blk_rig_fini(&b);
	}
	(void)state;
}

static void test_resize(void **state)
{
	struct blk_user *u;
	struct blk_rig b;
	struct seen s;
	struct vdrv *d = &b.r.d;
	uint64_t irqs;
	struct err err;

	start(&b, &s, VIRTIO_BLK_REPORT, VIRTIO_BLK_REPORT);
	irqs = vdrv_irqs(d, 0);
	assert_int_equal(blk_attach(b.fault, "resizer", BLK_PERM_RESIZE, BLK_PERM_ALL, NULL,
				    NULL, &u, &err),
			 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, BLK_RIG_SIZE / 512, 512),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_truncate(b.fault, 2 * BLK_RIG_SIZE, BLK_PREALLOC_OFF, &err), 0);
	fake_vm_settle(b.r.fv);
	assert_int_equal(vdrv_irqs(d, 0), irqs + 1);
	assert_int_equal(CONFIG(d, capacity), 2 * BLK_RIG_SIZE / 512);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, BLK_RIG_SIZE / 512, 4096),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(blk_truncate(b.fault, 4096, BLK_PREALLOC_OFF, &err), 0);
	fake_vm_settle(b.r.fv);
	assert_int_equal(vdrv_irqs(d, 0), irqs + 2);
	assert_int_equal(CONFIG(d, capacity), 8);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 8, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_IN, 7, 512), VIRTIO_BLK_S_OK);
	blk_detach(u);
	blk_rig_fini(&b);
	(void)state;
}

static void test_write_cache(void **state)
{
	const unsigned at = offsetof(struct virtio_blk_config_layout, writeback);
	struct blk_rig b;

	blk_rig_init(&b, &(struct virtio_blk_config){.write_through = true});
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	assert_int_equal(CONFIG(&b.r.d, writeback), 0);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 1, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, BLK_FUA);
	vdrv_config_set(&b.r.d, at, 1, 1);
	assert_int_equal(blk_rig_do(&b, VIRTIO_BLK_T_OUT, 1, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(b.spy.flags, 0);
	assert_true(vdrv_reset(&b.r.d));
	assert_int_equal(CONFIG(&b.r.d, writeback), 0);
	blk_rig_fini(&b);
	blk_rig_init(&b, &(struct virtio_blk_config){.no_config_wce = true});
	assert_false(vdrv_offered(&b.r.d) & F(VIRTIO_BLK_F_CONFIG_WCE));
	assert_true(vdrv_offered(&b.r.d) & F(VIRTIO_BLK_F_FLUSH));
	vdrv_start(&b.r.d, UINT64_MAX, 0);
	vdrv_config_set(&b.r.d, at, 1, 0);
	assert_int_equal(CONFIG(&b.r.d, writeback), 1);
	blk_rig_fini(&b);
	(void)state;
}

static void test_empty_disk(void **state)
{
	struct virtio_dev *vd;
	struct blk_node *n;
	struct err err;
	struct rig r;
	uint8_t *data;

	rig_init(&r, false, 0);
	assert_int_equal(blk_mem_new("none", 0, &n, &data), 0);
	assert_int_equal(virtio_blk_new(&r.fv->vm, n, &(struct virtio_blk_config){0}, "disk0",
					&vd, &err),
			 -EINVAL);
	assert_non_null(strstr(err.msg, "empty"));
	blk_unref(n);
	rig_fini(&r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_report_and_ignore),
		cmocka_unit_test(test_stop_and_cont),
		cmocka_unit_test(test_saved_while_kept),
		cmocka_unit_test(test_stop_only_when_full),
		cmocka_unit_test(test_error_while_stopping),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_write_cache),
		cmocka_unit_test(test_empty_disk),
	};

	return cmocka_run_group_tests_name("virtio-blk errors", tests, NULL, NULL);
}
