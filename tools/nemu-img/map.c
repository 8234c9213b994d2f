/*
 * map: where the data of an image is, in which of its layers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "img.h"

const struct img_opt map_opts[] = {
	{'f', NULL, "FMT", "format of the image; otherwise it is found out"},
	{'s', "start-offset", "SIZE", "begin there"},
	{'l', "max-length", "SIZE", "no more than that"},
	{ARG_OUTPUT, "output", "human|json", "form of the output"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the image may be in use by a process that writes it"},
	{.code = 0},
};

struct entry {
	uint64_t start, len, offset;
	unsigned depth, flags; /* BLK_EXT_… */
	const struct blk_node *file;
};

static bool join(struct entry *a, const struct entry *b)
{
	bool offset = a->flags & BLK_EXT_OFFSET;

	if (!a->len || a->flags != b->flags || a->depth != b->depth ||
	    (offset && (a->offset + a->len != b->offset || a->file != b->file))) {
		return false;
	}
	a->len += b->len;
	return true;
}

static int print_human(const struct entry *e)
{
	if (e->flags & BLK_EXT_DATA && !(e->flags & BLK_EXT_OFFSET)) {
		img_error("map: there are compressed clusters, which are at no place that could be "
			  "told; use --output=json");
		return -ENOTSUP;
	}
	if (e->flags & BLK_EXT_DATA && !(e->flags & BLK_EXT_ZERO)) {
		printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)e->start,
		       (unsigned long long)e->len, (unsigned long long)e->offset,
		       blk_filename(e->file));
	}
	return 0;
}

static void print_json(const struct entry *e, bool first)
{
	static const char *const bools[] = {"false", "true"};

	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": "
	       "%s, \"data\": %s",
	       first ? "[" : ",\n", (unsigned long long)e->start, (unsigned long long)e->len,
	       e->depth, bools[!!(e->flags & BLK_EXT_ALLOCATED)], bools[!!(e->flags & BLK_EXT_ZERO)],
	       bools[!!(e->flags & BLK_EXT_DATA)]);
	if (e->flags & BLK_EXT_OFFSET) {
		printf(", \"offset\": %llu", (unsigned long long)e->offset);
	}
	putchar('}');
}

static int walk(struct img_chain *c, uint64_t from, uint64_t to, bool json, struct err *err)
{
	struct entry now = {.start = from};
	bool first = true;
	int r = 0;

	if (!json) {
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	}
	for (uint64_t off = from; off < to && !r;) {
		struct entry e = {.start = off};
		struct blk_extent x;

		r = img_chain_status(c, 0, c->count, off, MIN(to - off, GiB), &x, &e.depth);
		if (r) {
			return err_set(err, -r, "where the data at %llu is cannot be told: %s",
				       (unsigned long long)off, strerror(-r));
		}
		e.len = x.len;
		e.flags = x.flags & (BLK_EXT_DATA | BLK_EXT_ZERO | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET);
		e.offset = x.file_off;
		e.file = x.file;
		off += e.len;
		if (join(&now, &e)) {
			continue;
		}
		if (now.len && json) {
			print_json(&now, first);
			first = false;
		} else if (now.len) {
			r = print_human(&now);
		}
		now = e;
	}
	if (!r && json) {
		print_json(&now, first);
		printf("]\n");
	} else if (!r) {
		r = print_human(&now);
	}
	return r ? 1 : 0;
}

int cmd_map(struct img_args *a)
{
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.force_share = img_given(a, 'U'),
	};
	struct img_chain chain;
	uint64_t from, len;
	struct img i;
	struct err err;
	bool json;
	int r;

	if (img_arg_json(a, &json) || img_operands(a, 1, "the name of the image") ||
	    img_arg_size(a, 's', 0, INT64_MAX, 0, &from) ||
	    img_arg_size(a, 'l', 0, INT64_MAX, INT64_MAX, &len)) {
		return 1;
	}
	r = img_open(a->operand[0], &how, NULL, &i, &err);
	if (r) {
		img_error("map: %s", err.msg);
		return 1;
	}
	r = img_chain_open(&i, &chain, &err);
	if (!r) {
		r = walk(&chain, from, MIN(from + MIN(len, INT64_MAX - from), i.size), json, &err);
		img_chain_close(&chain);
	}
	if (r < 0) {
		img_error("map: %s", err.msg);
	}
	img_close(&i);
	return r ? 1 : 0;
}
