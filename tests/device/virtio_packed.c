/*
 * What is special about packed rings that follow the rules: any size, chains around the end,
 * completion out of order, event positions in two rounds, state in the middle of a round. What
 * both kinds of rings have in common the other tests show, which run on each of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"

#define F(bit)	(UINT64_C(1) << (bit))
#define PACKED	F(VIRTIO_F_RING_PACKED)
#define EVENTS	(PACKED | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_INDIRECT_DESC))
#define RUNNING 0x0f
#define WRAP	(1u << 15)

static void packed_init(struct echo_rig *f)
{
	echo_rig_init(f);
	virtio_offer_packed(&f->e->vd);
}

/* Chains of 1 to 5 entries, direct and indirect mixed, in rings of every size. */
static void test_sizes_and_chains(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	packed_init(&f);
	for (uint16_t size = 1; size <= ECHO_QUEUE_SIZE; size += size < 12 ? 1 : 13) {
		vdrv_start(d, EVENTS, size);
		for (unsigned i = 0; i < 200; i++) {
			unsigned n = 1 + i % MIN(size, 5u);
			struct vdrv_seg seg[5];
			uint16_t id;
			uint32_t len;
			int head;

			for (unsigned k = 0; k < n; k++) {
				seg[k] = (struct vdrv_seg){f.in + 8 * k, 8};
			}
			seg[0].addr = n > 1 ? f.out : f.in;
			head = vdrv_add(&d->q[0], seg, n > 1, n > 1 ? n - 1 : 1,
					i % 3 == 0 ? VDRV_INDIRECT : 0);
			assert_true(head >= 0);
			vdrv_kick(&d->q[0]);
			assert_true(vdrv_wait(&d->q[0], &id, &len));
			assert_int_equal(id, head);
			assert_int_equal(len, n > 1 ? 8 : 0);
			assert_int_equal(d->q[0].nfree, size);
		}
	}
	assert_int_equal(vdrv_status(d), RUNNING);
	echo_rig_fini(&f);
	(void)state;
}

/* One interrupt in two rounds of the ring, exactly when the entry with the event is used. */
static void test_event_position(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct vdrv_queue *q = &d->q[0];
	const unsigned size = 5;

	packed_init(&f);
	vdrv_start(d, EVENTS, size);
	echo_once(&f, 0, VDRV_INDIRECT); /* the first is always heard of */
	for (unsigned start = 0; start < 2 * size; start++) {
		for (unsigned ahead = 0; ahead < 2 * size; ahead++) {
			unsigned at =
				(q->last_used + (q->used_wrap ? 0 : size) + ahead) % (2 * size);
			uint32_t event = at % size | (at < size ? WRAP : 0) |
					 (uint32_t)RING_EVENT_FLAGS_DESC << 16;

			memcpy(q->avail, &event, sizeof(event));
			for (unsigned i = 0; i < 2 * size; i++) {
				uint64_t irqs = vdrv_irqs(d, 1);

				echo_once(&f, 0, VDRV_INDIRECT);
				assert_int_equal(vdrv_irqs(d, 1) - irqs, i == ahead);
			}
		}
		vdrv_irq_off(q);
		echo_once(&f, 0, VDRV_INDIRECT); /* the next starting position */
	}
	echo_rig_fini(&f);
	(void)state;
}

static void hold(struct echo_rig *f, unsigned n)
{
	struct vdrv *d = &f->r.d;

	atomic_store(&f->e->hold, true);
	for (unsigned i = 0; i < n; i++) {
		assert_true(vdrv_add(&d->q[0], (struct vdrv_seg[]){{f->out, 8}, {f->in, 8}}, 1,
				     1, 0) >= 0);
	}
	vdrv_kick(&d->q[0]);
	fake_vm_settle(f->r.fv);
	assert_int_equal(atomic_load(&f->e->held), n);
}

/* A batch is one interrupt if the event is anywhere in it, also inside a chain, and none if it is
 * before or behind it. */
static void test_event_in_a_batch(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct vdrv_queue *q = &d->q[0];
	uint16_t id;
	uint32_t len;

	packed_init(&f);
	vdrv_start(d, EVENTS, 16);
	echo_once(&f, 0, 0);
	for (int rel = -3; rel < 12; rel++) {
		unsigned at =
			(unsigned)(q->last_used + (q->used_wrap ? 0 : 16) + 32 + rel) % 32;
		uint32_t event =
			at % 16 | (at < 16 ? WRAP : 0) | (uint32_t)RING_EVENT_FLAGS_DESC << 16;
		uint64_t irqs = vdrv_irqs(d, 1);

		memcpy(q->avail, &event, sizeof(event));
		hold(&f, 4);
		echo_release(f.e);
		for (unsigned i = 0; i < 4; i++) {
			assert_true(vdrv_wait(q, &id, &len));
		}
		fake_vm_settle(f.r.fv);
		assert_int_equal(vdrv_irqs(d, 1) - irqs, rel >= 0 && rel < 8);
	}
	echo_rig_fini(&f);
	(void)state;
}

/* The device says in DESC mode where it wants a kick, and DISABLE while it works. */
static void test_kicks(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct vdrv_queue *q = &d->q[0];
	uint32_t event;

	packed_init(&f);
	vdrv_start(d, EVENTS, 8);
	for (unsigned i = 0; i < 40; i++) {
		memcpy(&event, q->used, sizeof(event));
		assert_int_equal(event, q->avail_idx | (q->avail_wrap ? WRAP : 0) |
						(uint32_t)RING_EVENT_FLAGS_DESC << 16);
		assert_false(vdrv_kick_wanted(q));
		echo_once(&f, 0, i % 2 ? VDRV_INDIRECT : 0);
	}
	vdrv_start(d, PACKED, 8);
	memcpy(&event, q->used, sizeof(event));
	assert_int_equal(event, (uint32_t)RING_EVENT_FLAGS_ENABLE << 16);
	virtq_kicks_off(&f.e->vd.queue[0]);
	memcpy(&event, q->used, sizeof(event));
	assert_int_equal(event, (uint32_t)RING_EVENT_FLAGS_DISABLE << 16);
	echo_rig_fini(&f);
	(void)state;
}

/* Stopped and moved to another machine at every position of two rounds. */
static void test_transfer_anywhere(void **state)
{
	for (unsigned n = 0; n <= 10; n++) {
		struct echo_rig a, b;
		struct err err = {.msg = ""};

		packed_init(&a);
		packed_init(&b);
		vdrv_start(&a.r.d, EVENTS, 5);
		for (unsigned i = 0; i < n; i++) {
			echo_once(&a, 0, VDRV_INDIRECT);
		}
		fake_vm_pause(a.r.fv);
		fake_vm_pause(b.r.fv);
		memcpy(mem_region_host(b.r.fv->ram), mem_region_host(a.r.fv->ram),
		       mem_region_size(a.r.fv->ram));
		assert_int_equal(fake_vm_transfer(a.r.fv, b.r.fv, &err), 0);
		vdrv_adopt(&b.r.d, &a.r.d, b.r.fv, &b.r.root);
		b.out = a.out;
		b.in = a.in;
		echo_rig_fini(&a);
		device_list_resume(&b.r.fv->devices);
		for (unsigned i = 0; i < 20; i++) {
			echo_once(&b, 0, i % 3 ? VDRV_INDIRECT : 0);
		}
		echo_rig_fini(&b);
	}
	(void)state;
}

/* A queue that is reset starts anew: both wrap counters are 1, whatever they were. */
static void test_queue_reset(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	packed_init(&f);
	vdrv_start(d, EVENTS | F(VIRTIO_F_RING_RESET), 3);
	for (unsigned n = 0; n < 8; n++) {
		for (unsigned i = 0; i < n; i++) {
			echo_once(&f, 0, VDRV_INDIRECT);
		}
		hold(&f, 1);
		VDRV_COMMON_SET(d, queue_select, 0);
		VDRV_COMMON_SET(d, queue_reset, 1);
		echo_release(f.e);
		assert_true(vdrv_queue_reset(d, 0));
		vdrv_queue_setup(d, 0, (uint16_t)(2 + n));
		vdrv_queue_enable(d, 0);
		echo_once(&f, 1, 0);
	}
	echo_once(&f, 0, 0);
	assert_int_equal(vdrv_status(d), RUNNING);
	echo_rig_fini(&f);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_and_chains),  cmocka_unit_test(test_event_position),
		cmocka_unit_test(test_event_in_a_batch),  cmocka_unit_test(test_kicks),
		cmocka_unit_test(test_transfer_anywhere), cmocka_unit_test(test_queue_reset),
	};

	return cmocka_run_group_tests_name("virtio packed", tests, NULL, NULL);
}
