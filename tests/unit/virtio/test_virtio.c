/*
 * The device life cycle and the queues without PCI: a recorder stands for the transport. What
 * the PCI transport does with them is in tests/device/; here are the parts that it cannot
 * reach: hostile state, unpop, dirty marking, chains across memory regions.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fakes/fakes.h"
#include "spec/virtio.h"
#include "virtio/virtio.h"

#define F(bit) (UINT64_C(1) << (bit))
#define SIZE   16
#define DESC   0x10000u
#define AVAIL  0x11000u
#define USED   0x12000u
#define ALL_OK 0xf
#define RAM    (16 * MiB)

struct rec {
	struct virtio_dev vd;
	struct fake_vm *fv;
	unsigned queue_irqs, config_irqs, kicks, stops, resets;
	bool keep; /* a stop is not answered at once */
	struct virtq_desc *desc;
	uint16_t *avail, *used;
};

static struct rec *of(struct virtio_dev *vd)
{
	return container_of(vd, struct rec, vd);
}

static uint64_t features(struct virtio_dev *vd)
{
	(void)vd;
	return F(1);
}

static void kick(struct virtq *q)
{
	of(q->vd)->kicks++;
}

static void stop(struct virtq *q)
{
	of(q->vd)->stops++;
	if (!of(q->vd)->keep) {
		virtq_stopped(q);
	}
}

static void reset(struct virtio_dev *vd)
{
	of(vd)->resets++;
}

static const struct virtio_ops ops = {
	.name = "virtio-rec",
	.device_id = 42,
	.features = features,
	.queue_kick = kick,
	.queue_stop = stop,
	.reset = reset,
};

static void notify_queue(struct virtio_dev *vd, struct virtq *q)
{
	of(vd)->queue_irqs++;
	(void)q;
}

static void notify_config(struct virtio_dev *vd)
{
	of(vd)->config_irqs++;
}

static const struct virtio_transport_ops transport = {
	.notify_queue = notify_queue,
	.notify_config = notify_config,
};

static void init(struct rec *r)
{
	memset(r, 0, sizeof(*r));
	r->fv = fake_vm_new(&(struct fake_vm_config){.ram_mib = 16, .ram_high_mib = 16});
	assert_int_equal(virtio_dev_init(&r->vd, &r->fv->vm, &ops, "rec0", 2, 64, NULL), 0);
	r->vd.transport = &transport;
	r->desc = mem_ptr(r->fv->vm.mem, DESC, 16 * SIZE, true);
	r->avail = mem_ptr(r->fv->vm.mem, AVAIL, 6 + 2 * SIZE, true);
	r->used = mem_ptr(r->fv->vm.mem, USED, 6 + 8 * SIZE, true);
}

static void fini(struct rec *r)
{
	virtio_set_status(&r->vd, 0);
	virtio_dev_fini(&r->vd);
	fake_vm_free(r->fv);
}

static void start(struct rec *r, uint64_t want)
{
	struct virtq *q = &r->vd.queue[0];

	virtio_set_status(&r->vd, 3);
	virtio_set_features(&r->vd, want | F(VIRTIO_F_VERSION_1));
	virtio_set_status(&r->vd, 0xb);
	assert_int_equal(virtio_get_status(&r->vd), 0xb);
	q->size = SIZE;
	q->desc_gpa = DESC;
	q->avail_gpa = AVAIL;
	q->used_gpa = USED;
	virtio_queue_enable(q);
	virtio_set_status(&r->vd, ALL_OK);
	assert_true(virtq_running(q));
	assert_false(virtq_running(&r->vd.queue[1]));
}

static void desc(struct rec *r, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
		 uint16_t next)
{
	r->desc[i] =
		(struct virtq_desc){le64_of(addr), le32_of(len), le16_of(flags), le16_of(next)};
}

static void offer(struct rec *r, uint16_t head)
{
	r->avail[2 + r->avail[1] % SIZE] = head;
	r->avail[1]++;
}

static void test_pop_push_unpop(void **state)
{
	struct rec r;
	struct virtq *q = &r.vd.queue[0];
	struct virtq_chain c, c2;
	struct iovec iov[8], iov2[8];

	init(&r);
	start(&r, 0);
	assert_int_equal(r.kicks, 1); /* what may have been there before */
	assert_true(virtq_empty(q));
	assert_int_equal(virtq_pop(q, &c, iov, 8), 0);
	desc(&r, 3, 0x20000, 10, VIRTQ_DESC_F_NEXT, 4);
	desc(&r, 4, 0x30000, 20, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 9);
	desc(&r, 9, 0x30014, 30, VIRTQ_DESC_F_WRITE, 0);
	offer(&r, 3);
	assert_false(virtq_empty(q));
	assert_int_equal(virtq_pop(q, &c, iov, 8), 1);
	assert_int_equal(c.head, 3);
	assert_int_equal(c.n_out, 1);
	assert_int_equal(c.n_in, 2);
	assert_int_equal(c.out_len, 10);
	assert_int_equal(c.in_len, 50);
	assert_ptr_equal(iov[0].iov_base, mem_ptr(r.fv->vm.mem, 0x20000, 10, false));
	assert_ptr_equal(iov[2].iov_base, mem_ptr(r.fv->vm.mem, 0x30014, 30, false));
	virtq_unpop(q, &c);
	assert_false(virtq_empty(q));
	assert_int_equal(virtq_pop(q, &c, iov, 8), 1);
	assert_int_equal(c.head, 3);
	/* a second one overtakes it */
	desc(&r, 5, 0x20000, 1, 0, 0);
	offer(&r, 5);
	assert_int_equal(virtq_pop(q, &c2, iov2, 8), 1);
	virtq_push(q, &c2, 0);
	virtq_push(q, &c, 33);
	assert_int_equal(r.queue_irqs, 0);
	virtq_notify(q);
	assert_int_equal(r.queue_irqs, 1);
	virtq_notify(q);
	assert_int_equal(r.queue_irqs, 1); /* nothing new */
	assert_int_equal(r.used[1], 2);
	assert_int_equal(r.used[2], 5);
	assert_int_equal(r.used[6], 3);
	assert_int_equal(r.used[8], 33);
	fini(&r);
	(void)state;
}

/* A descriptor, and an indirect table, that lie across two regions of memory. */
static void test_across_regions(void **state)
{
	struct rec r;
	struct virtq *q = &r.vd.queue[0];
	struct mem_region *next;
	struct virtq_chain c;
	struct iovec iov[4];
	uint64_t raw[4] = {0x20000, 5 | (uint64_t)VIRTQ_DESC_F_NEXT << 32 | 1ull << 48, 0x30000,
			   7 | (uint64_t)VIRTQ_DESC_F_WRITE << 32};

	init(&r);
	assert_int_equal(
		mem_region_add(r.fv->vm.mem, "next", RAM, 1 * MiB, MEM_RAM, 0, &next, NULL), 0);
	start(&r, F(VIRTIO_F_INDIRECT_DESC));
	desc(&r, 0, RAM - 100, 300, VIRTQ_DESC_F_WRITE, 0);
	offer(&r, 0);
	assert_int_equal(virtq_pop(q, &c, iov, 4), 1);
	assert_int_equal(c.n_in, 2);
	assert_int_equal(iov[0].iov_len, 100);
	assert_int_equal(iov[1].iov_len, 200);
	virtq_push(q, &c, 300);
	assert_int_equal(mem_write(r.fv->vm.mem, RAM - 16, raw, sizeof(raw)), 0);
	desc(&r, 1, RAM - 16, 32, VIRTQ_DESC_F_INDIRECT, 0);
	offer(&r, 1);
	assert_int_equal(virtq_pop(q, &c, iov, 4), 1);
	assert_int_equal(c.out_len, 5);
	assert_int_equal(c.in_len, 7);
	virtq_push(q, &c, 0);
	/* at an odd address */
	assert_int_equal(mem_write(r.fv->vm.mem, 0x40003, raw, sizeof(raw)), 0);
	desc(&r, 2, 0x40003, 32, VIRTQ_DESC_F_INDIRECT, 0);
	offer(&r, 2);
	assert_int_equal(virtq_pop(q, &c, iov, 4), 1);
	assert_int_equal(c.in_len, 7);
	virtq_push(q, &c, 0);
	desc(&r, 0, RAM - 100, 300, VIRTQ_DESC_F_WRITE, 0);
	offer(&r, 0);
	assert_int_equal(virtq_pop(q, &c, iov, 1), -EPROTO);
	assert_int_equal(virtq_pop(q, &c, iov, 4), -EPROTO);
	fake_vm_settle(r.fv);
	assert_int_equal(virtio_get_status(&r.vd), ALL_OK | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	assert_int_equal(r.config_irqs, 1);
	fini(&r);
	(void)state;
}

static bool dirty(const uint64_t *map, gpa_t gpa)
{
	return map[gpa / 4096 / 64] >> (gpa / 4096 % 64) & 1;
}

/* What the device writes is marked: data as far as it was written, used ring, avail event. */
static void test_dirty(void **state)
{
	struct rec r;
	struct virtq *q = &r.vd.queue[0];
	struct virtq_chain c;
	struct iovec iov[4];
	uint64_t map[RAM / 4096 / 64];

	init(&r);
	start(&r, F(VIRTIO_F_EVENT_IDX));
	assert_int_equal(mem_log_start(r.fv->vm.mem), 0);
	assert_int_equal(mem_log_sync(r.fv->vm.mem, r.fv->ram, map, ARRAY_SIZE(map)), 0);
	desc(&r, 0, 0x50000, 0x3000, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 1);
	desc(&r, 1, 0x60000, 0x3000, VIRTQ_DESC_F_WRITE, 0);
	offer(&r, 0);
	assert_int_equal(virtq_pop(q, &c, iov, 4), 1);
	assert_int_equal(mem_log_sync(r.fv->vm.mem, r.fv->ram, map, ARRAY_SIZE(map)), 0);
	assert_false(dirty(map, 0x50000) || dirty(map, USED));
	virtq_push(q, &c, 0x4001);
	assert_int_equal(mem_log_sync(r.fv->vm.mem, r.fv->ram, map, ARRAY_SIZE(map)), 0);
	assert_true(dirty(map, 0x50000) && dirty(map, 0x51000) && dirty(map, 0x52000));
	assert_true(dirty(map, 0x60000) && dirty(map, 0x61000));
	assert_false(dirty(map, 0x62000));
	assert_true(dirty(map, USED));
	assert_false(dirty(map, DESC) || dirty(map, AVAIL));
	virtq_kicks_off(q);
	virtq_kicks_on(q);
	assert_int_equal(mem_log_sync(r.fv->vm.mem, r.fv->ram, map, ARRAY_SIZE(map)), 0);
	assert_true(dirty(map, USED));
	mem_log_stop(r.fv->vm.mem);
	fini(&r);
	(void)state;
}

/* A device that takes its time to stop. */
static void test_slow_stop(void **state)
{
	struct rec r;
	struct virtq *q = &r.vd.queue[0];

	init(&r);
	start(&r, F(VIRTIO_F_RING_RESET));
	r.keep = true;
	virtio_queue_reset(q);
	assert_true(virtio_queue_resetting(q));
	assert_int_equal(r.stops, 1);
	virtio_queue_reset(q); /* once is enough */
	virtio_set_status(&r.vd, 0);
	assert_int_equal(r.stops, 1);
	assert_int_equal(virtio_get_status(&r.vd), ALL_OK);
	virtq_stopped(q);
	assert_int_equal(virtio_get_status(&r.vd), ALL_OK);
	fake_vm_settle(r.fv);
	assert_int_equal(virtio_get_status(&r.vd), 0);
	assert_false(virtio_queue_resetting(q));
	assert_false(q->enabled);
	assert_int_equal(q->size, 64);
	assert_int_equal(r.resets, 1);
	r.keep = false;
	start(&r, 0);
	fini(&r);
	(void)state;
}

/* Freed with work still posted: nothing of it runs. */
static void test_fini_with_work_posted(void **state)
{
	struct rec r;

	init(&r);
	start(&r, 0);
	virtio_broken(&r.vd, "%s", "test");
	r.keep = true;
	virtio_set_status(&r.vd, 0);
	virtq_stopped(&r.vd.queue[0]);
	virtio_dev_fini(&r.vd);
	fake_vm_settle(r.fv);
	assert_int_equal(r.config_irqs, 0);
	fake_vm_free(r.fv);
	(void)state;
}

/* --- state --- */

static void state_good(struct rec *r, struct virtio_state *st)
{
	virtio_save(&r->vd, st);
	st->features = F(VIRTIO_F_VERSION_1);
	st->status = ALL_OK;
	st->q[0] = (struct virtq_state){
		.size = SIZE,
		.vector = VIRTIO_NO_VECTOR,
		.last_avail = 7,
		.used_idx = 7,
		.enabled = true,
		.desc = DESC,
		.avail = AVAIL,
		.used = USED,
	};
}

enum hurt {
	HURT_QUEUES,
	HURT_FEATURES,
	HURT_NOT_MODERN,
	HURT_STATUS,
	HURT_SIZE,
	HURT_DESC,
	HURT_AVAIL,
	HURT_USED,
	HURT_WRAP,
	HURTS,
};

static void state_hurt(struct virtio_state *st, enum hurt how)
{
	switch (how) {
	case HURT_QUEUES:
		st->nqueues = 1;
		break;
	case HURT_FEATURES:
		st->features |= F(2);
		break;
	case HURT_NOT_MODERN:
		st->features = 0;
		break;
	case HURT_STATUS:
		st->status = VIRTIO_STATUS_DRIVER_OK;
		break;
	case HURT_SIZE:
		st->q[0].size = 128;
		break;
	case HURT_DESC:
		st->q[0].desc = 0x10000000;
		break;
	case HURT_AVAIL:
		st->q[0].avail = RAM - 8;
		break;
	case HURT_USED:
		st->q[0].used = RAM - 4;
		break;
	case HURT_WRAP:
		st->q[0].desc = UINT64_MAX - 15;
		break;
	default:
		break;
	}
}

static void test_load(void **state)
{
	struct virtio_state *st = calloc(1, sizeof(*st));
	struct virtq *q;
	struct rec r;
	struct err err;

	init(&r);
	q = &r.vd.queue[0];
	r.vd.paused = true;
	for (enum hurt how = 0; how < HURTS; how++) {
		state_good(&r, st);
		state_hurt(st, how);
		err.msg[0] = '\0';
		assert_int_equal(virtio_load(&r.vd, st, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "rec0"));
		/* as it was */
		assert_int_equal(virtio_get_status(&r.vd), 0);
		assert_int_equal(r.vd.acked, 0);
		assert_int_equal(q->size, 64);
		assert_false(q->enabled);
	}
	/* Any bits may stand there as long as the driver has not said that they are its choice:
	 * a guest must not make its machine's state one that nobody takes. */
	virtio_set_features(&r.vd, UINT64_MAX);
	virtio_save(&r.vd, st);
	assert_int_equal(virtio_load(&r.vd, st, &err), 0);
	virtio_set_status(&r.vd, ALL_OK & (uint8_t)~VIRTIO_STATUS_DRIVER_OK);
	assert_false(virtio_get_status(&r.vd) & VIRTIO_STATUS_FEATURES_OK);
	state_good(&r, st);
	assert_int_equal(virtio_load(&r.vd, st, &err), 0);
	assert_int_equal(q->last_avail, 7);
	r.avail[1] = 7;
	virtio_resume(&r.vd);
	assert_true(virtq_running(q));
	assert_int_equal(r.kicks, 1);
	free(st);
	fini(&r);
	(void)state;
}

static void test_state_bounds(void **state)
{
	struct virtio_state *st = calloc(1, sizeof(*st));
	struct rec r;
	struct err err;

	init(&r);
	state_good(&r, st);
	assert_int_equal(virtio_state_desc.validate(st, &err), 0);
	for (unsigned i = 0; i < 6; i++) {
		static const uint16_t sizes[] = {0, 3, 24, 2048, 1025, 65535};

		state_good(&r, st);
		st->q[1].size = sizes[i];
		assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	}
	state_good(&r, st);
	st->q[0].desc = 8;
	assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	state_good(&r, st);
	st->q[0].avail = 1;
	assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	state_good(&r, st);
	st->q[0].used = 2;
	assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	/* what the driver wrote before DRIVER_OK can be saved whatever it is */
	st->status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	assert_int_equal(virtio_state_desc.validate(st, &err), 0);
	/* packed rings: any size, positions within it, other alignments */
	state_good(&r, st);
	st->features |= F(VIRTIO_F_RING_PACKED);
	st->q[0].size = 13;
	assert_int_equal(virtio_state_desc.validate(st, &err), 0);
	st->q[0].last_avail = 13;
	assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	st->q[0].last_avail = 12;
	st->q[0].used_idx = 0xffff;
	assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	st->q[0].used_idx = 12;
	st->q[0].avail = AVAIL + 2;
	assert_int_equal(virtio_state_desc.validate(st, &err), -EINVAL);
	free(st);
	fini(&r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pop_push_unpop),
		cmocka_unit_test(test_across_regions),
		cmocka_unit_test(test_dirty),
		cmocka_unit_test(test_slow_stop),
		cmocka_unit_test(test_fini_with_work_posted),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_state_bounds),
	};

	return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
