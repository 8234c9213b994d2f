/*
 * qcow2: dirty bitmaps of other programs. Specification: "Bitmaps".
 *
 * They are neither read nor written here, but kept: their clusters count as used, and before the
 * first write each bitmap that would have to follow it (flag auto) is marked as in use, which says that
 * its content is not to be trusted. A change of the disk's size concerns all of them.
 * A directory that is malformed is given up: its autoclear bit is cleared before anything is written.
 *
 * Untrusted: the directory and the tables; sizes are bounded by the header's checks and here.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define MAX_TABLE (UINT64_C(32) << 20) /* bytes */

struct dir {
	uint8_t *buf;
	uint64_t len, pos;
	struct qcow2_bitmap_entry e; /* the current one, which begins at `at` */
	uint64_t at;
};

static bool there(const struct q2 *q)
{
	return q->h.has_bitmaps && (q->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS);
}

static int dir_read(struct q2 *q, struct dir *d)
{
	*d = (struct dir){.len = q->h.bitmap_dir_size};
	if (d->len > q->file.size) {
		return -EINVAL;
	}
	d->buf = malloc(MAX(d->len, 1));
	return d->buf ? q2_pread(&q->file, q->h.bitmap_dir_offset, d->buf, d->len) : -ENOMEM;
}

/* 1: an entry; 0: the end; -EINVAL. */
static int dir_next(const struct q2 *q, struct dir *d)
{
	uint64_t size, off, bytes;

	if (d->pos == d->len) {
		return 0;
	}
	if (d->len - d->pos < sizeof(d->e)) {
		return -EINVAL;
	}
	memcpy(&d->e, d->buf + d->pos, sizeof(d->e));
	size = align_up(sizeof(d->e) + be16_get(d->e.name_size) +
				(uint64_t)be32_get(d->e.extra_data_size),
			8);
	off = be64_get(d->e.table_offset);
	bytes = be32_get(d->e.table_size) * UINT64_C(8);
	if (size > d->len - d->pos || !be16_get(d->e.name_size) ||
	    be32_get(d->e.flags) & QCOW2_BITMAP_RESERVED || d->e.granularity_bits > 63 ||
	    off & (q->geo.cluster_size - 1) || bytes > MAX_TABLE || off > INT64_MAX - bytes ||
	    (bytes && (!off || off >= q->file.size))) {
		return -EINVAL;
	}
	d->at = d->pos;
	d->pos += size;
	return 1;
}

int q2_bitmaps_load(struct q2 *q)
{
	struct dir d;
	uint32_t n = 0;
	int r;

	if (!there(q)) {
		if (!q->h.has_bitmaps) {
			q->h.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
		}
		return 0;
	}
	r = dir_read(q, &d);
	while (!r) {
		r = dir_next(q, &d);
		if (r <= 0) {
			break;
		}
		n++;
		r = 0;
	}
	free(d.buf);
	if (!r && n == q->h.nbitmaps) {
		return 0;
	}
	if (r == -EINVAL || !r) {
		log_guest(q->name,
			  "qcow2: its directory of bitmaps is malformed; they are given up");
		q->h.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
		r = q->read_only ? 0 : q2_header_update(q);
	}
	return r;
}

int q2_bitmaps_use(struct q2 *q, bool all)
{
	struct dir d;
	bool changed = false;
	int r;

	if (!there(q)) {
		return 0;
	}
	r = dir_read(q, &d);
	while (!r) {
		uint32_t flags;
		be32 out;

		r = dir_next(q, &d);
		if (r <= 0) {
			break;
		}
		r = 0;
		flags = be32_get(d.e.flags);
		if (flags & QCOW2_BITMAP_IN_USE || (!all && !(flags & QCOW2_BITMAP_AUTO))) {
			continue;
		}
		out = be32_of(flags | QCOW2_BITMAP_IN_USE);
		r = q2_pwrite(&q->file,
			      q->h.bitmap_dir_offset + d.at +
				      offsetof(struct qcow2_bitmap_entry, flags),
			      &out, sizeof(out));
		changed = true;
	}
	free(d.buf);
	return r || !changed ? r : q2_pflush(&q->file);
}

static int table_each(struct q2 *q, const struct dir *d, q2_range_fn *fn, void *opaque)
{
	uint64_t off = be64_get(d->e.table_offset), n = be32_get(d->e.table_size);
	be64 buf[512];
	int r = n ? fn(opaque, off, n * 8, "bitmap table") : 0;

	for (uint64_t i = 0; i < n && !r; i += ARRAY_SIZE(buf)) {
		uint64_t m = MIN(n - i, ARRAY_SIZE(buf));

		r = q2_pread(&q->file, off + i * 8, buf, m * 8);
		for (uint64_t j = 0; j < m && !r; j++) {
			uint64_t host = be64_get(buf[j]) & QCOW2_OFFSET;

			r = host ? fn(opaque, host, q->geo.cluster_size, "bitmap data") : 0;
		}
	}
	return r;
}

int q2_bitmaps_each(struct q2 *q, q2_range_fn *fn, void *opaque)
{
	struct dir d;
	int r;

	if (!there(q)) {
		return 0;
	}
	r = dir_read(q, &d);
	r = r ? r : fn(opaque, q->h.bitmap_dir_offset, d.len, "bitmap directory");
	while (!r) {
		r = dir_next(q, &d);
		if (r <= 0) {
			break;
		}
		r = table_each(q, &d, fn, opaque);
	}
	free(d.buf);
	return r;
}

int q2_bitmaps_json(struct q2 *q, json_t *array)
{
	struct dir d;
	int r;

	if (!there(q)) {
		return 0;
	}
	r = dir_read(q, &d);
	while (!r) {
		uint32_t flags;
		json_t *f;

		r = dir_next(q, &d);
		if (r <= 0) {
			break;
		}
		r = 0;
		flags = be32_get(d.e.flags);
		f = json_array();
		if (flags & QCOW2_BITMAP_IN_USE) {
			json_array_append_new(f, json_string("in-use"));
		}
		if (flags & QCOW2_BITMAP_AUTO) {
			json_array_append_new(f, json_string("auto"));
		}
		json_array_append_new(
			array,
			json_pack("{s:o, s:s%, s:I}", "flags", f, "name",
				  d.buf + d.at + sizeof(d.e) + be32_get(d.e.extra_data_size),
				  (int)be16_get(d.e.name_size), "granularity",
				  (json_int_t)(UINT64_C(1) << d.e.granularity_bits)));
	}
	free(d.buf);
	return r;
}
