/*
 * driver=raw: the bytes of its child, all of them or `size` bytes from `offset` on. A request
 * is handed down as it is, with another offset.
 *
 * The size is the child's, rounded up to whole sectors, if neither offset nor size is given.
 */
#include <errno.h>
#include <stddef.h>

#include "block/block_int.h"

struct blk_raw {
	struct blk_node node;
	uint64_t offset, size; /* size: 0 if it was not given */
};

struct raw_chan {
	struct blk_chan chan;
	struct blk_chan *below;
};

static const struct opt_desc raw_rows[] = {
	{"offset", OPT_SIZE, offsetof(struct blk_raw, offset), .max = INT64_MAX},
	{"size", OPT_SIZE, offsetof(struct blk_raw, size), .max = INT64_MAX},
	{.key = NULL},
};

static struct blk_raw *of_node(struct blk_node *n)
{
	return container_of(n, struct blk_raw, node);
}

uint64_t blk_raw_offset(const struct blk_node *n)
{
	return container_of(n, const struct blk_raw, node)->offset;
}

/* The window in a child of that size. */
static int raw_fit(struct blk_raw *w, uint64_t child, struct err *err)
{
	struct blk_node *n = &w->node;

	if (w->offset > child || w->size > child - w->offset) {
		return err_set(
			err, EINVAL,
			"driver=raw: offset=%llu and size=%llu are not within '%s', which "
			"has %llu bytes",
			(unsigned long long)w->offset, (unsigned long long)w->size,
			blk_filename(n), (unsigned long long)child);
	}
	if (w->offset % n->info.align || w->size % 512) {
		return err_set(
			err, EINVAL,
			"driver=raw: offset=%llu is no multiple of %u, or size=%llu none of "
			"512",
			(unsigned long long)w->offset, n->info.align,
			(unsigned long long)w->size);
	}
	blk_set_size(n, w->size ? w->size : child - w->offset);
	return 0;
}

static int raw_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_raw *w = of_node(n);
	struct blk_node *child;
	int r;

	blk_child_keys(o, "file");
	r = opts_read(o, raw_rows, w, err);
	if (!r) {
		r = blk_open_child(n, o, "file", true, &child, err);
	}
	if (r) {
		return r;
	}
	blk_info_from(n, child);
	if (!w->offset && !w->size) {
		n->follows = child;
		n->can_grow = child->can_grow;
		return 0;
	}
	return raw_fit(w, n->info.size, err);
}

static void raw_close(struct blk_node *n)
{
	(void)n;
}

static int raw_chan_open(struct blk_chan *chan, struct err *err)
{
	struct raw_chan *c = container_of(chan, struct raw_chan, chan);

	return blk_chan_open_below(chan, chan->node->file, &c->below, err);
}

static void raw_chan_close(struct blk_chan *chan)
{
	blk_chan_close(container_of(chan, struct raw_chan, chan)->below);
}

static void raw_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct raw_chan *c = container_of(chan, struct raw_chan, chan);

	blk_forward(c->below, r, r->off + of_node(chan->node)->offset);
}

static void raw_hurry(struct blk_chan *chan)
{
	blk_chan_hurry(container_of(chan, struct raw_chan, chan)->below);
}

static int raw_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			struct err *err)
{
	struct blk_raw *w = of_node(n);

	if (w->size) {
		return err_set(err, ENOTSUP,
			       "disk '%s' cannot be resized, because its size= is fixed",
			       n->name);
	}
	if (size > INT64_MAX - w->offset) {
		return err_set(err, EFBIG, "disk '%s': the size is too large", n->name);
	}
	return blk_truncate(n->file, size + w->offset, prealloc, err);
}

static void raw_child_resized(struct blk_node *n, struct blk_node *child)
{
	struct blk_raw *w = of_node(n);
	uint64_t size = blk_size(child);

	if (!w->size) {
		blk_set_size(n, size - MIN(size, w->offset));
		blk_tell_resized(n);
	}
}

/* --- for tools --- */

struct raw_create {
	uint64_t size;
	int preallocation;
};
static const char *const prealloc_names[] = {"off", "falloc", "full", NULL};
static const struct opt_desc create_rows[] = {
	{"size", OPT_SIZE, offsetof(struct raw_create, size), .max = INT64_MAX, .required = true},
	{"preallocation", OPT_ENUM, offsetof(struct raw_create, preallocation),
	 .names = prealloc_names, .def = "off"},
	{.key = NULL},
};

static int raw_create(struct blk_graph *g, struct blk_node *file, struct opts *o, struct err *err)
{
	static const enum blk_prealloc modes[] = {BLK_PREALLOC_OFF, BLK_PREALLOC_FALLOC,
						  BLK_PREALLOC_FULL};
	struct raw_create c;
	struct blk_info info;
	int r = opts_read(o, create_rows, &c, err);

	(void)g;
	if (r) {
		return r;
	}
	blk_info(file, &info);
	if (info.resizable) {
		r = blk_truncate(file, 0, BLK_PREALLOC_OFF, err);
		return r ? r : blk_truncate(file, c.size, modes[c.preallocation], err);
	}
	if (info.size < c.size) {
		return err_set(err, ENOSPC, "'%s' has %llu bytes, which is less than %llu",
			       blk_filename(file), (unsigned long long)info.size,
			       (unsigned long long)c.size);
	}
	return 0;
}

static int raw_measure(struct opts *o, struct blk_node *content, struct blk_measure *out,
		       struct err *err)
{
	struct raw_create c;
	int r = opts_read(o, create_rows, &c, err);

	(void)content; /* what is not allocated counts as well */
	*out = (struct blk_measure){
		.required = align_up(c.size, 512),
		.fully_allocated = align_up(c.size, 512),
	};
	return r;
}

const struct blk_driver blk_raw_driver = {
	.name = "raw",
	.node_size = sizeof(struct blk_raw),
	.chan_size = sizeof(struct raw_chan),
	.open = raw_open,
	.close = raw_close,
	.chan_open = raw_chan_open,
	.chan_close = raw_chan_close,
	.submit = raw_submit,
	.hurry = raw_hurry,
	.truncate = raw_truncate,
	.reopen = blk_reopen_file,
	.child_resized = raw_child_resized,
	.create = raw_create,
	.measure = raw_measure,
};
