/*
 * measure: how large the file of a new image gets.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "img.h"

const struct img_opt measure_opts[] = {
	{ARG_SIZE, "size", "SIZE", "of an empty image of that size, instead of FILENAME"},
	{'f', NULL, "FMT", "format of FILENAME; otherwise it is found out"},
	{'O', NULL, "FMT", "format of the new image: raw (default) or qcow2"},
	{'o', NULL, "OPTIONS", "options of that format: name=value[,...], or help"},
	{'l', NULL, "SNAPSHOT", "of that snapshot: snapshot.name=NAME, snapshot.id=ID, or either alone"},
	{ARG_OUTPUT, "output", "human|json", "form of the output"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the image may be in use by a process that writes it"},
	{.code = 0},
};

static int measure(struct img_create *c, struct blk_node *content, bool json, struct err *err)
{
	struct blk_measure m;
	char size[32];
	json_t *v;
	int r;

	snprintf(size, sizeof(size), "%llu", (unsigned long long)align_up(c->size, 512));
	r = opts_add(&c->opts, "size", size, err);
	r = r ? r : blk_image_measure(c->fmt, &c->opts, content, &m, err);
	if (r) {
		return r;
	}
	/* where there is nothing to copy nothing is said */
	m.has_bitmaps = m.has_bitmaps && content && !strcmp(blk_driver_name(content), "qcow2");
	if (!json) {
		printf("required size: %llu\nfully allocated size: %llu\n",
		       (unsigned long long)m.required, (unsigned long long)m.fully_allocated);
		if (m.has_bitmaps) {
			printf("bitmaps size: %llu\n", (unsigned long long)m.bitmaps);
		}
		return 0;
	}
	v = json_object();
	if (m.has_bitmaps) {
		json_object_set_new(v, "bitmaps", json_integer((json_int_t)m.bitmaps));
	}
	json_object_set_new(v, "required", json_integer((json_int_t)m.required));
	json_object_set_new(v, "fully-allocated", json_integer((json_int_t)m.fully_allocated));
	img_json_print(v);
	return 0;
}

static int measure_image(struct img_args *a, struct img_create *c, bool json, struct err *err)
{
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.force_share = img_given(a, 'U'),
	};
	struct img i;
	int r = img_snapshot_param(img_arg(a, 'l'), &how.snapshot, err);

	r = r ? r : img_open(a->operand[0], &how, NULL, &i, err);

	if (r) {
		return r;
	}
	c->size = i.size;
	r = measure(c, i.node, json, err);
	img_close(&i);
	return r;
}

int cmd_measure(struct img_args *a)
{
	const char *fmt = img_arg(a, 'O') ? img_arg(a, 'O') : "raw";
	struct img_create c;
	struct err err;
	bool json;
	int r;

	if (img_wants_help(img_arg(a, 'o'))) {
		img_create_help(img_format_check(fmt, NULL) ? "raw" : fmt, false);
		return 0;
	}
	if (img_arg_json(a, &json)) {
		return 1;
	}
	if (!img_given(a, ARG_SIZE) == (a->count == 0) || a->count > 1) {
		img_error("measure: either --size or the name of one image is needed");
		return 1;
	}
	if (img_given(a, ARG_SIZE) && (img_given(a, ARG_IMAGE_OPTS) || img_given(a, 'f') ||
				       img_given(a, 'l') || img_given(a, 'U'))) {
		img_error("measure: -f, -l, -U and --image-opts describe an image; leave them away "
			  "with --size");
		return 1;
	}
	r = img_create_parse(&c, fmt, img_arg(a, 'o'), &err);
	if (!r && c.has_size) {
		r = err_set(&err, EINVAL, "-o size= has no meaning here; use --size");
	}
	if (!r && a->count) {
		r = measure_image(a, &c, json, &err);
	} else if (!r) {
		r = img_arg_size(a, ARG_SIZE, 0, INT64_MAX, 0, &c.size);
		if (r) {
			img_create_fini(&c);
			return 1;
		}
		r = measure(&c, NULL, json, &err);
	}
	img_create_fini(&c);
	if (r) {
		img_error("measure: %s", err.msg);
	}
	return r ? 1 : 0;
}
