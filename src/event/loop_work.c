/*
 * Work from other threads, and loops with a thread of their own: see loop.h.
 *
 * `posted` is a stack that any thread pushes to and only the owner empties, all at once. So
 * there is no lock and no ABA problem: a push that finds its old head again is right whatever
 * happened in between. Only the push that makes the stack non-empty wakes the owner; the owner
 * itself never does, because it looks before it sleeps (loop_int.h, invariant 1).
 *
 * `queued` is read-modify-written on both sides. A poster that finds it set has then released
 * its data to the owner, whose later exchange acquires it, so the one call that is to come sees
 * what both posters did.
 *
 * loop_call() keeps its state on the caller's stack. The owner stores `done` last and wakes by
 * address; the caller may be gone by then, which FUTEX_WAKE tolerates: it does not read it.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"
#include "event/loop_int.h"
#include "event/trace.h"

/* ---- futexes: one word that goes from 0 to 1 once ---- */

/* #syscalls: futex */
static void flag_wait(_Atomic uint32_t *flag)
{
	while (!atomic_load_explicit(flag, memory_order_acquire)) {
		/* EAGAIN, EINTR and a wake-up meant for another all end in the test above. */
		syscall(SYS_futex, flag, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	}
}

/* #syscalls: futex */
static void flag_set(_Atomic uint32_t *flag)
{
	atomic_store_explicit(flag, 1, memory_order_release);
	syscall(SYS_futex, flag, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ---- posting ---- */

void loop_post(struct loop *l, struct loop_work *w)
{
	struct loop_work *head;

	if (atomic_exchange_explicit(&w->queued, true, memory_order_acq_rel)) {
		return;
	}
	trace_loop_post(l->name);
	head = atomic_load_explicit(&l->posted, memory_order_relaxed);
	do {
		w->next = head;
	} while (!atomic_compare_exchange_weak_explicit(
		&l->posted, &head, w, memory_order_release, memory_order_relaxed));
	if (!head && !loop_is_current(l)) {
		loop_wake(l);
	}
}

/* Appends what was posted, oldest first, to l->work. */
static void loop_work_collect(struct loop *l)
{
	struct loop_work *w, *first = NULL, **end;

	if (!atomic_load_explicit(&l->posted, memory_order_relaxed)) {
		return;
	}
	w = atomic_exchange_explicit(&l->posted, NULL, memory_order_acquire);
	end = &w->next; /* the newest becomes the last */
	while (w) {
		struct loop_work *next = w->next;

		w->next = first;
		first = w;
		w = next;
	}
	*l->work_end = first;
	l->work_end = end;
}

bool loop_work_pending(struct loop *l)
{
	return l->work || atomic_load_explicit(&l->posted, memory_order_acquire);
}

static struct loop_work *loop_work_pop(struct loop *l)
{
	struct loop_work *w = l->work;

	l->work = w->next;
	if (!l->work) {
		l->work_end = &l->work;
	}
	return w;
}

void loop_work_run(struct loop *l)
{
	unsigned n = 0;

	loop_work_collect(l);
	for (struct loop_work *w = l->work; w; w = w->next) {
		n++;
	}
	/* loop_work_cancel() in a callback may shorten the list; n is only the bound. */
	while (n-- > 0 && l->work) {
		struct loop_work *w = loop_work_pop(l);
		loop_work_fn *fn = w->fn;
		void *arg = w->arg;

		/* From here on w may be posted again, by any thread. */
		atomic_exchange_explicit(&w->queued, false, memory_order_acq_rel);
		fn(arg);
	}
}

bool loop_work_cancel(struct loop *l, struct loop_work *w)
{
	assert(loop_is_current(l));
	loop_work_collect(l);
	for (struct loop_work **p = &l->work; *p; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			if (!*p) {
				l->work_end = p;
			}
			atomic_exchange_explicit(&w->queued, false, memory_order_acq_rel);
			return true;
		}
	}
	return false;
}

struct call {
	struct loop_work work;
	loop_work_fn *fn;
	void *arg;
	_Atomic uint32_t done;
};

static void call_run(void *arg)
{
	struct call *c = arg;

	c->fn(c->arg);
	flag_set(&c->done);
}

void loop_call(struct loop *l, loop_work_fn *fn, void *arg)
{
	struct call c = {.work = {.fn = call_run, .arg = &c}, .fn = fn, .arg = arg};

	if (loop_is_current(l)) {
		fn(arg);
		return;
	}
	loop_post(l, &c.work);
	flag_wait(&c.done);
}

/* ---- threads ---- */

/* #syscalls(io): prctl set_robust_list rseq rt_sigprocmask exit madvise */
static void *thread_main(void *arg)
{
	struct loop *l = arg;

	loop_own(l);
	prctl(PR_SET_NAME, l->name);
	if (l->thread_init) {
		l->thread_init(l->thread_arg);
	}
	flag_set(&l->thread_ready);
	loop_run(l);
	return NULL;
}

int loop_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	/* Signals are for the main thread, but those that say "this thread is broken". */
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGABRT, SIGTRAP};
	sigset_t blocked, old;
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r) {
		return -r;
	}
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	sigfillset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		sigdelset(&blocked, own[i]);
	}
	pthread_sigmask(SIG_BLOCK, &blocked, &old);
	r = pthread_create(thread, &attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

/* #syscalls(main): clone3 mmap mprotect munmap rt_sigprocmask futex */
int loop_thread_start(struct loop *l, loop_work_fn *thread_init, void *arg)
{
	int r;

	assert(loop_is_current(l) && !l->thread_started && !l->in_round);
	l->thread_init = thread_init;
	l->thread_arg = arg;
	atomic_store(&l->thread_ready, 0);
	r = loop_thread_create(&l->thread, thread_main, l);
	if (r) {
		return r;
	}
	l->thread_started = true;
	flag_wait(&l->thread_ready);
	return 0;
}

/* #syscalls(main): futex munmap */
void loop_thread_join(struct loop *l)
{
	if (!l->thread_started) {
		return;
	}
	assert(!loop_is_current(l));
	loop_stop(l);
	pthread_join(l->thread, NULL);
	l->thread_started = false;
	loop_own(l);
	atomic_store(&l->tid, 0);
	atomic_store(&l->stop, false);
	/* What came too late for the thread, so that no loop_call() waits for ever. */
	loop_work_run(l);
}
