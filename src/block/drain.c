/*
 * Stopping a node: its channels hold new requests back until the last drain ends.
 *
 * blk_drain_begin() posts to the loop of every channel. There the channel is held from then on,
 * and once nothing is in flight and every done() has returned it is `idle`. A drain is told when
 * every channel is. Channels that open meanwhile are held and idle from the start; one whose loop
 * does not run (a blk_io between two calls) is asleep and not waited for; those that close are no
 * longer asked.
 *
 * Threads: drains belong to the control loop, `held`, `waiting` and `inflight` to the channel's
 * loop; `draining`, `idle` and the lists are under node->lock, which is no lock of the data
 * path: a channel takes it when it becomes idle while held, and when it opens or closes.
 */
#include <assert.h>

#include "block/block_int.h"

/* Tells every drain that has not been told, if all channels are idle. lock held. */
static void tell_locked(struct blk_node *n)
{
	struct list *pos;

	list_for_each (pos, &n->chans) {
		const struct blk_chan *c = list_entry(pos, const struct blk_chan, link);

		if (!c->idle && !c->asleep) {
			return;
		}
	}
	list_for_each (pos, &n->drains) {
		struct blk_drain *d = list_entry(pos, struct blk_drain, node);

		if (!d->told) {
			d->told = true;
			loop_post(d->loop, &d->work);
		}
	}
}

static void chan_release(struct blk_chan *c)
{
	while (!c->held && c->nwaiting) {
		struct blk_req *r = list_entry(c->waiting.next, struct blk_req, node);

		list_del(&r->node);
		c->nwaiting--;
		c->inflight++;
		blk_chan_start(c, r);
	}
}

/* On the channel's loop: draining may have begun or ended, or both. */
static void chan_look(void *arg)
{
	struct blk_chan *c = arg;
	struct blk_node *n = c->node;

	pthread_mutex_lock(&n->lock);
	c->held = n->draining > 0;
	if (c->held && !c->inflight) {
		c->idle = true;
		tell_locked(n);
	}
	pthread_mutex_unlock(&n->lock);
	if (!c->held) {
		chan_release(c);
	} else if (c->inflight) {
		blk_chan_hurry(c);
	}
}

void blk_drain_chan_init(struct blk_chan *c)
{
	struct blk_node *n = c->node;

	c->drain_work = (struct loop_work){.fn = chan_look, .arg = c};
	pthread_mutex_lock(&n->lock);
	list_add_tail(&n->chans, &c->link);
	c->held = c->idle = n->draining > 0;
	pthread_mutex_unlock(&n->lock);
}

void blk_drain_chan_sleep(struct blk_chan *c, bool asleep)
{
	struct blk_node *n = c->node;

	pthread_mutex_lock(&n->lock);
	c->asleep = asleep;
	if (n->draining && asleep) {
		tell_locked(n);
	}
	c->held = c->idle = n->draining > 0;
	pthread_mutex_unlock(&n->lock);
}

void blk_drain_chan_gone(struct blk_chan *c)
{
	struct blk_node *n = c->node;

	pthread_mutex_lock(&n->lock);
	list_del(&c->link);
	if (n->draining) {
		tell_locked(n);
	}
	pthread_mutex_unlock(&n->lock);
	/* Nobody posts any more: it is in no list. */
	loop_work_cancel(c->loop, &c->drain_work);
}

static void drained(void *arg)
{
	struct blk_drain *d = arg;

	d->drained(d->opaque);
}

static void chans_look_locked(struct blk_node *n)
{
	struct list *pos;

	list_for_each (pos, &n->chans) {
		struct blk_chan *c = list_entry(pos, struct blk_chan, link);

		loop_post(c->loop, &c->drain_work);
	}
}

void blk_drain_begin(struct blk_node *n, struct blk_drain *d)
{
	d->on = n;
	d->told = false;
	d->work = (struct loop_work){.fn = drained, .arg = d};
	pthread_mutex_lock(&n->lock);
	list_add_tail(&n->drains, &d->node);
	if (n->draining++ == 0) {
		chans_look_locked(n);
	}
	tell_locked(n);
	pthread_mutex_unlock(&n->lock);
}

void blk_drain_end(struct blk_drain *d)
{
	struct blk_node *n = d->on;
	struct list *pos;

	pthread_mutex_lock(&n->lock);
	assert(n->draining > 0);
	list_del(&d->node);
	if (--n->draining == 0) {
		list_for_each (pos, &n->chans) {
			list_entry(pos, struct blk_chan, link)->idle = false;
		}
		chans_look_locked(n);
	}
	pthread_mutex_unlock(&n->lock);
	loop_work_cancel(d->loop, &d->work);
}
