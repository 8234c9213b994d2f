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
#define MAX_TORN  16

struct blk_fault {
	struct blk_node node;
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
	struct iovec torn[MAX_TORN]; /* the part of a write that happens */
	struct loop_timer timer;
	int result;
	uint64_t delay_ns;
};

static struct blk_fault *of_node(struct blk_node *n)
{
	return container_of(n, struct blk_fault, node);
}

static void child_end(void *opaque)
{
	struct fault_req *f = opaque;
	struct blk_req *upper = f->upper;
	struct fault_chan *c = (struct fault_chan *)upper->chan;

	upper->status = f->req.status;
	f->next = c->spare;
	c->spare = f;
	blk_complete(upper, f->result);
}

static void child_done(struct blk_req *req, int result)
{
	struct fault_req *f = container_of(req, struct fault_req, req);

	f->result = f->result ? f->result : result;
	if (f->delay_ns) {
		struct loop *l = f->upper->chan->loop;

		loop_timer_init(l, &f->timer, child_end, f);
		loop_timer_arm(&f->timer, loop_now_ns(l) + f->delay_ns);
	} else {
		child_end(f);
	}
}

/* What a rule says of a request. */
struct verdict {
	int error;
	uint64_t torn, delay_ns;
};

/* The first bytes of a write, at most MAX_TORN pieces of them. */
static void tear(struct fault_req *f, uint64_t torn)
{
	struct iov_cur cur = iov_cur_init(f->req.iov, f->req.niov);
	unsigned n = 0;
	uint64_t len = 0;

	for (; n < MAX_TORN && cur.cnt && len < torn; n++) {
		size_t here = cur.iov->iov_len;

		here = MIN(here, torn - len);
		f->torn[n] = (struct iovec){cur.iov->iov_base, here};
		len += here;
		cur.iov++;
		cur.cnt--;
	}
	f->req.iov = f->torn;
	f->req.niov = n;
	f->req.len = len;
}

static void pass_on(struct fault_chan *c, struct blk_req *r, const struct verdict *v)
{
	struct fault_req *f = c->spare;

	if (v->error && !v->torn && !v->delay_ns) {
		blk_complete_later(r, v->error);
		return;
	}
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
	f->result = v->error;
	f->delay_ns = v->delay_ns;
	f->req = (struct blk_req){
		.op = r->op,
		.flags = r->flags,
		.off = r->off,
		.len = r->len,
		.iov = r->iov,
		.niov = r->niov,
		.done = child_done,
	};
	if (v->error && r->op == BLK_WRITE) {
		tear(f, v->torn);
	} else if (v->error) {
		f->req.len = 0;
		f->req.op = BLK_READ;
		f->req.niov = 0;
	}
	blk_submit(c->child, &f->req);
}

static bool rule_hits(struct blk_fault *b, const struct blk_req *r)
{
	const struct blk_fault_rule *u = &b->rule;

	if (!(u->ops >> r->op & 1) || !(u->error || u->delay_ns)) {
		return false;
	}
	if (u->len && (r->off >= u->off + u->len || r->off + r->len <= u->off)) {
		return false;
	}
	b->matched++;
	return b->matched > u->skip && (!u->count || b->matched <= u->skip + u->count);
}

static struct verdict judge_locked(struct blk_fault *b, const struct blk_req *r)
{
	if (!rule_hits(b, r)) {
		return (struct verdict){0};
	}
	return (struct verdict){b->rule.error, b->rule.torn, b->rule.delay_ns};
}

static void fault_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct fault_chan *c = (struct fault_chan *)chan;
	struct blk_fault *b = of_node(chan->node);
	struct verdict v;
	bool hold;

	pthread_mutex_lock(&b->lock);
	hold = b->hold;
	v = judge_locked(b, r);
	if (hold) {
		/* its error is known already, as if it had failed in the meantime */
		r->result = v.error;
		list_add_tail(&c->kept, &r->node);
		atomic_fetch_add(&b->held, 1);
	}
	pthread_mutex_unlock(&b->lock);
	if (!hold) {
		pass_on(c, r, &v);
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
			pass_on(c, r, &(struct verdict){0});
		}
	}
}

static void fault_cancel(struct blk_chan *chan, struct blk_req *r)
{
	struct fault_chan *c = (struct fault_chan *)chan;
	struct blk_fault *b = of_node(chan->node);
	struct list *pos;

	list_for_each (pos, &c->kept) {
		if (pos == &r->node) {
			list_del(&r->node);
			atomic_fetch_sub(&b->held, 1);
			blk_complete_later(r, -ECANCELED);
			return;
		}
	}
}

static int fault_chan_open(struct blk_chan *chan, struct err *err)
{
	struct fault_chan *c = (struct fault_chan *)chan;
	struct blk_fault *b = of_node(chan->node);
	int r = blk_chan_open(chan->node->file, chan->loop, &c->child, err);

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

	pthread_mutex_destroy(&b->lock);
}

static int fault_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			  struct err *err)
{
	return blk_truncate(n->file, size, prealloc, err);
}

static const struct blk_driver fault_driver = {
	.name = "fault",
	.node_size = sizeof(struct blk_fault),
	.chan_size = sizeof(struct fault_chan),
	.chan_open = fault_chan_open,
	.chan_close = fault_chan_close,
	.submit = fault_submit,
	.cancel = fault_cancel,
	.close = fault_close,
	.truncate = fault_truncate,
};

int blk_fault_new(const char *name, struct blk_node *child, struct blk_node **out)
{
	struct blk_fault *b = calloc(1, sizeof(*b));
	int r;

	if (!b) {
		blk_unref(child);
		return -ENOMEM;
	}
	pthread_mutex_init(&b->lock, NULL);
	blk_node_init(&b->node, &fault_driver, name, 2);
	blk_info_from(&b->node, child);
	b->node.follows = child;
	b->node.can_grow = child->can_grow;
	r = blk_add_child(&b->node, "file", child, NULL);
	if (r) {
		blk_unref(&b->node);
		return r;
	}
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
