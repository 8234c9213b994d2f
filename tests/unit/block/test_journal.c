/*
 * The disk that remembers its writes: what may and what may not be there after a loss of power.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/journal.h"
#include "blkrig.h"

#define SIZE 8192

static uint8_t buf[SIZE];

static void write_at(struct blkrig *r, uint64_t off, uint64_t len, int value, unsigned flags)
{
	memset(buf, value, len);
	assert_int_equal(blkrig_do(r, BLK_WRITE, flags, off, len, buf), 0);
}

static void flush(struct blkrig *r)
{
	assert_int_equal(blkrig_do(r, BLK_FLUSH, 0, 0, 0, NULL), 0);
}

/* The image then; *size too. The caller frees it. */
static uint8_t *image(struct blk_journal *j, struct blk_crash c, uint64_t *size)
{
	uint8_t *data;

	assert_int_equal(blk_journal_image(j, &c, &data, size), 0);
	return data;
}

static int byte_at(struct blk_journal *j, struct blk_crash c, uint64_t off)
{
	uint64_t size;
	uint8_t *data = image(j, c, &size);
	int v = off < size ? data[off] : -1;

	free(data);
	return v;
}

static void start(struct blkrig *r, struct blk_journal **j, int fill)
{
	struct blk_node *n;

	memset(buf, fill, SIZE);
	assert_int_equal(blk_journal_new("j", buf, SIZE, &n, j), 0);
	blkrig_node(r, n);
}

static void test_flush_makes_durable(void **state)
{
	struct blk_journal *j;
	struct blkrig r;
	unsigned first, flushed;

	start(&r, &j, 1);
	assert_int_equal(blk_journal_now(j), 0);
	write_at(&r, 0, 512, 2, 0);
	first = blk_journal_now(j);
	assert_int_equal(blk_journal_unsynced(j, first), 1);
	assert_int_equal(
		byte_at(j, (struct blk_crash){.at = first, .unsynced = BLK_CRASH_LOSE}, 0), 1);
	assert_int_equal(
		byte_at(j, (struct blk_crash){.at = first, .unsynced = BLK_CRASH_KEEP}, 0), 2);
	assert_int_equal(byte_at(j, (struct blk_crash){.at = 0, .unsynced = BLK_CRASH_KEEP}, 0),
			 1);
	flush(&r);
	flushed = blk_journal_now(j);
	write_at(&r, 0, 512, 3, 0);
	write_at(&r, 512, 512, 4, BLK_FUA);
	/* at the flush's end it is safe, a moment earlier it is not */
	for (unsigned at = flushed; at <= blk_journal_now(j); at++) {
		for (uint64_t seed = 0; seed < 20; seed++) {
			struct blk_crash c = {at, BLK_CRASH_SOME, seed};

			assert_in_range(byte_at(j, c, 0), 2, 3);
		}
	}
	assert_int_equal(
		byte_at(j, (struct blk_crash){.at = flushed - 1, .unsynced = BLK_CRASH_LOSE},
			0),
		1);
	assert_int_equal(byte_at(j,
				 (struct blk_crash){.at = blk_journal_now(j),
						    .unsynced = BLK_CRASH_LOSE},
				 512),
			 4);
	blkrig_close(&r);
	(void)state;
}

/* A flush covers what had ended when it began, and nothing else. */
static void test_flush_beside_a_write(void **state)
{
	struct blk_journal *j;
	struct blkreq w, f;
	struct blkrig r;

	start(&r, &j, 1);
	memset(buf, 2, 512);
	blkrig_submit(&r, &w, BLK_WRITE, 0, 0, 512, buf);
	blkrig_submit(&r, &f, BLK_FLUSH, 0, 0, 0, NULL);
	assert_int_equal(blkrig_wait(&r, &w), 0);
	assert_int_equal(blkrig_wait(&r, &f), 0);
	assert_int_equal(blk_journal_unsynced(j, blk_journal_now(j)), 1);
	flush(&r);
	assert_int_equal(blk_journal_unsynced(j, blk_journal_now(j)), 0);
	blkrig_close(&r);
	(void)state;
}

static void test_torn(void **state)
{
	bool whole = false, none = false, torn = false, old_over_new = false;
	struct blk_journal *j;
	struct blkrig r;

	start(&r, &j, 1);
	write_at(&r, 0, 2048, 2, 0);
	write_at(&r, 0, 512, 3, 0);
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct blk_crash c = {blk_journal_now(j), BLK_CRASH_SOME, seed};
		uint64_t size;
		uint8_t *data = image(j, c, &size);
		unsigned twos = 0;

		assert_int_equal(size, SIZE);
		for (unsigned s = 0; s < 4; s++) {
			/* sectors do not tear */
			for (unsigned i = 1; i < 512; i++) {
				assert_int_equal(data[512 * s + i], data[512 * s]);
			}
			twos += data[512 * s] == 2;
		}
		assert_int_equal(data[2048], 1);
		whole |= twos >= 3 && data[512] == 2 && data[1024] == 2 && data[1536] == 2;
		none |= twos == 0;
		torn |= data[512] != data[1024] || data[1024] != data[1536];
		old_over_new |= data[0] == 2;
		free(data);
	}
	assert_true(whole && none && torn && old_over_new);
	blkrig_close(&r);
	(void)state;
}

static bool keep_second(void *opaque, unsigned write, uint64_t sector)
{
	(void)sector;
	(*(unsigned *)opaque)++;
	return write == 1;
}

static void test_chosen_subset(void **state)
{
	struct blk_journal *j;
	struct blkrig r;
	unsigned calls = 0;
	struct blk_crash c = {.keep = keep_second, .opaque = &calls};

	start(&r, &j, 1);
	write_at(&r, 0, 512, 2, 0);
	write_at(&r, 512, 512, 3, 0);
	assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, 0, 1024, 512, NULL), 0);
	c.at = blk_journal_now(j);
	assert_int_equal(byte_at(j, c, 0), 1);
	assert_int_equal(byte_at(j, c, 512), 3);
	assert_int_equal(byte_at(j, c, 1024), 1);
	assert_int_equal(calls, 9);
	blkrig_close(&r);
	(void)state;
}

/* Sizes: growth and truncation are lost like everything else. */
static void test_size(void **state)
{
	struct blk_journal *j;
	struct blk_user *u;
	struct blkrig r;
	struct err err;
	struct blk_crash lose = {.unsynced = BLK_CRASH_LOSE},
			 keep = {.unsynced = BLK_CRASH_KEEP};

	start(&r, &j, 1);
	assert_int_equal(blk_truncate(r.node, 4096, BLK_PREALLOC_OFF, &err), -EPERM);
	assert_int_equal(
		blk_attach(r.node, "t", BLK_PERM_RESIZE, BLK_PERM_ALL, NULL, NULL, &u, &err),
		0);
	assert_int_equal(blk_truncate(r.node, 4096, BLK_PREALLOC_OFF, &err), 0);
	assert_int_equal(blk_size(r.node), 4096);
	assert_int_equal(blk_truncate(r.node, 2 * SIZE, BLK_PREALLOC_OFF, &err), 0);
	lose.at = keep.at = blk_journal_now(j);
	assert_int_equal(byte_at(j, lose, 4096), 1);
	assert_int_equal(byte_at(j, lose, SIZE), -1);
	assert_int_equal(byte_at(j, keep, 4096), 0);
	assert_int_equal(byte_at(j, keep, 2 * SIZE - 1), 0);
	assert_int_equal(byte_at(j, keep, 2 * SIZE), -1);
	flush(&r);
	lose.at = blk_journal_now(j);
	assert_int_equal(byte_at(j, lose, 2 * SIZE - 1), 0);
	blk_detach(u);
	blkrig_close(&r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flush_makes_durable),
		cmocka_unit_test(test_flush_beside_a_write),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_chosen_subset),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests_name("block journal", tests, NULL, NULL);
}
