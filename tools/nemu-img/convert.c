/*
 * convert: one image, or several one after another, as a new one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"

#define MAX_SPARSE (16 * MiB)

const struct img_opt convert_opts[] = {
	{'f', NULL, "FMT", "format of the sources; otherwise it is found out"},
	{'O', NULL, "FMT", "format of the new image: raw (default) or qcow2"},
	{'o', NULL, "OPTIONS", "options of that format: name=value[,...], or help"},
	{'B', NULL, "FILE", "backing file of the new image; it has what that of the source has"},
	{'F', NULL, "FMT", "format of that backing file"},
	{'c', NULL, NULL, "compress"},
	{'C', NULL, NULL, "let the kernel copy, if it can; zeros are not looked for"},
	{'l', NULL, "SNAPSHOT", "that snapshot: snapshot.name=NAME, snapshot.id=ID, or either alone"},
	{'m', NULL, "N", "so many requests at once: 1 to 16 (8)"},
	{'n', NULL, NULL, "the target is there already: write into it"},
	{'p', NULL, NULL, "show progress"},
	{'q', NULL, NULL, "print nothing but errors"},
	{'r', NULL, "RATE", "at most so many bytes per second"},
	{'S', NULL, "SIZE", "leave out that many zeros or more (4k); 0: write all of them"},
	{'t', NULL, "CACHE", "cache mode of the target: unsafe (default), writeback, none, ..."},
	{'T', NULL, "CACHE", "cache mode of the sources"},
	{'W', NULL, NULL, "write in any order"},
	{ARG_SALVAGE, "salvage", NULL, "take zeros for what cannot be read"},
	{ARG_TARGET_IS_ZERO, "target-is-zero", NULL, "with -n: the target reads as zeros"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "source names are lists of options: driver=...,file.filename=..."},
	{ARG_TARGET_IMAGE_OPTS, "target-image-opts", NULL, "with -n: so is the target's"},
	{'U', "force-share", NULL, "the sources may be in use by processes that write them"},
	{.code = 0},
};

struct convert {
	struct img_args *a;
	struct copy copy;
	struct img_create create;
	struct img_target target;
	struct img out;
	const char *name;      /* of the target */
	const char *backing;   /* -B */
	const char *out_cache;
	bool existing, have_create;
};

static int bad(const char *text, struct err *err)
{
	return err_set(err, EINVAL, "%s", text);
}

/* What does not go together. */
static int check_args(struct convert *v, struct err *err)
{
	struct img_args *a = v->a;
	bool n = img_given(a, 'n');

	if (img_given(a, ARG_TARGET_IMAGE_OPTS) && !n) {
		return bad("--target-image-opts describes a target that is there; add -n", err);
	}
	if (img_given(a, ARG_TARGET_IMAGE_OPTS) && img_given(a, 'O')) {
		return bad("--target-image-opts names the target's format; leave -O away", err);
	}
	if (img_given(a, ARG_IMAGE_OPTS) && img_given(a, 'f')) {
		return bad("--image-opts names the sources' format; leave -f away", err);
	}
	if (img_given(a, ARG_TARGET_IS_ZERO) && !n) {
		return bad("--target-is-zero is about a target that is there; add -n", err);
	}
	if (img_given(a, ARG_TARGET_IS_ZERO) && v->backing) {
		return bad("--target-is-zero cannot be true with a backing file (-B)", err);
	}
	if (img_given(a, 'C') && img_given(a, 'S')) {
		return bad("-C does not look at the data and so finds no zeros; leave -S away", err);
	}
	if (img_given(a, 'C') && img_given(a, 'c')) {
		return bad("-C does not look at the data and so compresses nothing; keep -C or -c",
			   err);
	}
	if (v->backing && a->count > 2) {
		return bad("with a backing file (-B) there can be one source only", err);
	}
	if (n && img_given(a, 'o')) {
		img_warn("-o makes no difference, as the target is not made (-n)");
	}
	return 0;
}

static int read_args(struct convert *v, struct err *err)
{
	struct img_args *a = v->a;
	uint64_t depth;
	int r;

	v->backing = img_arg(a, 'B');
	v->existing = img_given(a, 'n');
	v->out_cache = img_given(a, 't') ? img_arg(a, 't') : "unsafe";
	v->copy.any_order = img_given(a, 'W') && !img_given(a, 'c');
	v->copy.compress = img_given(a, 'c');
	v->copy.offload = img_given(a, 'C');
	v->copy.salvage = img_given(a, ARG_SALVAGE);
	v->copy.quiet = img_given(a, 'q');
	r = check_args(v, err);
	r = r ? r : img_cache_check(v->out_cache, "-t", err);
	r = r ? r : img_cache_check(img_arg(a, 'T'), "-T", err);
	if (r) {
		return r;
	}
	*err = (struct err){.msg = ""};
	if (img_arg_size(a, 'm', 1, 16, 8, &depth) ||
	    img_arg_size(a, 'S', 0, MAX_SPARSE, 4096, &v->copy.sparse) ||
	    img_arg_size(a, 'r', 1, INT64_MAX, 0, &v->copy.rate)) {
		return -EINVAL;
	}
	if (v->copy.sparse % 512) {
		return bad("-S has to be a multiple of 512", err);
	}
	v->copy.depth = (unsigned)depth;
	return 0;
}

/* --- sources --- */

static int open_source(struct convert *v, unsigned n, struct blk_io *beside, struct err *err)
{
	struct img_args *a = v->a;
	struct copy_source *s = &v->copy.source[n];
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.cache = img_arg(a, 'T'),
		.force_share = img_given(a, 'U'),
	};
	int r = img_snapshot_param(img_arg(a, 'l'), &how.snapshot, err);

	r = r ? r : img_open(a->operand[n], &how, beside, &s->img, err);
	r = r ? r : img_chain_open(&s->img, &s->chain, err);
	if (r) {
		return r;
	}
	s->at = v->copy.total;
	s->size = s->img.size;
	s->layers = s->chain.count;
	if (s->size > INT64_MAX - v->copy.total) {
		return bad("the sources are too large together", err);
	}
	v->copy.total += s->size;
	return 0;
}

static int open_sources(struct convert *v, struct err *err)
{
	unsigned count = (unsigned)v->a->count - 1;
	int r = 0;

	v->copy.source = calloc(count, sizeof(*v->copy.source));
	if (!v->copy.source) {
		return err_set(err, ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < count && !r; i++) {
		v->copy.nsource = i + 1;
		r = open_source(v, i, i ? v->copy.source[0].img.io : NULL, err);
	}
	return r;
}

/* With -B: how many of the source's layers are above its own backing file of that content. */
static void above_backing(struct convert *v)
{
	struct copy_source *s = v->copy.source;

	if (v->backing && s->chain.count > 1) {
		s->layers = 1;
	}
}

/* --- the target --- */

static int create_options(struct convert *v, struct err *err)
{
	struct img_args *a = v->a;
	const char *fmt = img_given(a, 'O') ? img_arg(a, 'O') : "raw";
	int r = img_create_parse(&v->create, fmt, img_arg(a, 'o'), err);

	v->have_create = true;
	if (r) {
		return r;
	}
	r = img_create_backing(&v->create, v->backing, img_arg(a, 'F'), err);
	if (r) {
		return r;
	}
	v->backing = v->create.backing;
	if (v->backing && strcmp(fmt, "qcow2")) {
		return err_set(err, EINVAL, "the format %s has no backing file; leave -B away", fmt);
	}
	if (v->backing && !v->create.backing_fmt) {
		return bad("the format of the backing file is missing; add -F", err);
	}
	if (v->create.backing_fmt) {
		r = img_format_check(v->create.backing_fmt, err);
	}
	if (v->copy.compress && strcmp(fmt, "qcow2")) {
		r = err_set(err, EINVAL, "the format %s does not compress; leave -c away", fmt);
	}
	v->create.size = v->copy.total; /* whatever -o size= says */
	return r;
}

static int open_target(struct convert *v, const char *path, struct err *err)
{
	struct img_args *a = v->a;
	struct img_how how = {
		.fmt = img_given(a, 'O') ? img_arg(a, 'O') : "raw",
		.image_opts = img_given(a, ARG_TARGET_IMAGE_OPTS),
		.cache = v->out_cache,
		.write = true,
		.resize = false,
		.unmap = true,
		.quiet = v->copy.quiet,
		/* of a new image it is not looked at: COW fills up clusters with what it has */
		.no_backing = v->existing && !v->backing,
	};
	int r = img_open(path, &how, v->copy.source[0].img.io, &v->out, err);

	if (r) {
		return r;
	}
	if (v->out.size < v->copy.total) {
		return err_set(err, ENOSPC, "'%s' has %llu bytes, which is less than the %llu of the "
			       "source", v->name, (unsigned long long)v->out.size,
			       (unsigned long long)v->copy.total);
	}
	if (v->copy.compress && !blk_image_can_compress(v->out.node)) {
		return err_set(err, EINVAL, "the format '%s' does not compress; leave -c away",
			       img_format(&v->out));
	}
	v->copy.target = &v->out;
	return 0;
}

static int make_target(struct convert *v, struct err *err)
{
	int r;

	if (v->existing) {
		v->copy.target_zero = img_given(v->a, ARG_TARGET_IS_ZERO);
		return open_target(v, v->name, err);
	}
	r = create_options(v, err);
	r = r ? r : img_target_make(&v->target, v->a->ctl, v->name, &v->create, err);
	r = r ? r : open_target(v, img_target_path(&v->target), err);
	/* a file has zeros where nothing was written, a device what it had */
	v->copy.target_zero = !r && !v->backing && v->target.temp;
	return r;
}

static int convert(struct convert *v, struct err *err)
{
	bool show = img_given(v->a, 'p') && !v->copy.quiet;
	int r = open_sources(v, err);

	r = r ? r : make_target(v, err);
	if (r) {
		return r;
	}
	above_backing(v);
	if (v->copy.offload) {
		v->copy.sparse = 4096; /* holes stay holes */
	}
	v->copy.ctl = v->a->ctl;
	img_progress_start(v->a->ctl, show);
	r = img_copy(&v->copy, err);
	if (!r) {
		r = blk_io_flush(v->out.io);
		if (r) {
			err_set(err, -r, "'%s' cannot be flushed: %s", v->name, strerror(-r));
		}
	}
	img_close(&v->out);
	if (!r && !v->existing) {
		r = img_target_done(&v->target, err);
	}
	img_progress_end(v->a->ctl, !r);
	return r;
}

static void convert_fini(struct convert *v)
{
	img_close(&v->out);
	for (unsigned i = v->copy.nsource; i-- > 0;) {
		img_chain_close(&v->copy.source[i].chain);
		img_close(&v->copy.source[i].img);
	}
	free(v->copy.source);
	img_target_free(&v->target);
	if (v->have_create) {
		img_create_fini(&v->create);
	}
}

int cmd_convert(struct img_args *a)
{
	struct convert v = {.a = a};
	const char *fmt = img_given(a, 'O') ? img_arg(a, 'O') : "raw";
	struct err err;
	int r;

	if (img_wants_help(img_arg(a, 'o'))) {
		if (img_format_check(fmt, &err)) {
			img_error("convert: %s", err.msg);
			return 1;
		}
		img_create_help(fmt, false);
		return 0;
	}
	if (a->count < 2) {
		img_error("convert: the name of the source or of the target is missing");
		return 1;
	}
	v.name = a->operand[a->count - 1];
	r = read_args(&v, &err);
	r = r ? r : convert(&v, &err);
	convert_fini(&v);
	if (r && err.msg[0]) {
		img_error("convert: %s", err.msg);
	}
	return r ? 1 : 0;
}
