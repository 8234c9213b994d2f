/*
 * driver=throttle: hands requests down to its child, not faster than its group's limits permit.
 *
 * Reads are one direction, writes, write-zeroes and discards the other; flushes and queries
 * pass. A request that may go at once is handed down inside submit(). Else it waits in its
 * channel, and the channel takes its place among those of the group that wait in that
 * direction. The first one there has the turn: on its loop a timer is set for the moment when
 * the limits permit its first request, which then goes, and the channel goes to the end. So
 * disks of one group share it evenly, however many requests each has.
 *
 * A drain or a stop of the machine must not wait for a limit: blk_chan_hurry() lets go what
 * waits, and what it used is paid for by what comes later.
 *
 * Threads: requests that wait, timers and work are their channel's loop's; turns and levels are
 * under the group's lock, which every throttled request takes once or twice.
 */
#include <errno.h>
#include <stddef.h>

#include "block/throttle_int.h"

struct blk_throttle {
	struct blk_node node;
	struct throttle_group *group;
};

struct throttle_chan;
/* One direction of a channel. */
struct lane {
	struct throttle_chan *chan;
	bool write;
	struct list waiting; /* requests */
	struct list turn;    /* group->lock: in group->turn[write], or alone */
	struct loop_timer timer;
	struct loop_work work;
};

struct throttle_chan {
	struct blk_chan chan;
	struct blk_chan *below;
	struct throttle_group *group;
	struct lane lane[2];
};

static struct throttle_chan *of_chan(struct blk_chan *c)
{
	return container_of(c, struct throttle_chan, chan);
}

/* Whoever has the turn looks when its request may go. */
static void turn_look_locked(struct throttle_group *t, bool write)
{
	if (!list_empty(&t->turn[write])) {
		struct lane *first = list_entry(t->turn[write].next, struct lane, turn);

		loop_post(first->chan->chan.loop, &first->work);
	}
}

void blk_throttle_look_locked(struct throttle_group *t)
{
	turn_look_locked(t, false);
	turn_look_locked(t, true);
}

static struct blk_req *first_waiting(struct lane *l)
{
	struct blk_req *r = list_entry(l->waiting.next, struct blk_req, node);

	list_del(&r->node);
	return r;
}

/* Takes what may go, as long as it is this lane's turn; the rest waits for the timer. */
static void lane_run(void *arg)
{
	struct lane *l = arg;
	struct throttle_chan *c = l->chan;
	struct throttle_group *t = c->group;
	struct list go = {&go, &go};
	uint64_t now, wait;

	loop_timer_disarm(&l->timer);
	now = loop_now_ns(c->chan.loop);
	pthread_mutex_lock(&t->lock);
	while (!list_empty(&l->waiting) && t->turn[l->write].next == &l->turn) {
		struct blk_req *r;

		wait = throttle_wait_locked(t, l->write, now);
		if (wait) {
			loop_timer_arm(&l->timer, now + wait);
			break;
		}
		r = first_waiting(l);
		throttle_charge_locked(t, l->write, r->len, now);
		list_add_tail(&go, &r->node);
		list_del(&l->turn);
		if (!list_empty(&l->waiting)) {
			list_add_tail(&t->turn[l->write], &l->turn);
		}
	}
	if (t->turn[l->write].next != &l->turn) {
		turn_look_locked(t, l->write);
	}
	pthread_mutex_unlock(&t->lock);
	while (!list_empty(&go)) {
		struct blk_req *r = list_entry(go.next, struct blk_req, node);

		list_del(&r->node);
		blk_forward(c->below, r, r->off);
	}
}

/* May r go at once? Then it is paid for. Else it has a place. */
static bool admit(struct lane *l, struct blk_req *r)
{
	struct throttle_group *t = l->chan->group;
	uint64_t now = loop_now_ns(l->chan->chan.loop);
	bool go;

	pthread_mutex_lock(&t->lock);
	go = list_empty(&t->turn[l->write]) && !throttle_wait_locked(t, l->write, now);
	if (go) {
		throttle_charge_locked(t, l->write, r->len, now);
	} else {
		list_add_tail(&l->waiting, &r->node);
		if (list_empty(&l->turn)) {
			list_add_tail(&t->turn[l->write], &l->turn);
			turn_look_locked(t, l->write);
		}
	}
	pthread_mutex_unlock(&t->lock);
	return go;
}

static void throttle_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct throttle_chan *c = of_chan(chan);
	bool write = blk_op_writes(r->op);

	if ((!write && r->op != BLK_READ) || admit(&c->lane[write], r)) {
		blk_forward(c->below, r, r->off);
	}
}

static void lane_leave(struct lane *l)
{
	struct throttle_group *t = l->chan->group;

	pthread_mutex_lock(&t->lock);
	list_del(&l->turn);
	turn_look_locked(t, l->write);
	pthread_mutex_unlock(&t->lock);
	loop_timer_disarm(&l->timer);
}

static void throttle_cancel(struct blk_chan *chan, struct blk_req *r)
{
	struct throttle_chan *c = of_chan(chan);
	struct lane *l = &c->lane[blk_op_writes(r->op)];
	struct list *pos;

	list_for_each (pos, &l->waiting) {
		if (pos == &r->node) {
			list_del(&r->node);
			if (list_empty(&l->waiting)) {
				lane_leave(l);
			}
			blk_complete_later(r, -ECANCELED);
			return;
		}
	}
}

static void throttle_hurry(struct blk_chan *chan)
{
	struct throttle_chan *c = of_chan(chan);
	uint64_t now = loop_now_ns(chan->loop);

	for (int i = 0; i < 2; i++) {
		struct lane *l = &c->lane[i];

		if (list_empty(&l->waiting)) {
			continue;
		}
		lane_leave(l);
		while (!list_empty(&l->waiting)) {
			struct blk_req *r = first_waiting(l);

			pthread_mutex_lock(&c->group->lock);
			throttle_charge_locked(c->group, l->write, r->len, now);
			pthread_mutex_unlock(&c->group->lock);
			blk_forward(c->below, r, r->off);
		}
	}
	blk_chan_hurry(c->below);
}

static int throttle_chan_open(struct blk_chan *chan, struct err *err)
{
	struct throttle_chan *c = of_chan(chan);

	c->group = container_of(chan->node, struct blk_throttle, node)->group;
	for (int i = 0; i < 2; i++) {
		struct lane *l = &c->lane[i];

		l->chan = c;
		l->write = i;
		list_init(&l->waiting);
		list_init(&l->turn);
		loop_timer_init(chan->loop, &l->timer, lane_run, l);
		l->work = (struct loop_work){.fn = lane_run, .arg = l};
	}
	return blk_chan_open_below(chan, chan->node->file, &c->below, err);
}

static void throttle_chan_close(struct blk_chan *chan)
{
	struct throttle_chan *c = of_chan(chan);

	for (int i = 0; i < 2; i++) {
		loop_timer_disarm(&c->lane[i].timer);
		loop_work_cancel(chan->loop, &c->lane[i].work);
	}
	blk_chan_close(c->below);
}

/* --- the node --- */

struct throttle_options {
	char *group;
};
static const struct opt_desc throttle_rows[] = {
	{"throttle-group", OPT_STR, offsetof(struct throttle_options, group), .required = true},
	{.key = NULL},
};

static int throttle_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_throttle *t = container_of(n, struct blk_throttle, node);
	struct throttle_options c = {.group = NULL};
	struct blk_node *child;
	int r;

	blk_child_keys(o, "file");
	r = opts_read(o, throttle_rows, &c, err);
	if (!r) {
		t->group = throttle_group_get(n->graph, c.group);
		if (!t->group) {
			r = err_set(
				err, ENOENT,
				"%s: throttle-group=%s: there is no such group; add -object "
				"throttle-group,id=%s",
				o->what, c.group, c.group);
		}
	}
	if (!r) {
		r = blk_open_child(n, o, "file", true, &child, err);
	}
	if (!r) {
		blk_info_from(n, child);
		n->follows = child;
		n->can_grow = child->can_grow;
	}
	opts_free_struct(throttle_rows, &c);
	return r;
}

static void throttle_close(struct blk_node *n)
{
	(void)n;
}

static int throttle_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			     struct err *err)
{
	return blk_truncate(n->file, size, prealloc, err);
}

const struct blk_driver blk_throttle_driver = {
	.name = "throttle",
	.node_size = sizeof(struct blk_throttle),
	.chan_size = sizeof(struct throttle_chan),
	.open = throttle_open,
	.close = throttle_close,
	.chan_open = throttle_chan_open,
	.chan_close = throttle_chan_close,
	.submit = throttle_submit,
	.cancel = throttle_cancel,
	.hurry = throttle_hurry,
	.truncate = throttle_truncate,
	.reopen = blk_reopen_file,
};
