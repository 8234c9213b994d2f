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
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#include "virtio/trace.h"
#include "virtio/virtq_int.h"

/* Ring fields are naturally aligned: split_map() checks the rings' addresses. */
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

static int split_map(struct virtq *q)
{
	struct mem *m = q->vd->vm->mem;

	if (!is_pow2(q->size) || q->desc_gpa % VIRTQ_DESC_ALIGN ||
	    q->avail_gpa % VIRTQ_AVAIL_ALIGN || q->used_gpa % VIRTQ_USED_ALIGN) {
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
	return 0;
}

/* --- taking requests --- */

static int desc_load(struct virtq *q, const struct virtq_table *t, uint32_t i,
		     struct virtq_elem *d)
{
	uint64_t raw[2];

	if (virtq_table_load(q, t, i, raw) < 0) {
		return -EFAULT;
	}
	d->addr = raw[0];
	d->len = (uint32_t)raw[1];
	d->flags = (uint16_t)(raw[1] >> 32);
	d->link = (uint16_t)(raw[1] >> 48);
	return 0;
}

/* Collects the chain that starts at c->head; the message of what is wrong with it, or NULL. */
static const char *chain_walk(struct virtq *q, struct virtq_chain *c, unsigned max)
{
	struct virtq_table t = {q->desc, q->desc_gpa, q->size};
	uint32_t i = c->head, steps = 0;
	bool indirect = false;
	const char *bad;
	struct virtq_elem d;

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
			bad = virtq_table_enter(q, &d, &t);
			if (bad) {
				return bad;
			}
			indirect = true;
			i = steps = 0;
			continue;
		}
		bad = virtq_chain_add(q, c, &d, max);
		if (bad) {
			return bad;
		}
		if (!(d.flags & VIRTQ_DESC_F_NEXT)) {
			return NULL;
		}
		i = d.link;
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

static int split_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max)
{
	const struct virtq_avail *a = q->avail;
	int may = virtq_may_pop(q);
	const char *bad;

	if (may <= 0) {
		return may;
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

static void split_unpop(struct virtq *q, const struct virtq_chain *c)
{
	(void)c;
	assert(q->inflight > 0);
	q->last_avail--;
	q->inflight--;
}

static bool split_empty(struct virtq *q)
{
	return avail_idx_load(q, __ATOMIC_ACQUIRE) == q->last_avail;
}

/* --- giving them back --- */

static void split_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
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

static void split_notify(struct virtq *q)
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

static void split_kicks_off(struct virtq *q)
{
	struct virtq_used *u = q->used;

	/* With event indices it is enough not to move the event on. */
	if (!q->event_idx) {
		st16(&u->flags, VIRTQ_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
		mem_dirty(q->vd->vm->mem, q->used_gpa, 2);
	}
}

static bool split_kicks_on(struct virtq *q)
{
	struct virtq_used *u = q->used;
	struct mem *m = q->vd->vm->mem;

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

const struct virtq_ring virtq_split = {
	.map = split_map,
	.pop = split_pop,
	.push = split_push,
	.unpop = split_unpop,
	.notify = split_notify,
	.kicks_off = split_kicks_off,
	.kicks_on = split_kicks_on,
	.empty = split_empty,
};
