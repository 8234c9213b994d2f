/*
 * A virtqueue, device side: split (virtq_split.c) or packed (virtq_packed.c), both with indirect
 * descriptors and event suppression, behind the same functions. Virtio 1.2, sections 2.6 to 2.8.
 * Which it is the driver decides (VIRTIO_F_RING_PACKED); q->ring is the table of that kind.
 *
 * Untrusted: everything in the rings. Each descriptor is copied once into a host copy, checked
 * (range, direction order, chain length, total < 2^32, no nested indirect), then used. A chain
 * in the ring itself has at most queue-size descriptors (2.7.5.2), one in an indirect
 * table at most VIRTQ_MAX_SEGS: existing drivers let an indirect chain be longer than a small
 * queue. Whatever is malformed breaks the device: virtq_pop() calls virtio_broken() and returns
 * -EPROTO for ever after, until reset; the VM goes on.
 *
 * Threads: q->loop owns a running queue; the control loop owns it otherwise. No lock,
 * allocation or system call but the interrupt.
 */
#ifndef VIRTIO_VIRTQ_H
#define VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "event/loop.h"
#include "mem/mem.h"

struct virtio_dev;

#define VIRTQ_MAX_SIZE 1024u
/* Segments of one request that a device may be given (the front end is told via seg_max). */
#define VIRTQ_MAX_SEGS 1024u

enum virtq_run {
	VIRTQ_STOPPED, /* not started, or drained */
	VIRTQ_RUNNING,
	VIRTQ_STOPPING, /* ops->queue_stop() called, virtq_stopped() outstanding */
};

/* One request: iov[0..n_out) is what the driver wrote, iov[n_out..n_out+n_in) is for us. The
 * iov array is the caller's and has to live until virtq_push(). */
struct virtq_chain {
	uint16_t head;  /* what the driver knows it by: index of its head, or buffer id */
	uint16_t slots; /* packed: entries of the ring it takes */
	uint16_t n_out, n_in;
	uint32_t out_len, in_len;
	struct iovec *iov;
};

struct virtq;
/* What differs between the two kinds of rings; the functions below say what each does. */
struct virtq_ring {
	int (*map)(struct virtq *q);
	int (*pop)(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max);
	void (*push)(struct virtq *q, const struct virtq_chain *c, uint32_t written);
	void (*unpop)(struct virtq *q, const struct virtq_chain *c);
	void (*notify)(struct virtq *q);
	void (*kicks_off)(struct virtq *q);
	bool (*kicks_on)(struct virtq *q);
	bool (*empty)(struct virtq *q);
};

struct virtq {
	struct virtio_dev *vd;
	const struct virtq_ring *ring;
	unsigned index;
	struct loop *loop; /* data path: an iothread's or the control loop */

	/* what the driver configured (control loop) */
	uint16_t size, max_size;
	uint16_t vector;
	bool enabled;
	gpa_t desc_gpa, avail_gpa, used_gpa; /* packed: ring, driver's and device's event area */

	bool resetting;  /* queue_reset was written; the queue is not at its defaults yet */
	bool awaited;    /* stopping: counted in vd->stopping */
	uint32_t resets; /* times that it went back to its defaults */

	/* running: host pointers to the rings, checked when the queue is started */
	_Atomic enum virtq_run run; /* → STOPPED on q->loop, everything else by the control loop */
	void *desc, *avail, *used;
	bool event_idx, indirect;
	uint16_t last_avail;      /* next avail entry to take */
	uint16_t used_idx;        /* next used entry to write */
	uint16_t signalled_used;  /* split: used_idx at the last interrupt */
	bool signalled_valid;
	uint16_t avail_seen;      /* split: avail idx as read last: what is there to take */
	bool avail_wrap, used_wrap; /* packed: wrap counters of last_avail and used_idx */
	uint16_t slots;           /* packed: entries of the ring that are popped, not pushed */
	uint32_t unsignalled;     /* packed: entries pushed since the last virtq_notify() */
	uint32_t fence;           /* packed: see packed_notify() */
	bool kicks_off;           /* notifications suppressed while we poll */
	bool in_stop;             /* inside ops->queue_stop() */
	uint16_t inflight;        /* popped, not pushed; ≤ size */

	/* doorbell: an eventfd that the kernel signals (ioeventfd) */
	int kick_fd;
	struct loop_fd kick_watch;
};

bool virtq_running(const struct virtq *q); /* false from ops->queue_stop() on */

/* Takes the next request: 1 and fills *c, 0 if there is none or the queue is not running, -EPROTO
 * if the device is broken.
 * iov[max]: if the chain has more segments the device breaks, too. */
static inline int virtq_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov,
			    unsigned max)
{
	return q->ring->pop(q, c, iov, max);
}
/* Gives the request back, `written` bytes from the start of its in-part were written (marks them
 * dirty; what else was written the device marks itself). Does not interrupt: call virtq_notify()
 * after a batch. Any order. */
static inline void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	q->ring->push(q, c, written);
}
/* Puts the last popped request back untouched (no room for it now). */
static inline void virtq_unpop(struct virtq *q, const struct virtq_chain *c)
{
	q->ring->unpop(q, c);
}
/* A popped request stays with the device while the queue is stopped, and comes back before the
 * running queue takes another one. On q->loop; between ops->queue_stop() and virtq_stopped(), and
 * inside ops->queue_start(). After a reset (q->resets) there is no such request any more. */
static inline void virtq_park(struct virtq *q, const struct virtq_chain *c)
{
	q->inflight--;
	q->slots -= c->slots;
}
static inline void virtq_unpark(struct virtq *q, const struct virtq_chain *c)
{
	q->inflight++;
	q->slots += c->slots;
}
/* Interrupts the driver if it asked for it. */
static inline void virtq_notify(struct virtq *q)
{
	q->ring->notify(q);
}
/* Suppress kicks while busy; virtq_kicks_on() returns true if requests came meanwhile (then
 * handle them before sleeping); false on a queue that is broken or not running. A device that
 * would serve a driver for ever stops after some rounds and calls virtq_kick_self(): the loop
 * gets to its other work and then calls queue_kick() again. */
static inline void virtq_kicks_off(struct virtq *q)
{
	if (!q->kicks_off) {
		q->kicks_off = true;
		q->ring->kicks_off(q);
	}
}
static inline bool virtq_kicks_on(struct virtq *q)
{
	q->kicks_off = false;
	return q->ring->kicks_on(q);
}
void virtq_kick_self(struct virtq *q);
static inline bool virtq_empty(struct virtq *q)
{
	return q->ring->empty(q);
}

/* A device's answer to ops->queue_stop(): nothing of this queue is in flight any more. Called on
 * q->loop, may happen inside queue_stop(). */
void virtq_stopped(struct virtq *q);

/* --- for virtio.c: control loop, the queue is not running --- */
/* Chooses the kind of ring, maps it and prepares the running state; -EINVAL: a part of it is not
 * in guest RAM, or its size or address is impossible for this kind. */
int virtq_map(struct virtq *q);
void virtq_defaults(struct virtq *q); /* as after a reset */

#endif
