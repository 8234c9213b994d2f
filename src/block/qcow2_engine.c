/*
 * qcow2: an open image, and the order in which its metadata goes to the disk.
 *
 * q2_commit() is the one place that writes L2 slices and L1 entries:
 *   1. refcount blocks (increments; see qcow2_refcount.c); if the refcount table has new entries, a
 *      flush and those
 *   2. a flush: data, copied data, new L2 tables and refcounts are on disk
 *   3. L2 slices and L1 entries, in any order
 *   4. with `sync`, a flush; then what these changes dropped may be freed
 * So a link never reaches the disk before what it points at and that one's refcount, and any subset of
 * writes since the last flush may be lost: refcounts are too high at worst.
 *
 * Lazy refcounts leave step 1 away; the dirty bit is on disk before the first write, and q2_open()
 * repairs an image that has it.
 *
 * A corrupt image (q->corrupt) takes no more writes.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define HEADER_FROM offsetof(struct qcow2_header, cluster_bits)
#define MAX_WAITING 8192 /* ranges to be freed before a commit is forced */

int q2_corrupt(struct q2 *q, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (q->corrupt) {
		return -EIO;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_guest(q->name, "qcow2 image is corrupt: %s; %s", text,
		  q->read_only ? "it is opened read-only" : "it takes no more writes");
	q->corrupt = true;
	atomic_store(&q->write_ready, false);
	if (!q->read_only && q->h.version >= 3) {
		q->h.incompat |= QCOW2_INCOMPAT_CORRUPT;
		q2_header_update(q);
	}
	return -EIO;
}

/* --- header --- */

int q2_header_read(struct blk_io *file, uint64_t file_size, const char *name,
		   struct q2_header *h, struct err *err)
{
	struct q2_file f = {.io = file, .size = file_size};
	uint8_t first[512];
	size_t want;
	uint8_t *buf;
	int r;

	memset(h, 0, sizeof(*h));
	r = q2_pread(&f, 0, first, sizeof(first));
	if (r < 0) {
		return err_set(err, -r, "qcow2 image '%s': reading the header: %s", name,
			       strerror(-r));
	}
	want = (size_t)MIN(q2_header_want(first, sizeof(first)), file_size);
	buf = calloc(1, MAX(want, sizeof(first)));
	if (!buf) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", name);
	}
	r = q2_pread(&f, 0, buf, want);
	r = r < 0 ? err_set(err, -r, "qcow2 image '%s': reading the header: %s", name,
			    strerror(-r))
		  : q2_header_parse(h, buf, want, file_size, name, err);
	free(buf);
	return r;
}

/* The name of the backing file stays as it is: bytes 8 to 19 are not written. */
int q2_header_update(struct q2 *q)
{
	uint8_t buf[QCOW2_HEADER_V3];
	size_t n = q2_header_fields(&q->h, buf);

	return q2_pwrite(&q->file, HEADER_FROM, buf + HEADER_FROM, n - HEADER_FROM);
}

int q2_header_rewrite(struct q2 *q)
{
	uint8_t *buf = malloc(q->geo.cluster_size);
	int r = buf ? q2_header_encode(&q->h, buf, q->geo.cluster_size) : -ENOMEM;

	r = r ? r : q2_pwrite(&q->file, 0, buf, q->geo.cluster_size);
	r = r ? r : q2_pflush(&q->file);
	free(buf);
	return r;
}

int q2_set_backing(struct q2 *q, const char *file, const char *fmt, struct err *err)
{
	struct q2_header old = q->h;
	int r;

	if (strlen(file ? file : "") > QCOW2_MAX_BACKING ||
	    strlen(fmt ? fmt : "") >= sizeof(q->h.backing_fmt)) {
		return err_set(err, EINVAL,
			       "qcow2 image '%s': the backing file's name is too long",
			       q->name);
	}
	if (file && *file && q->geo.data_file && (q->h.autoclear & QCOW2_AUTOCLEAR_RAW)) {
		return err_set(
			err, EINVAL,
			"qcow2 image '%s': a raw external data file excludes a backing file",
			q->name);
	}
	r = q2_first_write(q);
	if (!r) {
		snprintf(q->h.backing, sizeof(q->h.backing), "%s", file ? file : "");
		snprintf(q->h.backing_fmt, sizeof(q->h.backing_fmt), "%s",
			 file && *file && fmt ? fmt : "");
		r = q2_header_rewrite(q);
	}
	if (r < 0) {
		memcpy(q->h.backing, old.backing, sizeof(old.backing));
		memcpy(q->h.backing_fmt, old.backing_fmt, sizeof(old.backing_fmt));
		return err_set(err, -r,
			       "qcow2 image '%s': changing the backing file's name: %s",
			       q->name, r == -ENOSPC ? "no room in the header" : strerror(-r));
	}
	return 0;
}

/* --- commit --- */

static int l2_writeback(struct q2 *q)
{
	size_t size = (size_t)1 << q->l2.slice_bits;

	for (unsigned i = 0; i < q->l2.nslots && q->l2.ndirty; i++) {
		struct q2_slot *s = &q->l2.slot[i];
		int r;

		if (!s->dirty) {
			continue;
		}
		q->unsynced = true;
		r = q2_pwrite(&q->file, atomic_load(&s->key), (void *)q2_slot_data(&q->l2, s),
			      size);
		if (r < 0) {
			return r;
		}
		s->dirty = false;
		q->l2.ndirty--;
	}
	return 0;
}

static int l1_writeback(struct q2 *q)
{
	uint64_t buf[512];

	while (q->l1_lo < q->l1_hi) {
		uint32_t n = MIN(q->l1_hi - q->l1_lo, (uint32_t)ARRAY_SIZE(buf));
		int r;

		for (uint32_t i = 0; i < n; i++) {
			buf[i] = __builtin_bswap64(atomic_load(&q->l1[q->l1_lo + i]));
		}
		q->unsynced = true;
		r = q2_pwrite(&q->file, q->h.l1_offset + q->l1_lo * UINT64_C(8), buf, n * 8);
		if (r < 0) {
			return r;
		}
		q->l1_lo += n;
	}
	q->l1_lo = UINT32_MAX;
	q->l1_hi = 0;
	return 0;
}

static int rt_writeback(struct q2 *q)
{
	uint64_t buf[512];

	while (q->rt_lo < q->rt_hi) {
		uint32_t n = MIN(q->rt_hi - q->rt_lo, (uint32_t)ARRAY_SIZE(buf));
		int r;

		for (uint32_t i = 0; i < n; i++) {
			buf[i] = __builtin_bswap64(q->rt[q->rt_lo + i]);
		}
		r = q2_pwrite(&q->file, q->h.rt_offset + q->rt_lo * UINT64_C(8), buf, n * 8);
		if (r < 0) {
			return r;
		}
		q->rt_lo += n;
	}
	q->rt_lo = UINT32_MAX;
	q->rt_hi = 0;
	return 0;
}

int q2_refcounts_out(struct q2 *q)
{
	int r = q2_rc_writeback(q);

	if (!r && q->rt_lo < q->rt_hi) {
		r = q2_pflush(&q->file);
		r = r ? r : rt_writeback(q);
	}
	return r;
}

int q2_commit(struct q2 *q, bool sync)
{
	bool links = q->l2.ndirty || q->l1_lo < q->l1_hi;
	int r;

	if (q->corrupt) {
		return links ? -EIO : 0;
	}
	r = q->lazy || !links ? 0 : q2_refcounts_out(q);
	if (!r && links) {
		r = q2_pflush(&q->data);
		r = r ? r : q2_pflush(&q->file);
		r = r ? r : l2_writeback(q);
		r = r ? r : l1_writeback(q);
	}
	if (!r && sync) {
		r = q->unsynced ? q2_pflush(&q->file) : 0;
		if (!r) {
			q->unsynced = false;
			q2_frees_durable(q);
			atomic_store(&q->meta_dirty, false);
			r = q2_frees_apply(q);
		}
	}
	return r;
}

int q2_flush(struct q2 *q)
{
	bool links = q->l2.ndirty || q->l1_lo < q->l1_hi, file = links || q->unsynced;
	int r;

	if (q->corrupt) {
		file = false;
	}
	r = q2_commit(q, true);
	/* what the guest wrote without a new link, where q2_commit() had no reason to flush */
	if (!r && !links) {
		r = q2_pflush(&q->data);
	}
	return r || file ? r : q2_pflush(&q->file);
}

int q2_first_write(struct q2 *q)
{
	int r;

	if (atomic_load(&q->write_ready)) {
		return q->nfree > MAX_WAITING ? q2_commit(q, true) : 0;
	}
	if (q->corrupt) {
		return -EIO;
	}
	if (q->read_only) {
		return -EROFS;
	}
	r = q2_bitmaps_use(q, false);
	if (!r && q->lazy && !(q->h.incompat & QCOW2_INCOMPAT_DIRTY)) {
		q->h.incompat |= QCOW2_INCOMPAT_DIRTY;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	if (!r) {
		atomic_store(&q->write_ready, true);
	}
	return r;
}

/* --- what is metadata --- */

static int meta_range(struct q2 *q, uint64_t off, uint64_t bytes, unsigned kind, bool shared)
{
	uint64_t first = off >> q->geo.cluster_bits;

	for (uint64_t i = 0; i < q2_clusters(&q->geo, bytes) && q->opt.overlap & kind; i++) {
		int r = q2_set_add(&q->meta, first + i, kind);

		if (r == -EEXIST && shared && q2_set_kind(&q->meta, first + i) == kind) {
			continue; /* copied before it is written to */
		}
		if (r == -EEXIST) {
			log_guest(q->name,
				  "qcow2 image is corrupt: the %s at 0x%llx overlaps the %s",
				  q2_kind_name(kind), (unsigned long long)off,
				  q2_kind_name(q2_set_kind(&q->meta, first + i)));
			q->bad_overlap = true;
		} else if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int meta_bitmap(void *opaque, uint64_t off, uint64_t len, const char *what)
{
	return meta_range(opaque, off, len, Q2_OL_BITMAPS, false);
}

int q2_meta_inactive(struct q2 *q, uint64_t l2)
{
	int r = 0;

	if (q->nsnap && q->opt.overlap & Q2_OL_INACTIVE_L2) {
		r = q2_set_add(&q->meta, l2 >> q->geo.cluster_bits, Q2_OL_INACTIVE_L2);
	}
	return r == -EEXIST ? 0 : r;
}

/* The tables of snapshots; many are the active ones, or another snapshot's. */
static int meta_inactive_l2(struct q2 *q, const struct q2_snap *s)
{
	uint64_t mask = q->geo.cluster_size - 1, *l1;
	int r = q2_snap_l1(q, s, &l1);

	if (r < 0) {
		return r;
	}
	for (uint32_t i = 0; i < s->l1_size && !r; i++) {
		uint64_t l2 = l1[i] & QCOW2_OFFSET;

		if (l2 && !(l2 & mask) &&
		    q2_set_kind(&q->meta, l2 >> q->geo.cluster_bits) != Q2_OL_L2) {
			r = meta_range(q, l2, 1, Q2_OL_INACTIVE_L2, true);
		}
	}
	free(l1);
	return r;
}

/* Blocks and tables, nearly all of it. */
static size_t meta_count(const struct q2 *q)
{
	size_t n = 0;

	for (uint32_t i = 0; i < q->rt_size && q->opt.overlap & Q2_OL_REFBLOCK; i++) {
		n += q->rt[i] != 0;
	}
	for (uint32_t i = 0; i < q->l1_size && q->opt.overlap & Q2_OL_L2; i++) {
		n += (atomic_load_explicit(&q->l1[i], memory_order_relaxed) & QCOW2_OFFSET) != 0;
	}
	return n;
}

int q2_meta_build(struct q2 *q)
{
	uint64_t mask = q->geo.cluster_size - 1;
	int r;

	q2_set_fini(&q->meta);
	r = q2_set_reserve(&q->meta, meta_count(q));
	r = r ? r : meta_range(q, 0, q->geo.cluster_size, Q2_OL_HEADER, false);
	r = r ? r : meta_range(q, q->h.l1_offset, q->h.l1_size * UINT64_C(8), Q2_OL_L1, false);
	r = r ? r
	      : meta_range(q, q->h.rt_offset, (uint64_t)q->rt_size * 8, Q2_OL_REFTABLE, false);
	r = r ? r : meta_range(q, q->h.snap_offset, q->snap_bytes, Q2_OL_SNAPTABLE, false);
	for (unsigned i = 0; i < q->nsnap && !r; i++) {
		r = meta_range(q, q->snap[i].l1_offset, q->snap[i].l1_size * UINT64_C(8),
			       Q2_OL_INACTIVE_L1, false);
	}
	for (uint32_t i = 0; i < q->rt_size && !r; i++) {
		if (q->rt[i] && !(q->rt[i] & mask)) {
			r = meta_range(q, q->rt[i], 1, Q2_OL_REFBLOCK, false);
		}
	}
	for (uint32_t i = 0; i < q->l1_size && !r; i++) {
		uint64_t e = atomic_load(&q->l1[i]), l2 = e & QCOW2_OFFSET;

		if (l2 && !(l2 & mask)) {
			r = meta_range(q, l2, 1, Q2_OL_L2, !(e & QCOW2_COPIED));
		}
	}
	for (unsigned i = 0; i < q->nsnap && !r && q->opt.overlap & Q2_OL_INACTIVE_L2; i++) {
		r = meta_inactive_l2(q, &q->snap[i]);
	}
	return r ? r : q2_bitmaps_each(q, meta_bitmap, q);
}

/* --- open --- */

void q2_options_default(struct q2_options *o)
{
	*o = (struct q2_options){
		.cache_clean_interval = 600,
		.overlap = Q2_OL_CACHED,
		.discard_snapshot = true,
		.lazy_refcounts = -1,
	};
}

static int tables_read(struct q2 *q)
{
	uint64_t l1 = q->h.l1_size * UINT64_C(8);
	uint64_t rt = (uint64_t)q->h.rt_clusters << q->geo.cluster_bits;
	struct q2_l1 *table = q2_l1_new(q->h.l1_size);
	int r;

	q->rt = malloc(rt);
	if (table) {
		q2_l1_publish(q, table);
	}
	if (!table || !q->rt) {
		return -ENOMEM;
	}
	q->rt_size = (uint32_t)(rt / 8);
	r = l1 ? q2_pread(&q->file, q->h.l1_offset, (void *)q->l1, l1) : 0;
	r = r ? r : q2_pread(&q->file, q->h.rt_offset, q->rt, rt);
	for (uint32_t i = 0; i < q->l1_size; i++) {
		uint64_t e = atomic_load_explicit(&q->l1[i], memory_order_relaxed);

		atomic_store_explicit(&q->l1[i], __builtin_bswap64(e), memory_order_relaxed);
	}
	for (uint32_t i = 0; i < q->rt_size; i++) {
		q->rt[i] = __builtin_bswap64(q->rt[i]);
		q->rt_reserved = q->rt[i] & ~QCOW2_REFTABLE_OFFSET ? i + 1 : q->rt_reserved;
		q->rt[i] &= QCOW2_REFTABLE_OFFSET;
	}
	q->l1_lo = q->rt_lo = UINT32_MAX;
	return r;
}

/* QEMU's meaning: cache-size is both together; without it an L2 cache for the whole disk, 32 MiB at
 * most, and a small one for refcounts. */
int q2_caches_new(const struct q2 *q, const struct q2_options *o, struct q2_cache *l2_out,
		  struct q2_cache *rc_out, struct err *err)
{
	uint64_t all = MAX(q2_clusters(&q->geo, q->h.size) << q->geo.entry_bits, 1), l2, rc;
	uint64_t rc_min = 256 * KiB;
	int r;

	l2 = MIN(all, o->l2_cache_size ? o->l2_cache_size : 32 * MiB);
	rc = o->refcount_cache_size ? o->refcount_cache_size : rc_min;
	if (o->cache_size) {
		if (o->l2_cache_size > o->cache_size ||
		    o->refcount_cache_size > o->cache_size) {
			return err_set(
				err, EINVAL,
				"qcow2 image '%s': l2-cache-size and refcount-cache-size may "
				"not exceed cache-size",
				q->name);
		}
		if (o->l2_cache_size && o->refcount_cache_size) {
			return err_set(err, EINVAL,
				       "qcow2 image '%s': cache-size, l2-cache-size and "
				       "refcount-cache-size may not be set all at once",
				       q->name);
		}
		if (o->refcount_cache_size) {
			l2 = MIN(all, o->cache_size - rc);
		} else if (o->l2_cache_size) {
			rc = o->cache_size - l2;
		} else {
			l2 = MIN(all, o->cache_size - MIN(o->cache_size / 2, rc_min));
			rc = o->cache_size - l2;
		}
	}
	r = q2_cache_init(l2_out, q->geo.slice_bits, MIN(l2, 16 * GiB));
	r = r ? r : q2_cache_init(rc_out, q->geo.slice_bits, MIN(rc, 16 * GiB));
	return r ? err_set(err, -r, "qcow2 image '%s': no memory for its caches", q->name) : 0;
}

static int open_repair(struct q2 *q, struct err *err)
{
	struct blk_check result = {0};
	int r = q2_check(q, &result, BLK_FIX_LEAKS | BLK_FIX_ERRORS, err);

	if (r < 0) {
		return r;
	}
	if (result.check_errors || result.corruptions) {
		return err_set(err, EIO,
			       "qcow2 image '%s' was not closed and cannot be repaired; see "
			       "nemu-img check",
			       q->name);
	}
	return 0;
}

int q2_open_write(struct q2 *q, bool repair, struct err *err)
{
	uint64_t clear = q->h.autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_KNOWN;
	int r = 0;

	if (!q->geo.data_file) {
		clear |= q->h.autoclear & QCOW2_AUTOCLEAR_RAW;
	}
	if (clear) {
		q->h.autoclear &= ~clear;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	if (r < 0) {
		return err_set(err, -r, "qcow2 image '%s': clearing autoclear features: %s",
			       q->name, strerror(-r));
	}
	q->lazy = q->opt.lazy_refcounts < 0 ? !!(q->h.compat & QCOW2_COMPAT_LAZY)
					    : q->opt.lazy_refcounts;
	if (q->lazy && q->h.version < 3) {
		return err_set(err, EINVAL,
			       "qcow2 image '%s': lazy-refcounts needs version 3 (compat=1.1)",
			       q->name);
	}
	if (!repair) {
		return 0;
	}
	if (q->bad_overlap) {
		return err_set(err, EIO,
			       "qcow2 image '%s' is corrupt: its tables overlap; open it "
			       "read-only, or "
			       "see nemu-img check",
			       q->name);
	}
	return q->h.incompat & QCOW2_INCOMPAT_DIRTY ? open_repair(q, err) : 0;
}

int q2_open(const struct q2_config *cfg, struct q2_header *h, struct q2 **out, struct err *err)
{
	struct q2 *q = calloc(1, sizeof(*q));
	int r;

	*out = NULL;
	if (!q) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", cfg->name);
	}
	q->h = *h;
	memset(h, 0, sizeof(*h));
	q2_geo_init(&q->geo, &q->h);
	q2_grace_init(&q->grace);
	q->name = strdup(cfg->name);
	q->opt = cfg->opt;
	q->read_only = cfg->read_only;
	q->file = (struct q2_file){cfg->file, cfg->file_size, cfg->file_grows};
	q->data = (struct q2_file){cfg->data, cfg->data_size, cfg->data_grows};
	q->backing = (struct q2_file){cfg->backing, cfg->backing_size, false};
	q->has_backing = cfg->backing != NULL;
	q->zero_from = align_up(cfg->file_size, q->geo.cluster_size);
	q->cluster_buf = malloc(q->geo.cluster_size);
	q->comp_buf = malloc(q->geo.cluster_size + 1024);
	q->free_hint = 1;
	r = q->name && q->cluster_buf && q->comp_buf ? tables_read(q) : -ENOMEM;
	if (r < 0) {
		err_set(err, -r, "qcow2 image '%s': reading its tables: %s", cfg->name,
			strerror(-r));
		goto free_q;
	}
	if (q->geo.data_file != (cfg->data != NULL)) {
		r = err_set(err, EINVAL,
			    q->geo.data_file
				    ? "qcow2 image '%s': its data file is not open"
				    : "qcow2 image '%s' has no external data file; leave "
				      "data-file away",
			    cfg->name);
		goto free_q;
	}
	r = q->h.compression ? q2_zstd_new(&q->zstd, cfg->name, err) : 0;
	if (r < 0) {
		goto free_q;
	}
	if ((q->h.incompat & QCOW2_INCOMPAT_CORRUPT) && !q->read_only && !cfg->no_repair) {
		r = err_set(err, EACCES,
			    "qcow2 image '%s' is marked corrupt; open it read-only, or repair "
			    "it with "
			    "nemu-img check -r all",
			    cfg->name);
		goto free_q;
	}
	r = q2_caches_new(q, &q->opt, &q->l2, &q->rc, err);
	r = r ? r : q2_snap_load(q, err);
	if (!r) {
		r = q2_bitmaps_load(q);
		r = r || q->read_only ? r : q2_meta_build(q);
		if (r < 0) {
			err_set(err, -r, "qcow2 image '%s': %s", cfg->name, strerror(-r));
		}
	}
	r = r || q->read_only ? r : q2_open_write(q, !cfg->no_repair, err);
	if (r < 0) {
		goto free_q;
	}
	*out = q;
	return 0;

free_q:
	q2_abandon(q);
	return r;
}

void q2_abandon(struct q2 *q)
{
	if (!q) {
		return;
	}
	q2_cache_fini(&q->l2);
	q2_cache_fini(&q->rc);
	q2_snap_fini(q);
	if (q->packer) {
		q->packer->free(q->packer);
	}
	q2_zstd_free(q->zstd);
	q2_set_fini(&q->meta);
	q2_header_fini(&q->h);
	q2_grace_fini(&q->grace);
	free(q->frees);
	for (struct q2_l1 *l1 = atomic_load(&q->l1_view), *old; l1; l1 = old) {
		old = l1->old;
		free(l1);
	}
	free(q->rt);
	free(q->cluster_buf);
	free(q->comp_buf);
	free((char *)(uintptr_t)q->name);
	free(q);
}

int q2_settle(struct q2 *q)
{
	int r, e;

	if (q->read_only || q->corrupt) {
		return 0;
	}
	q->lazy = false;
	r = q2_commit(q, true);
	e = r ? r : q2_refcounts_out(q);
	r = r ? r : e;
	if (!r) {
		r = q2_pflush(&q->data);
		e = q2_pflush(&q->file);
		r = r ? r : e;
	}
	if (!r && (q->h.incompat & QCOW2_INCOMPAT_DIRTY)) {
		q->h.incompat &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
		r = q2_header_update(q);
		r = r ? r : q2_pflush(&q->file);
	}
	return r;
}

int q2_close(struct q2 *q)
{
	int r = q2_settle(q);

	q2_abandon(q);
	return r;
}
