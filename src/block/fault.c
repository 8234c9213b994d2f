/*
 * A filter for tests: passes requests on to its child, fails those that a rule names, and holds
 * all of them while it is told to, so that a test can stop the world in mid-I/O.
 *
 * Threads: rule and hold are set from any thread under `lock`; requests are on their channel's
 * loop. A held request stays in its channel's list until blk_fault_hold(…, false) posts to that
 * loop.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "block/block_int.h"

#define MAX_CHANS 8

struct blk_fault {
	struct blk_node node;
	struct blk_node *child;
	pthread_mutex_t lock; /* what follows */
	struct blk_fault_rule rule;
	unsigned matched;
	bool hold;
	struct fault_chan *chan[MAX_CHANS];
	_Atomic unsigned held;
};

struct fault_chan {
	struct blk_chan chan;
	struct blk_chan *child;
	struct list kept;
	struct loop_work release;
	struct fault_req *spare;
};

/* The child needs a request of its own: the upper one's fields are in use. */
struct fault_req {
	struct blk_req req;
	struct blk_req *upper;
	struct fault_req *next;
};

static struct blk_fault *of_node(struct blk_node *n)
{
	return container_of(n, struct blk_fault, node);
}

static void child_done(struct blk_req *req, int result)
{
	struct fault_req *f = container_of(req, struct fault_req, req);
	struct blk_req *upper = f->upper;
	struct fault_chan *c = (struct fault_chan *)upper->chan;

	f->next = c->spare;
	c->spare = f;
	blk_complete(upper, result);
}

static void pass_on(struct fault_chan *c, struct blk_req *r)
{
	struct fault_req *f = c->spare;

	if (f) {
		c->spare = f->next;
	} else {
		f = calloc(1, sizeof(*f));
	}
	if (!f) {
		blk_complete_later(r, -ENOMEM);
		return;
	}
	f->upper = r;
	f->req = (struct blk_req){
		.op = r->op,
		.flags = r->flags,
		.off = r->off,
		.len = r->len,
		.iov = r->iov,
		.niov = r->niov,
		.done = child_done,
	};
	blk_submit(c->child, &f->req);
}

static bool rule_hits(struct blk_fault *b, const struct blk_req *r)
{
	const struct blk_fault_rule *u = &b->rule;

	if (!(u->ops >> r->op & 1) || !u->error) {
		return false;
	}
	if (u->len && (r->off >= u->off + u->len || r->off + r->len <= u->off)) {
		return false;
	}
	b->matched++;
	return b->matched > u->skip && (!u->count || b->matched <= u->skip + u->count);
}

static void fault_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct fault_chan *c = (struct fault_chan *)chan;
	struct blk_fault *b = of_node(chan->node);
	bool hold;
	int error;

	pthread_mutex_lock(&b->lock);
	hold = b->hold;
	error = rule_hits(b, r) ? b->rule.error : 0;
	if (hold) {
		r->result = error;
		list_add_tail(&c->kept, &r->node);
		atomic_fetch_add(&b->held, 1);
	}
	pthread_mutex_unlock(&b->lock);
	if (hold) {
		return;
	}
	if (error) {
		blk_complete_later(r, error);
	} else {
		pass_on(c, r);
	}
}

static void chan_release(void *arg)
{
	struct fault_chan *c = arg;
	struct blk_fault *b = of_node(c->chan.node);

	for (;;) {
		struct blk_req *r = NULL;

		pthread_mutex_lock(&b->lock);
		if (!b->hold && !list_empty(&c->kept)) {
			r = list_entry(c->kept.next, struct blk_req, node);
			list_del(&r->node);
			atomic_fetch_sub(&b->held, 1);
		}
		pthread_mutex_unlock(&b->lock);
		if (!r) {
			return;
		}
		if (r->result) {
			blk_complete(r, r->result);
		} else {
			pass_on(c, r);
		}
	}
}

static int fault_chan_open(struct blk_chan *chan, struct err *err)
{
	struct fault_chan *c = (struct fault_chan *)chan;
	struct blk_fault *b = of_node(chan->node);
	int r = blk_chan_open(b->child, chan->loop, &c->child, err);

	if (r < 0) {
		return r;
	}
	list_init(&c->kept);
	c->release = (struct loop_work){.fn = chan_release, .arg = c};
	pthread_mutex_lock(&b->lock);
	r = -ENOSPC;
	for (unsigned i = 0; i < MAX_CHANS && r < 0; i++) {
		if (!b->chan[i]) {
			b->chan[i] = c;
			r = 0;
		}
	}
	pthread_mutex_unlock(&b->lock);
	if (r < 0) {
		blk_chan_close(c->child);
		return err_set(err, ENOSPC, "disk '%s' has too many channels", b->node.name);
	}
	return 0;
}

static void fault_chan_close(struct blk_chan *chan)
{
	struct fault_chan *c = (struct fault_chan *)chan;
	struct blk_fault *b = of_node(chan->node);

	pthread_mutex_lock(&b->lock);
	for (unsigned i = 0; i < MAX_CHANS; i++) {
		if (b->chan[i] == c) {
			b->chan[i] = NULL;
		}
	}
	pthread_mutex_unlock(&b->lock);
	loop_work_cancel(chan->loop, &c->release);
	while (c->spare) {
		struct fault_req *f = c->spare;

		c->spare = f->next;
		free(f);
	}
	blk_chan_close(c->child);
}

static void fault_close(struct blk_node *n)
{
	struct blk_fault *b = of_node(n);

	blk_close(b->child);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

static const struct blk_node_ops fault_ops = {
	.name = "fault",
	.chan_size = sizeof(struct fault_chan),
	.chan_open = fault_chan_open,
	.chan_close = fault_chan_close,
	.submit = fault_submit,
	.close = fault_close,
};

int blk_fault_new(const char *name, struct blk_node *child, struct blk_node **out)
{
	struct blk_fault *b = calloc(1, sizeof(*b));

	if (!b) {
		return -ENOMEM;
	}
	blk_node_init(&b->node, &fault_ops, name, 2);
	b->child = child;
	b->node.info = child->info;
	pthread_mutex_init(&b->lock, NULL);
	*out = &b->node;
	return 0;
}

void blk_fault_set(struct blk_node *n, const struct blk_fault_rule *rule)
{
	struct blk_fault *b = of_node(n);

	pthread_mutex_lock(&b->lock);
	b->rule = rule ? *rule : (struct blk_fault_rule){0};
	b->matched = 0;
	pthread_mutex_unlock(&b->lock);
}

void blk_fault_hold(struct blk_node *n, bool on)
{
	struct blk_fault *b = of_node(n);

	pthread_mutex_lock(&b->lock);
	b->hold = on;
	for (unsigned i = 0; i < MAX_CHANS && !on; i++) {
		if (b->chan[i]) {
			loop_post(b->chan[i]->chan.loop, &b->chan[i]->release);
		}
	}
	pthread_mutex_unlock(&b->lock);
}

unsigned blk_fault_held(struct blk_node *n)
{
	return atomic_load(&of_node(n)->held);
}
