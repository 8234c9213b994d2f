/*
 * What KVM_GET_SUPPORTED_CPUID says on two invented hosts: enough leaves, with values that a
 * builder must change, keep or drop.
 */
#ifndef TESTS_ARCH_CPUID_FIXTURE_H
#define TESTS_ARCH_CPUID_FIXTURE_H

#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#define IDX KVM_CPUID_FLAG_SIGNIFCANT_INDEX

static const struct kvm_cpuid_entry2 amd_leaves[] = {
	{.function = 0, .eax = 0xD, .ebx = 0x68747541, .ecx = 0x444D4163, .edx = 0x69746E65},
	/* EBX: what the host CPU is (id 1, 2 siblings); ECX: all; EDX: all but HTT */
	{.function = 1,
	 .eax = 0xA10F11,
	 .ebx = 0x01020800,
	 .ecx = 0x7FFFFFFF,
	 .edx = 0x0FFBFBFF},
	{.function = 7,
	 .index = 0,
	 .flags = IDX,
	 .eax = 1,
	 .ebx = 0xFFFFFFFF,
	 .ecx = 0x6F7E,
	 .edx = 0x10},
	{.function = 7, .index = 1, .flags = IDX, .eax = 0x30},
	{.function = 0xB, .index = 0, .flags = IDX},
	{.function = 0xD, .index = 0, .flags = IDX, .eax = 0x2E7, .ebx = 0x980, .ecx = 0x988},
	{.function = 0xD, .index = 1, .flags = IDX, .eax = 0xF},
	{.function = 0xD, .index = 2, .flags = IDX, .eax = 0x100, .ebx = 0x240},
	{.function = 0xD, .index = 5, .flags = IDX, .eax = 0x40, .ebx = 0x340},
	{.function = 0xD, .index = 6, .flags = IDX, .eax = 0x200, .ebx = 0x380},
	{.function = 0xD, .index = 7, .flags = IDX, .eax = 0x400, .ebx = 0x580},
	{.function = 0xD, .index = 9, .flags = IDX, .eax = 0x8, .ebx = 0x980},
	{.function = 0x80000000, .eax = 0x80000021, .ebx = 0x68747541},
	/* ECX: CmpLegacy, SVM, TOPOEXT and more */
	{.function = 0x80000001, .eax = 0xA10F11, .ecx = 0x00400397, .edx = 0x2FD3FBFF},
	{.function = 0x80000008, .eax = 0x00343030, .ebx = 0x1000, .ecx = 0x00017007},
	{.function = 0x8000000A, .eax = 1, .ebx = 0x8000, .edx = 0xFF},
	{.function = 0x8000001D, .index = 0, .flags = IDX, .eax = 0x121, .ebx = 0x1C0003F},
	{.function = 0x8000001D, .index = 3, .flags = IDX, .eax = 0x3FFC163, .ebx = 0x3C0003F},
	{.function = 0x8000001E, .eax = 5, .ebx = 0x102, .ecx = 0x703},
	{.function = 0x8000001F, .eax = 3},
	{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4B4D564B},
	{.function = 0x40000001, .eax = 0x01007EFB},
};

static const struct kvm_cpuid_entry2 intel_leaves[] = {
	{.function = 0, .eax = 0x20, .ebx = 0x756E6547, .ecx = 0x6C65746E, .edx = 0x49656E69},
	{.function = 1,
	 .eax = 0x806F8,
	 .ebx = 0x05100800,
	 .ecx = 0x7FFAFBFF,
	 .edx = 0x1FABFBFF},
	{.function = 4, .index = 0, .flags = IDX, .eax = 0xFC004121, .ebx = 0x2C0003F},
	{.function = 4, .index = 1, .flags = IDX, .eax = 0xFC004122, .ebx = 0x1C0003F},
	{.function = 4, .index = 2, .flags = IDX, .eax = 0xFC01C143, .ebx = 0x3C0003F},
	{.function = 4, .index = 3, .flags = IDX, .eax = 0xFC1FC163, .ebx = 0x3C0003F},
	{.function = 4, .index = 4, .flags = IDX},
	{.function = 7,
	 .index = 0,
	 .flags = IDX,
	 .eax = 2,
	 .ebx = 0xFFFFFFFF,
	 .ecx = 0xFFFFFFFF,
	 .edx = 0xFFFFFFFF},
	{.function = 7, .index = 1, .flags = IDX, .eax = 0x01A01C30},
	{.function = 0xB, .index = 0, .flags = IDX, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 9},
	{.function = 0xB, .index = 1, .flags = IDX, .eax = 7, .ebx = 64, .ecx = 0x201},
	{.function = 0xD, .index = 0, .flags = IDX, .eax = 0x602E7, .ecx = 0x2B00},
	{.function = 0xD, .index = 1, .flags = IDX, .eax = 0x1F, .ecx = 0x1800},
	{.function = 0xD, .index = 2, .flags = IDX, .eax = 0x100, .ebx = 0x240},
	{.function = 0xD, .index = 5, .flags = IDX, .eax = 0x40, .ebx = 0x440},
	{.function = 0xD, .index = 6, .flags = IDX, .eax = 0x200, .ebx = 0x480},
	{.function = 0xD, .index = 7, .flags = IDX, .eax = 0x400, .ebx = 0x680},
	{.function = 0xD, .index = 9, .flags = IDX, .eax = 0x8, .ebx = 0xA80},
	{.function = 0xD, .index = 11, .flags = IDX, .eax = 0x10, .ecx = 1},
	{.function = 0xD, .index = 17, .flags = IDX, .eax = 0x40, .ebx = 0xAC0},
	{.function = 0xD, .index = 18, .flags = IDX, .eax = 0x2000, .ebx = 0xB00},
	{.function = 0x12, .index = 0, .flags = IDX, .eax = 1},
	{.function = 0x14, .index = 0, .flags = IDX, .eax = 1},
	{.function = 0x1D, .index = 0, .flags = IDX, .eax = 1},
	{.function = 0x1F,
	 .index = 0,
	 .flags = IDX,
	 .eax = 1,
	 .ebx = 2,
	 .ecx = 0x100,
	 .edx = 9},
	{.function = 0x1F, .index = 1, .flags = IDX, .eax = 5, .ebx = 32, .ecx = 0x501},
	{.function = 0x80000000, .eax = 0x80000008},
	{.function = 0x80000001, .ecx = 0x121, .edx = 0x2C100800},
	{.function = 0x80000008, .eax = 0x0000392E},
	{.function = 0x40000001, .eax = 0x01007EFB},
};

static inline struct kvm_cpuid2 *fixture(const struct kvm_cpuid_entry2 *e, size_t n)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + n * sizeof(*e));

	c->nent = n;
	memcpy(c->entries, e, n * sizeof(*e));
	return c;
}

static inline struct kvm_cpuid2 *fixture_amd(void)
{
	return fixture(amd_leaves, sizeof(amd_leaves) / sizeof(amd_leaves[0]));
}

static inline struct kvm_cpuid2 *fixture_intel(void)
{
	return fixture(intel_leaves, sizeof(intel_leaves) / sizeof(intel_leaves[0]));
}

static inline void fixture_set_phys(struct kvm_cpuid2 *c, unsigned bits)
{
	for (unsigned i = 0; i < c->nent; i++) {
		if (c->entries[i].function == 0x80000008) {
			c->entries[i].eax = (c->entries[i].eax & 0xFF00) | bits;
		}
	}
}

#endif
