/* arch/x86/cpuid.h: ids, topology leaves, features by name, what is dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "arch/x86/cpuid.h"
#include "cpuid_fixture.h"

static struct kvm_cpuid2 *build(const struct kvm_cpuid2 *s, const char *cpu,
				struct x86_topology topo, unsigned index)
{
	struct x86_cpu_model m;
	struct x86_cpuid_config cfg = {
		.supported = s, .model = &m, .topo = topo, .phys_bits = 40};
	struct kvm_cpuid2 *c = NULL;
	struct err err = {0};

	if (x86_cpu_model_parse(&m, cpu, &err) || x86_cpuid_build(&cfg, index, &c, &err)) {
		fail_msg("%s: %s", cpu, err.msg);
	}
	return c;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t f, uint32_t i)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(c, f, i);

	assert_non_null(e);
	return e;
}

static void refuse(const struct kvm_cpuid2 *s, const char *cpu, const char *part)
{
	struct x86_cpu_model m;
	struct x86_cpuid_config cfg = {
		.supported = s, .model = &m, .topo = {1, 1, 1, 1}, .phys_bits = 40};
	struct kvm_cpuid2 *c = NULL;
	struct err err = {0};
	int r = x86_cpu_model_parse(&m, cpu, &err);

	if (r == 0 && s) {
		r = x86_cpuid_build(&cfg, 0, &c, &err);
	}
	assert_int_equal(r, -EINVAL);
	assert_null(c);
	if (!strstr(err.msg, part)) {
		fail_msg("'%s' says '%s', not '%s'", cpu, err.msg, part);
	}
}

static void test_apic_ids(void **state)
{
	struct x86_topology flat = {1, 1, 4, 1}, odd = {2, 1, 3, 2}, many = {300, 1, 1, 1};
	struct x86_topology dies = {2, 3, 2, 2};
	const uint32_t ids[12] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(x86_apic_id(&flat, i), i);
	}
	for (unsigned i = 0; i < 12; i++) {
		assert_int_equal(x86_apic_id(&odd, i), ids[i]);
	}
	assert_int_equal(x86_apic_id_max(&odd), 13);
	assert_int_equal(x86_apic_id(&dies, 4), 4);  /* 2 + 1 + 1 bits below the socket */
	assert_int_equal(x86_apic_id(&dies, 12), 16);
	assert_int_equal(x86_apic_id_max(&dies), 16 + 8 + 3);
	assert_false(x86_topology_wide(&dies));
	assert_true(x86_topology_wide(&many));
	assert_true(x86_topology_wide(&(struct x86_topology){2, 1, 72, 1}) == false);
	assert_true(x86_topology_wide(&(struct x86_topology){4, 1, 33, 2}));
	assert_int_equal(x86_apic_id_max(&many), 299);
}

static void test_amd_topology(void **state)
{
	struct kvm_cpuid2 *s = fixture_amd();
	struct kvm_cpuid2 *c = build(s, "host", (struct x86_topology){2, 1, 3, 2}, 9); /* id 11 */
	const struct kvm_cpuid_entry2 *e;

	e = leaf(c, 1, 0);
	assert_int_equal(e->eax, 0xA10F11);
	assert_int_equal(e->ebx, 11u << 24 | 8 << 16 | 0x0800);
	assert_true(e->ecx & 1u << 31);	 /* hypervisor */
	assert_false(e->ecx & 1u << 27); /* OSXSAVE is the guest's to set */
	assert_false(e->ecx & 1u << 5);	 /* VMX */
	assert_true(e->ecx & 1u << 24);	 /* TSC deadline */
	assert_true(e->ecx & 1u << 21);	 /* x2APIC */
	assert_true(e->edx & 1u << 28);	 /* HTT */
	assert_true(e->edx & 1u << 12);	 /* MTRR */

	e = leaf(c, 0xB, 0);
	assert_int_equal(e->eax, 1);
	assert_int_equal(e->ebx, 2);
	assert_int_equal(e->ecx, 0x100);
	assert_int_equal(e->edx, 11);
	e = leaf(c, 0xB, 1);
	assert_int_equal(e->eax, 3);
	assert_int_equal(e->ebx, 6);
	assert_int_equal(e->ecx, 0x201);
	assert_int_equal(e->edx, 11);
	e = leaf(c, 0xB, 2);
	assert_int_equal(e->eax | e->ebx, 0);
	assert_int_equal(e->ecx, 2);
	assert_null(x86_cpuid_find(c, 0x1F, 0)); /* the highest leaf is 0xD */

	e = leaf(c, 0x80000008, 0);
	assert_int_equal(e->eax, 0x00003028); /* 40 bits, no smaller limit */
	assert_int_equal(e->ecx, 0x00010000 | 3 << 12 | 5);
	e = leaf(c, 0x8000001E, 0);
	assert_int_equal(e->eax, 11);
	assert_int_equal(e->ebx, 0x0101); /* core 1, two threads */
	assert_int_equal(e->ecx, 1);	  /* node: the socket */
	assert_int_equal(leaf(c, 0x8000001D, 0)->eax, 0x121 | 1 << 14);
	assert_int_equal(leaf(c, 0x8000001D, 3)->eax, 0x163 | 7 << 14);

	assert_int_equal(leaf(c, 0x80000001, 0)->ecx & 6, 2); /* CmpLegacy, no SVM */
	assert_int_equal(leaf(c, 0x8000000A, 0)->eax, 0);
	assert_int_equal(leaf(c, 0x8000001F, 0)->eax, 0);
	assert_int_equal(leaf(c, 0x40000001, 0)->eax, 0x01007EFB);
	free(c);

	c = build(s, "host", (struct x86_topology){1, 1, 1, 1}, 0);
	assert_int_equal(leaf(c, 1, 0)->ebx, 0x00010800);
	assert_false(leaf(c, 1, 0)->edx & 1u << 28);
	assert_int_equal(leaf(c, 0x80000001, 0)->ecx & 6, 0);
	assert_int_equal(leaf(c, 0x80000008, 0)->ecx, 0x00010000);
	free(c);
	free(s);
}

static void test_intel_topology(void **state)
{
	struct kvm_cpuid2 *s = fixture_intel();
	struct kvm_cpuid2 *c = build(s, "host", (struct x86_topology){1, 1, 4, 2}, 5);

	assert_int_equal(leaf(c, 4, 0)->eax, 3u << 26 | 1 << 14 | 0x121);
	assert_int_equal(leaf(c, 4, 2)->eax, 3u << 26 | 1 << 14 | 0x143);
	assert_int_equal(leaf(c, 4, 3)->eax, 3u << 26 | 7 << 14 | 0x163);
	assert_int_equal(leaf(c, 4, 4)->eax, 0);
	for (uint32_t f = 0xB; f <= 0x1F; f += 0x14) {
		assert_int_equal(leaf(c, f, 0)->edx, 5);
		assert_int_equal(leaf(c, f, 0)->ecx, 0x100);
		assert_int_equal(leaf(c, f, 1)->eax, 3);
		assert_int_equal(leaf(c, f, 1)->ebx, 8);
		assert_int_equal(leaf(c, f, 1)->ecx, 0x201);
		assert_int_equal(leaf(c, f, 2)->ebx, 0);
	}
	assert_int_equal(leaf(c, 0x80000008, 0)->eax, 0x3928);
	assert_int_equal(leaf(c, 0x80000008, 0)->ecx, 0);
	assert_int_equal(leaf(c, 0x12, 0)->eax, 0);
	assert_int_equal(leaf(c, 0x14, 0)->eax, 0);
	assert_int_equal(leaf(c, 7, 0)->ebx & (1u << 2 | 1u << 25), 0); /* SGX, trace */
	free(c);
	free(s);
}

static void test_features(void **state)
{
	struct kvm_cpuid2 *s = fixture_intel();
	struct x86_topology one = {1, 1, 1, 1};
	struct kvm_cpuid2 *c = build(s, "host", one, 0);

	assert_int_equal(leaf(c, 0xD, 0)->eax, 0x602E7);
	assert_int_equal(leaf(c, 0xD, 0)->ecx, 0x2B00);
	free(c);

	/* AVX-512 goes with everything built on it, and its registers leave XCR0 */
	c = build(s, "host,-avx512f,-amx-tile", one, 0);
	assert_int_equal(leaf(c, 7, 0)->ebx & 0xDC230000, 0x00000000);
	assert_int_equal(leaf(c, 7, 0)->ecx & 0x5842, 0);
	assert_true(leaf(c, 7, 0)->ebx & 1u << 5); /* AVX2 stays */
	assert_int_equal(leaf(c, 7, 1)->eax & 0x20, 0);
	assert_int_equal(leaf(c, 0xD, 0)->eax, 0x207);
	assert_int_equal(leaf(c, 0xD, 0)->ecx, 0xA88); /* PKU is the last */
	assert_int_equal(leaf(c, 0xD, 6)->eax, 0);
	assert_int_equal(leaf(c, 0xD, 9)->eax, 8);
	assert_int_equal(leaf(c, 0xD, 11)->eax, 0x10); /* a supervisor component stays */
	assert_int_equal(leaf(c, 0x1D, 0)->eax, 0);
	free(c);

	c = build(s, "host,xsave=off", one, 0);
	assert_int_equal(leaf(c, 0xD, 0)->eax, 0);
	assert_int_equal(leaf(c, 0xD, 1)->eax, 0);
	assert_int_equal(leaf(c, 1, 0)->ecx & (1u << 26 | 1u << 28 | 1u << 12), 0);
	free(c);

	/* all spellings of one name; switching on what is on changes nothing */
	c = build(s, "host,-sse4.1,-sse4_2,+pcid,x2apic=on", one, 0);
	assert_int_equal(leaf(c, 1, 0)->ecx & (3u << 19), 0);
	assert_true(leaf(c, 1, 0)->ecx & 1u << 17);
	free(c);

	refuse(s, "host,+svm", "svm");
	refuse(s, "host,+vmx", "nested");
	refuse(s, "host,+xop", "xop"); /* this host has none */
	refuse(NULL, "host,+warp-drive", "'warp-drive': -cpu help");
	refuse(NULL, "host,+avx51f", "mean 'avx512f'");
	refuse(NULL, "host,sse4.3=off", "mean 'sse4.1'");
	refuse(NULL, "host,hv_relaxed=on", "Hyper-V");
	refuse(s, "host,+avx2,-avx", "'avx2' needs 'avx'");
	refuse(NULL, "host,check=off", "check=off");
	refuse(NULL, "host,enforce=off", "enforce=off");
	refuse(NULL, "host,pcid=maybe", "maybe");
	refuse(NULL, "host,phys-bits=20", "phys-bits=20");
	refuse(NULL, "host,phys-bits=x", "phys-bits=x");
	refuse(NULL, "host,phys-bits=40,host-phys-bits=on", "contradict");
	refuse(NULL, "qemu64", "'qemu64' is no model; there are host");
	refuse(NULL, "", "host");
	refuse(NULL, "level=5", "host");
	refuse(NULL, "host,-avx,-avx", "avx");
	free(s);
}

static void test_dies(void **state)
{
	struct x86_topology t = {2, 2, 3, 2};
	struct kvm_cpuid2 *s = fixture_amd();
	struct kvm_cpuid2 *c = build(s, "host", t, 20); /* socket 1, die 1, core 1, thread 0 */
	const uint32_t id = 1 << 4 | 1 << 3 | 1 << 1;

	assert_int_equal(x86_apic_id(&t, 20), id);
	assert_int_equal(leaf(c, 0, 0)->eax, 0x1F);
	assert_int_equal(leaf(c, 0xB, 1)->eax, 4); /* knows no dies: the socket */
	assert_int_equal(leaf(c, 0xB, 1)->ebx, 12);
	assert_int_equal(leaf(c, 0x1F, 0)->ecx, 0x100);
	assert_int_equal(leaf(c, 0x1F, 1)->eax, 3);
	assert_int_equal(leaf(c, 0x1F, 1)->ebx, 6);
	assert_int_equal(leaf(c, 0x1F, 1)->ecx, 0x201);
	assert_int_equal(leaf(c, 0x1F, 2)->eax, 4);
	assert_int_equal(leaf(c, 0x1F, 2)->ebx, 12);
	assert_int_equal(leaf(c, 0x1F, 2)->ecx, 0x502);
	assert_int_equal(leaf(c, 0x1F, 2)->edx, id);
	assert_int_equal(leaf(c, 0x1F, 3)->eax | leaf(c, 0x1F, 3)->ebx, 0);
	assert_int_equal(leaf(c, 0x1F, 3)->ecx, 3);
	assert_int_equal(leaf(c, 1, 0)->ebx >> 16 & 0xFF, 16);
	assert_int_equal(leaf(c, 0x80000008, 0)->ecx & 0xFFFF, 4 << 12 | 11);
	assert_int_equal(leaf(c, 0x8000001D, 3)->eax >> 14, 7); /* a level 3 cache for each die */
	assert_int_equal(leaf(c, 0x8000001E, 0)->ebx, 0x0105);
	assert_int_equal(leaf(c, 0x8000001E, 0)->ecx, 0x103); /* two nodes a socket, this is 3 */
	free(c);
	free(s);

	s = fixture_intel();
	c = build(s, "host", t, 20);
	assert_int_equal(leaf(c, 4, 0)->eax >> 14, 7u << 12 | 1);
	assert_int_equal(leaf(c, 4, 3)->eax >> 14, 7u << 12 | 7);
	assert_int_equal(leaf(c, 0x1F, 2)->ecx, 0x502);
	free(c);
	free(s);
}

static void test_properties(void **state)
{
	struct x86_topology one = {1, 1, 1, 1};
	struct kvm_cpuid2 *s = fixture_intel(), *c;
	struct kvm_cpuid_entry2 *e;
	struct x86_cpu_model m;

	/* a host with counters and an invariant TSC */
	s = realloc(s, sizeof(*s) + (s->nent + 2) * sizeof(*e));
	e = &s->entries[s->nent];
	memset(e, 0, 2 * sizeof(*e));
	e[0] = (struct kvm_cpuid_entry2){.function = 0xA, .eax = 0x07300802};
	e[1] = (struct kvm_cpuid_entry2){.function = 0x80000007, .edx = 0x100};
	s->nent += 2;

	c = build(s, "host", one, 0);
	assert_int_equal(leaf(c, 0xA, 0)->eax, 0x07300802);
	assert_int_equal(leaf(c, 0x80000007, 0)->edx, 0);
	assert_true(leaf(c, 1, 0)->ecx & 1u << 15); /* pdcm */
	free(c);
	c = build(s, "max,migratable=off,pmu=off,enforce,check=on", one, 0);
	assert_int_equal(leaf(c, 0xA, 0)->eax, 0);
	assert_int_equal(leaf(c, 0x80000007, 0)->edx, 0x100);
	assert_false(leaf(c, 1, 0)->ecx & 1u << 15);
	free(c);
	c = build(s, "host,+invtsc,-hypervisor,-kvmclock", one, 0);
	assert_int_equal(leaf(c, 0x80000007, 0)->edx, 0x100);
	assert_false(leaf(c, 1, 0)->ecx & 1u << 31);
	assert_int_equal(leaf(c, 0x40000001, 0)->eax & 9, 0); /* both of them */
	free(c);
	free(s);

	assert_int_equal(x86_cpu_model_parse(&m, "host", NULL), 0);
	assert_false(m.no_pmu);
	assert_int_equal(x86_cpu_model_parse(&m, "host,pmu=off", NULL), 0);
	assert_true(m.no_pmu);
	assert_int_equal(x86_cpu_model_parse(&m, "x86-64-v2,migratable=on,pmu=off", NULL), 0);
	assert_true(m.no_pmu);
	refuse(NULL, "x86-64-v2,migratable=off", "migratable=off");
	refuse(NULL, "x86-64-v3,pmu=on", "pmu=on");
	refuse(NULL, "host,pmu=some", "some");
}

static void test_many_cpus(void **state)
{
	struct kvm_cpuid2 *s = fixture_amd();
	struct kvm_cpuid2 *c = build(s, "host", (struct x86_topology){300, 1, 1, 1}, 299);

	assert_int_equal(leaf(c, 0xB, 0)->edx, 299);
	assert_int_equal(leaf(c, 1, 0)->ebx >> 24, 299 & 0xFF);
	assert_true(leaf(c, 0x40000001, 0)->eax & 1u << 15); /* 15-bit MSI destinations */
	free(c);
	/* also where no more than 255 have ids that large */
	c = build(s, "host", (struct x86_topology){3, 1, 65, 1}, 0);
	assert_true(leaf(c, 0x40000001, 0)->eax & 1u << 15);
	free(c);
	c = NULL;
	{
		struct x86_cpu_model m;
		struct x86_cpuid_config cfg = {
			.supported = s, .model = &m, .topo = {300, 1, 1, 1}, .phys_bits = 40};
		struct err err = {0};

		assert_int_equal(x86_cpu_model_parse(&m, "host,-x2apic", &err), 0);
		assert_int_equal(x86_cpuid_build(&cfg, 0, &c, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "x2apic"));
		assert_null(c);
	}
	free(s);
}

static void test_old_host(void **state)
{
	/* nothing but what every 64-bit CPU has: leaves are added, none is needed */
	static const struct kvm_cpuid_entry2 old[] = {
		{.function = 0, .eax = 1, .ebx = 0x756E6547},
		{.function = 1, .eax = 0x6FB, .edx = 0x078BFBFF},
		{.function = 0x80000000, .eax = 0x80000001},
		{.function = 0x80000001, .edx = 0x20100800},
	};
	struct kvm_cpuid2 *s = fixture(old, 4);
	struct kvm_cpuid2 *c = build(s, "host", (struct x86_topology){1, 1, 2, 1}, 1);

	assert_int_equal(leaf(c, 0, 0)->eax, 0xB);
	assert_int_equal(leaf(c, 0xB, 0)->edx, 1);
	assert_int_equal(leaf(c, 0x80000000, 0)->eax, 0x80000008);
	assert_int_equal(leaf(c, 0x80000008, 0)->eax, 0x3028);
	assert_int_equal(x86_cpuid_signature(c), 0x6FB);
	free(c);
	free(s);
}

static void test_too_many_leaves(void **state)
{
	struct kvm_cpuid2 *s = calloc(1, sizeof(*s) + 300 * sizeof(s->entries[0]));
	struct x86_cpu_model m = {0};
	struct x86_cpuid_config cfg = {
		.supported = s, .model = &m, .topo = {1, 1, 1, 1}, .phys_bits = 40};
	struct kvm_cpuid2 *c;
	struct err err;

	s->nent = 300;
	assert_int_equal(x86_cpuid_build(&cfg, 0, &c, &err), -E2BIG);
	s->nent = 255; /* room for one of the leaves to add */
	for (unsigned i = 0; i < s->nent; i++) {
		s->entries[i].function = 0x90000000 + i;
	}
	assert_int_equal(x86_cpuid_build(&cfg, 0, &c, &err), -ENOSPC);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apic_ids),	cmocka_unit_test(test_amd_topology),
		cmocka_unit_test(test_intel_topology),	cmocka_unit_test(test_features),
		cmocka_unit_test(test_many_cpus), cmocka_unit_test(test_dies),
		cmocka_unit_test(test_properties),cmocka_unit_test(test_old_host),
		cmocka_unit_test(test_too_many_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
