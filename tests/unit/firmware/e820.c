/* e820: sorting, overlaps, joining, and the two maps of the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/e820.h"

struct want {
	uint64_t base, end;
	uint32_t type;
};

static void expect(const struct e820_map *m, const struct want *w, unsigned n)
{
	assert_int_equal(m->count, n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(le64_get(m->entry[i].base), w[i].base);
		assert_int_equal(le64_get(m->entry[i].size), w[i].end - w[i].base);
		assert_int_equal(le32_get(m->entry[i].type), w[i].type);
	}
}
#define EXPECT(m, ...)                                                                         \
	do {                                                                                   \
		const struct want w_[] = {__VA_ARGS__};                                        \
		expect(m, w_, ARRAY_SIZE(w_));                                                 \
	} while (0)

static void test_add(void **state)
{
	struct e820_map m = {0};

	assert_int_equal(e820_add(&m, 0x3000, 0x1000, E820_RAM), 0);
	assert_int_equal(e820_add(&m, 0x1000, 0x1000, E820_RAM), 0);
	assert_int_equal(e820_add(&m, 0x9000, 0, E820_RAM), 0);
	EXPECT(&m, {0x1000, 0x2000, 1}, {0x3000, 0x4000, 1});
	/* joined on both sides */
	assert_int_equal(e820_add(&m, 0x2000, 0x1000, E820_RAM), 0);
	EXPECT(&m, {0x1000, 0x4000, 1});
	/* the later one wins: in the middle, at the ends, over all */
	assert_int_equal(e820_add(&m, 0x2000, 0x800, E820_RESERVED), 0);
	EXPECT(&m, {0x1000, 0x2000, 1}, {0x2000, 0x2800, 2}, {0x2800, 0x4000, 1});
	assert_int_equal(e820_add(&m, 0x800, 0x1000, E820_ACPI), 0);
	EXPECT(&m, {0x800, 0x1800, 3}, {0x1800, 0x2000, 1}, {0x2000, 0x2800, 2},
	       {0x2800, 0x4000, 1});
	assert_int_equal(e820_add(&m, 0, 0x8000, E820_NVS), 0);
	EXPECT(&m, {0, 0x8000, 4});
	assert_int_equal(e820_add(&m, UINT64_MAX - 0xfff, 0x2000, E820_RAM), -EINVAL);
	EXPECT(&m, {0, 0x8000, 4});
}

static void test_full(void **state)
{
	struct e820_map m = {0}, before;

	for (unsigned i = 0; i < E820_MAX; i++) {
		assert_int_equal(e820_add(&m, i * 0x2000, 0x1000, E820_RAM), 0);
	}
	before = m;
	assert_int_equal(e820_add(&m, 0x1000000, 0x1000, E820_RAM), -ENOSPC);
	assert_int_equal(e820_add(&m, 0x400, 0x400, E820_RESERVED), -ENOSPC);
	assert_memory_equal(&m, &before, sizeof(m));
}

/* Against the obvious way: a type for each page. */
static void test_random(void **state)
{
	static uint8_t page[64];

	srand(1);
	for (int round = 0; round < 2000; round++) {
		struct e820_map m = {0};

		memset(page, 0, sizeof(page));
		for (int i = 0; i < 12; i++) {
			unsigned base = (unsigned)rand() % 64;
			unsigned len = (unsigned)rand() % (65 - base);
			unsigned type = 1 + (unsigned)rand() % 3;

			assert_int_equal(e820_add(&m, base * 4096, len * 4096, type), 0);
			memset(page + base, (int)type, len);
		}
		for (unsigned i = 0; i < m.count; i++) {
			uint64_t base = le64_get(m.entry[i].base) / 4096;
			uint64_t len = le64_get(m.entry[i].size) / 4096;

			assert_true(len > 0);
			/* maximal: it does not continue */
			assert_true(!base || page[base - 1] != le32_get(m.entry[i].type));
			assert_true(base + len == 64 ||
				    page[base + len] != le32_get(m.entry[i].type));
			for (uint64_t k = 0; k < len; k++) {
				assert_int_equal(page[base + k], le32_get(m.entry[i].type));
				page[base + k] = 0;
			}
		}
		for (unsigned k = 0; k < 64; k++) {
			assert_int_equal(page[k], 0);
		}
	}
}

static void test_machine(void **state)
{
	struct e820_map m;

	assert_int_equal(e820_init(&m, 2 * GiB, 4 * GiB), 0);
	EXPECT(&m, {0, 0x80000000, 1}, {0xb0000000, 0xc0000000, 2},
	       {0x100000000, 0x200000000, 1});
	assert_int_equal(e820_init(&m, 512 * MiB, 0), 0);
	EXPECT(&m, {0, 0x20000000, 1}, {0xb0000000, 0xc0000000, 2});

	assert_int_equal(e820_init_direct(&m, 512 * MiB, 0, 0, 0), 0);
	EXPECT(&m, {0, 0x9fc00, 1}, {0x9fc00, 0xa0000, 2}, {0xe0000, 0x100000, 2},
	       {0x100000, 0x20000000, 1}, {0xb0000000, 0xc0000000, 2});
	assert_int_equal(e820_init_direct(&m, 2 * GiB, GiB, 0x7fff0000, 0x10000), 0);
	EXPECT(&m, {0, 0x9fc00, 1}, {0x9fc00, 0xa0000, 2}, {0xe0000, 0x100000, 2},
	       {0x100000, 0x7fff0000, 1}, {0x7fff0000, 0x80000000, 2},
	       {0xb0000000, 0xc0000000, 2}, {0x100000000, 0x140000000, 1});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
