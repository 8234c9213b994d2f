/*
 * Resets, pause, state and BAR moves in mid-operation, with an echo device that keeps requests
 * in flight for as long as the test likes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"
#include "virtio/parked.h"

#define F(bit)	(UINT64_C(1) << (bit))
#define ALL	(F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define RUNNING 0x0f
#define DATA	ECHO_DATA

/* --- stopping in mid-operation --- */

static void hold_some(struct echo_rig *f, unsigned n)
{
	struct vdrv *d = &f->r.d;

	atomic_store(&f->e->hold, true);
	for (unsigned i = 0; i < n; i++) {
		vdrv_add(&d->q[0], (struct vdrv_seg[]){{f->out, DATA}, {f->in, DATA}}, 1, 1, 0);
	}
	vdrv_kick(&d->q[0]);
	while (atomic_load(&f->e->held) < n) {
		vdrv_settle(d);
	}
}

static void test_device_reset_in_mid_io(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	hold_some(&f, 5);
	vdrv_status_set(d, 0);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_status(d), RUNNING);
	/* a driver that does not wait gets nothing */
	vdrv_status_set(d, 1);
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_reset, 1);
	VDRV_COMMON_SET(d, queue_enable, 1);
	assert_int_equal(vdrv_status(d), RUNNING);
	assert_int_equal(atomic_load(&f.e->resets), 1); /* of vdrv_start() */
	echo_release(f.e);
	assert_true(vdrv_reset(d));
	assert_int_equal(atomic_load(&f.e->resets), 2);
	assert_int_equal(f.e->vd.acked, 0);
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

static void test_queue_reset_in_mid_io(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	hold_some(&f, 3);
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_reset, 1);
	fake_vm_settle(f.r.fv);
	assert_int_equal(VDRV_COMMON(d, queue_reset), 1);
	VDRV_COMMON_SET(d, queue_enable, 1); /* not now */
	/* requests that come too late are not taken */
	vdrv_add(&d->q[0], (struct vdrv_seg[]){{f.out, DATA}, {f.in, DATA}}, 1, 1, 0);
	vdrv_kick_always(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_int_equal(atomic_load(&f.e->held), 3);
	echo_release(f.e);
	assert_true(vdrv_queue_reset(d, 0));
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	assert_int_equal(VDRV_COMMON(d, queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
	/* the other queue went on, and goes on */
	echo_once(&f, 1, 0);
	assert_int_equal(vdrv_status(d), RUNNING);
	/* enabled again with another size */
	vdrv_queue_setup(d, 0, 8);
	vdrv_queue_enable(d, 0);
	echo_once(&f, 0, 0);
	echo_once(&f, 0, VDRV_INDIRECT);
	assert_int_equal(vdrv_used_total(&d->q[0]), 2);
	echo_rig_fini(&f);
	(void)state;
}

/* Queue reset, device reset and pause all at once, then everything comes to an end. */
static void test_resets_and_pause_overlap(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	hold_some(&f, 3);
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_reset, 1);
	vdrv_status_set(d, 0);
	echo_release(f.e);
	fake_vm_pause(f.r.fv);
	assert_int_equal(vdrv_status(d), 0);
	assert_int_equal(atomic_load(&f.e->held), 0);
	device_list_resume(&f.r.fv->devices);
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

static void test_pause_resume(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint16_t head;
	uint32_t len;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	hold_some(&f, 4);
	f.r.fv->all_paused = false;
	echo_release(f.e);
	fake_vm_pause(f.r.fv);
	/* what was in flight is finished */
	for (int i = 0; i < 4; i++) {
		assert_true(vdrv_used(&d->q[0], &head, &len));
	}
	/* what comes now waits */
	vdrv_add(&d->q[0], (struct vdrv_seg[]){{f.out, DATA}, {f.in, DATA}}, 1, 1, 0);
	vdrv_kick(&d->q[0]);
	fake_vm_settle(f.r.fv);
	assert_false(vdrv_used(&d->q[0], &head, &len));
	device_list_resume(&f.r.fv->devices);
	assert_true(vdrv_wait(&d->q[0], &head, &len));
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

/* The machine's reset: everything is as it was at first, the BAR is away. */
static void test_machine_reset(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	assert_int_equal(f.r.fv->doorbells.count, ECHO_QUEUES);
	fake_vm_pause(f.r.fv);
	device_list_reset(&f.r.fv->devices);
	device_list_resume(&f.r.fv->devices);
	assert_int_equal(f.r.fv->doorbells.count, 0);
	assert_int_equal(vdrv_status(d), 0xff); /* nobody there */
	assert_int_equal(atomic_load(&f.e->vd.status), 0);
	vdrv_init(d, f.r.fv, &f.r.root, PCI_DEVFN(3, 0), RIG_BAR + 0x100000);
	f.out = vdrv_alloc(d, 4096, 4096);
	f.in = vdrv_alloc(d, 4096, 4096);
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

/* A reset of the bus by the guest, while requests are in flight. */
static void test_bus_reset_in_mid_io(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct pci_func *func;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	hold_some(&f, 3);
	func = pci_find(&f.r.root, 0, d->devfn);
	assert_non_null(func);
	func->ops->bus_reset(func);
	assert_int_equal(f.r.fv->doorbells.count, 0);
	assert_int_equal(atomic_load(&f.e->held), 3);
	assert_true(atomic_load(&f.e->vd.status) != 0);
	echo_release(f.e);
	fake_vm_settle(f.r.fv);
	assert_int_equal(atomic_load(&f.e->vd.status), 0);
	vdrv_init(d, f.r.fv, &f.r.root, PCI_DEVFN(3, 0), RIG_BAR);
	d->mem_next = f.in + 4096;
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

/* --- state --- */

static void test_transfer(void **state)
{
	struct echo_rig a, b;
	struct err err = {.msg = ""};
	uint16_t head;
	uint32_t len;
	unsigned n = 0;

	echo_rig_init(&a);
	echo_rig_init(&b);
	vdrv_start(&a.r.d, ALL, 16);
	for (int i = 0; i < 21; i++) {
		echo_once(&a, 0, VDRV_INDIRECT);
	}
	vdrv_config_set(&a.r.d, 8, 4, 0x11223344);
	hold_some(&a, 2);
	echo_release(a.e);
	fake_vm_pause(a.r.fv);
	/* two are finished and not yet seen by the driver, one more waits to be taken */
	vdrv_add(&a.r.d.q[0], (struct vdrv_seg[]){{a.out, DATA}, {a.in, DATA}}, 1, 1, 0);
	vdrv_kick(&a.r.d.q[0]);
	fake_vm_pause(b.r.fv);
	memcpy(mem_region_host(b.r.fv->ram), mem_region_host(a.r.fv->ram),
	       mem_region_size(a.r.fv->ram));
	assert_int_equal(fake_vm_transfer(a.r.fv, b.r.fv, &err), 0);
	vdrv_adopt(&b.r.d, &a.r.d, b.r.fv, &b.r.root);
	b.out = a.out;
	b.in = a.in;
	echo_rig_fini(&a);
	device_list_resume(&b.r.fv->devices);
	while (n < 3 && vdrv_wait(&b.r.d.q[0], &head, &len)) {
		assert_int_equal(len, DATA);
		n++;
	}
	assert_int_equal(n, 3);
	assert_int_equal(vdrv_status(&b.r.d), RUNNING);
	assert_int_equal(vdrv_config(&b.r.d, 8, 4), 0x11223344);
	for (int i = 0; i < 40; i++) {
		echo_once(&b, 0, VDRV_INDIRECT);
		echo_once(&b, 1, 0);
	}
	assert_true(vdrv_irqs(&b.r.d, 1) > 0);
	echo_rig_fini(&b);
	(void)state;
}

/* A broken device stays broken where it goes, until a reset. */
static void test_transfer_broken(void **state)
{
	struct echo_rig a, b;
	struct err err = {.msg = ""};

	echo_rig_init(&a);
	echo_rig_init(&b);
	vdrv_start(&a.r.d, ALL, 0);
	vdrv_avail_put(&a.r.d.q[0], 0xffff);
	vdrv_kick(&a.r.d.q[0]);
	fake_vm_settle(a.r.fv);
	fake_vm_pause(a.r.fv);
	fake_vm_pause(b.r.fv);
	assert_int_equal(fake_vm_transfer(a.r.fv, b.r.fv, &err), 0);
	vdrv_adopt(&b.r.d, &a.r.d, b.r.fv, &b.r.root);
	b.out = a.out;
	b.in = a.in;
	echo_rig_fini(&a);
	device_list_resume(&b.r.fv->devices);
	fake_vm_settle(b.r.fv);
	assert_true(vdrv_status(&b.r.d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	vdrv_start(&b.r.d, ALL, 0);
	echo_once(&b, 0, 0);
	echo_rig_fini(&b);
	(void)state;
}

/* --- BAR moves --- */

static void test_bar_move(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct fake_doorbells *db;
	uint64_t old = 0;

	echo_rig_init(&f);
	db = &f.r.fv->doorbells;
	vdrv_start(d, ALL, 0);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t to = RIG_BAR + 0x10000000ull * (i % 7) + 0x8000 * i;

		old = d->q[0].notify;
		vdrv_bar_move(d, to);
		assert_int_equal(db->count, ECHO_QUEUES);
		if (d->q[0].notify != old) {
			assert_int_equal(fake_doorbell_find(db, old, 2), -1);
		}
		assert_int_equal(fake_doorbell_find(db, d->q[0].notify, 2),
				 f.e->vd.queue[0].kick_fd);
		echo_once(&f, 0, 0);
		echo_once(&f, 1, VDRV_INDIRECT);
	}
	/* decoding off: nobody there, no doorbells; on again: as before */
	pci_cfg_write(&f.r.root, 0, d->devfn, 4, 2, 4);
	assert_int_equal(db->count, 0);
	assert_int_equal(vdrv_status(d), 0xff);
	pci_cfg_write(&f.r.root, 0, d->devfn, 4, 2, 6);
	assert_int_equal(vdrv_status(d), RUNNING);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

static void test_destroy_frees(void **state)
{
	struct echo_rig f;
	bool destroyed = false;
	struct err err;
	struct echo *e;
	struct device *dev;

	echo_rig_init(&f);
	f.e->destroyed = &destroyed;
	vdrv_start(&f.r.d, ALL, 0);
	/* a second device at the same place, with too many vectors, with the same id */
	for (unsigned i = 0; i < 3; i++) {
		bool gone = false;

		e = echo_new(&f.r.fv->vm, "x", NULL);
		e->destroyed = &gone;
		assert_true(virtio_pci_new(&f.r.fv->vm, &e->vd,
					   &(struct virtio_pci_config){
						   .id = i == 2 ? "echo0" : "echo1",
						   .bus = &f.r.root,
						   .devfn = i == 0 ? PCI_DEVFN(3, 0) : -1,
						   .vectors = i == 1 ? 257 : 0,
					   },
					   &dev, &err) < 0);
		assert_true(gone);
	}
	echo_rig_fini(&f);
	assert_true(destroyed);
	(void)state;
}

static void test_two_machines(void **state)
{
	struct echo_rig a, b;

	echo_rig_init(&a);
	echo_rig_init(&b);
	vdrv_start(&a.r.d, ALL, 0);
	vdrv_start(&b.r.d, 0, 8);
	vdrv_avail_put(&a.r.d.q[0], 0xffff);
	vdrv_kick(&a.r.d.q[0]);
	for (int i = 0; i < 30; i++) {
		echo_once(&b, 0, 0);
	}
	fake_vm_settle(a.r.fv);
	assert_true(vdrv_status(&a.r.d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	assert_int_equal(vdrv_status(&b.r.d), RUNNING);
	echo_rig_fini(&a);
	echo_once(&b, 1, 0);
	echo_rig_fini(&b);
	(void)state;
}

static struct echo_req *parked_here; /* for parked_slot(), which has no argument for it */

static struct virtq_chain *parked_slot(struct virtq *q, unsigned *max)
{
	(void)q;
	*max = ECHO_SEGS;
	parked_here->c.iov = parked_here->iov;
	return &parked_here->c;
}

/* What a saved request says of itself is a stranger's word. */
static void test_parked_hostile(void **state)
{
	struct virtq_parked *st = calloc(1, sizeof(*st));
	struct echo_req here;
	struct echo_rig f;
	struct err err;
	bool packed = rig_packed();
	const struct bad {
		const char *what;
		struct virtq_parked_chain c;
		struct virtq_parked_seg seg[2];
	} bad[] = {
		{"no such queue", {.queue = ECHO_QUEUES, .slots = packed, .n_out = 1}, {{0, 16}}},
		{"place", {.head = ECHO_QUEUE_SIZE, .slots = packed ? 0 : 1, .n_out = 1}, {{0, 16}}},
		{"place", {.slots = ECHO_QUEUE_SIZE + 1, .n_out = 1}, {{0, 16}}},
		{"outside", {.slots = packed, .n_out = 1}, {{UINT64_C(1) << 60, 16}}},
		{"outside", {.slots = packed, .n_in = 1}, {{UINT64_MAX - 7, 16}}},
		{"zero length", {.slots = packed, .n_out = 1, .n_in = 1}, {{0, 16}, {0, 0}}},
		{"4 GiB", {.slots = packed, .n_out = 2}, {{0, 16}, {0, UINT32_MAX}}},
		{"too many", {.slots = packed, .n_out = ECHO_SEGS + 1}, {{0, 16}}},
	};

	echo_rig_init(&f);
	vdrv_start(&f.r.d, ALL, 0);
	parked_here = &here;
	fake_vm_pause(f.r.fv);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		st->nchains = 1;
		st->chain[0] = bad[i].c;
		st->nsegs = bad[i].c.n_out + (uint32_t)bad[i].c.n_in;
		for (unsigned k = 0; k < st->nsegs; k++) {
			st->seg[k] = bad[i].seg[k == 1 && st->nsegs == 2];
		}
		assert_int_equal(virtq_parked_load(st, &f.e->vd, parked_slot, &err), -EINVAL);
		if (!strstr(err.msg, bad[i].what)) {
			fail_msg("%u: %s", i, err.msg);
		}
	}
	/* more of them than the ring has entries */
	st->nchains = st->nsegs = ECHO_QUEUE_SIZE + 1;
	for (unsigned i = 0; i < st->nchains; i++) {
		st->chain[i] = (struct virtq_parked_chain){.slots = packed, .n_out = 1};
		st->seg[i] = (struct virtq_parked_seg){f.out, 16};
	}
	assert_int_equal(virtq_parked_load(st, &f.e->vd, parked_slot, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "place"));
	st->nchains = st->nsegs = ECHO_QUEUE_SIZE;
	assert_int_equal(virtq_parked_load(st, &f.e->vd, parked_slot, &err), 0);
	/* segments that belong to nobody */
	st->nsegs = 1;
	assert_int_equal(virtq_parked_desc.validate(st, &err), -EINVAL);
	device_list_resume(&f.r.fv->devices);
	echo_rig_fini(&f);
	free(st);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_reset_in_mid_io),
		cmocka_unit_test(test_queue_reset_in_mid_io),
		cmocka_unit_test(test_resets_and_pause_overlap),
		cmocka_unit_test(test_pause_resume),
		cmocka_unit_test(test_machine_reset),
		cmocka_unit_test(test_bus_reset_in_mid_io),
		cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_transfer_broken),
		cmocka_unit_test(test_parked_hostile),
		cmocka_unit_test(test_bar_move),
		cmocka_unit_test(test_destroy_frees),
		cmocka_unit_test(test_two_machines),
	};

	return cmocka_run_group_tests_name("virtio life", tests, NULL, NULL);
}
