/*
 * Drivers that break the rules of the rings: each kind of malformed chain breaks the device,
 * with one interrupt and nothing written, and a reset repairs it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "bad.h"
#include "echo.h"

#define F(bit)	(UINT64_C(1) << (bit))
#define ALL	(F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define RUNNING 0x0f

static void too_many_segments(struct echo_rig *f, struct vdrv_queue *q)
{
	for (uint16_t i = 0; i < ECHO_SEGS + 1; i++) {
		vdrv_desc_set(q, i, f->out, 1, i < ECHO_SEGS ? VIRTQ_DESC_F_NEXT : 0,
			      (uint16_t)(i + 1));
	}
	vdrv_avail_put(q, 0);
}

/* Broken, with one interrupt and nothing written, and standing still on every queue. */
static void check_broken(struct echo_rig *f, const char *name, uint64_t irqs, unsigned served)
{
	struct vdrv *d = &f->r.d;

	vdrv_kick_always(&d->q[0]);
	fake_vm_settle(f->r.fv);
	if (!(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET)) {
		fail_msg("'%s' did not break the device", name);
	}
	assert_int_equal(vdrv_irqs(d, 0), irqs + 1);
	assert_int_equal(vdrv_used_total(&d->q[0]), 1);
	vdrv_add(&d->q[1], (struct vdrv_seg[]){{f->out, 8}, {f->in, 8}}, 1, 1, 0);
	vdrv_kick_always(&d->q[1]);
	fake_vm_settle(f->r.fv);
	assert_int_equal(vdrv_used_total(&d->q[1]), 0);
	assert_int_equal(atomic_load(&f->e->served), served);
}

static void malformed(uint64_t features)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct bad_mem m;

	echo_rig_init(&f);
	bad_mem_init(&m, d);
	for (unsigned i = 0; i <= bad_nkinds; i++) {
		uint64_t irqs;
		unsigned served;

		vdrv_start(d, features, i % 2 ? 16 : 0);
		echo_once(&f, 0, 0);
		irqs = vdrv_irqs(d, 0);
		served = atomic_load(&f.e->served);
		if (i < bad_nkinds) {
			bad_kinds[i].make(&d->q[0], &m);
			check_broken(&f, bad_kinds[i].name, irqs, served);
		} else {
			too_many_segments(&f, &d->q[0]);
			check_broken(&f, "too many segments", irqs, served);
		}
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
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct bad_mem m;

	echo_rig_init(&f);
	bad_mem_init(&m, d);
	for (unsigned i = 0; i < bad_nrings; i++) {
		assert_true(vdrv_reset(d));
		assert_true(vdrv_negotiate(d, ALL));
		vdrv_queue_setup(d, 0, 0);
		bad_ring_set(d, &bad_rings[i]);
		vdrv_queue_enable(d, 0);
		vdrv_status_set(d, RUNNING);
		fake_vm_settle(f.r.fv);
		if (!(vdrv_status(d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET)) {
			fail_msg("'%s' did not break the device", bad_rings[i].name);
		}
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
