/*
 * An event loop: one thread waits for descriptors, timers and work posted by other threads.
 *
 * Threads: everything is for the thread that runs the loop ("the owner") unless it says "any
 * thread". Before loop_run() is first called the creating thread is the owner.
 * No function here allocates after loop_new(); the structs are embedded in their users.
 */
#ifndef EVENT_LOOP_H
#define EVENT_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

struct loop;

/* LOOP_VIRTUAL: time stands still until loop_clock_advance(), for tests. */
enum { LOOP_VIRTUAL = 1 };

/* name: for logs and the thread's comm, at most 15 characters are kept; copied. 0 or -errno
 * (-ENOSYS: a kernel before 5.11). The virtual clock starts at 0. */
int loop_new(struct loop **out, const char *name, unsigned flags);
/* By the owner, outside of a callback, its thread joined, its uring put. Work still posted is
 * run; descriptors, timers and hooks that are left are removed. Harmless on NULL. */
void loop_free(struct loop *l);
const char *loop_name(const struct loop *l);

/* Runs until loop_stop(); may be called again afterwards. A loop_stop() from before the call
 * ends it at once. The caller becomes the owner. */
void loop_run(struct loop *l);
/* Any thread; not async-signal-safe. Work posted later runs when the loop runs again. */
void loop_stop(struct loop *l);
/* One round: waits at most timeout_ms (-1: for ever), handles what is ready. For tests, and for
 * winding down after loop_run(). Does not wait after a request was completed without waiting, so
 * `while (!done) loop_step(l, -1);` is right. Never from a callback of the same loop. */
void loop_step(struct loop *l, int timeout_ms);
/* The caller becomes the owner, of a loop that nobody runs and whose former owner has done with. */
void loop_own(struct loop *l);
/* Any thread: is the caller the owner? */
bool loop_is_current(const struct loop *l);

/* --- descriptors --- */
struct loop_fd;
typedef void loop_fd_fn(void *opaque, uint32_t events); /* EPOLLIN, EPOLLOUT, … */
struct loop_fd {
	int fd;
	loop_fd_fn *fn;
	void *opaque;
	struct loop *loop; /* NULL: not added */
	uint32_t events;
	struct list node; /* internal */
};
/* Level-triggered. w must stay in place until loop_fd_del(), and fd open: it is closed after
 * that, never before. 0 or -errno (-EPERM: a regular file; -EEXIST: fd is watched already). After
 * loop_fd_del() returns, fn is not called again, even if it was ready in the same round; w may
 * be freed at once. EPOLLERR and EPOLLHUP are reported even with events 0: delete w then. A w
 * that was never added has loop NULL. */
int loop_fd_add(struct loop *l, struct loop_fd *w, int fd, uint32_t events, loop_fd_fn *fn,
		void *opaque);
int loop_fd_mod(struct loop_fd *w, uint32_t events);
void loop_fd_del(struct loop_fd *w); /* harmless if not added */

/* --- timers: fire once, in the order of due time, never before it --- */
typedef void loop_timer_fn(void *opaque);
struct loop_timer {
	struct loop *loop;
	loop_timer_fn *fn;
	void *opaque;
	uint64_t due_ns;
	bool armed;
	struct list node;
};
void loop_timer_init(struct loop *l, struct loop_timer *t, loop_timer_fn *fn, void *opaque);
void loop_timer_arm(struct loop_timer *t, uint64_t due_ns); /* absolute, re-arms */
void loop_timer_disarm(struct loop_timer *t);
/* CLOCK_MONOTONIC, or the virtual clock. Any thread. */
uint64_t loop_now_ns(const struct loop *l);
/* LOOP_VIRTUAL only. Fires the timers that come due on the way from inside this call, each at
 * its own time (so a periodic one fires once per period). One that re-arms itself for a time
 * that has passed fires in the next loop_step(). */
void loop_clock_advance(struct loop *l, uint64_t ns);

/* --- once a round, before the loop sleeps: batched submission (io_uring) --- */
typedef void loop_hook_fn(void *opaque);
struct loop_hook {
	loop_hook_fn *fn;
	void *opaque;
	struct list node;
};
void loop_hook_add(struct loop *l, struct loop_hook *h);
void loop_hook_del(struct loop_hook *h);

/* --- from other threads --- */
typedef void loop_work_fn(void *arg);
struct loop_work {
	loop_work_fn *fn;
	void *arg;
	struct loop_work *next;
	_Atomic bool queued;
};
/* Any thread. Runs w->fn(w->arg) once on the owner. A work that is queued already stays queued
 * once. w may be reused as soon as fn is called; it must outlive the call. Never fails. */
void loop_post(struct loop *l, struct loop_work *w);
/* Any thread. Runs fn(arg) on the owner and waits until it has returned; on the owner itself
 * it is a plain call. The owner must not itself wait for the calling thread. */
void loop_call(struct loop *l, loop_work_fn *fn, void *arg);
/* Takes back a work that was posted to l; true if it was queued. For the owner, before it frees
 * what holds w, when no other thread posts w any more. */
bool loop_work_cancel(struct loop *l, struct loop_work *w);

/* --- a loop with a thread of its own (-object iothread) --- */
/* The thread runs thread_init(arg) first if given (the sandbox narrows itself there); this call
 * returns when that has returned, and from then on the thread is the owner. All signals but
 * those of a broken thread (SIGSEGV, …) are blocked in it. 0 or -errno. */
int loop_thread_start(struct loop *l, loop_work_fn *thread_init, void *arg);
/* loop_stop() and wait; harmless if not started. The caller is the owner again; what was posted
 * before this call has run. */
void loop_thread_join(struct loop *l);
pid_t loop_tid(const struct loop *l); /* 0 before it runs; any thread */

#endif
