/*
 * resize: another size for an image.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "img.h"

const struct img_opt resize_opts[] = {
	{'f', NULL, "FMT", "format of the image; otherwise it is found out"},
	{ARG_PREALLOCATION, "preallocation", "MODE", "of what is added: off (default), metadata, falloc or full"},
	{ARG_SHRINK, "shrink", NULL, "it may become smaller: what is behind the new end is lost"},
	{'q', NULL, NULL, "print nothing"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{.code = 0},
};

static int prealloc_parse(const char *text, enum blk_prealloc *out, struct err *err)
{
	static const char *const names[] = {"off", "metadata", "falloc", "full"};
	static const enum blk_prealloc modes[] = {BLK_PREALLOC_OFF, BLK_PREALLOC_METADATA,
						  BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL};

	*out = BLK_PREALLOC_OFF;
	for (size_t i = 0; text && i < ARRAY_SIZE(names); i++) {
		if (!strcmp(text, names[i])) {
			*out = modes[i];
			return 0;
		}
	}
	return text ? err_set(err, EINVAL,
			      "--preallocation=%s is not valid; give off, metadata, falloc or full",
			      text)
		    : 0;
}

/* "+5G", "-5G" or "5G", of an image that has `old` bytes. */
static int new_size(const char *text, uint64_t old, uint64_t *out, struct err *err)
{
	bool more = *text == '+', less = *text == '-';
	uint64_t n;

	if (parse_size(text + (more || less), 'b', &n)) {
		return err_set(err, EINVAL,
			       "'%s' is no size; give a number, with k, M, G, T, P or E behind it for "
			       "a unit, and + or - before it for a change",
			       text);
	}
	if (less ? n >= old : n == 0 && !more) {
		return err_set(err, EINVAL, "nothing would be left of the image");
	}
	if (less) {
		*out = old - n;
		return 0;
	}
	if (u64_add(more ? old : 0, n, out) || *out > INT64_MAX) {
		return err_set(err, EFBIG, "'%s' is too large", text);
	}
	return 0;
}

static int resize(struct img_args *a, struct img *i, enum blk_prealloc prealloc, struct err *err)
{
	uint64_t size = 0;
	int r = new_size(a->operand[1], i->size, &size, err);

	if (r) {
		return r;
	}
	if (size <= i->size && prealloc != BLK_PREALLOC_OFF) {
		return err_set(err, EINVAL,
			       "--preallocation is for images that grow; this one does not");
	}
	if (size < i->size && !img_given(a, ARG_SHRINK)) {
		return err_set(err, EINVAL,
			       "the image would become smaller and lose what is behind its new end; "
			       "add --shrink if that is what you want");
	}
	return blk_truncate(i->node, size, prealloc, err);
}

int cmd_resize(struct img_args *a)
{
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.write = true,
		.resize = true,
		.quiet = img_given(a, 'q'),
	};
	enum blk_prealloc prealloc;
	struct img i;
	struct err err;
	int r;

	if (img_operands(a, 2, "the name of the image or its size")) {
		return 1;
	}
	r = prealloc_parse(img_arg(a, ARG_PREALLOCATION), &prealloc, &err);
	if (!r) {
		r = img_open(a->operand[0], &how, NULL, &i, &err);
	}
	if (!r) {
		r = resize(a, &i, prealloc, &err);
		img_close(&i);
	}
	if (r) {
		img_error("resize: %s", err.msg);
		return 1;
	}
	if (!img_given(a, 'q')) {
		printf("Image resized.\n");
	}
	return 0;
}
