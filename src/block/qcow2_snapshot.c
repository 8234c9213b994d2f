/*
 * qcow2: internal snapshots. Specification: "Snapshots".
 *
 * A cluster's refcount counts the paths from all L1 tables to it. To create a snapshot is to copy the
 * L1 table and count every path once more; what is reached by two tables is no longer ours alone
 * (COPIED flags), so that the next write copies it.
 *
 * Order of writes, so that a stop in the middle loses nothing:
 *   create   flags cleared; refcounts up; copy of L1; table of snapshots; header
 *   apply    refcounts of the snapshot's tree up; new active L1, flags cleared; header; refcounts of the
 *            old tree down; flags set
 *   delete   table of snapshots; header; refcounts of its tree down; flags set
 * with a flush between each two. In between flags and refcounts do not agree, which a check calls an
 * error: version 3 has the dirty bit for that, and the next one that opens the image repairs it.
 *
 * No request is in flight here: the caller has drained the node. Untrusted: the table of snapshots
 * and their L1 tables.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

/* --- the table --- */

static void snap_free(struct q2_snap *s)
{
	free(s->id);
	free(s->name);
	free(s->extra);
}

void q2_snap_fini(struct q2 *q)
{
	for (unsigned i = 0; i < q->nsnap; i++) {
		snap_free(&q->snap[i]);
	}
	free(q->snap);
	q->snap = NULL;
	q->nsnap = 0;
}

static char *text_read(struct q2 *q, uint64_t off, size_t len, int *result)
{
	char *p = calloc(1, len + 1);

	if (!p) {
		*result = -ENOMEM;
	} else if (!*result) {
		*result = q2_pread(&q->file, off, p, len);
	}
	return p;
}

static int entry_read(struct q2 *q, uint64_t *pos, struct q2_snap *s)
{
	struct qcow2_snapshot e;
	struct qcow2_snapshot_extra x = {.disk_size = be64_of(q->h.size),
					 .icount = be64_of(UINT64_MAX)};
	uint32_t extra, id, name, known;
	uint64_t at;
	int r = q2_pread(&q->file, *pos, &e, sizeof(e));

	if (r < 0) {
		return r;
	}
	extra = be32_get(e.extra_data_size);
	id = be16_get(e.id_size);
	name = be16_get(e.name_size);
	if (extra > QCOW2_MAX_SNAPSHOT_EXTRA) {
		return -EINVAL;
	}
	at = *pos + sizeof(e);
	known = MIN(extra, (uint32_t)sizeof(x));
	r = q2_pread(&q->file, at, &x, known);
	*s = (struct q2_snap){
		.l1_offset = be64_get(e.l1_table_offset),
		.l1_size = be32_get(e.l1_size),
		.date_sec = be32_get(e.date_sec),
		.date_nsec = be32_get(e.date_nsec),
		.vm_clock_nsec = be64_get(e.vm_clock_nsec),
		.vm_state_size =
			extra >= 8 ? be64_get(x.vm_state_size) : be32_get(e.vm_state_size),
		.disk_size = known >= 16 ? be64_get(x.disk_size) : q->h.size,
		.icount = known >= 24 ? be64_get(x.icount) : UINT64_MAX,
		.extra_len = extra - known,
	};
	s->extra = (uint8_t *)text_read(q, at + known, s->extra_len, &r);
	s->id = text_read(q, at + extra, id, &r);
	s->name = text_read(q, at + extra + id, name, &r);
	*pos = align_up(at + extra + id + name, 8);
	return r;
}

int q2_snap_load(struct q2 *q, struct err *err)
{
	uint64_t pos = q->h.snap_offset;

	if (!q->h.nsnap) {
		return 0;
	}
	q->snap = calloc(q->h.nsnap, sizeof(*q->snap));
	if (!q->snap) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", q->name);
	}
	for (uint32_t i = 0; i < q->h.nsnap; i++) {
		struct q2_snap *s = &q->snap[i];
		int r = pos < q->file.size && pos - q->h.snap_offset < QCOW2_MAX_SNAPSHOT_TABLE
				? entry_read(q, &pos, s)
				: -EINVAL;

		q->nsnap = i + 1;
		if (!r && (s->l1_size * UINT64_C(8) > QCOW2_MAX_L1 ||
			   s->l1_offset & (q->geo.cluster_size - 1) ||
			   (s->l1_size && (!s->l1_offset || s->l1_offset >= q->file.size)) ||
			   s->disk_size > INT64_MAX - q->geo.cluster_size)) {
			r = -EINVAL;
		}
		if (r < 0) {
			return err_set(err, -r,
				       "qcow2 image '%s': entry %u of the snapshot table "
				       "(snapshots_offset "
				       "0x%llx): %s",
				       q->name, i, (unsigned long long)q->h.snap_offset,
				       r == -EINVAL ? "it is malformed" : strerror(-r));
		}
	}
	q->snap_bytes = pos - q->h.snap_offset;
	return 0;
}

static size_t entry_size(const struct q2_snap *s)
{
	return align_up(sizeof(struct qcow2_snapshot) + sizeof(struct qcow2_snapshot_extra) +
				s->extra_len + strlen(s->id) + strlen(s->name),
			8);
}

static void entry_put(uint8_t *p, const struct q2_snap *s)
{
	struct qcow2_snapshot e = {
		.l1_table_offset = be64_of(s->l1_offset),
		.l1_size = be32_of(s->l1_size),
		.id_size = be16_of((uint16_t)strlen(s->id)),
		.name_size = be16_of((uint16_t)strlen(s->name)),
		.date_sec = be32_of(s->date_sec),
		.date_nsec = be32_of(s->date_nsec),
		.vm_clock_nsec = be64_of(s->vm_clock_nsec),
		.vm_state_size = be32_of(
			s->vm_state_size <= UINT32_MAX ? (uint32_t)s->vm_state_size : 0),
		.extra_data_size =
			be32_of((uint32_t)sizeof(struct qcow2_snapshot_extra) + s->extra_len),
	};
	struct qcow2_snapshot_extra x = {be64_of(s->vm_state_size), be64_of(s->disk_size),
					 be64_of(s->icount)};

	memcpy(p, &e, sizeof(e));
	p += sizeof(e);
	memcpy(p, &x, sizeof(x));
	p += sizeof(x);
	if (s->extra_len) {
		memcpy(p, s->extra, s->extra_len);
		p += s->extra_len;
	}
	memcpy(p, s->id, strlen(s->id));
	p += strlen(s->id);
	memcpy(p, s->name, strlen(s->name));
}

/* Writes the table of n snapshots anew and makes the header point at it. */
static int table_write(struct q2 *q, const struct q2_snap *snap, unsigned n)
{
	uint64_t bytes = 0, off = 0, old = q->h.snap_offset, pos = 0;
	uint32_t old_n = q->h.nsnap;
	uint8_t *buf;
	int r;

	for (unsigned i = 0; i < n; i++) {
		bytes += entry_size(&snap[i]);
	}
	if (bytes > QCOW2_MAX_SNAPSHOT_TABLE) {
		return -EFBIG;
	}
	buf = calloc(1, MAX(bytes, 1));
	if (!buf) {
		return -ENOMEM;
	}
	for (unsigned i = 0; i < n; i++) {
		entry_put(buf + pos, &snap[i]);
		pos += entry_size(&snap[i]);
	}
	r = n ? q2_alloc_meta(q, bytes, Q2_OL_SNAPTABLE, &off) : 0;
	r = r || !n ? r : q2_pwrite(&q->file, off, buf, bytes);
	free(buf);
	r = r ? r : q2_refcounts_out(q);
	r = r ? r : q2_pflush(&q->file);
	if (!r) {
		q->h.snap_offset = off;
		q->h.nsnap = n;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	if (r) {
		q->h.snap_offset = old;
		q->h.nsnap = old_n;
		if (off) {
			q2_free_meta(q, off, bytes);
		}
		return r;
	}
	r = old_n ? q2_free_meta(q, old, q->snap_bytes) : 0;
	q->snap_bytes = bytes;
	return r;
}

static struct q2_snap *snap_find(struct q2 *q, const char *id_or_name)
{
	for (unsigned i = 0; i < q->nsnap; i++) {
		if (!strcmp(q->snap[i].id, id_or_name)) {
			return &q->snap[i];
		}
	}
	for (unsigned i = 0; i < q->nsnap; i++) {
		if (!strcmp(q->snap[i].name, id_or_name)) {
			return &q->snap[i];
		}
	}
	return NULL;
}

/* --- trees --- */

int q2_snap_l1(struct q2 *q, const struct q2_snap *s, uint64_t **out)
{
	size_t bytes = s->l1_size * sizeof(uint64_t);
	uint64_t *l1 = calloc(1, MAX(bytes, 8));
	int r = l1 ? q2_pread(&q->file, s->l1_offset, l1, bytes) : -ENOMEM;

	for (uint32_t i = 0; i < s->l1_size && !r; i++) {
		l1[i] = __builtin_bswap64(l1[i]);
	}
	if (r < 0) {
		free(l1);
		return r;
	}
	*out = l1;
	return 0;
}

/* Metadata is on disk, nothing waits to be freed. */
static int settle(struct q2 *q)
{
	int r = q2_commit(q, true);

	r = r ? r : q2_frees_apply(q);
	r = r ? r : q2_refcounts_out(q);
	return r ? r : q2_pflush(&q->file);
}

/* The L2 table that an L1 entry points at, from the file: what is in the caches is on disk. */
static int l2_read(struct q2 *q, uint64_t e, be64 *table)
{
	uint64_t off = e & QCOW2_OFFSET;

	if (off & (q->geo.cluster_size - 1) || off >= q->file.size) {
		return q2_corrupt(q, "L1 entry 0x%llx is wrong", (unsigned long long)e);
	}
	return q2_pread(&q->file, off, table, q->geo.cluster_size);
}

static int path_add(struct q2 *q, uint64_t off, uint64_t len, int delta)
{
	if (delta > 0) {
		return q2_refcount_add(q, off, len, 1);
	}
	return q2_free_later(q, off, len, Q2_FREE_SNAPSHOT);
}

/* Counts every path of this L1 table up or down, at most *left of them (for taking back). */
static int tree_add(struct q2 *q, const uint64_t *l1, uint32_t n, int delta, uint64_t *left)
{
	unsigned step = 1u << (q->geo.entry_bits - 3);
	be64 *table = malloc(q->geo.cluster_size);
	int r = table ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < n && !r && *left; i++) {
		if (!(l1[i] & QCOW2_OFFSET)) {
			continue;
		}
		r = l2_read(q, l1[i], table);
		for (uint64_t j = 0; j < q->geo.cluster_size / 8 && !r && *left; j += step) {
			uint64_t e = be64_get(table[j]), len = q->geo.cluster_size;
			uint64_t off = e & QCOW2_OFFSET;

			if (e & QCOW2_COMPRESSED) {
				off = q2_comp_range(&q->geo, e, &len);
			}
			if (off) {
				r = path_add(q, off, len, delta);
				*left -= !r;
			}
		}
		if (!r && *left) {
			r = path_add(q, l1[i] & QCOW2_OFFSET, q->geo.cluster_size, delta);
			*left -= !r;
		}
		if (!r && q->nfree > 4096) {
			/* what they were reached from is gone from the disk already */
			q2_frees_durable(q);
			r = q2_frees_apply(q);
		}
	}
	free(table);
	return r;
}

static int tree_up(struct q2 *q, const uint64_t *l1, uint32_t n)
{
	uint64_t left = UINT64_MAX, undo;
	int r = tree_add(q, l1, n, 1, &left);

	if (r < 0) {
		undo = UINT64_MAX - left;
		tree_add(q, l1, n, -1, &undo);
		q2_frees_durable(q);
		q2_frees_apply(q);
	}
	return r;
}

static int tree_down(struct q2 *q, const uint64_t *l1, uint32_t n)
{
	uint64_t left = UINT64_MAX;
	int r = tree_add(q, l1, n, -1, &left);

	if (!r) {
		q2_frees_durable(q);
		r = q2_frees_apply(q);
	}
	return r;
}

/* COPIED of an offset: cleared, or as the refcount says. */
static int flag_of(struct q2 *q, uint64_t e, bool clear, uint64_t *out)
{
	uint64_t ref = 0;
	int r = clear ? 0 : q2_refcount_get(q, (e & QCOW2_OFFSET) >> q->geo.cluster_bits, &ref);

	*out = (e & ~QCOW2_COPIED) | (ref == 1 ? QCOW2_COPIED : 0);
	return r;
}

static int flags_table(struct q2 *q, uint64_t l1e, be64 *table, bool clear)
{
	unsigned step = 1u << (q->geo.entry_bits - 3);
	bool changed = false;
	int r = l2_read(q, l1e, table);

	for (uint64_t j = 0; j < q->geo.cluster_size / 8 && !r; j += step) {
		uint64_t e = be64_get(table[j]), to;

		if (e & QCOW2_COMPRESSED || !(e & QCOW2_OFFSET)) {
			continue;
		}
		r = flag_of(q, e, clear, &to);
		changed = changed || to != e;
		table[j] = be64_of(to);
	}
	if (!r && changed) {
		q2_cache_drop(&q->l2, l1e & QCOW2_OFFSET, q->geo.cluster_size);
		r = q2_pwrite(&q->file, l1e & QCOW2_OFFSET, table, q->geo.cluster_size);
	}
	return r;
}

/* All flags of the active tables. */
static int flags_set(struct q2 *q, bool clear)
{
	be64 *table = malloc(q->geo.cluster_size);
	int r = table ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < q->l1_size && !r; i++) {
		uint64_t e = atomic_load(&q->l1[i]), to;

		if (!(e & QCOW2_OFFSET)) {
			continue;
		}
		r = flags_table(q, e, table, clear);
		r = r ? r : flag_of(q, e, clear, &to);
		if (!r && to != e) {
			q2_l1_set(q, i, to);
		}
	}
	free(table);
	return r ? r : settle(q);
}

/* --- the operations --- */

static int begin(struct q2 *q)
{
	int r = q2_first_write(q);

	r = r ? r : settle(q);
	if (!r && q->h.version >= 3 && !(q->h.incompat & QCOW2_INCOMPAT_DIRTY)) {
		q->h.incompat |= QCOW2_INCOMPAT_DIRTY;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	return r;
}

static int end(struct q2 *q)
{
	int r = settle(q);

	if (!r && !q->lazy && (q->h.incompat & QCOW2_INCOMPAT_DIRTY)) {
		q->h.incompat &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	return r;
}

static int l1_write(struct q2 *q, const uint64_t *l1, uint32_t n, uint64_t bytes, uint64_t off)
{
	be64 *buf = calloc(1, MAX(bytes, 8));
	int r;

	if (!buf) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++) {
		buf[i] = be64_of(l1[i] & ~QCOW2_COPIED);
	}
	r = q2_pwrite(&q->file, off, buf, bytes);
	free(buf);
	return r;
}

static int failed(struct q2 *q, int r, const char *what, const char *name, struct err *err)
{
	int e = end(q);

	if (!r && !e) {
		return 0;
	}
	r = r ? r : e;
	return err_set(err, -r, "qcow2 image '%s': snapshot '%s' cannot be %s: %s", q->name,
		       name, what,
		       r == -ERANGE ? "a refcount would not fit in refcount_bits"
				    : strerror(-r));
}

static int create(struct q2 *q, struct q2_snap *s)
{
	uint64_t *l1 = calloc(MAX(q->l1_size, 1), sizeof(*l1)),
		 bytes = q->l1_size * UINT64_C(8);
	struct q2_snap *all = realloc(q->snap, (q->nsnap + 1) * sizeof(*all));
	int r = l1 && all ? 0 : -ENOMEM;

	q->snap = all ? all : q->snap;
	for (uint32_t i = 0; i < q->l1_size && !r; i++) {
		l1[i] = atomic_load(&q->l1[i]);
	}
	r = r ? r : flags_set(q, true);
	r = r ? r : tree_up(q, l1, q->l1_size);
	if (!r) {
		r = q2_refcounts_out(q);
		r = r ? r : q2_alloc_meta(q, MAX(bytes, 8), Q2_OL_INACTIVE_L1, &s->l1_offset);
		s->l1_size = q->l1_size;
		r = r ? r : l1_write(q, l1, q->l1_size, bytes, s->l1_offset);
		r = r ? r : q2_refcounts_out(q);
		r = r ? r : q2_pflush(&q->file);
		if (!r) {
			q->snap[q->nsnap] = *s;
			r = table_write(q, q->snap, q->nsnap + 1);
		}
		if (r < 0) {
			tree_down(q, l1, q->l1_size);
		}
	}
	if (r < 0) {
		if (s->l1_offset) {
			q2_free_meta(q, s->l1_offset, MAX(bytes, 8));
		}
		flags_set(q, false);
	} else {
		q->nsnap++;
	}
	free(l1);
	return r;
}

int q2_snap_create(struct q2 *q, const struct q2_snap *from, struct err *err)
{
	struct q2_snap s = *from;
	unsigned long max = 0;
	char id[24];
	int r;

	if (q->geo.data_file) {
		return err_set(
			err, ENOTSUP,
			"qcow2 image '%s' has an external data file: it has no snapshots",
			q->name);
	}
	if (q->nsnap >= QCOW2_MAX_SNAPSHOTS || strlen(from->name) > UINT16_MAX) {
		return err_set(err, EFBIG,
			       "qcow2 image '%s': too many snapshots, or a name too long",
			       q->name);
	}
	for (unsigned i = 0; i < q->nsnap; i++) {
		unsigned long v = strtoul(q->snap[i].id, NULL, 10);

		max = MAX(max, v);
	}
	snprintf(id, sizeof(id), "%lu", max + 1);
	s.l1_offset = 0;
	s.extra = NULL;
	s.extra_len = 0;
	s.id = strdup(id);
	s.name = strdup(from->name);
	s.disk_size = q->h.size;
	r = s.id && s.name ? begin(q) : -ENOMEM;
	r = r ? r : create(q, &s);
	if (r < 0) {
		snap_free(&s);
	}
	return failed(q, r, "created", from->name, err);
}

/* The header and the active table change to a copy of l1. */
static int l1_switch(struct q2 *q, const uint64_t *l1, uint32_t n, uint32_t size,
		     uint64_t disk_size)
{
	struct q2_l1 *fresh = q2_l1_new(size);
	uint64_t bytes = MAX(size * UINT64_C(8), 8), off = 0, old = q->h.l1_offset;
	uint64_t old_bytes = q->h.l1_size * UINT64_C(8);
	struct q2_header was = q->h;
	int r = fresh ? q2_alloc_meta(q, bytes, Q2_OL_L1, &off) : -ENOMEM;

	r = r ? r : l1_write(q, l1, n, bytes, off);
	r = r ? r : q2_refcounts_out(q);
	r = r ? r : q2_pflush(&q->file);
	if (!r) {
		q->h.l1_offset = off;
		q->h.l1_size = size;
		q->h.size = disk_size;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	if (r < 0) {
		q->h.l1_offset = was.l1_offset;
		q->h.l1_size = was.l1_size;
		q->h.size = was.size;
		if (off) {
			q2_free_meta(q, off, bytes);
		}
		free(fresh);
		return r;
	}
	for (uint32_t i = 0; i < n; i++) {
		atomic_store(&fresh->e[i], l1[i] & ~QCOW2_COPIED);
	}
	q2_l1_publish(q, fresh);
	q->l1_lo = UINT32_MAX;
	q->l1_hi = 0;
	return q2_free_meta(q, old, old_bytes);
}

int q2_snap_apply(struct q2 *q, const char *id_or_name, struct err *err)
{
	struct q2_snap *s = snap_find(q, id_or_name);
	uint64_t *l1 = NULL, *old, need;
	uint32_t old_size = q->l1_size, size;
	int r;

	if (!s) {
		return err_set(err, ENOENT, "qcow2 image '%s' has no snapshot '%s'", q->name,
			       id_or_name);
	}
	old = calloc(MAX(old_size, 1), sizeof(*old));
	r = old ? begin(q) : -ENOMEM;
	r = r || s->disk_size == q->h.size ? r : q2_bitmaps_use(q, true);
	r = r ? r : q2_snap_l1(q, s, &l1);
	for (uint32_t i = 0; i < old_size && !r; i++) {
		old[i] = atomic_load(&q->l1[i]);
	}
	need = (s->disk_size >> q2_l1_bits(&q->geo)) + 1;
	if (!r && need > QCOW2_MAX_L1 / 8) {
		r = -EFBIG;
	}
	size = MAX(s->l1_size, (uint32_t)need);
	r = r ? r : tree_up(q, l1, s->l1_size);
	if (!r) {
		r = q2_refcounts_out(q);
		r = r ? r : q2_pflush(&q->file);
		r = r ? r : l1_switch(q, l1, s->l1_size, size, s->disk_size);
		if (r < 0) {
			tree_down(q, l1, s->l1_size);
		} else {
			q->comp_cached = 0;
			r = tree_down(q, old, old_size);
		}
		r = r ? r : flags_set(q, false);
		if (!r) {
			r = q2_meta_build(q);
		}
	}
	free(l1);
	free(old);
	return failed(q, r, "applied", id_or_name, err);
}

int q2_snap_delete(struct q2 *q, const char *id_or_name, struct err *err)
{
	struct q2_snap *s = snap_find(q, id_or_name), gone;
	unsigned at;
	uint64_t *l1 = NULL;
	int r;

	if (!s) {
		return err_set(err, ENOENT, "qcow2 image '%s' has no snapshot '%s'", q->name,
			       id_or_name);
	}
	at = (unsigned)(s - q->snap);
	gone = *s;
	r = begin(q);
	r = r ? r : q2_snap_l1(q, s, &l1);
	if (!r) {
		memmove(s, s + 1, (q->nsnap - at - 1) * sizeof(*s));
		r = table_write(q, q->snap, q->nsnap - 1);
		if (r < 0) {
			memmove(q->snap + at + 1, q->snap + at,
				(q->nsnap - at - 1) * sizeof(*s));
			q->snap[at] = gone;
		} else {
			q->nsnap--;
			r = tree_down(q, l1, gone.l1_size);
			r = r ? r
			      : q2_free_meta(q, gone.l1_offset,
					     MAX(gone.l1_size * UINT64_C(8), 8));
			r = r ? r : flags_set(q, false);
			if (!r && q->opt.overlap & Q2_OL_INACTIVE_L2) {
				r = q2_meta_build(q); /* its L2 tables are nobody's now */
			}
			snap_free(&gone);
		}
	}
	free(l1);
	return failed(q, r, "deleted", id_or_name, err);
}

int q2_snap_show(struct q2 *q, const char *id_or_name, struct err *err)
{
	struct q2_snap *s = snap_find(q, id_or_name);
	struct q2_l1 *view;
	uint64_t *l1, need;
	int r;

	if (!s) {
		return err_set(err, ENOENT, "qcow2 image '%s' has no snapshot '%s'", q->name,
			       id_or_name);
	}
	if (!q->read_only) {
		return err_set(err, EINVAL,
			       "qcow2 image '%s': a snapshot is only shown read-only", q->name);
	}
	r = q2_snap_l1(q, s, &l1);
	if (r) {
		return err_set(err, -r, "qcow2 image '%s': reading snapshot '%s': %s", q->name,
			       id_or_name, strerror(-r));
	}
	need = (s->disk_size >> q2_l1_bits(&q->geo)) + 1;
	view = need <= QCOW2_MAX_L1 / 8 + 1 ? q2_l1_new(MAX(s->l1_size, (uint32_t)need)) : NULL;
	for (uint32_t i = 0; view && i < s->l1_size; i++) {
		atomic_store(&view->e[i], l1[i]);
	}
	free(l1);
	if (!view) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", q->name);
	}
	q2_l1_publish(q, view);
	q->h.size = s->disk_size;
	q->comp_cached = 0;
	q->shown = true;
	return 0;
}
