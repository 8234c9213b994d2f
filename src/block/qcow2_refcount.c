/*
 * qcow2: refcounts, allocation and freeing. Specification: "Host cluster management".
 *
 * What is in the cache of refcount blocks may go to the disk at any time: an increment alone is a
 * leak at worst, and a decrement is made only when the change that dropped the reference is on disk.
 * A freed range therefore waits in q->frees, in three stages:
 *   0  the change is in the caches
 *   1  it is on disk (q2_frees_durable(), by q2_commit() behind its flush)
 *   2  a grace period for requests in flight has begun; when it is over the refcount goes down
 * Until then the cluster counts as used, so it cannot be handed out.
 *
 * A new refcount block is written before the entry of the table that points at it, and q2_commit()
 * flushes between the two. A larger refcount table is written whole and flushed before the header
 * points at it.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define MAX_FREES (1u << 20)
#define RC_AHEAD  (64 * KiB)

static unsigned rb_bits(const struct q2 *q)
{
	return q->geo.cluster_bits + 3 - q->geo.refcount_order;
}

uint64_t q2_ref_max(const struct q2 *q)
{
	unsigned bits = 1u << q->geo.refcount_order;

	return bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

uint64_t q2_ref_read(const void *block, unsigned order, uint64_t index)
{
	const uint8_t *p = block;
	be16 v16;
	be32 v32;
	be64 v64;

	switch (order) {
	case 3:
		return p[index];
	case 4:
		memcpy(&v16, p + index * 2, 2);
		return be16_get(v16);
	case 5:
		memcpy(&v32, p + index * 4, 4);
		return be32_get(v32);
	case 6:
		memcpy(&v64, p + index * 8, 8);
		return be64_get(v64);
	default: { /* 1, 2, 4 bits */
		unsigned width = 1u << order;
		unsigned shift = (unsigned)(index << order & 7);

		return p[index << order >> 3] >> shift & ((1u << width) - 1);
	}
	}
}

void q2_ref_write(void *block, unsigned order, uint64_t index, uint64_t value)
{
	uint8_t *p = block;
	be16 v16 = be16_of((uint16_t)value);
	be32 v32 = be32_of((uint32_t)value);
	be64 v64 = be64_of(value);

	switch (order) {
	case 3:
		p[index] = (uint8_t)value;
		break;
	case 4:
		memcpy(p + index * 2, &v16, 2);
		break;
	case 5:
		memcpy(p + index * 4, &v32, 4);
		break;
	case 6:
		memcpy(p + index * 8, &v64, 8);
		break;
	default: {
		unsigned mask = (1u << (1u << order)) - 1;
		unsigned shift = (unsigned)(index << order & 7);
		uint8_t *b = p + (index << order >> 3);

		*b = (uint8_t)((*b & ~(mask << shift)) | (value & mask) << shift);
	}
	}
}

/* --- blocks in the cache --- */

int q2_rc_writeback(struct q2 *q)
{
	int result = 0;

	for (unsigned i = 0; i < q->rc.nslots && q->rc.ndirty; i++) {
		struct q2_slot *s = &q->rc.slot[i];
		int r;

		if (!s->dirty) {
			continue;
		}
		r = q2_pwrite(&q->file, atomic_load(&s->key), (void *)q2_slot_data(&q->rc, s),
			      (size_t)1 << q->rc.slice_bits);
		if (r < 0) {
			result = r; /* stays dirty, and the others may still go */
			continue;
		}
		s->dirty = false;
		q->rc.ndirty--;
	}
	return result;
}

static int rc_load(struct q2 *q, uint64_t key, struct q2_slot **slot)
{
	struct q2_slot *s = q2_cache_find(&q->rc, key);
	uint64_t buf[512];
	int r;

	if (!s) {
		s = q2_cache_victim(&q->rc, key);
		if (!s) {
			r = q2_rc_writeback(q);
			if (r < 0) {
				return r;
			}
			s = q2_cache_victim(&q->rc, key);
		}
		r = q2_pread(&q->file, key, buf, (size_t)1 << q->rc.slice_bits);
		if (r < 0) {
			return r;
		}
		q2_slot_fill(&q->rc, s, key, buf);
	}
	*slot = s;
	return 0;
}

/* What lies around key in its block comes with one read, as far as there is room; key last, so that it stays. */
static int rc_load_ahead(struct q2 *q, uint64_t key)
{
	uint64_t unit = UINT64_C(1) << q->rc.slice_bits;
	uint64_t all = MIN(q->geo.cluster_size, (uint64_t)RC_AHEAD), from = align_down(key, all);
	uint8_t *buf = malloc(all);
	int r = buf ? q2_pread(&q->file, from, buf, all) : -ENOMEM;

	for (uint64_t n = 1; n <= all / unit && !r; n++) {
		uint64_t k = from + (key - from + n * unit) % all;
		struct q2_slot *s =
			q2_cache_find(&q->rc, k) ? NULL : q2_cache_victim(&q->rc, k);

		if (s) {
			q2_slot_fill(&q->rc, s, k, buf + (k - from));
		}
	}
	free(buf);
	return r;
}

/* The slice of the block that counts this cluster; *slot NULL: no block, so 0. */
static int rc_slot(struct q2 *q, uint64_t cluster, struct q2_slot **slot, uint64_t *index)
{
	uint64_t idx = cluster >> rb_bits(q), in, block, key;
	struct q2_slot *s;
	int r;

	*slot = NULL;
	if (idx >= q->rt_size || !q->rt[idx]) {
		return 0;
	}
	block = q->rt[idx];
	if (block & (q->geo.cluster_size - 1) || block >= q->file.size) {
		return q2_corrupt(q, "refcount table entry %llu, 0x%llx, is wrong",
				  (unsigned long long)idx, (unsigned long long)block);
	}
	in = cluster & ((UINT64_C(1) << rb_bits(q)) - 1);
	key = block +
	      align_down(in << q->geo.refcount_order >> 3, UINT64_C(1) << q->rc.slice_bits);
	*index = in & ((UINT64_C(1) << (q->rc.slice_bits + 3 - q->geo.refcount_order)) - 1);
	/* most looks are at the slice of the one before */
	s = q->rc_last;
	if (!s || atomic_load_explicit(&s->key, memory_order_relaxed) != key) {
		s = q2_cache_find(&q->rc, key);
	}
	if (!s) {
		r = q->rc_ahead ? rc_load_ahead(q, key) : 0;
		r = r ? r : rc_load(q, key, &s);
		if (r < 0) {
			return r;
		}
	}
	q->rc_last = *slot = s;
	return 0;
}

int q2_refcount_get(struct q2 *q, uint64_t cluster, uint64_t *out)
{
	struct q2_slot *s;
	uint64_t i;
	int r = rc_slot(q, cluster, &s, &i);

	*out = 0;
	if (!r && s) {
		*out = q2_ref_read((void *)q2_slot_data(&q->rc, s), q->geo.refcount_order, i);
	}
	return r;
}

static uint64_t max_clusters(const struct q2 *q)
{
	uint64_t by_table = (QCOW2_MAX_REFTABLE / 8) << rb_bits(q);

	return MIN(by_table, UINT64_C(1) << (56 - q->geo.cluster_bits));
}

/* The first `want` free clusters in a row from `from` on; with any, the first free ones, up to
 * want. *first: the first free cluster of all that was seen. */
static int find_run(struct q2 *q, uint64_t from, uint64_t want, bool any, uint64_t *at,
		    uint64_t *got, uint64_t *first)
{
	uint64_t c = from, run = 0, limit = max_clusters(q);
	uint64_t region = UINT64_C(1) << rb_bits(q);

	if (!q->file.grows) {
		limit = MIN(limit, q->file.size >> q->geo.cluster_bits);
	}
	*first = UINT64_MAX;
	while (run < want && c < limit) {
		uint64_t idx = c >> rb_bits(q), ref;
		int r;

		if (idx >= q->rt_size || !q->rt[idx]) {
			uint64_t n = MIN((idx + 1) * region, limit) - c;

			*first = MIN(*first, c);
			n = MIN(n, want - run);
			run += n;
			c += n;
			continue;
		}
		r = q2_refcount_get(q, c, &ref);
		if (r < 0) {
			return r;
		}
		if (ref && run && any) {
			break;
		}
		if (!ref) {
			*first = MIN(*first, c);
		}
		run = ref ? 0 : run + 1;
		c++;
	}
	if (run < want && !(any && run)) {
		return q->file.grows ? -EFBIG : -ENOSPC;
	}
	*at = c - run;
	*got = run;
	return 0;
}

static int take_meta(struct q2 *q, uint64_t cluster, unsigned kind)
{
	uint64_t off = cluster << q->geo.cluster_bits;
	int r;

	/* rule 3 of qcow2_overlap.c */
	for (unsigned i = 0; i < q->l2.nslots; i++) {
		struct q2_slot *s = &q->l2.slot[i];

		if (!atomic_load_explicit(&s->key, memory_order_relaxed) || off < s->lo ||
		    off > s->hi) {
			continue;
		}
		for (unsigned e = 0; e < 1u << (q->l2.slice_bits - q->geo.entry_bits); e++) {
			struct q2_ent ent = q2_ent_get(q, s, e);

			if (!(ent.e & QCOW2_COMPRESSED) && (ent.e & QCOW2_OFFSET) == off) {
				return q2_corrupt(q,
						  "cluster 0x%llx is in use and has refcount 0",
						  (unsigned long long)off);
			}
		}
	}
	r = q->opt.overlap & kind ? q2_set_add(&q->meta, cluster, kind) : 0;
	return r == -EEXIST ? q2_corrupt(q, "cluster 0x%llx is metadata and has refcount 0",
					 (unsigned long long)off)
			    : r;
}

/* --- new blocks, a larger table --- */

static int block_make(struct q2 *q, uint64_t idx, uint64_t cluster, bool self)
{
	uint64_t off = cluster << q->geo.cluster_bits;
	uint8_t *buf;
	int r = take_meta(q, cluster, Q2_OL_REFBLOCK);

	if (r < 0) {
		return r;
	}
	buf = calloc(1, q->geo.cluster_size);
	if (!buf) {
		return -ENOMEM;
	}
	if (self) {
		q2_ref_write(buf, q->geo.refcount_order,
			     cluster & ((UINT64_C(1) << rb_bits(q)) - 1), 1);
	}
	r = q2_pwrite(&q->file, off, buf, q->geo.cluster_size);
	free(buf);
	if (r < 0) {
		q2_set_del(&q->meta, cluster);
		return r;
	}
	q2_cache_drop(&q->rc, off, q->geo.cluster_size);
	q->rt[idx] = off;
	q->rt_lo = MIN(q->rt_lo, (uint32_t)idx);
	q->rt_hi = MAX(q->rt_hi, (uint32_t)idx + 1);
	atomic_store(&q->meta_dirty, true);
	return 0;
}

static int block_ensure(struct q2 *q, uint64_t idx)
{
	while (idx >= q->rt_size || !q->rt[idx]) {
		uint64_t c, got, first, at;
		int r;

		if (idx >= q->rt_size) {
			r = q2_rt_grow(q, idx + 1);
			if (r < 0) {
				return r;
			}
			continue;
		}
		r = find_run(q, q->free_hint, 1, true, &c, &got, &first);
		if (r < 0) {
			return r;
		}
		at = c >> rb_bits(q);
		if (at >= q->rt_size) {
			r = q2_rt_grow(q, at + 1);
		} else if (!q->rt[at]) {
			r = block_make(q, at, c, true);
		} else {
			r = q2_refcount_set(q, c, 1);
			if (!r) {
				r = block_make(q, idx, c, false);
			}
		}
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

int q2_refcount_set(struct q2 *q, uint64_t cluster, uint64_t value)
{
	struct q2_slot *s;
	uint64_t i;
	int r;

	if (value > q2_ref_max(q)) {
		return -ERANGE;
	}
	r = rc_slot(q, cluster, &s, &i);
	if (!r && !s && value) {
		r = block_ensure(q, cluster >> rb_bits(q));
		if (!r) {
			r = rc_slot(q, cluster, &s, &i);
		}
	}
	if (r < 0 || !s) {
		return r;
	}
	q2_ref_write((void *)q2_slot_data(&q->rc, s), q->geo.refcount_order, i, value);
	q2_slot_dirty(&q->rc, s);
	if (!value) {
		q->free_hint = MIN(q->free_hint, cluster);
	}
	return 0;
}

static bool missing(const struct q2 *q, uint64_t idx)
{
	return idx >= q->rt_size || !q->rt[idx];
}

/* Where a table of tc clusters goes, with k new blocks in front of it that count all of this. */
static int grow_place(struct q2 *q, uint64_t tc, uint64_t *at, uint64_t *k)
{
	uint64_t got, first, need;

	*k = 0;
	for (;;) {
		int r = find_run(q, q->free_hint, tc + *k, false, at, &got, &first);

		if (r < 0) {
			return r;
		}
		need = 0;
		for (uint64_t i = *at >> rb_bits(q); i <= (*at + tc + *k - 1) >> rb_bits(q);
		     i++) {
			need += missing(q, i);
		}
		if (need <= *k) {
			return 0;
		}
		*k = need;
	}
}

static int grow_fill(struct q2 *q, uint64_t *table, uint64_t at, uint64_t k, uint64_t tc)
{
	uint64_t end = at + k + tc, block = at, mask = (UINT64_C(1) << rb_bits(q)) - 1;
	uint8_t *buf = calloc(1, q->geo.cluster_size);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t i = at >> rb_bits(q); i <= (end - 1) >> rb_bits(q) && !r; i++) {
		uint64_t from = MAX(at, i << rb_bits(q)), to = MIN(end, (i + 1) << rb_bits(q));

		if (!missing(q, i)) {
			for (uint64_t c = from; c < to && !r; c++) {
				r = q2_refcount_set(q, c, 1);
			}
			continue;
		}
		memset(buf, 0, q->geo.cluster_size);
		for (uint64_t c = from; c < to; c++) {
			q2_ref_write(buf, q->geo.refcount_order, c & mask, 1);
		}
		table[i] = block << q->geo.cluster_bits;
		r = q2_pwrite(&q->file, table[i], buf, q->geo.cluster_size);
		block++;
	}
	free(buf);
	/* a spare one: no block needed it after all */
	for (; block < at + k && !r; block++) {
		uint64_t i = block >> rb_bits(q);

		q2_set_del(&q->meta, block);
		if (table[i] && !missing(q, i)) {
			r = q2_refcount_set(q, block, 0);
		}
	}
	return r;
}

static int table_write(struct q2 *q, const uint64_t *table, uint64_t n, uint64_t off)
{
	uint64_t buf[512];
	int r = 0;

	for (uint64_t i = 0; i < n && !r; i += ARRAY_SIZE(buf)) {
		uint64_t m = MIN(n - i, ARRAY_SIZE(buf));

		for (uint64_t j = 0; j < m; j++) {
			buf[j] = __builtin_bswap64(table[i + j]);
		}
		r = q2_pwrite(&q->file, off + i * 8, buf, m * 8);
	}
	return r;
}

int q2_rt_grow(struct q2 *q, uint64_t entries)
{
	unsigned per = q->geo.cluster_bits - 3;
	uint64_t want = MAX(entries, q->rt_size + (uint64_t)q->rt_size / 2), at, k, tc;
	uint64_t old_off = q->h.rt_offset,
		 old_len = (uint64_t)q->h.rt_clusters << q->geo.cluster_bits;
	struct q2_header old = q->h;
	uint64_t *table;
	int r;

	for (;;) {
		tc = (want + (UINT64_C(1) << per) - 1) >> per;
		if (tc > QCOW2_MAX_REFTABLE >> q->geo.cluster_bits) {
			tc = QCOW2_MAX_REFTABLE >> q->geo.cluster_bits;
			if (entries > tc << per) {
				return -EFBIG;
			}
		}
		r = grow_place(q, tc, &at, &k);
		if (r < 0) {
			return r;
		}
		if (((at + k + tc - 1) >> rb_bits(q)) < tc << per) {
			break;
		}
		entries = want = ((at + k + tc - 1) >> rb_bits(q)) + 1;
	}
	table = calloc(tc << per, sizeof(*table));
	if (!table) {
		return -ENOMEM;
	}
	memcpy(table, q->rt, q->rt_size * sizeof(*table));
	for (uint64_t c = at; c < at + k + tc && !r; c++) {
		r = take_meta(q, c, c < at + k ? Q2_OL_REFBLOCK : Q2_OL_REFTABLE);
	}
	r = r ? r : grow_fill(q, table, at, k, tc);
	r = r ? r : q2_rc_writeback(q);
	r = r ? r : table_write(q, table, tc << per, (at + k) << q->geo.cluster_bits);
	r = r ? r : q2_pflush(&q->file);
	if (!r) {
		q->h.rt_offset = (at + k) << q->geo.cluster_bits;
		q->h.rt_clusters = (uint32_t)tc;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
		if (r) {
			/* either table may be the one on disk, and both say the same */
			q->h.rt_offset = old.rt_offset;
			q->h.rt_clusters = old.rt_clusters;
		}
	}
	if (r) {
		free(table);
		return r;
	}
	free(q->rt);
	q->rt = table;
	q->rt_size = (uint32_t)(tc << per);
	q->rt_lo = UINT32_MAX;
	q->rt_hi = 0;
	return q2_free_meta(q, old_off, old_len);
}

/* --- allocation --- */

/* Finds and takes; blocks that are missing are made first, which may move the place. */
static int take_run(struct q2 *q, uint64_t want, bool any, uint64_t *at, uint64_t *got)
{
	uint64_t first, i, last;
	bool again;
	int r;

	do {
		again = false;
		r = find_run(q, q->free_hint, want, any, at, got, &first);
		if (r < 0) {
			return r;
		}
		last = (*at + *got - 1) >> rb_bits(q);
		for (i = *at >> rb_bits(q); i <= last && !again; i++) {
			if (missing(q, i)) {
				r = block_ensure(q, i);
				if (r < 0) {
					return r;
				}
				again = true;
			}
		}
	} while (again);
	for (i = 0; i < *got; i++) {
		unsigned kind = q2_set_kind(&q->meta, *at + i);

		if (kind) {
			return q2_corrupt(q, "cluster 0x%llx (%s) has refcount 0",
					  (unsigned long long)(*at + i) << q->geo.cluster_bits,
					  q2_kind_name(kind));
		}
	}
	for (i = 0; i < *got; i++) {
		r = q2_refcount_set(q, *at + i, 1);
		if (r < 0) {
			while (i--) {
				q2_refcount_set(q, *at + i, 0);
			}
			return r;
		}
	}
	q->free_hint = first == *at ? *at + *got : first;
	q->zero_from = MAX(q->zero_from, (*at + *got) << q->geo.cluster_bits);
	atomic_store(&q->meta_dirty, true);
	return 0;
}

int q2_alloc_data(struct q2 *q, uint64_t *count, uint64_t *off, bool *fresh)
{
	uint64_t at, got, zero_from = q->zero_from;
	int r = q2_frees_apply(q);

	r = r ? r : take_run(q, *count, true, &at, &got);
	if (r == -ENOSPC && q->nfree) {
		/* what was freed and is not on disk yet may be enough */
		r = q2_commit(q, true);
		r = r ? r : take_run(q, *count, true, &at, &got);
	}
	if (r < 0) {
		return r;
	}
	*count = got;
	*off = at << q->geo.cluster_bits;
	*fresh = q->file.grows && *off >= zero_from;
	return 0;
}

int q2_alloc_meta(struct q2 *q, uint64_t bytes, unsigned kind, uint64_t *off)
{
	uint64_t n = q2_clusters(&q->geo, bytes), at, got;
	int r = q2_frees_apply(q);

	r = r ? r : take_run(q, MAX(n, 1), false, &at, &got);
	for (uint64_t i = 0; i < n && !r; i++) {
		r = take_meta(q, at + i, kind);
	}
	*off = r ? 0 : at << q->geo.cluster_bits;
	return r;
}

int q2_alloc_bytes(struct q2 *q, unsigned bytes, uint64_t *off)
{
	uint64_t mask = q->geo.cluster_size - 1, n, at, ref;
	unsigned room = 0;
	bool fresh;
	int r;

	if (q->comp_off & mask) {
		room = (unsigned)(q->geo.cluster_size - (q->comp_off & mask));
		r = q2_refcount_get(q, q->comp_off >> q->geo.cluster_bits, &ref);
		if (r < 0) {
			return r;
		}
		if (ref == q2_ref_max(q) || !ref) {
			room = 0;
		}
	}
	if (room < bytes) {
		n = 1;
		r = q2_alloc_data(q, &n, &at, &fresh);
		if (r < 0) {
			return r;
		}
		if (!room || at != align_up(q->comp_off, q->geo.cluster_size)) {
			/* not the neighbour of the one that is not full: begin in it */
			q->comp_off = at + bytes;
			*off = at;
			return 0;
		}
	}
	r = q2_refcount_get(q, q->comp_off >> q->geo.cluster_bits, &ref);
	r = r ? r : q2_refcount_set(q, q->comp_off >> q->geo.cluster_bits, ref + 1);
	if (r < 0) {
		return r;
	}
	*off = q->comp_off;
	q->comp_off += bytes;
	return 0;
}

int q2_refcount_add(struct q2 *q, uint64_t off, uint64_t len, int delta)
{
	uint64_t first = off >> q->geo.cluster_bits;
	uint64_t last = (off + len - 1) >> q->geo.cluster_bits, ref;

	for (uint64_t c = first; len && c <= last; c++) {
		int r = q2_refcount_get(q, c, &ref);

		if (r < 0) {
			return r;
		}
		if (delta < 0 && !ref) {
			return q2_corrupt(q, "cluster 0x%llx is freed and has refcount 0",
					  (unsigned long long)c << q->geo.cluster_bits);
		}
		r = q2_refcount_set(q, c, ref + (uint64_t)(int64_t)delta);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* --- freeing --- */

int q2_free_later(struct q2 *q, uint64_t off, uint64_t len, enum q2_reason why)
{
	uint64_t end = align_up(off + len, q->geo.cluster_size);
	struct q2_free *last = q->nfree ? &q->frees[q->nfree - 1] : NULL;

	off = align_down(off, q->geo.cluster_size);
	atomic_store(&q->meta_dirty, true);
	if (last && last->stage == 0 && last->why == why && last->off + last->len == off) {
		last->len += end - off;
		return 0;
	}
	if (q->nfree == q->free_cap) {
		unsigned cap = q->free_cap ? q->free_cap * 2 : 64;
		struct q2_free *p =
			cap <= MAX_FREES ? realloc(q->frees, cap * sizeof(*p)) : NULL;

		if (!p) {
			/* nothing is lost but room, which a check gives back */
			log_guest(q->name,
				  "qcow2: clusters are leaked: too many wait to be freed");
			return 0;
		}
		q->frees = p;
		q->free_cap = cap;
	}
	q->frees[q->nfree++] = (struct q2_free){off, end - off, why, 0};
	return 0;
}

int q2_free_meta(struct q2 *q, uint64_t off, uint64_t bytes)
{
	for (uint64_t c = 0; c < q2_clusters(&q->geo, bytes); c++) {
		q2_set_del(&q->meta, (off >> q->geo.cluster_bits) + c);
	}
	return bytes ? q2_free_later(q, off, bytes, Q2_FREE_OTHER) : 0;
}

void q2_frees_durable(struct q2 *q)
{
	for (unsigned i = 0; i < q->nfree; i++) {
		q->frees[i].stage = MAX(q->frees[i].stage, 1);
	}
}

static bool pass_discard(const struct q2 *q, enum q2_reason why)
{
	return q->child_discard && ((why == Q2_FREE_REQUEST && q->opt.discard_request) ||
				    (why == Q2_FREE_SNAPSHOT && q->opt.discard_snapshot) ||
				    (why == Q2_FREE_OTHER && q->opt.discard_other));
}

static int free_one(struct q2 *q, const struct q2_free *f)
{
	uint64_t run = f->off, ref;
	int r = 0;

	for (uint64_t off = f->off; off < f->off + f->len && !r; off += q->geo.cluster_size) {
		r = q2_refcount_add(q, off, 1, -1);
		r = r ? r : q2_refcount_get(q, off >> q->geo.cluster_bits, &ref);
		if (r || ref) {
			if (off > run && pass_discard(q, f->why)) {
				blk_io_discard(q->file.io, run, off - run);
			}
			run = off + q->geo.cluster_size;
			continue;
		}
		if (q->comp_off && align_down(q->comp_off, q->geo.cluster_size) == off) {
			q->comp_off = 0;
		}
		q2_cache_drop(&q->l2, off, q->geo.cluster_size);
		q2_cache_drop(&q->rc, off, q->geo.cluster_size);
	}
	if (!r && f->off + f->len > run && pass_discard(q, f->why)) {
		/* a hint: its failure is no harm */
		blk_io_discard(q->file.io, run,
			       MIN(f->off + f->len, MAX(q->file.size, run)) - run);
	}
	return r;
}

int q2_frees_apply(struct q2 *q)
{
	int r = 0;

	for (;;) {
		unsigned left = 0, ready = 0, n = q->nfree;

		if (q->grace_running) {
			if (!q2_grace_over(&q->grace)) {
				return r;
			}
			q->grace_running = false;
			for (unsigned i = 0; i < n; i++) {
				struct q2_free f = q->frees[i];

				if (f.stage == 2) {
					int e = free_one(q, &f);

					r = r ? r : e;
				} else {
					q->frees[left++] = f;
				}
			}
			q->nfree = left;
		}
		for (unsigned i = 0; i < q->nfree; i++) {
			ready += q->frees[i].stage == 1;
			q->frees[i].stage += q->frees[i].stage == 1;
		}
		if (!ready) {
			return r;
		}
		q2_grace_begin(&q->grace);
		q->grace_running = true;
	}
}
