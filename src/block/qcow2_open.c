/*
 * driver=qcow2: options and children. What the image names (backing file, data file) is opened unless
 * the options name another one; backing= (empty) opens none.
 *
 * Untrusted: the names in the image. A backing file is opened read-only, and only with the format that
 * the image or the options say: the content of an image is never probed.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

struct options {
	uint64_t cache_size, l2_cache_size, refcount_cache_size, clean_interval;
	int lazy_refcounts, request, snapshot, other, no_repair;
	int overlap, template, kind[9];
};

static const char *const switch_names[] = {"off", "on", NULL};
static const char *const overlap_names[] = {"none", "constant", "cached", "all", NULL};

#define ROW(k, t, f)                                                                           \
	{                                                                                      \
		.key = k, .type = t, .offset = offsetof(struct options, f), .max = INT64_MAX   \
	}
#define SWITCH(k, f)                                                                           \
	{                                                                                      \
		.key = k, .type = OPT_ENUM, .offset = offsetof(struct options, f),             \
		.names = switch_names                                                          \
	}

static const struct opt_desc rows[] = {
	ROW("cache-size", OPT_SIZE, cache_size),
	ROW("l2-cache-size", OPT_SIZE, l2_cache_size),
	ROW("refcount-cache-size", OPT_SIZE, refcount_cache_size),
	ROW("cache-clean-interval", OPT_U64, clean_interval),
	SWITCH("lazy-refcounts", lazy_refcounts),
	SWITCH("pass-discard-request", request),
	SWITCH("pass-discard-snapshot", snapshot),
	SWITCH("pass-discard-other", other),
	SWITCH("x-no-repair", no_repair), /* nemu-img check: it opens what is broken */
	{"overlap-check", OPT_ENUM, offsetof(struct options, overlap), .names = overlap_names},
	{"overlap-check.template", OPT_ENUM, offsetof(struct options, template),
	 .names = overlap_names},
	SWITCH("overlap-check.main-header", kind[0]),
	SWITCH("overlap-check.active-l1", kind[1]),
	SWITCH("overlap-check.active-l2", kind[2]),
	SWITCH("overlap-check.refcount-table", kind[3]),
	SWITCH("overlap-check.refcount-block", kind[4]),
	SWITCH("overlap-check.snapshot-table", kind[5]),
	SWITCH("overlap-check.inactive-l1", kind[6]),
	SWITCH("overlap-check.inactive-l2", kind[7]),
	SWITCH("overlap-check.bitmap-directory", kind[8]),
	{.key = NULL},
};

static int options_read(struct blk_node *n, struct opts *o, struct q2_options *q,
			bool *no_repair, struct err *err)
{
	static const unsigned templates[] = {0, Q2_OL_CONSTANT, Q2_OL_CACHED, Q2_OL_ALL};
	struct options v = {.clean_interval = 600,
			    .lazy_refcounts = -1,
			    .request = -1,
			    .snapshot = -1,
			    .other = -1,
			    .overlap = -1,
			    .template = -1};
	int r;

	for (unsigned i = 0; i < ARRAY_SIZE(v.kind); i++) {
		v.kind[i] = -1;
	}
	r = opts_read(o, rows, &v, err);
	if (r) {
		return r;
	}
	if (v.overlap >= 0 && v.template >= 0 && v.overlap != v.template) {
		return err_set(
			err, EINVAL,
			"%s: overlap-check and overlap-check.template disagree; keep one",
			o->what);
	}
	if (v.clean_interval > UINT32_MAX) {
		return err_set(err, EINVAL, "%s: cache-clean-interval is too long", o->what);
	}
	q2_options_default(q);
	q->cache_size = v.cache_size;
	q->l2_cache_size = v.l2_cache_size;
	q->refcount_cache_size = v.refcount_cache_size;
	q->cache_clean_interval = v.clean_interval;
	q->lazy_refcounts = v.lazy_refcounts;
	q->discard_request = v.request < 0 ? n->opt.unmap : v.request;
	q->discard_snapshot = v.snapshot;
	q->discard_other = v.other == 1;
	v.overlap = v.overlap >= 0 ? v.overlap : v.template;
	if (v.overlap >= 0) {
		q->overlap = templates[v.overlap];
	}
	for (unsigned i = 0; i < ARRAY_SIZE(v.kind); i++) {
		if (v.kind[i] >= 0) {
			q->overlap = (q->overlap & ~(1u << i)) | (unsigned)v.kind[i] << i;
		}
	}
	*no_repair = v.no_repair;
	return 0;
}

/* --- children --- */

char *q2_name_beside(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	char *out = NULL;

	if (!strncmp(name, "file:", 5)) {
		name += 5;
	}
	if (*name == '/' || !slash || !strncmp(name, "json:", 5)) {
		return strdup(name);
	}
	return asprintf(&out, "%.*s/%s", (int)(slash - image), image, name) < 0 ? NULL : out;
}

static bool has(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			return true;
		}
	}
	return false;
}

static bool has_below(const struct opts *o, const char *role, const char *what)
{
	char key[64];

	snprintf(key, sizeof(key), "%s.%s", role, what);
	return has(o, key);
}

static int add_below(struct opts *o, const char *role, const char *what, const char *value,
		     struct err *err)
{
	char key[64];

	snprintf(key, sizeof(key), "%s.%s", role, what);
	return opts_add(o, key, value, err);
}

static int backing_opts(struct blk_node *n, struct opts *o, const struct q2_header *h,
			struct err *err)
{
	char *name;
	int r = 0;

	if (has(o, "backing") || has_below(o, "backing", "file") ||
	    has_below(o, "backing", "filename") || has_below(o, "backing", "file.filename") ||
	    !*h->backing) {
		return 0;
	}
	if (!has_below(o, "backing", "driver") && strncmp(h->backing, "json:", 5)) {
		if (!*h->backing_fmt) {
			return err_set(err, EINVAL,
				       "qcow2 image '%s' does not say which format its backing "
				       "file has; "
				       "add backing.driver=, or write it down with nemu-img "
				       "rebase -u -F",
				       blk_filename(n));
		}
		r = add_below(o, "backing", "driver", h->backing_fmt, err);
	}
	name = q2_name_beside(blk_filename(n), h->backing);
	if (!name) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", blk_filename(n));
	}
	r = r ? r : add_below(o, "backing", "filename", name, err);
	free(name);
	return r;
}

static int data_opts(struct blk_node *n, struct opts *o, const struct q2_header *h,
		     struct err *err)
{
	char *name;
	int r;

	if (!(h->incompat & QCOW2_INCOMPAT_DATA_FILE) || has(o, "data-file") ||
	    has_below(o, "data-file", "filename") || has_below(o, "data-file", "driver")) {
		return 0;
	}
	if (!*h->data_file) {
		return err_set(err, EINVAL,
			       "qcow2 image '%s' does not name its external data file; add "
			       "data-file.driver="
			       "file,data-file.filename=",
			       blk_filename(n));
	}
	name = q2_name_beside(blk_filename(n), h->data_file);
	if (!name) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", blk_filename(n));
	}
	r = add_below(o, "data-file", "driver", blk_is_device(name) ? "host_device" : "file",
		      err);
	r = r ? r : add_below(o, "data-file", "filename", name, err);
	free(name);
	return r;
}

static void info_fill(struct blk_node *n, const struct q2 *q)
{
	bool ro = n->opt.read_only || n->info.read_only;

	n->info = (struct blk_info){
		.size = q->h.size,
		.block_size = 512,
		.align = 1,
		.discard_granularity = (uint32_t)q->geo.cluster_size,
		.max_discard = 4 * GiB,
		.max_zeroes = 4 * GiB,
		.cluster_size = (uint32_t)q->geo.cluster_size,
		.read_only = ro,
		.can_discard = !ro,
		.can_zero = !ro,
		.write_cache = !ro,
		.resizable = !ro,
	};
}

static int open_engine(struct blk_qcow2 *b, struct q2_config *cfg, struct q2_header *h,
		       struct blk_node *data, struct err *err)
{
	struct blk_node *n = &b->node, *back = n->backing;
	int r = 0;

	b->data_node = data;
	if (data) {
		r = blk_io_open_beside(b->file, data, &b->data, err);
		cfg->data = b->data;
		cfg->data_size = blk_size(data);
		cfg->data_grows = data->grow;
	}
	if (back && !r) {
		r = blk_io_open_beside(b->file, back, &b->backing, err);
		cfg->backing = b->backing;
		cfg->backing_size = blk_size(back);
	}
	cfg->read_only = n->opt.read_only || n->file->info.read_only;
	cfg->file_grows = n->file->grow;
	r = r ? r : q2_open(cfg, h, &b->q, err);
	if (!r) {
		b->q->child_discard = n->file->info.can_discard;
		b->clean_ns = cfg->opt.cache_clean_interval * UINT64_C(1000000000);
		info_fill(n, b->q);
	}
	return r;
}

int q2_node_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_qcow2 *b = q2_node_of(n);
	struct q2_config cfg = {0};
	struct q2_header h = {0};
	struct blk_node *file, *back, *data;
	int r = blk_open_child(n, o, "file", true, &file, err);

	r = r ? r : blk_io_open(file, &b->file, err);
	if (r) {
		return r;
	}
	cfg.name = *blk_filename(n) ? blk_filename(n) : n->name;
	cfg.file = b->file;
	cfg.file_size = blk_size(file);
	r = q2_header_read(b->file, cfg.file_size, cfg.name, &h, err);
	r = r ? r : data_opts(n, o, &h, err);
	r = r ? r : backing_opts(n, o, &h, err);
	r = r ? r : blk_open_child(n, o, "data-file", false, &data, err);
	r = r ? r : blk_open_child(n, o, "backing", false, &back, err);
	r = r ? r : options_read(n, o, &cfg.opt, &cfg.no_repair, err);
	r = r ? r : open_engine(b, &cfg, &h, data, err);
	q2_header_fini(&h);
	return r;
}
