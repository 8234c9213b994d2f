/*
 * virtio-net, transmit. Virtio 1.2, section 5.1.6.2.
 *
 * A chain is popped, its header fetched once into a host copy, checked, and the frame goes to the
 * port from guest memory with the host copy in front. When the port has no room the chain goes
 * back into the ring (it is fetched and checked anew when there is), so nothing is ever in flight
 * between two calls and a queue stops at once.
 *
 * A frame with a header that no driver may make is dropped, and so is one the port refuses: a
 * header can come from an unprivileged program in the guest (a packet socket), which must not
 * be able to break the card of the guest. A chain that cannot hold a frame breaks the device.
 *
 * Threads: the queue's loop. Untrusted: the driver.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/iov.h"
#include "base/log.h"
#include "device/virtio/net_int.h"

#define HDR    sizeof(struct virtio_net_hdr_v1)
#define BURST  256u /* frames before the loop gets to its other work */
#define TCPHDR 20u

unsigned net_cut(struct iovec *iov, size_t len, struct iovec *saved)
{
	unsigned i = 0;

	while (len > 0) {
		size_t n = MIN(len, iov[i].iov_len);

		saved[i] = iov[i];
		iov[i].iov_base = (char *)iov[i].iov_base + n;
		iov[i].iov_len -= n;
		len -= n;
		i++;
	}
	return i;
}

static const char *gso_check(const struct virtio_dev *vd, struct virtio_net_hdr_v1 *h,
			     size_t len)
{
	unsigned type = h->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
	unsigned feature = type == VIRTIO_NET_HDR_GSO_TCPV4   ? VIRTIO_NET_F_HOST_TSO4
			   : type == VIRTIO_NET_HDR_GSO_TCPV6 ? VIRTIO_NET_F_HOST_TSO6
							      : 0;

	if (!feature || !virtio_has(vd, feature)) {
		return "segmentation that was not agreed on";
	}
	if ((h->gso_type & VIRTIO_NET_HDR_GSO_ECN) && !virtio_has(vd, VIRTIO_NET_F_HOST_ECN)) {
		return "segmentation with ECN, which was not agreed on";
	}
	if (!(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
		return "segmentation without a checksum to fill in";
	}
	if (!le16_get(h->gso_size) || le16_get(h->csum_start) + TCPHDR > len) {
		return "segmentation into nothing";
	}
	return NULL;
}

const char *net_tx_header_check(const struct virtio_dev *vd, struct virtio_net_hdr_v1 *h,
				size_t len)
{
	uint32_t csum_end = 0, hdr_len;
	const char *bad;

	if (len < NET_FRAME_MIN || len > NET_FRAME_MAX) {
		return "frame of an impossible length";
	}
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM; /* 5.1.6.2.2: others are ignored */
	h->num_buffers = le16_of(0);
	if (h->flags) {
		csum_end = (uint32_t)le16_get(h->csum_start) + le16_get(h->csum_offset) + 2;
		if (!virtio_has(vd, VIRTIO_NET_F_CSUM)) {
			return "checksum to fill in, which was not agreed on";
		}
		if (le16_get(h->csum_start) < NET_FRAME_MIN || csum_end > len) {
			return "checksum outside the frame";
		}
	} else {
		h->csum_start = h->csum_offset = le16_of(0);
	}
	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		h->gso_size = h->hdr_len = le16_of(0);
		return NULL;
	}
	bad = gso_check(vd, h, len);
	if (bad) {
		return bad;
	}
	/* A hint, which must not be relied on (5.1.6.2.2); the port gets a possible one. */
	hdr_len = MAX(le16_get(h->hdr_len), csum_end);
	h->hdr_len = le16_of((uint16_t)MIN(hdr_len, MIN(len, UINT16_MAX)));
	return NULL;
}

/* 0: the chain is done with (sent or dropped); -EAGAIN: no room. */
static int frame_send(struct net_pair *p, struct virtq_chain *c)
{
	struct virtio_dev *vd = &p->n->vd;
	struct virtio_net_hdr_v1 h;
	struct iovec saved[HDR], *iov = c->iov;
	struct iov_cur cur = iov_cur_init(iov, c->n_out);
	unsigned cut, skip, cnt;
	const char *bad;
	ssize_t sent;

	iov_cur_read(&cur, &h, sizeof(h));
	bad = net_tx_header_check(vd, &h, c->out_len - sizeof(h));
	if (bad) {
		log_guest(vd->name, "frame dropped: %s", bad);
		return 0;
	}
	cut = net_cut(iov, sizeof(h), saved);
	skip = iov[cut - 1].iov_len ? cut - 1 : cut;
	cnt = c->n_out - skip + 1;
	if (cnt > NET_VECS_MAX) {
		log_guest(vd->name, "frame dropped: it is in more than %u pieces",
			  NET_VECS_MAX - 1);
		net_uncut(iov, saved, cut);
		return 0;
	}
	/* The entry in front of the frame: the one behind what was cut, or iov[-1]. */
	iov += (int)skip - 1;
	*iov = (struct iovec){&h, sizeof(h)};
	sent = p->port->ops->send(p->port, iov, cnt);
	net_uncut(c->iov, saved, cut);
	if (sent == -EAGAIN) {
		return -EAGAIN;
	}
	return 0; /* what the port could not send is lost, as on a wire */
}

/* One frame. 1: go on, 0: nothing to do or no room. */
static int tx_one(struct net_pair *p, struct virtq *q)
{
	struct net_tx *tx = &p->tx;
	struct virtq_chain c;

	if (virtq_pop(q, &c, tx->iov + 1, VIRTQ_MAX_SEGS) <= 0) {
		return 0;
	}
	if (c.n_in || c.out_len <= HDR) {
		virtio_broken(q->vd, c.n_in ? "transmit buffer to be written to"
					    : "transmit buffer without a frame");
		virtq_unpop(q, &c);
		return 0;
	}
	if (frame_send(p, &c) == -EAGAIN) {
		virtq_unpop(q, &c);
		tx->blocked = true;
		p->port->ops->tx_poll(p->port, true);
		return 0;
	}
	virtq_push(q, &c, 0);
	return 1;
}

void net_tx_kick(struct virtq *q)
{
	struct net_pair *p = net_pair_of(q);
	struct net_tx *tx = &p->tx;
	unsigned sent = 0;

	if (tx->blocked) {
		return;
	}
	do {
		virtq_kicks_off(q);
		while (sent < BURST && tx_one(p, q)) {
			sent++;
		}
		virtq_notify(q);
		if (tx->blocked) {
			return; /* tx_ready() goes on; no kick is of use until then */
		}
		if (sent == BURST) {
			virtq_kick_self(q);
			return;
		}
	} while (virtq_kicks_on(q));
}

void net_tx_ready(void *opaque)
{
	struct net_pair *p = opaque;
	struct net_tx *tx = &p->tx;

	if (!tx->blocked) {
		return;
	}
	tx->blocked = false;
	p->port->ops->tx_poll(p->port, false);
	net_tx_kick(&p->n->vd.queue[2 * p->index + NET_Q_TX]);
}

void net_tx_stop(struct virtq *q)
{
	struct net_pair *p = net_pair_of(q);
	struct net_tx *tx = &p->tx;

	if (tx->blocked) {
		tx->blocked = false;
		p->port->ops->tx_poll(p->port, false);
	}
	virtq_stopped(q);
}

int net_tx_init(struct net_pair *p)
{
	struct net_tx *tx = &p->tx;

	tx->iov = calloc(1 + VIRTQ_MAX_SEGS, sizeof(*tx->iov));
	return tx->iov ? 0 : -ENOMEM;
}

void net_tx_fini(struct net_pair *p)
{
	free(p->tx.iov);
}
