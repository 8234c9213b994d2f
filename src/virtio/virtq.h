/*
 * A virtqueue, device side: split ring with indirect descriptors and event index (packed rings
 * come later behind the same functions). Virtio 1.2, sections 2.6 and 2.7.
 *
 * Untrusted: everything in the rings. Each descriptor is copied once into a host copy, checked
 * (range, direction order, chain length ≤ queue size, total ≤ 2^32, no nested indirect), then
 * used. Whatever is malformed breaks the device: virtq_pop() calls virtio_broken() and returns
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
	uint16_t head;
	uint16_t n_out, n_in;
	uint32_t out_len, in_len;
	struct iovec *iov;
};

struct virtq {
	struct virtio_dev *vd;
	unsigned index;
	struct loop *loop; /* data path: an iothread's or the control loop */

	/* what the driver configured (control loop) */
	uint16_t size, max_size;
	uint16_t vector;
	bool enabled;
	gpa_t desc_gpa, avail_gpa, used_gpa;

	/* running: host pointers to the rings, checked when the queue is started */
	enum virtq_run run;
	void *desc, *avail, *used;
	bool event_idx, indirect;
	uint16_t last_avail;      /* next avail entry to take */
	uint16_t used_idx;        /* next used entry to write */
	uint16_t signalled_used;  /* used_idx at the last interrupt */
	bool signalled_valid;
	bool kicks_off;           /* notifications suppressed while we poll */
	uint16_t inflight;        /* popped, not pushed */

	/* doorbell: an eventfd that the kernel signals (ioeventfd) */
	int kick_fd;
	struct loop_fd kick_watch;
	struct loop_work work;    /* start/stop on q->loop */
};

/* Takes the next request: 1 and fills *c, 0 if there is none, -EPROTO if the queue is broken.
 * iov[max]: if the chain has more segments the device breaks, too. */
int virtq_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max);
/* Gives the request back, `written` bytes of its in-part were written (marks them dirty). Does
 * not interrupt: call virtq_notify() after a batch. Any order. */
void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written);
/* Puts the last popped request back untouched (no room for it now). */
void virtq_unpop(struct virtq *q, const struct virtq_chain *c);
/* Interrupts the driver if it asked for it. */
void virtq_notify(struct virtq *q);
/* Suppress kicks while busy; virtq_kicks_on() returns true if requests came meanwhile (then
 * handle them before sleeping). */
void virtq_kicks_off(struct virtq *q);
bool virtq_kicks_on(struct virtq *q);
bool virtq_empty(struct virtq *q);

/* A device's answer to ops->queue_stop(): nothing of this queue is in flight any more. Called on
 * q->loop, may happen inside queue_stop(). */
void virtq_stopped(struct virtq *q);

#endif
