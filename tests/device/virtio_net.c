/*
 * virtio-net through the PCI transport, with a back end that keeps and makes frames: features,
 * transmit with good and hostile headers, receive into every layout of buffers, no buffers,
 * malformed chains, stops in mid-operation, state, threads.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/virtio/net_int.h"
#include "netport.h"
#include "rig.h"

#define F(bit)	    (UINT64_C(1) << (bit))
#define RING	    (F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define ALL	    (~UINT64_C(0) & ~F(VIRTIO_NET_F_MQ))
#define PORT_ALL    (NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN)
#define HDR	    12u
#define RX	    0
#define TX	    1
#define CTRL	    2
#define NEEDS_RESET VIRTIO_STATUS_DEVICE_NEEDS_RESET

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct net_rig {
	struct rig r;
	struct netport p;
	struct virtio_net *n;
	bool dirtied; /* a dropped frame left its traces in the buffers */
	uint8_t frame[NET_FRAME_MAX + 64];
};

static struct virtio_net_config config_all(void)
{
	struct virtio_net_config c = {
		.mac_set = true,
		.csum = true,
		.gso = true,
		.guest_csum = true,
		.guest_tso = true,
		.mrg_rxbuf = true,
		.mtu = 1500,
	};

	memcpy(c.mac, mac, sizeof(mac));
	return c;
}

static struct net_rig *rig_new(const struct virtio_net_config *cfg, unsigned can, bool iothread)
{
	struct virtio_net_config c = cfg ? *cfg : config_all();
	struct net_rig *t = calloc(1, sizeof(*t));
	struct virtio_dev *vd;
	struct err err = {.msg = ""};

	assert_non_null(t);
	for (size_t i = 0; i < sizeof(t->frame); i++) {
		t->frame[i] = (uint8_t)(i * 7 + i / 251);
	}
	rig_init(&t->r, iothread, 0);
	netport_init(&t->p, can);
	c.loop = t->r.iothread;
	assert_int_equal(virtio_net_new(&t->r.fv->vm, &t->p.port, &c, "net0", &vd, &err), 0);
	t->n = container_of(vd, struct virtio_net, vd);
	rig_add(&t->r, vd, "net0");
	return t;
}

static struct net_rig *rig_started(uint64_t features)
{
	struct net_rig *t = rig_new(NULL, PORT_ALL, false);

	vdrv_start(&t->r.d, features, 0);
	return t;
}

static void rig_free(struct net_rig *t)
{
	rig_fini(&t->r);
	netport_fini(&t->p);
	free(t);
}

static void settle(struct net_rig *t)
{
	for (int i = 0; i < 8; i++) {
		fake_vm_settle(t->r.fv);
	}
}

/* --- configuration --- */

static void test_features(void **state)
{
	struct virtio_net_config c = config_all();
	struct net_rig *t = rig_new(NULL, PORT_ALL, false);
	uint64_t f = vdrv_offered(&t->r.d);
	const uint64_t all = F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_GUEST_CSUM) |
			     F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | F(VIRTIO_NET_F_MTU) |
			     F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_GUEST_TSO4) |
			     F(VIRTIO_NET_F_GUEST_TSO6) | F(VIRTIO_NET_F_GUEST_ECN) |
			     F(VIRTIO_NET_F_HOST_TSO4) | F(VIRTIO_NET_F_HOST_TSO6) |
			     F(VIRTIO_NET_F_HOST_ECN) | F(VIRTIO_NET_F_MRG_RXBUF) |
			     F(VIRTIO_NET_F_STATUS) | F(VIRTIO_NET_F_CTRL_VQ) |
			     F(VIRTIO_NET_F_CTRL_MAC_ADDR);

	assert_int_equal(f & (F(24) - 1), all);
	assert_int_equal(vdrv_config(&t->r.d, 0, 4), 0x01005452);
	assert_int_equal(vdrv_config(&t->r.d, 4, 2), 0x0302);
	assert_int_equal(vdrv_config(&t->r.d, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(vdrv_config(&t->r.d, 8, 2), 1);
	assert_int_equal(vdrv_config(&t->r.d, 10, 2), 1500);
	rig_free(t);

	/* segmentation is never offered without the checksum it needs */
	c.csum = c.guest_csum = false;
	c.mtu = 0;
	c.mrg_rxbuf = false;
	t = rig_new(&c, PORT_ALL, false);
	assert_int_equal(vdrv_offered(&t->r.d) & (F(24) - 1),
			 F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_STATUS) |
				 F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CTRL_MAC_ADDR));
	rig_free(t);
	/* nor what the port cannot do */
	t = rig_new(NULL, NET_OFF_CSUM, false);
	assert_int_equal(vdrv_offered(&t->r.d) & all &
				 (F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_TSO6) |
				  F(VIRTIO_NET_F_HOST_TSO4) | F(VIRTIO_NET_F_HOST_TSO6) |
				  F(VIRTIO_NET_F_HOST_ECN) | F(VIRTIO_NET_F_GUEST_ECN)),
			 0);
	rig_free(t);
	(void)state;
}

static void test_dependent_features_are_refused(void **state)
{
	static const uint64_t bad[] = {
		F(VIRTIO_NET_F_GUEST_TSO4),
		F(VIRTIO_NET_F_GUEST_TSO6),
		F(VIRTIO_NET_F_HOST_TSO4),
		F(VIRTIO_NET_F_HOST_TSO6),
		F(VIRTIO_NET_F_GUEST_ECN) | F(VIRTIO_NET_F_GUEST_CSUM),
		F(VIRTIO_NET_F_HOST_ECN) | F(VIRTIO_NET_F_CSUM),
		F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS),
		F(VIRTIO_NET_F_CTRL_MAC_ADDR),
	};
	struct net_rig *t = rig_new(NULL, PORT_ALL, false);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(vdrv_reset(&t->r.d));
		assert_false(vdrv_negotiate(&t->r.d, bad[i]));
	}
	vdrv_start(&t->r.d, F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_CSUM), 0);
	assert_int_equal(t->p.taken, NET_OFF_CSUM | NET_OFF_TSO4);
	vdrv_start(&t->r.d, 0, 0);
	assert_int_equal(t->p.taken, 0);
	rig_free(t);
	(void)state;
}

static void test_refusals(void **state)
{
	struct net_rig *t = rig_new(NULL, PORT_ALL, false);
	struct virtio_net_config c = config_all();
	struct virtio_dev *vd = NULL;
	struct netport p;
	struct err err = {.msg = ""};
	struct vm *vm = &t->r.fv->vm;

	assert_int_equal(virtio_net_new(vm, &t->p.port, &c, "net1", &vd, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "n0"));
	netport_init(&p, 0);
	c.rx_queue_size = 24;
	assert_int_equal(virtio_net_new(vm, &p.port, &c, "net1", &vd, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "rx_queue_size=24"));
	c.rx_queue_size = 0;
	c.tx_queue_size = 8;
	assert_int_equal(virtio_net_new(vm, &p.port, &c, "net1", &vd, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "tx_queue_size=8"));
	c.tx_queue_size = 0;
	c.mtu = 60;
	assert_int_equal(virtio_net_new(vm, &p.port, &c, "net1", &vd, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "host_mtu=60"));
	c.mtu = 0;
	c.mac[0] = 1;
	assert_int_equal(virtio_net_new(vm, &p.port, &c, "net1", &vd, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "mac="));
	/* made: local, unicast, and another one each time */
	c.mac_set = false;
	assert_int_equal(virtio_net_new(vm, &p.port, &c, "net1", &vd, &err), 0);
	assert_int_equal(atomic_load(&net_of(vd)->mac) & 0xffffff, 0x005452);
	assert_true(p.port.claimed);
	vd->ops->destroy(vd);
	assert_false(p.port.claimed);
	netport_fini(&p);
	rig_free(t);
	(void)state;
}

/* --- transmit --- */

static struct virtio_net_hdr_v1 hdr_plain(void)
{
	return (struct virtio_net_hdr_v1){0};
}

/* A chain of the header and len bytes of t->frame, cut at the given places. */
static void tx_put(struct net_rig *t, const struct virtio_net_hdr_v1 *h, size_t len,
		   const unsigned *cuts, unsigned ncuts, unsigned flags)
{
	struct vdrv *d = &t->r.d;
	gpa_t gpa = vdrv_alloc(d, HDR + len, 1);
	struct vdrv_seg seg[16];
	uint32_t at = 0;

	memcpy(vdrv_ptr(d, gpa, HDR + len), h, HDR);
	memcpy(vdrv_ptr(d, gpa + HDR, len), t->frame, len);
	for (unsigned i = 0; i <= ncuts; i++) {
		uint32_t end = i < ncuts ? cuts[i] : (uint32_t)(HDR + len);

		seg[i] = (struct vdrv_seg){gpa + at, end - at};
		at = end;
	}
	assert_true(vdrv_add(&d->q[TX], seg, ncuts + 1, 0, flags) >= 0);
	vdrv_kick(&d->q[TX]);
}

static void tx_done(struct net_rig *t, unsigned n)
{
	uint16_t head;
	uint32_t len;

	for (unsigned i = 0; i < n; i++) {
		assert_true(vdrv_wait(&t->r.d.q[TX], &head, &len));
		assert_int_equal(len, 0);
	}
	assert_false(vdrv_used(&t->r.d.q[TX], &head, &len));
}

static void check_sent(struct net_rig *t, unsigned i, size_t len)
{
	assert_true(i < t->p.nout);
	assert_int_equal(t->p.out[i].len, len);
	assert_memory_equal(t->p.out[i].data, t->frame, len);
}

static void test_transmit_layouts(void **state)
{
	static const struct {
		unsigned n, cut[6];
	} layouts[] = {
		{0, {0}},	  {1, {12}},	 {1, {1}},	     {1, {11}},
		{1, {13}},	  {2, {12, 26}}, {4, {3, 6, 9, 12}}, {5, {1, 2, 3, 4, 5}},
		{3, {5, 12, 13}},
	};
	struct net_rig *t = rig_started(ALL);
	struct virtio_net_hdr_v1 h = hdr_plain();

	h.num_buffers = le16_of(7); /* of no meaning here */
	h.csum_start = le16_of(9999);
	for (unsigned flags = 0; flags <= VDRV_INDIRECT; flags++) {
		for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
			tx_put(t, &h, 60 + i, layouts[i].cut, layouts[i].n, flags);
		}
		tx_done(t, ARRAY_SIZE(layouts));
		for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
			static const uint8_t none[HDR];

			check_sent(t, (unsigned)i, 60 + i);
			assert_memory_equal(&t->p.out[i].hdr, none, HDR);
		}
		netport_forget(&t->p);
	}
	tx_put(t, &h, NET_FRAME_MIN, NULL, 0, 0);
	tx_put(t, &h, NET_FRAME_MAX, NULL, 0, 0);
	tx_done(t, 2);
	check_sent(t, 0, NET_FRAME_MIN);
	check_sent(t, 1, NET_FRAME_MAX);
	rig_free(t);
	(void)state;
}

struct hdr_case {
	struct virtio_net_hdr_v1 h;
	size_t len;
	bool good;
	uint16_t hdr_len; /* what the port gets */
};
#define HDRC(fl, gso, hl, gs, cs, co)                                                          \
	{                                                                                      \
		.flags = fl, .gso_type = gso, .hdr_len = {hl}, .gso_size = {gs},               \
		.csum_start = {cs}, .csum_offset = {                                           \
			co                                                                     \
		}                                                                              \
	}
#define CS VIRTIO_NET_HDR_F_NEEDS_CSUM
static const struct hdr_case hdr_cases[] = {
	{HDRC(CS, 0, 0, 0, 34, 16), 60, true, 0},
	{HDRC(CS, 0, 77, 9, 34, 16), 52, true, 0},
	{HDRC(CS, 0, 0, 0, 34, 16), 51, false, 0},	 /* the sum lies behind the frame */
	{HDRC(CS, 0, 0, 0, 65535, 65535), 60, false, 0}, /* 16-bit wrap */
	{HDRC(CS, 0, 0, 0, 65535, 3), 60, false, 0},
	{HDRC(CS, 0, 0, 0, 13, 0), 60, false, 0},		/* in the Ethernet header */
	{HDRC(CS | 2 | 4 | 0x80, 0, 0, 0, 34, 6), 60, true, 0}, /* unknown flags: ignored */
	{HDRC(CS, 1, 54, 1448, 34, 16), 3000, true, 54},
	{HDRC(CS, 4, 74, 1428, 54, 16), 3000, true, 74},
	{HDRC(CS, 0x81, 54, 1448, 34, 16), 3000, true, 54},
	{HDRC(CS, 1, 0, 1448, 34, 16), 3000, true, 52},	      /* a hint that is too small */
	{HDRC(CS, 1, 65535, 1448, 34, 16), 3000, true, 3000}, /* and one that is too large */
	{HDRC(0, 1, 54, 1448, 34, 16), 3000, false, 0},	      /* no checksum */
	{HDRC(CS, 1, 54, 0, 34, 16), 3000, false, 0},	      /* into pieces of nothing */
	{HDRC(CS, 1, 54, 1448, 2990, 4), 3000, false, 0},     /* no room for a TCP header */
	{HDRC(CS, 3, 42, 1448, 34, 6), 3000, false, 0},	      /* UDP was not offered */
	{HDRC(CS, 5, 42, 1448, 34, 6), 3000, false, 0},
	{HDRC(CS, 2, 42, 1448, 34, 6), 3000, false, 0},
	{HDRC(CS, 0x80, 54, 1448, 34, 16), 3000, false, 0}, /* ECN of what? */
	{HDRC(CS, 0x7f, 54, 1448, 34, 16), 3000, false, 0},
	{HDRC(0, 0, 0, 0, 0, 0), 13, false, 0},
	{HDRC(0, 0, 0, 0, 0, 0), NET_FRAME_MAX + 1, false, 0},
};

static void test_transmit_headers(void **state)
{
	struct net_rig *t = rig_started(ALL);

	for (size_t i = 0; i < ARRAY_SIZE(hdr_cases); i++) {
		const struct hdr_case *c = &hdr_cases[i];

		tx_put(t, &c->h, c->len, NULL, 0, 0);
		tx_done(t, 1);
		assert_int_equal(t->p.nout, c->good);
		if (c->good) {
			const struct virtio_net_hdr_v1 *h = &t->p.out[0].hdr;

			check_sent(t, 0, c->len);
			assert_int_equal(h->flags, CS);
			assert_int_equal(h->gso_type, c->h.gso_type);
			assert_int_equal(le16_get(h->hdr_len), c->hdr_len);
			assert_int_equal(le16_get(h->csum_start), le16_get(c->h.csum_start));
			assert_int_equal(le16_get(h->csum_offset), le16_get(c->h.csum_offset));
			assert_int_equal(le16_get(h->gso_size),
					 c->h.gso_type ? le16_get(c->h.gso_size) : 0);
			assert_int_equal(le16_get(h->num_buffers), 0);
		}
		netport_forget(&t->p);
	}
	assert_int_equal(vdrv_status(&t->r.d) & NEEDS_RESET, 0);
	/* what was not agreed on is not passed on */
	vdrv_start(&t->r.d, F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_HOST_TSO4), 0);
	for (size_t i = 8; i <= 9; i++) {
		tx_put(t, &hdr_cases[i].h, hdr_cases[i].len, NULL, 0, 0);
		tx_done(t, 1);
	}
	vdrv_start(&t->r.d, 0, 0);
	tx_put(t, &hdr_cases[0].h, 60, NULL, 0, 0);
	tx_put(t, &hdr_cases[7].h, 3000, NULL, 0, 0);
	tx_done(t, 2);
	assert_int_equal(t->p.nout, 0);
	rig_free(t);
	(void)state;
}

static void expect_broken(struct net_rig *t, unsigned q)
{
	uint16_t head;
	uint32_t len;
	struct virtio_net_hdr_v1 h = hdr_plain();

	settle(t);
	assert_int_equal(vdrv_status(&t->r.d) & NEEDS_RESET, NEEDS_RESET);
	assert_int_equal(vdrv_irqs(&t->r.d, 0), 1);
	assert_false(vdrv_used(&t->r.d.q[q], &head, &len));
	/* the other queues stand still, too */
	netport_put(&t->p, NULL, t->frame, 60);
	tx_put(t, &h, 60, NULL, 0, 0);
	vdrv_kick_always(&t->r.d.q[TX]);
	vdrv_kick_always(&t->r.d.q[RX]);
	settle(t);
	assert_int_equal(netport_sent(&t->p), 0);
	assert_int_equal(vdrv_used_total(&t->r.d.q[RX]), 0);
	/* and a reset mends it */
	vdrv_start(&t->r.d, ALL, 0);
	tx_put(t, &h, 61, NULL, 0, 0);
	tx_done(t, 1);
	check_sent(t, 0, 61);
	rig_free(t);
}

static void chain_that_breaks(unsigned q, unsigned n_out, uint32_t out, unsigned n_in,
			      uint32_t in)
{
	struct net_rig *t = rig_started(ALL);
	struct vdrv_seg seg[8];
	gpa_t gpa = vdrv_alloc(&t->r.d, 4096, 1);

	for (unsigned i = 0; i < n_out + n_in; i++) {
		seg[i] = (struct vdrv_seg){gpa + 64 * i, i < n_out ? out : in};
	}
	assert_true(vdrv_add(&t->r.d.q[q], seg, n_out, n_in, 0) >= 0);
	vdrv_kick_always(&t->r.d.q[q]);
	if (q == RX) {
		netport_put(&t->p, NULL, t->frame, 60);
	}
	expect_broken(t, q);
}

static void test_malformed_chains(void **state)
{
	chain_that_breaks(TX, 1, 12, 0, 0); /* no frame */
	chain_that_breaks(TX, 1, 11, 0, 0); /* no header */
	chain_that_breaks(TX, 0, 0, 1, 60); /* to be written */
	chain_that_breaks(TX, 1, 60, 1, 60);
	chain_that_breaks(RX, 1, 60, 0, 0); /* to be read */
	chain_that_breaks(RX, 1, 60, 1, 60);
	chain_that_breaks(RX, 0, 0, 1, 11); /* no room for the header */
	chain_that_breaks(CTRL, 1, 1, 1, 1);
	chain_that_breaks(CTRL, 1, 2, 0, 0);
	chain_that_breaks(CTRL, 0, 0, 1, 1);
	(void)state;
}

static void test_transmit_without_room(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct vdrv *d = &t->r.d;
	struct virtio_net_hdr_v1 h = hdr_plain();

	for (int round = 0; round < 3; round++) {
		netport_full(&t->p, true);
		for (unsigned i = 0; i < 5; i++) {
			tx_put(t, &h, 60 + i, (unsigned[]){12}, 1, 0);
		}
		settle(t);
		assert_int_equal(d->q[TX].pending, 5);
		assert_false(vdrv_used(&d->q[TX], &(uint16_t){0}, &(uint32_t){0}));
		assert_true(t->p.tx_on);
		if (round == 1) { /* stopped and continued meanwhile */
			fake_vm_pause(t->r.fv);
			assert_false(t->p.tx_on);
			device_list_resume(&t->r.fv->devices);
			settle(t);
			assert_true(t->p.tx_on);
		}
		if (round == 2) { /* the queue is reset: nothing of it is ever sent */
			assert_true(vdrv_queue_reset(d, TX));
			assert_false(t->p.tx_on);
			netport_full(&t->p, false);
			vdrv_queue_setup(d, TX, 0);
			vdrv_queue_enable(d, TX);
			settle(t);
			assert_int_equal(t->p.nout, 0);
			tx_put(t, &h, 99, NULL, 0, 0);
			tx_done(t, 1);
			check_sent(t, 0, 99);
			break;
		}
		netport_full(&t->p, false);
		tx_done(t, 5);
		assert_false(t->p.tx_on);
		for (unsigned i = 0; i < 5; i++) {
			check_sent(t, i, 60 + i);
		}
		netport_forget(&t->p);
	}
	rig_free(t);
	(void)state;
}

/* More frames than one burst, and more pieces than writev(2) takes. */
static void test_transmit_many(void **state)
{
	struct virtio_net_config c = config_all();
	struct virtio_net_hdr_v1 h = hdr_plain();
	struct vdrv_seg *seg = calloc(1024, sizeof(*seg));
	struct net_rig *t;
	gpa_t gpa;

	c.tx_queue_size = 1024;
	t = rig_new(&c, PORT_ALL, false);
	vdrv_start(&t->r.d, ALL, 0);
	for (unsigned i = 0; i < 500; i++) {
		tx_put(t, &h, 60 + i % 100, (unsigned[]){12}, 1, 0);
	}
	tx_done(t, 500);
	for (unsigned i = 0; i < 500; i++) {
		check_sent(t, i, 60 + i % 100);
	}
	netport_forget(&t->p);
	gpa = vdrv_alloc(&t->r.d, 2048, 1);
	memset(vdrv_ptr(&t->r.d, gpa, HDR), 0, HDR);
	memcpy(vdrv_ptr(&t->r.d, gpa + HDR, 1100), t->frame, 1100);
	seg[0] = (struct vdrv_seg){gpa, HDR};
	for (unsigned i = 1; i < 1024; i++) {
		seg[i] = (struct vdrv_seg){gpa + HDR + i - 1, 1};
	}
	/* header apart: 1024 pieces; header with a byte of the frame: one too many */
	assert_true(vdrv_add(&t->r.d.q[TX], seg, 1024, 0, VDRV_INDIRECT) >= 0);
	vdrv_kick(&t->r.d.q[TX]);
	tx_done(t, 1);
	check_sent(t, 0, 1023);
	seg[0].len = HDR + 1;
	assert_true(vdrv_add(&t->r.d.q[TX], seg, 1024, 0, VDRV_INDIRECT) >= 0);
	vdrv_kick(&t->r.d.q[TX]);
	tx_done(t, 1);
	assert_int_equal(t->p.nout, 1);
	rig_free(t);
	free(seg);
	(void)state;
}

/* --- receive --- */

struct rxbuf {
	gpa_t gpa;
	uint32_t len;
	int head;
};

/* A receive buffer of len bytes in pieces of `piece` (0: one piece). */
static struct rxbuf rx_add(struct net_rig *t, uint32_t len, uint32_t piece, unsigned flags)
{
	struct vdrv *d = &t->r.d;
	struct rxbuf b = {vdrv_alloc(d, len, 1), len, -1};
	struct vdrv_seg *seg = calloc(1024, sizeof(*seg));
	unsigned n = 0;

	memset(vdrv_ptr(d, b.gpa, len), 0xee, len);
	for (uint32_t at = 0; at < len; n++) {
		uint32_t part = piece ? MIN(piece, len - at) : len;

		assert_true(n < 1024);
		seg[n] = (struct vdrv_seg){b.gpa + at, part};
		at += part;
	}
	b.head = vdrv_add(&d->q[RX], seg, 0, n, flags);
	assert_true(b.head >= 0);
	free(seg);
	return b;
}

static void rx_kick(struct net_rig *t)
{
	vdrv_kick(&t->r.d.q[RX]);
}

/* The next frame of the ring is t->frame[0..len) in the buffers b[0..n). */
static void rx_expect(struct net_rig *t, const struct rxbuf *b, size_t len)
{
	struct virtio_net_hdr_v1 h;
	size_t left = HDR + len, done = 0;
	unsigned n = 0;
	uint16_t head;
	uint32_t used;

	while (left > 0) {
		uint32_t part = (uint32_t)MIN(left, b[n].len);
		const uint8_t *p = vdrv_ptr(&t->r.d, b[n].gpa, b[n].len);

		assert_true(vdrv_wait(&t->r.d.q[RX], &head, &used));
		assert_int_equal(head, b[n].head);
		assert_int_equal(used, part);
		if (n == 0) {
			memcpy(&h, p, HDR);
			assert_memory_equal(p + HDR, t->frame, part - HDR);
			done = part - HDR;
		} else {
			assert_memory_equal(p, t->frame + done, part);
			done += part;
		}
		if (part < b[n].len && !t->dirtied) {
			assert_int_equal(p[part], 0xee);
		}
		left -= part;
		n++;
	}
	assert_int_equal(le16_get(h.num_buffers), n);
}

static void rx_none(struct net_rig *t)
{
	uint16_t head;
	uint32_t len;

	settle(t);
	assert_false(vdrv_used(&t->r.d.q[RX], &head, &len));
}

static void test_receive_merged(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct rxbuf b[12];

	/* around every border of the buffers */
	for (uint32_t k = 1; k <= 4; k++) {
		for (int off = -2; off <= 2; off++) {
			size_t len = 100 * k + (unsigned)(int)(off)-HDR;

			for (unsigned i = 0; i < 6; i++) {
				b[i] = rx_add(t, 100, i % 2 ? 9 : 0,
					      i == 3 ? VDRV_INDIRECT : 0);
			}
			rx_kick(t);
			netport_put(&t->p, NULL, t->frame, len);
			rx_expect(t, b, len);
			rx_none(t);
			vdrv_start(&t->r.d, ALL, 0); /* takes the rest back */
		}
	}
	/* several frames over the same buffers */
	for (unsigned i = 0; i < 12; i++) {
		b[i] = rx_add(t, 200, 0, 0);
	}
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 60);
	netport_put(&t->p, NULL, t->frame, 188);
	netport_put(&t->p, NULL, t->frame, 189);
	netport_put(&t->p, NULL, t->frame, 1000);
	rx_expect(t, b, 60);
	rx_expect(t, b + 1, 188);
	rx_expect(t, b + 2, 189);
	rx_expect(t, b + 4, 1000);
	rx_none(t);
	rig_free(t);
	(void)state;
}

static void test_receive_odd_headers(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct rxbuf b;

	for (uint32_t piece = 1; piece <= 14; piece++) {
		b = rx_add(t, 400, piece, VDRV_INDIRECT);
		rx_kick(t);
		netport_put(&t->p, NULL, t->frame, 388);
		rx_expect(t, &b, 388);
	}
	/* as many pieces as there can be; the frame runs over what readv(2) takes */
	b = rx_add(t, 1024, 1, VDRV_INDIRECT);
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 1012);
	rx_expect(t, &b, 1012);
	rig_free(t);
	(void)state;
}

static void test_receive_plain(void **state)
{
	struct net_rig *t = rig_started(ALL & ~F(VIRTIO_NET_F_MRG_RXBUF));
	struct rxbuf b[4];

	b[0] = rx_add(t, 1526, 0, 0);
	b[1] = rx_add(t, 1526, 100, 0);
	b[2] = rx_add(t, 65562, 4096, 0);
	b[3] = rx_add(t, 100, 0, 0);
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 1514);
	rx_expect(t, b, 1514);
	netport_put(&t->p, NULL, t->frame, 1515); /* does not fit: lost, the buffer stays */
	t->dirtied = true;
	netport_put(&t->p, NULL, t->frame, 14);
	rx_expect(t, b + 1, 14);
	netport_put(&t->p, NULL, t->frame, 65550);
	rx_expect(t, b + 2, 65550);
	netport_put(&t->p, NULL, t->frame, 88);
	rx_expect(t, b + 3, 88);
	rx_none(t);
	assert_false(t->p.rx_on && netport_waiting(&t->p));
	rig_free(t);
	(void)state;
}

static void test_receive_without_buffers(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct rxbuf b[8];
	unsigned recvs;

	for (int i = 0; i < 6; i++) {
		netport_put(&t->p, NULL, t->frame, 100);
	}
	settle(t);
	assert_false(t->p.rx_on);
	assert_int_equal(t->p.recvs, 0);
	assert_int_equal(netport_waiting(&t->p), 6);
	b[0] = rx_add(t, 1500, 0, 0);
	assert_true(vdrv_kick_wanted(&t->r.d.q[RX]));
	rx_kick(t);
	rx_expect(t, b, 100);
	rx_none(t);
	assert_false(t->p.rx_on); /* silent until the next kick */
	recvs = t->p.recvs;
	settle(t);
	assert_int_equal(t->p.recvs, recvs);
	for (unsigned i = 1; i < 6; i++) {
		b[i] = rx_add(t, 1500, 0, 0);
	}
	rx_kick(t);
	for (unsigned i = 1; i < 6; i++) {
		rx_expect(t, b + i, 100);
	}
	assert_int_equal(netport_waiting(&t->p), 0);
	rig_free(t);
	(void)state;
}

/* A frame larger than the buffers there are waits for more, and is not waited for for ever. */
static void test_receive_held(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct rxbuf b[20];

	for (unsigned i = 0; i < 3; i++) {
		b[i] = rx_add(t, 1000, 0, 0);
	}
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 9000);
	netport_put(&t->p, NULL, t->frame, 500);
	rx_none(t);
	assert_false(t->p.rx_on);
	for (unsigned i = 3; i < 6; i++) {
		b[i] = rx_add(t, 1000, 0, 0);
	}
	assert_true(vdrv_kick_wanted(&t->r.d.q[RX]));
	rx_kick(t);
	rx_none(t);
	for (unsigned i = 6; i < 11; i++) {
		b[i] = rx_add(t, 1000, 300, 0);
	}
	assert_true(vdrv_kick_wanted(&t->r.d.q[RX]));
	rx_kick(t);
	rx_expect(t, b, 9000);
	rx_expect(t, b + 10, 500);
	rx_none(t);

	t->dirtied = true;
	/* nobody helps: it is dropped, the buffers serve the next */
	b[0] = rx_add(t, 1000, 0, 0);
	b[1] = rx_add(t, 1000, 0, 0);
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 5000);
	netport_put(&t->p, NULL, t->frame, 70);
	rx_none(t);
	loop_clock_advance(t->r.fv->vm.loop, UINT64_C(60000000));
	rx_expect(t, b, 70);

	/* held at a pause: dropped, the buffers are the driver's again */
	netport_put(&t->p, NULL, t->frame, 3000);
	rx_none(t);
	fake_vm_pause(t->r.fv);
	device_list_resume(&t->r.fv->devices);
	netport_put(&t->p, NULL, t->frame, 71);
	rx_expect(t, b + 1, 71);
	rig_free(t);
	(void)state;
}

/* All buffers of the ring cannot hold it. */
static void test_receive_larger_than_the_ring(void **state)
{
	struct virtio_net_config c = config_all();
	struct net_rig *t;
	struct rxbuf b[16];

	c.rx_queue_size = 16;
	t = rig_new(&c, PORT_ALL, false);
	vdrv_start(&t->r.d, ALL, 0);
	for (unsigned i = 0; i < 16; i++) {
		b[i] = rx_add(t, 100, 0, 0);
	}
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 1600 - HDR + 1);
	netport_put(&t->p, NULL, t->frame, 1600 - HDR);
	rx_expect(t, b, 1600 - HDR);
	rx_none(t);
	rig_free(t);
	(void)state;
}

static void test_receive_impossible_frames(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct rxbuf b[80];

	for (unsigned i = 0; i < 80; i++) {
		b[i] = rx_add(t, 1000, 0, 0);
	}
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 13);
	netport_put(&t->p, NULL, t->frame, 0);
	netport_put(&t->p, NULL, t->frame, 64);
	rx_expect(t, b, 64);
	netport_put(&t->p, NULL, t->frame, NET_FRAME_MAX);
	rx_expect(t, b + 1, NET_FRAME_MAX);
	rx_none(t);
	/* the port fails: silence, until the driver starts anew */
	t->p.recv_error = -EIO;
	netport_put(&t->p, NULL, t->frame, 64);
	settle(t);
	assert_false(t->p.rx_on);
	rx_add(t, 1000, 0, 0);
	vdrv_kick_always(&t->r.d.q[RX]);
	settle(t);
	assert_false(t->p.rx_on);
	t->p.recv_error = 0;
	vdrv_start(&t->r.d, ALL, 0);
	b[0] = rx_add(t, 1000, 0, 0);
	rx_kick(t);
	rx_expect(t, b, 64);
	rig_free(t);
	(void)state;
}

static struct virtio_net_hdr_v1 rx_header(struct net_rig *t)
{
	struct rxbuf b = rx_add(t, 2000, 0, 0);
	struct virtio_net_hdr_v1 h;
	uint16_t head;
	uint32_t len;

	rx_kick(t);
	assert_true(vdrv_wait(&t->r.d.q[RX], &head, &len));
	memcpy(&h, vdrv_ptr(&t->r.d, b.gpa, HDR), HDR);
	return h;
}

static void test_receive_headers(void **state)
{
	const struct virtio_net_hdr_v1 csum = HDRC(CS, 0, 0, 0, 34, 16);
	const struct virtio_net_hdr_v1 tso = HDRC(CS, 0x81, 54, 1448, 34, 16);
	const struct virtio_net_hdr_v1 valid = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};
	struct net_rig *t = rig_started(ALL);
	struct virtio_net_hdr_v1 h;

	netport_put(&t->p, &csum, t->frame, 100);
	h = rx_header(t);
	assert_memory_equal(&h, &csum, 10);
	netport_put(&t->p, &tso, t->frame, 100);
	h = rx_header(t);
	assert_memory_equal(&h, &tso, 10);
	netport_put(&t->p, &valid, t->frame, 100);
	assert_int_equal(rx_header(t).flags, VIRTIO_NET_HDR_F_DATA_VALID);
	/* without the features: no hints, and what is not whole is not passed on */
	vdrv_start(&t->r.d, F(VIRTIO_NET_F_MRG_RXBUF), 0);
	netport_put(&t->p, &csum, t->frame, 100);
	netport_put(&t->p, &tso, t->frame, 100);
	netport_put(&t->p, &valid, t->frame, 100);
	h = rx_header(t);
	assert_int_equal(h.flags, 0);
	assert_int_equal(h.gso_type, 0);
	assert_int_equal(le16_get(h.num_buffers), 1);
	assert_int_equal(netport_waiting(&t->p), 0);
	rig_free(t);
	(void)state;
}

/* --- control queue --- */

static uint8_t ctrl(struct net_rig *t, uint8_t class, uint8_t cmd, const void *data,
		    uint32_t len)
{
	struct vdrv *d = &t->r.d;
	gpa_t gpa = vdrv_alloc(d, 64, 8);
	uint8_t *p = vdrv_ptr(d, gpa, 64);
	struct vdrv_seg seg[] = {{gpa, 2}, {gpa + 2, len}, {gpa + 60, 1}};
	uint16_t head;
	uint32_t used;

	p[0] = class;
	p[1] = cmd;
	if (len) {
		memcpy(p + 2, data, len);
	}
	p[60] = 0xaa;
	if (!len) {
		seg[1] = seg[2];
	}
	vdrv_add(&d->q[CTRL], seg, len ? 2 : 1, 1, 0);
	vdrv_kick(&d->q[CTRL]);
	assert_true(vdrv_wait(&d->q[CTRL], &head, &used));
	assert_int_equal(used, 1);
	return p[60];
}

static uint8_t ctrl_offl(struct net_rig *t, uint64_t bits)
{
	return ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &bits, 8);
}

static void test_control(void **state)
{
	static const uint8_t other[6] = {2, 3, 4, 5, 6, 7}, group[6] = {1};
	const uint64_t all = F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4) |
			     F(VIRTIO_NET_F_GUEST_TSO6) | F(VIRTIO_NET_F_GUEST_ECN);
	struct net_rig *t = rig_started(ALL);

	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, 1, other, 6), VIRTIO_NET_OK);
	assert_int_equal(vdrv_config(&t->r.d, 0, 4), 0x05040302);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, 1, group, 6), VIRTIO_NET_ERR);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, 1, other, 5), VIRTIO_NET_ERR);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, 1, "1234567", 7), VIRTIO_NET_ERR);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, 0, other, 6), VIRTIO_NET_ERR);
	assert_int_equal(vdrv_config(&t->r.d, 0, 4), 0x05040302);

	assert_int_equal(t->p.taken, PORT_ALL);
	assert_int_equal(ctrl_offl(t, 0), VIRTIO_NET_OK);
	assert_int_equal(t->p.taken, 0);
	assert_int_equal(ctrl_offl(t, all), VIRTIO_NET_OK);
	assert_int_equal(t->p.taken, PORT_ALL);
	assert_int_equal(ctrl_offl(t, F(VIRTIO_NET_F_GUEST_CSUM)), VIRTIO_NET_OK);
	assert_int_equal(ctrl_offl(t, F(VIRTIO_NET_F_GUEST_TSO4)), VIRTIO_NET_ERR);
	assert_int_equal(ctrl_offl(t, all | F(VIRTIO_NET_F_GUEST_UFO)), VIRTIO_NET_ERR);
	assert_int_equal(ctrl_offl(t, F(63)), VIRTIO_NET_ERR);
	assert_int_equal(t->p.taken, NET_OFF_CSUM);
	for (unsigned cl = 0; cl < 256; cl++) {
		if (cl != VIRTIO_NET_CTRL_MAC && cl != VIRTIO_NET_CTRL_GUEST_OFFLOADS) {
			assert_int_equal(ctrl(t, (uint8_t)cl, 0, other, cl % 7),
					 VIRTIO_NET_ERR);
		}
		t->r.d.mem_next = align_up(t->r.d.mem_next, 64);
	}
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 1, other, 6), VIRTIO_NET_ERR);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, NULL, 0), VIRTIO_NET_ERR);
	/* the address is the operator's again after a reset; commands not agreed on fail */
	vdrv_start(&t->r.d, F(VIRTIO_NET_F_CTRL_VQ), 0);
	assert_int_equal(vdrv_config(&t->r.d, 0, 4), 0x01005452);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, 1, other, 6), VIRTIO_NET_ERR);
	assert_int_equal(ctrl_offl(t, 0), VIRTIO_NET_ERR);
	rig_free(t);
	(void)state;
}

/* A flood of commands is served in pieces. */
static void test_control_flood(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct vdrv *d = &t->r.d;
	gpa_t gpa = vdrv_alloc(d, 64, 8);
	unsigned n = 0;
	uint16_t head;
	uint32_t len;

	while (vdrv_add(&d->q[CTRL], (struct vdrv_seg[]){{gpa, 2}, {gpa + 60, 1}}, 1, 1, 0) >=
	       0) {
		n++;
	}
	assert_int_equal(n, 32);
	vdrv_kick(&d->q[CTRL]);
	loop_step(t->r.fv->vm.loop, 0);
	assert_true(vdrv_used_total(&d->q[CTRL]) <= 16);
	while (n-- > 0) {
		assert_true(vdrv_wait(&d->q[CTRL], &head, &len));
	}
	rig_free(t);
	(void)state;
}

/* --- stops and state --- */

static void test_stops_with_a_window(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct vdrv *d = &t->r.d;
	struct rxbuf b[8];

	for (unsigned i = 0; i < 8; i++) {
		b[i] = rx_add(t, 400, 0, 0);
	}
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 100);
	rx_expect(t, b, 100); /* the other seven are in the window now */
	assert_int_equal(t->n->vd.queue[RX].inflight, 7);
	fake_vm_pause(t->r.fv);
	assert_int_equal(t->n->vd.queue[RX].inflight, 0);
	netport_put(&t->p, NULL, t->frame, 1000);
	device_list_resume(&t->r.fv->devices);
	rx_expect(t, b + 1, 1000);
	assert_true(vdrv_queue_reset(d, RX));
	assert_false(t->p.rx_on);
	netport_put(&t->p, NULL, t->frame, 200);
	vdrv_queue_setup(d, RX, 16);
	vdrv_queue_enable(d, RX);
	for (unsigned i = 0; i < 2; i++) {
		b[i] = rx_add(t, 400, 0, 0);
	}
	rx_kick(t);
	rx_expect(t, b, 200);
	assert_true(vdrv_reset(d));
	vdrv_start(d, ALL, 0);
	b[0] = rx_add(t, 400, 0, 0);
	rx_kick(t);
	netport_put(&t->p, NULL, t->frame, 300);
	rx_expect(t, b, 300);
	rig_free(t);
	(void)state;
}

static void ram_copy(struct net_rig *to, struct net_rig *from)
{
	memcpy(mem_region_host(to->r.fv->ram), mem_region_host(from->r.fv->ram),
	       mem_region_size(from->r.fv->ram));
}

static void test_transfer(void **state)
{
	static const uint8_t other[6] = {2, 3, 4, 5, 6, 7};
	struct net_rig *a = rig_started(ALL), *z = rig_new(NULL, PORT_ALL, false);
	struct virtio_net_hdr_v1 h = hdr_plain();
	struct virtio_net_config c = config_all();
	struct err err = {.msg = ""};
	struct net_rig *poor;
	struct rxbuf b[8];
	struct vdrv d;

	ctrl(a, VIRTIO_NET_CTRL_MAC, 1, other, 6);
	assert_int_equal(ctrl_offl(a, F(VIRTIO_NET_F_GUEST_CSUM)), VIRTIO_NET_OK);
	for (unsigned i = 0; i < 8; i++) {
		b[i] = rx_add(a, 400, 0, 0);
	}
	rx_kick(a);
	netport_put(&a->p, NULL, a->frame, 100);
	rx_expect(a, b, 100);
	netport_full(&a->p, true);
	tx_put(a, &h, 77, NULL, 0, 0);
	settle(a);
	fake_vm_pause(a->r.fv);
	fake_vm_pause(z->r.fv);
	ram_copy(z, a);
	assert_int_equal(fake_vm_transfer(a->r.fv, z->r.fv, &err), 0);
	vdrv_adopt(&d, &a->r.d, z->r.fv, &z->r.root);
	z->r.d = d;
	for (unsigned i = 0; i < 3; i++) {
		z->r.d.q[i].d = &z->r.d;
	}
	device_list_resume(&z->r.fv->devices);
	tx_done(z, 1);
	check_sent(z, 0, 77);
	assert_int_equal(z->p.taken, NET_OFF_CSUM);
	assert_int_equal(vdrv_config(&z->r.d, 0, 4), 0x05040302);
	netport_put(&z->p, NULL, z->frame, 1000);
	rx_expect(z, b + 1, 1000);
	rig_free(z);

	/* a machine whose port can do less, or whose queues are shorter, refuses */
	poor = rig_new(NULL, 0, false);
	fake_vm_pause(poor->r.fv);
	ram_copy(poor, a);
	assert_true(fake_vm_transfer(a->r.fv, poor->r.fv, &err) < 0);
	assert_non_null(strstr(err.msg, "net0"));
	rig_free(poor);
	c.rx_queue_size = 64;
	poor = rig_new(&c, PORT_ALL, false);
	fake_vm_pause(poor->r.fv);
	ram_copy(poor, a);
	assert_true(fake_vm_transfer(a->r.fv, poor->r.fv, &err) < 0);
	rig_free(poor);
	rig_free(a);
	(void)state;
}

static void test_hostile_state(void **state)
{
	struct net_rig *t = rig_started(ALL);
	struct {
		uint8_t mac[6];
		uint64_t guest_offloads;
		uint16_t active;
	} st = {{2}, F(VIRTIO_NET_F_GUEST_CSUM), 1};
	const struct virtio_ops *ops = t->n->vd.ops;
	struct err err = {.msg = ""};

	assert_int_equal(ops->state->size, sizeof(st));
	fake_vm_pause(t->r.fv);
	assert_int_equal(ops->load(&t->n->vd, &st, &err), 0);
	st.guest_offloads = F(40);
	assert_int_equal(ops->load(&t->n->vd, &st, &err), -EINVAL);
	st.guest_offloads = F(VIRTIO_NET_F_GUEST_TSO4);
	assert_int_equal(ops->load(&t->n->vd, &st, &err), -EINVAL);
	st.guest_offloads = 0;
	st.active = 2;
	assert_int_equal(ops->load(&t->n->vd, &st, &err), -EINVAL);
	st.active = 1;
	st.mac[0] = 3;
	assert_int_equal(ops->load(&t->n->vd, &st, &err), -EINVAL);
	device_list_resume(&t->r.fv->devices);
	rig_free(t);
	(void)state;
}

/* --- threads --- */

static void test_iothread(void **state)
{
	struct net_rig *t = rig_new(NULL, PORT_ALL, true);
	struct vdrv *d = &t->r.d;
	struct virtio_net_hdr_v1 h = hdr_plain();
	struct rxbuf b[32];
	uint16_t head;
	uint32_t len;

	t->p.echo = true;
	for (unsigned round = 0; round < 12; round++) {
		unsigned got = 0;

		vdrv_start(d, ALL, 0);
		netport_forget(&t->p);
		for (unsigned i = 0; i < 32; i++) {
			b[i] = rx_add(t, 200, 0, 0);
		}
		rx_kick(t);
		for (unsigned i = 0; i < 32; i++) {
			tx_put(t, &h, 60 + i, (unsigned[]){12}, 1, 0);
		}
		if (round % 3 == 0) { /* every frame comes back */
			for (unsigned i = 0; i < 32; i++) {
				rx_expect(t, b + i, 60 + i);
			}
			tx_done(t, 32);
		} else if (round % 3 == 1) { /* reset in mid-operation */
			assert_true(vdrv_queue_reset(d, round & 1 ? TX : RX));
			assert_true(vdrv_reset(d));
		} else { /* pause, resume, and on */
			fake_vm_pause(t->r.fv);
			device_list_resume(&t->r.fv->devices);
			while (got < 32 && vdrv_wait(&d->q[RX], &head, &len)) {
				got++;
			}
			assert_int_equal(got, 32);
		}
		assert_true(vdrv_reset(d));
		/* what is left over is for nobody */
		vdrv_start(d, ALL, 0);
		for (unsigned i = 0; i < 40; i++) {
			rx_add(t, 200, 0, 0);
		}
		rx_kick(t);
		while (netport_waiting(&t->p)) {
			vdrv_settle(d);
		}
		d->mem_next = VDRV_MEM_BASE + 0x800000;
	}
	rig_free(t);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_dependent_features_are_refused),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_transmit_layouts),
		cmocka_unit_test(test_transmit_headers),
		cmocka_unit_test(test_malformed_chains),
		cmocka_unit_test(test_transmit_without_room),
		cmocka_unit_test(test_transmit_many),
		cmocka_unit_test(test_receive_merged),
		cmocka_unit_test(test_receive_odd_headers),
		cmocka_unit_test(test_receive_plain),
		cmocka_unit_test(test_receive_without_buffers),
		cmocka_unit_test(test_receive_held),
		cmocka_unit_test(test_receive_larger_than_the_ring),
		cmocka_unit_test(test_receive_impossible_frames),
		cmocka_unit_test(test_receive_headers),
		cmocka_unit_test(test_control),
		cmocka_unit_test(test_control_flood),
		cmocka_unit_test(test_stops_with_a_window),
		cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_hostile_state),
		cmocka_unit_test(test_iothread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
