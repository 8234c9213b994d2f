/*
 * The baseline models: what a machine that is to migrate sees on every host of one vendor.
 *
 * The features are the levels of the x86-64 psABI (System V ABI, AMD64 supplement, table 3.1),
 * which list what programs may use, and what a 64-bit kernel and a guest of KVM build on. No
 * more, even where the host has more: add what all hosts have with +feature.
 *
 * Invariants
 *  1. Nothing comes from the host but its vendor, the layout of the XSAVE area (which hardware
 *     fixes and differs between vendors) and the width of addresses, if -cpu says so.
 *  2. A model never changes within a machine version: equal options give equal CPUID.
 *
 * Family, model and stepping are those of a processor of that vendor that has the level, so that
 * guests neither miss its errata nor look for registers that it lacks. Caches and brand are
 * made up.
 * Pure functions, any thread.
 */
#include <stdio.h>
#include <string.h>

#include "arch/x86/cpuid_int.h"
#include "base/util.h"

static const char *const kernel_features[] = {
	"fpu", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "sep", "mtrr", "pge",
	"mca", "cmov", "pat", "pse36", "clflush", "mmx", "fxsr", "sse", "sse2", "syscall", "nx",
	"lm",
	/* of a guest: KVM emulates them everywhere */
	"x2apic", "tsc-deadline", "arat", "hypervisor",
	/* in every KVM since Linux 5.8 */
	"kvmclock", "kvm-nopiodelay", "kvm-asyncpf", "kvm-asyncpf-int", "kvm-steal-time",
	"kvm-pv-eoi", "kvm-pv-unhalt", "kvm-pv-tlb-flush", "kvm-pv-ipi", "kvm-pv-sched-yield",
	"kvmclock-stable-bit",
};
static const char *const v2_features[] = {
	"pni", "ssse3", "cx16", "sse4.1", "sse4.2", "popcnt", "lahf-lm",
};
static const char *const v3_features[] = {
	"xsave", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe",
};
static const char *const v4_features[] = {
	"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
};

static const struct {
	const char *const *name;
	unsigned count;
} level_features[] = {
	{kernel_features, ARRAY_SIZE(kernel_features)},
	{v2_features, ARRAY_SIZE(v2_features)},
	{v3_features, ARRAY_SIZE(v3_features)},
	{v4_features, ARRAY_SIZE(v4_features)},
};

static const struct x86_base_model base_models[] = {
	/* Nehalem; Bulldozer */
	{"x86-64-v2", "baseline with SSE4.2, for machines that migrate", 2,
	 {0x106A5, 0x600F12}},
	/* Haswell; Zen */
	{"x86-64-v3", "baseline with AVX2, for machines that migrate", 3, {0x306C3, 0x800F12}},
	/* Skylake server; Zen 4 */
	{"x86-64-v4", "baseline with AVX-512, for machines that migrate", 4,
	 {0x50654, 0xA10F11}},
};

const struct x86_base_model *x86_base_model_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(base_models); i++) {
		if (!strcmp(base_models[i].name, name)) {
			return &base_models[i];
		}
	}
	return NULL;
}

const char *x86_base_model_feature(const struct x86_base_model *m, unsigned i)
{
	for (unsigned l = 0; l < m->levels; l++) {
		if (i < level_features[l].count) {
			return level_features[l].name[i];
		}
		i -= level_features[l].count;
	}
	return NULL;
}

static const struct {
	const char *name, *doc;
} host_models[] = {
	{"host", "the processor of this host, as far as KVM can show it"},
	{"max", "the same as host"},
};

const char *arch_cpu_model(unsigned i, const char **doc)
{
	const unsigned hosts = ARRAY_SIZE(host_models);

	if (i < hosts) {
		*doc = host_models[i].doc;
		return host_models[i].name;
	}
	if (i - hosts < ARRAY_SIZE(base_models)) {
		*doc = base_models[i - hosts].doc;
		return base_models[i - hosts].name;
	}
	return NULL;
}

const char *x86_cpu_model_missing(const struct kvm_cpuid2 *supported, unsigned i, unsigned j)
{
	const char *doc, *name = arch_cpu_model(i, &doc), *f;
	const struct x86_base_model *m = name ? x86_base_model_find(name) : NULL;

	for (unsigned k = 0; m && (f = x86_base_model_feature(m, k)); k++) {
		if (!x86_cpuid_offers(supported, f) && j-- == 0) {
			return f;
		}
	}
	return NULL;
}

/* --- leaves --- */

#define SUB KVM_CPUID_FLAG_SIGNIFCANT_INDEX

/* 32 KiB, 32 KiB and 512 KiB in 8 ways, 16 MiB in 16; lines of 64 bytes. Sharing: topology.c. */
static const struct kvm_cpuid_entry2 intel_leaves[] = {
	{.function = 2, .eax = 0x00FF0001}, /* caches: see leaf 4 */
	{.function = 4, .index = 0, .flags = SUB, .eax = 0x121, .ebx = 0x01C0003F, .ecx = 63},
	{.function = 4, .index = 1, .flags = SUB, .eax = 0x122, .ebx = 0x01C0003F, .ecx = 63},
	{.function = 4, .index = 2, .flags = SUB, .eax = 0x143, .ebx = 0x01C0003F, .ecx = 1023},
	{.function = 4, .index = 3, .flags = SUB, .eax = 0x163, .ebx = 0x03C0003F, .ecx = 16383},
	{.function = 4, .index = 4, .flags = SUB},
};
static const struct kvm_cpuid_entry2 amd_leaves[] = {
	{.function = 0x80000005, .ecx = 0x20080140, .edx = 0x20080140},
	{.function = 0x80000006, .ecx = 0x02006140, .edx = 0x00808140},
};

static void append_all(struct x86_builder *b, const struct kvm_cpuid_entry2 *e, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		x86_leaf_append(b, e[i]);
	}
}

/* The components that features switch: x87 and SSE, AVX, MPX, AVX-512, PKU, AMX. */
#define XCR0_KNOWN 0x000602FFu

/* Where XSAVE puts each component on this host; what no feature uses is dropped in the end. */
static void append_xsave(struct x86_builder *b)
{
	const struct kvm_cpuid2 *s = b->cfg->supported;

	for (uint32_t i = 0; i < s->nent; i++) {
		struct kvm_cpuid_entry2 e = s->entries[i];

		if (e.function != 0xD) {
			continue;
		}
		if (e.index == 0) {
			e.eax &= XCR0_KNOWN;
			e.ebx = 512 + 64; /* of what is enabled: KVM keeps it up to date */
			e.edx = 0;
		} else if (e.index == 1) {
			e.eax = e.ebx = 0; /* features, and KVM's */
		}
		x86_leaf_append(b, e);
	}
}

static void append_brand(struct x86_builder *b, const char *name)
{
	uint32_t text[12] = {0};

	snprintf((char *)text, sizeof(text), "NEMU %s virtual processor", name);
	for (unsigned i = 0; i < 3; i++) {
		const uint32_t *t = text + 4 * i;

		x86_leaf_append(b, (struct kvm_cpuid_entry2){
					   .function = 0x80000002 + i,
					   .eax = t[0], .ebx = t[1], .ecx = t[2], .edx = t[3]});
	}
}

void x86_base_model_leaves(struct x86_builder *b)
{
	const struct x86_base_model *m = b->cfg->model->base;
	const struct kvm_cpuid_entry2 *vendor = x86_cpuid_find(b->cfg->supported, 0, 0);
	struct kvm_cpuid_entry2 e = {.eax = 0xD};

	if (vendor) {
		e.ebx = vendor->ebx;
		e.ecx = vendor->ecx;
		e.edx = vendor->edx;
	}
	x86_leaf_append(b, e);
	x86_leaf_append(b, (struct kvm_cpuid_entry2){
				   .function = 1, .eax = m->signature[b->vendor], .ebx = 0x0800});
	if (b->vendor == X86_INTEL) {
		append_all(b, intel_leaves, ARRAY_SIZE(intel_leaves));
	}
	x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = 6});
	x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = 7, .flags = SUB});
	append_xsave(b);
	e.function = 0x80000000;
	e.eax = 0x80000008;
	if (b->vendor == X86_INTEL) {
		e.ebx = e.ecx = e.edx = 0;
	}
	x86_leaf_append(b, e);
	x86_leaf_append(b, (struct kvm_cpuid_entry2){
				   .function = 0x80000001,
				   .eax = b->vendor == X86_AMD ? m->signature[X86_AMD] : 0});
	append_brand(b, m->name);
	if (b->vendor == X86_AMD) {
		append_all(b, amd_leaves, ARRAY_SIZE(amd_leaves));
	} else {
		x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = 0x80000006,
							     .ecx = 0x02006040});
	}
	x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = 0x80000007});
	x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 48 << 8});
	/* "KVMKVMKVM" */
	x86_leaf_append(b, (struct kvm_cpuid_entry2){
				   .function = KVM_CPUID_LEAF_SIGNATURE,
				   .eax = KVM_CPUID_LEAF_FEATURES, .ebx = 0x4B4D564B,
				   .ecx = 0x564B4D56, .edx = 0x4D});
	x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = KVM_CPUID_LEAF_FEATURES});
}

/* APM vol. 3, E.4.2: on AMD these bits of 80000001h EDX repeat those of leaf 1. */
#define AMD_COPIES 0x0183F3FFu

void x86_base_model_finish(struct x86_builder *b)
{
	struct kvm_cpuid_entry2 *e = x86_leaf(b, 0x80000001, 0), *l1 = x86_leaf(b, 1, 0);
	const struct kvm_cpuid_entry2 *d1 = x86_cpuid_find(b->c, 0xD, 1);
	uint64_t xss = d1 ? d1->ecx | (uint64_t)d1->edx << 32 : 0;
	uint32_t n = 0;

	if (b->vendor == X86_AMD && e && l1) {
		e->edx |= l1->edx & AMD_COPIES;
	}
	/* components that are not in use, whose number differs from host to host */
	for (uint32_t i = 0; i < b->c->nent; i++) {
		const struct kvm_cpuid_entry2 x = b->c->entries[i];
		bool empty = !(x.eax | x.ebx | x.ecx | x.edx);
		bool supervisor = x.index >= 2 && x.index < 64 && x.ecx & 1;

		if (x.function != 0xD || !(empty || (supervisor && !(xss >> x.index & 1)))) {
			b->c->entries[n++] = x;
		}
	}
	b->c->nent = n;
}
