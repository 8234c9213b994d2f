/*
 * qcow2: new images. The smallest one there can be (header, refcount table, one refcount block, no disk)
 * is written, then opened and resized, so that there is one way in which tables are made.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

static unsigned version_of(const struct q2_create *c)
{
	return c->compat && (!strcmp(c->compat, "0.10") || !strcmp(c->compat, "v2")) ? 2 : 3;
}

static int extended_check(const struct q2_create *c, struct err *err)
{
	if (c->extended_l2 && c->cluster_size < 16 * KiB) {
		return err_set(err, EINVAL, "extended_l2=on needs cluster_size=16k or more");
	}
	if (c->backing_file && c->preallocation && !c->extended_l2) {
		return err_set(err, EINVAL,
			       "preallocation with a backing file needs extended_l2=on");
	}
	if (version_of(c) == 3) {
		return 0;
	}
	if (c->lazy_refcounts || c->extended_l2 || c->data_file || c->compression_type ||
	    c->refcount_bits != 16) {
		return err_set(err, EINVAL, "%s needs compat=1.1",
			       c->lazy_refcounts     ? "lazy_refcounts=on"
			       : c->extended_l2	     ? "extended_l2=on"
			       : c->data_file	     ? "data_file"
			       : c->compression_type ? "compression_type=zstd"
						     : "refcount_bits other than 16");
	}
	return 0;
}

int q2_create_check(const struct q2_create *c, struct err *err)
{
	if (c->compat && strcmp(c->compat, "0.10") && strcmp(c->compat, "v2") &&
	    strcmp(c->compat, "1.1") && strcmp(c->compat, "v3")) {
		return err_set(err, EINVAL, "compat=%s is neither 0.10 nor 1.1", c->compat);
	}
	if (!is_pow2(c->cluster_size) || c->cluster_size < 512 || c->cluster_size > 2 * MiB) {
		return err_set(err, EINVAL,
			       "cluster_size=%llu must be a power of two between 512 and 2M",
			       (unsigned long long)c->cluster_size);
	}
	if (!is_pow2(c->refcount_bits) || c->refcount_bits > 64) {
		return err_set(err, EINVAL,
			       "refcount_bits=%llu must be a power of two and at most 64",
			       (unsigned long long)c->refcount_bits);
	}
	if (c->size % 512) {
		return err_set(err, EINVAL, "size=%llu must be a multiple of 512",
			       (unsigned long long)c->size);
	}
	if (c->backing_file && strlen(c->backing_file) > QCOW2_MAX_BACKING) {
		return err_set(err, EINVAL, "backing_file is longer than %d bytes",
			       QCOW2_MAX_BACKING);
	}
	if (c->data_file_raw && !c->data_file) {
		return err_set(err, EINVAL, "data_file_raw=on needs data_file");
	}
	if (c->data_file_raw && c->backing_file) {
		return err_set(err, EINVAL, "data_file_raw=on excludes a backing file");
	}
	return extended_check(c, err);
}

static int header_make(const struct q2_create *c, struct q2_header *h, struct err *err)
{
	unsigned bits = (unsigned)__builtin_ctzll(c->cluster_size);

	*h = (struct q2_header){
		.version = version_of(c),
		.cluster_bits = bits,
		.refcount_order = (unsigned)__builtin_ctzll(c->refcount_bits),
		.rt_offset = c->cluster_size,
		.rt_clusters = 1,
		.compression = (unsigned)c->compression_type,
		.has_data_file = c->data_file != NULL,
	};
	h->header_length = h->version == 2 ? QCOW2_HEADER_V2 : QCOW2_HEADER_V3;
	h->incompat |= c->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0;
	h->incompat |= c->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0;
	h->incompat |= c->compression_type ? QCOW2_INCOMPAT_COMPRESSION : 0;
	h->compat |= c->lazy_refcounts ? QCOW2_COMPAT_LAZY : 0;
	h->autoclear |= c->data_file_raw ? QCOW2_AUTOCLEAR_RAW : 0;
	if (snprintf(h->backing_fmt, sizeof(h->backing_fmt), "%s",
		     c->backing_fmt ? c->backing_fmt : "") >= (int)sizeof(h->backing_fmt) ||
	    snprintf(h->data_file, sizeof(h->data_file), "%s",
		     c->data_file ? c->data_file : "") >= (int)sizeof(h->data_file)) {
		return err_set(err, EINVAL, "backing_fmt or data_file is too long");
	}
	snprintf(h->backing, sizeof(h->backing), "%s", c->backing_file ? c->backing_file : "");
	return 0;
}

static int smallest(const struct q2_create *c, const struct q2_header *h, struct q2_file *f)
{
	size_t size = c->cluster_size;
	uint8_t *buf = calloc(3, size);
	be64 entry = be64_of(2 * c->cluster_size);
	int r = buf ? q2_header_encode(h, buf, size) : -ENOMEM;

	if (!r) {
		memcpy(buf + size, &entry, sizeof(entry));
		for (unsigned i = 0; i < 3; i++) {
			q2_ref_write(buf + 2 * size, h->refcount_order, i, 1);
		}
		/* the header last */
		r = q2_pwrite(f, size, buf + size, 2 * size);
		r = r ? r : q2_pflush(f);
		r = r ? r : q2_pwrite(f, 0, buf, size);
		r = r ? r : q2_pflush(f);
	}
	free(buf);
	return r;
}

int q2_create(const struct q2_create *c, struct blk_io *file, bool file_grows,
	      struct blk_io *data, const char *name, struct err *err)
{
	struct q2_file f = {.io = file, .grows = true};
	struct q2_config cfg = {.name = name,
				.file = file,
				.data = data,
				.file_grows = file_grows,
				.data_grows = true,
				.data_size = c->size};
	struct q2_header h;
	struct q2 *q;
	int r = q2_create_check(c, err);

	r = r ? r : header_make(c, &h, err);
	if (r) {
		return r;
	}
	r = smallest(c, &h, &f);
	if (r < 0) {
		return err_set(err, -r, "qcow2 image '%s': %s", name,
			       r == -ENOSPC ? "no room; are the names too long for its header?"
					    : strerror(-r));
	}
	q2_options_default(&cfg.opt);
	/* what is behind the three clusters may be old content of a device */
	cfg.file_size = MAX(f.size, blk_size(blk_chan_node(blk_io_chan(file))));
	/* lazy refcounts are for the image's life, not for its making */
	cfg.opt.lazy_refcounts = 0;
	r = q2_open(&cfg, &h, &q, err);
	if (r) {
		return r;
	}
	q->has_backing = c->backing_file != NULL;
	r = q2_resize(q, c->size, (unsigned)c->preallocation, err);
	if (r) {
		q2_close(q);
		return r;
	}
	r = q2_close(q);
	return r ? err_set(err, -r, "qcow2 image '%s': %s", name, strerror(-r)) : 0;
}

/* --- measure --- */

static uint64_t up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

uint64_t q2_measure(const struct q2_create *c, uint64_t data)
{
	uint64_t cs = c->cluster_size, entry = c->extended_l2 ? 16 : 8;
	uint64_t disk = align_up(c->size, cs), l2 = up(disk / cs, cs / entry) * cs;
	uint64_t meta = cs + l2 + up(l2 / cs, cs / 8) * cs;
	uint64_t clusters = (meta + disk) / cs, per = cs * 8 / c->refcount_bits;
	uint64_t blocks = 0, table = 0, last;

	do {
		last = blocks + table;
		blocks = up(clusters + last, per);
		table = up(blocks, cs / 8);
	} while (blocks + table != last);
	return meta + (blocks + table) * cs + data;
}
