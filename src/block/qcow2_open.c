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

/* What o does not name stays in q. unmap: discard=unmap. */
static int options_read(bool unmap, struct opts *o, struct q2_options *q, bool *no_repair,
			struct err *err)
{
	static const unsigned templates[] = {0, Q2_OL_CONSTANT, Q2_OL_CACHED, Q2_OL_ALL};
	struct options v = {.cache_size = q->cache_size,
			    .l2_cache_size = q->l2_cache_size,
			    .refcount_cache_size = q->refcount_cache_size,
			    .clean_interval = q->cache_clean_interval,
			    .lazy_refcounts = q->lazy_refcounts,
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
	q->cache_size = v.cache_size;
	q->l2_cache_size = v.l2_cache_size;
	q->refcount_cache_size = v.refcount_cache_size;
	q->cache_clean_interval = v.clean_interval;
	q->lazy_refcounts = v.lazy_refcounts;
	q->request_set = q->request_set || v.request >= 0;
	if (v.request >= 0 || !q->request_set) {
		q->discard_request = v.request < 0 ? unmap : v.request;
	}
	q->discard_snapshot = v.snapshot < 0 ? q->discard_snapshot : v.snapshot;
	q->discard_other = v.other < 0 ? q->discard_other : v.other;
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
	q2_options_default(&cfg.opt);
	r = r ? r : options_read(n->opt.unmap, o, &cfg.opt, &cfg.no_repair, err);
	r = r ? r : open_engine(b, &cfg, &h, data, err);
	q2_header_fini(&h);
	return r;
}

/* --- other options --- */

struct change {
	struct blk_qcow2 *b;
	struct q2_options opt;
	bool read_only;
	bool resized; /* l2 and rc are new caches, afterwards the old ones */
	struct q2_cache l2, rc;
	struct err *err;
	int result;
};

static bool caches_change(const struct q2_options *a, const struct q2_options *b)
{
	return a->cache_size != b->cache_size || a->l2_cache_size != b->l2_cache_size ||
	       a->refcount_cache_size != b->refcount_cache_size;
}

static void caches_swap(struct q2 *q, struct change *c)
{
	struct q2_cache l2 = q->l2, rc = q->rc;

	q->l2 = c->l2;
	q->rc = c->rc;
	c->l2 = l2;
	c->rc = rc;
	q->rc_last = NULL; /* of the old one */
	q->clean_tick = 0;
}

/* On the worker. Everything is on disk first, as if the image were closed and opened again. */
static void change_fn(void *arg)
{
	struct change *c = arg;
	struct q2 *q = c->b->q;
	struct q2_options was = q->opt;
	bool was_read_only = q->read_only;
	int r = q2_settle(q);

	if (r) {
		c->result = err_set(c->err, -r, "qcow2 image '%s': writing its metadata: %s", q->name,
				    strerror(-r));
		(void)q2_open_write(q, false, NULL);
		return;
	}
	q->opt = c->opt;
	q->read_only = c->read_only;
	q->file.grows = c->b->node.file->grow;
	q->data.grows = c->b->data_node && c->b->data_node->grow;
	atomic_store(&q->write_ready, false); /* what a first write does is done again */
	if (!q->read_only) {
		r = q2_meta_build(q);
		r = r ? err_set(c->err, -r, "qcow2 image '%s': %s", q->name, strerror(-r))
		      : q2_open_write(q, was_read_only, c->err);
	}
	if (r) {
		q->opt = was;
		q->read_only = was_read_only;
		c->result = r;
		if (!was_read_only) {
			(void)q2_open_write(q, false, NULL);
		}
		return;
	}
	if (c->resized) {
		caches_swap(q, c);
	}
	q->child_discard = c->b->node.file->info.can_discard;
	c->b->clean_ns = q->opt.cache_clean_interval * UINT64_C(1000000000);
	loop_timer_disarm(&c->b->clean);
	if (c->b->clean_ns) {
		loop_timer_arm(&c->b->clean, loop_now_ns(c->b->worker) + c->b->clean_ns);
	}
}

static int files_reopen(struct blk_qcow2 *b, const struct blk_node_opt *to, const char *what,
			struct err *err)
{
	int r;

	blk_io_own(b->file); /* the worker has nothing to do */
	r = blk_reopen_below(&b->node, b->node.file, to, what, err);
	if (!r && b->data_node) {
		r = blk_reopen_below(&b->node, b->data_node, to, what, err);
	}
	return r;
}

static int change_check(struct blk_node *n, const struct blk_node_opt *to, struct change *c,
			struct err *err)
{
	const struct q2 *q = c->b->q;

	if (to->read_only && n->perm & BLK_PERM_WRITE) {
		return err_set(err, EBUSY, "qcow2 image '%s' has a user that writes to it", q->name);
	}
	if (to->force_share != n->opt.force_share) {
		/* somebody may have written to it, and what we know of it is old */
		return err_set(err, ENOTSUP, "qcow2 image '%s': force-share cannot change; close it "
			       "and open it again", q->name);
	}
	if (!to->read_only && (q->corrupt || q->shown)) {
		return err_set(err, EIO, "qcow2 image '%s' %s; it cannot be made writable", q->name,
			       q->corrupt ? "is corrupt (see nemu-img check)" : "shows a snapshot");
	}
	if (!to->read_only && c->opt.lazy_refcounts > 0 && q->h.version < 3) {
		return err_set(err, EINVAL, "qcow2 image '%s': lazy-refcounts needs version 3 "
			       "(compat=1.1)", q->name);
	}
	c->resized = caches_change(&c->opt, &q->opt);
	return c->resized ? q2_caches_new(q, &c->opt, &c->l2, &c->rc, err) : 0;
}

static void read_only_set(struct blk_node *n, bool read_only)
{
	struct blk_info *i = &n->info;

	i->read_only = read_only;
	i->can_discard = i->can_zero = i->write_cache = i->resizable = !read_only;
}

/* The node is drained by the caller, so that nobody looks at the caches. */
int q2_node_reopen(struct blk_node *n, const struct blk_node_opt *to, struct opts *o,
		   struct err *err)
{
	struct blk_qcow2 *b = q2_node_of(n);
	struct blk_node_opt was = n->opt;
	bool was_read_only = n->info.read_only, no_repair = false;
	struct change c = {.b = b, .opt = b->q->opt, .read_only = to->read_only, .err = err};
	int r = options_read(to->unmap, o, &c.opt, &no_repair, err);

	if (!r && no_repair) {
		r = err_set(err, EINVAL, "%s: x-no-repair cannot be changed", o->what);
	}
	r = r ? r : change_check(n, to, &c, err);
	if (r) {
		goto free_caches;
	}
	/* Files that are to be written become writable first, and read-only last. */
	if (!to->read_only || was_read_only) {
		r = files_reopen(b, to, o->what, err);
		n->opt = r ? was : *to;
		c.read_only = to->read_only || n->file->info.read_only;
		if (!r && was_read_only != c.read_only) {
			read_only_set(n, c.read_only);
			r = blk_perm_refresh(n, err);
		}
	}
	if (!r) {
		q2_node_call(b, change_fn, &c);
		r = c.result;
	}
	if (!r && to->read_only && !was_read_only) {
		read_only_set(n, true);
		(void)blk_perm_refresh(n, NULL); /* less is always granted */
		r = files_reopen(b, to, o->what, err);
	}
	if (r) {
		n->opt = *to;
		read_only_set(n, was_read_only);
		(void)blk_perm_refresh(n, NULL);
		(void)files_reopen(b, &was, o->what, NULL);
		n->opt = was;
	}
free_caches:
	q2_cache_fini(&c.l2);
	q2_cache_fini(&c.rc);
	return r;
}
