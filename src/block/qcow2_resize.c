/*
 * qcow2: another size of the guest's disk, and preallocation. No request is in flight.
 *
 * Growing: a larger L1 table is written and flushed before the header points at it; what is added reads
 * as zeros, whatever the backing file has there.
 * Shrinking: the rest of the last cluster is zeroed; then the header, so that a stop afterwards leaves clusters that nobody sees, which the next
 * growing removes.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define PIECE (1 * MiB)

static int l1_grow(struct q2 *q, uint32_t n)
{
	struct q2_l1 *l1 = q2_l1_new(n);
	uint64_t bytes = n * UINT64_C(8), off = 0, old = q->h.l1_offset;
	uint32_t old_n = q->h.l1_size;
	be64 *buf = malloc(bytes);
	int r = l1 && buf ? q2_alloc_meta(q, bytes, Q2_OL_L1, &off) : -ENOMEM;

	for (uint32_t i = 0; i < n && !r; i++) {
		uint64_t e = i < q->l1_size ? atomic_load(&q->l1[i]) : 0;

		atomic_store_explicit(&l1->e[i], e, memory_order_relaxed);
		buf[i] = be64_of(e);
	}
	r = r ? r : q2_pwrite(&q->file, off, buf, bytes);
	free(buf);
	r = r ? r : q2_refcounts_out(q);
	r = r ? r : q2_pflush(&q->file);
	if (!r) {
		q->h.l1_offset = off;
		q->h.l1_size = n;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	if (r < 0) {
		q->h.l1_offset = old;
		q->h.l1_size = old_n;
		if (off) {
			q2_free_meta(q, off, bytes);
		}
		free(l1);
		return r;
	}
	q2_l1_publish(q, l1);
	return q2_free_meta(q, old, old_n * UINT64_C(8));
}

static int size_set(struct q2 *q, uint64_t size)
{
	uint64_t old = q->h.size;
	int r;

	q->h.size = size;
	r = q2_header_update(q);
	r = r ? r : q2_pflush(&q->file);
	if (r < 0) {
		q->h.size = old;
	}
	return r;
}

/* Tables behind the end that have nothing left in them. */
static int tables_drop(struct q2 *q, uint64_t size)
{
	unsigned bits = q2_l1_bits(&q->geo);
	uint64_t first = (size >> bits) + !!(size & ((UINT64_C(1) << bits) - 1));
	int r = 0;

	for (uint64_t i = first; i < q->l1_size && !r; i++) {
		uint64_t e = atomic_load(&q->l1[i]);

		if (!(e & QCOW2_OFFSET)) {
			continue;
		}
		q2_l1_set(q, (uint32_t)i, 0);
		q2_cache_drop(&q->l2, e & QCOW2_OFFSET, q->geo.cluster_size);
		r = q2_free_meta(q, e & QCOW2_OFFSET, q->geo.cluster_size);
		if (!r && !(e & QCOW2_COPIED)) {
			r = q2_meta_inactive(q, e & QCOW2_OFFSET);
		}
	}
	return r;
}

/* Everything from `from` on is as if it had never been written. */
static int cut(struct q2 *q, uint64_t from)
{
	uint64_t end = (uint64_t)q->l1_size << q2_l1_bits(&q->geo);
	int r = 0;

	from = align_up(from, q->geo.cluster_size);
	if (from < end) {
		r = q2_discard(q, from, end - from, true, Q2_FREE_OTHER);
		/* entries that went are on disk before their table goes */
		r = r ? r : q2_commit(q, true);
		r = r ? r : tables_drop(q, from);
	}
	return r ? r : q2_commit(q, true);
}

int q2_empty(struct q2 *q)
{
	int r = q2_first_write(q);

	r = r ? r : q2_bitmaps_use(q, true);
	return r ? r : cut(q, 0);
}

uint64_t q2_used_end(struct q2 *q)
{
	uint64_t c = q2_clusters(&q->geo, q->file.size), ref;

	while (c && q2_refcount_get(q, c - 1, &ref) == 0 && !ref) {
		c--;
	}
	return c << q->geo.cluster_bits;
}

static int grow(struct q2 *q, uint64_t size, uint64_t n)
{
	uint64_t old = q->h.size, end;
	int r = cut(q, old);

	r = r || n <= q->l1_size ? r : l1_grow(q, (uint32_t)n);
	r = r ? r : size_set(q, size);
	if (!r && old) {
		/* the rest of the last cluster, and what the backing file has behind the old end */
		end = MIN(size, align_up(old, q->geo.cluster_size));
		end = q->has_backing ? MIN(size, MAX(end, q->backing.size)) : end;
		r = q2_zero(q, old, end - old, true);
	} else if (!r && q->has_backing && q->backing.size) {
		r = 0; /* a new image: all of the backing file shows through */
	}
	return r ? r : q2_commit(q, true);
}

int q2_resize(struct q2 *q, uint64_t size, unsigned prealloc, struct err *err)
{
	unsigned bits = q2_l1_bits(&q->geo);
	uint64_t old = q->h.size, n = (size >> bits) + !!(size & ((UINT64_C(1) << bits) - 1));
	int r;

	if (n > QCOW2_MAX_L1 / 8 || size > INT64_MAX - q->geo.cluster_size) {
		return err_set(err, EFBIG,
			       "qcow2 image '%s': %llu bytes are too large for its cluster "
			       "size; use a "
			       "larger cluster_size",
			       q->name, (unsigned long long)size);
	}
	if (size % 512) {
		return err_set(err, EINVAL,
			       "qcow2 image '%s': the size must be a multiple of 512", q->name);
	}
	if (q->nsnap && q->h.version < 3 && size != old) {
		return err_set(
			err, ENOTSUP,
			"qcow2 image '%s' has version 2 and snapshots: it cannot be resized",
			q->name);
	}
	if (size < old && prealloc != BLK_PREALLOC_OFF) {
		return err_set(
			err, EINVAL,
			"qcow2 image '%s': preallocation is for growing, not for shrinking",
			q->name);
	}
	r = q2_first_write(q);
	r = r || size == old ? r : q2_bitmaps_use(q, true);
	if (!r && size > old) {
		r = grow(q, size, n);
	} else if (!r && size < old) {
		/* not all programs look at what the last cluster has behind the end when they grow */
		uint64_t end = MIN(old, align_up(size, q->geo.cluster_size));

		r = q2_zero(q, size, end - size, false);
		r = r ? r : q2_commit(q, true);
		r = r ? r : size_set(q, size);
		r = r ? r : cut(q, size);
	}
	if (r < 0) {
		return err_set(err, -r, "qcow2 image '%s' cannot be resized: %s", q->name,
			       strerror(-r));
	}
	return prealloc == BLK_PREALLOC_OFF ? 0 : q2_prealloc(q, old, size, prealloc, err);
}

/* --- preallocation --- */

static int fill(struct q2 *q, uint64_t off, uint64_t len, unsigned mode, bool fresh)
{
	uint8_t *buf;
	int r = 0;

	if (q->geo.data_file || (mode == BLK_PREALLOC_METADATA && fresh)) {
		return 0; /* the data file's own preallocation is its truncate's */
	}
	if (mode != BLK_PREALLOC_FULL) {
		return q2_pzero(&q->file, off, len, 0);
	}
	buf = calloc(1, PIECE);
	if (!buf) {
		return -ENOMEM;
	}
	for (uint64_t n = 0; n < len && !r; n += PIECE) {
		r = q2_pwrite(&q->file, off + n, buf, MIN(PIECE, len - n));
	}
	free(buf);
	return r;
}

static int prealloc_some(struct q2 *q, uint64_t *pos, uint64_t to, unsigned mode, uint64_t *end)
{
	const struct q2_geo *g = &q->geo;
	unsigned index, all = 1u << (g->slice_bits - g->entry_bits);
	uint64_t n, host;
	struct q2_slot *s;
	bool fresh = true;
	int r = q2_slice(q, *pos, true, &s, &index);

	if (r < 0) {
		return r;
	}
	n = MIN(all - index, q2_clusters(g, to - *pos));
	for (uint64_t i = 0; i < n; i++) {
		struct q2_ent ent = q2_ent_get(q, s, index + (unsigned)i);

		if (ent.e || ent.bitmap) {
			n = i ? i : 1;
			if (!i) {
				*pos += g->cluster_size; /* something is there */
				return 0;
			}
		}
	}
	host = *pos;
	r = g->data_file ? 0 : q2_alloc_data(q, &n, &host, &fresh);
	r = r ? r : fill(q, host, n << g->cluster_bits, mode, fresh);
	r = r ? r : q2_slice(q, *pos, true, &s, &index);
	for (uint64_t i = 0; i < n && !r; i++) {
		struct q2_ent ent = {(host + (i << g->cluster_bits)) | QCOW2_COPIED, 0};

		/* below a backing file subclusters stay open, which only extended entries can say */
		ent.bitmap = g->extl2 && !q->has_backing ? QCOW2_SUB_ALLOC : 0;
		q2_ent_set(q, s, index + (unsigned)i, ent);
	}
	*end = MAX(*end, host + (n << g->cluster_bits));
	*pos += n << g->cluster_bits;
	return r;
}

int q2_prealloc(struct q2 *q, uint64_t from, uint64_t to, unsigned mode, struct err *err)
{
	uint64_t pos = align_up(from, q->geo.cluster_size), end = 0;
	static const uint8_t zeros[512];
	int r = q2_first_write(q);

	while (pos < to && !r) {
		r = prealloc_some(q, &pos, to, mode, &end);
	}
	if (!r && !q->geo.data_file && end > q->file.size) {
		/* so that the last cluster is in the file */
		r = q2_pwrite(&q->file, end - sizeof(zeros), zeros, sizeof(zeros));
	}
	r = r ? r : q2_commit(q, true);
	return r ? err_set(err, -r, "qcow2 image '%s': preallocation: %s", q->name,
			   strerror(-r))
		 : 0;
}
