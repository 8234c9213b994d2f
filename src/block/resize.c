/*
 * What changes a node while it is in use: its size, and options.
 *
 * Threads: control loop.
 */
#include <errno.h>

#include "block/block_int.h"

int blk_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err)
{
	int r;

	if (!n->drv->truncate || !n->info.resizable) {
		return err_set(err, ENOTSUP, "disk '%s' (driver=%s) cannot be resized", n->name,
			       n->drv->name);
	}
	if (n->info.read_only) {
		return err_set(err, EROFS, "disk '%s' is read-only and cannot be resized",
			       n->name);
	}
	if (!(n->perm & BLK_PERM_RESIZE)) {
		return err_set(err, EPERM, "disk '%s': nobody has permission to resize it",
			       n->name);
	}
	if (size == blk_size(n)) {
		return 0;
	}
	r = n->drv->truncate(n, size, prealloc, err);
	/* What has its child's size is told of that by the child. */
	if (!r && !n->follows && !n->drv->child_resized) {
		blk_tell_resized(n);
	}
	return r;
}

/* "key=on" or off, if that is a change. */
static int changed(struct opts *o, const char *key, bool was, bool is, const char *on,
		   const char *off, struct err *err)
{
	return was == is ? 0 : opts_add(o, key, is ? on : off, err);
}

int blk_reopen_below(struct blk_node *n, struct blk_node *child, const struct blk_node_opt *to,
		     const char *what, struct err *err)
{
	const struct blk_node_opt *was = &n->opt;
	struct opts below = {.what = what};
	int r = changed(&below, "read-only", was->read_only, to->read_only, "on", "off", err);

	r = r ? r : changed(&below, "cache.direct", was->direct, to->direct, "on", "off", err);
	r = r ? r : changed(&below, "cache.no-flush", was->no_flush, to->no_flush, "on", "off", err);
	r = r ? r : changed(&below, "discard", was->unmap, to->unmap, "unmap", "ignore", err);
	if (!r && below.count) {
		r = blk_reopen(child, &below, err);
	}
	opts_fini(&below);
	return r;
}

int blk_reopen_file(struct blk_node *n, const struct blk_node_opt *to, struct opts *o,
		    struct err *err)
{
	uint64_t size = n->info.size;
	int r = opts_check_used(o, err);

	r = r ? r : blk_reopen_below(n, n->file, to, o->what, err);
	if (!r) {
		n->opt = *to;
		blk_info_from(n, n->file);
		n->info.size = size;
	}
	return r;
}

int blk_reopen(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_node_opt to = n->opt;
	struct list *pos;
	int r = blk_common_reopen(o, &to, err);

	if (r) {
		return r;
	}
	if (!n->drv->reopen) {
		return err_set(err, ENOTSUP,
			       "disk '%s' (driver=%s) has no options that can change", n->name,
			       n->drv->name);
	}
	r = n->drv->reopen(n, &to, o, err);
	if (r) {
		return r;
	}
	n->opt = to;
	list_for_each (pos, &n->chans) {
		struct blk_chan *c = list_entry(pos, struct blk_chan, link);

		/* its loop may stand still, as a format's own does */
		__atomic_store_n(&c->special, to.detect_zeroes != BLK_DETECT_OFF, __ATOMIC_RELAXED);
	}
	return 0;
}
