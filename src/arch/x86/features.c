/*
 * CPU features by name, and the parser of -cpu.
 *
 * Names are those of the manuals in lower case with dashes, which are also QEMU's and libvirt's;
 * bits from Intel SDM vol. 2A "CPUID" and AMD APM vol. 3 appendix E; kvm- ones from KVM's
 * x86/cpuid.rst. A row costs nothing, so add what a user may want to switch off.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid_int.h"
#include "base/opts.h"
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
	F("sse4-1", 1, 0, X86_ECX, 19),
	F("sse4-2", 1, 0, X86_ECX, 20),
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
	F("vme", 1, 0, X86_EDX, 1),
	F("de", 1, 0, X86_EDX, 2),
	F("mce", 1, 0, X86_EDX, 7),
	F("mtrr", 1, 0, X86_EDX, 12),
	F("mca", 1, 0, X86_EDX, 14),
	F("pat", 1, 0, X86_EDX, 16),
	F("pse36", 1, 0, X86_EDX, 17),
	F("clflush", 1, 0, X86_EDX, 19),
	F("ds", 1, 0, X86_EDX, 21),
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
	F("amd-ssbd", 0x80000008, 0, X86_EBX, 24),
	F("virt-ssbd", 0x80000008, 0, X86_EBX, 25),
};
const unsigned x86_feature_count = ARRAY_SIZE(x86_features);

static bool same_name(const char *name, const char *given)
{
	for (; *name && *given; name++, given++) {
		char c = *given == '_' || *given == '.' ? '-' : *given;

		if (c != *name) {
			return false;
		}
	}
	return !*name && !*given;
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

static int model_change(struct x86_cpu_model *m, const char *name, bool on, struct err *err)
{
	int f = x86_feature_find(name);

	if (f < 0) {
		return err_set(err, EINVAL,
			       "-cpu: no CPU feature '%s': see the manual for names", name);
	}
	if (on && x86_features[f].refused) {
		return err_set(err, EINVAL,
			       "-cpu: feature '%s' is not available, %s: leave it "
			       "out",
			       name, x86_features[f].refused);
	}
	if (m->changes == X86_MAX_FEATURE_CHANGES) {
		return err_set(err, EINVAL, "-cpu: more than %d features",
			       X86_MAX_FEATURE_CHANGES);
	}
	m->change[m->changes].feature = f;
	m->change[m->changes++].on = on;
	return 0;
}

static int model_opt(struct x86_cpu_model *m, const struct opt *o, struct err *err)
{
	uint64_t bits;
	bool on;

	if (o->key[0] == '+' || o->key[0] == '-') {
		return model_change(m, o->key + 1, o->key[0] == '+', err);
	}
	if (!strcmp(o->key, "phys-bits")) {
		if (parse_u64(o->value, &bits) < 0 || bits < 32 || bits > 52) {
			return err_set(err, EINVAL,
				       "-cpu: phys-bits=%s is not a number from 32 "
				       "to 52",
				       o->value);
		}
		m->phys_bits = bits;
		return 0;
	}
	if (parse_bool(o->value, &on) < 0) {
		return err_set(err, EINVAL, "-cpu: %s=%s is neither on nor off", o->key,
			       o->value);
	}
	if (!strcmp(o->key, "host-phys-bits")) {
		m->host_phys_bits = on;
		return 0;
	}
	return model_change(m, o->key, on, err);
}

int x86_cpu_model_parse(struct x86_cpu_model *m, const char *text, struct err *err)
{
	struct opts o;
	int r;

	*m = (struct x86_cpu_model){0};
	r = opts_parse(&o, "-cpu", text, "model", err);
	if (r < 0) {
		return r;
	}
	if (!o.count || strcmp(o.opt[0].key, "model") || strcmp(o.opt[0].value, "host")) {
		r = err_set(err, EINVAL, "-cpu %s: the only model is 'host': use -cpu host",
			    o.count ? o.opt[0].value : "");
	}
	for (size_t i = 1; i < o.count && r == 0; i++) {
		r = model_opt(m, &o.opt[i], err);
	}
	if (r == 0 && m->phys_bits && m->host_phys_bits) {
		r = err_set(err, EINVAL,
			    "-cpu: phys-bits= and host-phys-bits=on contradict each "
			    "other: give one");
	}
	opts_fini(&o);
	return r;
}
