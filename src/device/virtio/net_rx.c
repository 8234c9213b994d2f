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

static struct virtq *rx_queue(struct virtio_net *n)
{
	return &n->vd.queue[NET_Q_RX];
}

static bool mergeable(const struct virtio_net *n)
{
	return virtio_has(&n->vd, VIRTIO_NET_F_MRG_RXBUF);
}

static void port_on(struct virtio_net *n, bool on)
{
	struct net_rx *rx = &n->pair[0].rx;

	on = on && !rx->port_failed;
	if (rx->on != on) {
		rx->on = on;
		n->port->ops->rx_enable(n->port, on);
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
static bool window_pop(struct virtio_net *n)
{
	struct net_rx *rx = &n->pair[0].rx;
	struct virtq *q = rx_queue(n);
	struct virtq_chain *c = chain_at(rx, rx->count);

	window_compact(rx);
	if (virtq_pop(q, c, rx->iov + rx->tail, VIRTQ_MAX_SEGS) <= 0) {
		return false;
	}
	if (c->n_out || c->in_len < HDR) {
		virtio_broken(&n->vd, c->n_out ? "receive buffer that is not to be written to"
					       : "receive buffer smaller than a header");
		virtq_unpop(q, c);
		return false;
	}
	rx->count++;
	rx->tail += c->n_in;
	rx->bytes += c->in_len;
	return true;
}

static bool window_full(const struct virtio_net *n, uint64_t want)
{
	const struct net_rx *rx = &n->pair[0].rx;

	return rx->count >= n->vd.queue[NET_Q_RX].size ||
	       rx->tail - rx->head > VIRTQ_MAX_SEGS || rx->bytes >= want ||
	       (rx->count && !mergeable(n));
}

/* Gets `want` bytes if the driver has them; false if there is nothing at all, or less than
 * `least`. Then the next buffer comes with a kick. */
static bool window_fill(struct virtio_net *n, uint64_t want, uint64_t least)
{
	struct net_rx *rx = &n->pair[0].rx;
	struct virtq *q = rx_queue(n);

	do {
		virtq_kicks_off(q);
		while (!window_full(n, want) && window_pop(n)) {
		}
		if (rx->count && rx->bytes >= least) {
			return true;
		}
	} while (!window_full(n, want) && virtq_kicks_on(q));
	return false;
}

static void window_put_back(struct virtio_net *n)
{
	struct net_rx *rx = &n->pair[0].rx;

	while (rx->count > 0) {
		virtq_unpop(rx_queue(n), chain_at(rx, --rx->count));
	}
	rx->first = 0;
	rx->head = rx->tail = 1;
	rx->bytes = 0;
	rx->held = 0;
}

/* --- a frame --- */

static bool header_fits(const struct virtio_net *n, const struct virtio_net_hdr_v1 *h)
{
	unsigned type = h->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
	uint64_t on = n->guest_offloads;

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
static void frame_dropped(struct virtio_net *n, size_t len)
{
	struct net_rx *rx = &n->pair[0].rx;

	mem_dirty_iov(n->vd.vm->mem, rx->iov + rx->head, (int)(rx->tail - rx->head),
		      MIN(len, rx->bytes));
	rx->held = 0;
}

/* The frame's len bytes (header included) are in the window, the header in rx->hdr. */
static void frame_push(struct virtio_net *n, size_t len)
{
	struct net_rx *rx = &n->pair[0].rx;
	struct iov_cur front = iov_cur_init(rx->iov + rx->head, rx->tail - rx->head);
	struct virtio_net_hdr_v1 h = rx->hdr;
	unsigned used = 0;
	uint64_t room = 0;

	while (room < len) {
		room += chain_at(rx, used++)->in_len;
	}
	if (!(n->guest_offloads >> VIRTIO_NET_F_GUEST_CSUM & 1)) {
		h = (struct virtio_net_hdr_v1){0}; /* 5.1.6.4.1: no hints either */
	}
	h.num_buffers = le16_of((uint16_t)used);
	iov_cur_write(&front, &h, sizeof(h));
	while (used-- > 0) {
		struct virtq_chain *c = chain_at(rx, 0);
		uint32_t part = (uint32_t)MIN(len, c->in_len);

		virtq_push(rx_queue(n), c, part);
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
static bool frame_place(struct virtio_net *n, size_t len, size_t at)
{
	struct net_rx *rx = &n->pair[0].rx;

	if (len > at) {
		if (!mergeable(n) && rx->bytes < len) {
			/* 5.1.6.3.1: a driver has to have buffers for whole frames. */
			log_guest(n->vd.name,
				  "a frame larger than the driver's buffer is dropped");
			frame_dropped(n, len);
			return true;
		}
		if (mergeable(n) && !window_fill(n, len, len)) {
			bool all = window_full(n, len);

			rx->held = len;
			rx->spilled_at = at;
			if (all) {
				log_guest(n->vd.name,
					  "a frame larger than all buffers is dropped");
				frame_dropped(n, len);
				return true;
			}
			return false;
		}
		overflow_copy(rx, len, at);
	}
	rx->held = 0;
	frame_push(n, len);
	return true;
}

/* Bytes, header included, or -errno. *at: where the overflow begins. */
static ssize_t frame_read(struct virtio_net *n, size_t *at)
{
	struct net_rx *rx = &n->pair[0].rx;
	struct iovec saved[HDR], behind, *vec = rx->iov + rx->head;
	unsigned cnt = MIN(rx->tail - rx->head, NET_VECS_MAX - 2), cut;
	size_t room = rx->tail - rx->head <= cnt ? rx->bytes : iov_len(vec, cnt);
	ssize_t r;

	*at = room; /* at least HDR: a buffer has that, and no entry is empty */
	behind = vec[cnt];
	vec[cnt] = (struct iovec){rx->overflow, OVERFLOW_LEN};
	cut = net_cut(vec, HDR, saved);
	vec[-1] = (struct iovec){&rx->hdr, HDR};
	r = n->port->ops->recv(n->port, vec - 1, cnt + 2);
	net_uncut(vec, saved, cut);
	vec[cnt] = behind;
	return r;
}

/* One frame; false: nothing more for now. */
static bool rx_one(struct virtio_net *n)
{
	struct net_rx *rx = &n->pair[0].rx;
	size_t at;
	ssize_t r;

	if (!window_fill(n, HDR + (n->guest_offloads & TSO_BITS ? NET_FRAME_MAX : WANT_PLAIN),
			 0)) {
		port_on(n, false);
		return false;
	}
	r = frame_read(n, &at);
	if (r == -EAGAIN) {
		return false;
	}
	if (r < 0 && r != -EMSGSIZE) {
		log_guest(n->vd.name, "reading from %s fails, the card is deaf: %s",
			  n->port->id, strerror((int)-r));
		rx->port_failed = true;
		port_on(n, false);
		return false;
	}
	if (r < (ssize_t)(HDR + NET_FRAME_MIN) || (size_t)r == at + OVERFLOW_LEN ||
	    !header_fits(n, &rx->hdr)) {
		frame_dropped(n, r < 0 ? rx->bytes : (size_t)r);
		return true;
	}
	if (!frame_place(n, (size_t)r, at)) {
		port_on(n, false);
		loop_timer_arm(&rx->patience, loop_now_ns(n->loop) + PATIENCE_NS);
		return false;
	}
	return true;
}

void net_rx_ready(void *opaque)
{
	struct virtio_net *n = opaque;
	struct net_rx *rx = &n->pair[0].rx;
	struct virtq *q = rx_queue(n);

	if (atomic_load(&n->vd.broken)) {
		port_on(n, false);
		return;
	}
	if (!virtq_running(q) || rx->held) {
		return;
	}
	for (unsigned i = 0; i < BURST && rx_one(n); i++) {
	}
	virtq_notify(q);
}

/* --- held frames --- */

static void patience_over(void *opaque)
{
	struct virtio_net *n = opaque;
	struct net_rx *rx = &n->pair[0].rx;

	if (rx->held) {
		log_debug(n->vd.name, "no buffers for a frame of %zu bytes; it is dropped",
			  rx->held - HDR);
		frame_dropped(n, rx->held);
		port_on(n, true);
	}
}

void net_rx_kick(struct virtq *q)
{
	struct virtio_net *n = net_of(q->vd);
	struct net_rx *rx = &n->pair[0].rx;

	if (atomic_load(&n->vd.broken)) {
		return;
	}
	if (rx->held) {
		if (!frame_place(n, rx->held, rx->spilled_at)) {
			return;
		}
		loop_timer_disarm(&rx->patience);
		virtq_notify(q);
	}
	virtq_kicks_off(q); /* until we are dry again */
	port_on(n, true);
}

/* --- life --- */

void net_rx_start(struct virtq *q)
{
	struct virtio_net *n = net_of(q->vd);
	struct net_rx *rx = &n->pair[0].rx;

	rx->port_failed = false;
	loop_timer_init(q->loop, &rx->patience, patience_over, n);
}

void net_rx_stop(struct virtq *q)
{
	struct virtio_net *n = net_of(q->vd);
	struct net_rx *rx = &n->pair[0].rx;

	port_on(n, false);
	loop_timer_disarm(&rx->patience);
	if (rx->held) {
		frame_dropped(n, rx->held);
	}
	window_put_back(n);
	virtq_stopped(q);
}

int net_rx_init(struct virtio_net *n, uint16_t queue_size)
{
	struct net_rx *rx = &n->pair[0].rx;

	rx->chain_mask = queue_size - 1u;
	rx->head = rx->tail = 1;
	rx->chain = calloc(queue_size, sizeof(*rx->chain));
	rx->iov = calloc(ENTRIES, sizeof(*rx->iov));
	rx->overflow = malloc(OVERFLOW_LEN);
	return rx->chain && rx->iov && rx->overflow ? 0 : -ENOMEM;
}

void net_rx_fini(struct virtio_net *n)
{
	struct net_rx *rx = &n->pair[0].rx;

	free(rx->chain);
	free(rx->iov);
	free(rx->overflow);
}
