/*
 * Drivers that break the rules of packed rings: each kind of malformed chain breaks the device,
 * with one interrupt and nothing written, and a reset repairs it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"

#define F(bit)	 (UINT64_C(1) << (bit))
#define PACKED	 F(VIRTIO_F_RING_PACKED)
#define INDIRECT F(VIRTIO_F_INDIRECT_DESC)
#define ALL	 (PACKED | INDIRECT | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define RUNNING	 0x0f
#define NEXT	 VIRTQ_DESC_F_NEXT
#define WRITE	 VIRTQ_DESC_F_WRITE

/* The entry k places behind the driver's position, available once the driver has come there. */
static void entry(struct vdrv_queue *q, unsigned k, uint64_t addr, uint32_t len, uint16_t flags)
{
	unsigned i = q->avail_idx + k;
	bool wrap = q->avail_wrap ^ (i >= q->size);

	vdrv_desc_set(q, (uint16_t)(i % q->size), addr, len,
		      flags | (wrap ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED), 7);
}

static gpa_t table(struct echo_rig *f)
{
	return vdrv_alloc(&f->r.d, 4096, 16);
}

static void table_set(struct echo_rig *f, gpa_t t, unsigned i, uint64_t addr, uint32_t len,
		      uint16_t flags)
{
	struct pvirtq_desc *d = vdrv_ptr(&f->r.d, t, 4096);

	d[i] = (struct pvirtq_desc){le64_of(addr), le32_of(len), le16_of(0), le16_of(flags)};
}

static void bad_address(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	entry(q, 0, 0x3fffffff000, 8, 0);
}

static void bad_address_wraps(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	entry(q, 0, UINT64_MAX - 3, 8, WRITE);
}

static void bad_end_of_ram(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	entry(q, 0, 32 * MiB - 4, 8, 0);
}

static void bad_direction(struct echo_rig *f, struct vdrv_queue *q)
{
	entry(q, 1, f->out, 8, 0);
	entry(q, 0, f->in, 8, NEXT | WRITE);
}

static void bad_zero_length(struct echo_rig *f, struct vdrv_queue *q)
{
	entry(q, 0, f->out, 0, 0);
}

static void bad_too_many_segments(struct echo_rig *f, struct vdrv_queue *q)
{
	for (unsigned i = ECHO_SEGS + 1; i-- > 0;) {
		entry(q, i, f->out, 1, i < ECHO_SEGS ? NEXT : 0);
	}
}

/* A chain goes round the ring until it meets its own head. */
static void bad_endless(struct echo_rig *f, struct vdrv_queue *q)
{
	for (unsigned i = q->size; i-- > 0;) {
		entry(q, i, f->out, 1, NEXT);
	}
}

static void bad_indirect_nested(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, t, 16, VIRTQ_DESC_F_INDIRECT);
	entry(q, 0, t, 16, VIRTQ_DESC_F_INDIRECT);
}

static void bad_indirect_next(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->out, 8, 0);
	entry(q, 1, f->out, 8, 0);
	entry(q, 0, t, 16, VIRTQ_DESC_F_INDIRECT | NEXT);
}

static void bad_indirect_behind_direct(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->in, 8, WRITE);
	entry(q, 1, t, 16, VIRTQ_DESC_F_INDIRECT);
	entry(q, 0, f->out, 8, NEXT);
}

static void bad_indirect_odd_length(struct echo_rig *f, struct vdrv_queue *q)
{
	entry(q, 0, table(f), 24, VIRTQ_DESC_F_INDIRECT);
}

static void bad_indirect_empty(struct echo_rig *f, struct vdrv_queue *q)
{
	entry(q, 0, table(f), 0, VIRTQ_DESC_F_INDIRECT);
}

static void bad_indirect_outside(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	entry(q, 0, 32 * MiB - 16, 32, VIRTQ_DESC_F_INDIRECT);
}

static void bad_indirect_huge(struct echo_rig *f, struct vdrv_queue *q)
{
	(void)f;
	entry(q, 0, 0xfffffffffffffff0, 0xfffffff0, VIRTQ_DESC_F_INDIRECT);
}

static void bad_indirect_direction(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	table_set(f, t, 0, f->in, 8, WRITE);
	table_set(f, t, 1, f->out, 8, 0);
	entry(q, 0, t, 32, VIRTQ_DESC_F_INDIRECT);
}

static void bad_indirect_too_many(struct echo_rig *f, struct vdrv_queue *q)
{
	gpa_t t = table(f);

	for (unsigned i = 0; i <= ECHO_SEGS; i++) {
		table_set(f, t, i, f->out, 1, 0);
	}
	entry(q, 0, t, 16 * (ECHO_SEGS + 1), VIRTQ_DESC_F_INDIRECT);
}

static const struct {
	const char *name;
	void (*make)(struct echo_rig *f, struct vdrv_queue *q);
	uint16_t queue_size; /* 0: the device's */
} bad[] = {
	{"address outside", bad_address},
	{"address wraps", bad_address_wraps},
	{"over the end of RAM", bad_end_of_ram},
	{"readable after writable", bad_direction},
	{"zero length", bad_zero_length},
	{"too many segments", bad_too_many_segments},
	{"endless", bad_endless, 16},
	{"endless, odd size", bad_endless, 13},
	{"nested indirect", bad_indirect_nested},
	{"indirect with next", bad_indirect_next},
	{"indirect behind direct", bad_indirect_behind_direct},
	{"indirect of 24 bytes", bad_indirect_odd_length},
	{"indirect of 0 bytes", bad_indirect_empty},
	{"indirect outside", bad_indirect_outside},
	{"indirect, huge", bad_indirect_huge},
	{"direction in indirect", bad_indirect_direction},
	{"too many in indirect", bad_indirect_too_many},
};

static void rig_packed_init(struct echo_rig *f, unsigned ram_high_mib)
{
	echo_rig_init_io(f, false, ram_high_mib);
	virtio_offer_packed(&f->e->vd);
}

static void malformed(uint64_t features)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	rig_packed_init(&f, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		uint16_t size = bad[i].queue_size ? bad[i].queue_size : ECHO_QUEUE_SIZE;
		uint8_t *ring = malloc(16ull * size);
		uint64_t irqs;
		unsigned served;

		vdrv_start(d, features, bad[i].queue_size);
		assert_true(d->q[0].packed);
		echo_once(&f, 0, 0);
		irqs = vdrv_irqs(d, 0);
		served = atomic_load(&f.e->served);
		bad[i].make(&f, &d->q[0]);
		memcpy(ring, d->q[0].desc, 16ull * size);
		vdrv_kick_always(&d->q[0]);
		fake_vm_settle(f.r.fv);
		if (!(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET)) {
			fail_msg("'%s' did not break the device", bad[i].name);
		}
		assert_int_equal(vdrv_irqs(d, 0), irqs + 1);
		assert_memory_equal(ring, d->q[0].desc, 16ull * size);
		/* nothing moves any more, on the other queue either */
		vdrv_add(&d->q[1], (struct vdrv_seg[]){{f.out, 8}, {f.in, 8}}, 1, 1, 0);
		vdrv_kick_always(&d->q[1]);
		fake_vm_settle(f.r.fv);
		assert_int_equal(vdrv_used_total(&d->q[1]), 0);
		assert_int_equal(atomic_load(&f.e->served), served);
		free(ring);
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
	malformed(PACKED | INDIRECT);
	(void)state;
}

/* Entries that are no requests yet, or not any more: the device waits. */
static void test_not_available(void **state)
{
	static const uint16_t flags[] = {0, VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED,
					 VIRTQ_DESC_F_USED};
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	rig_packed_init(&f, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		vdrv_start(d, ALL, 0);
		vdrv_desc_set(&d->q[0], 0, UINT64_MAX, UINT32_MAX, flags[i], 0);
		vdrv_kick_always(&d->q[0]);
		fake_vm_settle(f.r.fv);
		assert_int_equal(vdrv_status(d), RUNNING);
		echo_once(&f, 0, 0);
	}
	echo_rig_fini(&f);
	(void)state;
}

/* Lengths that add up to more than a used entry can say. */
static void test_size_overflow(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	rig_packed_init(&f, 2048);
	vdrv_start(d, PACKED, 0);
	for (unsigned i = 3; i-- > 0;) {
		entry(&d->q[0], i, 4 * GiB, 2047 * MiB, i < 2 ? NEXT : 0);
	}
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

	rig_packed_init(&f, 0);
	vdrv_start(d, PACKED, 0);
	vdrv_add(&d->q[0], (struct vdrv_seg[]){{f.out, 8}, {f.in, 8}}, 1, 1, VDRV_INDIRECT);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	echo_rig_fini(&f);
	(void)state;
}

/* All entries are with the device, and the driver makes them available again (a chain of `slots`
 * entries), or lets a chain run into them. */
static void in_flight_again(unsigned held, unsigned slots)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct vdrv_queue *q = &d->q[0];

	rig_packed_init(&f, 0);
	atomic_store(&f.e->hold, true);
	vdrv_start(d, PACKED, 5);
	for (unsigned i = 0; i < held; i++) {
		vdrv_add(q, (struct vdrv_seg[]){{f.in, 8}}, 0, 1, 0);
	}
	vdrv_kick_always(q);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_status(d), RUNNING);
	assert_int_equal(atomic_load(&f.e->held), held);
	for (unsigned i = slots; i-- > 0;) {
		entry(q, i, f.in, 8, WRITE | (i + 1 < slots ? NEXT : 0));
	}
	vdrv_kick_always(q);
	fake_vm_settle(f.r.fv);
	assert_true(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	assert_int_equal(atomic_load(&f.e->held), held);
	echo_release(f.e);
	vdrv_start(d, PACKED, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
}

static void test_more_than_the_ring_holds(void **state)
{
	in_flight_again(5, 1);
	in_flight_again(5, 3);
	in_flight_again(3, 3);
	in_flight_again(1, 5);
	(void)state;
}

/* A buffer id means nothing to the device, even one that is in flight or larger than the ring:
 * it comes back as it was. */
static void test_strange_ids(void **state)
{
	static const uint16_t ids[] = {0xffff, 3, 3, 0};
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct vdrv_queue *q = &d->q[0];

	rig_packed_init(&f, 0);
	vdrv_start(d, PACKED, 8);
	for (unsigned i = ARRAY_SIZE(ids); i-- > 0;) {
		vdrv_desc_set(q, (uint16_t)i, f.out, 8, VIRTQ_DESC_F_AVAIL, ids[i]);
	}
	vdrv_kick_always(q);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_status(d), RUNNING);
	assert_int_equal(atomic_load(&f.e->served), ARRAY_SIZE(ids));
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		const struct pvirtq_desc *e = (const void *)&q->desc[i];

		assert_int_equal(le16_get(e->id), ids[i]);
		assert_int_equal(le16_get(e->flags), VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED);
	}
	echo_rig_fini(&f);
	(void)state;
}

/* An event position outside the ring, and event flags that have no meaning: too many interrupts
 * hurt nobody. */
static void test_strange_events(void **state)
{
	static const uint32_t events[] = {64u | 2u << 16, 0x7fffu | 2u << 16,
					  0xffffu | 2u << 16, 3u << 16, 0xfffcu << 16};
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint64_t irqs;

	rig_packed_init(&f, 0);
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
		irqs = vdrv_irqs(d, 1);
		memcpy(d->q[0].avail, &events[i], 4);
		echo_once(&f, 0, 0);
		assert_int_equal(vdrv_irqs(d, 1), irqs + 1);
	}
	assert_int_equal(vdrv_status(d), RUNNING);
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
		{offsetof(struct virtio_pci_common_cfg, queue_driver), 0x101002},
		{offsetof(struct virtio_pci_common_cfg, queue_device), 0x101002},
		{offsetof(struct virtio_pci_common_cfg, queue_desc), 32 * MiB - 16},
		{offsetof(struct virtio_pci_common_cfg, queue_driver), 32 * MiB},
		{offsetof(struct virtio_pci_common_cfg, queue_device), 32 * MiB},
		{offsetof(struct virtio_pci_common_cfg, queue_desc), UINT64_MAX - 15},
		{offsetof(struct virtio_pci_common_cfg, queue_device), RIG_BAR},
	};
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	rig_packed_init(&f, 0);
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

/* A size that only a packed ring may have, and then no packed ring. */
static void test_size_of_the_other_kind(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	rig_packed_init(&f, 0);
	vdrv_status_set(d, 3);
	VDRV_COMMON_SET(d, driver_feature_select, 1);
	VDRV_COMMON_SET(d, driver_feature, 1 | 1u << (VIRTIO_F_RING_PACKED - 32));
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_size, 0);
	VDRV_COMMON_SET(d, queue_size, ECHO_QUEUE_SIZE + 1);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	VDRV_COMMON_SET(d, queue_size, 13);
	assert_int_equal(VDRV_COMMON(d, queue_size), 13);
	VDRV_COMMON_SET(d, driver_feature, 1);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	vdrv_status_set(d, 0xb);
	VDRV_COMMON_SET(d, queue_size, 13);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	echo_rig_fini(&f);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_not_available),
		cmocka_unit_test(test_size_overflow),
		cmocka_unit_test(test_indirect_not_negotiated),
		cmocka_unit_test(test_more_than_the_ring_holds),
		cmocka_unit_test(test_strange_ids),
		cmocka_unit_test(test_strange_events),
		cmocka_unit_test(test_bad_rings),
		cmocka_unit_test(test_size_of_the_other_kind),
	};

	return cmocka_run_group_tests_name("virtio, bad packed rings", tests, NULL, NULL);
}
