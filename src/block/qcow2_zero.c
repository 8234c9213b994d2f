/*
 * qcow2: write-zeroes and discard, by the image's owner: changes of entries where whole clusters
 * (with extended entries subclusters) are meant, writes for the rest.
 *
 * A discarded cluster reads as zeros in version 3. Version 2 has no zero flag: there a discard with
 * a backing file below does nothing, since it would bring old data back.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define PIECE (256 * KiB)

static bool raw_data(const struct q2 *q)
{
	return q->geo.data_file && (q->h.autoclear & QCOW2_AUTOCLEAR_RAW);
}

/* The rest of a cluster that ends with the guest's disk belongs to it. */
static uint64_t whole_end(const struct q2 *q, uint64_t end, uint64_t unit)
{
	return end == q->h.size ? align_up(end, unit) : align_down(end, unit);
}

/* Zeros where no entry can say so. */
static int zero_write(struct q2 *q, uint64_t off, uint64_t len)
{
	uint8_t *buf = NULL;
	int r = 0;

	while (len && !r) {
		struct q2_ext_info x;
		uint64_t n;

		r = q2_map(q, off, len, &x);
		if (r < 0 || q->corrupt) {
			r = r ? r : -EIO;
			break;
		}
		n = x.len;
		if (x.type == Q2_ZERO || x.type == Q2_ZERO_ALLOC ||
		    (x.type == Q2_UNALLOC && !q2_backing_covers(q, off))) {
			if (raw_data(q)) {
				r = q2_pzero(&q->data, off, n, 0);
			}
		} else if (x.type == Q2_NORMAL && x.copied) {
			r = q2_pzero(q->geo.data_file ? &q->data : &q->file, x.host, n, 0);
		} else {
			n = MIN(n, PIECE);
			if (x.type == Q2_UNALLOC) {
				n = MIN(n, q->backing.size - off); /* behind it there is nothing */
			}
			buf = buf ? buf : calloc(1, PIECE);
			r = buf ? q2_write_buf(q, off, buf, n) : -ENOMEM;
		}
		off += n;
		len -= n;
	}
	free(buf);
	return r;
}

static int entry_replace(struct q2 *q, struct q2_slot *s, unsigned index, struct q2_ent old,
			 struct q2_ent ent, bool drop, enum q2_reason why)
{
	if (old.e == ent.e && old.bitmap == ent.bitmap) {
		return 0;
	}
	q2_ent_set(q, s, index, ent);
	return drop ? q2_ent_free(q, old, why) : 0;
}

static int zero_cluster(struct q2 *q, struct q2_slot *s, unsigned index, uint64_t off,
			bool unmap)
{
	struct q2_ent old = q2_ent_get(q, s, index), ent = {0};
	bool host = !(old.e & QCOW2_COMPRESSED) && (old.e & QCOW2_OFFSET);
	bool keep = q->geo.data_file || (host && !unmap && (old.e & QCOW2_COPIED));

	if (old.e == 0 && old.bitmap == 0 && !q2_backing_covers(q, off) && !raw_data(q)) {
		return 0;
	}
	if (q->geo.data_file) {
		ent.e = off | QCOW2_COPIED;
	} else if (keep) {
		ent.e = (old.e & QCOW2_OFFSET) | QCOW2_COPIED;
	}
	if (q->geo.extl2) {
		ent.bitmap = QCOW2_SUB_ZERO;
	} else {
		ent.e |= QCOW2_ZERO;
	}
	return entry_replace(q, s, index, old, ent, !keep, Q2_FREE_REQUEST);
}

/* Whole subclusters of one cluster. */
static int zero_subs(struct q2 *q, uint64_t off, uint64_t end)
{
	uint64_t in = off & (q->geo.cluster_size - 1), mask;
	struct q2_ent ent;
	struct q2_slot *s;
	unsigned index, first, last;
	bool below = q2_backing_covers(q, off) || raw_data(q);
	int r = q2_slice(q, off, below, &s, &index);

	if (r == 0 && !below && s) {
		ent = q2_ent_get(q, s, index);
		if (ent.e || ent.bitmap) {
			r = q2_slice(q, off, true, &s, &index);
		} else {
			s = NULL; /* it is zero already */
		}
	}
	if (r < 0 || !s) {
		return r;
	}
	ent = q2_ent_get(q, s, index);
	if (ent.e & QCOW2_COMPRESSED) {
		return zero_write(q, off, end - off);
	}
	first = (unsigned)(in >> q->geo.sub_bits);
	last = (unsigned)((in + (end - off) - 1) >> q->geo.sub_bits);
	mask = ((UINT64_C(2) << last) - 1) & ~((UINT64_C(1) << first) - 1);
	ent.bitmap = (ent.bitmap & ~mask) | mask << 32;
	q2_ent_set(q, s, index, ent);
	return 0;
}

static int zero_clusters(struct q2 *q, uint64_t off, uint64_t end, bool unmap)
{
	int r = 0;

	while (off < end && !r) {
		uint64_t span = UINT64_C(1) << q2_l1_bits(&q->geo),
			 i = off >> q2_l1_bits(&q->geo);
		struct q2_slot *s;
		unsigned index;

		if (!raw_data(q) && !q2_backing_covers(q, off) && i < q->l1_size &&
		    !(atomic_load(&q->l1[i]) & QCOW2_OFFSET)) {
			/* nothing there, and nothing below: no table is made for that */
			off = MIN(align_down(off, span) + span, end);
			continue;
		}
		r = q2_slice(q, off, true, &s, &index);
		r = r ? r : zero_cluster(q, s, index, off, unmap);
		r = r || q->nfree < 8192 ? r : q2_commit(q, true);
		off += q->geo.cluster_size;
	}
	return r;
}

int q2_zero(struct q2 *q, uint64_t off, uint64_t len, bool unmap)
{
	uint64_t unit = UINT64_C(1) << q->geo.sub_bits, size = q->geo.cluster_size;
	uint64_t end = off + len, lo = align_up(off, unit), hi = whole_end(q, end, unit);
	uint64_t clo, chi;
	int r = q2_first_write(q);

	if (r < 0 || !len) {
		return r;
	}
	if (lo >= hi || q->geo.version < 3) {
		/* no flag; but what is not allocated, and has nothing below it, is zero */
		lo = align_up(off, size);
		hi = whole_end(q, end, size);
		if (lo >= hi || q->has_backing || !unmap) {
			return zero_write(q, off, len);
		}
		r = zero_write(q, off, lo - off);
		r = r ? r : q2_discard(q, lo, MIN(hi, end) - lo, false, Q2_FREE_REQUEST);
		return r || hi >= end ? r : zero_write(q, hi, end - hi);
	}
	r = lo > off ? zero_write(q, off, lo - off) : 0;
	if (!r && hi < end) {
		r = zero_write(q, hi, end - hi);
	}
	if (!r && raw_data(q)) {
		/* the data file is to be right by itself */
		r = q2_pzero(&q->data, lo, MIN(hi, MAX(q->data.size, lo)) - lo,
			     unmap ? BLK_MAY_UNMAP : 0);
	}
	clo = align_up(lo, size);
	chi = whole_end(q, end, size);
	if (clo >= chi) {
		/* within two clusters at most, of which none is whole */
		uint64_t cut = MIN(MAX(clo, lo), hi);

		r = r || cut == lo ? r : zero_subs(q, lo, cut);
		return r || cut == hi ? r : zero_subs(q, cut, hi);
	}
	r = r || lo == clo ? r : zero_subs(q, lo, clo);
	r = r ? r : zero_clusters(q, clo, chi, unmap);
	return r || hi <= chi ? r : zero_subs(q, chi, hi);
}

static int discard_one(struct q2 *q, struct q2_slot *s, unsigned index, uint64_t off, bool full,
		       enum q2_reason why)
{
	struct q2_ent old = q2_ent_get(q, s, index), ent = {0};
	bool there = old.e & (QCOW2_OFFSET | QCOW2_COMPRESSED) || (old.e & QCOW2_COPIED);
	bool below = q2_backing_covers(q, off);

	if (full) {
		return entry_replace(q, s, index, old, ent, true, why);
	}
	if (!there && !below) {
		return 0;
	}
	if (q->geo.version < 3) {
		return below ? 0 : entry_replace(q, s, index, old, ent, true, why);
	}
	if (q->geo.data_file) {
		ent.e = off | QCOW2_COPIED;
	}
	if (q->geo.extl2) {
		ent.bitmap = QCOW2_SUB_ZERO;
	} else {
		ent.e |= QCOW2_ZERO;
	}
	return entry_replace(q, s, index, old, ent, true, why);
}

int q2_discard(struct q2 *q, uint64_t off, uint64_t len, bool full, enum q2_reason why)
{
	uint64_t size = q->geo.cluster_size, span = UINT64_C(1) << q2_l1_bits(&q->geo);
	uint64_t end = off + len, lo = align_up(off, size), hi = whole_end(q, end, size);
	int r = q2_first_write(q);

	if (r || lo >= hi) {
		return r;
	}
	if (q->geo.data_file && lo < q->data.size) {
		uint64_t n = MIN(hi, q->data.size) - lo;

		if (raw_data(q)) {
			r = q2_pzero(&q->data, lo, n, BLK_MAY_UNMAP);
		} else if (q->opt.discard_request) {
			blk_io_discard(q->data.io, lo, n);
		}
	}
	while (lo < hi && !r) {
		uint64_t i = lo >> q2_l1_bits(&q->geo);
		struct q2_slot *s;
		unsigned index;
		bool below = !full && q2_backing_covers(q, lo) && q->geo.version >= 3;

		if (i >= q->l1_size || (!below && !(atomic_load(&q->l1[i]) & QCOW2_OFFSET))) {
			lo = MIN(align_down(lo, span) + span, hi);
			continue;
		}
		r = q2_slice(q, lo, true, &s, &index);
		r = r ? r : discard_one(q, s, index, lo, full, why);
		r = r || q->nfree < 8192 ? r : q2_commit(q, true);
		lo += size;
	}
	return r;
}
