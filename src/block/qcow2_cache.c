/*
 * qcow2: bounded caches of metadata. A slot holds a slice: 4 KiB of an L2 table or of a refcount
 * block, or all of one that is smaller, as it is on disk.
 *
 * Threads: one writer (the image's owner). Readers on other threads (q2_peek()) find a slot by its
 * key and read entries of it without waiting; what they read counts only if the slot's sequence
 * number was even and is the same afterwards. So a slot's memory is never given back while the image
 * is open, and everything that they look at is atomic.
 *
 * Size: fixed until a reopen, when nobody looks. Memory of slots that were never used is not touched; q2_cache_clean() gives
 * back what has not been used for a while.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "block/qcow2_int.h"

/* #syscalls(main): mmap */
int q2_cache_init(struct q2_cache *c, unsigned slice_bits, uint64_t bytes)
{
	uint64_t slots = MAX(bytes >> slice_bits, Q2_WAYS);
	void *p;

	memset(c, 0, sizeof(*c));
	c->slice_bits = slice_bits;
	c->nsets = 1;
	while ((uint64_t)c->nsets * 2 * Q2_WAYS <= slots) {
		c->nsets *= 2;
	}
	c->nslots = c->nsets * Q2_WAYS;
	c->data_bytes = (uint64_t)c->nslots << slice_bits;
	c->slot = calloc(c->nslots, sizeof(*c->slot));
	p = mmap(NULL, c->data_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!c->slot || p == MAP_FAILED) {
		free(c->slot);
		c->slot = NULL;
		if (p != MAP_FAILED) {
			munmap(p, c->data_bytes);
		}
		return -ENOMEM;
	}
	c->data = p;
	return 0;
}

/* #syscalls(main): munmap */
void q2_cache_fini(struct q2_cache *c)
{
	free(c->slot);
	if (c->data) {
		munmap((void *)c->data, c->data_bytes);
	}
	memset(c, 0, sizeof(*c));
}

static struct q2_slot *set_of(struct q2_cache *c, uint64_t key)
{
	uint64_t h = (key >> c->slice_bits) * UINT64_C(0x9e3779b97f4a7c15);

	return c->slot + ((h >> 32) & (c->nsets - 1)) * Q2_WAYS;
}

struct q2_slot *q2_cache_find(struct q2_cache *c, uint64_t key)
{
	struct q2_slot *s = set_of(c, key);

	for (unsigned i = 0; i < Q2_WAYS; i++) {
		if (atomic_load_explicit(&s[i].key, memory_order_acquire) == key) {
			uint32_t now = atomic_load_explicit(&c->tick, memory_order_relaxed);

			/* a shared line is written only when the hint changes */
			if (atomic_load_explicit(&s[i].used, memory_order_relaxed) != now) {
				atomic_store_explicit(&s[i].used, now, memory_order_relaxed);
			}
			return &s[i];
		}
	}
	return NULL;
}

static void slot_key(struct q2_slot *s, uint64_t key)
{
	uint32_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed);

	atomic_store_explicit(&s->seq, seq + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	atomic_store_explicit(&s->key, 0, memory_order_relaxed);
	atomic_store_explicit(&s->seq, seq + 2, memory_order_release);
	if (key) {
		atomic_store_explicit(&s->key, key, memory_order_release);
	}
}

void q2_slot_drop(struct q2_cache *c, struct q2_slot *s)
{
	if (s->dirty) {
		s->dirty = false;
		c->ndirty--;
	}
	slot_key(s, 0);
}

struct q2_slot *q2_cache_victim(struct q2_cache *c, uint64_t key)
{
	struct q2_slot *set = set_of(c, key), *best = NULL;
	uint32_t now = atomic_load_explicit(&c->tick, memory_order_relaxed), age = 0;

	for (unsigned i = 0; i < Q2_WAYS; i++) {
		struct q2_slot *s = &set[i];
		uint32_t a = now - atomic_load_explicit(&s->used, memory_order_relaxed);

		if (!atomic_load_explicit(&s->key, memory_order_relaxed)) {
			best = s;
			break;
		}
		if (!s->dirty && (!best || a > age)) {
			best = s;
			age = a;
		}
	}
	if (best) {
		q2_slot_drop(c, best);
	}
	return best;
}

void q2_slot_fill(struct q2_cache *c, struct q2_slot *s, uint64_t key, const void *buf)
{
	_Atomic uint64_t *d = q2_slot_data(c, s);
	const uint64_t *from = buf;

	/* The slot has no key: a reader that still looks at it sees another sequence number. */
	atomic_thread_fence(memory_order_release);
	for (size_t i = 0; i < (size_t)1 << (c->slice_bits - 3); i++) {
		atomic_store_explicit(&d[i], from[i], memory_order_relaxed);
	}
	s->dirty = false;
	s->lo = UINT64_MAX;
	s->hi = 0;
	atomic_store_explicit(&s->used, atomic_fetch_add(&c->tick, 1) + 1,
			      memory_order_relaxed);
	slot_key(s, key);
}

void q2_slot_dirty(struct q2_cache *c, struct q2_slot *s)
{
	if (!s->dirty) {
		s->dirty = true;
		c->ndirty++;
	}
}

void q2_cache_drop(struct q2_cache *c, uint64_t off, uint64_t len)
{
	for (uint64_t key = off; key < off + len; key += UINT64_C(1) << c->slice_bits) {
		struct q2_slot *s = q2_cache_find(c, key);

		if (s) {
			q2_slot_drop(c, s);
		}
	}
}

/* #syscalls(io): madvise */
void q2_cache_clean(struct q2_cache *c, uint32_t since)
{
	uint32_t now = atomic_load_explicit(&c->tick, memory_order_relaxed);

	for (unsigned i = 0; i < c->nslots; i++) {
		struct q2_slot *s = &c->slot[i];
		uint32_t used = atomic_load_explicit(&s->used, memory_order_relaxed);

		if (!atomic_load_explicit(&s->key, memory_order_relaxed) || s->dirty ||
		    now - used <= now - since) {
			continue;
		}
		q2_slot_drop(c, s);
		if (c->slice_bits >= 12) {
			/* readers of the slot see zeros and then another sequence number */
			madvise((void *)q2_slot_data(c, s), (size_t)1 << c->slice_bits,
				MADV_DONTNEED);
		}
	}
}
