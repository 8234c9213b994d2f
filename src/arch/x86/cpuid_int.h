/*
 * What the builder of CPUID (cpuid.c, topology.c, cpu_model.c), the parser of -cpu (cpu_option.c)
 * and the table of features (features.c) share.
 */
#ifndef ARCH_X86_CPUID_INT_H
#define ARCH_X86_CPUID_INT_H

#include "arch/x86/cpuid.h"

#define X86_MAX_LEAVES	     256
#define X86_FEATURE_NAME_MAX 31

/* KVM's x86/cpuid.rst */
#define KVM_CPUID_LEAF_SIGNATURE 0x40000000u
#define KVM_CPUID_LEAF_FEATURES	 0x40000001u

enum x86_reg { X86_EAX, X86_EBX, X86_ECX, X86_EDX };

struct x86_feature {
	const char *name; /* as QEMU writes it */
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

/* The first row of that name; takes "sse4.1", "sse4_1" and "sse4-1" for the same. -1: none. */
int x86_feature_find(const char *name);
/* One past the last row with the name of row f. */
unsigned x86_feature_end(unsigned f);
/* A name that this may be a misspelling of, or NULL. */
const char *x86_feature_nearest(const char *name);

/* All bits of that name can be shown on this host. */
bool x86_cpuid_offers(const struct kvm_cpuid2 *supported, const char *feature);
uint32_t *x86_cpuid_reg(struct kvm_cpuid_entry2 *e, enum x86_reg reg);

enum x86_vendor { X86_INTEL, X86_AMD };
/* Hygon and Centaur follow the one they descend from. */
enum x86_vendor x86_cpuid_vendor(const struct kvm_cpuid2 *c);

/* --- models other than the host's processor: cpu_model.c --- */
struct x86_base_model {
	const char *name, *doc;
	unsigned levels;	    /* how many of the lists of features it has */
	uint32_t signature[2];	    /* by enum x86_vendor: family, model and stepping */
};
/* NULL: there is no such model. */
const struct x86_base_model *x86_base_model_find(const char *name);
/* The i-th feature of the model; NULL past the end. */
const char *x86_base_model_feature(const struct x86_base_model *m, unsigned i);

/* --- the CPUID that is being built --- */
struct x86_builder {
	struct kvm_cpuid2 *c; /* room for X86_MAX_LEAVES */
	const struct x86_cpuid_config *cfg;
	uint32_t apic_id;
	enum x86_vendor vendor;
	bool full; /* a leaf did not fit */
};

/* All find NULL or do nothing where there is no such leaf. */
struct kvm_cpuid_entry2 *x86_leaf(struct x86_builder *b, uint32_t function, uint32_t index);
void x86_leaf_zero(struct x86_builder *b, uint32_t function);
void x86_leaf_drop(struct x86_builder *b, uint32_t function);
void x86_leaf_append(struct x86_builder *b, struct kvm_cpuid_entry2 e);
bool x86_builder_has(struct x86_builder *b, const char *feature);

/* The leaves of a base model without its features. */
void x86_base_model_leaves(struct x86_builder *b);
/* What follows from the features: AMD's copies of them. */
void x86_base_model_finish(struct x86_builder *b);

/* topology.c: what depends on -smp and on which vCPU it is. */
void x86_topology_leaves(struct x86_builder *b);

#endif
