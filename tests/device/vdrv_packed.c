/*
 * The driver's side of a packed ring: see vdrv.h. Virtio 1.2, section 2.8.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vdrv_int.h"

#define AVAIL VIRTQ_DESC_F_AVAIL
#define USED  VIRTQ_DESC_F_USED
#define WRAP  (1u << 15)

static uint64_t *word(const struct vdrv_queue *q, unsigned i)
{
	return (uint64_t *)(void *)q->desc + 2ul * i + 1;
}

static void entry_write(struct virtq_desc *t, unsigned i, uint64_t addr, uint32_t len,
			uint16_t flags, uint16_t id)
{
	uint64_t *p = (uint64_t *)(void *)&t[i];

	__atomic_store_n(p, addr, __ATOMIC_RELAXED);
	__atomic_store_n(p + 1, len | (uint64_t)id << 32 | (uint64_t)flags << 48,
			 __ATOMIC_RELEASE);
}

void packed_desc_set(struct vdrv_queue *q, uint16_t i, uint64_t addr, uint32_t len,
		     uint16_t flags, uint16_t id)
{
	entry_write(q->desc, i, addr, len, flags, id);
}

static void advance(const struct vdrv_queue *q, uint16_t *idx, bool *wrap, unsigned n)
{
	unsigned i = *idx + n;

	*wrap ^= i >= q->size;
	*idx = (uint16_t)(i >= q->size ? i - q->size : i);
}

static uint16_t avail_flags(bool wrap)
{
	return wrap ? AVAIL : USED;
}

void packed_new(struct vdrv_queue *q)
{
	memset(q->desc, 0, 16ull * q->size);
	memset(q->avail, 0, 4);
	memset(q->used, 0, 4);
	q->avail_idx = q->last_used = 0;
	q->avail_wrap = q->used_wrap = true;
	q->unkicked = 0;
	q->taken = 0;
	q->nfree = q->size;
	q->free_head = 0;
	for (unsigned i = 0; i < q->size; i++) {
		q->id_next[i] = (uint16_t)(i + 1);
		q->chain_len[i] = 0;
	}
}

/* An entry of q that says what it points to, the first of a chain last of all. */
static void entries_add(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out,
			unsigned n, uint16_t id)
{
	uint16_t at = q->avail_idx, flags = 0;
	bool wrap = q->avail_wrap;

	for (unsigned k = 0; k < n; k++) {
		uint16_t f = seg_flags(k, n_out, n) | avail_flags(wrap);

		if (k == 0) {
			flags = f;
		} else {
			packed_desc_set(q, at, seg[k].addr, seg[k].len, f, id);
		}
		advance(q, &at, &wrap, 1);
	}
	packed_desc_set(q, q->avail_idx, seg[0].addr, seg[0].len, flags, id);
}

int packed_add(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out, unsigned n,
	       bool indirect)
{
	unsigned slots = indirect ? 1 : n;
	uint16_t id = q->free_head;

	if (slots > q->nfree) {
		return -1; /* there are as many ids as entries */
	}
	q->free_head = q->id_next[id];
	q->nfree = (uint16_t)(q->nfree - slots);
	q->chain_len[id] = (uint16_t)slots;
	if (indirect) {
		struct virtq_desc *t = table_for(q, id, n);

		for (unsigned k = 0; k < n; k++) {
			entry_write(t, k, seg[k].addr, seg[k].len,
				    seg_flags(k, n_out, n) & VIRTQ_DESC_F_WRITE, 0);
		}
		packed_desc_set(q, q->avail_idx, q->table[id], 16 * n,
				VIRTQ_DESC_F_INDIRECT | avail_flags(q->avail_wrap), id);
	} else {
		entries_add(q, seg, n_out, n, id);
	}
	advance(q, &q->avail_idx, &q->avail_wrap, slots);
	q->unkicked += slots;
	return id;
}

void packed_avail_put(struct vdrv_queue *q, uint16_t id)
{
	uint64_t *p = word(q, q->avail_idx);
	uint64_t flags = (*p >> 48 & ~(uint64_t)(AVAIL | USED)) | avail_flags(q->avail_wrap);

	__atomic_store_n(p, (*p & UINT32_MAX) | (uint64_t)id << 32 | flags << 48,
			 __ATOMIC_RELEASE);
	advance(q, &q->avail_idx, &q->avail_wrap, 1);
	q->unkicked++;
}

void packed_avail_idx_set(struct vdrv_queue *q, uint16_t idx)
{
	q->avail_idx = (uint16_t)((idx & (WRAP - 1)) % q->size);
	q->avail_wrap = idx >> 15;
}

bool packed_kick_wanted(struct vdrv_queue *q)
{
	uint32_t event = __atomic_load_n((uint32_t *)(void *)q->used, __ATOMIC_SEQ_CST);
	unsigned off = event & (WRAP - 1), size = q->size, back;

	switch (event >> 16) {
	case RING_EVENT_FLAGS_ENABLE:
		return true;
	case RING_EVENT_FLAGS_DISABLE:
		return false;
	default:
		must(event >> 16 == RING_EVENT_FLAGS_DESC && off < size);
		must(q->d->features >> VIRTIO_F_EVENT_IDX & 1);
		back = (q->avail_idx + (q->avail_wrap ? size : 0) + 2 * size - off -
			(event & WRAP ? size : 0)) %
		       (2 * size);
		return back && back <= q->unkicked;
	}
}

static bool is_used(const struct vdrv_queue *q, uint16_t at, bool wrap, uint64_t *w)
{
	*w = __atomic_load_n(word(q, at), __ATOMIC_ACQUIRE);
	return (*w >> 48 & (AVAIL | USED)) == (wrap ? AVAIL | USED : 0);
}

bool packed_used(struct vdrv_queue *q, uint16_t *head, uint32_t *len)
{
	uint64_t w;
	uint16_t id;

	if (!is_used(q, q->last_used, q->used_wrap, &w)) {
		return false;
	}
	id = (uint16_t)(w >> 32);
	*head = id;
	*len = (uint32_t)w;
	must(id < q->size && q->chain_len[id]);
	must(!*len == !(w >> 48 & VIRTQ_DESC_F_WRITE));
	advance(q, &q->last_used, &q->used_wrap, q->chain_len[id]);
	q->nfree = (uint16_t)(q->nfree + q->chain_len[id]);
	q->chain_len[id] = 0;
	q->id_next[id] = q->free_head;
	q->free_head = id;
	q->taken++;
	return true;
}

unsigned packed_used_total(struct vdrv_queue *q)
{
	uint16_t at = q->last_used;
	bool wrap = q->used_wrap;
	unsigned n = 0;
	uint64_t w;

	while (n < q->size && is_used(q, at, wrap, &w)) {
		uint16_t id = (uint16_t)(w >> 32);

		if (id >= q->size || !q->chain_len[id]) {
			break; /* an entry that was never available looks used in the other round */
		}
		advance(q, &at, &wrap, q->chain_len[id]);
		n++;
	}
	return q->taken + n;
}

static void event_set(struct vdrv_queue *q, uint32_t event)
{
	__atomic_store_n((uint32_t *)(void *)q->avail, event, __ATOMIC_SEQ_CST);
}

void packed_irq_on(struct vdrv_queue *q)
{
	uint32_t here = q->last_used | (q->used_wrap ? WRAP : 0);

	event_set(q, q->d->features >> VIRTIO_F_EVENT_IDX & 1
			     ? here | (uint32_t)RING_EVENT_FLAGS_DESC << 16
			     : (uint32_t)RING_EVENT_FLAGS_ENABLE << 16);
}

void packed_irq_off(struct vdrv_queue *q)
{
	event_set(q, (uint32_t)RING_EVENT_FLAGS_DISABLE << 16);
}
