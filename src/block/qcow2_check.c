/*
 * qcow2: check and repair. All references are counted from the tables, then compared with the
 * refcounts on disk; then the COPIED flags are compared with them.
 *
 * Memory: 4 bytes for each cluster of the file that is referenced or near one that is, in chunks, and
 * a table. Nothing is changed unless `fix` says so. Where the refcount structure itself is broken it is
 * built anew behind the end of the file, and the header switches to it.
 *
 * Untrusted: everything. References past the end of the file are errors and are not counted, so that
 * the file's size bounds memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define CHUNK_BITS 16
#define MAX_CHUNKS (1u << 22)
#define MAX_LINES  200 /* of single findings */

struct check {
	struct q2 *q;
	struct blk_check *res;
	unsigned fix;
	uint64_t clusters; /* of the file, and one more that may be cut off */
	uint32_t **chunk;
	size_t nchunks;
	bool rebuild, active; /* active: the table being walked is */
	uint64_t next_host;   /* where the next cluster would be if nothing were fragmented */
	unsigned lines;
};

static void say(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct check *c, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	if (c->lines++ >= MAX_LINES) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn(c->q->name, "check: %s%s", text,
		 c->lines == MAX_LINES ? " (more of these are not shown)" : "");
}

static uint32_t count_get(const struct check *c, uint64_t cluster)
{
	const uint32_t *p =
		cluster >> CHUNK_BITS < c->nchunks ? c->chunk[cluster >> CHUNK_BITS] : NULL;

	return p ? p[cluster & ((1u << CHUNK_BITS) - 1)] : 0;
}

/* References to [off, off + len); whole and within the file, or it is an error. */
static int count(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	unsigned bits = c->q->geo.cluster_bits;

	if (!len) {
		return 0;
	}
	if (off > INT64_MAX - len || (off + len - 1) >> bits >= c->clusters) {
		say(c, "ERROR the %s at 0x%llx is outside of the file", what,
		    (unsigned long long)off);
		c->res->corruptions++;
		return -ERANGE;
	}
	for (uint64_t i = off >> bits; i <= (off + len - 1) >> bits; i++) {
		uint32_t **p = &c->chunk[i >> CHUNK_BITS];

		if (!*p) {
			*p = calloc(1u << CHUNK_BITS, sizeof(**p));
			if (!*p) {
				return -ENOMEM;
			}
		}
		(*p)[i & ((1u << CHUNK_BITS) - 1)]++;
	}
	return 0;
}

/* What is outside was reported; the check goes on. */
static int count_on(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	int r = count(c, off, len, what);

	return r == -ERANGE ? 0 : r;
}

static int count_bitmap(void *opaque, uint64_t off, uint64_t len, const char *what)
{
	return count_on(opaque, off, len, what);
}

/* --- L1 and L2 --- */

static void statistics(struct check *c, uint64_t e, uint64_t host)
{
	if (!c->active) {
		return;
	}
	c->res->allocated_clusters++;
	if (e & QCOW2_COMPRESSED) {
		c->res->compressed_clusters++;
		c->res->fragmented_clusters++;
		return;
	}
	if (c->next_host && host != c->next_host) {
		c->res->fragmented_clusters++;
	}
	c->next_host = host + c->q->geo.cluster_size;
}

/* One entry; *bad: it has to go. */
static int entry_count(struct check *c, uint64_t guest, struct q2_ent ent, bool *bad)
{
	const struct q2_geo *g = &c->q->geo;
	uint64_t off = ent.e & QCOW2_OFFSET, len = g->cluster_size;
	bool data = false;
	int r;

	*bad = false;
	if (ent.e & QCOW2_COMPRESSED) {
		off = q2_comp_range(g, ent.e, &len);
		*bad = g->data_file || ent.bitmap;
		/* the last sector may be cut off with the file */
		data = true;
		len = off < c->q->file.size ? MIN(len, c->q->file.size - off) : len;
	} else {
		for (unsigned i = 0; i < (g->extl2 ? 32 : 1); i++) {
			enum q2_type t = q2_ent_type(g, ent, i);

			*bad = *bad || t == Q2_BAD;
			data = data || t == Q2_NORMAL;
		}
		*bad = *bad || ent.e & QCOW2_L2_RESERVED;
		if (g->data_file && (ent.e & QCOW2_COPIED) && off != guest) {
			*bad = true;
		}
	}
	if (*bad) {
		say(c, "ERROR the L2 entry of guest offset 0x%llx is wrong: 0x%llx",
		    (unsigned long long)guest, (unsigned long long)ent.e);
		c->res->corruptions++;
		return 0;
	}
	if (!off && !(ent.e & QCOW2_COMPRESSED) && !(g->data_file && (ent.e & QCOW2_COPIED))) {
		return 0;
	}
	if (data) {
		statistics(c, ent.e, off);
	}
	if (g->data_file) {
		return 0;
	}
	r = count(c, off, len, "guest cluster");
	if (r == -ERANGE) {
		*bad = true;
		r = 0;
	}
	return r;
}

static void flag_counted(struct check *c, bool fixed)
{
	*(fixed ? &c->res->corruptions_fixed : &c->res->corruptions) += 1;
}

/* A compressed cluster has no COPIED flag, in the tables of snapshots too. */
static int flag_of_compressed(struct check *c, uint64_t at, be64 *entry)
{
	uint64_t e = be64_get(*entry);
	bool fix = c->fix & BLK_FIX_ERRORS;

	if (!(e & QCOW2_COMPRESSED) || !(e & QCOW2_COPIED)) {
		return 0;
	}
	say(c, "ERROR COPIED flag of a compressed cluster: 0x%llx", (unsigned long long)e);
	flag_counted(c, fix);
	*entry = be64_of(e & ~QCOW2_COPIED);
	return fix ? q2_pwrite(&c->q->file, at, entry, sizeof(*entry)) : 0;
}

static int l2_count(struct check *c, uint64_t off, uint64_t guest, be64 *table)
{
	const struct q2_geo *g = &c->q->geo;
	unsigned step = 1u << (g->entry_bits - 3);
	int r = q2_pread(&c->q->file, off, table, g->cluster_size);

	c->next_host = 0;
	if (r < 0) {
		say(c, "ERROR reading the L2 table at 0x%llx: %s", (unsigned long long)off,
		    strerror(-r));
		c->res->check_errors++;
		return 0;
	}
	for (uint64_t i = 0; i < g->cluster_size / 8 && !r; i += step) {
		struct q2_ent ent = {be64_get(table[i]),
				     step == 2 ? be64_get(table[i + 1]) : 0};
		bool bad = false;

		if (!ent.e && !ent.bitmap) {
			guest += g->cluster_size;
			continue;
		}
		r = flag_of_compressed(c, off + i * 8, &table[i]);
		r = r ? r : entry_count(c, guest, ent, &bad);
		if (!r && bad && c->fix & BLK_FIX_ERRORS) {
			table[i] = be64_of(g->version >= 3 && !g->extl2 ? QCOW2_ZERO : 0);
			if (step == 2) {
				table[i + 1] = be64_of(QCOW2_SUB_ZERO);
			}
			r = q2_pwrite(&c->q->file, off + i * 8, &table[i], step * 8);
			c->res->corruptions -= !r;
			c->res->corruptions_fixed += !r;
		}
		guest += g->cluster_size;
	}
	return r;
}

/* An L1 table at `at`, whose entries (host order) are l1. */
static int l1_count(struct check *c, uint64_t *l1, uint32_t n, uint64_t at)
{
	const struct q2_geo *g = &c->q->geo;
	be64 *table = malloc(g->cluster_size);
	int r = table ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < n && !r; i++) {
		uint64_t off = l1[i] & QCOW2_OFFSET;
		bool bad = l1[i] & QCOW2_L1_RESERVED || off & (g->cluster_size - 1);

		if (bad) {
			say(c, "ERROR L1 entry %u at 0x%llx is wrong: 0x%llx", i,
			    (unsigned long long)at, (unsigned long long)l1[i]);
			c->res->corruptions++;
		} else if (off) {
			r = count(c, off, g->cluster_size, "L2 table");
			bad = r == -ERANGE;
			r = bad ? 0 : r;
			if (!r && !bad) {
				r = l2_count(c, off, (uint64_t)i << q2_l1_bits(g), table);
			}
		}
		if (bad && !r && c->fix & BLK_FIX_ERRORS) {
			be64 none = be64_of(0);

			r = q2_pwrite(&c->q->file, at + i * UINT64_C(8), &none, sizeof(none));
			l1[i] = 0;
			c->res->corruptions -= !r;
			c->res->corruptions_fixed += !r;
		}
	}
	free(table);
	return r;
}

static int tables_count(struct check *c)
{
	struct q2 *q = c->q;
	uint64_t *l1 = calloc(MAX(q->l1_size, 1), sizeof(*l1));
	int r = l1 ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < q->l1_size && !r; i++) {
		l1[i] = atomic_load(&q->l1[i]);
	}
	r = r ? r : count_on(c, 0, q->geo.cluster_size, "header");
	r = r ? r : count_on(c, q->h.l1_offset, q->h.l1_size * UINT64_C(8), "active L1 table");
	c->active = true;
	r = r ? r : l1_count(c, l1, q->l1_size, q->h.l1_offset);
	for (uint32_t i = 0; i < q->l1_size && !r; i++) {
		atomic_store(&q->l1[i], l1[i]);
	}
	free(l1);
	c->active = false;
	r = r ? r : count_on(c, q->h.snap_offset, q->snap_bytes, "snapshot table");
	for (unsigned i = 0; i < q->nsnap && !r; i++) {
		struct q2_snap *s = &q->snap[i];

		r = count(c, s->l1_offset, s->l1_size * UINT64_C(8), "L1 table of a snapshot");
		if (r == -ERANGE) {
			r = 0;
			continue;
		}
		r = r ? r : q2_snap_l1(q, s, &l1);
		if (!r) {
			r = l1_count(c, l1, s->l1_size, s->l1_offset);
			free(l1);
		}
	}
	return r ? r : q2_bitmaps_each(q, count_bitmap, c);
}

/* --- refcounts --- */

static int structure_count(struct check *c)
{
	struct q2 *q = c->q;
	int r = count_on(c, q->h.rt_offset, (uint64_t)q->h.rt_clusters << q->geo.cluster_bits,
			 "refcount table");

	if (q->rt_reserved) {
		say(c, "ERROR refcount table entry %u has reserved bits set", q->rt_reserved - 1);
		c->res->corruptions++;
		c->rebuild = true;
	}
	for (uint32_t i = 0; i < q->rt_size && !r; i++) {
		uint64_t off = q->rt[i];

		if (!off) {
			continue;
		}
		if (off & (q->geo.cluster_size - 1) || off >= q->file.size) {
			say(c, "ERROR refcount table entry %u is wrong: 0x%llx", i,
			    (unsigned long long)off);
			c->res->corruptions++;
			c->rebuild = true;
			continue;
		}
		if (count_get(c, off >> q->geo.cluster_bits)) {
			say(c, "ERROR refcount block %u at 0x%llx overlaps something else", i,
			    (unsigned long long)off);
			c->res->corruptions++;
			c->rebuild = true;
		}
		r = count_on(c, off, q->geo.cluster_size, "refcount block");
	}
	return r;
}

static int compare_one(struct check *c, uint64_t cluster, uint64_t ref, uint64_t want)
{
	struct blk_check *res = c->res;
	bool leak = ref > want;
	unsigned need = leak ? BLK_FIX_LEAKS : BLK_FIX_ERRORS;

	say(c, "%s cluster %llu refcount=%llu reference=%llu%s", leak ? "Leaked" : "ERROR",
	    (unsigned long long)cluster, (unsigned long long)ref, (unsigned long long)want,
	    c->fix & need ? ", repairing" : "");
	if (c->fix & need && q2_refcount_set(c->q, cluster, want) == 0) {
		*(leak ? &res->leaks_fixed : &res->corruptions_fixed) += 1;
	} else {
		*(leak ? &res->leaks : &res->corruptions) += 1;
	}
	return 0;
}

static int compare(struct check *c)
{
	struct q2 *q = c->q;
	unsigned rb = q->geo.cluster_bits + 3 - q->geo.refcount_order;
	uint64_t end = 0;

	for (uint64_t i = 0; i < MAX(c->clusters, (uint64_t)q->rt_size << rb); i++) {
		uint64_t ref, want;
		int r;

		if (i >> rb < q->rt_size ? !q->rt[i >> rb] : true) {
			/* no block: jump over what nobody references */
			if (!count_get(c, i) &&
			    (i >> CHUNK_BITS >= c->nchunks || !c->chunk[i >> CHUNK_BITS])) {
				uint64_t to = MIN(align_up(i + 1, UINT64_C(1) << CHUNK_BITS),
						  ((i >> rb) + 1) << rb);

				i = to - 1;
				continue;
			}
		}
		want = count_get(c, i);
		if (want && (i >> rb >= q->rt_size || !q->rt[i >> rb])) {
			/* a new block could only go where the refcounts say that nothing is */
			say(c,
			    "ERROR cluster %llu refcount=0 reference=%llu, and no refcount "
			    "block",
			    (unsigned long long)i, (unsigned long long)want);
			c->res->corruptions++;
			c->rebuild = true;
			end = i + 1;
			continue;
		}
		r = q2_refcount_get(q, i, &ref);
		if (r < 0) {
			say(c, "ERROR reading the refcount of cluster %llu: %s",
			    (unsigned long long)i, strerror(-r));
			c->res->check_errors++;
			return 0;
		}
		if (ref || want) {
			end = i + 1;
		}
		if (ref != want) {
			compare_one(c, i, ref, want);
		}
	}
	c->res->image_end_offset = end << q->geo.cluster_bits;
	return 0;
}

/* A structure of blocks and table that says what was counted, behind everything that is there. */
static int rebuild(struct check *c)
{
	struct q2 *q = c->q;
	unsigned bits = q->geo.cluster_bits, rb = bits + 3 - q->geo.refcount_order;
	uint64_t base = c->clusters, per = UINT64_C(1) << rb, blocks, tc, n, pos = base;
	uint64_t *rt = NULL;
	uint8_t *buf = calloc(1, q->geo.cluster_size);
	int r = buf ? 0 : -ENOMEM;

	/* every region that has a reference, and those of the structure itself */
	for (blocks = 1, tc = 1;;) {
		uint64_t all = base + blocks + tc, b = 0, t;

		for (uint64_t i = 0; i * per < all; i++) {
			bool used = (i + 1) * per > base;

			for (uint64_t k = i * per; k < (i + 1) * per && !used && k < base;
			     k++) {
				if (!c->chunk[k >> CHUNK_BITS]) {
					k |= (1u << CHUNK_BITS) - 1;
				} else {
					used = count_get(c, k);
				}
			}
			b += used;
		}
		t = ((all + per - 1) / per * 8 + q->geo.cluster_size - 1) >> bits;
		if (b <= blocks && t <= tc) {
			break;
		}
		blocks = MAX(b, blocks);
		tc = MAX(t, tc);
	}
	if (tc > QCOW2_MAX_REFTABLE >> bits) {
		r = -EFBIG;
	}
	n = tc << (bits - 3);
	rt = r ? NULL : calloc(n, sizeof(*rt));
	r = r ? r : rt ? 0 : -ENOMEM;
	for (uint64_t i = 0; i * per < base + blocks + tc && !r; i++) {
		bool any = (i + 1) * per > base;

		memset(buf, 0, q->geo.cluster_size);
		for (uint64_t k = i * per; k < (i + 1) * per && k < base + blocks + tc; k++) {
			uint64_t v = k >= base ? 1 : count_get(c, k);

			if (v > q2_ref_max(q)) {
				r = -ERANGE;
			}
			any = any || v;
			q2_ref_write(buf, q->geo.refcount_order, k & (per - 1), v);
		}
		if (any && !r) {
			rt[i] = pos++ << bits;
			r = q2_pwrite(&q->file, rt[i], buf, q->geo.cluster_size);
		}
	}
	free(buf);
	if (!r) {
		be64 *out = malloc(n * 8);

		r = out ? 0 : -ENOMEM;
		for (uint64_t i = 0; i < n && !r; i++) {
			out[i] = be64_of(rt[i]);
		}
		pos = base + blocks;
		r = r ? r : q2_pwrite(&q->file, pos << bits, out, n * 8);
		free(out);
		r = r ? r : q2_pflush(&q->file);
	}
	if (!r) {
		q->h.rt_offset = pos << bits;
		q->h.rt_clusters = (uint32_t)tc;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	if (r < 0) {
		free(rt);
		return r;
	}
	free(q->rt);
	q->rt = rt;
	q->rt_size = (uint32_t)n;
	q->rt_lo = UINT32_MAX;
	q->rt_hi = 0;
	q->rt_reserved = 0;
	q->free_hint = 1;
	q->zero_from = align_up(q->file.size, q->geo.cluster_size);
	for (unsigned i = 0; i < q->rc.nslots; i++) {
		q2_slot_drop(&q->rc, &q->rc.slot[i]);
	}
	c->res->corruptions_fixed += c->res->corruptions;
	c->res->leaks_fixed += c->res->leaks;
	c->res->corruptions = c->res->leaks = 0;
	return 0;
}

/* --- flags --- */

static bool flag_wrong(struct check *c, uint64_t *e, const char *what, int *result)
{
	uint64_t ref, host = *e & QCOW2_OFFSET;
	int r = q2_refcount_get(c->q, host >> c->q->geo.cluster_bits, &ref);

	if (r < 0 || (ref == 1) == !!(*e & QCOW2_COPIED)) {
		*result = r;
		return false;
	}
	say(c, "ERROR COPIED flag of the %s at 0x%llx with refcount %llu: 0x%llx", what,
	    (unsigned long long)host, (unsigned long long)ref, (unsigned long long)*e);
	*e ^= QCOW2_COPIED;
	return true;
}

static int l2_flags(struct check *c, uint64_t off, be64 *table)
{
	const struct q2_geo *g = &c->q->geo;
	unsigned step = 1u << (g->entry_bits - 3);
	bool fix = c->fix & BLK_FIX_ERRORS, changed = false;
	int r = q2_pread(&c->q->file, off, table, g->cluster_size);

	for (uint64_t i = 0; i < g->cluster_size / 8 && !r && !g->data_file; i += step) {
		uint64_t e = be64_get(table[i]);

		if (!(e & QCOW2_COMPRESSED) && e & QCOW2_OFFSET &&
		    !(e & QCOW2_OFFSET & (g->cluster_size - 1)) &&
		    flag_wrong(c, &e, "guest cluster", &r)) {
			flag_counted(c, fix);
			table[i] = be64_of(e);
			changed = true;
		}
	}
	return r || !changed || !fix ? r : q2_pwrite(&c->q->file, off, table, g->cluster_size);
}

static int flags(struct check *c)
{
	struct q2 *q = c->q;
	be64 *table = malloc(q->geo.cluster_size);
	bool fix = c->fix & BLK_FIX_ERRORS;
	int r = table ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < q->l1_size && !r; i++) {
		uint64_t e = atomic_load(&q->l1[i]), off = e & QCOW2_OFFSET;

		if (!off || off & (q->geo.cluster_size - 1) || off >= q->file.size) {
			continue;
		}
		if (flag_wrong(c, &e, "L2 table", &r)) {
			flag_counted(c, fix);
			if (fix) {
				q2_l1_set(q, i, e);
			}
		}
		r = r ? r : l2_flags(c, off, table);
	}
	free(table);
	return r;
}

/* --- all of it --- */

static int check_run(struct check *c)
{
	struct q2 *q = c->q;
	bool errors = c->fix & BLK_FIX_ERRORS;
	int r = tables_count(c);

	r = r ? r : structure_count(c);
	if (!r && !c->rebuild) {
		r = compare(c);
	}
	if (!r && c->rebuild && errors) {
		/* counted anew, without the structure that goes */
		for (size_t i = 0; i < c->nchunks; i++) {
			free(c->chunk[i]);
			c->chunk[i] = NULL;
		}
		c->res->allocated_clusters = c->res->compressed_clusters =
			c->res->fragmented_clusters = 0;
		r = tables_count(c);
		r = r ? r : rebuild(c);
	} else if (!r && c->fix) {
		r = q2_refcounts_out(q);
		r = r ? r : q2_pflush(&q->file);
	}
	return r || (c->rebuild && !errors) ? r : flags(c);
}

/* Marks of trouble go when there is none any more. */
static int check_clean(struct check *c)
{
	struct q2 *q = c->q;
	uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	bool corrupt = q->corrupt && (c->res->corruptions || c->res->check_errors);
	int r;

	q->corrupt = false;
	r = q2_commit(q, true);
	r = r ? r : q2_refcounts_out(q);
	r = r ? r : q2_pflush(&q->file);
	if (!r && c->fix & BLK_FIX_ERRORS && !c->res->corruptions && !c->res->check_errors &&
	    q->h.incompat & marks) {
		q->h.incompat &= ~marks;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	for (unsigned i = 0; i < q->l2.nslots; i++) {
		q2_slot_drop(&q->l2, &q->l2.slot[i]);
	}
	q->bad_overlap = false;
	q->corrupt = corrupt;
	return r ? r : q2_meta_build(q);
}

int q2_check(struct q2 *q, struct blk_check *out, unsigned fix, struct err *err)
{
	struct check c = {.q = q, .res = out, .fix = fix};
	int r = 0;

	memset(out, 0, sizeof(*out));
	if (fix && q->read_only) {
		return err_set(err, EROFS,
			       "qcow2 image '%s' is open read-only and cannot be repaired",
			       q->name);
	}
	if (!q->read_only) {
		bool lazy = q->lazy;

		q->lazy = false;
		r = q->corrupt ? 0 : q2_commit(q, true);
		r = r || q->corrupt ? r : q2_refcounts_out(q);
		q->lazy = lazy;
	}
	c.clusters = q2_clusters(&q->geo, q->file.size) + 1;
	c.nchunks = (c.clusters >> CHUNK_BITS) + 1;
	c.chunk = c.nchunks <= MAX_CHUNKS ? calloc(c.nchunks, sizeof(*c.chunk)) : NULL;
	if (!c.chunk) {
		return err_set(err, EFBIG, "qcow2 image '%s' is too large to be checked",
			       q->name);
	}
	out->total_clusters = q2_clusters(&q->geo, q->h.size);
	q->rc_ahead = true;
	r = r ? r : check_run(&c);
	q->rc_ahead = false;
	if (!r && fix) {
		r = check_clean(&c);
	}
	for (size_t i = 0; i < c.nchunks; i++) {
		free(c.chunk[i]);
	}
	free(c.chunk);
	return r ? err_set(err, -r, "qcow2 image '%s': check: %s", q->name, strerror(-r)) : 0;
}
