/*
 * dd: a part of an image as a new one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"

const struct img_opt dd_opts[] = {
	{'f', NULL, "FMT", "format of the input; otherwise it is found out"},
	{'O', NULL, "FMT", "format of the output: raw (default) or qcow2"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "INPUT is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the input may be in use by a process that writes it"},
	{.code = 0},
};

struct dd {
	const char *in, *out;
	uint64_t bs, count, skip;
	bool has_count;
};

static int read_operand(struct dd *d, const char *text, struct err *err)
{
	static const char *const names[] = {"if", "of", "bs", "count", "skip"};
	const char *value = strchr(text, '=');
	size_t n = value ? (size_t)(value - text) : strlen(text), i = 0;
	uint64_t number = 0;

	while (i < ARRAY_SIZE(names) && (strlen(names[i]) != n || strncmp(names[i], text, n))) {
		i++;
	}
	if (i == ARRAY_SIZE(names) || !value) {
		return err_set(err, EINVAL, "'%s' is no operand; there are if=, of=, bs=, count= and "
			       "skip=", text);
	}
	value++;
	if (i >= 2 && parse_size(value, 'b', &number)) {
		return err_set(err, EINVAL, "%s=%s is no number", names[i], value);
	}
	switch (i) {
	case 0:
		d->in = value;
		break;
	case 1:
		d->out = value;
		break;
	case 2:
		d->bs = number;
		break;
	case 3:
		d->count = number;
		d->has_count = true;
		break;
	default:
		d->skip = number;
	}
	return 0;
}

static int read_operands(struct img_args *a, struct dd *d, struct err *err)
{
	int r = 0;

	*d = (struct dd){.bs = 512};
	for (int i = 0; i < a->count && !r; i++) {
		r = read_operand(d, a->operand[i], err);
	}
	if (!r && (!d->in || !d->out)) {
		r = err_set(err, EINVAL, "if= and of= are both needed");
	}
	if (!r && (!d->bs || d->bs > INT32_MAX)) {
		r = err_set(err, EINVAL, "bs= has to be from 1 to %d", INT32_MAX);
	}
	return r;
}

/* Where in the input the copy begins, and its length: count= counts from the beginning of the input. */
static void range(const struct dd *d, uint64_t size, uint64_t *skip, uint64_t *len)
{
	uint64_t end;

	if (u64_mul(d->skip, d->bs, skip) || *skip > size) {
		*skip = size;
		if (d->skip) {
			img_warn("dd: '%s' ends before skip=%llu blocks", d->in,
				 (unsigned long long)d->skip);
		}
	}
	if (d->has_count && !u64_mul(d->count, d->bs, &end)) {
		size = MIN(size, end);
	}
	*len = size - MIN(size, *skip);
}

static int dd(struct img_args *a, const struct dd *d, struct err *err)
{
	const char *fmt = img_given(a, 'O') ? img_arg(a, 'O') : "raw";
	struct copy_source s = {.layers = 0};
	struct copy c = {.ctl = a->ctl, .source = &s, .nsource = 1, .depth = 8};
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.force_share = img_given(a, 'U'),
	};
	struct img_how out_how = {.fmt = fmt, .cache = "unsafe", .write = true};
	struct img_create create;
	struct img_target target = {.path = NULL};
	struct img out = {.filename = NULL};
	int r = img_create_parse(&create, fmt, NULL, err);

	r = r ? r : img_open(d->in, &how, NULL, &s.img, err);
	r = r ? r : img_chain_open(&s.img, &s.chain, err);
	if (!r) {
		range(d, s.img.size, &s.skip, &s.size);
	}
	create.size = s.size;
	r = r ? r : img_target_make(&target, a->ctl, d->out, &create, err);
	r = r ? r : img_open(img_target_path(&target), &out_how, s.img.io, &out, err);
	if (!r) {
		s.layers = s.chain.count;
		c.total = s.size;
		c.target = &out;
		r = img_copy(&c, err);
	}
	img_close(&out);
	r = r ? r : img_target_done(&target, err);
	img_target_free(&target);
	img_chain_close(&s.chain);
	img_close(&s.img);
	img_create_fini(&create);
	return r;
}

int cmd_dd(struct img_args *a)
{
	struct dd d;
	struct err err;
	int r = read_operands(a, &d, &err);

	r = r ? r : dd(a, &d, &err);
	if (r) {
		img_error("dd: %s", err.msg);
	}
	return r ? 1 : 0;
}
