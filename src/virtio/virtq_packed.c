/*
 * Packed virtqueues, device side. Virtio 1.2, section 2.8.
 *
 * One ring that both sides write: a descriptor is available when its AVAIL flag equals the wrap
 * counter of the reader and its USED flag does not (2.8.1). A used one is written over the first
 * entry of a chain that was taken, in the order of completion, and the position moves on by as
 * many entries as that chain has. So entries behind used_idx are the driver's, and what was
 * taken is never read again: it may be overwritten by a used one at any time.
 *
 * Invariants while a queue runs:
 * 1. slots ≤ size is the number of entries in flight, inflight ≤ slots; a driver that makes
 *    available what is still in flight breaks the device;
 * 2. the walk of a chain ends: it takes at most size - slots entries, an indirect table at most
 *    VIRTQ_MAX_SEGS;
 * 3. used_idx is `slots` behind last_avail, so with nothing in flight they are equal;
 * 4. an iov entry handed out lies in guest RAM (mem_span()).
 *
 * Ordering: the word with a descriptor's flags is read with acquire before its address and what
 * follows it, and a used one is stored whole, flags included, with release. Each side tells the
 * other by a word of its own what it wants to hear of (event suppression, 2.8.14) and then looks
 * at the ring: see packed_notify() and packed_kicks_on().
 *
 * Threads: q->loop while the queue runs, else the control loop. Untrusted: the driver.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

#include "virtio/trace.h"
#include "virtio/virtq_int.h"

#define AVAIL	  VIRTQ_DESC_F_AVAIL
#define USED	  VIRTQ_DESC_F_USED
#define WRAP	  (1u << 15)
#define EVENT(f)  ((uint32_t)RING_EVENT_FLAGS_##f << 16)
#define EVENT_ALL (3u << 16)

static int packed_map(struct virtq *q)
{
	struct mem *m = q->vd->vm->mem;

	if (q->desc_gpa % PVIRTQ_DESC_ALIGN || q->avail_gpa % PVIRTQ_EVENT_ALIGN ||
	    q->used_gpa % PVIRTQ_EVENT_ALIGN || q->last_avail >= q->size ||
	    q->used_idx >= q->size) {
		return -EINVAL;
	}
	q->desc = mem_ptr(m, q->desc_gpa, sizeof(struct pvirtq_desc) * (uint64_t)q->size, true);
	q->avail = mem_ptr(m, q->avail_gpa, sizeof(struct pvirtq_event_suppress), false);
	q->used = mem_ptr(m, q->used_gpa, sizeof(struct pvirtq_event_suppress), true);
	if (!q->desc || !q->avail || !q->used) {
		return -EINVAL;
	}
	q->slots = 0;
	q->unsignalled = 0;
	return 0;
}

/* Position n entries further on. */
static void advance(const struct virtq *q, uint16_t *idx, bool *wrap, unsigned n)
{
	unsigned i = *idx + n;

	if (i >= q->size) {
		i -= q->size;
		*wrap = !*wrap;
	}
	*idx = (uint16_t)i;
}

/* --- taking requests --- */

/* The word of entry i with length, id and flags. */
static uint64_t *entry_word(const struct virtq *q, unsigned i)
{
	return (uint64_t *)q->desc + 2ul * i + 1;
}

static struct virtq_elem elem_of(uint64_t addr, uint64_t word)
{
	return (struct virtq_elem){
		.addr = addr,
		.len = (uint32_t)word,
		.link = (uint16_t)(word >> 32),
		.flags = (uint16_t)(word >> 48),
	};
}

static bool is_avail(const struct virtq *q, uint64_t word)
{
	return (word >> 48 & (AVAIL | USED)) == (q->avail_wrap ? AVAIL : USED);
}

/* 2.8.7: the table's entries follow each other; only their WRITE flag has a meaning. */
static const char *table_walk(struct virtq *q, struct virtq_chain *c,
			      const struct virtq_elem *ring_elem, unsigned max)
{
	struct virtq_table t;
	const char *bad = virtq_table_enter(q, ring_elem, &t);
	uint64_t raw[2];

	for (uint32_t i = 0; !bad && i < t.count; i++) {
		struct virtq_elem d;

		if (virtq_table_load(q, &t, i, raw) < 0) {
			return "indirect table outside guest memory";
		}
		d = elem_of(raw[0], raw[1]);
		if (d.flags & VIRTQ_DESC_F_INDIRECT) {
			return "indirect descriptor in an indirect table";
		}
		bad = virtq_chain_add(q, c, &d, max);
	}
	return bad;
}

/* Collects the chain whose first entry has this word; the message of what is wrong, or NULL. */
static const char *chain_walk(struct virtq *q, struct virtq_chain *c, uint64_t word,
			      unsigned max)
{
	unsigned i = q->last_avail, left = q->size - q->slots;

	for (;;) {
		struct virtq_elem d =
			elem_of(__atomic_load_n(entry_word(q, i) - 1, __ATOMIC_RELAXED), word);
		const char *bad;

		if (c->slots == left) {
			return "chain longer than what is free of the ring";
		}
		c->slots++;
		c->head = d.link; /* 2.8.6: the last one's counts */
		if (d.flags & VIRTQ_DESC_F_INDIRECT) {
			return c->slots > 1 ? "indirect descriptor behind a direct one"
					    : table_walk(q, c, &d, max);
		}
		bad = virtq_chain_add(q, c, &d, max);
		if (bad || !(d.flags & VIRTQ_DESC_F_NEXT)) {
			return bad;
		}
		i = i + 1u == q->size ? 0 : i + 1;
		word = __atomic_load_n(entry_word(q, i), __ATOMIC_RELAXED);
	}
}

static int packed_pop(struct virtq *q, struct virtq_chain *c, struct iovec *iov, unsigned max)
{
	int may = virtq_may_pop(q);
	const char *bad;
	uint64_t word;

	if (may <= 0) {
		return may;
	}
	word = __atomic_load_n(entry_word(q, q->last_avail), __ATOMIC_ACQUIRE);
	if (!is_avail(q, word)) {
		return 0;
	}
	*c = (struct virtq_chain){.iov = iov};
	bad = chain_walk(q, c, word, MIN(max, VIRTQ_MAX_SEGS));
	if (bad) {
		virtio_broken(q->vd, "queue %u: %s", q->index, bad);
		return -EPROTO;
	}
	advance(q, &q->last_avail, &q->avail_wrap, c->slots);
	q->slots = (uint16_t)(q->slots + c->slots);
	q->inflight++;
	trace_virtq_pop(q->vd->name, q->index, c->head, c->out_len, c->in_len);
	return 1;
}

static void packed_unpop(struct virtq *q, const struct virtq_chain *c)
{
	assert(q->inflight > 0);
	if (q->last_avail < c->slots) {
		q->last_avail = (uint16_t)(q->last_avail + q->size);
		q->avail_wrap = !q->avail_wrap;
	}
	q->last_avail = (uint16_t)(q->last_avail - c->slots);
	q->slots = (uint16_t)(q->slots - c->slots);
	q->inflight--;
}

static bool packed_empty(struct virtq *q)
{
	return !is_avail(q, __atomic_load_n(entry_word(q, q->last_avail), __ATOMIC_ACQUIRE));
}

/* --- giving them back --- */

static void packed_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	struct mem *m = q->vd->vm->mem;
	unsigned flags =
		(q->used_wrap ? AVAIL | USED : 0u) |
		(written ? VIRTQ_DESC_F_WRITE : 0u); /* without it the length is void */

	assert(q->inflight > 0 && written <= c->in_len);
	trace_virtq_push(q->vd->name, q->index, c->head, written);
	if (written) {
		mem_dirty_iov(m, c->iov + c->n_out, c->n_in, written);
	}
	__atomic_store_n(entry_word(q, q->used_idx),
			 written | (uint64_t)c->head << 32 | (uint64_t)flags << 48,
			 __ATOMIC_RELEASE);
	mem_dirty(m, q->desc_gpa + sizeof(struct pvirtq_desc) * (uint64_t)q->used_idx + 8, 8);
	advance(q, &q->used_idx, &q->used_wrap, c->slots);
	q->unsignalled += c->slots;
	q->slots = (uint16_t)(q->slots - c->slots);
	q->inflight--;
}

/* Is the entry at the driver's event position among the `moved` last ones in front of used_idx?
 * Positions are counted through two rounds of the ring, which a wrap counter tells apart. */
static bool event_passed(const struct virtq *q, uint32_t event, uint32_t moved)
{
	unsigned size = q->size, off = event & (WRAP - 1), back;

	if (off >= size) {
		return true; /* no such entry: a driver that is wrong is woken too often */
	}
	back = q->used_idx + (q->used_wrap ? size : 0) + 2 * size - off -
	       (event & WRAP ? size : 0);
	if (back >= 2 * size) {
		back -= 2 * size;
	}
	return back - 1 < moved; /* 1 … moved */
}

static void packed_notify(struct virtq *q)
{
	uint32_t event, moved = q->unsignalled;
	bool wanted;

	if (!moved) {
		return;
	}
	q->unsignalled = 0;
	/* The used entries have to be visible before we read what the driver wants: it asks first
	 * and looks at the ring then. A sequentially consistent store does not pass earlier
	 * stores, nor a later such load the store (x86: locked exchange, AArch64: stlr, ldar).
	 * The entries themselves cannot be stored again, they may be the driver's already. */
	__atomic_store_n(&q->fence, 0, __ATOMIC_SEQ_CST);
	event = __atomic_load_n((const uint32_t *)q->avail, __ATOMIC_SEQ_CST);
	switch (event & EVENT_ALL) {
	case EVENT(DISABLE):
		wanted = false;
		break;
	case EVENT(DESC):
		wanted = !q->event_idx || !q->signalled_valid || event_passed(q, event, moved);
		break;
	default:
		wanted = true;
		break;
	}
	q->signalled_valid = true;
	trace_virtq_notify(q->vd->name, q->index, q->used_idx, wanted);
	if (wanted) {
		q->vd->transport->notify_queue(q->vd, q);
	}
}

/* --- kicks --- */

static void event_set(struct virtq *q, uint32_t event, int order)
{
	__atomic_store_n((uint32_t *)q->used, event, order);
	mem_dirty(q->vd->vm->mem, q->used_gpa, sizeof(event));
}

static void packed_kicks_off(struct virtq *q)
{
	event_set(q, EVENT(DISABLE), __ATOMIC_RELAXED);
}

static bool packed_kicks_on(struct virtq *q)
{
	uint32_t here = q->last_avail | (q->avail_wrap ? WRAP : 0u);

	event_set(q, q->event_idx ? EVENT(DESC) | here : EVENT(ENABLE), __ATOMIC_SEQ_CST);
	return is_avail(q, __atomic_load_n(entry_word(q, q->last_avail), __ATOMIC_SEQ_CST)) &&
	       virtq_may_pop(q) > 0;
}

const struct virtq_ring virtq_packed = {
	.map = packed_map,
	.pop = packed_pop,
	.push = packed_push,
	.unpop = packed_unpop,
	.notify = packed_notify,
	.kicks_off = packed_kicks_off,
	.kicks_on = packed_kicks_on,
	.empty = packed_empty,
};
