/*
 * Split virtqueues, device side. Virtio 1.2, section 2.7.
 *
 * The rings live in guest memory and change under us. What we read of them is read once, with
 * one atomic access per field, into locals; only those are checked and used. What we wrote
 * (used ring, avail event) is never read back: last_avail and used_idx are our own copies.
 *
 * Invariants while a queue runs:
 * 1. inflight ≤ size, so a device needs at most `size` request structures, whatever the driver
 *    puts into the avail ring;
 * 2. last_avail is at most `size` behind the avail index, else the device is broken;
 * 3. the walk of a chain ends: every step counts against the size of its table;
 * 4. an iov entry handed out lies in guest RAM (mem_span()).
 *
 * Ordering: the avail index is read with acquire before the entries and descriptors behind it;
 * the used index is stored with release after the used entry. The two places where each side
 * stores one location and then reads the other's (used index against used_event, avail_event
 * against the avail index, 2.7.7 and 2.7.10) use sequentially consistent accesses.
 *
 * Threads: q->loop while the queue runs, else the control loop. Untrusted: the driver.
 */
#include "virtio/virtq.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "core/vm.h"
#include "spec/virtio.h"
#include "virtio/trace.h"
#include "virtio/virtio.h"

/* Ring fields are naturally aligned: virtq_map() checks the rings' addresses. */
static uint16_t ld16(const void *p, int order)
{
	return __atomic_load_n((const uint16_t *)p, order);
}

static void st16(void *p, uint16_t v, int order)
{
	__atomic_store_n((uint16_t *)p, v, order);
}

static uint16_t avail_idx_load(const struct virtq *q, int order)
{
	const struct virtq_avail *a = q->avail;

	return ld16(&a->idx, order);
}

static void *avail_event_ptr(const struct virtq *q)
{
	struct virtq_used *u = q->used;

	return &u->ring[q->size];
}

static const void *used_event_ptr(const struct virtq *q)
{
	const struct virtq_avail *a = q->avail;

	return &a->ring[q->size];
}

static uint64_t avail_bytes(const struct virtq *q)
{
	return sizeof(struct virtq_avail) + 2ull * q->size + (q->event_idx ? 2 : 0);
}

static uint64_t used_bytes(const struct virtq *q)
{
	return sizeof(struct virtq_used) + 8ull * q->size + (q->event_idx ? 2 : 0);
}

int virtq_map(struct virtq *q)
{
	struct mem *m = q->vd->vm->mem;

	q->event_idx = virtio_has(q->vd, VIRTIO_F_EVENT_IDX);
	q->indirect = virtio_has(q->vd, VIRTIO_F_INDIRECT_DESC);
	if (q->desc_gpa % VIRTQ_DESC_ALIGN || q->avail_gpa % VIRTQ_AVAIL_ALIGN ||
	    q->used_gpa % VIRTQ_USED_ALIGN) {
		return -EINVAL;
	}
	q->desc = mem_ptr(m, q->desc_gpa, 16ull * q->size, false);
	q->avail = mem_ptr(m, q->avail_gpa, avail_bytes(q), false);
	q->used = mem_ptr(m, q->used_gpa, used_bytes(q), true);
	if (!q->desc || !q->avail || !q->used) {
		return -EINVAL;
	}
	q->avail_seen = q->last_avail;
	q->signalled_used = q->used_idx;
	q->signalled_valid = false;
	q->inflight = 0;
	return 0;
}

void virtq_defaults(struct virtq *q)
{
	q->size = q->max_size;
	virtio_queue_set_vector(q, VIRTIO_NO_VECTOR);
	q->enabled = false;
	q->resetting = false;
	q->desc_gpa = q->avail_gpa = q->used_gpa = 0;
	q->desc = q->avail = q->used = NULL;
	q->last_avail = q->avail_seen = 0;
	q->used_idx = q->signalled_used = 0;
	q->signalled_valid = false;
	q->kicks_off = false;
	q->inflight = 0;
}

bool virtq_running(const struct virtq *q)
{
	return atomic_load_explicit(&q->run, memory_order_relaxed) == VIRTQ_RUNNING;
}

/* --- taking requests --- */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* A table of descriptors: the queue's own, or an indirect one. An indirect table that runs over
 * two memory regions has no host pointer and is read by address. */
struct desc_table {
	const void *host;
	gpa_t gpa;
	uint32_t count;
};

static int desc_load(struct virtq *q, const struct desc_table *t, uint32_t i, struct desc *d)
{
	uint64_t raw[2];

	if (t->host) {
		const uint64_t *p = (const uint64_t *)t->host + 2ul * i;

		raw[0] = __atomic_load_n(p, __ATOMIC_RELAXED);
		raw[1] = __atomic_load_n(p + 1, __ATOMIC_RELAXED);
	} else if (mem_read(q->vd->vm->mem, t->gpa + 16ull * i, raw, sizeof(raw)) < 0) {
		return -EFAULT;
	}
	d->addr = raw[0];
	d->len = (uint32_t)raw[1];
	d->flags = (uint16_t)(raw[1] >> 32);
	d->next = (uint16_t)(raw[1] >> 48);
	return 0;
}

/* Follows an indirect descriptor; the message or NULL. */
static const char *table_enter(struct virtq *q, const struct desc *d, struct desc_table *t)
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
static const char *chain_add(struct virtq *q, struct virtq_chain *c, const struct desc *d,
			     unsigned max)
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

/* Collects the chain that starts at c->head; the message of what is wrong with it, or NULL. */
static const char *chain_walk(struct virtq *q, struct virtq_chain *c, unsigned max)
{
	struct desc_table t = {q->desc, q->desc_gpa, q->size};
	uint32_t i = c->head, steps = 0;
	bool indirect = false;
	const char *bad;
	struct desc d;

	for (;;) {
		if (i >= t.count) {
			return "descriptor index out of range";
		}
		if (steps++ == t.count) {
			return "chain longer than its table (a loop)";
		}
		if (desc_load(q, &t, i, &d) < 0) {
			return "indirect table outside guest memory";
		}
		if (d.flags & VIRTQ_DESC_F_INDIRECT) {
			if (indirect) {
				return "indirect descriptor in an indirect table";
			}
			bad = table_enter(q, &d, &t);
			if (bad) {
				return bad;
			}
			indirect = true;
			i = steps = 0;
			continue;
		}
		bad = chain_add(q, c, &d, max);
		if (bad) {
			return bad;
		}
		if (!(d.flags & VIRTQ_DESC_F_NEXT)) {
			return NULL;
		}
		i = d.next;
	}
}

/* Refreshes avail_seen; false if there is nothing to take. */
static bool avail_refresh(struct virtq *q)
{
	q->avail_seen = avail_idx_load(q, __ATOMIC_ACQUIRE);
	if ((uint16_t)(q->avail_seen - q->last_avail) > q->size) {
		virtio_broken(q->vd, "queue %u: available index %u is too far from %u",
			      q->index, q->avail_seen, q->last_avail);
		return false;
	}
	return q->avail_seen != q->last_avail;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max)
{
	const struct virtq_avail *a = q->avail;
	const char *bad;

	if (atomic_load_explicit(&q->vd->broken, memory_order_relaxed)) {
		return -EPROTO;
	}
	if (!virtq_running(q)) {
		return 0;
	}
	if (q->avail_seen == q->last_avail && !avail_refresh(q)) {
		return atomic_load_explicit(&q->vd->broken, memory_order_relaxed) ? -EPROTO : 0;
	}
	if (q->inflight >= q->size) {
		virtio_broken(q->vd, "queue %u: more requests than the queue has entries",
			      q->index);
		return -EPROTO;
	}
	*c = (struct virtq_chain){
		.head = ld16(&a->ring[q->last_avail & (q->size - 1)], __ATOMIC_RELAXED),
		.iov = iov,
	};
	bad = chain_walk(q, c, MIN(max, VIRTQ_MAX_SEGS));
	if (bad) {
		virtio_broken(q->vd, "queue %u: %s", q->index, bad);
		return -EPROTO;
	}
	q->last_avail++;
	q->inflight++;
	trace_virtq_pop(q->vd->name, q->index, c->head, c->out_len, c->in_len);
	return 1;
}

void virtq_unpop(struct virtq *q, const struct virtq_chain *c)
{
	(void)c;
	assert(q->inflight > 0);
	q->last_avail--;
	q->inflight--;
}

bool virtq_empty(struct virtq *q)
{
	return avail_idx_load(q, __ATOMIC_ACQUIRE) == q->last_avail;
}

/* --- giving them back --- */

void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	struct mem *m = q->vd->vm->mem;
	struct virtq_used *u = q->used;
	unsigned slot = q->used_idx & (q->size - 1u);
	uint32_t *elem = (uint32_t *)(void *)&u->ring[slot];

	assert(q->inflight > 0 && written <= c->in_len);
	trace_virtq_push(q->vd->name, q->index, c->head, written);
	if (written) {
		mem_dirty_iov(m, c->iov + c->n_out, c->n_in, written);
	}
	__atomic_store_n(elem, c->head, __ATOMIC_RELAXED);
	__atomic_store_n(elem + 1, written, __ATOMIC_RELAXED);
	q->used_idx++;
	q->inflight--;
	st16(&u->idx, q->used_idx, __ATOMIC_RELEASE);
	mem_dirty(m, q->used_gpa + offsetof(struct virtq_used, ring) + 8ull * slot, 8);
	mem_dirty(m, q->used_gpa, sizeof(struct virtq_used));
}

/* 2.7.10: the driver wants to hear of the entry with index event_idx; we went from old to new.
 */
static bool event_passed(uint16_t event_idx, uint16_t new_idx, uint16_t old)
{
	return (uint16_t)(new_idx - event_idx - 1) < (uint16_t)(new_idx - old);
}

void virtq_notify(struct virtq *q)
{
	const struct virtq_avail *a = q->avail;
	struct virtq_used *u = q->used;
	uint16_t old = q->signalled_used;
	bool wanted;

	if (q->used_idx == old) {
		return;
	}
	/* Stored again, now ordered before the read of what the driver wants. */
	st16(&u->idx, q->used_idx, __ATOMIC_SEQ_CST);
	q->signalled_used = q->used_idx;
	if (q->event_idx) {
		uint16_t event = ld16(used_event_ptr(q), __ATOMIC_SEQ_CST);

		wanted = !q->signalled_valid || event_passed(event, q->used_idx, old);
		q->signalled_valid = true;
	} else {
		wanted = !(ld16(&a->flags, __ATOMIC_SEQ_CST) & VIRTQ_AVAIL_F_NO_INTERRUPT);
	}
	trace_virtq_notify(q->vd->name, q->index, q->used_idx, wanted);
	if (wanted) {
		q->vd->transport->notify_queue(q->vd, q);
	}
}

/* --- kicks --- */

void virtq_kicks_off(struct virtq *q)
{
	struct virtq_used *u = q->used;

	if (q->kicks_off) {
		return;
	}
	q->kicks_off = true;
	/* With event indices it is enough not to move the event on. */
	if (!q->event_idx) {
		st16(&u->flags, VIRTQ_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
		mem_dirty(q->vd->vm->mem, q->used_gpa, 2);
	}
}

bool virtq_kicks_on(struct virtq *q)
{
	struct virtq_used *u = q->used;
	struct mem *m = q->vd->vm->mem;

	q->kicks_off = false;
	if (q->event_idx) {
		st16(avail_event_ptr(q), q->last_avail, __ATOMIC_SEQ_CST);
		mem_dirty(m, q->used_gpa + sizeof(*u) + 8ull * q->size, 2);
	} else {
		st16(&u->flags, 0, __ATOMIC_SEQ_CST);
		mem_dirty(m, q->used_gpa, 2);
	}
	return avail_idx_load(q, __ATOMIC_SEQ_CST) != q->last_avail && virtq_running(q) &&
	       !atomic_load_explicit(&q->vd->broken, memory_order_relaxed);
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
