/* event/loop.h: timers, on the real and on the virtual clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "event/loop.h"

#define MS UINT64_C(1000000)

static struct loop *l;
static char fired[64];

struct timer {
	struct loop_timer t;
	char name;
	uint64_t at;		 /* when it fired last */
	uint64_t period;	 /* re-arms itself that much later */
	struct loop_timer *kill; /* disarmed when it fires */
	struct timer *push;	 /* re-armed to 1000 ms when it fires */
};

static void timer_fire(void *opaque)
{
	struct timer *t = opaque;
	size_t n = strlen(fired);

	assert_false(t->t.armed);
	t->at = loop_now_ns(l);
	if (n < sizeof(fired) - 1) {
		fired[n] = t->name;
	}
	if (t->period) {
		loop_timer_arm(&t->t, t->t.due_ns + t->period);
	}
	if (t->kill) {
		loop_timer_disarm(t->kill);
	}
	if (t->push) {
		loop_timer_arm(&t->push->t, 1000 * MS);
	}
}

static struct timer timers[4];

static int setup(unsigned flags)
{
	memset(fired, 0, sizeof(fired));
	if (loop_new(&l, "timer", flags)) {
		return -1;
	}
	for (int i = 0; i < 4; i++) {
		timers[i] = (struct timer){.name = (char)('a' + i)};
		loop_timer_init(l, &timers[i].t, timer_fire, &timers[i]);
	}
	return 0;
}

static int setup_real(void **state)
{
	return setup(0);
}

static int setup_virtual(void **state)
{
	return setup(LOOP_VIRTUAL);
}

static int teardown(void **state)
{
	for (int i = 0; i < 4; i++) {
		loop_timer_disarm(&timers[i].t);
	}
	loop_free(l);
	return 0;
}

static void arm(int i, uint64_t ms)
{
	loop_timer_arm(&timers[i].t, ms * MS);
}

static void test_order(void **state)
{
	arm(0, 30);
	arm(1, 10);
	arm(2, 20);
	arm(3, 10); /* after b, which was armed first */
	loop_clock_advance(l, 9 * MS);
	assert_string_equal(fired, "");
	loop_clock_advance(l, MS);
	assert_string_equal(fired, "bd");
	loop_clock_advance(l, 100 * MS);
	assert_string_equal(fired, "bdca");
	assert_int_equal(timers[2].at, 20 * MS);
	assert_int_equal(timers[0].at, 30 * MS);
	assert_int_equal(loop_now_ns(l), 110 * MS);
	loop_step(l, 0);
	assert_string_equal(fired, "bdca");
}

static void test_rearm_and_disarm(void **state)
{
	arm(0, 10);
	arm(1, 20);
	arm(0, 30); /* only the last time counts */
	loop_timer_disarm(&timers[1].t);
	loop_timer_disarm(&timers[1].t);
	loop_clock_advance(l, 29 * MS);
	assert_string_equal(fired, "");
	assert_true(timers[0].t.armed);
	loop_clock_advance(l, MS);
	assert_string_equal(fired, "a");
}

static void test_same_batch(void **state)
{
	/* All due at once: a takes b out and puts c off. */
	for (int i = 0; i < 4; i++) {
		arm(i, 10);
	}
	timers[0].kill = &timers[1].t;
	timers[0].push = &timers[2];
	loop_clock_advance(l, 10 * MS);
	assert_string_equal(fired, "ad");
	loop_clock_advance(l, 1000 * MS);
	assert_string_equal(fired, "adc");
	assert_int_equal(timers[2].at, 1000 * MS);
}

static void test_periodic(void **state)
{
	timers[0].period = 10 * MS;
	arm(0, 10);
	loop_clock_advance(l, 55 * MS);
	assert_string_equal(fired, "aaaaa");
	assert_int_equal(timers[0].at, 50 * MS);
}

static void fire_in_the_past(void *opaque)
{
	struct timer *t = opaque;

	t->period++;
	loop_timer_arm(&t->t, 0);
}

/* A guest that always asks for a time that has passed gets one call a round. */
static void test_past(void **state)
{
	loop_timer_init(l, &timers[0].t, fire_in_the_past, &timers[0]);
	loop_timer_arm(&timers[0].t, 0);
	arm(1, 5);
	loop_step(l, -1);
	assert_int_equal(timers[0].period, 1);
	loop_step(l, -1);
	assert_int_equal(timers[0].period, 2);
	if (loop_now_ns(l) == 0) { /* the virtual clock */
		loop_clock_advance(l, 10 * MS);
		assert_int_equal(timers[0].period, 4); /* at 0 and, with b, at 5 */
	}
	assert_string_equal(fired, "b");
}

static void test_far(void **state)
{
	loop_timer_arm(&timers[0].t, UINT64_MAX);
	loop_timer_arm(&timers[1].t, UINT64_MAX - 1);
	loop_step(l, 0);
	assert_string_equal(fired, "");
}

static void test_virtual_sleep(void **state)
{
	uint64_t start = now_ns();

	arm(0, 10000);
	loop_step(l, 5); /* waits in real time; the clock stands still */
	assert_true(now_ns() - start >= 5 * MS);
	assert_int_equal(loop_now_ns(l), 0);
	loop_clock_advance(l, UINT64_MAX);
	loop_clock_advance(l, UINT64_MAX);
	assert_true(loop_now_ns(l) == UINT64_MAX);
	assert_string_equal(fired, "a");
}

static void test_real(void **state)
{
	uint64_t start = loop_now_ns(l);

	assert_true(start <= now_ns());
	loop_timer_arm(&timers[0].t, start + 10 * MS);
	loop_timer_arm(&timers[1].t, start + 5 * MS + 300000);
	loop_timer_arm(&timers[2].t, start + 60000 * MS);
	while (strlen(fired) < 2) {
		loop_step(l, -1);
	}
	assert_string_equal(fired, "ba");
	assert_true(timers[0].at >= start + 10 * MS);
	assert_true(timers[1].at >= start + 5 * MS + 300000);
	/* Fine-grained: far less than a minute, whatever else runs on the machine. */
	assert_true(timers[0].at < start + 10000 * MS);
}

static void test_random(void **state)
{
	enum { N = 300 };
	struct timer *t = calloc(N, sizeof(*t));
	uint64_t due[N] = {0};
	unsigned seed = 1;

	for (int i = 0; i < N; i++) {
		loop_timer_init(l, &t[i].t, timer_fire, &t[i]);
	}
	for (int i = 0; i < 5 * N; i++) {
		int j = rand_r(&seed) % N;

		due[j] = 1 + (uint64_t)rand_r(&seed) % 1000;
		loop_timer_arm(&t[j].t, due[j]);
		if (rand_r(&seed) % 4 == 0) {
			loop_timer_disarm(&t[j].t);
			due[j] = 0;
		}
	}
	for (int i = 0; i < 500; i++) {
		loop_clock_advance(l, 2);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(t[i].at, due[i]);
	}
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_rearm_and_disarm, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_same_batch, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_periodic, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_past, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_past, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_far, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_far, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_virtual_sleep, setup_virtual, teardown),
		cmocka_unit_test_setup_teardown(test_real, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup_virtual, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
