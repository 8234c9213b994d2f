/*
 * kvm/stats.c on made-up statistics in a memfd, as api.rst 4.134 describes them: types, units,
 * histograms, and what is cut, too large or unknown. Needs no KVM; the lab has the real ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/kvm_int.h"

#define NAME_SIZE 16

struct desc {
	struct kvm_stats_desc d;
	char name[NAME_SIZE];
};

struct file {
	struct kvm_stats_header h;
	struct desc desc[4];
	uint64_t data[8];
};

static const struct file good = {
	.h = {.name_size = NAME_SIZE, .num_desc = 4, .desc_offset = offsetof(struct file, desc),
	      .data_offset = offsetof(struct file, data)},
	.desc = {
		{{.flags = KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE, .size = 1, .offset = 0},
		 "exits"},
		{{.flags = KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BOOLEAN, .size = 1, .offset = 8},
		 "blocking"},
		{{.flags = KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS | KVM_STATS_BASE_POW10,
		  .exponent = -9, .size = 3, .offset = 16},
		 "hist"},
		{{.flags = KVM_STATS_TYPE_PEAK | KVM_STATS_UNIT_BYTES | KVM_STATS_BASE_POW2,
		  .exponent = 10, .size = 1, .offset = 40},
		 "peak"},
	},
	.data = {77, 1, 5, 6, 7, 99},
};

static unsigned calls;
static char seen[512];

static void take(void *opaque, const struct stat_sample *s)
{
	size_t n = strlen(seen);

	calls++;
	snprintf(seen + n, sizeof(seen) - n, "%s:%d:%d:%d^%d:%u=%ju ", s->name, s->type, s->unit,
		 s->base, s->exponent, s->count, (uintmax_t)s->value[s->count - 1]);
}

/* What reading a file with these contents gives. */
static int read_file(const struct file *f, size_t len)
{
	int fd = memfd_create("stats", 0), r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, f, len), (ssize_t)len);
	calls = 0;
	seen[0] = '\0';
	r = kvm_stats_read(fd, take, NULL);
	close(fd);
	return r;
}

static void test_types_and_units(void **state)
{
	char want[256];

	assert_int_equal(read_file(&good, sizeof(good)), 0);
	snprintf(want, sizeof(want), "exits:%d:%d:10^0:1=77 blocking:%d:%d:10^0:1=1 "
		 "hist:%d:%d:10^-9:3=7 peak:%d:%d:2^10:1=99 ",
		 STAT_CUMULATIVE, STAT_NUMBER, STAT_INSTANT, STAT_BOOLEAN, STAT_LOG2_HISTOGRAM,
		 STAT_SECONDS, STAT_PEAK, STAT_BYTES);
	assert_string_equal(seen, want);
}

/* A newer kernel's types are left out, the others are still shown. */
static void test_unknown_type(void **state)
{
	struct file f = good;

	f.desc[1].d.flags |= KVM_STATS_TYPE_MASK;
	f.desc[2].d.flags |= KVM_STATS_UNIT_MASK;
	assert_int_equal(read_file(&f, sizeof(f)), 0);
	assert_int_equal(calls, 2);
}

static void test_malformed(void **state)
{
	struct file f = good;

	assert_int_equal(read_file(&good, sizeof(good.h) - 1), -EIO);
	assert_int_equal(read_file(&good, sizeof(good.h) + 5), -EIO);
	assert_int_equal(read_file(&good, offsetof(struct file, data) + 4), -EIO);
	f.h.num_desc = UINT32_MAX;
	assert_int_equal(read_file(&f, sizeof(f)), -E2BIG);
	f = good;
	f.h.name_size = 1 << 20;
	assert_int_equal(read_file(&f, sizeof(f)), -E2BIG);
	f = good;
	f.desc[0].d.size = UINT16_MAX;
	assert_int_equal(read_file(&f, sizeof(f)), -EPROTO);
	f = good;
	f.desc[0].d.size = 0;
	assert_int_equal(read_file(&f, sizeof(f)), -EPROTO);
	f = good;
	memset(f.desc[0].name, 'x', NAME_SIZE);
	assert_int_equal(read_file(&f, sizeof(f)), -EPROTO);
	f = good;
	f.desc[3].d.offset = UINT32_MAX;
	assert_int_equal(read_file(&f, sizeof(f)), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types_and_units),
		cmocka_unit_test(test_unknown_type),
		cmocka_unit_test(test_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
