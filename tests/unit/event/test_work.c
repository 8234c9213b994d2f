/* event/loop.h: posts, calls and threads. Meant for TSAN as much as for what it asserts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "event/loop.h"

static struct loop *l;

static int setup(void **state)
{
	return loop_new(&l, "work", 0);
}

static int setup_thread(void **state)
{
	return loop_new(&l, "work", 0) || loop_thread_start(l, NULL, NULL);
}

static int teardown(void **state)
{
	loop_thread_join(l);
	loop_free(l);
	return 0;
}

/* ---- on the owner itself ---- */

struct item {
	struct loop_work w;
	char name;
	int again; /* posts itself that often */
	struct item *cancel;
	bool cancelled;
};
static char ran[64];

static void item_run(void *arg)
{
	struct item *i = arg;
	size_t n = strlen(ran);

	ran[n] = i->name;
	ran[n + 1] = '\0';
	if (i->again > 0) {
		i->again--;
		loop_post(l, &i->w);
	}
	if (i->cancel) {
		i->cancel->cancelled = loop_work_cancel(l, &i->cancel->w);
	}
}

static void items_init(struct item *items)
{
	ran[0] = '\0';
	for (int i = 0; i < 4; i++) {
		items[i] = (struct item){.w = {.fn = item_run, .arg = &items[i]},
					 .name = (char)('a' + i)};
	}
}

static void test_order(void **state)
{
	struct item items[4];

	items_init(items);
	for (int i = 0; i < 4; i++) {
		loop_post(l, &items[i].w);
		loop_post(l, &items[i].w); /* queued already: once */
	}
	assert_string_equal(ran, "");
	loop_step(l, -1);
	assert_string_equal(ran, "abcd");
	loop_step(l, 0);
	assert_string_equal(ran, "abcd");
	loop_post(l, &items[1].w);
	loop_step(l, -1);
	assert_string_equal(ran, "abcdb");
}

static void test_again(void **state)
{
	struct item items[4];

	items_init(items);
	items[0].again = 2;
	loop_post(l, &items[0].w);
	loop_post(l, &items[1].w);
	loop_step(l, -1);
	assert_string_equal(ran, "ab"); /* what it posts itself is for the next round */
	loop_step(l, -1);
	assert_string_equal(ran, "aba");
	loop_step(l, -1);
	assert_string_equal(ran, "abaa");
	loop_step(l, 0);
	assert_string_equal(ran, "abaa");
}

static void test_cancel(void **state)
{
	struct item items[4];

	items_init(items);
	assert_false(loop_work_cancel(l, &items[0].w));
	for (int i = 0; i < 4; i++) {
		loop_post(l, &items[i].w);
	}
	assert_true(loop_work_cancel(l, &items[0].w));
	assert_true(loop_work_cancel(l, &items[3].w));
	assert_false(loop_work_cancel(l, &items[3].w));
	loop_post(l, &items[0].w);
	items[1].cancel = &items[2]; /* b runs before c and takes it out */
	loop_step(l, -1);
	assert_string_equal(ran, "ba");
	assert_true(items[2].cancelled);
	/* All that is left goes, and the list still works. */
	loop_post(l, &items[2].w);
	assert_true(loop_work_cancel(l, &items[2].w));
	loop_post(l, &items[3].w);
	loop_step(l, -1);
	assert_string_equal(ran, "bad");
}

static void test_free_runs(void **state)
{
	struct item items[4];
	struct loop *other;

	items_init(items);
	assert_int_equal(loop_new(&other, "other", 0), 0);
	loop_post(other, &items[0].w);
	loop_free(other);
	assert_string_equal(ran, "a");
	assert_false(items[0].w.queued);
}

/* ---- between threads ---- */

#define POSTERS 4
#define POSTS	5000

struct poster {
	struct loop_work w[8];
	_Atomic uint64_t runs;
};

static void poster_ran(void *arg)
{
	struct poster *p = arg;

	assert_true(loop_is_current(l));
	atomic_fetch_add(&p->runs, 1);
}

/* Posts as fast as it can; every work runs exactly once a post that found it idle. */
static void *poster_main(void *arg)
{
	struct poster *p = arg;
	uint64_t posted = 0;

	for (int i = 0; i < POSTS; i++) {
		struct loop_work *w = &p->w[i % 8];

		while (atomic_load(&w->queued)) {
			sched_yield();
		}
		loop_post(l, w);
		posted++;
	}
	while (atomic_load(&p->runs) != posted) {
		sched_yield();
	}
	return NULL;
}

static void test_many_posters(void **state)
{
	static struct poster posters[POSTERS];
	pthread_t t[POSTERS];

	for (int i = 0; i < POSTERS; i++) {
		memset(&posters[i], 0, sizeof(posters[i]));
		for (int j = 0; j < 8; j++) {
			posters[i].w[j] =
				(struct loop_work){.fn = poster_ran, .arg = &posters[i]};
		}
		assert_int_equal(pthread_create(&t[i], NULL, poster_main, &posters[i]), 0);
	}
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(posters[i].runs, POSTS);
	}
}

/* One work shared by all: every value stored before a post is seen by a run after it. */
static _Atomic uint64_t value[POSTERS], value_seen[POSTERS];

static void shared_ran(void *arg)
{
	for (int i = 0; i < POSTERS; i++) {
		atomic_store(&value_seen[i],
			     atomic_load_explicit(&value[i], memory_order_relaxed));
	}
}

static struct loop_work shared_work = {.fn = shared_ran};

static void *shared_main(void *arg)
{
	size_t me = (size_t)arg;

	for (uint64_t i = 1; i <= POSTS; i++) {
		atomic_store_explicit(&value[me], i, memory_order_relaxed);
		loop_post(l, &shared_work);
		if (i % 64 == 0) {
			while (atomic_load(&value_seen[me]) != i) {
				sched_yield();
			}
		}
	}
	return NULL;
}

static void nothing(void *arg)
{
}

static void test_shared_work(void **state)
{
	pthread_t t[POSTERS];

	for (size_t i = 0; i < POSTERS; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, shared_main, (void *)i), 0);
	}
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(t[i], NULL);
	}
	loop_call(l, nothing, NULL);
	for (int i = 0; i < POSTERS; i++) {
		assert_int_equal(value_seen[i], POSTS);
	}
}

static void call_count(void *arg)
{
	uint64_t *count = arg; /* plain: only the owner touches it while callers wait */

	assert_true(loop_is_current(l));
	(*count)++;
}

static uint64_t calls;

static void *caller_main(void *arg)
{
	uint64_t mine = 0;

	for (int i = 0; i < 2000; i++) {
		loop_call(l, call_count, &calls);
		loop_call(l, call_count, &mine);
	}
	assert_int_equal(mine, 2000);
	return NULL;
}

static void test_calls(void **state)
{
	pthread_t t[POSTERS];

	calls = 0;
	for (int i = 0; i < POSTERS; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, caller_main, NULL), 0);
	}
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(t[i], NULL);
	}
	assert_int_equal(calls, POSTERS * 2000);
}

static void test_call_on_owner(void **state)
{
	uint64_t count = 0;

	loop_call(l, call_count, &count);
	assert_int_equal(count, 1);
}

/* A loop that is stepped by hand serves calls, too. */
static void *one_call(void *arg)
{
	loop_call(l, call_count, arg);
	return NULL;
}

static void test_call_to_stepped(void **state)
{
	uint64_t count = 0;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, one_call, &count), 0);
	while (count == 0) {
		loop_step(l, -1);
	}
	pthread_join(t, NULL);
	assert_int_equal(count, 1);
}

/* ---- a thread of its own ---- */

struct report {
	pid_t init_tid, tid;
	char comm[16];
	sigset_t blocked;
};

static void report_init(void *arg)
{
	((struct report *)arg)->init_tid = gettid();
}

static void report_fill(void *arg)
{
	struct report *r = arg;

	r->tid = gettid();
	prctl(PR_GET_NAME, r->comm);
	pthread_sigmask(SIG_BLOCK, NULL, &r->blocked);
}

static void test_thread(void **state)
{
	struct report r = {0};

	assert_int_equal(loop_tid(l), 0);
	assert_int_equal(loop_thread_start(l, report_init, &r), 0);
	assert_int_not_equal(r.init_tid, 0);
	assert_int_equal(loop_tid(l), r.init_tid);
	assert_false(loop_is_current(l));
	loop_call(l, report_fill, &r);
	assert_int_equal(r.tid, r.init_tid);
	assert_int_not_equal(r.tid, gettid());
	assert_string_equal(r.comm, "work");
	assert_true(sigismember(&r.blocked, SIGTERM));
	assert_true(sigismember(&r.blocked, SIGINT));
	assert_false(sigismember(&r.blocked, SIGSEGV));
	loop_thread_join(l);
	loop_thread_join(l);
	assert_true(loop_is_current(l));
	assert_int_equal(loop_tid(l), 0);
	/* The caller owns it again, and it can be started again. */
	loop_step(l, 0);
	assert_int_equal(loop_thread_start(l, NULL, NULL), 0);
}

/* Posted just before the end: has run when the join returns, wherever it ran. */
static void test_join_runs_posts(void **state)
{
	for (int i = 0; i < 100; i++) {
		uint64_t count = 0;
		struct loop_work w = {.fn = call_count, .arg = &count};

		assert_int_equal(loop_thread_start(l, NULL, NULL), 0);
		loop_stop(l);
		loop_post(l, &w);
		loop_thread_join(l);
		assert_int_equal(count, 1);
	}
}

static void stop_self(void *arg)
{
	loop_stop(l);
}

static void test_stop_from_work(void **state)
{
	struct loop_work w = {.fn = stop_self};

	loop_post(l, &w);
	loop_run(l);
	assert_false(w.queued);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_posters, setup_thread, teardown),
		cmocka_unit_test_setup_teardown(test_shared_work, setup_thread, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup_thread, teardown),
		cmocka_unit_test_setup_teardown(test_call_on_owner, setup, teardown),
		cmocka_unit_test_setup_teardown(test_call_to_stepped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_join_runs_posts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_from_work, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
