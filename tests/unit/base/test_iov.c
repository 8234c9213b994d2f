/* base/iov.h: every split of a list gives the same bytes; ends, empty entries, hostile lengths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

#define N 12

/* Cuts buf[N] into entries wherever mask has a bit, with empty entries in between. */
static size_t cut(unsigned mask, char *buf, struct iovec *iov)
{
	size_t n = 0, start = 0;

	iov[n++] = (struct iovec){NULL, 0};
	for (size_t i = 1; i <= N; i++) {
		if (i == N || mask & (1u << i)) {
			iov[n++] = (struct iovec){buf + start, i - start};
			iov[n++] = (struct iovec){buf, 0};
			start = i;
		}
	}
	return n;
}

static void test_every_split(void **state)
{
	struct iovec iov[3 * N];
	char buf[N], got[N + 1];

	for (unsigned mask = 0; mask < 1u << N; mask += 2) {
		struct iov_cur c;
		size_t n = cut(mask, buf, iov);

		memcpy(buf, "abcdefghijkl", N);
		assert_int_equal(iov_len(iov, n), N);
		c = iov_cur_init(iov, n);
		assert_int_equal(iov_cur_read(&c, got, 5), 5);
		assert_int_equal(iov_cur_left(&c), N - 5);
		assert_int_equal(iov_cur_skip(&c, 2), 2);
		assert_int_equal(iov_cur_read(&c, got + 5, sizeof(got)), N - 7);
		assert_memory_equal(got, "abcdehijkl", 10);
		assert_int_equal(iov_cur_left(&c), 0);
		assert_int_equal(iov_cur_read(&c, got, 1), 0);
		assert_int_equal(iov_cur_skip(&c, 1), 0);

		c = iov_cur_init(iov, n);
		assert_int_equal(iov_cur_write(&c, "XYZ", 3), 3);
		assert_int_equal(iov_cur_zero(&c, 3), 3);
		assert_int_equal(iov_cur_skip(&c, 4), 4);
		assert_int_equal(iov_cur_write(&c, "12345", 5), 2);
		assert_int_equal(iov_cur_zero(&c, 5), 0);
		assert_memory_equal(buf, "XYZ\0\0\0ghij12", N);
	}
}

static void test_take(void **state)
{
	struct iovec iov[3 * N], out[N];
	char buf[N];
	struct iov_cur c;
	size_t n = cut(1u << 4 | 1u << 8, buf, iov); /* 4, 4, 4 */

	c = iov_cur_init(iov, n);
	assert_int_equal(iov_cur_take(&c, 0, out, 0), 0);
	assert_int_equal(iov_cur_take(&c, 6, out, 2), 2);
	assert_ptr_equal(out[0].iov_base, buf);
	assert_int_equal(out[0].iov_len, 4);
	assert_ptr_equal(out[1].iov_base, buf + 4);
	assert_int_equal(out[1].iov_len, 2);

	/* What fails does not move the cursor. */
	assert_int_equal(iov_cur_take(&c, 7, out, N), -EINVAL);
	assert_int_equal(iov_cur_take(&c, 6, out, 1), -EINVAL);
	assert_int_equal(iov_cur_left(&c), 6);
	assert_int_equal(iov_cur_take(&c, 6, out, 2), 2);
	assert_ptr_equal(out[0].iov_base, buf + 6);
	assert_int_equal(out[0].iov_len, 2);
	assert_ptr_equal(out[1].iov_base, buf + 8);
	assert_int_equal(out[1].iov_len, 4);
	assert_int_equal(iov_cur_take(&c, 1, out, N), -EINVAL);
}

static void test_huge(void **state)
{
	char b[8] = "1234567";
	struct iovec iov[] = {{b, SIZE_MAX - 4}, {b, 8}, {b, 8}};
	struct iov_cur c = iov_cur_init(iov, ARRAY_SIZE(iov));
	struct iovec out[3];

	assert_true(iov_len(iov, ARRAY_SIZE(iov)) == SIZE_MAX);
	assert_true(iov_cur_left(&c) == SIZE_MAX);
	assert_int_equal(iov_cur_take(&c, 4, out, 1), 1);
	assert_true(iov_cur_left(&c) == SIZE_MAX);
	assert_int_equal(iov_cur_left(&(struct iov_cur){0}), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_split),
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_huge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
