/*
 * virtio-net: configuration, control queue, life. Virtio 1.2, section 5.1.
 *
 * One pair of queues (receive 0, transmit 1) and the control queue behind it; the data paths are
 * in net_rx.c and net_tx.c. What the driver takes from the host (checksums left undone, segments
 * left together) is told to the port when the receive queue starts and whenever the driver
 * changes it over the control queue.
 *
 * Frames are not filtered by address (CTRL_RX is not offered): the driver gets what the port has.
 *
 * Threads: the control loop, apart from the queues, which all run on the device's loop, so that
 * the control queue changes what the data path uses without a lock. Untrusted: the driver.
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
		.max_virtqueue_pairs = le16_of(ARRAY_SIZE(n->pair)),
		.mtu = le16_of(n->cfg.mtu),
	};
	uint64_t mac = atomic_load(&n->mac);

	memcpy(c.mac, &mac, sizeof(c.mac));
	memcpy(buf, (const char *)&c + off, len);
}

static void net_reset(struct virtio_dev *vd)
{
	struct virtio_net *n = net_of(vd);

	n->guest_offloads = 0;
	atomic_store(&n->mac, mac_pack(n->cfg.mac));
}

/* On the device's loop. False: the port cannot. */
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
	n->guest_offloads = want;
	return true;
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

	if (q->index == NET_Q_RX) {
		if (!offloads_apply(n, n->guest_offloads)) {
			virtio_broken(q->vd, "the port cannot do what was agreed on");
		}
		net_rx_start(q);
	}
}

static void net_queue_kick(struct virtq *q)
{
	switch (q->index) {
	case NET_Q_RX:
		net_rx_kick(q);
		break;
	case NET_Q_TX:
		net_tx_kick(q);
		break;
	default:
		ctrl_kick(q);
		break;
	}
}

static void net_queue_stop(struct virtq *q)
{
	switch (q->index) {
	case NET_Q_RX:
		net_rx_stop(q);
		break;
	case NET_Q_TX:
		net_tx_stop(q);
		break;
	default:
		virtq_stopped(q);
		break;
	}
}

/* --- state --- */

struct net_state {
	uint8_t mac[6];
	bool link_down; /* absent in version 1: the link was always up */
	uint64_t guest_offloads;
};
static const struct state_field state_fields[] = {
	STATE_F_BYTES(struct net_state, mac),
	STATE_F_U64(struct net_state, guest_offloads),
	{.name = "link_down", .type = STATE_BOOL, .offset = offsetof(struct net_state, link_down),
	 .size = sizeof(bool), .count_offset = -1, .since = 2},
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
	s->link_down = !atomic_load(&n->link_up);
	return 0;
}

/* The common state is loaded before this. */
static int net_load(struct virtio_dev *vd, const void *st, struct err *err)
{
	struct virtio_net *n = net_of(vd);
	const struct net_state *s = st;

	if (s->guest_offloads & ~(vd->acked & GUEST_OFFLOADS) ||
	    !requirements_met(s->guest_offloads)) {
		return err_set(err, EINVAL,
			       "%s: the saved offloads 0x%llx were never agreed on", vd->name,
			       (unsigned long long)s->guest_offloads);
	}
	if (s->mac[0] & 1) {
		return err_set(err, EINVAL, "%s: the saved address is a group's", vd->name);
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
	struct virtio_net *n = opaque;

	atomic_store(&n->link_up, up);
	loop_post(n->vd.vm->loop, &n->link_work);
}

static void port_detach_on_loop(void *arg)
{
	struct virtio_net *n = arg;

	n->port->ops->detach(n->port);
}

static void net_destroy(struct virtio_dev *vd)
{
	struct virtio_net *n = net_of(vd);

	virtio_dev_fini(vd);
	if (n->attached) {
		loop_call(n->loop, port_detach_on_loop, n);
		loop_work_cancel(vd->vm->loop, &n->link_work);
	}
	if (n->claimed) {
		n->port->claimed = false;
	}
	net_rx_fini(n);
	net_tx_fini(n);
	free(n);
}

static const struct virtio_ops net_ops = {
	.name = "virtio-net",
	.device_id = VIRTIO_ID_NET,
	.pci_class = 0x020000, /* Ethernet controller */
	.config_len = sizeof(struct virtio_net_config_layout),
	.features = net_features,
	.features_ok = net_features_ok,
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
	struct virtio_net *net;
	int result;
};

static void port_attach_on_loop(void *arg)
{
	struct attach_call *c = arg;
	struct virtio_net *n = c->net;
	const struct net_client client = {
		.rx_ready = net_rx_ready,
		.tx_ready = net_tx_ready,
		.opaque = n,
		.link = net_link,
	};

	c->result = n->port->ops->attach(n->port, n->loop, &client);
}

static int config_check(const struct virtio_net_config *cfg, const char *id, struct err *err)
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

static void queue_size_set(struct virtq *q, uint16_t size)
{
	q->max_size = size;
	virtq_defaults(q);
}

int virtio_net_new(struct vm *vm, struct net_port *port, const struct virtio_net_config *cfg,
		   const char *id, struct virtio_dev **out, struct err *err)
{
	uint16_t rx_size = cfg->rx_queue_size ? cfg->rx_queue_size : QUEUE_SIZE_DEFAULT;
	uint16_t tx_size = cfg->tx_queue_size ? cfg->tx_queue_size : QUEUE_SIZE_DEFAULT;
	struct attach_call call;
	struct virtio_net *n;
	int r = config_check(cfg, id, err);

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
	n->loop = cfg->loop ? cfg->loop : vm->loop;
	n->cfg = *cfg;
	if (!cfg->mac_set) {
		mac_make(n->cfg.mac);
	}
	atomic_store(&n->mac, mac_pack(n->cfg.mac));
	atomic_store(&n->link_up, true);
	n->link_work = (struct loop_work){.fn = link_tell, .arg = n};
	if (net_rx_init(n, rx_size) < 0 || net_tx_init(n) < 0) {
		r = err_set(err, ENOMEM, "%s: out of memory", id);
		goto destroy;
	}
	r = virtio_dev_init(&n->vd, vm, &net_ops, id, NET_QUEUES, MAX(rx_size, tx_size),
			    n->loop);
	if (r < 0) {
		err_set(err, -r, "%s: no eventfd (%s)", id, strerror(-r));
		goto destroy;
	}
	queue_size_set(&n->vd.queue[NET_Q_RX], rx_size);
	queue_size_set(&n->vd.queue[NET_Q_TX], tx_size);
	queue_size_set(&n->vd.queue[NET_Q_CTRL], CTRL_QUEUE_SIZE);
	port->claimed = n->claimed = true;
	call = (struct attach_call){n, 0};
	loop_call(n->loop, port_attach_on_loop, &call);
	if (call.result < 0) {
		r = err_set(err, -call.result, "%s: netdev=%s cannot be watched: %s", id,
			    port->id, strerror(-call.result));
		goto destroy;
	}
	n->attached = true;
	*out = &n->vd;
	return 0;

destroy:
	net_destroy(&n->vd);
	return r;
}
