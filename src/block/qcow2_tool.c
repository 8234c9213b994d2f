/*
 * driver=qcow2: what tools and the control side ask of a node. The image's own thread does it, while
 * the control loop waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "block/qcow2_int.h"

struct call {
	struct blk_qcow2 *b;
	const char *a, *c;
	uint64_t off, size;
	const struct blk_packed *packed;
	unsigned u;
	struct blk_check *check;
	struct err *err;
	int r;
};

static int run(struct blk_node *n, struct call *k, void (*fn)(void *))
{
	k->b = q2_node_of(n);
	q2_node_call(k->b, fn, k);
	return k->r;
}

/* --- size --- */

static void resize_fn(void *arg)
{
	struct call *k = arg;
	struct q2 *q = k->b->q;

	if (q->geo.data_file) {
		q->data.size = MAX(q->data.size, k->off);
	}
	k->r = q2_resize(q, k->size, k->u, k->err);
	k->off = k->r ? 0 : q2_used_end(q);
}

static void end_fn(void *arg)
{
	struct call *k = arg;

	k->b->q->file.size = k->size;
	k->b->q->zero_from = align_up(k->size, k->b->q->geo.cluster_size);
}

int q2_node_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc p, struct err *err)
{
	struct blk_qcow2 *b = q2_node_of(n);
	struct call k = {.size = size, .u = p, .err = err};
	uint64_t old = blk_size(n);
	int r = 0;

	if (b->data_node && size > old && b->data_node->info.resizable) {
		/* metadata: the data file is sparse */
		r = blk_truncate(b->data_node, size,
				 p == BLK_PREALLOC_METADATA ? BLK_PREALLOC_OFF : p, err);
		k.off = size;
	}
	if (size < old) {
		blk_set_size(n, size);
	}
	r = r ? r : run(n, &k, resize_fn);
	if (r) {
		blk_set_size(n, old);
		return r;
	}
	blk_set_size(n, size);
	if (size > old) {
		return 0;
	}
	if (b->data_node && b->data_node->info.resizable) {
		r = blk_truncate(b->data_node, size, BLK_PREALLOC_OFF, err);
	}
	if (!r && n->file->info.resizable && k.off < blk_size(n->file)) {
		k.size = k.off;
		r = blk_truncate(n->file, k.off, BLK_PREALLOC_OFF, err);
		if (!r) {
			run(n, &k, end_fn);
		}
	}
	return r;
}

/* --- check, snapshots --- */

static void check_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_check(k->b->q, k->check, k->u, k->err);
}

int q2_node_check(struct blk_node *n, struct blk_check *out, unsigned fix, struct err *err)
{
	struct call k = {.check = out, .u = fix, .err = err};

	return run(n, &k, check_fn);
}

int q2_node_snapshot_list(struct blk_node *n, struct blk_snapshot **out, size_t *count,
			  struct err *err)
{
	struct q2 *q = q2_node_of(n)->q;
	struct blk_snapshot *s = calloc(MAX(q->nsnap, 1), sizeof(*s));

	if (!s) {
		return err_set(err, ENOMEM, "qcow2 image '%s': out of memory", q->name);
	}
	for (unsigned i = 0; i < q->nsnap; i++) {
		const struct q2_snap *from = &q->snap[i];

		s[i] = (struct blk_snapshot){
			.id = strdup(from->id),
			.name = strdup(from->name),
			.vm_state_size = from->vm_state_size,
			.disk_size = from->disk_size,
			.vm_clock_nsec = from->vm_clock_nsec,
			.icount = from->icount,
			.date_sec = from->date_sec,
			.date_nsec = from->date_nsec,
		};
	}
	*out = s;
	*count = q->nsnap;
	return 0;
}

static void create_fn(void *arg)
{
	struct call *k = arg;
	struct timespec now;
	struct q2_snap s = {.name = (char *)(uintptr_t)k->a};

	clock_gettime(CLOCK_REALTIME, &now);
	s.date_sec = (uint32_t)now.tv_sec;
	s.date_nsec = (uint32_t)now.tv_nsec;
	k->r = q2_snap_create(k->b->q, &s, k->err);
}

static void apply_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_snap_apply(k->b->q, k->a, k->err);
}

static void delete_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_snap_delete(k->b->q, k->a, k->err);
}

static void show_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_snap_show(k->b->q, k->a, k->err);
}

int q2_node_snapshot_create(struct blk_node *n, const char *name, struct err *err)
{
	struct call k = {.a = name, .err = err};

	return run(n, &k, create_fn);
}

static int resized(struct blk_node *n, int r)
{
	uint64_t size = q2_node_of(n)->q->h.size;

	if (!r && size != blk_size(n)) {
		blk_set_size(n, size);
		blk_tell_resized(n);
	}
	return r;
}

int q2_node_snapshot_apply(struct blk_node *n, const char *id_or_name, struct err *err)
{
	struct call k = {.a = id_or_name, .err = err};

	return resized(n, run(n, &k, apply_fn));
}

int q2_node_snapshot_delete(struct blk_node *n, const char *id_or_name, struct err *err)
{
	struct call k = {.a = id_or_name, .err = err};

	return run(n, &k, delete_fn);
}

int q2_node_snapshot_load(struct blk_node *n, const char *id_or_name, struct err *err)
{
	struct call k = {.a = id_or_name, .err = err};

	return resized(n, run(n, &k, show_fn));
}

/* --- what it is --- */

int q2_node_specific_info(struct blk_node *n, json_t **out, struct err *err)
{
	const struct q2 *q = q2_node_of(n)->q;
	const struct q2_header *h = &q->h;
	json_t *d = json_object(), *bitmaps;
	int r;

	json_object_set_new(d, "compat", json_string(h->version < 3 ? "0.10" : "1.1"));
	json_object_set_new(d, "compression-type",
			    json_string(h->compression ? "zstd" : "zlib"));
	if (h->version >= 3) {
		json_object_set_new(d, "lazy-refcounts",
				    json_boolean(h->compat & QCOW2_COMPAT_LAZY));
	}
	bitmaps = json_array();
	r = q2_bitmaps_json(q2_node_of(n)->q, bitmaps);
	if (json_array_size(bitmaps)) {
		json_object_set_new(d, "bitmaps", bitmaps);
	} else {
		json_decref(bitmaps);
	}
	json_object_set_new(d, "refcount-bits", json_integer(1 << h->refcount_order));
	if (q->geo.data_file) {
		json_object_set_new(d, "data-file", json_string(h->data_file));
		json_object_set_new(d, "data-file-raw",
				    json_boolean(h->autoclear & QCOW2_AUTOCLEAR_RAW));
	}
	if (h->version >= 3) {
		json_object_set_new(d, "corrupt", json_boolean(h->incompat & QCOW2_INCOMPAT_CORRUPT));
		json_object_set_new(d, "extended-l2", json_boolean(q->geo.extl2));
	}
	if (r < 0) {
		json_decref(d);
		return err_set(err, -r, "qcow2 image '%s': reading its bitmaps: %s", q->name,
			       strerror(-r));
	}
	*out = json_pack("{s:s, s:o}", "type", "qcow2", "data", d);
	return *out ? 0 : err_set(err, ENOMEM, "qcow2 image '%s': out of memory", q->name);
}

bool q2_node_dirty(struct blk_node *n)
{
	return q2_node_of(n)->q->h.incompat & QCOW2_INCOMPAT_DIRTY;
}

int q2_node_backing_name(struct blk_node *n, char **file, char **fmt, struct err *err)
{
	const struct q2_header *h = &q2_node_of(n)->q->h;

	(void)err;
	*file = *h->backing ? strdup(h->backing) : NULL;
	*fmt = *h->backing_fmt ? strdup(h->backing_fmt) : NULL;
	return 0;
}

static void backing_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_set_backing(k->b->q, k->a, k->c, k->err);
}

int q2_node_set_backing(struct blk_node *n, const char *file, const char *fmt, struct err *err)
{
	struct call k = {.a = file, .c = fmt, .err = err};

	return run(n, &k, backing_fn);
}

static void empty_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_empty(k->b->q);
}

int q2_node_make_empty(struct blk_node *n, struct err *err)
{
	struct call k = {.err = err};
	int r = run(n, &k, empty_fn);

	return r ? err_set(err, -r, "qcow2 image '%s' cannot be emptied: %s",
			   q2_node_of(n)->q->name, strerror(-r))
		 : 0;
}

/* --- compressed clusters, made by the caller's threads --- */

struct blk_packer *q2_node_packer(struct blk_node *n)
{
	return q2_packer_new(q2_node_of(n)->q->zstd);
}

static void packed_fn(void *arg)
{
	struct call *k = arg;

	k->r = q2_write_packed(k->b->q, k->packed, k->u);
}

int q2_node_write_compressed(struct blk_node *n, const struct blk_packed *p, unsigned count)
{
	const struct q2 *q = q2_node_of(n)->q;
	struct call k = {.packed = p, .u = count};
	bool ok = count <= BLK_PACKED_MAX && !q->geo.data_file;

	for (unsigned i = 0; i < count && ok; i++) {
		ok = !(p[i].off & (q->geo.cluster_size - 1)) && p[i].off < q->h.size &&
		     p[i].len && p[i].len < q->geo.cluster_size;
	}
	return ok ? run(n, &k, packed_fn) : -EINVAL;
}

/* --- new images --- */

static const char *const prealloc_names[] = {"off", "metadata", "falloc", "full", NULL};
static const char *const compression_names[] = {"zlib", "zstd", NULL};

#define ROW(k, t, f, d)                                                                        \
	{                                                                                      \
		.key = k, .type = t, .offset = offsetof(struct q2_create, f), .def = d         \
	}
static const struct opt_desc create_rows[] = {
	{"size", OPT_SIZE, offsetof(struct q2_create, size), .max = INT64_MAX},
	ROW("compat", OPT_STR, compat, NULL),
	ROW("backing_file", OPT_STR, backing_file, NULL),
	ROW("backing_fmt", OPT_STR, backing_fmt, NULL),
	ROW("data_file", OPT_STR, data_file, NULL),
	ROW("data_file_raw", OPT_BOOL, data_file_raw, "off"),
	ROW("cluster_size", OPT_SIZE, cluster_size, "65536"),
	ROW("lazy_refcounts", OPT_BOOL, lazy_refcounts, "off"),
	ROW("extended_l2", OPT_BOOL, extended_l2, "off"),
	ROW("refcount_bits", OPT_U64, refcount_bits, "16"),
	{"preallocation", OPT_ENUM, offsetof(struct q2_create, preallocation),
	 .names = prealloc_names, .def = "off"},
	{"compression_type", OPT_ENUM, offsetof(struct q2_create, compression_type),
	 .names = compression_names, .def = "zlib"},
	{.key = NULL},
};

static int create_read(struct opts *o, struct q2_create *c, struct err *err)
{
	static const char *const refused[] = {"encryption", "encrypt.format",
					      "encrypt.key-secret"};

	for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
		const char *v = opts_get(o, refused[i]);

		if (v && strcmp(v, "off")) {
			return err_set(err, ENOTSUP, "%s: encrypted images are not supported",
				       refused[i]);
		}
	}
	memset(c, 0, sizeof(*c));
	return opts_read(o, create_rows, c, err);
}

/* #syscalls(start): openat close */
static int file_make(const char *name, struct err *err)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);

	if (fd < 0) {
		return err_set(err, errno, "data_file '%s' cannot be made: %s", name,
			       strerror(errno));
	}
	close(fd);
	return 0;
}

/* The data file: made anew if it is not there, and as long as the disk. */
static int data_open(struct blk_graph *g, struct blk_node *file, const struct q2_create *c,
		     struct blk_node **out, struct blk_user **user, struct err *err)
{
	struct opts o = {.what = "data_file"};
	char *name = q2_name_beside(blk_filename(file), c->data_file);
	int r = name ? 0 : err_set(err, ENOMEM, "data_file: out of memory");

	if (!r && !blk_is_device(name)) {
		r = file_make(name, err);
	}
	r = r ? r : opts_add(&o, "driver", blk_is_device(name) ? "host_device" : "file", err);
	r = r ? r : opts_add(&o, "filename", name, err);
	r = r ? r : blk_open(g, &o, out, err);
	if (!r) {
		enum blk_prealloc p = (enum blk_prealloc)c->preallocation;

		r = blk_attach(*out, "data_file", BLK_PERM_WRITE | BLK_PERM_RESIZE,
			       BLK_PERM_CONSISTENT_READ, NULL, NULL, user, err);
		if (!r && (*out)->info.resizable) {
			r = blk_truncate(*out, c->size,
					 p == BLK_PREALLOC_METADATA ? BLK_PREALLOC_OFF : p,
					 err);
		}
	}
	opts_fini(&o);
	free(name);
	return r;
}

int q2_node_create(struct blk_graph *g, struct blk_node *file, struct opts *o, struct err *err)
{
	struct blk_node *data = NULL;
	struct blk_user *data_user = NULL;
	struct blk_io *io = NULL, *data_io = NULL;
	struct q2_create c;
	int r = create_read(o, &c, err);

	r = r ? r : q2_create_check(&c, err);
	if (!r && file->info.resizable) {
		r = blk_truncate(file, 0, BLK_PREALLOC_OFF, err);
	}
	r = r ? r : blk_io_open(file, &io, err);
	if (!r && c.data_file) {
		r = data_open(g, file, &c, &data, &data_user, err);
		r = r ? r : blk_io_open_beside(io, data, &data_io, err);
	}
	if (!r) {
		bool beyond = file->beyond, grow = file->grow;

		/* a format stands on it while it is made */
		file->beyond = true;
		file->grow = file->can_grow;
		r = q2_create(&c, io, file->can_grow, data_io, blk_filename(file), err);
		file->beyond = beyond;
		file->grow = grow;
	}
	blk_io_close(data_io);
	blk_io_close(io);
	blk_detach(data_user);
	blk_unref(data);
	opts_free_struct(create_rows, &c);
	return r;
}

#define MAX_LAYERS 200 /* as many as nodes can stand above each other */

struct content {
	struct blk_io *layer[MAX_LAYERS];
	uint64_t size[MAX_LAYERS];
	unsigned n;
};

/* n and what it stands on. */
static int content_open(struct content *c, struct blk_node *n, struct err *err)
{
	int r = 0;

	for (; n && c->n < MAX_LAYERS && !r; n = n->backing) {
		struct blk_io **io = &c->layer[c->n];

		r = c->n ? blk_io_open_beside(c->layer[0], n, io, err) : blk_io_open(n, io, err);
		if (!r) {
			c->size[c->n++] = blk_size(n);
		}
	}
	return r;
}

/* What the first layer has there that has anything; nothing at all is zeros. */
static int content_status(struct content *c, uint64_t off, uint64_t len, struct blk_extent *e)
{
	for (unsigned i = 0; i < c->n && off < c->size[i]; i++) {
		int r = blk_io_status(c->layer[i], off, MIN(len, c->size[i] - off), e);

		if (r || e->flags & (BLK_EXT_DATA | BLK_EXT_ZERO | BLK_EXT_ALLOCATED)) {
			return r;
		}
		len = e->len;
	}
	*e = (struct blk_extent){.len = len, .flags = BLK_EXT_ZERO};
	return 0;
}

static int content_count(struct blk_node *content, uint64_t cluster, uint64_t *data,
			 struct err *err)
{
	struct content *c = calloc(1, sizeof(*c));
	uint64_t size = blk_size(content), off = 0;
	int r = c ? content_open(c, content, err) : err_set(err, ENOMEM, "out of memory"), e = 0;

	while (off < size && !r && !e) {
		struct blk_extent ext;

		e = content_status(c, off, MIN(size - off, 1 * GiB), &ext);
		if (!e && !(ext.flags & BLK_EXT_ZERO)) {
			/* whole clusters, also at both ends */
			uint64_t from = align_down(off, cluster);
			uint64_t end = align_up(off + ext.len, cluster);

			*data += end - from;
			off = MIN(end, size);
		} else {
			off += ext.len;
		}
	}
	while (c && c->n) {
		blk_io_close(c->layer[--c->n]);
	}
	free(c);
	return !e ? r
		  : err_set(err, -e, "'%s': which parts of it hold data: %s",
			    blk_filename(content), strerror(-e));
}

int q2_node_measure(struct opts *o, struct blk_node *content, struct blk_measure *out,
		    struct err *err)
{
	struct q2_create c;
	uint64_t data = 0, all;
	int r = create_read(o, &c, err);

	if (!r && content && !c.size) {
		c.size = align_up(blk_size(content), 512);
	}
	r = r ? r : q2_create_check(&c, err);
	if (!r && content) {
		r = content_count(content, c.cluster_size, &data, err);
	}
	if (!r) {
		all = align_up(c.size, c.cluster_size);
		data = c.preallocation >= BLK_PREALLOC_FALLOC ? all : data;
		*out = (struct blk_measure){
			.required = q2_measure(&c, c.data_file ? 0 : MIN(data, all)),
			.fully_allocated = q2_measure(&c, c.data_file ? 0 : all),
			.has_bitmaps = c.compat == NULL || !strcmp(c.compat, "1.1") ||
				       !strcmp(c.compat, "v3"),
		};
	}
	opts_free_struct(create_rows, &c);
	return r;
}
