/*
 * Virtqueues, device side: what does not depend on the kind of ring. See virtq.h.
 *
 * Threads: q->loop while the queue runs, else the control loop.
 */
#include "virtio/virtq.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "virtio/virtq_int.h"

int virtq_map(struct virtq *q)
{
	q->ring = virtio_has(q->vd, VIRTIO_F_RING_PACKED) ? &virtq_packed : &virtq_split;
	q->event_idx = virtio_has(q->vd, VIRTIO_F_EVENT_IDX);
	q->indirect = virtio_has(q->vd, VIRTIO_F_INDIRECT_DESC);
	q->signalled_valid = false;
	q->inflight = 0;
	return q->ring->map(q);
}

void virtq_defaults(struct virtq *q)
{
	q->ring = &virtq_split; /* until it is mapped; nothing is taken from it before */
	q->size = q->max_size;
	virtio_queue_set_vector(q, VIRTIO_NO_VECTOR);
	q->enabled = false;
	q->resetting = false;
	q->desc_gpa = q->avail_gpa = q->used_gpa = 0;
	q->desc = q->avail = q->used = NULL;
	q->last_avail = q->avail_seen = 0;
	q->used_idx = q->signalled_used = 0;
	q->avail_wrap = q->used_wrap = true; /* 2.8.1 */
	q->signalled_valid = false;
	q->kicks_off = false;
	q->inflight = 0;
	q->resets++;
}

bool virtq_running(const struct virtq *q)
{
	return atomic_load_explicit(&q->run, memory_order_relaxed) == VIRTQ_RUNNING;
}

/* #syscalls: write */
void virtq_kick_self(struct virtq *q)
{
	const uint64_t one = 1;

	/* Fails only when the counter is full, and then it is signalled anyway. */
	if (write(q->kick_fd, &one, sizeof(one)) < 0) {
		return;
	}
}
