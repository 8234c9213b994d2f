/* mem/mem.h, dirty log: exactly the pages that were written, each reported once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "mem/mem.h"

#define PAGE  UINT64_C(4096)
#define PAGES 130 /* two full words and two bits of a third */
#define WORDS 3

static struct mem_region *add(struct mem *m, const char *name, gpa_t gpa, enum mem_kind kind)
{
	struct mem_region *r;

	assert_int_equal(mem_region_add(m, name, gpa, PAGES * PAGE, kind, 0, &r, NULL), 0);
	return r;
}

static void expect(struct mem *m, struct mem_region *r, uint64_t w0, uint64_t w1, uint64_t w2)
{
	uint64_t bm[WORDS + 1] = {1, 2, 3, 4};

	assert_int_equal(mem_log_sync(m, r, bm, WORDS + 1), 0);
	assert_int_equal(bm[0], w0);
	assert_int_equal(bm[1], w1);
	assert_int_equal(bm[2], w2);
	assert_int_equal(bm[3], 0);
	assert_int_equal(mem_log_sync(m, r, bm, WORDS), 0);
	assert_int_equal(bm[0] | bm[1] | bm[2], 0);
}

static void test_exact_bits(void **state)
{
	struct mem_region *a, *b, *fw;
	struct iovec iov[4];
	uint64_t bm[WORDS];
	struct mem *m;
	int n;

	assert_int_equal(mem_new(&m), 0);
	a = add(m, "a", 0, MEM_RAM);
	b = add(m, "b", PAGES * PAGE, MEM_RAM);
	fw = add(m, "fw", 1000 * PAGE, MEM_FIRMWARE);
	assert_int_equal(mem_region_pages(a), PAGES);

	assert_int_equal(mem_write(m, 0, "x", 1), 0); /* before the log: forgotten */
	assert_int_equal(mem_log_sync(m, a, bm, WORDS), -EINVAL);
	assert_int_equal(mem_log_start(m), 0);
	assert_int_equal(mem_log_start(m), -EALREADY);
	assert_int_equal(mem_log_sync(m, a, bm, WORDS - 1), -EINVAL);
	assert_int_equal(mem_log_sync(m, fw, bm, WORDS), -EINVAL);
	expect(m, a, 0, 0, 0);

	assert_int_equal(mem_write(m, 3 * PAGE + PAGE - 1, "xy", 2), 0); /* 3 and 4 */
	expect(m, a, 0x18, 0, 0);
	assert_int_equal(mem_write(m, 3 * PAGE, "x", 1), 0);
	assert_int_equal(mem_read(m, 9 * PAGE, iov, 1), 0); /* reading marks nothing */
	assert_int_equal(mem_write(m, 5 * PAGE, "", 0), 0);
	mem_dirty(m, 6 * PAGE, 0);
	expect(m, a, 8, 0, 0);

	/* Words in full, their neighbours not. */
	mem_dirty(m, 64 * PAGE, 64 * PAGE);
	expect(m, a, 0, UINT64_MAX, 0);
	mem_dirty(m, 64 * PAGE - 1, 1 + 64 * PAGE + 1);
	expect(m, a, UINT64_C(1) << 63, UINT64_MAX, 1);
	mem_dirty(m, 64 * PAGE - 1, 2);
	expect(m, a, UINT64_C(1) << 63, 1, 0);

	/* Over the border of two regions. */
	mem_dirty(m, (PAGES - 1) * PAGE, 2 * PAGE);
	expect(m, a, 0, 0, 2);
	expect(m, b, 1, 0, 0);

	/* The bytes that a device reports of a span, no more. */
	n = mem_span(m, (PAGES - 1) * PAGE + 10, 3 * PAGE, true, iov, 4);
	assert_int_equal(n, 2);
	mem_dirty_iov(m, iov, n, PAGE - 10);
	expect(m, a, 0, 0, 2);
	expect(m, b, 0, 0, 0);
	mem_dirty_iov(m, iov, n, PAGE - 10 + 1);
	expect(m, a, 0, 0, 2);
	expect(m, b, 1, 0, 0);
	mem_dirty_iov(m, iov, n, 1000 * PAGE);
	expect(m, a, 0, 0, 2);
	expect(m, b, 7, 0, 0);
	mem_dirty_iov(m, iov, n, 0);
	expect(m, a, 0, 0, 0);

	/* Memory that is added now was never seen: all of it. */
	expect(m, add(m, "late", 2000 * PAGE, MEM_RAM), UINT64_MAX, UINT64_MAX, 3);

	mem_log_stop(m);
	mem_dirty(m, 0, PAGE);
	assert_int_equal(mem_log_sync(m, a, bm, WORDS), -EINVAL);
	/* A new log starts clean. */
	assert_int_equal(mem_log_start(m), 0);
	expect(m, a, 0, 0, 0);
	mem_log_stop(m);
	mem_log_stop(m);
	mem_free(m);
}

struct recorder {
	struct mem_listener l;
	unsigned started, stopped, syncs;
	int start_rc, sync_rc;
	uint64_t bits[WORDS + 2];
};

static int rec_add(struct mem_listener *l, struct mem_region *r, struct err *err)
{
	return 0;
}

static void rec_del(struct mem_listener *l, struct mem_region *r)
{
}

static int rec_start(struct mem_listener *l)
{
	struct recorder *rec = container_of(l, struct recorder, l);

	if (rec->start_rc == 0) {
		rec->started++;
	}
	return rec->start_rc;
}

static void rec_stop(struct mem_listener *l)
{
	container_of(l, struct recorder, l)->stopped++;
}

static int rec_sync(struct mem_listener *l, struct mem_region *r)
{
	struct recorder *rec = container_of(l, struct recorder, l);

	rec->syncs++;
	if (rec->sync_rc == 0) {
		mem_region_dirty_or(r, rec->bits, WORDS + 2);
	}
	return rec->sync_rc;
}

static const struct mem_listener_ops rec_ops = {
	.name = "recorder",
	.region_add = rec_add,
	.region_del = rec_del,
	.log_start = rec_start,
	.log_stop = rec_stop,
	.log_sync = rec_sync,
};

static void test_listeners(void **state)
{
	struct recorder x = {.l.ops = &rec_ops}, y = {.l.ops = &rec_ops},
			z = {.l.ops = &rec_ops};
	uint64_t bm[WORDS];
	struct mem_region *a;
	struct err err = {0};
	struct mem *m;

	assert_int_equal(mem_new(&m), 0);
	a = add(m, "a", 0, MEM_RAM);
	assert_int_equal(mem_listener_add(m, &x.l, NULL), 0);
	assert_int_equal(mem_listener_add(m, &y.l, NULL), 0);

	/* The second cannot start: the first is stopped again, no log is on. */
	y.start_rc = -EOPNOTSUPP;
	assert_int_equal(mem_log_start(m), -EOPNOTSUPP);
	assert_int_equal(x.started, 1);
	assert_int_equal(x.stopped, 1);
	assert_int_equal(y.stopped, 0);
	assert_int_equal(mem_log_sync(m, a, bm, WORDS), -EINVAL);

	y.start_rc = 0;
	assert_int_equal(mem_log_start(m), 0);
	/* What listeners and devices saw comes together; bits past the region are dropped. */
	x.bits[0] = 0x10;
	y.bits[2] = UINT64_MAX;
	y.bits[3] = UINT64_MAX;
	mem_dirty(m, 70 * PAGE, 1);
	assert_int_equal(mem_log_sync(m, a, bm, WORDS), 0);
	assert_int_equal(bm[0], 0x10);
	assert_int_equal(bm[1], 1 << 6);
	assert_int_equal(bm[2], 3);
	/* A listener that fails: the bits of the others are kept for the next time. */
	y.sync_rc = -EIO;
	assert_int_equal(mem_log_sync(m, a, bm, WORDS), -EIO);
	y.sync_rc = 0;
	x.bits[0] = y.bits[2] = y.bits[3] = 0;
	assert_int_equal(mem_log_sync(m, a, bm, WORDS), 0);
	assert_int_equal(bm[0], 0x10);
	assert_int_equal(bm[2], 0);

	/* A listener that comes while the log is on starts its own; or is not taken. */
	z.start_rc = -EOPNOTSUPP;
	assert_int_equal(mem_listener_add(m, &z.l, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.msg, "recorder"));
	z.start_rc = 0;
	assert_int_equal(mem_listener_add(m, &z.l, &err), 0);
	assert_int_equal(z.started, 1);
	mem_listener_del(m, &z.l);
	assert_int_equal(z.stopped, 1);

	mem_log_stop(m);
	assert_int_equal(x.stopped, 2);
	assert_int_equal(y.stopped, 1);
	mem_listener_del(m, &y.l);
	mem_listener_del(m, &x.l);
	mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_bits),
		cmocka_unit_test(test_listeners),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
