/* x86_phys_bits_choose(): the narrowest width that holds everything and that OVMF accepts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "arch/x86/cpuid.h"
#include "base/util.h"
#include "cpuid_fixture.h"

#define TiB (UINT64_C(1) << 40)

/* The width, or the error. */
static int choose(struct kvm_cpuid2 *s, unsigned host, uint64_t ram_end, uint64_t window,
		  const char *cpu)
{
	struct x86_phys_need need = {.ram_end = ram_end, .window = window};
	struct x86_cpu_model m;
	struct err err = {0};
	unsigned bits = 0;
	int r;

	fixture_set_phys(s, host);
	assert_int_equal(x86_cpu_model_parse(&m, cpu, NULL), 0);
	r = x86_phys_bits_choose(s, &m, &need, &bits, &err);
	if (r < 0) {
		assert_true(err.msg[0]);
		return r;
	}
	assert_true(bits <= host);
	return bits;
}

static void test_amd(void **state)
{
	struct kvm_cpuid2 *s = fixture_amd();

	assert_int_equal(choose(s, 48, 512 * MiB, 0, "host"), 40);
	assert_int_equal(choose(s, 52, 6 * GiB, 64 * GiB, "host"), 40);
	assert_int_equal(choose(s, 48, 896 * GiB, 128 * GiB, "host"), 40); /* to the byte */
	assert_int_equal(choose(s, 48, 896 * GiB + 1, 0, "host"), 41);
	assert_int_equal(choose(s, 48, GiB, 128 * GiB + 1, "host"), 41);
	assert_int_equal(choose(s, 48, TiB + 2 * GiB, 32 * GiB, "host"), 41); /* -m 1T */
	assert_int_equal(choose(s, 48, 12 * TiB, 0, "host"), 44);
	assert_int_equal(choose(s, 40, 896 * GiB + 1, 0, "host"), -EINVAL);
	/* narrower than OVMF likes: the host's own */
	assert_int_equal(choose(s, 36, GiB, GiB, "host"), 36);
	assert_int_equal(choose(s, 39, GiB, GiB, "host"), 39);
	free(s);
}

static void test_intel(void **state)
{
	struct kvm_cpuid2 *s = fixture_intel();

	assert_int_equal(choose(s, 46, 512 * MiB, 0, "host"), 39);
	assert_int_equal(choose(s, 39, 448 * GiB, 64 * GiB, "host"), 39);
	assert_int_equal(choose(s, 46, 448 * GiB + 1, 0, "host"), 41); /* 40 is not accepted */
	assert_int_equal(choose(s, 40, 448 * GiB + 1, 0, "host"), 40); /* but all there is */
	assert_int_equal(choose(s, 40, GiB, 0, "host"), 39);
	assert_int_equal(choose(s, 39, 448 * GiB + 1, 0, "host"), -EINVAL);
	free(s);
}

static void test_user(void **state)
{
	struct kvm_cpuid2 *s = fixture_amd();

	assert_int_equal(choose(s, 48, GiB, 0, "host,phys-bits=46"), 46);
	assert_int_equal(choose(s, 48, GiB, 0, "host,host-phys-bits=on"), 48);
	assert_int_equal(choose(s, 48, GiB, 0, "host,host-phys-bits=off"), 40);
	assert_int_equal(choose(s, 40, GiB, 0, "host,phys-bits=41"), -EINVAL);
	assert_int_equal(choose(s, 48, 896 * GiB + 1, 0, "host,phys-bits=40"), -EINVAL);
	free(s);
}

static void test_host(void **state)
{
	struct kvm_cpuid2 *s = fixture_amd();

	fixture_set_phys(s, 48);
	assert_int_equal(x86_phys_bits_host(s), 48);
	fixture_set_phys(s, 0); /* no such leaf: what the first 64-bit CPUs had */
	assert_int_equal(x86_phys_bits_host(s), 36);
	fixture_set_phys(s, 200);
	assert_int_equal(x86_phys_bits_host(s), 36);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_amd),
		cmocka_unit_test(test_intel),
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
