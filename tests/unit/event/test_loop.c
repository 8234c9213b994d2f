/* event/loop.h: descriptors, hooks, rounds, stopping, signals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "event/loop.h"

static struct loop *l;

static int setup(void **state)
{
	return loop_new(&l, "test", 0);
}

static int teardown(void **state)
{
	loop_free(l);
	return 0;
}

struct sock {
	int fd[2]; /* [0] is watched */
	struct loop_fd w;
	int calls;
	uint32_t events;
	struct sock *victim; /* deleted, or changed, by the callback */
	uint32_t victim_events;
};

static void sock_event(void *opaque, uint32_t events)
{
	struct sock *s = opaque;

	s->calls++;
	s->events = events;
	if (s->victim && s->victim_events) {
		assert_int_equal(loop_fd_mod(&s->victim->w, s->victim_events), 0);
	} else if (s->victim) {
		loop_fd_del(&s->victim->w);
	}
}

static void sock_open(struct sock *s, uint32_t events)
{
	*s = (struct sock){0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s->fd), 0);
	assert_int_equal(loop_fd_add(l, &s->w, s->fd[0], events, sock_event, s), 0);
}

static void sock_send(struct sock *s)
{
	assert_int_equal(write(s->fd[1], "x", 1), 1);
}

static void sock_close(struct sock *s)
{
	loop_fd_del(&s->w);
	close(s->fd[0]);
	close(s->fd[1]);
}

static void test_ready(void **state)
{
	struct sock s;
	char c;

	sock_open(&s, EPOLLIN);
	loop_step(l, 0);
	assert_int_equal(s.calls, 0);
	sock_send(&s);
	loop_step(l, -1);
	assert_int_equal(s.calls, 1);
	assert_int_equal(s.events, EPOLLIN);
	loop_step(l, -1); /* level-triggered */
	assert_int_equal(s.calls, 2);
	assert_int_equal(read(s.fd[0], &c, 1), 1);
	loop_step(l, 0);
	assert_int_equal(s.calls, 2);

	assert_int_equal(loop_fd_mod(&s.w, EPOLLIN | EPOLLOUT), 0);
	loop_step(l, -1);
	assert_int_equal(s.events, EPOLLOUT);
	assert_int_equal(loop_fd_mod(&s.w, 0), 0);
	s.calls = 0;
	loop_step(l, 0);
	assert_int_equal(s.calls, 0);
	shutdown(s.fd[1], SHUT_RDWR);
	loop_step(l, -1);
	assert_int_equal(s.events, EPOLLHUP);

	loop_fd_del(&s.w);
	assert_null(s.w.loop);
	s.calls = 0;
	loop_step(l, 0);
	assert_int_equal(s.calls, 0);
	sock_close(&s); /* deleting once more does no harm */
}

static void test_add_fails(void **state)
{
	struct loop_fd w, again;
	int p[2], file = memfd_create("file", MFD_CLOEXEC);

	assert_int_equal(loop_fd_add(l, &w, -1, EPOLLIN, sock_event, NULL), -EBADF);
	assert_null(w.loop);
	assert_int_equal(loop_fd_add(l, &w, file, EPOLLIN, sock_event, NULL), -EPERM);
	assert_null(w.loop);
	loop_fd_del(&w);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(loop_fd_add(l, &w, p[0], EPOLLIN, sock_event, NULL), 0);
	assert_int_equal(loop_fd_add(l, &again, p[0], EPOLLIN, sock_event, NULL), -EEXIST);
	loop_fd_del(&w);
	close(p[0]);
	close(p[1]);
	close(file);
}

/* Whichever the kernel reports first deletes the other: exactly one may be called. */
static void test_del_in_round(void **state)
{
	struct sock a, b;

	sock_open(&a, EPOLLIN);
	sock_open(&b, EPOLLIN);
	a.victim = &b;
	b.victim = &a;
	sock_send(&a);
	sock_send(&b);
	loop_step(l, -1);
	assert_int_equal(a.calls + b.calls, 1);
	sock_close(&a);
	sock_close(&b);

	/* It may delete itself, too. */
	sock_open(&a, EPOLLIN);
	a.victim = &a;
	sock_send(&a);
	loop_step(l, -1);
	loop_step(l, 0);
	assert_int_equal(a.calls, 1);
	sock_close(&a);
}

static void test_mod_in_round(void **state)
{
	struct sock a, b;

	sock_open(&a, EPOLLIN);
	sock_open(&b, EPOLLIN);
	a.victim = &b;
	b.victim = &a;
	a.victim_events = b.victim_events = EPOLLRDHUP;
	sock_send(&a);
	sock_send(&b);
	loop_step(l, -1);
	assert_int_equal(a.calls + b.calls, 1);
	sock_close(&a);
	sock_close(&b);
}

struct reuse {
	struct sock *other;
	struct sock fresh;
	bool done;
};

static void reuse_event(void *opaque, uint32_t events)
{
	struct reuse *r = opaque;
	struct sock *o = r->other;

	if (r->done) {
		return;
	}
	r->done = true;
	/* The same memory now watches another descriptor, which is not ready. */
	loop_fd_del(&o->w);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, r->fresh.fd), 0);
	assert_int_equal(loop_fd_add(l, &o->w, r->fresh.fd[0], EPOLLIN, sock_event, o), 0);
}

static void test_reuse_in_round(void **state)
{
	struct sock a, b;
	struct reuse r = {.other = &b};

	sock_open(&a, EPOLLIN);
	sock_send(&a);
	loop_fd_del(&a.w);
	assert_int_equal(loop_fd_add(l, &a.w, a.fd[0], EPOLLIN, reuse_event, &r), 0);
	sock_open(&b, EPOLLIN);
	sock_send(&b);
	loop_step(l, -1);
	assert_true(r.done);
	assert_int_equal(b.calls, 0); /* a was ready first, and is reported first */
	close(r.fresh.fd[1]);
	loop_step(l, -1);
	assert_int_equal(b.calls, 1);
	sock_close(&a);
	sock_close(&b);
	close(r.fresh.fd[0]);
}

/* More ready descriptors than a round handles: each gets its turn. */
static void test_many(void **state)
{
	enum { N = 150 };
	struct sock *s = calloc(N, sizeof(*s));

	for (int i = 0; i < N; i++) {
		sock_open(&s[i], EPOLLIN);
		sock_send(&s[i]);
	}
	for (int i = 0; i < 3; i++) {
		loop_step(l, -1);
	}
	for (int i = 0; i < N; i++) {
		assert_in_range(s[i].calls, 1, 2);
		sock_close(&s[i]);
	}
	free(s);
}

/* ---- hooks ---- */

struct hook {
	struct loop_hook h;
	int calls;
	struct hook *victim;
};

static void hook_run(void *opaque)
{
	struct hook *h = opaque;

	h->calls++;
	if (h->victim) {
		loop_hook_del(&h->victim->h);
		h->victim = NULL;
	}
}

static void test_hooks(void **state)
{
	struct hook h[4] = {0};
	int want[4] = {2, 1, 1, 2};

	for (int i = 0; i < 4; i++) {
		h[i].h = (struct loop_hook){.fn = hook_run, .opaque = &h[i]};
		loop_hook_add(l, &h[i].h);
	}
	h[0].victim = &h[2]; /* has not run yet in this round */
	loop_step(l, 0);
	assert_int_equal(h[2].calls, 0);
	h[2].h = (struct loop_hook){.fn = hook_run, .opaque = &h[2]};
	loop_hook_add(l, &h[2].h);
	h[1].calls = 0;
	h[1].victim = &h[1];
	h[3].victim = &h[0]; /* has run already */
	loop_step(l, 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(h[i].calls, want[i]);
	}
	loop_step(l, 0);
	assert_int_equal(h[0].calls, 2);
	assert_int_equal(h[1].calls, 1);
	assert_int_equal(h[3].calls, 3);
	loop_hook_del(&h[2].h);
	loop_hook_del(&h[3].h);
}

/* ---- stopping, time, signals ---- */

static void stop_event(void *opaque, uint32_t events)
{
	loop_stop(l);
}

static void test_run_and_stop(void **state)
{
	struct sock s;

	assert_int_equal(loop_tid(l), 0);
	loop_stop(l); /* asked before it runs: ends at once */
	loop_run(l);
	assert_int_equal(loop_tid(l), gettid());
	assert_true(loop_is_current(l));
	assert_string_equal(loop_name(l), "test");

	for (int i = 0; i < 2; i++) {
		sock_open(&s, EPOLLIN);
		s.w.fn = stop_event;
		sock_send(&s);
		loop_run(l);
		sock_close(&s);
	}
}

static void test_step_waits(void **state)
{
	uint64_t start = now_ns();

	loop_step(l, 20);
	assert_true(now_ns() - start >= 20000000);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	alarms++;
}

static void test_signals(void **state)
{
	struct sigaction sa = {.sa_handler = on_alarm}, old;
	struct itimerval every = {{0, 1000}, {0, 1000}}, off = {0};
	struct sock s;

	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	sock_open(&s, EPOLLIN);
	assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
	while (alarms < 20) {
		loop_step(l, 1000);
	}
	assert_int_equal(s.calls, 0);
	sock_send(&s);
	while (s.calls == 0) {
		loop_step(l, -1);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	sock_close(&s);
}

/* What its users left behind is taken out, not left dangling. */
static void test_free_detaches(void **state)
{
	struct loop_timer t;
	struct loop *other;
	struct loop_fd w;
	int p[2];

	assert_int_equal(loop_new(&other, "a name longer than fifteen", 0), 0);
	assert_string_equal(loop_name(other), "a name longer t");
	assert_int_equal(pipe(p), 0);
	assert_int_equal(loop_fd_add(other, &w, p[0], EPOLLIN, sock_event, NULL), 0);
	loop_timer_init(other, &t, NULL, NULL);
	loop_timer_arm(&t, 5);
	loop_free(other);
	assert_null(w.loop);
	assert_false(t.armed);
	loop_fd_del(&w);
	loop_timer_disarm(&t);
	loop_free(NULL);
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_del_in_round, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mod_in_round, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reuse_in_round, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hooks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_run_and_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_step_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
		cmocka_unit_test(test_free_detaches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
