/*
 * virtio-net, receive. Virtio 1.2, section 5.1.6.3 and 5.1.6.4.
 *
 * rx_ready → the window is filled from the ring → the port reads one frame: its header into
 * rx->hdr, the rest into the buffers of the window behind the room for the header, and what they
 * cannot hold into rx->overflow → the header is checked and put in front → the chains that
 * hold the frame are pushed, the others stay in the window for the next one.
 *
 *            no buffer            a buffer (kick)
 *   reading ──────────▶ dry ───────────────────────▶ reading
 *      │ frame larger than the buffers there are (mergeable)
 *      ▼                 enough buffers: the rest is copied into them
 *   holding ───────────────────────────────────────────────────────▶ reading
 *                        after PATIENCE_NS, or with all of the ring taken: it is dropped
 *
 * In dry and holding the port is told to be silent and the driver's kicks are on.
 *
 * Invariants:
 * 1. the window is what is in flight: popped, in the order of the ring, not pushed; so it can be
 *    put back at any time, newest first, and the queue stops at once;
 * 2. iov[0] and an entry behind the tail are free; at most VIRTQ_MAX_SEGS live entries before a
 *    chain is popped, so there is room for any chain behind compaction;
 * 3. nothing is copied but the header and, when the driver is short of buffers, the overflow;
 *    nothing is allocated after creation.
 *
 * A frame that was read with offloads that the driver has not (left in the port's queue from
 * before a reset) is dropped. Threads: the queue's loop. Untrusted: the driver; frames are opaque.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/log.h"
#include "device/virtio/net_int.h"

#define HDR	     sizeof(struct virtio_net_hdr_v1)
#define BURST	     64u /* frames before the loop gets to its other work */
#define ENTRIES	     (2 * VIRTQ_MAX_SEGS + 2)
#define OVERFLOW_LEN (NET_FRAME_MAX + 1) /* a frame that fills it was cut off */
#define WANT_PLAIN   9728u		 /* without segmentation: a jumbo frame */
#define PATIENCE_NS  (50 * UINT64_C(1000000))

#define TSO_BITS                                                                               \
	(UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6)

static struct virtq *rx_queue(const struct net_pair *p)
{
	return &p->n->vd.queue[2 * p->index + NET_Q_RX];
}

static bool mergeable(const struct net_pair *p)
{
	return virtio_has(&p->n->vd, VIRTIO_NET_F_MRG_RXBUF);
}

static void port_on(struct net_pair *p, bool on)
{
	struct net_rx *rx = &p->rx;

	on = on && !rx->port_failed && p->active;
	if (rx->on != on) {
		rx->on = on;
		p->port->ops->rx_enable(p->port, on);
	}
}

/* --- the window --- */

static struct virtq_chain *chain_at(struct net_rx *rx, unsigned i)
{
	return &rx->chain[(rx->first + i) & rx->chain_mask];
}

/* Moves the live entries to the start when the next chain might not fit behind them. */
static void window_compact(struct net_rx *rx)
{
	unsigned moved = rx->head - 1;

	if (rx->tail + VIRTQ_MAX_SEGS < ENTRIES || !moved) {
		return;
	}
	memmove(rx->iov + 1, rx->iov + rx->head, (rx->tail - rx->head) * sizeof(*rx->iov));
	rx->head -= moved;
	rx->tail -= moved;
	for (unsigned i = 0; i < rx->count; i++) {
		chain_at(rx, i)->iov -= moved;
	}
}

/* Takes one more buffer; false if there is none (or the device is broken). */
static bool window_pop(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	struct virtq *q = rx_queue(p);
	struct virtq_chain *c = chain_at(rx, rx->count);

	window_compact(rx);
	if (virtq_pop(q, c, rx->iov + rx->tail, VIRTQ_MAX_SEGS) <= 0) {
		return false;
	}
	if (c->n_out || c->in_len < HDR) {
		virtio_broken(&p->n->vd, c->n_out
						 ? "receive buffer that is not to be written to"
						 : "receive buffer smaller than a header");
		virtq_unpop(q, c);
		return false;
	}
	rx->count++;
	rx->tail += c->n_in;
	rx->bytes += c->in_len;
	return true;
}

static bool window_full(const struct net_pair *p, uint64_t want)
{
	const struct net_rx *rx = &p->rx;

	return rx->count >= rx_queue(p)->size || rx->tail - rx->head > VIRTQ_MAX_SEGS ||
	       rx->bytes >= want || (rx->count && !mergeable(p));
}

/* Gets `want` bytes if the driver has them; false if there is nothing at all, or less than
 * `least`. Then the next buffer comes with a kick. */
static bool window_fill(struct net_pair *p, uint64_t want, uint64_t least)
{
	struct net_rx *rx = &p->rx;
	struct virtq *q = rx_queue(p);

	do {
		virtq_kicks_off(q);
		while (!window_full(p, want) && window_pop(p)) {
		}
		if (rx->count && rx->bytes >= least) {
			return true;
		}
	} while (!window_full(p, want) && virtq_kicks_on(q));
	return false;
}

static void window_put_back(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;

	while (rx->count > 0) {
		virtq_unpop(rx_queue(p), chain_at(rx, --rx->count));
	}
	rx->first = 0;
	rx->head = rx->tail = 1;
	rx->bytes = 0;
	rx->held = 0;
}

/* --- a frame --- */

static bool header_fits(const struct net_pair *p, const struct virtio_net_hdr_v1 *h)
{
	unsigned type = h->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
	uint64_t on = p->offloads;

	if ((h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !(on >> VIRTIO_NET_F_GUEST_CSUM & 1)) {
		return false;
	}
	if ((h->gso_type & VIRTIO_NET_HDR_GSO_ECN) && !(on >> VIRTIO_NET_F_GUEST_ECN & 1)) {
		return false;
	}
	switch (type) {
	case VIRTIO_NET_HDR_GSO_NONE:
		return true;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return on >> VIRTIO_NET_F_GUEST_TSO4 & 1;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return on >> VIRTIO_NET_F_GUEST_TSO6 & 1;
	default:
		return false;
	}
}

/* What is in the buffers of the window but will not be given to the driver. */
static void frame_dropped(struct net_pair *p, size_t len)
{
	struct net_rx *rx = &p->rx;

	mem_dirty_iov(p->n->vd.vm->mem, rx->iov + rx->head, (int)(rx->tail - rx->head),
		      MIN(len, rx->bytes));
	rx->held = 0;
}

/* The frame's len bytes (header included) are in the window, the header in rx->hdr. */
static void frame_push(struct net_pair *p, size_t len)
{
	struct net_rx *rx = &p->rx;
	struct iov_cur front = iov_cur_init(rx->iov + rx->head, rx->tail - rx->head);
	struct virtio_net_hdr_v1 h = rx->hdr;
	unsigned used = 0;
	uint64_t room = 0;

	while (room < len) {
		room += chain_at(rx, used++)->in_len;
	}
	if (!(p->offloads >> VIRTIO_NET_F_GUEST_CSUM & 1)) {
		h = (struct virtio_net_hdr_v1){0}; /* 5.1.6.4.1: no hints either */
	}
	h.num_buffers = le16_of((uint16_t)used);
	iov_cur_write(&front, &h, sizeof(h));
	while (used-- > 0) {
		struct virtq_chain *c = chain_at(rx, 0);
		uint32_t part = (uint32_t)MIN(len, c->in_len);

		virtq_push(rx_queue(p), c, part);
		len -= part;
		rx->bytes -= c->in_len;
		rx->head += c->n_in;
		rx->first++;
		rx->count--;
	}
	if (!rx->count) {
		rx->head = rx->tail = 1;
	}
}

/* The part of the frame in the overflow goes to its place, which is there now. */
static void overflow_copy(struct net_rx *rx, size_t len, size_t at)
{
	struct iov_cur cur = iov_cur_init(rx->iov + rx->head, rx->tail - rx->head);

	iov_cur_skip(&cur, at);
	iov_cur_write(&cur, rx->overflow, len - at);
}

/* A frame of `len` bytes, of which those from `at` on are in the overflow; false: it waits. */
static bool frame_place(struct net_pair *p, size_t len, size_t at)
{
	struct net_rx *rx = &p->rx;

	if (len > at) {
		if (!mergeable(p) && rx->bytes < len) {
			/* 5.1.6.3.1: a driver has to have buffers for whole frames. */
			log_guest(p->n->vd.name,
				  "a frame larger than the driver's buffer is dropped");
			frame_dropped(p, len);
			return true;
		}
		if (mergeable(p) && !window_fill(p, len, len)) {
			bool all = window_full(p, len);

			rx->held = len;
			rx->spilled_at = at;
			if (all) {
				log_guest(p->n->vd.name,
					  "a frame larger than all buffers is dropped");
				frame_dropped(p, len);
				return true;
			}
			return false;
		}
		overflow_copy(rx, len, at);
	}
	rx->held = 0;
	frame_push(p, len);
	return true;
}

/* Bytes, header included, or -errno. *at: where the overflow begins. */
static ssize_t frame_read(struct net_pair *p, size_t *at)
{
	struct net_rx *rx = &p->rx;
	struct iovec saved[HDR], behind, *vec = rx->iov + rx->head;
	unsigned cnt = MIN(rx->tail - rx->head, NET_VECS_MAX - 2), cut;
	size_t room = rx->tail - rx->head <= cnt ? rx->bytes : iov_len(vec, cnt);
	ssize_t r;

	*at = room; /* at least HDR: a buffer has that, and no entry is empty */
	behind = vec[cnt];
	vec[cnt] = (struct iovec){rx->overflow, OVERFLOW_LEN};
	cut = net_cut(vec, HDR, saved);
	vec[-1] = (struct iovec){&rx->hdr, HDR};
	r = p->port->ops->recv(p->port, vec - 1, cnt + 2);
	net_uncut(vec, saved, cut);
	vec[cnt] = behind;
	return r;
}

/* One frame; false: nothing more for now. */
static bool rx_one(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;
	size_t at;
	ssize_t r;

	if (!window_fill(p, HDR + (p->offloads & TSO_BITS ? NET_FRAME_MAX : WANT_PLAIN), 0)) {
		port_on(p, false);
		return false;
	}
	r = frame_read(p, &at);
	if (r == -EAGAIN) {
		return false;
	}
	if (r < 0 && r != -EMSGSIZE) {
		log_guest(p->n->vd.name, "reading from %s fails, the card is deaf: %s",
			  p->port->id, strerror((int)-r));
		rx->port_failed = true;
		port_on(p, false);
		return false;
	}
	if (r < (ssize_t)(HDR + NET_FRAME_MIN) || (size_t)r == at + OVERFLOW_LEN ||
	    !header_fits(p, &rx->hdr)) {
		frame_dropped(p, r < 0 ? rx->bytes : (size_t)r);
		return true;
	}
	if (!frame_place(p, (size_t)r, at)) {
		port_on(p, false);
		loop_timer_arm(&rx->patience, loop_now_ns(p->loop) + PATIENCE_NS);
		return false;
	}
	return true;
}

void net_rx_ready(void *opaque)
{
	struct net_pair *p = opaque;
	struct net_rx *rx = &p->rx;
	struct virtq *q = rx_queue(p);

	if (atomic_load(&p->n->vd.broken)) {
		port_on(p, false);
		return;
	}
	if (!virtq_running(q) || rx->held) {
		return;
	}
	for (unsigned i = 0; i < BURST && rx_one(p); i++) {
	}
	virtq_notify(q);
}

/* --- held frames --- */

static void patience_over(void *opaque)
{
	struct net_pair *p = opaque;
	struct net_rx *rx = &p->rx;

	if (rx->held) {
		log_debug(p->n->vd.name, "no buffers for a frame of %zu bytes; it is dropped",
			  rx->held - HDR);
		frame_dropped(p, rx->held);
		port_on(p, true);
	}
}

void net_rx_kick(struct virtq *q)
{
	struct net_pair *p = net_pair_of(q);
	struct net_rx *rx = &p->rx;

	if (atomic_load(&p->n->vd.broken)) {
		return;
	}
	if (rx->held) {
		if (!frame_place(p, rx->held, rx->spilled_at)) {
			return;
		}
		loop_timer_disarm(&rx->patience);
		virtq_notify(q);
	}
	virtq_kicks_off(q); /* until we are dry again */
	port_on(p, true);
}

/* --- life --- */

void net_rx_active(struct net_pair *p)
{
	if (virtq_running(rx_queue(p)) && !p->rx.held) {
		virtq_kicks_off(rx_queue(p)); /* as after a kick: until we are dry */
		port_on(p, true);
	} else if (!p->active) {
		port_on(p, false);
	}
}

void net_rx_start(struct virtq *q)
{
	struct net_pair *p = net_pair_of(q);
	struct net_rx *rx = &p->rx;

	rx->port_failed = false;
	loop_timer_init(q->loop, &rx->patience, patience_over, p);
}

void net_rx_stop(struct virtq *q)
{
	struct net_pair *p = net_pair_of(q);
	struct net_rx *rx = &p->rx;

	port_on(p, false);
	loop_timer_disarm(&rx->patience);
	if (rx->held) {
		frame_dropped(p, rx->held);
	}
	window_put_back(p);
	virtq_stopped(q);
}

int net_rx_init(struct net_pair *p, uint16_t queue_size)
{
	struct net_rx *rx = &p->rx;

	rx->chain_mask = queue_size - 1u;
	rx->head = rx->tail = 1;
	rx->chain = calloc(queue_size, sizeof(*rx->chain));
	rx->iov = calloc(ENTRIES, sizeof(*rx->iov));
	rx->overflow = malloc(OVERFLOW_LEN);
	return rx->chain && rx->iov && rx->overflow ? 0 : -ENOMEM;
}

void net_rx_fini(struct net_pair *p)
{
	struct net_rx *rx = &p->rx;

	free(rx->chain);
	free(rx->iov);
	free(rx->overflow);
}
