/*
 * Every device type in the hands of a driver that breaks the rules: each malformed chain and ring of
 * bad.c in each of its queues, requests of every wrong shape, and rings that change while the
 * device reads them. The device stands still and says so, or answers; a reset repairs it.
 */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "bad.h"
#include "block/block_int.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/net.h"
#include "device/virtio/rng.h"
#include "fake_chr.h" /* in place of chardev/, see there */
#include "netport.h"
#include "rig.h"
#include "spec/virtio_blk.h"
#include "spec/virtio_console.h"

#define F(bit)	    (UINT64_C(1) << (bit))
#define RING	    (F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define NEEDS_RESET VIRTIO_STATUS_DEVICE_NEEDS_RESET
#define DISK	    (256 * KiB)
#define CHANGES	    20000u

struct suite;
struct subject {
	const char *name;
	uint64_t features;
	unsigned queues[5], nqueues;
	unsigned keeps; /* bits of queues whose good chains wait for the other side */
	void (*create)(struct suite *s, struct virtio_dev **vd);
	/* What makes the device look at its receiving queues. */
	void (*stimulate)(struct suite *s);
	bool (*works)(struct suite *s); /* just started */
	void (*destroyed)(struct suite *s);
	bool iothread; /* its data path may be on one */
};
struct suite {
	const struct subject *t;
	struct rig r;
	struct bad_mem m;
	struct blk_node *node;
	struct netport port;
	struct chr chr;
};

static bool served(struct suite *s, unsigned queue, const struct vdrv_seg *seg, unsigned n_out,
		   unsigned n_in, uint32_t *len)
{
	struct vdrv_queue *q = &s->r.d.q[queue];
	uint16_t head;

	vdrv_add(q, seg, n_out, n_in, 0);
	vdrv_kick(q);
	return vdrv_wait(q, &head, len);
}

/* --- blk --- */

static void blk_create(struct suite *s, struct virtio_dev **vd)
{
	struct virtio_blk_config c = {.serial = "bad", .queue_size = 16, .loop = s->r.iothread};
	uint8_t *disk;
	int rc = blk_mem_new("mem", DISK, &s->node, &disk);

	assert(rc == 0);
	rc = virtio_blk_new(&s->r.fv->vm, s->node, &c, "bad0", vd, NULL);
	assert(rc == 0);
}

static bool blk_works(struct suite *s)
{
	struct virtio_blk_req_hdr h = {le32_of(VIRTIO_BLK_T_IN), le32_of(0), le64_of(3)};
	gpa_t d = s->m.data;
	uint8_t *p = vdrv_ptr(&s->r.d, d, 4096);
	uint32_t len;

	memcpy(p, &h, sizeof(h));
	p[1024] = 0xff;
	return served(s, 0, (struct vdrv_seg[]){{d, 16}, {d + 512, 512}, {d + 1024, 1}}, 1, 2,
		      &len) &&
	       len == 513 && p[1024] == VIRTIO_BLK_S_OK;
}

static void blk_destroyed(struct suite *s)
{
	blk_unref(s->node);
}

/* --- rng --- */

static void rng_create(struct suite *s, struct virtio_dev **vd)
{
	int rc =
		virtio_rng_new(&s->r.fv->vm, &(struct virtio_rng_config){.loop = s->r.iothread},
			       "bad0", vd, NULL);

	assert(rc == 0);
}

static bool rng_works(struct suite *s)
{
	uint32_t len;

	return served(s, 0, (struct vdrv_seg[]){{s->m.data, 64}}, 0, 1, &len) && len == 64;
}

/* --- net --- */

static void net_create(struct suite *s, struct virtio_dev **vd)
{
	struct virtio_net_config c = {
		.mac_set = true,
		.mac = {2},
		.loop = s->r.iothread,
		.rx_queue_size = 64,
		.tx_queue_size = 64,
		.csum = true,
		.gso = true,
		.guest_csum = true,
		.guest_tso = true,
		.mrg_rxbuf = true,
	};
	int rc;

	netport_init(&s->port, NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
	rc = virtio_net_new(&s->r.fv->vm, &s->port.port, &c, "bad0", vd, NULL);
	assert(rc == 0);
}

static void net_stimulate(struct suite *s)
{
	static const uint8_t frame[60] = {0xff};

	if (!netport_waiting(&s->port)) {
		netport_put(&s->port, &(struct virtio_net_hdr_v1){0}, frame, sizeof(frame));
	}
}

/* A frame out, and one in. */
static bool net_works(struct suite *s)
{
	gpa_t d = s->m.data;
	unsigned before;
	uint32_t len;

	memset(vdrv_ptr(&s->r.d, d, 128), 0, 128);
	netport_forget(&s->port);
	before = netport_sent(&s->port);
	if (!served(s, 1, (struct vdrv_seg[]){{d, 12}, {d + 12, 60}}, 2, 0, &len) ||
	    netport_sent(&s->port) != before + 1) {
		return false;
	}
	net_stimulate(s);
	return served(s, 0, (struct vdrv_seg[]){{d, 2048}}, 0, 1, &len) && len == 72;
}

static void net_destroyed(struct suite *s)
{
	netport_fini(&s->port);
}

/* --- console --- */

static void console_create(struct suite *s, struct virtio_dev **vd)
{
	struct virtio_port_config port = {
		.chr = &s->chr, .console = true, .nr = 0, .name = "bad"};
	int rc = virtio_serial_new(&s->r.fv->vm, &(struct virtio_serial_config){.max_ports = 2},
				   "bad0", vd, NULL);

	assert(rc == 0);
	fake_chr_init(&s->chr);
	rc = virtio_serial_add_port(*vd, &port, NULL);
	assert(rc == 0);
}

static void console_stimulate(struct suite *s)
{
	if (!s->chr.in_len) {
		fake_chr_feed(&s->chr, "x", 1);
	}
}

static bool console_works(struct suite *s)
{
	gpa_t d = s->m.data;
	size_t before = s->chr.sent_len;
	uint32_t len;

	if (!served(s, 1, (struct vdrv_seg[]){{d, 5}}, 1, 0, &len) ||
	    s->chr.sent_len != before + 5) {
		return false;
	}
	console_stimulate(s);
	return served(s, 0, (struct vdrv_seg[]){{d, 16}}, 0, 1, &len) && len >= 1;
}

static void control_ready(struct suite *s)
{
	struct vdrv_queue *q = &s->r.d.q[VIRTIO_CONSOLE_Q_CTRL_TX];
	struct virtio_console_control m = {le32_of(0), le16_of(VIRTIO_CONSOLE_DEVICE_READY),
					   le16_of(1)};

	memcpy(vdrv_ptr(&s->r.d, s->m.data + 2048, sizeof(m)), &m, sizeof(m));
	vdrv_add(q, (struct vdrv_seg[]){{s->m.data + 2048, sizeof(m)}}, 1, 0, 0);
	vdrv_kick_always(q);
}

static bool control_works(struct suite *s)
{
	struct virtio_console_control m;
	uint32_t len;

	control_ready(s);
	if (!served(s, VIRTIO_CONSOLE_Q_CTRL_RX, (struct vdrv_seg[]){{s->m.data, 64}}, 0, 1,
		    &len)) {
		return false;
	}
	memcpy(&m, vdrv_ptr(&s->r.d, s->m.data, sizeof(m)), sizeof(m));
	return len == sizeof(m) && le16_get(m.event) == VIRTIO_CONSOLE_DEVICE_ADD;
}

static void console_destroyed(struct suite *s)
{
	fake_chr_fini(&s->chr);
}

static const struct subject subjects[] = {
	{
		.name = "blk",
		.queues = {0},
		.nqueues = 1,
		.features = F(VIRTIO_BLK_F_FLUSH) | F(VIRTIO_BLK_F_DISCARD),
		.create = blk_create,
		.works = blk_works,
		.destroyed = blk_destroyed,
		.iothread = true,
	},
	{
		.name = "rng",
		.queues = {0},
		.nqueues = 1,
		.create = rng_create,
		.works = rng_works,
		.iothread = true,
	},
	{
		.name = "net",
		.features = F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CSUM) |
			    F(VIRTIO_NET_F_MRG_RXBUF),
		.queues = {0, 1, 2},
		.nqueues = 3,
		.keeps = 1,
		.create = net_create,
		.stimulate = net_stimulate,
		.works = net_works,
		.destroyed = net_destroyed,
		.iothread = true,
	},
	{
		.name = "net without merging",
		.features = F(VIRTIO_NET_F_CTRL_VQ),
		.queues = {0},
		.nqueues = 1,
		.keeps = 1,
		.create = net_create,
		.stimulate = net_stimulate,
		.works = net_works,
		.destroyed = net_destroyed,
	},
	{
		.name = "console",
		.queues = {0, 1},
		.nqueues = 2,
		.keeps = 1,
		.create = console_create,
		.stimulate = console_stimulate,
		.works = console_works,
		.destroyed = console_destroyed,
	},
	{
		.name = "console control",
		.features = F(VIRTIO_CONSOLE_F_MULTIPORT),
		.queues = {VIRTIO_CONSOLE_Q_CTRL_RX, VIRTIO_CONSOLE_Q_CTRL_TX},
		.nqueues = 2,
		.keeps = 1u << VIRTIO_CONSOLE_Q_CTRL_RX,
		.create = console_create,
		.stimulate = control_ready,
		.works = control_works,
		.destroyed = console_destroyed,
	},
};

/* --- the suite --- */

static void suite_init(struct suite *s, const struct subject *t, bool iothread)
{
	struct virtio_dev *vd = NULL;

	memset(s, 0, sizeof(*s));
	s->t = t;
	rig_init(&s->r, iothread, 0);
	t->create(s, &vd);
	rig_add(&s->r, vd, "bad0");
	bad_mem_init(&s->m, &s->r.d);
}

static void suite_fini(struct suite *s)
{
	rig_fini(&s->r);
	if (s->t->destroyed) {
		s->t->destroyed(s);
	}
}

static void start(struct suite *s)
{
	vdrv_start(&s->r.d, s->t->features | RING, 0);
}

static void look(struct suite *s, unsigned queue)
{
	vdrv_kick_always(&s->r.d.q[queue]);
	fake_vm_settle(s->r.fv);
	if (s->t->keeps >> queue & 1) {
		s->t->stimulate(s);
		fake_vm_settle(s->r.fv);
	}
}

static void check_works(struct suite *s, const char *after)
{
	start(s);
	if (!s->t->works(s)) {
		fail_msg("%s: does not work after '%s' and a reset", s->t->name, after);
	}
	assert_int_equal(vdrv_status(&s->r.d), 0xf);
}

static void check_broken(struct suite *s, const char *name, uint64_t irqs)
{
	if (!(vdrv_status(&s->r.d) & NEEDS_RESET)) {
		fail_msg("%s: '%s' did not break the device", s->t->name, name);
	}
	assert_int_equal(vdrv_irqs(&s->r.d, 0), irqs + 1);
}

static void test_chains(void **state)
{
	static struct suite s;

	for (unsigned t = 0; t < ARRAY_SIZE(subjects); t++) {
		suite_init(&s, &subjects[t], false);
		for (unsigned i = 0; i < bad_nkinds * subjects[t].nqueues; i++) {
			const struct bad_kind *k = &bad_kinds[i % bad_nkinds];
			unsigned queue = subjects[t].queues[i / bad_nkinds];
			uint64_t irqs;

			start(&s);
			irqs = vdrv_irqs(&s.r.d, 0);
			k->make(&s.r.d.q[queue], &s.m);
			look(&s, queue);
			check_broken(&s, k->name, irqs);
			assert_int_equal(s.r.d.q[queue].used[1], 0);
			check_works(&s, k->name);
		}
		suite_fini(&s);
	}
	(void)state;
}

static void test_rings(void **state)
{
	static struct suite s;

	for (unsigned t = 0; t < ARRAY_SIZE(subjects); t++) {
		struct vdrv *d = &s.r.d;

		suite_init(&s, &subjects[t], false);
		for (unsigned i = 0; i < bad_nrings * subjects[t].nqueues; i++) {
			const struct bad_ring *b = &bad_rings[i % bad_nrings];
			unsigned queue = subjects[t].queues[i / bad_nrings];

			assert_true(vdrv_reset(d));
			assert_true(vdrv_negotiate(d, subjects[t].features | RING));
			vdrv_queue_setup(d, queue, 0);
			bad_ring_set(d, b);
			vdrv_queue_enable(d, queue);
			vdrv_status_set(d, 0xf);
			fake_vm_settle(s.r.fv);
			if (!(vdrv_status(d) & NEEDS_RESET)) {
				fail_msg("%s: ring with '%s' accepted", subjects[t].name,
					 b->name);
			}
			check_works(&s, b->name);
		}
		suite_fini(&s);
	}
	(void)state;
}

/* Chains that are chains, but no request of this device: answered, refused, or kept for later
 * where the queue keeps buffers. */
static void test_shapes(void **state)
{
	static const uint16_t len[] = {0, 1, 2, 7, 8, 11, 12, 13, 15, 16, 17, 40, 513, 4096};
	static struct suite s;

	for (unsigned t = 0; t < ARRAY_SIZE(subjects); t++) {
		suite_init(&s, &subjects[t], false);
		for (unsigned i = 1;
		     i < ARRAY_SIZE(len) * ARRAY_SIZE(len) * subjects[t].nqueues; i++) {
			unsigned out = len[i % ARRAY_SIZE(len)];
			unsigned in = len[i / ARRAY_SIZE(len) % ARRAY_SIZE(len)];
			unsigned queue =
				subjects[t].queues[i / ARRAY_SIZE(len) / ARRAY_SIZE(len)];
			struct vdrv_seg seg[2] = {{s.m.data, out ? out : in}, {s.m.data, in}};
			struct vdrv_queue *q = &s.r.d.q[queue];
			bool kept, answered, broken;
			uint32_t used;
			uint16_t head;

			if (!out && !in) {
				continue;
			}
			memset(vdrv_ptr(&s.r.d, s.m.data, 4096), i % 3 ? 0xff : 0, 4096);
			start(&s);
			vdrv_add(q, seg, out > 0, in > 0, i % 2 ? VDRV_INDIRECT : 0);
			look(&s, queue);
			answered = vdrv_used(q, &head, &used);
			broken = vdrv_status(&s.r.d) & NEEDS_RESET;
			kept = (subjects[t].keeps >> queue & 1) && !out;
			if (!answered && !broken && !kept) {
				fail_msg("%s: %u bytes out and %u in vanish in queue %u",
					 subjects[t].name, out, in, queue);
			}
			assert_true(!answered || used <= in);
			check_works(&s, "an odd request");
		}
		suite_fini(&s);
	}
	(void)state;
}

/* --- while the device reads --- */

static uint32_t next(uint64_t *x)
{
	*x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*x >> 33);
}

/* A step of a driver that writes its rings at any time: good descriptors and bad ones, the
 * index, a doorbell. */
static void change(struct suite *s, uint64_t *x)
{
	struct vdrv_queue *q = &s->r.d.q[s->t->queues[next(x) % s->t->nqueues]];
	uint64_t at = next(x) % 64 ? s->m.data + next(x) % 2048 : BAD_FIRMWARE;
	/* most chains are one to be read, one to be written, one that ends it */
	static const uint16_t flags[] = {
		VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, VIRTQ_DESC_F_WRITE};
	uint16_t i = (uint16_t)(next(x) & (q->size - 1));

	vdrv_desc_set(q, i, at, next(x) % 8 ? 16 : next(x) % 1024,
		      next(x) % 64 ? flags[i % 3] : (uint16_t)(next(x) & 7),
		      (uint16_t)((i + 1u) & (q->size - 1u)));
	if (next(x) % 4 == 0) {
		vdrv_avail_put(q, (uint16_t)(next(x) % 64 ? i / 3u * 3u : next(x)));
	}
	if (next(x) % 8 == 0) {
		vdrv_kick_always(q);
	}
}

static void test_changes(void **state)
{
	static struct suite s;

	for (unsigned t = 0; t < ARRAY_SIZE(subjects); t++) {
		uint64_t x = 1;
		unsigned broken = 0;

		if (!subjects[t].iothread) {
			continue;
		}
		suite_init(&s, &subjects[t], true);
		start(&s);
		for (unsigned i = 0; i < CHANGES; i++) {
			change(&s, &x);
			if (i % 64 == 0) {
				if (s.t->stimulate) {
					s.t->stimulate(&s);
				}
				fake_vm_settle(s.r.fv);
				if (vdrv_status(&s.r.d) & NEEDS_RESET) {
					broken++;
					start(&s);
				}
			}
		}
		assert_true(broken > 0);
		check_works(&s, "changing rings");
		suite_fini(&s);
	}
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_rings),
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_changes),
	};

	return cmocka_run_group_tests_name("virtio, hostile drivers", tests, NULL, NULL);
}
