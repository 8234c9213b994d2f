/*
 * mem/mem.h from several threads (run under TSAN too): readers and writers on RAM that stays,
 * while the control loop adds and removes other regions; and no dirty bit is lost while the log
 * is being read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "mem/mem.h"

#define PAGE	UINT64_C(4096)
#define READERS 3

struct worker {
	struct mem *m;
	gpa_t gpa; /* a page of its own, in the middle of the address space */
	_Atomic bool *stop;
	_Atomic uint64_t rounds;
	uint64_t bad;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct iovec iov[2];

	while (!atomic_load(w->stop)) {
		uint64_t v = ++w->rounds, back = 0;

		if (mem_write(w->m, w->gpa, &v, sizeof(v)) < 0 ||
		    mem_read(w->m, w->gpa, &back, sizeof(back)) < 0 || back != v ||
		    mem_span(w->m, w->gpa, PAGE, true, iov, 2) != 1 ||
		    mem_ptr(w->m, w->gpa, 8, false) != iov[0].iov_base) {
			w->bad++;
		}
		mem_dirty_iov(w->m, iov, 1, 8);
	}
	return NULL;
}

static void test_readers_while_regions_change(void **state)
{
	struct mem_region *keep, *r[40];
	struct worker w[READERS];
	pthread_t t[READERS];
	_Atomic bool stop = false;
	struct mem *m;

	assert_int_equal(mem_new(&m), 0);
	assert_int_equal(
		mem_region_add(m, "keep", 1 * GiB, READERS * PAGE, MEM_RAM, 0, &keep, NULL), 0);
	assert_int_equal(mem_log_start(m), 0);
	for (int i = 0; i < READERS; i++) {
		w[i] = (struct worker){.m = m, .gpa = 1 * GiB + i * PAGE, .stop = &stop};
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
		while (w[i].rounds == 0) {
			sched_yield();
		}
	}
	for (int round = 0; round < 40; round++) {
		/* On both sides of it, so that its row moves up and down. */
		for (unsigned i = 0; i < 40; i++) {
			gpa_t gpa = i % 2 ? 2 * GiB + i * PAGE : i * PAGE;

			assert_int_equal(
				mem_region_add(m, "x", gpa, PAGE, MEM_RAM, 0, &r[i], NULL), 0);
		}
		for (unsigned i = 0; i < 40; i++) {
			mem_region_del(m, r[i]);
		}
	}
	stop = true;
	for (int i = 0; i < READERS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(w[i].bad, 0);
	}
	mem_log_stop(m);
	mem_free(m);
}

struct dirtier {
	struct mem *m;
	_Atomic uint32_t *page; /* the counter that stands in each page */
	unsigned pages;
};

static void *dirty(void *arg)
{
	struct dirtier *d = arg;

	for (unsigned i = 0; i < 20000; i++) {
		unsigned p = (i * 7919u) % d->pages;

		atomic_fetch_add_explicit(&d->page[p * (PAGE / 4)], 1, memory_order_relaxed);
		mem_dirty(d->m, p * PAGE, 4);
	}
	return NULL;
}

static void test_no_bit_lost(void **state)
{
	enum { N = 100 };
	uint32_t copy[N] = {0};
	uint64_t bm[2];
	struct mem_region *r;
	struct dirtier d;
	struct mem *m;
	pthread_t t;
	int left = 3; /* rounds after the writer has ended */
	bool done = false;

	assert_int_equal(mem_new(&m), 0);
	assert_int_equal(mem_region_add(m, "a", 0, N * PAGE, MEM_RAM, 0, &r, NULL), 0);
	d = (struct dirtier){m, mem_region_host(r), N};
	assert_int_equal(mem_log_start(m), 0);
	assert_int_equal(pthread_create(&t, NULL, dirty, &d), 0);
	/* As migration does: copy what is marked, until nothing is. */
	while (left) {
		if (!done && (done = pthread_tryjoin_np(t, NULL) == 0)) {
			left = 1;
		}
		assert_int_equal(mem_log_sync(m, r, bm, 2), 0);
		for (unsigned p = 0; p < N; p++) {
			if (bm[p / 64] >> (p % 64) & 1) {
				copy[p] = atomic_load_explicit(&d.page[p * (PAGE / 4)],
							       memory_order_relaxed);
			}
		}
		left -= done;
	}
	for (unsigned p = 0; p < N; p++) {
		assert_int_equal(copy[p], d.page[p * (PAGE / 4)]);
		assert_int_equal(copy[p], 200);
	}
	mem_log_stop(m);
	mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_while_regions_change),
		cmocka_unit_test(test_no_bit_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
