/*
 * Requests that a device was keeping when its queues stopped (virtq_park()), as declared state.
 *
 * What the driver wrote in the ring is not enough to find them again: a packed ring is written over, and
 * a chain is not to be read twice. So each is saved with the addresses of its buffers, as it was taken.
 *
 * Untrusted: the stream. What a chain says is checked as that of a driver is, and against the rings.
 * Control loop, every queue is stopped.
 */
#ifndef VIRTIO_PARKED_H
#define VIRTIO_PARKED_H

#include "state/state.h"
#include "virtio/virtio.h"

#define VIRTQ_PARKED_CHAINS 1024u /* of a device */
#define VIRTQ_PARKED_SEGS   32768u

struct virtq_parked_chain {
	uint16_t queue, head, slots, n_out, n_in;
};
struct virtq_parked_seg {
	uint64_t gpa;
	uint32_t len;
};
struct virtq_parked {
	uint32_t nchains, nsegs;
	struct virtq_parked_chain chain[VIRTQ_PARKED_CHAINS];
	struct virtq_parked_seg seg[VIRTQ_PARKED_SEGS]; /* of one chain after the other */
};
extern const struct state_desc virtq_parked_desc;

/* Adds a chain as it was popped. -E2BIG: there is no room for it in the state. */
int virtq_parked_save(struct virtq_parked *st, struct virtq *q, const struct virtq_chain *c);

/* Where the next chain of q goes: one whose iov has room for *max segments, or NULL. */
typedef struct virtq_chain *virtq_parked_slot_fn(struct virtq *q, unsigned *max);
/* After virtio_load(). Each chain is then parked, as if it had been popped here. -EINVAL with a sentence:
 * those that slot() has given out by then are void. */
int virtq_parked_load(const struct virtq_parked *st, struct virtio_dev *vd,
		      virtq_parked_slot_fn *slot, struct err *err);

#endif
