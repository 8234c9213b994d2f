/*
 * CPU features by name.
 *
 * Names are those of the manuals in lower case with dashes, which are also QEMU's and libvirt's;
 * bits from Intel SDM vol. 2A "CPUID" and AMD APM vol. 3 appendix E; kvm- ones from KVM's
 * x86/cpuid.rst. A row costs nothing, so add what a user may want to switch off. Not here: what
 * follows from -smp (ht, cmp-legacy) or from control registers (osxsave, ospke).
 *
 * A name with several bits has several rows, one after the other; a bit with several names too.
 */
#include <string.h>

#include "arch/x86/cpuid_int.h"
#include "base/util.h"

#define F(n, leaf_, sub, reg_, bit_)                                                           \
	{                                                                                      \
		.name = n, .leaf = leaf_, .subleaf = sub, .reg = reg_, .bit = bit_             \
	}
#define N(n, leaf_, sub, reg_, bit_, needs_)                                                   \
	{                                                                                      \
		.name = n, .leaf = leaf_, .subleaf = sub, .reg = reg_, .bit = bit_,            \
		.needs = needs_                                                                \
	}
#define R(n, leaf_, sub, reg_, bit_, why)                                                      \
	{                                                                                      \
		.name = n, .leaf = leaf_, .subleaf = sub, .reg = reg_, .bit = bit_,            \
		.refused = why                                                                 \
	}

static const char nested[] = "nested virtualisation is not supported";
static const char untraced[] = "its state cannot be saved";

const struct x86_feature x86_features[] = {
	/* leaf 1 ECX */
	F("pni", 1, 0, X86_ECX, 0),
	F("sse3", 1, 0, X86_ECX, 0),
	F("pclmulqdq", 1, 0, X86_ECX, 1),
	F("dtes64", 1, 0, X86_ECX, 2),
	F("monitor", 1, 0, X86_ECX, 3),
	F("ds-cpl", 1, 0, X86_ECX, 4),
	R("vmx", 1, 0, X86_ECX, 5, nested),
	R("smx", 1, 0, X86_ECX, 6, nested),
	F("ssse3", 1, 0, X86_ECX, 9),
	N("fma", 1, 0, X86_ECX, 12, "avx"),
	F("cx16", 1, 0, X86_ECX, 13),
	F("pdcm", 1, 0, X86_ECX, 15),
	F("pcid", 1, 0, X86_ECX, 17),
	F("sse4.1", 1, 0, X86_ECX, 19),
	F("sse4.2", 1, 0, X86_ECX, 20),
	F("x2apic", 1, 0, X86_ECX, 21),
	F("movbe", 1, 0, X86_ECX, 22),
	F("popcnt", 1, 0, X86_ECX, 23),
	F("tsc-deadline", 1, 0, X86_ECX, 24),
	F("aes", 1, 0, X86_ECX, 25),
	F("xsave", 1, 0, X86_ECX, 26),
	N("avx", 1, 0, X86_ECX, 28, "xsave"),
	N("f16c", 1, 0, X86_ECX, 29, "avx"),
	F("rdrand", 1, 0, X86_ECX, 30),
	F("hypervisor", 1, 0, X86_ECX, 31),
	/* leaf 1 EDX */
	F("fpu", 1, 0, X86_EDX, 0),
	F("vme", 1, 0, X86_EDX, 1),
	F("de", 1, 0, X86_EDX, 2),
	F("pse", 1, 0, X86_EDX, 3),
	F("tsc", 1, 0, X86_EDX, 4),
	F("msr", 1, 0, X86_EDX, 5),
	F("pae", 1, 0, X86_EDX, 6),
	F("mce", 1, 0, X86_EDX, 7),
	F("cx8", 1, 0, X86_EDX, 8),
	F("apic", 1, 0, X86_EDX, 9),
	F("sep", 1, 0, X86_EDX, 11),
	F("mtrr", 1, 0, X86_EDX, 12),
	F("pge", 1, 0, X86_EDX, 13),
	F("mca", 1, 0, X86_EDX, 14),
	F("cmov", 1, 0, X86_EDX, 15),
	F("pat", 1, 0, X86_EDX, 16),
	F("pse36", 1, 0, X86_EDX, 17),
	F("clflush", 1, 0, X86_EDX, 19),
	F("ds", 1, 0, X86_EDX, 21),
	F("mmx", 1, 0, X86_EDX, 23),
	F("fxsr", 1, 0, X86_EDX, 24),
	F("sse", 1, 0, X86_EDX, 25),
	F("sse2", 1, 0, X86_EDX, 26),
	F("ss", 1, 0, X86_EDX, 27),
	/* leaf 6 */
	F("arat", 6, 0, X86_EAX, 2),
	/* leaf 7.0 EBX */
	F("fsgsbase", 7, 0, X86_EBX, 0),
	F("tsc-adjust", 7, 0, X86_EBX, 1),
	R("sgx", 7, 0, X86_EBX, 2, untraced),
	F("bmi1", 7, 0, X86_EBX, 3),
	F("hle", 7, 0, X86_EBX, 4),
	N("avx2", 7, 0, X86_EBX, 5, "avx"),
	F("smep", 7, 0, X86_EBX, 7),
	F("bmi2", 7, 0, X86_EBX, 8),
	F("erms", 7, 0, X86_EBX, 9),
	F("invpcid", 7, 0, X86_EBX, 10),
	F("rtm", 7, 0, X86_EBX, 11),
	N("mpx", 7, 0, X86_EBX, 14, "xsave"),
	N("avx512f", 7, 0, X86_EBX, 16, "avx2"),
	N("avx512dq", 7, 0, X86_EBX, 17, "avx512f"),
	F("rdseed", 7, 0, X86_EBX, 18),
	F("adx", 7, 0, X86_EBX, 19),
	F("smap", 7, 0, X86_EBX, 20),
	N("avx512ifma", 7, 0, X86_EBX, 21, "avx512f"),
	F("clflushopt", 7, 0, X86_EBX, 23),
	F("clwb", 7, 0, X86_EBX, 24),
	R("intel-pt", 7, 0, X86_EBX, 25, untraced),
	N("avx512pf", 7, 0, X86_EBX, 26, "avx512f"),
	N("avx512er", 7, 0, X86_EBX, 27, "avx512f"),
	N("avx512cd", 7, 0, X86_EBX, 28, "avx512f"),
	F("sha-ni", 7, 0, X86_EBX, 29),
	N("avx512bw", 7, 0, X86_EBX, 30, "avx512f"),
	N("avx512vl", 7, 0, X86_EBX, 31, "avx512f"),
	/* leaf 7.0 ECX */
	N("avx512vbmi", 7, 0, X86_ECX, 1, "avx512f"),
	F("umip", 7, 0, X86_ECX, 2),
	N("pku", 7, 0, X86_ECX, 3, "xsave"),
	F("waitpkg", 7, 0, X86_ECX, 5),
	N("avx512-vbmi2", 7, 0, X86_ECX, 6, "avx512f"),
	N("avx512vbmi2", 7, 0, X86_ECX, 6, "avx512f"),
	N("shstk", 7, 0, X86_ECX, 7, "xsaves"),
	F("gfni", 7, 0, X86_ECX, 8),
	N("vaes", 7, 0, X86_ECX, 9, "avx"),
	N("vpclmulqdq", 7, 0, X86_ECX, 10, "avx"),
	N("avx512vnni", 7, 0, X86_ECX, 11, "avx512f"),
	N("avx512bitalg", 7, 0, X86_ECX, 12, "avx512f"),
	N("avx512-vpopcntdq", 7, 0, X86_ECX, 14, "avx512f"),
	F("la57", 7, 0, X86_ECX, 16),
	F("rdpid", 7, 0, X86_ECX, 22),
	F("bus-lock-detect", 7, 0, X86_ECX, 24),
	F("cldemote", 7, 0, X86_ECX, 25),
	F("movdiri", 7, 0, X86_ECX, 27),
	F("movdir64b", 7, 0, X86_ECX, 28),
	R("sgxlc", 7, 0, X86_ECX, 30, untraced),
	F("pks", 7, 0, X86_ECX, 31),
	/* leaf 7.0 EDX */
	N("avx512-4vnniw", 7, 0, X86_EDX, 2, "avx512f"),
	N("avx512-4fmaps", 7, 0, X86_EDX, 3, "avx512f"),
	F("fsrm", 7, 0, X86_EDX, 4),
	N("avx512-vp2intersect", 7, 0, X86_EDX, 8, "avx512f"),
	F("md-clear", 7, 0, X86_EDX, 10),
	F("serialize", 7, 0, X86_EDX, 14),
	F("tsxldtrk", 7, 0, X86_EDX, 16),
	R("arch-lbr", 7, 0, X86_EDX, 19, untraced),
	N("ibt", 7, 0, X86_EDX, 20, "xsaves"),
	N("amx-bf16", 7, 0, X86_EDX, 22, "amx-tile"),
	N("avx512-fp16", 7, 0, X86_EDX, 23, "avx512bw"),
	N("amx-tile", 7, 0, X86_EDX, 24, "xsave"),
	N("amx-int8", 7, 0, X86_EDX, 25, "amx-tile"),
	F("spec-ctrl", 7, 0, X86_EDX, 26),
	F("stibp", 7, 0, X86_EDX, 27),
	F("flush-l1d", 7, 0, X86_EDX, 28),
	F("arch-capabilities", 7, 0, X86_EDX, 29),
	F("core-capability", 7, 0, X86_EDX, 30),
	F("ssbd", 7, 0, X86_EDX, 31),
	/* leaf 7.1 EAX */
	N("avx-vnni", 7, 1, X86_EAX, 4, "avx2"),
	N("avx512-bf16", 7, 1, X86_EAX, 5, "avx512f"),
	F("fzrm", 7, 1, X86_EAX, 10),
	F("fsrs", 7, 1, X86_EAX, 11),
	F("fsrc", 7, 1, X86_EAX, 12),
	N("amx-fp16", 7, 1, X86_EAX, 21, "amx-tile"),
	N("avx-ifma", 7, 1, X86_EAX, 23, "avx2"),
	/* leaf 0xD.1 EAX */
	N("xsaveopt", 0xD, 1, X86_EAX, 0, "xsave"),
	N("xsavec", 0xD, 1, X86_EAX, 1, "xsave"),
	N("xgetbv1", 0xD, 1, X86_EAX, 2, "xsave"),
	N("xsaves", 0xD, 1, X86_EAX, 3, "xsave"),
	/* KVM's own */
	F("kvmclock", 0x40000001, 0, X86_EAX, 0),
	F("kvmclock", 0x40000001, 0, X86_EAX, 3),
	F("kvm-nopiodelay", 0x40000001, 0, X86_EAX, 1),
	F("kvm-asyncpf", 0x40000001, 0, X86_EAX, 4),
	F("kvm-steal-time", 0x40000001, 0, X86_EAX, 5),
	F("kvm-pv-eoi", 0x40000001, 0, X86_EAX, 6),
	F("kvm-pv-unhalt", 0x40000001, 0, X86_EAX, 7),
	F("kvm-pv-tlb-flush", 0x40000001, 0, X86_EAX, 9),
	F("kvm-asyncpf-vmexit", 0x40000001, 0, X86_EAX, 10),
	F("kvm-pv-ipi", 0x40000001, 0, X86_EAX, 11),
	F("kvm-poll-control", 0x40000001, 0, X86_EAX, 12),
	F("kvm-pv-sched-yield", 0x40000001, 0, X86_EAX, 13),
	F("kvm-asyncpf-int", 0x40000001, 0, X86_EAX, 14),
	F("kvmclock-stable-bit", 0x40000001, 0, X86_EAX, 24),
	/* leaf 80000001 ECX */
	F("lahf-lm", 0x80000001, 0, X86_ECX, 0),
	R("svm", 0x80000001, 0, X86_ECX, 2, nested),
	F("cr8legacy", 0x80000001, 0, X86_ECX, 4),
	F("abm", 0x80000001, 0, X86_ECX, 5),
	F("lzcnt", 0x80000001, 0, X86_ECX, 5),
	F("sse4a", 0x80000001, 0, X86_ECX, 6),
	F("misalignsse", 0x80000001, 0, X86_ECX, 7),
	F("3dnowprefetch", 0x80000001, 0, X86_ECX, 8),
	F("osvw", 0x80000001, 0, X86_ECX, 9),
	R("ibs", 0x80000001, 0, X86_ECX, 10, untraced),
	N("xop", 0x80000001, 0, X86_ECX, 11, "avx"),
	N("fma4", 0x80000001, 0, X86_ECX, 16, "avx"),
	F("tbm", 0x80000001, 0, X86_ECX, 21),
	F("topoext", 0x80000001, 0, X86_ECX, 22),
	F("perfctr-core", 0x80000001, 0, X86_ECX, 23),
	F("perfctr-nb", 0x80000001, 0, X86_ECX, 24),
	/* leaf 80000001 EDX */
	F("syscall", 0x80000001, 0, X86_EDX, 11),
	F("nx", 0x80000001, 0, X86_EDX, 20),
	F("mmxext", 0x80000001, 0, X86_EDX, 22),
	F("fxsr-opt", 0x80000001, 0, X86_EDX, 25),
	F("pdpe1gb", 0x80000001, 0, X86_EDX, 26),
	F("rdtscp", 0x80000001, 0, X86_EDX, 27),
	F("lm", 0x80000001, 0, X86_EDX, 29),
	F("3dnowext", 0x80000001, 0, X86_EDX, 30),
	F("3dnow", 0x80000001, 0, X86_EDX, 31),
	/* leaf 80000007 EDX, 80000008 EBX */
	F("invtsc", 0x80000007, 0, X86_EDX, 8),
	F("clzero", 0x80000008, 0, X86_EBX, 0),
	F("xsaveerptr", 0x80000008, 0, X86_EBX, 2),
	F("wbnoinvd", 0x80000008, 0, X86_EBX, 9),
	F("ibpb", 0x80000008, 0, X86_EBX, 12),
	F("ibrs", 0x80000008, 0, X86_EBX, 14),
	F("amd-stibp", 0x80000008, 0, X86_EBX, 15),
	F("stibp-always-on", 0x80000008, 0, X86_EBX, 17),
	F("amd-ssbd", 0x80000008, 0, X86_EBX, 24),
	F("virt-ssbd", 0x80000008, 0, X86_EBX, 25),
	F("amd-no-ssb", 0x80000008, 0, X86_EBX, 26),
	F("amd-psfd", 0x80000008, 0, X86_EBX, 28),
	/* leaf 80000021 EAX */
	F("no-nested-data-bp", 0x80000021, 0, X86_EAX, 0),
	F("lfence-always-serializing", 0x80000021, 0, X86_EAX, 2),
	F("null-sel-clr-base", 0x80000021, 0, X86_EAX, 6),
	F("auto-ibrs", 0x80000021, 0, X86_EAX, 8),
};
const unsigned x86_feature_count = ARRAY_SIZE(x86_features);

/* "sse4.1", "sse4_1" and "sse4-1" are the same. */
static char plain(char c)
{
	return c == '_' || c == '.' ? '-' : c;
}

static bool same_name(const char *a, const char *b)
{
	while (*a && plain(*a) == plain(*b)) {
		a++;
		b++;
	}
	return !*a && !*b;
}

int x86_feature_find(const char *name)
{
	for (unsigned i = 0; i < x86_feature_count; i++) {
		if (same_name(x86_features[i].name, name)) {
			return i;
		}
	}
	return -1;
}

unsigned x86_feature_end(unsigned f)
{
	unsigned i = f + 1;

	while (i < x86_feature_count && !strcmp(x86_features[i].name, x86_features[f].name)) {
		i++;
	}
	return i;
}

const char *arch_cpu_feature(unsigned i)
{
	unsigned f = 0;

	while (f < x86_feature_count && (x86_features[f].refused || i)) {
		i -= !x86_features[f].refused;
		f = x86_feature_end(f);
	}
	return f < x86_feature_count ? x86_features[f].name : NULL;
}

/* How many characters have to be changed, put in or left out (Levenshtein). */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[X86_FEATURE_NAME_MAX + 1], lb = strlen(b);

	if (strlen(a) > X86_FEATURE_NAME_MAX || lb > X86_FEATURE_NAME_MAX) {
		return UINT32_MAX;
	}
	for (unsigned j = 0; j <= lb; j++) {
		row[j] = j;
	}
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned corner = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned same = corner + (plain(a[i - 1]) != plain(b[j - 1]));

			corner = row[j];
			row[j] = MIN(same, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[lb];
}

const char *x86_feature_nearest(const char *name)
{
	unsigned best = 3; /* further away it is no typing error */
	const char *found = NULL;

	for (unsigned i = 0; i < x86_feature_count; i++) {
		unsigned d = distance(x86_features[i].name, name);

		if (d < best && d < strlen(name)) {
			best = d;
			found = x86_features[i].name;
		}
	}
	return found;
}
