/*
 * Block nodes: what all kinds have in common: names, claims, channels, the checks of a request.
 *
 * Invariants:
 *  1. done() is called exactly once for a request, never inside blk_submit();
 *  2. a node's submit() sees only ranges inside the node and aligned to info.align;
 *  3. a node outlives its channels, a channel its requests.
 *
 * Threads: a node belongs to the control loop, a channel to its loop. No lock: what they share
 * is constant, except the count of channels.
 */
#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/block_int.h"
#include "block/trace.h"

void blk_node_init(struct blk_node *n, const struct blk_node_ops *ops, const char *name,
		   unsigned tag)
{
	n->ops = ops;
	if (name && *name) {
		snprintf(n->name, sizeof(n->name), "%s", name);
	} else {
		snprintf(n->name, sizeof(n->name), "#block%u", tag);
	}
}

void blk_close(struct blk_node *n)
{
	if (!n) {
		return;
	}
	assert(atomic_load(&n->chans) == 0);
	n->ops->close(n);
}

const char *blk_name(const struct blk_node *n)
{
	return n->name;
}

void blk_info(const struct blk_node *n, struct blk_info *out)
{
	*out = n->info;
}

int blk_claim(struct blk_node *n, bool write, struct err *err)
{
	if (write && n->info.read_only) {
		return err_set(err, EROFS,
			       "disk '%s' is read-only; open it writable or make the device "
			       "read-only",
			       n->name);
	}
	if (write && n->writers) {
		return err_set(err, EBUSY,
			       "disk '%s' is in use by another device that writes to it",
			       n->name);
	}
	if (write) {
		n->writers++;
	} else {
		n->readers++;
	}
	return 0;
}

void blk_release(struct blk_node *n, bool write)
{
	unsigned *count = write ? &n->writers : &n->readers;

	assert(*count > 0);
	(*count)--;
}

/* --- channels --- */

static void chan_later(void *arg)
{
	struct blk_chan *c = arg;
	struct list now;

	/* Only what is there: done() may submit requests that finish at once, too. */
	if (list_empty(&c->later)) {
		return;
	}
	now = c->later;
	now.next->prev = now.prev->next = &now;
	list_init(&c->later);
	while (!list_empty(&now)) {
		struct blk_req *r = list_entry(now.next, struct blk_req, node);

		list_del(&r->node);
		blk_complete(r, r->result);
	}
}

int blk_chan_open(struct blk_node *n, struct loop *l, struct blk_chan **out, struct err *err)
{
	struct blk_chan *c = calloc(1, n->ops->chan_size);
	int r;

	if (!c) {
		return err_set(err, ENOMEM, "disk '%s': out of memory", n->name);
	}
	c->node = n;
	c->loop = l;
	list_init(&c->later);
	c->later_work = (struct loop_work){.fn = chan_later, .arg = c};
	if (n->ops->chan_open) {
		r = n->ops->chan_open(c, err);
		if (r < 0) {
			free(c);
			return r;
		}
	}
	atomic_fetch_add(&n->chans, 1);
	*out = c;
	return 0;
}

void blk_chan_close(struct blk_chan *c)
{
	if (!c) {
		return;
	}
	assert(c->inflight == 0 && list_empty(&c->later));
	if (c->node->ops->chan_close) {
		c->node->ops->chan_close(c);
	}
	atomic_fetch_sub(&c->node->chans, 1);
	free(c);
}

unsigned blk_chan_inflight(const struct blk_chan *c)
{
	return c->inflight;
}

/* --- requests --- */

void blk_complete(struct blk_req *r, int result)
{
	assert(r->chan->inflight > 0);
	trace_blk_complete(r->chan->node->name, r->op, r->off, result);
	r->chan->inflight--;
	r->done(r, result);
}

void blk_complete_later(struct blk_req *r, int result)
{
	struct blk_chan *c = r->chan;

	r->result = result;
	list_add_tail(&c->later, &r->node);
	loop_post(c->loop, &c->later_work);
}

static int req_check(const struct blk_info *i, const struct blk_req *r)
{
	if (r->op == BLK_FLUSH) {
		return 0;
	}
	if (!range_within(r->off, r->len, i->size)) {
		return -EINVAL;
	}
	if (i->align > 1 && (r->off % i->align || r->len % i->align)) {
		return -EINVAL;
	}
	if (r->op != BLK_READ && i->read_only) {
		return -EROFS;
	}
	return 0;
}

void blk_submit(struct blk_chan *c, struct blk_req *r)
{
	const struct blk_info *i = &c->node->info;
	int error = req_check(i, r);

	r->chan = c;
	r->result = 0;
	r->progress = 0;
	r->cur = iov_cur_init(r->iov, r->niov);
	r->bounce = NULL;
	c->inflight++;
	trace_blk_submit(c->node->name, r->op, r->off, r->len);
	if (error) {
		blk_complete_later(r, error);
	} else if ((r->op == BLK_FLUSH && !i->write_cache) ||
		   (r->op == BLK_DISCARD && !i->can_discard) ||
		   (r->op != BLK_FLUSH && r->len == 0)) {
		blk_complete_later(r, 0);
	} else {
		c->node->ops->submit(c, r);
	}
}
