/*
 * Opening an image: what its name means, which format it has, what stands below it.
 *
 * A format that nobody names is found by the first bytes of the file, as qemu-img does; also for a
 * backing file whose image does not say. That is for people at a command line: a VM never does
 * it. An image in a format that we do not have is refused, not taken for raw.
 *
 * Backing files are opened from the top down with `backing=` to read their names, and then from
 * the bottom up with the nodes below them.
 *
 * Untrusted: names in images. They are opened only by commands that need their data.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "img.h"

#define PROBE_BYTES 2048

static const struct magic {
	const char *fmt;
	unsigned off, len;
	const char *bytes;
} magics[] = {
	{"qcow", 0, 8, "QFI\xfb\0\0\0\1"},
	{"qcow2", 0, 4, "QFI\xfb"},
	{"qed", 0, 4, "QED\0"},
	{"vmdk", 0, 4, "KDMV"},
	{"vmdk", 0, 4, "COWD"},
	{"vmdk", 0, 21, "# Disk DescriptorFile"},
	{"vdi", 64, 4, "\x7f\x10\xda\xbe"},
	{"vhdx", 0, 8, "vhdxfile"},
	{"vpc", 0, 8, "conectix"},
	{"parallels", 0, 16, "WithoutFreeSpace"},
	{"parallels", 0, 16, "WithouFreSpacExt"},
	{"luks", 0, 6, "LUKS\xba\xbe"},
	{"bochs", 0, 22, "Bochs Virtual HD Image"},
};

static const char *const formats[] = {"raw", "qcow2", "file", "host_device"};

int img_format_check(const char *fmt, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (!strcmp(formats[i], fmt)) {
			return 0;
		}
	}
	return err_set(err, ENOTSUP, "the image format '%s' is not supported; there are raw and qcow2",
		       fmt);
}

int img_probe(const char *path, const char **fmt, struct err *err)
{
	char buf[PROBE_BYTES];
	struct stat st;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	*fmt = "raw";
	if (fd < 0) {
		return err_set(err, errno, "'%s' cannot be opened: %s", path, strerror(errno));
	}
	if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
		close(fd);
		return err_set(err, EINVAL, "'%s' is neither a file nor a block device", path);
	}
	n = pread(fd, buf, sizeof(buf), 0);
	close(fd);
	if (n < 0) {
		return err_set(err, errno, "'%s' cannot be read: %s", path, strerror(errno));
	}
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		const struct magic *m = &magics[i];

		if ((size_t)n >= m->off + m->len && !memcmp(buf + m->off, m->bytes, m->len)) {
			*fmt = m->fmt;
			return 0;
		}
	}
	return 0;
}

int img_path(const char *filename, const char **path, struct err *err)
{
	size_t n = strcspn(filename, ":/");

	*path = filename;
	if (!*filename) {
		return err_set(err, EINVAL, "the name of an image is empty; give the path of a file");
	}
	if (filename[n] != ':') {
		return 0;
	}
	if (n == 4 && !strncmp(filename, "file", 4)) {
		*path = filename + 5;
		return 0;
	}
	return err_set(err, ENOTSUP,
		       "'%s': the protocol '%.*s' is not supported; give the path of a file or block "
		       "device (./%s if that is its name)",
		       filename, (int)n, filename, filename);
}

char *img_path_beside(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	char *path;

	if (name[0] == '/' || !slash || name[strcspn(name, ":/")] == ':') {
		return strdup(name);
	}
	return asprintf(&path, "%.*s/%s", (int)(slash - image), image, name) < 0 ? NULL : path;
}

int img_snapshot_param(const char *text, const char **out, struct err *err)
{
	static const char *const keys[] = {"snapshot.name=", "snapshot.id="};

	*out = text;
	for (size_t i = 0; text && i < ARRAY_SIZE(keys); i++) {
		size_t n = strlen(keys[i]);

		if (!strncmp(text, keys[i], n)) {
			*out = text + n;
			if (strstr(*out, ",snapshot.")) {
				return err_set(err, EINVAL,
					       "-l %s names a snapshot twice; give its name or its "
					       "number",
					       text);
			}
		}
	}
	return 0;
}

int img_cache_check(const char *cache, const char *what, struct err *err)
{
	static const char *const modes[] = {"writeback",  "none", "writethrough",
					    "directsync", "off",  "unsafe"};

	for (size_t i = 0; cache && i < ARRAY_SIZE(modes); i++) {
		if (!strcmp(modes[i], cache)) {
			return 0;
		}
	}
	return !cache ? 0
		      : err_set(err, EINVAL,
				"%s %s is no cache mode; give none, writeback, unsafe, "
				"directsync or writethrough",
				what, cache);
}

static bool cache_is(const struct img_how *how, const char *a, const char *b)
{
	return how->cache && (!strcmp(how->cache, a) || !strcmp(how->cache, b));
}

static bool has(const struct opts *o, const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < o->count; i++) {
		if (!strncmp(o->opt[i].key, key, len) &&
		    (o->opt[i].key[len] == '\0' || o->opt[i].key[len] == '.')) {
			return true;
		}
	}
	return false;
}

static const char *peek(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			return o->opt[i].value;
		}
	}
	return NULL;
}

static int set(struct opts *o, const char *key, const char *value, struct err *err)
{
	return has(o, key) ? 0 : opts_add(o, key, value, err);
}

/* How the file is used, as pairs. */
static int add_how(struct opts *o, const struct img_how *how, bool write, struct err *err)
{
	int r = set(o, "read-only", write ? "off" : "on", err);

	if (!r && how->force_share) {
		r = set(o, "force-share", "on", err);
	}
	if (!r && (cache_is(how, "none", "directsync") || cache_is(how, "off", "off"))) {
		r = set(o, "cache.direct", "on", err);
	}
	if (!r && cache_is(how, "unsafe", "unsafe")) {
		r = set(o, "cache.no-flush", "on", err);
	}
	if (!r && how->no_repair && peek(o, "driver") && !strcmp(peek(o, "driver"), "qcow2")) {
		r = set(o, "x-no-repair", "on", err);
	}
	if (!r && how->unmap && write) {
		r = set(o, "discard", "unmap", err);
	}
	if (!r && how->aio && write == how->write) {
		r = set(o, "aio", how->aio, err);
	}
	return r;
}

/* The pairs that a name, its format (NULL: look) and how stand for. */
static int pairs(struct opts *o, const char *filename, const char *fmt, const struct img_how *how,
		 bool write, bool *probed, struct err *err)
{
	const char *path;
	int r;

	if (!strncmp(filename, "json:", 5)) {
		r = blk_json_opts(o, filename, err);
	} else {
		r = img_path(filename, &path, err);
		if (!r && !fmt) {
			r = img_probe(path, &fmt, err);
			*probed = true;
		}
		if (!r) {
			r = img_format_check(fmt, err);
		}
		if (!r && !opts_add(o, "driver", fmt, err)) {
			r = opts_add(o, "filename", path, err);
		}
	}
	return r ? r : add_how(o, how, write, err);
}

static int pairs_image_opts(struct opts *o, const char *text, const struct img_how *how,
			    struct err *err)
{
	const char *path, *fmt;
	int r = opts_parse(o, o->what, text, NULL, err);

	if (r) {
		return r;
	}
	if (!has(o, "driver") && !has(o, "file")) {
		return err_set(err, EINVAL,
			       "'%s' names neither driver= nor file.filename=; add "
			       "driver=raw or driver=qcow2",
			       text);
	}
	path = peek(o, "file.filename");
	if (!has(o, "driver") && path && strncmp(path, "json:", 5)) {
		r = img_probe(path, &fmt, err);
		if (!r) {
			r = img_format_check(fmt, err);
		}
		if (!r) {
			r = opts_add(o, "driver", fmt, err);
		}
	}
	return r ? r : add_how(o, how, how->write, err);
}

static int opts_copy(const struct opts *from, struct opts *to, const char *key, const char *value,
		     struct err *err)
{
	int r = 0;

	*to = (struct opts){.what = from->what};
	for (size_t i = 0; i < from->count && !r; i++) {
		if (strcmp(from->opt[i].key, key)) {
			r = opts_add(to, from->opt[i].key, from->opt[i].value, err);
		}
	}
	return r ? r : opts_add(to, key, value, err);
}

static int open_with(struct blk_graph *g, const struct opts *o, const char *key, const char *value,
		     struct blk_node **out, struct err *err)
{
	struct opts copy;
	int r = opts_copy(o, &copy, key, value, err);

	if (!r) {
		r = blk_open(g, &copy, out, err);
	}
	opts_fini(&copy);
	return r;
}

/* The same without its backing file, and only to look at its header. */
static int open_peek(struct blk_graph *g, const struct opts *o, struct blk_node **out,
		     struct err *err)
{
	struct opts ro;
	int r = opts_copy(o, &ro, "read-only", "on", err);

	if (!r) {
		r = open_with(g, &ro, "backing", "", out, err);
	}
	opts_fini(&ro);
	return r;
}

static int open_layers(struct blk_graph *g, const struct opts *o, const struct img_how *how,
		       const char *name, unsigned depth, struct blk_node **out, struct err *err);

static int open_backing(struct blk_graph *g, const struct img_how *how, const char *image,
			const char *file, const char *fmt, unsigned depth, struct blk_node **out,
			struct err *err)
{
	struct img_how below = {.cache = how->cache, .force_share = how->force_share};
	struct opts o = {.what = "the backing file"};
	char *path = img_path_beside(image, file), node_name[32];
	bool probed = false;
	int r;

	if (!path) {
		return err_set(err, ENOMEM, "out of memory");
	}
	snprintf(node_name, sizeof(node_name), "layer%u", depth);
	r = pairs(&o, path, fmt, &below, false, &probed, err);
	if (!r) {
		r = set(&o, "node-name", node_name, err);
	}
	if (!r) {
		r = open_layers(g, &o, &below, path, depth, out, err);
	}
	if (r && depth == 1) { /* how it began is enough */
		err_prefix(err, "the backing file '%s' of '%s'", file, image);
	}
	opts_fini(&o);
	free(path);
	return r;
}

static int open_layers(struct blk_graph *g, const struct opts *o, const struct img_how *how,
		       const char *name, unsigned depth, struct blk_node **out, struct err *err)
{
	const char *driver = peek(o, "driver");
	struct blk_node *n = NULL, *below = NULL;
	char *file = NULL, *fmt = NULL;
	int r;

	if (!driver || strcmp(driver, "qcow2") || has(o, "backing")) {
		struct opts copy;

		r = opts_copy(o, &copy, "driver", driver ? driver : "raw", err);
		r = r ? r : blk_open(g, &copy, out, err);
		opts_fini(&copy);
		return r;
	}
	if (depth > IMG_LAYERS) {
		return err_set(err, ELOOP, "more than %d backing files; is there a loop?",
			       IMG_LAYERS);
	}
	if (how->no_backing) {
		return open_with(g, o, "backing", "", out, err);
	}
	r = open_peek(g, o, &n, err);
	if (!r) {
		r = blk_image_backing(n, &file, &fmt, err);
	}
	if (r || (!file && !how->write)) {
		*out = n;
		if (r) {
			blk_unref(n);
		}
		return r;
	}
	blk_unref(n);
	if (!file) {
		return open_with(g, o, "backing", "", out, err);
	}
	r = open_backing(g, how, name, file, fmt, depth + 1, &below, err);
	if (!r) {
		r = open_with(g, o, "backing", blk_name(below), out, err);
		blk_unref(below);
	}
	free(file);
	free(fmt);
	return r;
}

static void warn_raw(const char *filename)
{
	img_warn("'%s' has no known format, so it is taken for raw; say -f raw if that is right",
		 filename);
}

static int attach(struct img *i, const struct img_how *how, struct blk_io *beside, struct err *err)
{
	unsigned perm = BLK_PERM_CONSISTENT_READ;
	unsigned shared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
	struct blk_info info;
	int r;

	if (how->write) {
		perm |= BLK_PERM_WRITE;
	}
	if (how->resize) {
		perm |= BLK_PERM_RESIZE;
	}
	if (how->force_share) {
		shared = BLK_PERM_ALL;
	}
	r = blk_attach(i->node, "nemu-img", perm, shared, NULL, NULL, &i->user, err);
	if (r) {
		return r;
	}
	if (how->snapshot) {
		r = blk_image_snapshot_load(i->node, how->snapshot, err);
	}
	if (!r) {
		r = beside ? blk_io_open_beside(beside, i->node, &i->io, err)
			   : blk_io_open(i->node, &i->io, err);
	}
	if (r) {
		return r;
	}
	if (cache_is(how, "writethrough", "directsync")) {
		blk_chan_write_cache(blk_io_chan(i->io), false);
	}
	blk_info(i->node, &info);
	i->size = info.size;
	return 0;
}

int img_open(const char *filename, const struct img_how *how, struct blk_io *beside,
	     struct img *out, struct err *err)
{
	struct opts o = {.what = "image"};
	const char *name = strncmp(filename, "file:", 5) ? filename : filename + 5;
	bool probed = false;
	int r;

	*out = (struct img){.filename = NULL};
	if (how->force_share && how->write) {
		return err_set(err, EINVAL,
			       "'%s' is opened for writing, which -U does not go with; leave -U "
			       "away",
			       filename);
	}
	r = blk_graph_new(&out->graph);
	if (r) {
		return err_set(err, ENOMEM, "out of memory");
	}
	r = how->image_opts ? pairs_image_opts(&o, filename, how, err)
			    : pairs(&o, filename, how->fmt, how, how->write, &probed, err);
	if (!r) {
		const char *path = peek(&o, "file.filename");

		name = how->image_opts && path ? path : name;
		out->filename = strdup(name);
		out->probed_raw = probed && !strcmp(peek(&o, "driver"), "raw");
		r = out->filename ? open_layers(out->graph, &o, how, name, 0, &out->node, err)
				  : err_set(err, ENOMEM, "out of memory");
	}
	opts_fini(&o);
	if (!r && !how->no_user) {
		r = attach(out, how, beside, err);
	}
	if (r) {
		img_close(out);
		return r;
	}
	if (out->probed_raw && how->write && !how->quiet) {
		warn_raw(filename);
	}
	return 0;
}

void img_close(struct img *i)
{
	blk_io_close(i->io);
	blk_detach(i->user);
	blk_unref(i->node);
	blk_graph_free(i->graph);
	free(i->filename);
	*i = (struct img){.filename = NULL};
}

const char *img_format(const struct img *i)
{
	return blk_driver_name(i->node);
}

/* --- layers --- */

int img_chain_open(struct img *i, struct img_chain *c, struct err *err)
{
	struct blk_node *n = blk_child(i->node, "backing");
	int r;

	c->layer[0] = (struct img_layer){i->node, i->io, i->size};
	c->count = 1;
	for (; n; n = blk_child(n, "backing")) {
		struct img_layer *l = &c->layer[c->count];

		if (c->count == IMG_LAYERS) {
			r = err_set(err, ELOOP, "'%s' has more than %d backing files", i->filename,
				    IMG_LAYERS - 1);
			goto close_chain;
		}
		r = blk_io_open_beside(i->io, n, &l->io, err);
		if (r) {
			goto close_chain;
		}
		l->node = n;
		l->size = blk_size(n);
		c->count++;
	}
	return 0;

close_chain:
	img_chain_close(c);
	return r;
}

void img_chain_close(struct img_chain *c)
{
	while (c->count > 1) {
		blk_io_close(c->layer[--c->count].io);
	}
	c->count = 0;
}

int img_chain_status(struct img_chain *c, unsigned from, unsigned to, uint64_t off, uint64_t len,
		     struct blk_extent *e, unsigned *depth)
{
	for (unsigned i = from; i < to; i++) {
		struct img_layer *l = &c->layer[i];
		int r;

		*depth = i;
		if (off >= l->size) {
			/* the layer above defers to one that ends before */
			*depth = i - 1;
			*e = (struct blk_extent){.len = len, .flags = BLK_EXT_ZERO};
			return 0;
		}
		r = blk_io_status(l->io, off, MIN(len, l->size - off), e);
		if (r) {
			return r;
		}
		len = e->len;
		if (e->flags & (BLK_EXT_ALLOCATED | BLK_EXT_DATA)) {
			return 0;
		}
		if (i + 1 == c->count) { /* nothing below: zeros */
			e->flags |= BLK_EXT_ZERO;
			return 0;
		}
	}
	e->len = len;
	e->flags = 0;
	return 0;
}
