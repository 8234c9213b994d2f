/*
 * The timers of a loop: see loop.h.
 *
 * A list sorted by due time, searched from its end when a timer is armed: a loop has tens of
 * timers, and most are armed for later than those that wait already. No allocation.
 *
 * A timer that is armed for a time that has passed fires in the next round, not in this one,
 * so a device whose guest asks for that again and again cannot keep the loop from its work.
 */
#include <assert.h>

#include "event/loop_int.h"

void loop_timer_init(struct loop *l, struct loop_timer *t, loop_timer_fn *fn, void *opaque)
{
	*t = (struct loop_timer){.loop = l, .fn = fn, .opaque = opaque};
	list_init(&t->node);
}

void loop_timer_arm(struct loop_timer *t, uint64_t due_ns)
{
	struct loop *l = t->loop;
	struct list *pos;

	assert(loop_is_current(l));
	if (t->armed) {
		list_del(&t->node);
	}
	t->due_ns = due_ns;
	t->armed = true;
	for (pos = l->timers.prev; pos != &l->timers; pos = pos->prev) {
		if (list_entry(pos, struct loop_timer, node)->due_ns <= due_ns) {
			break;
		}
	}
	/* behind pos, that is, before its successor */
	list_add_tail(pos->next, &t->node);
}

void loop_timer_disarm(struct loop_timer *t)
{
	if (!t->armed) {
		return;
	}
	assert(loop_is_current(t->loop));
	list_del(&t->node);
	t->armed = false;
}

uint64_t loop_timer_next(const struct loop *l)
{
	return list_empty(&l->timers)
		       ? UINT64_MAX
		       : list_entry(l->timers.next, struct loop_timer, node)->due_ns;
}

/* Fires what is due now. A timer stays armed, in the list of those about to fire, until its
 * turn comes, so that an earlier callback can disarm or re-arm it. */
void loop_timer_run(struct loop *l)
{
	uint64_t due = loop_timer_next(l), now;

	if (due == UINT64_MAX) {
		return;
	}
	now = loop_now_ns(l);
	while (loop_timer_next(l) <= now && !list_empty(&l->timers)) {
		struct list *n = l->timers.next;

		list_del(n);
		list_add_tail(&l->firing, n);
	}
	while (!list_empty(&l->firing)) {
		struct loop_timer *t = list_entry(l->firing.next, struct loop_timer, node);

		list_del(&t->node);
		t->armed = false;
		t->fn(t->opaque);
	}
}

/* The first timer that is due in (after, until], or NULL: those due earlier were re-armed in
 * the past by their callbacks and have to wait for the next round. */
static struct loop_timer *timer_between(struct loop *l, uint64_t after, uint64_t until)
{
	struct list *pos;

	list_for_each (pos, &l->timers) {
		struct loop_timer *t = list_entry(pos, struct loop_timer, node);

		if (t->due_ns > after) {
			return t->due_ns <= until ? t : NULL;
		}
	}
	return NULL;
}

void loop_clock_advance(struct loop *l, uint64_t ns)
{
	uint64_t now = loop_now_ns(l), until;
	struct loop_timer *t;

	assert(l->virtual_clock && loop_is_current(l) && !l->in_round);
	if (u64_add(now, ns, &until)) {
		until = UINT64_MAX;
	}
	l->in_round = true;
	loop_timer_run(l);
	while ((t = timer_between(l, now, until))) {
		now = t->due_ns;
		atomic_store_explicit(&l->virtual_ns, now, memory_order_release);
		loop_timer_run(l);
	}
	atomic_store_explicit(&l->virtual_ns, until, memory_order_release);
	l->in_round = false;
}
