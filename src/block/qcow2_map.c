/*
 * qcow2: from a guest offset to an entry of an L2 table, and what an entry means. Specification:
 * "Cluster mapping", "Extended L2 Entries".
 *
 * q2_peek() is for channels of any loop and takes no lock: L1 entries and the words of a slice are
 * atomic, and what was read of a slot counts only if its sequence number did not change (see
 * qcow2_cache.c). Everything else here is the owner's.
 *
 * Untrusted: L1 and L2 entries. An offset is checked for alignment whenever an entry is used, against
 * the file's size and the metadata when its table or slice is loaded.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

void q2_geo_init(struct q2_geo *g, const struct q2_header *h)
{
	g->version = h->version;
	g->cluster_bits = h->cluster_bits;
	g->cluster_size = UINT64_C(1) << h->cluster_bits;
	g->refcount_order = h->refcount_order;
	g->extl2 = h->incompat & QCOW2_INCOMPAT_EXTL2;
	g->data_file = h->incompat & QCOW2_INCOMPAT_DATA_FILE;
	g->entry_bits = g->extl2 ? 4 : 3;
	g->l2_bits = g->cluster_bits - g->entry_bits;
	g->slice_bits = MIN(g->cluster_bits, 12u);
	g->sub_bits = g->extl2 ? g->cluster_bits - 5 : g->cluster_bits;
}

static bool has_host(const struct q2_geo *g, uint64_t e)
{
	return (e & QCOW2_OFFSET) || (g->data_file && (e & QCOW2_COPIED));
}

enum q2_type q2_ent_type(const struct q2_geo *g, struct q2_ent ent, unsigned sub)
{
	uint64_t e = ent.e, host = e & QCOW2_OFFSET;
	bool alloc, zero;

	if (e & QCOW2_COMPRESSED) {
		return g->data_file ? Q2_BAD : Q2_COMP;
	}
	if (host & (g->cluster_size - 1)) {
		return Q2_BAD;
	}
	if (g->extl2) {
		alloc = ent.bitmap >> sub & 1;
		zero = ent.bitmap >> (sub + 32) & 1;
		if ((alloc && zero) || (alloc && !has_host(g, e))) {
			return Q2_BAD;
		}
	} else {
		zero = e & QCOW2_ZERO;
		alloc = !zero && has_host(g, e);
		if (zero && g->version < 3) {
			return Q2_BAD;
		}
	}
	if (zero) {
		return has_host(g, e) ? Q2_ZERO_ALLOC : Q2_ZERO;
	}
	return alloc ? Q2_NORMAL : Q2_UNALLOC;
}

/* Of small clusters the field reaches beyond bit 55; such offsets are outside of any file, as those who
 * use them find. */
uint64_t q2_comp_range(const struct q2_geo *g, uint64_t entry, uint64_t *len)
{
	unsigned shift = 62 - (g->cluster_bits - 8);
	uint64_t off = entry & ((UINT64_C(1) << shift) - 1);
	uint64_t sectors = (entry >> shift & ((UINT64_C(1) << (g->cluster_bits - 8)) - 1)) + 1;

	*len = sectors * 512 - (off & 511);
	return off;
}

struct q2_ent q2_ent_get(struct q2 *q, struct q2_slot *s, unsigned index)
{
	_Atomic uint64_t *d = q2_slot_data(&q->l2, s);
	unsigned at = index << (q->geo.entry_bits - 3);
	struct q2_ent ent = {0};

	ent.e = __builtin_bswap64(atomic_load_explicit(&d[at], memory_order_relaxed));
	if (q->geo.extl2) {
		ent.bitmap = __builtin_bswap64(
			atomic_load_explicit(&d[at + 1], memory_order_relaxed));
	}
	return ent;
}

static void slot_range(struct q2 *q, struct q2_slot *s, uint64_t e)
{
	uint64_t host = e & QCOW2_OFFSET;

	if (!(e & QCOW2_COMPRESSED) && host) {
		s->lo = MIN(s->lo, host);
		s->hi = MAX(s->hi, host);
	}
}

void q2_ent_set(struct q2 *q, struct q2_slot *s, unsigned index, struct q2_ent ent)
{
	_Atomic uint64_t *d = q2_slot_data(&q->l2, s);
	unsigned at = index << (q->geo.entry_bits - 3);
	uint64_t e = __builtin_bswap64(ent.e);

	if (q->geo.extl2) {
		uint32_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed);

		atomic_store_explicit(&s->seq, seq + 1, memory_order_relaxed);
		atomic_thread_fence(memory_order_release);
		atomic_store_explicit(&d[at], e, memory_order_relaxed);
		atomic_store_explicit(&d[at + 1], __builtin_bswap64(ent.bitmap),
				      memory_order_relaxed);
		atomic_store_explicit(&s->seq, seq + 2, memory_order_release);
	} else {
		atomic_store_explicit(&d[at], e, memory_order_release);
	}
	slot_range(q, s, ent.e);
	q2_slot_dirty(&q->l2, s);
	q->comp_cached = 0;
	atomic_store(&q->meta_dirty, true);
}

int q2_ent_free(struct q2 *q, struct q2_ent old, enum q2_reason why)
{
	uint64_t off = old.e & QCOW2_OFFSET, len = q->geo.cluster_size;

	if (old.e & QCOW2_COMPRESSED) {
		off = q2_comp_range(&q->geo, old.e, &len);
		if (off < q->geo.cluster_size) {
			return q2_corrupt(q, "compressed cluster at 0x%llx",
					  (unsigned long long)off);
		}
		return q2_free_later(q, off, len, why);
	}
	return off && !q->geo.data_file ? q2_free_later(q, off, len, why) : 0;
}

void q2_l1_set(struct q2 *q, uint32_t index, uint64_t value)
{
	atomic_store_explicit(&q->l1[index], value, memory_order_release);
	q->l1_lo = MIN(q->l1_lo, index);
	q->l1_hi = MAX(q->l1_hi, index + 1);
	atomic_store(&q->meta_dirty, true);
}

struct q2_l1 *q2_l1_new(uint32_t n)
{
	struct q2_l1 *l1 = calloc(1, sizeof(*l1) + n * sizeof(l1->e[0]));

	if (l1) {
		l1->n = n;
	}
	return l1;
}

void q2_l1_publish(struct q2 *q, struct q2_l1 *l1)
{
	l1->old = atomic_load(&q->l1_view);
	q->l1 = l1->e;
	q->l1_size = l1->n;
	atomic_store_explicit(&q->l1_view, l1, memory_order_release);
}

/* --- looking --- */

static unsigned slice_index(const struct q2_geo *g, uint64_t off)
{
	return (unsigned)(off >> g->cluster_bits &
			  ((UINT64_C(1) << (g->slice_bits - g->entry_bits)) - 1));
}

static uint64_t slice_key(const struct q2_geo *g, uint64_t l2, uint64_t off)
{
	uint64_t index = off >> g->cluster_bits & ((UINT64_C(1) << g->l2_bits) - 1);

	return l2 + align_down(index << g->entry_bits, UINT64_C(1) << g->slice_bits);
}

/* What holds from off on, at most len bytes and to the end of the slice. */
static void scan(struct q2 *q, struct q2_slot *s, uint64_t off, uint64_t len,
		 struct q2_ext_info *out)
{
	const struct q2_geo *g = &q->geo;
	uint64_t sub_size = UINT64_C(1) << g->sub_bits, mask = g->cluster_size - 1;
	unsigned index = slice_index(g, off), n = 1u << (g->slice_bits - g->entry_bits);
	uint64_t pos = off, end = off + len;
	struct q2_ent ent = {0};
	bool first = true;

	while (pos < end) {
		unsigned sub = (unsigned)((pos & mask) >> g->sub_bits);
		uint64_t next = align_down(pos, sub_size) + sub_size, host;
		enum q2_type type;

		if (first || !(pos & mask)) {
			if (index == n) {
				break;
			}
			ent = q2_ent_get(q, s, index++);
		}
		type = q2_ent_type(g, ent, g->extl2 ? sub : 0);
		host = (ent.e & QCOW2_OFFSET) + (pos & mask);
		if (g->data_file && (type == Q2_NORMAL || type == Q2_ZERO_ALLOC) &&
		    host != pos) {
			type = Q2_BAD;
		}
		if (type == Q2_COMP) {
			next = align_down(pos, g->cluster_size) + g->cluster_size;
		}
		if (first) {
			*out = (struct q2_ext_info){
				.type = type,
				.host = host,
				.entry = ent.e,
				.copied = ent.e & QCOW2_COPIED,
			};
			first = false;
		} else if (type != out->type || type == Q2_COMP || type == Q2_BAD ||
			   ((type == Q2_NORMAL || type == Q2_ZERO_ALLOC) &&
			    (host != out->host + (pos - off) ||
			     !!(ent.e & QCOW2_COPIED) != out->copied))) {
			break;
		}
		pos = next;
	}
	out->len = MIN(pos, end) - off;
}

/* No L2 table: nothing is allocated up to where the next one begins. */
static void scan_none(const struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out)
{
	uint64_t span = UINT64_C(1) << q2_l1_bits(&q->geo);

	*out = (struct q2_ext_info){
		.type = Q2_UNALLOC,
		.len = MIN(len, span - (off & (span - 1))),
	};
}

int q2_peek(struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out)
{
	struct q2_l1 *l1 = atomic_load_explicit(&q->l1_view, memory_order_acquire);
	uint64_t index = off >> q2_l1_bits(&q->geo), l2;
	struct q2_slot *s;
	uint64_t key;
	uint32_t seq;

	if (index >= l1->n) {
		return -EAGAIN;
	}
	l2 = atomic_load_explicit(&l1->e[index], memory_order_acquire) & QCOW2_OFFSET;
	if (!l2) {
		scan_none(q, off, len, out);
		return 0;
	}
	key = slice_key(&q->geo, l2, off);
	s = q2_cache_find(&q->l2, key);
	if (!s) {
		return -EAGAIN;
	}
	seq = atomic_load_explicit(&s->seq, memory_order_acquire);
	if (seq & 1 || atomic_load_explicit(&s->key, memory_order_acquire) != key) {
		return -EAGAIN;
	}
	scan(q, s, off, len, out);
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&s->seq, memory_order_relaxed) != seq) {
		return -EAGAIN;
	}
	return out->type == Q2_COMP || out->type == Q2_BAD ? -EAGAIN : 0;
}

/* Rule 1 of qcow2_overlap.c, before anybody can see the slice. A bad entry stops writing, not reading. */
static void slice_check(struct q2 *q, uint64_t key, const uint64_t *buf)
{
	unsigned step = 1u << (q->geo.entry_bits - 3);

	if (q->read_only || q->geo.data_file) {
		return;
	}
	for (unsigned i = 0; i < 1u << (q->geo.slice_bits - 3); i += step) {
		uint64_t e = __builtin_bswap64(buf[i]), host = e & QCOW2_OFFSET;
		unsigned kind;

		/* without the flag it is never written in place */
		if (e & QCOW2_COMPRESSED || !(e & QCOW2_COPIED) || !host) {
			continue;
		}
		kind = q2_set_kind(&q->meta, host >> q->geo.cluster_bits);
		if (kind) {
			q2_corrupt(q, "L2 entry 0x%llx in the slice at 0x%llx points at the %s",
				   (unsigned long long)e, (unsigned long long)key,
				   q2_kind_name(kind));
		}
	}
}

int q2_l2_load(struct q2 *q, uint64_t key, struct q2_slot **out)
{
	struct q2_slot *s = q2_cache_find(&q->l2, key);
	uint64_t buf[512];
	int r;

	if (!s) {
		s = q2_cache_victim(&q->l2, key);
		if (!s) {
			r = q2_commit(q, false);
			if (r < 0) {
				return r;
			}
			s = q2_cache_victim(&q->l2, key);
		}
		r = q2_pread(&q->file, key, buf, (size_t)1 << q->geo.slice_bits);
		if (r < 0) {
			return r;
		}
		slice_check(q, key, buf);
		q2_slot_fill(&q->l2, s, key, buf);
		for (unsigned i = 0; i < 1u << (q->geo.slice_bits - q->geo.entry_bits); i++) {
			slot_range(q, s, q2_ent_get(q, s, i).e);
		}
	}
	*out = s;
	return 0;
}

/* A table of our own, empty or a copy of old. What it holds is on its way to the disk; q2_commit()
 * flushes before the L1 entry goes there. */
static int table_make(struct q2 *q, uint32_t index, uint64_t old)
{
	size_t size = q->geo.cluster_size;
	uint8_t *buf = calloc(1, size);
	uint64_t off = 0;
	int r;

	if (!buf) {
		return -ENOMEM;
	}
	r = old ? q2_pread(&q->file, old, buf, size) : 0;
	r = r ? r : q2_alloc_meta(q, size, Q2_OL_L2, &off);
	r = r ? r : q2_pwrite(&q->file, off, buf, size);
	free(buf);
	if (r < 0) {
		if (off) {
			q2_free_meta(q, off, size);
		}
		return r;
	}
	q2_cache_drop(&q->l2, off, size);
	q2_l1_set(q, index, off | QCOW2_COPIED);
	r = old ? q2_free_meta(q, old, size) : 0;
	return r || !old ? r : q2_meta_inactive(q, old); /* it was shared: nobody copies his own */
}

int q2_slice(struct q2 *q, uint64_t off, bool make, struct q2_slot **slot, unsigned *index)
{
	uint64_t i = off >> q2_l1_bits(&q->geo), e, l2;
	int r;

	*slot = NULL;
	if (i >= q->l1_size) {
		return make ? -EFBIG : 0;
	}
	e = atomic_load_explicit(&q->l1[i], memory_order_relaxed);
	l2 = e & QCOW2_OFFSET;
	if (l2 & (q->geo.cluster_size - 1) || l2 >= q->file.size) {
		return q2_corrupt(q, "L1 entry %llu, 0x%llx, is wrong", (unsigned long long)i,
				  (unsigned long long)e);
	}
	if (make && (!l2 || !(e & QCOW2_COPIED))) {
		r = table_make(q, (uint32_t)i, l2);
		if (r < 0) {
			return r;
		}
		l2 = atomic_load(&q->l1[i]) & QCOW2_OFFSET;
	}
	if (!l2) {
		return 0;
	}
	*index = slice_index(&q->geo, off);
	r = q2_l2_load(q, slice_key(&q->geo, l2, off), slot);
	return !r && make && q->corrupt ? -EIO : r;
}

int q2_map(struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out)
{
	struct q2_slot *s;
	unsigned index;
	int r = q2_slice(q, off, false, &s, &index);

	if (r < 0) {
		return r;
	}
	if (!s) {
		scan_none(q, off, len, out);
		return 0;
	}
	scan(q, s, off, len, out);
	if (out->type == Q2_BAD) {
		return q2_corrupt(q, "L2 entry for guest offset 0x%llx, 0x%llx, is wrong",
				  (unsigned long long)off, (unsigned long long)out->entry);
	}
	return 0;
}
