/*
 * Drivers that break the rules of the rings: each kind of malformed chain breaks the device,
 * with one interrupt and nothing written, and a reset repairs it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"

#define F(bit)	(UINT64_C(1) << (bit))
#define ALL	(F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define RUNNING 0x0f
#define DATA	ECHO_DATA

/* --- malformed rings: each breaks the device, a reset repairs it --- */

static void bad_loop(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, f->out, 8, VIRTQ_DESC_F_NEXT, 1);
	vdrv_desc_set(q, 1, f->out, 8, VIRTQ_DESC_F_NEXT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_self_loop(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 5, f->in, 8, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 5);
	vdrv_avail_put(q, 5);
}

static void bad_head(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_avail_put(q, q->size);
}

static void bad_head_max(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_avail_put(q, 0xffff);
}

static void bad_next(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, f->out, 8, VIRTQ_DESC_F_NEXT, q->size);
	vdrv_avail_put(q, 0);
}

static void bad_address(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_desc_set(q, 0, 0x3fffffff000, 8, 0, 0);
	vdrv_avail_put(q, 0);
}

static void bad_address_wraps(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_desc_set(q, 0, UINT64_MAX - 3, 8, VIRTQ_DESC_F_WRITE, 0);
	vdrv_avail_put(q, 0);
}

static void bad_end_of_ram(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, 32 * MiB - 4, 8, 0, 0);
	vdrv_avail_put(q, 0);
	(void)f;
}

static void bad_direction(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, f->in, 8, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 1);
	vdrv_desc_set(q, 1, f->out, 8, 0, 0);
	vdrv_avail_put(q, 0);
}

static void bad_zero_length(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, f->out, 0, 0, 0);
	vdrv_avail_put(q, 0);
}

static void bad_too_many_segments(struct echo_rig *f, struct vdrv_queue *q)
{
	for (uint16_t i = 0; i < ECHO_SEGS + 1; i++) {
		vdrv_desc_set(q, i, f->out, 1, i < ECHO_SEGS ? VIRTQ_DESC_F_NEXT : 0,
			      (uint16_t)(i + 1));
	}
	vdrv_avail_put(q, 0);
}

static void bad_index_jump(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_avail_idx_set(q, (uint16_t)(q->avail_idx + q->size + 1));
}

static void bad_index_back(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_avail_idx_set(q, (uint16_t)(q->avail_idx - 1));
}

static gpa_t table(struct echo_rig *f)
{
	return vdrv_alloc(&f->r.d, 4096, 16);
}

static void table_set(struct echo_rig *f, gpa_t t, unsigned i, uint64_t addr, uint32_t len,
		      uint16_t flags, uint16_t next)
{
	struct virtq_desc *d = vdrv_ptr(&f->r.d, t, 4096);

	d[i] = (struct virtq_desc){le64_of(addr), le32_of(len), le16_of(flags), le16_of(next)};
}

static void bad_nested_indirect(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, t, 16, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_desc_set(q, 0, t, 16, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_next(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->out, 8, 0, 0);
	vdrv_desc_set(q, 0, t, 16, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT, 1);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_odd_length(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, table(f), 24, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_empty(struct echo_rig *f, struct vdrv_queue *q)
{
	vdrv_desc_set(q, 0, table(f), 0, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_outside(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_desc_set(q, 0, 32 * MiB - 16, 32, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_huge(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	vdrv_desc_set(q, 0, 0xfffffffffffffff0, 0xfffffff0, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_loop(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->out, 8, VIRTQ_DESC_F_NEXT, 1);
	table_set(f, t, 1, f->out, 8, VIRTQ_DESC_F_NEXT, 0);
	vdrv_desc_set(q, 0, t, 32, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_index(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->out, 8, VIRTQ_DESC_F_NEXT, 2);
	vdrv_desc_set(q, 0, t, 32, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_indirect_direction(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->in, 8, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 1);
	table_set(f, t, 1, f->out, 8, 0, 0);
	vdrv_desc_set(q, 0, t, 32, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void bad_out_then_nested(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->out, 8, VIRTQ_DESC_F_NEXT, 1);
	table_set(f, t, 1, t, 32, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE, 0);
	vdrv_desc_set(q, 0, f->out, 8, VIRTQ_DESC_F_NEXT, 1);
	vdrv_desc_set(q, 1, t, 32, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static const struct {
	const char *name;
	void (*make)(struct echo_rig *f, struct vdrv_queue *q);
	uint16_t queue_size; /* 0: the device's */
} bad[] = {
	{"loop", bad_loop, 16},
	{"loop on itself", bad_self_loop, 16},
	{"head = size", bad_head},
	{"head 65535", bad_head_max},
	{"next out of range", bad_next},
	{"address outside", bad_address},
	{"address wraps", bad_address_wraps},
	{"over the end of RAM", bad_end_of_ram},
	{"readable after writable", bad_direction},
	{"zero length", bad_zero_length},
	{"too many segments", bad_too_many_segments},
	{"avail index jumps", bad_index_jump},
	{"avail index goes back", bad_index_back},
	{"nested indirect", bad_nested_indirect},
	{"indirect with next", bad_indirect_next},
	{"indirect of 24 bytes", bad_indirect_odd_length},
	{"indirect of 0 bytes", bad_indirect_empty},
	{"indirect outside", bad_indirect_outside},
	{"indirect, huge", bad_indirect_huge},
	{"loop in indirect", bad_indirect_loop},
	{"index in indirect", bad_indirect_index},
	{"direction in indirect", bad_indirect_direction},
	{"direct, then nested", bad_out_then_nested},
};

static void malformed(uint64_t features)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t irqs;
		unsigned served;

		vdrv_start(d, features, bad[i].queue_size);
		echo_once(&f, 0, 0);
		irqs = vdrv_irqs(d, 0);
		served = atomic_load(&f.e->served);
		bad[i].make(&f, &d->q[0]);
		vdrv_kick_always(&d->q[0]);
		fake_vm_settle(f.r.fv);
		if (!(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET)) {
			fail_msg("'%s' did not break the device", bad[i].name);
		}
		assert_int_equal(vdrv_irqs(d, 0), irqs + 1);
		assert_int_equal(vdrv_used_total(&d->q[0]), 1);
		/* nothing moves any more, on the other queue either */
		vdrv_add(&d->q[1], (struct vdrv_seg[]){{f.out, 8}, {f.in, 8}}, 1, 1, 0);
		vdrv_kick_always(&d->q[1]);
		fake_vm_settle(f.r.fv);
		assert_int_equal(vdrv_used_total(&d->q[1]), 0);
		assert_int_equal(atomic_load(&f.e->served), served);
	}
	vdrv_start(d, features, 0);
	echo_once(&f, 0, 0);
	echo_once(&f, 1, 0);
	assert_int_equal(vdrv_status(d), RUNNING);
	echo_rig_fini(&f);
}

static void test_malformed(void **state)
{
	malformed(ALL);
	malformed(F(VIRTIO_F_INDIRECT_DESC));
	(void)state;
}

/* Lengths that add up to more than the used ring can say. */
static void test_size_overflow(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init_io(&f, false, 2048);
	vdrv_start(d, 0, 0);
	for (uint16_t i = 0; i < 3; i++) {
		vdrv_desc_set(&d->q[0], i, 4 * GiB, 2047 * MiB, i < 2 ? VIRTQ_DESC_F_NEXT : 0,
			      (uint16_t)(i + 1));
	}
	vdrv_avail_put(&d->q[0], 0);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	echo_rig_fini(&f);
	(void)state;
}

static void test_indirect_not_negotiated(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, 0, 0);
	vdrv_add(&d->q[0], (struct vdrv_seg[]){{f.out, 8}, {f.in, 8}}, 1, 1, VDRV_INDIRECT);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	echo_rig_fini(&f);
	(void)state;
}

/* The same descriptor made available again and again while the device keeps it. */
static void test_more_than_the_ring_holds(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	atomic_store(&f.e->hold, true);
	vdrv_start(d, 0, 4);
	vdrv_desc_set(&d->q[0], 0, f.out, 8, 0, 0);
	for (int i = 0; i < 4; i++) {
		vdrv_avail_put(&d->q[0], 0);
	}
	vdrv_kick_always(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_status(d), RUNNING);
	assert_int_equal(atomic_load(&f.e->held), 4);
	vdrv_avail_put(&d->q[0], 0);
	vdrv_kick_always(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	echo_release(f.e);
	vdrv_start(d, 0, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

/* Rings that are not in RAM, or misaligned. */
static void test_bad_rings(void **state)
{
	static const struct {
		unsigned off;
		uint64_t addr;
	} rings[] = {
		{offsetof(struct virtio_pci_common_cfg, queue_desc), 0x101008},
		{offsetof(struct virtio_pci_common_cfg, queue_driver), 0x101001},
		{offsetof(struct virtio_pci_common_cfg, queue_device), 0x101002},
		{offsetof(struct virtio_pci_common_cfg, queue_desc), 32 * MiB - 16},
		{offsetof(struct virtio_pci_common_cfg, queue_driver), 32 * MiB - 2},
		{offsetof(struct virtio_pci_common_cfg, queue_device), 32 * MiB - 4},
		{offsetof(struct virtio_pci_common_cfg, queue_desc), UINT64_MAX - 15},
		{offsetof(struct virtio_pci_common_cfg, queue_device), RIG_BAR},
	};
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
		assert_true(vdrv_reset(d));
		assert_true(vdrv_negotiate(d, ALL));
		vdrv_queue_setup(d, 0, 0);
		vdrv_common_set(d, rings[i].off, 4, (uint32_t)rings[i].addr);
		vdrv_common_set(d, rings[i].off + 4, 4, (uint32_t)(rings[i].addr >> 32));
		vdrv_queue_enable(d, 0);
		vdrv_status_set(d, RUNNING);
		fake_vm_settle(f.r.fv);
		assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	}
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_size_overflow),
		cmocka_unit_test(test_indirect_not_negotiated),
		cmocka_unit_test(test_more_than_the_ring_holds),
		cmocka_unit_test(test_bad_rings),
	};

	return cmocka_run_group_tests_name("virtio, bad rings", tests, NULL, NULL);
}
