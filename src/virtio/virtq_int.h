/*
 * What split and packed rings share: the checks of descriptors and chains. Inline, because each
 * ring runs them for each descriptor.
 *
 * Untrusted: descriptors. They arrive here as host copies and are not fetched again.
 */
#ifndef VIRTIO_VIRTQ_INT_H
#define VIRTIO_VIRTQ_INT_H

#include <errno.h>
#include <stdatomic.h>

#include "core/vm.h"
#include "spec/virtio.h"
#include "virtio/virtio.h"

extern const struct virtq_ring virtq_split, virtq_packed;

/* A descriptor of either kind; `link` is the next one's index (split) or the buffer id. */
struct virtq_elem {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, link;
};

/* A table of descriptors: the queue's own, or an indirect one. An indirect table that runs over
 * two memory regions has no host pointer and is read by address. */
struct virtq_table {
	const void *host;
	gpa_t gpa;
	uint32_t count;
};

/* 1: pop may look for a request; 0: the queue is not running; -EPROTO: broken. */
static inline int virtq_may_pop(const struct virtq *q)
{
	if (atomic_load_explicit(&q->vd->broken, memory_order_relaxed)) {
		return -EPROTO;
	}
	return virtq_running(q);
}

/* The two halves of a descriptor, each read once. */
static inline int virtq_table_load(struct virtq *q, const struct virtq_table *t, uint32_t i,
				   uint64_t raw[2])
{
	if (t->host) {
		const uint64_t *p = (const uint64_t *)t->host + 2ul * i;

		raw[0] = __atomic_load_n(p, __ATOMIC_RELAXED);
		raw[1] = __atomic_load_n(p + 1, __ATOMIC_RELAXED);
		return 0;
	}
	return mem_read(q->vd->vm->mem, t->gpa + 16ull * i, raw, 2 * sizeof(raw[0]));
}

/* Follows an indirect descriptor; the message or NULL. */
static inline const char *virtq_table_enter(struct virtq *q, const struct virtq_elem *d,
					    struct virtq_table *t)
{
	if (!q->indirect) {
		return "indirect descriptor without VIRTIO_F_INDIRECT_DESC";
	}
	if (d->flags & VIRTQ_DESC_F_NEXT) {
		return "indirect descriptor with a next one";
	}
	if (!d->len || d->len % sizeof(struct virtq_desc)) {
		return "indirect table with a bad length";
	}
	t->count = MIN(d->len / (uint32_t)sizeof(struct virtq_desc), VIRTQ_MAX_SEGS);
	t->gpa = d->addr;
	/* No alignment is asked of indirect tables, so an odd one is read by address. */
	t->host = d->addr % 8 ? NULL
			      : mem_ptr(q->vd->vm->mem, d->addr,
					(uint64_t)t->count * sizeof(struct virtq_desc), false);
	return NULL;
}

/* Adds the host pieces of one descriptor to the chain; the message or NULL. */
static inline const char *virtq_chain_add(struct virtq *q, struct virtq_chain *c,
					  const struct virtq_elem *d, unsigned max)
{
	bool in = d->flags & VIRTQ_DESC_F_WRITE;
	unsigned used = (unsigned)c->n_out + c->n_in;
	int n;

	if (!in && c->n_in) {
		return "device-readable descriptor after a device-writable one";
	}
	if (!d->len) {
		return "descriptor of zero length";
	}
	if ((uint64_t)c->out_len + c->in_len + d->len > UINT32_MAX) {
		return "chain of 4 GiB or more";
	}
	n = mem_span(q->vd->vm->mem, d->addr, d->len, in, c->iov + used, (int)(max - used));
	if (n == -E2BIG) {
		return "chain with too many segments";
	}
	if (n < 0) {
		return "descriptor outside guest memory";
	}
	if (in) {
		c->n_in = (uint16_t)(c->n_in + n);
		c->in_len += d->len;
	} else {
		c->n_out = (uint16_t)(c->n_out + n);
		c->out_len += d->len;
	}
	return NULL;
}

#endif
