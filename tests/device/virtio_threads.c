/*
 * The same with real threads: a vCPU that drives the queues, an iothread that owns them, and
 * the control loop that pauses, resets, moves the BAR and masks vectors meanwhile. What is
 * shown is that nothing is lost and (under a thread sanitizer) that nothing is shared by
 * accident.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"

#define F(bit) (UINT64_C(1) << (bit))
#define ALL    (F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))

struct vcpu {
	struct echo_rig *f;
	struct fake_cpu cpu;
	pthread_t thread;
	_Atomic bool done, failed;
	unsigned requests;
	uint64_t other_bar; /* kicks go to both places; 0: BAR stays */
};

static void vcpu_main_end(struct vcpu *v, bool ok)
{
	atomic_store(&v->failed, !ok);
	atomic_store(&v->done, true);
}

static void kick_everywhere(struct vcpu *v, struct vdrv_queue *q)
{
	vdrv_kick_always(q);
	if (v->other_bar) {
		fake_cpu_mmio_write(&v->cpu, q->notify - RIG_BAR + v->other_bar, q->index, 2);
	}
}

/* Keeps both queues full until `requests` have come back. */
static void *stream_main(void *arg)
{
	struct vcpu *v = arg;
	struct vdrv *d = &v->f->r.d;
	struct vdrv_seg seg[2] = {{v->f->out, 64}, {v->f->in, 64}};
	unsigned back = 0;
	uint64_t last = now_ns();

	while (back < v->requests && now_ns() - last < UINT64_C(20000000000)) {
		for (unsigned i = 0; i < ECHO_QUEUES; i++) {
			struct vdrv_queue *q = &d->q[i];
			uint16_t head;
			uint32_t len;

			while (vdrv_add(q, seg, 1, 1, VDRV_INDIRECT) >= 0) {
			}
			kick_everywhere(v, q);
			while (vdrv_used(q, &head, &len)) {
				back++;
				last = now_ns();
			}
		}
		vdrv_settle(d);
	}
	vcpu_main_end(v, back >= v->requests);
	return NULL;
}

static void vcpu_start(struct vcpu *v, struct echo_rig *f, void *(*fn)(void *))
{
	v->f = f;
	atomic_init(&v->done, false);
	atomic_init(&v->failed, false);
	fake_cpu_init(&v->cpu, f->r.fv);
	f->r.d.cpu = &v->cpu;
	assert_int_equal(pthread_create(&v->thread, NULL, fn, v), 0);
}

static void vcpu_join(struct vcpu *v)
{
	while (!atomic_load(&v->done)) {
		loop_step(v->f->r.fv->vm.loop, 1);
	}
	pthread_join(v->thread, NULL);
	v->f->r.d.cpu = NULL;
	fake_cpu_fini(&v->cpu);
	assert_false(atomic_load(&v->failed));
}

static void steps(struct echo_rig *f, unsigned n)
{
	while (n-- > 0) {
		loop_step(f->r.fv->vm.loop, 1);
	}
}

static void test_pause_under_load(void **state)
{
	struct vcpu v = {.requests = 20000};
	struct echo_rig f;
	unsigned pauses = 0;

	echo_rig_init_io(&f, true, 0);
	vdrv_start(&f.r.d, ALL, 0);
	vcpu_start(&v, &f, stream_main);
	while (!atomic_load(&v.done)) {
		fake_vm_pause(f.r.fv);
		pauses++;
		steps(&f, 1);
		device_list_resume(&f.r.fv->devices);
		steps(&f, 3);
	}
	vcpu_join(&v);
	assert_true(pauses > 0);
	assert_true(vdrv_irqs(&f.r.d, 1) > 0);
	echo_rig_fini(&f);
	(void)state;
}

static void bar_place(struct vdrv *d, uint64_t bar)
{
	pci_cfg_write(d->root, 0, d->devfn, 0x20, 4, (uint32_t)bar);
	pci_cfg_write(d->root, 0, d->devfn, 0x24, 4, (uint32_t)(bar >> 32));
}

static void test_bar_moves_under_load(void **state)
{
	struct vcpu v = {.requests = 20000, .other_bar = RIG_BAR + 0x40000000};
	struct echo_rig f;
	unsigned moves = 0;

	echo_rig_init_io(&f, true, 0);
	vdrv_start(&f.r.d, ALL, 0);
	vcpu_start(&v, &f, stream_main);
	while (!atomic_load(&v.done)) {
		bar_place(&f.r.d, ++moves % 2 ? v.other_bar : RIG_BAR);
		steps(&f, 2);
	}
	bar_place(&f.r.d, RIG_BAR);
	vcpu_join(&v);
	assert_true(moves > 0);
	assert_int_equal(f.r.fv->doorbells.count, ECHO_QUEUES);
	echo_rig_fini(&f);
	(void)state;
}

/* Masked while the device is at work, a vector is pending and fires once when unmasked. */
static void test_masking_under_load(void **state)
{
	struct vcpu v = {.requests = 20000};
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint64_t ctrl;

	echo_rig_init_io(&f, true, 0);
	vdrv_start(d, F(VIRTIO_F_INDIRECT_DESC), 0);
	ctrl = d->msix_table + 16 + 12;
	vcpu_start(&v, &f, stream_main);
	while (!atomic_load(&v.done)) {
		uint64_t masked;

		fake_mmio_write(f.r.fv, ctrl, 1, 4);
		masked = vdrv_irqs(d, 1);
		steps(&f, 2);
		assert_int_equal(vdrv_irqs(d, 1), masked);
		fake_mmio_write(f.r.fv, ctrl, 0, 4);
		steps(&f, 1);
	}
	vcpu_join(&v);
	while (d->q[0].pending) {
		uint16_t head;
		uint32_t len;

		assert_true(vdrv_wait(&d->q[0], &head, &len));
	}
	/* with the last one unmasked, the next request is heard of */
	ctrl = vdrv_irqs(d, 1);
	echo_once(&f, 0, 0);
	assert_true(vdrv_irqs(d, 1) > ctrl);
	echo_rig_fini(&f);
	(void)state;
}

/* A driver that resets device and queues all the time, with requests on their way. */
static void *resets_main(void *arg)
{
	struct vcpu *v = arg;
	struct vdrv *d = &v->f->r.d;
	struct vdrv_seg seg[2] = {{v->f->out, 64}, {v->f->in, 64}};
	bool ok = true;

	for (unsigned round = 0; round < v->requests && ok; round++) {
		d->mem_next = VDRV_MEM_BASE + 0x400000;
		memset(d->q, 0, sizeof(d->q));
		vdrv_start(d, ALL, 0);
		for (unsigned i = 0; i < ECHO_QUEUES; i++) {
			for (unsigned k = 0; k < 8; k++) {
				vdrv_add(&d->q[i], seg, 1, 1, 0);
			}
			vdrv_kick(&d->q[i]);
		}
		if (round % 3 == 0) {
			ok = vdrv_queue_reset(d, 1);
			vdrv_queue_setup(d, 1, 4);
			vdrv_queue_enable(d, 1);
			vdrv_add(&d->q[1], seg, 1, 1, 0);
			vdrv_kick(&d->q[1]);
		}
		if (round % 5 == 0) {
			uint16_t head;
			uint32_t len;

			ok = ok && vdrv_wait(&d->q[1], &head, &len) && len == 64;
		}
	}
	vcpu_main_end(v, ok && vdrv_reset(d));
	return NULL;
}

static void test_resets_under_load(void **state)
{
	struct vcpu v = {.requests = 200};
	struct echo_rig f;

	echo_rig_init_io(&f, true, 0);
	vcpu_start(&v, &f, resets_main);
	while (!atomic_load(&v.done)) {
		steps(&f, 20);
		fake_vm_pause(f.r.fv);
		device_list_resume(&f.r.fv->devices);
	}
	vcpu_join(&v);
	echo_rig_fini(&f);
	(void)state;
}

/* Requests held by the device, released by a third thread while a reset waits. */
static void *release_main(void *arg)
{
	struct echo *e = arg;

	while (!atomic_load(&e->held)) {
	}
	echo_release(e);
	return NULL;
}

static void test_reset_waits_for_iothread(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	pthread_t t;

	echo_rig_init_io(&f, true, 0);
	for (int i = 0; i < 50; i++) {
		vdrv_start(d, ALL, 0);
		atomic_store(&f.e->hold, true);
		assert_int_equal(pthread_create(&t, NULL, release_main, f.e), 0);
		vdrv_add(&d->q[0], (struct vdrv_seg[]){{f.out, 64}, {f.in, 64}}, 1, 1, 0);
		vdrv_kick(&d->q[0]);
		while (!atomic_load(&f.e->held) && atomic_load(&f.e->hold)) {
			vdrv_settle(d);
		}
		assert_true(vdrv_reset(d));
		pthread_join(t, NULL);
		assert_int_equal(atomic_load(&f.e->held), 0);
	}
	echo_rig_fini(&f);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pause_under_load),
		cmocka_unit_test(test_bar_moves_under_load),
		cmocka_unit_test(test_masking_under_load),
		cmocka_unit_test(test_resets_under_load),
		cmocka_unit_test(test_reset_waits_for_iothread),
	};

	return cmocka_run_group_tests_name("virtio threads", tests, NULL, NULL);
}
