/*
 * The way of a request through a channel: checks, submission, completion.
 *
 * Invariants:
 *  1. done() is called exactly once for a request, never inside blk_submit();
 *  2. a driver's submit() sees only ranges inside the node (or beyond its end where it may
 *     grow), aligned to info.align and within the limits; what is not is done in pieces (pieces.c);
 *  3. a node outlives its channels, a channel its requests;
 *  4. channels that hand requests down form a chain (`upper`): a request is counted in flight
 *     in each of them from the one where it was submitted to the one where it is.
 *
 * Threads: a channel belongs to its loop. No lock: what channels of a node share is constant
 * while they are open, except the size.
 */
#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/block_int.h"
#include "block/trace.h"

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

static int chan_open(struct blk_node *n, struct loop *l, struct blk_chan *upper,
		     struct blk_chan **out, struct err *err)
{
	struct blk_chan *c = calloc(1, n->drv->chan_size);
	int r;

	if (!c) {
		return err_set(err, ENOMEM, "disk '%s': out of memory", n->name);
	}
	c->node = n;
	c->loop = l;
	c->upper = upper;
	c->special = n->opt.detect_zeroes != BLK_DETECT_OFF;
	list_init(&c->later);
	list_init(&c->waiting);
	c->later_work = (struct loop_work){.fn = chan_later, .arg = c};
	if (n->drv->chan_open) {
		r = n->drv->chan_open(c, err);
		if (r < 0) {
			free(c);
			return r;
		}
	}
	blk_drain_chan_init(c);
	*out = c;
	return 0;
}

int blk_chan_open(struct blk_node *n, struct loop *l, struct blk_chan **out, struct err *err)
{
	return chan_open(n, l, NULL, out, err);
}

int blk_chan_open_below(struct blk_chan *c, struct blk_node *child, struct blk_chan **out,
			struct err *err)
{
	return chan_open(child, c->loop, c, out, err);
}

void blk_chan_close(struct blk_chan *c)
{
	if (!c) {
		return;
	}
	assert(c->inflight == 0 && list_empty(&c->later) && c->nwaiting == 0);
	blk_drain_chan_gone(c);
	loop_work_cancel(c->loop, &c->later_work);
	if (c->node->drv->chan_close) {
		c->node->drv->chan_close(c);
	}
	blk_pieces_free(c);
	free(c);
}

struct blk_node *blk_chan_node(const struct blk_chan *c)
{
	return c->node;
}

void blk_chan_write_cache(struct blk_chan *c, bool on)
{
	c->flags = on ? 0 : BLK_FUA;
}

unsigned blk_chan_inflight(const struct blk_chan *c)
{
	return c->inflight + c->nwaiting;
}

/* --- requests --- */

void blk_complete(struct blk_req *r, int result)
{
	struct blk_chan *c = r->chan;

	trace_blk_complete(c->node->name, r->op, r->off, result);
	if (r->op == BLK_STATUS && !result && r->off + r->status.len >= blk_size(c->node)) {
		r->status.flags |= BLK_EXT_EOF;
	}
	for (;;) {
		assert(c->inflight > 0);
		if (--c->inflight == 0 && c->held) {
			/* after done(), which a drain waits for, too */
			loop_post(c->loop, &c->drain_work);
		}
		if (c == r->top) {
			break;
		}
		c = c->upper;
		if (c->node->drv->ended) {
			c->node->drv->ended(c, r, result);
		}
	}
	r->off -= r->shift;
	r->done(r, result);
}

void blk_complete_later(struct blk_req *r, int result)
{
	struct blk_chan *c = r->chan;

	r->result = result;
	list_add_tail(&c->later, &r->node);
	loop_post(c->loop, &c->later_work);
}

/* What cannot be done at all; 0: go on. */
static int req_check(const struct blk_node *n, const struct blk_req *r, uint64_t size)
{
	if (r->op == BLK_FLUSH) {
		return 0;
	}
	if (blk_op_writes(r->op) && n->info.read_only) {
		return -EROFS;
	}
	if (!range_within(r->off, r->len, size)) {
		bool read = r->op == BLK_READ || r->op == BLK_STATUS;

		/* INT64_MAX is as far as files go. */
		if (!(read ? n->beyond : n->grow) || !range_within(r->off, r->len, INT64_MAX)) {
			return -EINVAL;
		}
	}
	return r->flags & BLK_WRITE_COMPRESSED && !n->drv->format ? -ENOTSUP : 0;
}

static bool nothing_to_do(const struct blk_info *i, const struct blk_req *r)
{
	return (r->op == BLK_FLUSH && !i->write_cache) ||
	       (r->op == BLK_DISCARD && !i->can_discard) || (r->op != BLK_FLUSH && r->len == 0);
}

/* A read or write that the driver takes as it is: nearly all of them. */
static bool fits(const struct blk_chan *c, const struct blk_info *i, const struct blk_req *r,
		 uint64_t size)
{
	return r->op <= BLK_WRITE && !blk_chan_special(c) && r->len &&
	       range_within(r->off, r->len, size) && !((r->off | r->len) & (i->align - 1)) &&
	       !i->max_transfer && !i->max_iov && !(r->flags & BLK_WRITE_COMPRESSED) &&
	       (r->op == BLK_READ || !i->read_only);
}

static void start_closely(struct blk_chan *c, struct blk_req *r, uint64_t size)
{
	struct blk_node *n = c->node;
	int error = req_check(n, r, size);

	if (error) {
		blk_complete_later(r, error);
	} else if (nothing_to_do(&n->info, r)) {
		r->status.len = 0;
		blk_complete_later(r, 0);
	} else if (blk_pieces_needed(c, r, size)) {
		blk_pieces_start(c, r);
	} else {
		n->drv->submit(c, r);
	}
}

void blk_chan_start(struct blk_chan *c, struct blk_req *r)
{
	struct blk_node *n = c->node;
	uint64_t size = blk_size(n);

	r->result = 0;
	r->progress = 0;
	r->cur = iov_cur_init(r->iov, r->niov);
	r->bounce = NULL;
	if (fits(c, &n->info, r, size)) {
		n->drv->submit(c, r);
	} else {
		start_closely(c, r, size);
	}
}

/* A channel that is held keeps r, which is not in flight yet. */
static void chan_take(struct blk_chan *c, struct blk_req *r)
{
	r->chan = c;
	if (c->held) {
		c->nwaiting++;
		list_add_tail(&c->waiting, &r->node);
		return;
	}
	c->inflight++;
	blk_chan_start(c, r);
}

void blk_submit(struct blk_chan *c, struct blk_req *r)
{
	r->shift = 0;
	r->top = c;
	if (r->op == BLK_WRITE || r->op == BLK_WRITE_ZEROES) {
		r->flags |= c->flags;
	}
	trace_blk_submit(c->node->name, r->op, r->off, r->len);
	chan_take(c, r);
}

void blk_forward(struct blk_chan *below, struct blk_req *r, uint64_t off)
{
	assert(below->upper == r->chan);
	r->shift += off - r->off;
	r->off = off;
	chan_take(below, r);
}

void blk_cancel(struct blk_req *r)
{
	struct blk_chan *c = r->chan;
	struct list *pos;

	list_for_each (pos, &c->waiting) {
		if (pos == &r->node) {
			list_del(&r->node);
			c->nwaiting--;
			c->inflight++;
			blk_complete_later(r, -ECANCELED);
			return;
		}
	}
	list_for_each (pos, &c->later) {
		if (pos == &r->node) {
			return; /* it ends anyway */
		}
	}
	if (c->node->drv->cancel) {
		c->node->drv->cancel(c, r);
	}
}

void blk_chan_hurry(struct blk_chan *c)
{
	if (c->node->drv->hurry) {
		c->node->drv->hurry(c);
	}
}
