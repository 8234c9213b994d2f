/*
 * virtio-net: configuration, control queue, life. Virtio 1.2, section 5.1.
 *
 * Pairs of queues (receive 2 i, transmit 2 i + 1) and the control queue behind them; the data
 * paths are in net_rx.c and net_tx.c. Each pair has a queue of the port and a loop. A driver
 * that does not take MQ knows one pair, and the control queue is number 2 (5.1.2): net_layout().
 * What the driver takes from the host (checksums left undone, segments left together) is told
 * to the port when a receive queue starts and whenever the driver changes it over the control
 * queue.
 *
 * Frames are not filtered by address (CTRL_RX is not offered): the driver gets what the port has.
 *
 * Threads: the control loop, with the control queue; a pair runs on its own loop. What a command
 * changes for a pair is changed there, while the control loop waits (loop_call()), so the data
 * path needs no lock. Untrusted: the driver.
 */
#include "device/virtio/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/iov.h"
#include "base/log.h"
#include "device/virtio/net_int.h"
#include "spec/virtio.h"

#define QUEUE_SIZE_DEFAULT 256
#define QUEUE_SIZE_MIN	   16
#define CTRL_QUEUE_SIZE	   64
#define CTRL_BURST	   16u /* commands before the loop gets to its other work */
#define CTRL_SEGS	   64
#define MTU_MIN		   68
#define F(bit)		   (UINT64_C(1) << (bit))

#define GUEST_OFFLOADS                                                                         \
	(F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4) |                             \
	 F(VIRTIO_NET_F_GUEST_TSO6) | F(VIRTIO_NET_F_GUEST_ECN))

/* --- configuration --- */

static uint64_t net_features(struct virtio_dev *vd)
{
	const struct virtio_net *n = net_of(vd);
	const struct virtio_net_config *c = &n->cfg;
	unsigned can = n->port->ops->offloads(n->port);
	uint64_t f = F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_STATUS) | F(VIRTIO_NET_F_CTRL_VQ) |
		     F(VIRTIO_NET_F_CTRL_MAC_ADDR);
	bool tso4 = can & NET_OFF_TSO4, tso6 = can & NET_OFF_TSO6, ecn = can & NET_OFF_ECN;

	f |= n->npairs > 1 ? F(VIRTIO_NET_F_MQ) : 0;
	f |= c->mtu ? F(VIRTIO_NET_F_MTU) : 0;
	f |= c->mrg_rxbuf ? F(VIRTIO_NET_F_MRG_RXBUF) : 0;
	if (!(can & NET_OFF_CSUM)) {
		return f; /* segmentation needs checksums (5.1.3.1) */
	}
	if (c->csum) {
		f |= F(VIRTIO_NET_F_CSUM);
		f |= c->gso && tso4 ? F(VIRTIO_NET_F_HOST_TSO4) : 0;
		f |= c->gso && tso6 ? F(VIRTIO_NET_F_HOST_TSO6) : 0;
		f |= c->gso && (tso4 || tso6) && ecn ? F(VIRTIO_NET_F_HOST_ECN) : 0;
	}
	if (c->guest_csum) {
		f |= F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
		f |= c->guest_tso && tso4 ? F(VIRTIO_NET_F_GUEST_TSO4) : 0;
		f |= c->guest_tso && tso6 ? F(VIRTIO_NET_F_GUEST_TSO6) : 0;
		f |= c->guest_tso && (tso4 || tso6) && ecn ? F(VIRTIO_NET_F_GUEST_ECN) : 0;
	}
	return f;
}

/* 5.1.3.1, as far as the bits are offered here. */
static bool requirements_met(uint64_t f)
{
	static const struct {
		unsigned bit;
		uint64_t any_of;
	} needs[] = {
		{VIRTIO_NET_F_GUEST_TSO4, F(VIRTIO_NET_F_GUEST_CSUM)},
		{VIRTIO_NET_F_GUEST_TSO6, F(VIRTIO_NET_F_GUEST_CSUM)},
		{VIRTIO_NET_F_GUEST_ECN,
		 F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_TSO6)},
		{VIRTIO_NET_F_HOST_TSO4, F(VIRTIO_NET_F_CSUM)},
		{VIRTIO_NET_F_HOST_TSO6, F(VIRTIO_NET_F_CSUM)},
		{VIRTIO_NET_F_HOST_ECN, F(VIRTIO_NET_F_HOST_TSO4) | F(VIRTIO_NET_F_HOST_TSO6)},
		{VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, F(VIRTIO_NET_F_CTRL_VQ)},
		{VIRTIO_NET_F_CTRL_MAC_ADDR, F(VIRTIO_NET_F_CTRL_VQ)},
		{VIRTIO_NET_F_MQ, F(VIRTIO_NET_F_CTRL_VQ)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		if ((f >> needs[i].bit & 1) && !(f & needs[i].any_of)) {
			return false;
		}
	}
	return true;
}

static bool net_features_ok(struct virtio_dev *vd, uint64_t features)
{
	if (!requirements_met(features)) {
		return false;
	}
	net_of(vd)->guest_offloads = features & GUEST_OFFLOADS;
	return true;
}

/* Which queue is the control queue, and what that means for the loops and sizes of all. */
static unsigned ctrl_index(const struct virtio_net *n)
{
	return n->mq ? 2 * n->npairs : NET_Q_CTRL;
}

static void net_layout(struct virtio_net *n, bool mq)
{
	n->mq = mq;
	for (unsigned i = 0; i < n->vd.nqueues; i++) {
		bool data = i != ctrl_index(n) && i / 2 < n->npairs;
		uint16_t size = !data	? CTRL_QUEUE_SIZE
				: i % 2 ? n->cfg.tx_queue_size
					: n->cfg.rx_queue_size;

		virtio_queue_loop(&n->vd, i, data ? n->pair[i / 2].loop : NULL);
		if (n->vd.queue[i].max_size != size) {
			virtio_queue_size(&n->vd, i, size);
		}
	}
}

static void net_features_set(struct virtio_dev *vd, uint64_t features)
{
	net_layout(net_of(vd), features >> VIRTIO_NET_F_MQ & 1);
}

/* A pair that the driver may use: not, without MQ, what it does not know of. */
static bool is_data(const struct virtq *q)
{
	const struct virtio_net *n = net_of(q->vd);

	return q->index < 2 * n->npairs && (n->mq || q->index < NET_Q_CTRL);
}

static uint64_t mac_pack(const uint8_t mac[6])
{
	uint64_t v = 0;

	memcpy(&v, mac, 6);
	return v;
}

static void net_config_read(struct virtio_dev *vd, unsigned off, void *buf, unsigned len)
{
	struct virtio_net *n = net_of(vd);
	struct virtio_net_config_layout c = {
		.status = le16_of(atomic_load(&n->link_up) ? VIRTIO_NET_S_LINK_UP : 0),
		.max_virtqueue_pairs = le16_of((uint16_t)n->npairs),
		.mtu = le16_of(n->cfg.mtu),
	};
	uint64_t mac = atomic_load(&n->mac);

	memcpy(c.mac, &mac, sizeof(c.mac));
	memcpy(buf, (const char *)&c + off, len);
}

static void pair_active(void *arg)
{
	struct net_pair *p = arg;

	p->active = p->index < p->n->active;
	net_rx_active(p);
}

/* The first `want` pairs are in use. A queue of the port gives frames only while its pair looks
 * for them. */
static int pairs_set(struct virtio_net *n, unsigned want)
{
	unsigned had = n->active;
	int r = 0;

	for (unsigned i = had; i < want && r >= 0; i++) {
		struct net_port *port = n->pair[i].port;

		r = port->ops->set_active ? port->ops->set_active(port, true) : 0;
		n->active += r >= 0;
	}
	n->active = MIN(n->active, want);
	for (unsigned i = 0; i < n->npairs; i++) {
		if (n->pair[i].active != (i < n->active)) {
			loop_call(n->pair[i].loop, pair_active, &n->pair[i]);
		}
	}
	for (unsigned i = want; i < had; i++) {
		struct net_port *port = n->pair[i].port;

		if (port->ops->set_active) {
			port->ops->set_active(port, false);
		}
	}
	return r;
}

static void net_reset(struct virtio_dev *vd)
{
	struct virtio_net *n = net_of(vd);

	n->guest_offloads = 0;
	pairs_set(n, 1);
	atomic_store(&n->mac, mac_pack(n->cfg.mac));
}

/* False: the port cannot. */
static bool offloads_apply(struct virtio_net *n, uint64_t want)
{
	unsigned rx = (want >> VIRTIO_NET_F_GUEST_CSUM & 1 ? NET_OFF_CSUM : 0u) |
		      (want >> VIRTIO_NET_F_GUEST_TSO4 & 1 ? NET_OFF_TSO4 : 0u) |
		      (want >> VIRTIO_NET_F_GUEST_TSO6 & 1 ? NET_OFF_TSO6 : 0u) |
		      (want >> VIRTIO_NET_F_GUEST_ECN & 1 ? NET_OFF_ECN : 0u);
	int r = n->port->ops->set_offloads(n->port, rx);

	if (r < 0) {
		log_guest(n->vd.name, "%s refuses offloads 0x%x: %s", n->port->id, rx,
			  strerror(-r));
		return false;
	}
	return true;
}

static void pair_offloads(void *arg)
{
	struct net_pair *p = arg;

	p->offloads = p->n->guest_offloads;
}

/* --- control queue [5.1.6.5] --- */

static uint8_t ctrl_mac(struct virtio_net *n, uint8_t command, struct iov_cur *data)
{
	uint8_t mac[6];

	if (command != VIRTIO_NET_CTRL_MAC_ADDR_SET ||
	    !virtio_has(&n->vd, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
	    iov_cur_left(data) != sizeof(mac)) {
		return VIRTIO_NET_ERR;
	}
	iov_cur_read(data, mac, sizeof(mac));
	if (mac[0] & 1) {
		return VIRTIO_NET_ERR; /* a group address */
	}
	atomic_store(&n->mac, mac_pack(mac));
	return VIRTIO_NET_OK;
}

static uint8_t ctrl_offloads(struct virtio_net *n, uint8_t command, struct iov_cur *data)
{
	uint64_t want;
	le64 wire;

	if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !virtio_has(&n->vd, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    iov_cur_left(data) != sizeof(wire)) {
		return VIRTIO_NET_ERR;
	}
	iov_cur_read(data, &wire, sizeof(wire));
	want = le64_get(wire);
	if (want & ~(n->vd.acked & GUEST_OFFLOADS) || !requirements_met(want) ||
	    !offloads_apply(n, want)) {
		return VIRTIO_NET_ERR;
	}
	n->guest_offloads = want;
	for (unsigned i = 0; i < n->npairs; i++) {
		loop_call(n->pair[i].loop, pair_offloads, &n->pair[i]);
	}
	return VIRTIO_NET_OK;
}

static uint8_t ctrl_mq(struct virtio_net *n, uint8_t command, struct iov_cur *data)
{
	unsigned pairs;
	le16 wire;

	if (command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !n->mq ||
	    iov_cur_left(data) != sizeof(wire)) {
		return VIRTIO_NET_ERR;
	}
	iov_cur_read(data, &wire, sizeof(wire));
	pairs = le16_get(wire);
	if (pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || pairs > n->npairs ||
	    pairs_set(n, pairs) < 0) {
		return VIRTIO_NET_ERR;
	}
	return VIRTIO_NET_OK;
}

static uint8_t ctrl_command(struct virtio_net *n, struct iov_cur *data)
{
	struct virtio_net_ctrl_hdr h;

	iov_cur_read(data, &h, sizeof(h));
	switch (h.class) {
	case VIRTIO_NET_CTRL_MAC:
		return ctrl_mac(n, h.command, data);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return ctrl_offloads(n, h.command, data);
	case VIRTIO_NET_CTRL_MQ:
		return ctrl_mq(n, h.command, data);
	default:
		return VIRTIO_NET_ERR;
	}
}

/* False: nothing to do, or the device is broken. */
static bool ctrl_one(struct virtio_net *n, struct virtq *q)
{
	struct iovec iov[CTRL_SEGS];
	struct iov_cur data, answer;
	struct virtq_chain c;
	uint8_t ack;

	if (virtq_pop(q, &c, iov, CTRL_SEGS) <= 0) {
		return false;
	}
	if (c.out_len < sizeof(struct virtio_net_ctrl_hdr) || c.in_len < 1) {
		virtio_broken(&n->vd,
			      "control command without a header or room for the answer");
		virtq_unpop(q, &c);
		return false;
	}
	data = iov_cur_init(iov, c.n_out);
	answer = iov_cur_init(iov + c.n_out, c.n_in);
	ack = ctrl_command(n, &data);
	iov_cur_write(&answer, &ack, 1);
	virtq_push(q, &c, 1);
	return true;
}

static void ctrl_kick(struct virtq *q)
{
	struct virtio_net *n = net_of(q->vd);
	unsigned done = 0;

	do {
		virtq_kicks_off(q);
		while (done < CTRL_BURST && ctrl_one(n, q)) {
			done++;
		}
		virtq_notify(q);
		if (done == CTRL_BURST) {
			virtq_kick_self(q);
			return;
		}
	} while (virtq_kicks_on(q));
}

/* --- queues --- */

static void net_queue_start(struct virtq *q)
{
	struct virtio_net *n = net_of(q->vd);

	if (is_data(q) && q->index % 2 == NET_Q_RX) {
		if (!offloads_apply(n, n->guest_offloads)) {
			virtio_broken(q->vd, "the port cannot do what was agreed on");
		}
		pair_offloads(net_pair_of(q));
		net_rx_start(q);
	}
}

static void net_queue_kick(struct virtq *q)
{
	if (!is_data(q)) {
		if (q->index == ctrl_index(net_of(q->vd))) {
			ctrl_kick(q);
		}
	} else if (q->index % 2 == NET_Q_RX) {
		net_rx_kick(q);
	} else {
		net_tx_kick(q);
	}
}

static void net_queue_stop(struct virtq *q)
{
	if (!is_data(q)) {
		virtq_stopped(q);
	} else if (q->index % 2 == NET_Q_RX) {
		net_rx_stop(q);
	} else {
		net_tx_stop(q);
	}
}

/* --- state --- */

struct net_state {
	uint8_t mac[6];
	bool link_down; /* absent in version 1: the link was always up */
	uint64_t guest_offloads;
	uint16_t active;
};
static const struct state_field state_fields[] = {
	STATE_F_BYTES(struct net_state, mac),
	STATE_F_U64(struct net_state, guest_offloads),
	{.name = "link_down", .type = STATE_BOOL, .offset = offsetof(struct net_state, link_down),
	 .size = sizeof(bool), .count_offset = -1, .since = 2},
	{
		.name = "active", /* pairs; before version 2 there was one */
		.type = STATE_U16,
		.offset = offsetof(struct net_state, active),
		.size = sizeof(uint16_t),
		.count_offset = -1,
		.since = 2,
	},
	STATE_F_END,
};
static const struct state_desc net_state_desc = {
	.name = "virtio-net",
	.version = 2,
	.min_version = 1,
	.size = sizeof(struct net_state),
	.fields = state_fields,
};

static int net_save(struct virtio_dev *vd, void *st, struct err *err)
{
	struct virtio_net *n = net_of(vd);
	struct net_state *s = st;
	uint64_t mac = atomic_load(&n->mac);

	(void)err;
	memcpy(s->mac, &mac, sizeof(s->mac));
	s->guest_offloads = n->guest_offloads;
	s->active = (uint16_t)n->active;
	s->link_down = !atomic_load(&n->link_up);
	return 0;
}

/* The common state is loaded before this. */
static int net_load(struct virtio_dev *vd, const void *st, struct err *err)
{
	struct virtio_net *n = net_of(vd);
	const struct net_state *s = st;
	unsigned active = MAX(s->active, 1u);
	int r;

	if (active > (n->mq ? n->npairs : 1u)) {
		return err_set(err, EINVAL,
			       "%s: the saved driver uses %u queue pairs, which were never "
			       "agreed on",
			       vd->name, active);
	}
	if (s->guest_offloads & ~(vd->acked & GUEST_OFFLOADS) ||
	    !requirements_met(s->guest_offloads)) {
		return err_set(err, EINVAL,
			       "%s: the saved offloads 0x%llx were never agreed on", vd->name,
			       (unsigned long long)s->guest_offloads);
	}
	if (s->mac[0] & 1) {
		return err_set(err, EINVAL, "%s: the saved address is a group's", vd->name);
	}
	r = pairs_set(n, active);
	if (r < 0) {
		return err_set(err, -r, "%s: %s cannot use %u queues: %s", vd->name,
			       n->port->id, active, strerror(-r));
	}
	atomic_store(&n->mac, mac_pack(s->mac));
	n->guest_offloads = s->guest_offloads;
	if (s->link_down == atomic_load(&n->link_up)) {
		loop_post(vd->vm->loop, &n->link_work); /* the link is another one here */
	}
	return 0;
}

/* --- life --- */

static void link_tell(void *arg)
{
	struct virtio_net *n = arg;

	virtio_config_changed(&n->vd);
}

static void net_link(void *opaque, bool up)
{
	struct net_pair *p = opaque;
	struct virtio_net *n = p->n;

	atomic_store(&n->link_up, up);
	loop_post(n->vd.vm->loop, &n->link_work);
}

static void port_detach_on_loop(void *arg)
{
	struct net_pair *p = arg;

	p->port->ops->detach(p->port);
}

static void pairs_free(struct virtio_net *n)
{
	for (unsigned i = 0; i < n->npairs && n->pair; i++) {
		struct net_pair *p = &n->pair[i];

		if (p->attached) {
			loop_call(p->loop, port_detach_on_loop, p);
		}
		net_rx_fini(p);
		net_tx_fini(p);
	}
	free(n->pair);
}

static void net_destroy(struct virtio_dev *vd)
{
	struct virtio_net *n = net_of(vd);

	virtio_dev_fini(vd);
	pairs_free(n);
	if (vd->vm) { /* else nobody has posted it */
		loop_work_cancel(vd->vm->loop, &n->link_work);
	}
	if (n->claimed) {
		n->port->claimed = false;
	}
	free(n);
}

static const struct virtio_ops net_ops = {
	.name = "virtio-net",
	.device_id = VIRTIO_ID_NET,
	.pci_class = 0x020000, /* Ethernet controller */
	.config_len = sizeof(struct virtio_net_config_layout),
	.features = net_features,
	.features_ok = net_features_ok,
	.features_set = net_features_set,
	.config_read = net_config_read,
	.queue_start = net_queue_start,
	.queue_kick = net_queue_kick,
	.queue_stop = net_queue_stop,
	.reset = net_reset,
	.destroy = net_destroy,
	.state = &net_state_desc,
	.save = net_save,
	.load = net_load,
};

struct attach_call {
	struct net_pair *pair;
	int result;
};

static void port_attach_on_loop(void *arg)
{
	struct attach_call *c = arg;
	struct net_pair *p = c->pair;
	const struct net_client client = {
		.rx_ready = net_rx_ready,
		.tx_ready = net_tx_ready,
		.opaque = p,
		.link = net_link,
	};

	c->result = p->port->ops->attach(p->port, p->loop, &client);
}

static int config_check(const struct virtio_net_config *cfg, const struct net_port *port,
			const char *id, struct err *err)
{
	const struct {
		const char *name;
		unsigned size;
	} sizes[] = {{"rx_queue_size", cfg->rx_queue_size},
		     {"tx_queue_size", cfg->tx_queue_size}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		unsigned s = sizes[i].size;

		if (s && (!is_pow2(s) || s < QUEUE_SIZE_MIN || s > VIRTQ_MAX_SIZE)) {
			return err_set(err, EINVAL,
				       "%s: %s=%u is no power of two from %u to %u", id,
				       sizes[i].name, s, QUEUE_SIZE_MIN, VIRTQ_MAX_SIZE);
		}
	}
	if (cfg->mtu && cfg->mtu < MTU_MIN) {
		return err_set(err, EINVAL, "%s: host_mtu=%u is less than %u", id, cfg->mtu,
			       MTU_MIN);
	}
	if (cfg->mq && port->nmore >= NET_PAIRS_MAX) {
		return err_set(err, EINVAL,
			       "%s: netdev=%s has %u queues; a card has at most %u", id,
			       port->id, port->nmore + 1, NET_PAIRS_MAX);
	}
	if (cfg->mac_set && (cfg->mac[0] & 1)) {
		return err_set(err, EINVAL,
			       "%s: mac= is a group address; a card's first byte is even", id);
	}
	return 0;
}

/* #syscalls(start): getrandom */
static void mac_make(uint8_t mac[6])
{
	static const uint8_t local[3] = {0x52, 0x54, 0x00};

	memcpy(mac, local, sizeof(local));
	if (getrandom(mac + 3, 3, 0) != 3) {
		memcpy(mac + 3, "\x12\x34\x56", 3);
	}
}

static int pairs_make(struct virtio_net *n, struct err *err)
{
	n->pair = calloc(n->npairs, sizeof(*n->pair));
	for (unsigned i = 0; i < n->npairs && n->pair; i++) {
		struct net_pair *p = &n->pair[i];
		struct loop *l = n->cfg.pair_loop ? n->cfg.pair_loop[i] : n->cfg.loop;

		p->n = n;
		p->index = i;
		p->port = net_port_queue(n->port, i);
		p->loop = l ? l : n->vd.vm->loop;
		p->active = i == 0;
		if (net_rx_init(p, n->cfg.rx_queue_size) < 0 || net_tx_init(p) < 0) {
			return err_set(err, ENOMEM, "%s: out of memory", n->vd.name);
		}
	}
	n->active = 1;
	return n->pair ? 0 : err_set(err, ENOMEM, "%s: out of memory", n->vd.name);
}

static int pairs_attach(struct virtio_net *n, struct err *err)
{
	for (unsigned i = 0; i < n->npairs; i++) {
		struct attach_call call = {&n->pair[i], 0};

		loop_call(n->pair[i].loop, port_attach_on_loop, &call);
		if (call.result < 0) {
			return err_set(err, -call.result, "%s: netdev=%s cannot be watched: %s",
				       n->vd.name, n->port->id, strerror(-call.result));
		}
		n->pair[i].attached = true;
	}
	return 0;
}

int virtio_net_new(struct vm *vm, struct net_port *port, const struct virtio_net_config *cfg,
		   const char *id, struct virtio_dev **out, struct err *err)
{
	struct virtio_net *n;
	int r = config_check(cfg, port, id, err);

	if (r < 0) {
		return r;
	}
	if (port->claimed) {
		return err_set(
			err, EBUSY,
			"%s: netdev=%s is used by another device already; give each its own",
			id, port->id);
	}
	n = calloc(1, sizeof(*n));
	if (!n) {
		return err_set(err, ENOMEM, "%s: out of memory", id);
	}
	n->port = port;
	n->npairs = cfg->mq ? 1 + port->nmore : 1;
	n->cfg = *cfg;
	n->cfg.rx_queue_size = cfg->rx_queue_size ? cfg->rx_queue_size : QUEUE_SIZE_DEFAULT;
	n->cfg.tx_queue_size = cfg->tx_queue_size ? cfg->tx_queue_size : QUEUE_SIZE_DEFAULT;
	if (!cfg->mac_set) {
		mac_make(n->cfg.mac);
	}
	atomic_store(&n->mac, mac_pack(n->cfg.mac));
	atomic_store(&n->link_up, true);
	n->link_work = (struct loop_work){.fn = link_tell, .arg = n};
	r = virtio_dev_init(&n->vd, vm, &net_ops, id, 2 * n->npairs + 1, CTRL_QUEUE_SIZE, NULL);
	if (r < 0) {
		err_set(err, -r, "%s: no eventfd (%s)", id, strerror(-r));
		goto destroy;
	}
	r = pairs_make(n, err);
	if (r < 0) {
		goto destroy;
	}
	net_layout(n, false);
	port->claimed = n->claimed = true;
	r = pairs_attach(n, err);
	if (r < 0) {
		goto destroy;
	}
	*out = &n->vd;
	return 0;

destroy:
	net_destroy(&n->vd);
	return r;
}
