/*
 * The table of features by name, shared by the parser of -cpu and the builder of CPUID.
 */
#ifndef ARCH_X86_CPUID_INT_H
#define ARCH_X86_CPUID_INT_H

#include "arch/x86/cpuid.h"

enum x86_reg { X86_EAX, X86_EBX, X86_ECX, X86_EDX };

struct x86_feature {
	const char *name; /* with dashes only: sse4-1 */
	uint32_t leaf, subleaf;
	enum x86_reg reg;
	uint8_t bit;
	/* What makes no sense without that other feature goes with it. NULL: none. */
	const char *needs;
	/* Why NEMU never shows it, though KVM would; NULL: it does. */
	const char *refused;
};
extern const struct x86_feature x86_features[];
extern const unsigned x86_feature_count;

/* Takes "sse4.1", "sse4_1" and "sse4-1" for the same. -1 if there is none. */
int x86_feature_find(const char *name);
uint32_t *x86_cpuid_reg(struct kvm_cpuid_entry2 *e, enum x86_reg reg);

enum x86_vendor { X86_INTEL, X86_AMD };
/* Hygon and Centaur follow the one they descend from. */
enum x86_vendor x86_cpuid_vendor(const struct kvm_cpuid2 *c);

#endif
