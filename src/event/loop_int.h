/*
 * The inside of struct loop, for the files of this folder.
 *
 * A round (loop_step) is: hooks, sleep, descriptors, timers, posted work. Invariants:
 *  1. The loop goes to sleep only if `posted` and `work` are empty; who makes `posted`
 *     non-empty afterwards writes to wake_fd. So nothing posted waits for an unrelated event.
 *  2. No callback is called after its object was deleted, disarmed or cancelled: what a round
 *     has collected is reachable from here (ev, firing, hooks_todo, work), so that it can be
 *     taken back.
 *  3. A round is bounded: what callbacks add (timers that are due at once, posts to their own
 *     loop) belongs to the next round.
 *
 * Threads: only the members marked "any thread" are touched by others than the owner.
 */
#ifndef EVENT_LOOP_INT_H
#define EVENT_LOOP_INT_H

#include <stdatomic.h>
#include <sys/epoll.h>

#include "event/loop.h"

#define LOOP_EVENTS 64 /* handled in one round; what is beyond that waits its turn */

struct uring;

struct loop {
	char name[16];	    /* constant: any thread */
	bool virtual_clock; /* constant */
	int ep_fd;
	int wake_fd; /* eventfd, edge-triggered and never read; any thread */

	/* any thread */
	_Atomic pthread_t owner;
	_Atomic pid_t tid;
	_Atomic uint64_t virtual_ns;
	_Atomic bool stop;
	struct loop_work *_Atomic posted; /* newest first; pushed by any, taken by the owner */

	/* work taken from `posted`, oldest first; work_end is the last `next` */
	struct loop_work *work, **work_end;

	struct list fds;
	struct epoll_event ev[LOOP_EVENTS];
	int ev_count;	    /* of the round */
	bool in_round;	    /* a callback of loop_step() is running */
	struct list timers; /* by due time, equal ones in the order of arming */
	struct list firing; /* due in this round */
	struct list hooks;
	struct list hooks_todo; /* not called in this round yet */
	bool hook_worked;	/* a hook has called back its user: see loop_step() */

	struct uring *uring, *uring_threads; /* uring.c; NULL while nobody uses it */

	pthread_t thread;
	bool thread_started;
	loop_work_fn *thread_init;
	void *thread_arg;
	_Atomic uint32_t thread_ready; /* futex */
};

/* loop.c */
void loop_wake(struct loop *l); /* any thread */

/* loop_timer.c */
/* When the next timer is due; UINT64_MAX without one. */
uint64_t loop_timer_next(const struct loop *l);
void loop_timer_run(struct loop *l);

/* loop_work.c */
bool loop_work_pending(struct loop *l);
void loop_work_run(struct loop *l);
/* A thread with a small stack and the signals of a thread that is not main. 0 or -errno. */
int loop_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg);

#endif
