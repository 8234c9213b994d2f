/*
 * create: a new image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"

const struct img_opt create_opts[] = {
	{'f', NULL, "FMT", "format of the image: raw (default) or qcow2"},
	{'b', NULL, "FILE", "its backing file, as seen from the directory of the image"},
	{'F', NULL, "FMT", "format of the backing file"},
	{'u', NULL, NULL, "do not open the backing file"},
	{'o', NULL, "OPTIONS", "options of the format: name=value[,...], or help"},
	{'q', NULL, NULL, "print nothing"},
	{.code = 0},
};

/* The backing file exists, and gives its size if there is none. */
static int use_backing(struct img_create *c, const char *filename, bool look, struct err *err)
{
	struct img_how how = {.fmt = c->backing_fmt, .no_user = true};
	const char *found = "raw", *path;
	struct blk_info info;
	struct img base;
	char *beside;
	int r;

	if (strcmp(c->fmt, "qcow2")) {
		return err_set(err, EINVAL, "the format %s has no backing file; leave -b away",
			       c->fmt);
	}
	if (c->backing_fmt && (r = img_format_check(c->backing_fmt, err))) {
		return r;
	}
	beside = img_path_beside(filename, c->backing);
	if (!beside) {
		return err_set(err, ENOMEM, "out of memory");
	}
	if (!c->backing_fmt) {
		if (!strncmp(beside, "json:", 5) || img_path(beside, &path, NULL) ||
		    img_probe(path, &found, NULL)) {
			found = "raw";
		}
		free(beside);
		return err_set(err, EINVAL,
			       "the backing file '%s' needs its format beside it; add -F (it looks "
			       "like %s)",
			       c->backing, found);
	}
	if (!look) {
		free(beside);
		return 0;
	}
	r = img_open(beside, &how, NULL, &base, err);
	free(beside);
	if (r) {
		return r;
	}
	blk_info(base.node, &info);
	if (!c->has_size) {
		c->size = info.size;
		c->has_size = true;
	}
	img_close(&base);
	return 0;
}

static int make(struct img_args *a, struct img_create *c, struct err *err)
{
	const char *filename = a->operand[0], *size = a->count > 1 ? a->operand[1] : NULL;
	struct img_target t;
	int r = img_create_backing(c, img_arg(a, 'b'), img_arg(a, 'F'), err);

	if (!r && size) {
		c->has_size = true;
		if (parse_size(size, 'b', &c->size) || c->size > INT64_MAX) {
			r = err_set(err, EINVAL,
				    "'%s' is no size of an image; give a number, with k, M, G, T, P "
				    "or E behind it for a unit",
				    size);
		}
	}
	if (!r && c->backing_fmt && !c->backing) {
		r = img_format_check(c->backing_fmt, err);
	}
	if (!r && c->backing) {
		r = use_backing(c, filename, !img_given(a, 'u'), err);
	}
	if (!r && !c->has_size) {
		r = err_set(err, EINVAL, "'%s' needs a size; give it behind the name", filename);
	}
	if (r) {
		return r;
	}
	if (!img_given(a, 'q')) {
		img_create_print(c, filename);
	}
	r = img_target_make(&t, a->ctl, filename, c, err);
	if (!r) {
		r = img_target_done(&t, err);
	}
	img_target_free(&t);
	return r;
}

int cmd_create(struct img_args *a)
{
	const char *fmt = img_arg(a, 'f') ? img_arg(a, 'f') : "raw";
	struct img_create c;
	struct err err;
	int r;

	if (img_wants_help(img_arg(a, 'o'))) {
		if (img_format_check(fmt, &err)) {
			img_error("create: %s", err.msg);
			return 1;
		}
		img_create_help(fmt, a->count > 0);
		return 0;
	}
	if (a->count < 1 || a->count > 2) {
		return img_operands(a, 1, "the name of the image"), 1;
	}
	r = img_create_parse(&c, fmt, img_arg(a, 'o'), &err);
	if (!r) {
		r = make(a, &c, &err);
	}
	img_create_fini(&c);
	if (r) {
		img_error("create: %s", err.msg);
	}
	return r ? 1 : 0;
}
