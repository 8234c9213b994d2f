/*
 * The baseline models of -cpu: their features to the bit on both vendors, what is the same on
 * different hosts, which hosts are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "arch/x86/cpuid.h"
#include "base/util.h"
#include "cpuid_fixture.h"

/* leaf 1: what every level has, then each level's own; EDX is the same in all */
#define L1_EDX	  0x078BFBFDu /* fpu to sse2, without vme, psn, ds and acpi */
#define L1_ECX_V1 (1u << 31 | 1u << 24 | 1u << 21)
#define L1_ECX_V2 (L1_ECX_V1 | 1u << 23 | 1u << 20 | 1u << 19 | 1u << 13 | 1u << 9 | 1u << 0)
#define L1_ECX_V3 (L1_ECX_V2 | 1u << 29 | 1u << 28 | 1u << 26 | 1u << 22 | 1u << 12)
#define L7_EBX_V3 (1u << 8 | 1u << 5 | 1u << 3)
#define L7_EBX_V4 (L7_EBX_V3 | 1u << 31 | 1u << 30 | 1u << 28 | 1u << 17 | 1u << 16)
#define KVM_BITS  0x01006AFBu

static int try_build(const struct kvm_cpuid2 *s, const char *cpu, struct kvm_cpuid2 **c,
		     struct err *err)
{
	struct x86_cpu_model m;
	struct x86_cpuid_config cfg = {
		.supported = s, .model = &m, .topo = {1, 1, 1, 1}, .phys_bits = 40};
	int r = x86_cpu_model_parse(&m, cpu, err);

	*c = NULL;
	return r ? r : x86_cpuid_build(&cfg, 0, c, err);
}

static struct kvm_cpuid2 *build(const struct kvm_cpuid2 *s, const char *cpu)
{
	struct kvm_cpuid2 *c;
	struct err err = {0};

	if (try_build(s, cpu, &c, &err)) {
		fail_msg("%s: %s", cpu, err.msg);
	}
	return c;
}

static void refuse(const struct kvm_cpuid2 *s, const char *cpu, const char *part)
{
	struct kvm_cpuid2 *c;
	struct err err = {0};

	assert_int_equal(try_build(s, cpu, &c, &err), -EINVAL);
	assert_null(c);
	if (!strstr(err.msg, part)) {
		fail_msg("'%s' says '%s', not '%s'", cpu, err.msg, part);
	}
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t f, uint32_t i)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(c, f, i);

	assert_non_null(e);
	return e;
}

static struct kvm_cpuid_entry2 *edit(struct kvm_cpuid2 *c, uint32_t f, uint32_t i)
{
	return (struct kvm_cpuid_entry2 *)leaf(c, f, i);
}

/* The fixtures are older than the levels need in two bits that every such host has. */
static struct kvm_cpuid2 *host(bool amd)
{
	struct kvm_cpuid2 *s = amd ? fixture_amd() : fixture_intel();

	s = realloc(s, sizeof(*s) + (s->nent + 1) * sizeof(s->entries[0]));
	s->entries[s->nent++] = (struct kvm_cpuid_entry2){.function = 6, .eax = 4};
	edit(s, 1, 0)->edx |= L1_EDX;
	edit(s, 0x80000001, 0)->ecx |= 1u << 5;	    /* lzcnt */
	edit(s, 0x80000001, 0)->edx |= 1u << 20;    /* nx */
	edit(s, 0x40000001, 0)->eax |= KVM_BITS;
	return s;
}

static void test_levels(void **state)
{
	static const struct {
		const char *name;
		uint32_t l1_ecx, l7_ebx, xcr0, e1_ecx, signature[2];
	} level[] = {
		{"x86-64-v2", L1_ECX_V2, 0, 0, 1, {0x106A5, 0x600F12}},
		{"x86-64-v3", L1_ECX_V3, L7_EBX_V3, 7, 0x21, {0x306C3, 0x800F12}},
		{"x86-64-v4", L1_ECX_V3, L7_EBX_V4, 0xE7, 0x21, {0x50654, 0xA10F11}},
	};

	for (unsigned amd = 0; amd < 2; amd++) {
		struct kvm_cpuid2 *s = host(amd);

		for (size_t i = 0; i < ARRAY_SIZE(level); i++) {
			struct kvm_cpuid2 *c = build(s, level[i].name);
			const struct kvm_cpuid_entry2 *e = leaf(c, 1, 0);
			char brand[49] = {0};

			assert_int_equal(e->eax, level[i].signature[amd]);
			assert_int_equal(x86_cpuid_signature(c), e->eax);
			assert_int_equal(e->ecx, level[i].l1_ecx);
			assert_int_equal(e->edx, L1_EDX);
			assert_int_equal(leaf(c, 0, 0)->eax, 0xD);
			assert_int_equal(leaf(c, 0, 0)->ebx, leaf(s, 0, 0)->ebx);
			assert_int_equal(leaf(c, 6, 0)->eax, 4);
			e = leaf(c, 7, 0);
			assert_int_equal(e->eax | e->ecx | e->edx, 0);
			assert_int_equal(e->ebx, level[i].l7_ebx);
			assert_null(x86_cpuid_find(c, 7, 1));
			assert_null(x86_cpuid_find(c, 0xA, 0));
			assert_null(x86_cpuid_find(c, 0x1F, 0));
			e = leaf(c, 0x80000001, 0);
			assert_int_equal(e->ecx, level[i].e1_ecx);
			/* AMD repeats those of leaf 1 */
			assert_int_equal(e->edx, 0x20100800 | (amd ? L1_EDX & 0x0183F3FF : 0));
			assert_int_equal(leaf(c, 0x80000000, 0)->eax, 0x80000008);
			assert_int_equal(leaf(c, 0x80000007, 0)->edx, 0);
			assert_int_equal(leaf(c, 0x80000008, 0)->eax, 0x3028);
			assert_int_equal(leaf(c, 0x80000008, 0)->ebx, 0);
			assert_int_equal(leaf(c, 0x40000000, 0)->eax, 0x40000001);
			assert_int_equal(leaf(c, 0x40000001, 0)->eax, KVM_BITS);
			for (unsigned k = 0; k < 3; k++) {
				memcpy(brand + 16 * k, &leaf(c, 0x80000002 + k, 0)->eax, 16);
			}
			assert_non_null(strstr(brand, level[i].name));
			if (!level[i].xcr0) {
				assert_null(x86_cpuid_find(c, 0xD, 0));
			} else {
				unsigned last = level[i].xcr0 == 7 ? 2 : 7;

				e = leaf(c, 0xD, 0);
				assert_int_equal(e->eax, level[i].xcr0);
				assert_int_equal(e->ebx, 576);
				assert_int_equal(e->ecx, leaf(s, 0xD, last)->eax +
								 leaf(s, 0xD, last)->ebx);
				assert_null(x86_cpuid_find(c, 0xD, 1));
				assert_null(x86_cpuid_find(c, 0xD, 9));
				assert_null(x86_cpuid_find(c, 0xD, 11));
			}
			free(c);
		}
		free(s);
	}
}

/* Two hosts of one vendor, one of which can do more: the same guest. */
static void test_same_everywhere(void **state)
{
	static const char *const names[] = {"x86-64-v2", "x86-64-v2,+aes", "x86-64-v3"};

	for (unsigned amd = 0; amd < 2; amd++) {
		struct kvm_cpuid2 *a = host(amd), *b = host(amd);

		/* no AVX-512, MPX, AMX, supervisor states, fewer leaves, another stepping */
		edit(b, 1, 0)->eax += 1;
		edit(b, 7, 0)->ebx &= ~0xDC230000u;
		edit(b, 7, 0)->ecx = edit(b, 7, 0)->edx = 0;
		edit(b, 0xD, 0)->eax = 7;
		edit(b, 0xD, 0)->ecx = 0x340;
		memset(&edit(b, 0xD, 1)->eax, 0, 16);
		for (uint32_t i = 3; i < 20; i++) {
			if (x86_cpuid_find(b, 0xD, i)) {
				memset(&edit(b, 0xD, i)->eax, 0, 16);
			}
		}
		edit(b, 0, 0)->eax = 0xD;
		edit(b, 0x80000008, 0)->ebx = 0;
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			struct kvm_cpuid2 *x = build(a, names[i]), *y = build(b, names[i]);
			unsigned n = 0;

			for (uint32_t k = 0; k < x->nent; k++) {
				const struct kvm_cpuid_entry2 *e = &x->entries[k], *f;

				f = leaf(y, e->function, e->index);
				assert_memory_equal(e, f, sizeof(*e));
				n++;
			}
			assert_int_equal(n, y->nent);
			free(x);
			free(y);
		}
		free(a);
		free(b);
	}
}

static void test_missing(void **state)
{
	struct kvm_cpuid2 *s = host(true);
	const char *doc;
	char all[400] = "";
	unsigned v3 = 0;

	while (strcmp(arch_cpu_model(v3, &doc), "x86-64-v3")) {
		v3++;
	}
	assert_null(x86_cpu_model_missing(s, v3, 0));
	edit(s, 1, 0)->ecx &= ~(1u << 28 | 1u << 12 | 1u << 29);
	edit(s, 7, 0)->ebx &= ~(1u << 5 | 1u << 16);
	refuse(s, "x86-64-v3", "this host lacks avx, avx2, f16c, fma: use a lower level");
	refuse(s, "x86-64-v4", "avx, avx2, f16c, fma, avx512f:");
	for (unsigned j = 0; x86_cpu_model_missing(s, v3, j); j++) {
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s ",
			 x86_cpu_model_missing(s, v3, j));
	}
	assert_string_equal(all, "avx avx2 f16c fma ");
	assert_null(x86_cpu_model_missing(s, 0, 0)); /* host: never */
	assert_null(x86_cpu_model_missing(s, 99, 0));
	free(build(s, "x86-64-v2"));
	/* half of a name with two bits is not there */
	edit(s, 0x40000001, 0)->eax &= ~1u;
	refuse(s, "x86-64-v2", "kvmclock");
	free(s);
}

static void test_changes(void **state)
{
	struct kvm_cpuid2 *s = host(false), *c;

	c = build(s, "x86-64-v2,+aes,+smep,x2apic=off,+rdtscp");
	assert_int_equal(leaf(c, 1, 0)->ecx, (L1_ECX_V2 | 1u << 25) & ~(1u << 21));
	assert_int_equal(leaf(c, 7, 0)->ebx, 1u << 7);
	assert_int_equal(leaf(c, 0x80000001, 0)->edx, 0x28100800);
	free(c);
	/* a leaf that the model has not, and the way to it */
	c = build(s, "x86-64-v3,+avx-vnni,+xsaveopt");
	assert_int_equal(leaf(c, 7, 0)->eax, 1);
	assert_int_equal(leaf(c, 7, 1)->eax, 1u << 4);
	assert_int_equal(leaf(c, 0xD, 1)->eax, 1);
	free(c);
	/* without AVX nothing that builds on it */
	c = build(s, "x86-64-v3,-avx");
	assert_int_equal(leaf(c, 7, 0)->ebx, 1u << 8 | 1u << 3);
	assert_int_equal(leaf(c, 0xD, 0)->eax, 3);
	free(c);
	refuse(s, "x86-64-v2,+avx2", "'avx2' needs 'avx'");
	refuse(s, "x86-64-v2,+xop", "KVM does not offer feature 'xop'");
	refuse(s, "x86-64-v5", "'x86-64-v5' is no model");
	free(s);
}

static void test_names(void **state)
{
	const char *name, *doc;
	bool seen = false;
	unsigned n = 0;

	for (unsigned i = 0; (name = arch_cpu_model(i, &doc)); i++) {
		struct x86_cpu_model m;

		assert_true(doc && *doc);
		assert_int_equal(x86_cpu_model_parse(&m, name, NULL), 0);
		n++;
	}
	assert_int_equal(n, 5);
	for (n = 0; (name = arch_cpu_feature(n)); n++) {
		struct x86_cpu_model m;
		char text[64];

		snprintf(text, sizeof(text), "host,+%s", name);
		assert_int_equal(x86_cpu_model_parse(&m, text, NULL), 0);
		assert_string_not_equal(name, "svm"); /* can never be had */
		assert_false(seen && !strcmp(name, "kvmclock"));
		seen |= !strcmp(name, "kvmclock");
	}
	assert_true(n > 150 && seen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels),	cmocka_unit_test(test_same_everywhere),
		cmocka_unit_test(test_missing), cmocka_unit_test(test_changes),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
