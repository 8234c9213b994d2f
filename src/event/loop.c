/*
 * The event loop on epoll: see loop.h for the contract, loop_int.h for what a round is.
 *
 * Waking: wake_fd is an eventfd watched edge-triggered. Each write is an edge, so it need not
 * be read, which saves a system call per wake-up; only a full counter (after 2^64 wake-ups)
 * would have to be emptied.
 *
 * Sleeping: epoll_pwait2() (Linux 5.11) takes nanoseconds, so timers need no timerfd.
 *
 * Nothing here is reached by values of a guest or a peer; how often they can cause a round is
 * up to the callbacks.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "event/loop_int.h"
#include "event/trace.h"

#define NS_PER_SEC UINT64_C(1000000000)
#define NS_PER_MS  UINT64_C(1000000)

/* #syscalls(start): epoll_create1 eventfd2
 * #syscalls(main): epoll_ctl close */
int loop_new(struct loop **out, const char *name, unsigned flags)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
	const struct timespec zero = {0};
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		return -ENOMEM;
	}
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->virtual_clock = flags & LOOP_VIRTUAL;
	l->work_end = &l->work;
	list_init(&l->fds);
	list_init(&l->timers);
	list_init(&l->firing);
	list_init(&l->hooks);
	list_init(&l->hooks_todo);
	atomic_store(&l->owner, pthread_self());
	l->ep_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->ep_fd < 0) {
		r = -errno;
		goto free_loop;
	}
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0) {
		r = -errno;
		goto close_epoll;
	}
	/* The second call shows now, rather than in the first round, whether the kernel has it. */
	if (epoll_ctl(l->ep_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) ||
	    epoll_pwait2(l->ep_fd, l->ev, LOOP_EVENTS, &zero, NULL) < 0) {
		r = -errno;
		goto close_wake;
	}
	*out = l;
	return 0;

close_wake:
	close(l->wake_fd);
close_epoll:
	close(l->ep_fd);
free_loop:
	free(l);
	return r;
}

/* #syscalls(main): close */
void loop_free(struct loop *l)
{
	struct list *pos, *tmp;

	if (!l) {
		return;
	}
	assert(!l->thread_started && !l->in_round && !l->uring && !l->uring_threads);
	loop_own(l);
	/* Somebody may be waiting in loop_call(); and a work that is dropped stays "queued". */
	loop_work_run(l);
	list_for_each_safe (pos, tmp, &l->fds) {
		loop_fd_del(list_entry(pos, struct loop_fd, node));
	}
	list_for_each_safe (pos, tmp, &l->timers) {
		loop_timer_disarm(list_entry(pos, struct loop_timer, node));
	}
	list_for_each_safe (pos, tmp, &l->hooks) {
		list_del(pos);
	}
	close(l->wake_fd);
	close(l->ep_fd);
	free(l);
}

const char *loop_name(const struct loop *l)
{
	return l->name;
}

/* #syscalls(main,io): gettid */
void loop_own(struct loop *l)
{
	atomic_store_explicit(&l->owner, pthread_self(), memory_order_release);
	atomic_store_explicit(&l->tid, gettid(), memory_order_release);
}

bool loop_is_current(const struct loop *l)
{
	return pthread_equal(atomic_load_explicit(&l->owner, memory_order_acquire),
			     pthread_self());
}

pid_t loop_tid(const struct loop *l)
{
	return atomic_load_explicit(&l->tid, memory_order_acquire);
}

/* #syscalls: write read */
void loop_wake(struct loop *l)
{
	const uint64_t one = 1;
	uint64_t count;

	while (write(l->wake_fd, &one, sizeof(one)) < 0) {
		assert(errno == EINTR || errno == EAGAIN);
		if (errno == EAGAIN && read(l->wake_fd, &count, sizeof(count)) < 0) {
			assert(errno == EINTR || errno == EAGAIN);
		}
	}
}

uint64_t loop_now_ns(const struct loop *l)
{
	return l->virtual_clock ? atomic_load_explicit(&l->virtual_ns, memory_order_acquire)
				: now_ns();
}

/* ---- descriptors ---- */

/* #syscalls(main,io): epoll_ctl */
int loop_fd_add(struct loop *l, struct loop_fd *w, int fd, uint32_t events, loop_fd_fn *fn,
		void *opaque)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	assert(loop_is_current(l));
	*w = (struct loop_fd){.fd = fd, .fn = fn, .opaque = opaque, .events = events};
	list_init(&w->node);
	if (epoll_ctl(l->ep_fd, EPOLL_CTL_ADD, fd, &ev)) {
		return -errno;
	}
	w->loop = l;
	list_add_tail(&l->fds, &w->node);
	return 0;
}

/* #syscalls(main,io): epoll_ctl */
int loop_fd_mod(struct loop_fd *w, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	assert(w->loop && loop_is_current(w->loop));
	if (events == w->events) {
		return 0;
	}
	if (epoll_ctl(w->loop->ep_fd, EPOLL_CTL_MOD, w->fd, &ev)) {
		return -errno;
	}
	w->events = events;
	return 0;
}

/* #syscalls(main,io): epoll_ctl */
void loop_fd_del(struct loop_fd *w)
{
	struct loop *l = w->loop;
	int r;

	if (!l) {
		return;
	}
	assert(loop_is_current(l));
	/* Fails only if the descriptor was closed first. The kernel would then go on to report
	 * w for as long as a copy of the descriptor is open anywhere, and w may be freed. */
	r = epoll_ctl(l->ep_fd, EPOLL_CTL_DEL, w->fd, NULL);
	assert(r == 0);
	for (int i = 0; i < l->ev_count; i++) {
		if (l->ev[i].data.ptr == w) {
			l->ev[i].data.ptr = NULL;
		}
	}
	list_del(&w->node);
	w->loop = NULL;
}

static void loop_fd_run(struct loop *l)
{
	for (int i = 0; i < l->ev_count; i++) {
		struct loop_fd *w = l->ev[i].data.ptr;
		uint32_t events;

		if (!w) {
			continue; /* wake_fd, or deleted in this round */
		}
		/* A callback before this one may have lost interest with loop_fd_mod(). */
		events = l->ev[i].events & (w->events | EPOLLERR | EPOLLHUP);
		if (events) {
			w->fn(w->opaque, events);
		}
	}
	l->ev_count = 0;
}

/* ---- hooks ---- */

void loop_hook_add(struct loop *l, struct loop_hook *h)
{
	assert(loop_is_current(l));
	list_add_tail(&l->hooks, &h->node);
}

void loop_hook_del(struct loop_hook *h)
{
	list_del(&h->node);
}

/* Hooks move over one by one, so each of them may delete any of them. */
static void loop_hook_run(struct loop *l)
{
	while (!list_empty(&l->hooks)) {
		struct list *n = l->hooks.next;

		list_del(n);
		list_add_tail(&l->hooks_todo, n);
	}
	while (!list_empty(&l->hooks_todo)) {
		struct loop_hook *h = list_entry(l->hooks_todo.next, struct loop_hook, node);

		list_del(&h->node);
		list_add_tail(&l->hooks, &h->node);
		h->fn(h->opaque);
	}
}

/* ---- rounds ---- */

/* How long the round may sleep: true with *ts set, or false for "until something happens". */
static bool loop_timeout(struct loop *l, int timeout_ms, struct timespec *ts)
{
	uint64_t wait = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * NS_PER_MS;
	uint64_t due = loop_timer_next(l), now;

	if (loop_work_pending(l) || atomic_load(&l->stop)) {
		wait = 0;
	} else if (due != UINT64_MAX && wait > 0) {
		now = loop_now_ns(l);
		if (due <= now) {
			wait = 0;
		} else if (!l->virtual_clock) {
			wait = MIN(wait, due - now);
		}
	}
	ts->tv_sec = (time_t)(wait / NS_PER_SEC);
	ts->tv_nsec = (long)(wait % NS_PER_SEC);
	return wait != UINT64_MAX;
}

/* by_hand: what the caller waits for may have happened in a hook, so the round must not go to
 * sleep after that. loop_run() has nothing to look at and saves the extra round.
 * #syscalls(main,io): epoll_pwait2 */
static void loop_round(struct loop *l, int timeout_ms, bool by_hand)
{
	struct timespec ts;
	bool bounded;
	int n;

	assert(!l->in_round);
	l->in_round = true;
	l->hook_worked = false;
	loop_hook_run(l);
	if (by_hand && l->hook_worked) {
		timeout_ms = 0;
	}
	bounded = loop_timeout(l, timeout_ms, &ts);
	n = epoll_pwait2(l->ep_fd, l->ev, LOOP_EVENTS, bounded ? &ts : NULL, NULL);
	assert(n >= 0 || errno == EINTR);
	l->ev_count = n > 0 ? n : 0;
	trace_loop_wakeup(l->name, l->ev_count);
	loop_fd_run(l);
	loop_timer_run(l);
	loop_work_run(l);
	l->in_round = false;
}

void loop_run(struct loop *l)
{
	loop_own(l);
	while (!atomic_exchange(&l->stop, false)) {
		loop_round(l, -1, false);
	}
}

void loop_step(struct loop *l, int timeout_ms)
{
	assert(loop_is_current(l));
	loop_round(l, timeout_ms, true);
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	if (!loop_is_current(l)) {
		loop_wake(l);
	}
}
