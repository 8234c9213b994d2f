/* base/util.h: arithmetic at the edges, the list, the clock; base/wire.h: byte order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/util.h"
#include "base/wire.h"

static void test_arithmetic(void **state)
{
	uint64_t v;

	assert_false(u64_add(UINT64_MAX - 1, 1, &v));
	assert_true(v == UINT64_MAX);
	assert_true(u64_add(UINT64_MAX, 1, &v));
	assert_false(u64_mul(UINT64_C(1) << 32, UINT32_MAX, &v));
	assert_true(u64_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
	assert_true(align_up(4097, 4096) == 8192);
	assert_true(align_up(4096, 4096) == 4096);
	assert_true(align_down(8191, 4096) == 4096);
	assert_true(is_pow2(1) && is_pow2(UINT64_C(1) << 63));
	assert_false(is_pow2(0) || is_pow2(3));
	assert_true(range_within(0, 10, 10));
	assert_true(range_within(10, 0, 10));
	assert_false(range_within(11, 0, 10));
	assert_false(range_within(1, UINT64_MAX, 10));
	assert_false(range_within(UINT64_MAX, 2, UINT64_MAX));
}

struct item {
	int n;
	struct list node;
};

static void test_list(void **state)
{
	struct list head, *pos, *tmp;
	struct item items[4];
	int sum = 0;

	list_init(&head);
	assert_true(list_empty(&head));
	for (int i = 0; i < 4; i++) {
		items[i].n = i;
		list_add_tail(&head, &items[i].node);
	}
	list_for_each (pos, &head) {
		sum = sum * 10 + list_entry(pos, struct item, node)->n;
	}
	assert_int_equal(sum, 123);
	list_for_each_safe (pos, tmp, &head) {
		if (list_entry(pos, struct item, node)->n % 2) {
			list_del(pos);
		}
	}
	list_del(&items[1].node); /* once more does no harm */
	sum = 0;
	list_for_each (pos, &head) {
		sum = sum * 10 + list_entry(pos, struct item, node)->n;
	}
	assert_int_equal(sum, 2);
}

static void test_clock(void **state)
{
	uint64_t a = now_ns(), b = now_ns();

	assert_true(a > 0);
	assert_true(b >= a);
}

static void test_wire(void **state)
{
	le32 l = le32_of(0x11223344);
	be32 b = be32_of(0x11223344);
	be16 s = be16_of(0x1122);
	be64 q = be64_of(UINT64_C(0x1122334455667788));

	assert_memory_equal(&l, "\x44\x33\x22\x11", 4);
	assert_memory_equal(&b, "\x11\x22\x33\x44", 4);
	assert_memory_equal(&s, "\x11\x22", 2);
	assert_memory_equal(&q, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
	assert_int_equal(le32_get(l), 0x11223344);
	assert_int_equal(be32_get(b), 0x11223344);
	assert_int_equal(be16_get(s), 0x1122);
	assert_true(be64_get(q) == UINT64_C(0x1122334455667788));
	assert_int_equal(le16_get(le16_of(0xabcd)), 0xabcd);
	assert_true(le64_get(le64_of(UINT64_MAX - 1)) == UINT64_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arithmetic),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
