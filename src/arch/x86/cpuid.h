/*
 * What CPU the guest sees: pure functions from KVM_GET_SUPPORTED_CPUID and the user's -cpu and
 * -smp to the CPUID of each vCPU (Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E, KVM's
 * leaves: Documentation/virt/kvm/x86/cpuid.rst). Any thread.
 */
#ifndef ARCH_X86_CPUID_H
#define ARCH_X86_CPUID_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "arch/cpu.h"
#include "base/err.h"

/* --- topology --- */
struct x86_topology {
	unsigned sockets;
	unsigned dies;	  /* per socket */
	unsigned cores;	  /* per die */
	unsigned threads; /* per core */
};

/* The APIC id of the index-th vCPU: each level takes a power of two of ids. */
uint32_t x86_apic_id(const struct x86_topology *t, unsigned index);
/* The highest APIC id of the machine. */
uint32_t x86_apic_id_max(const struct x86_topology *t);
/* There are ids above 254: they need x2APIC, and KVM_FEATURE_MSI_EXT_DEST_ID for interrupts. */
bool x86_topology_wide(const struct x86_topology *t);

/* --- -cpu --- */
#define X86_MAX_FEATURE_CHANGES 64
struct x86_base_model;
struct x86_cpu_model {
	const struct x86_base_model *base; /* NULL: the host's processor */
	bool not_migratable; /* migratable=off: with what no other host can continue */
	bool no_pmu;	     /* pmu=off; performance counters are the host's */
	unsigned phys_bits;  /* phys-bits=N; 0: the narrowest that fits */
	bool host_phys_bits; /* host-phys-bits=on: the host's */
	unsigned changes;    /* +feature and -feature, in order */
	struct {
		uint16_t feature; /* internal: row of the feature table */
		bool on;
	} change[X86_MAX_FEATURE_CHANGES];
};
/* text: "MODEL[,+feature|-feature|feature=on|off…][,phys-bits=N]…", see cpu_option.c. 0 or
 * -EINVAL with a sentence that names what is wrong. */
int x86_cpu_model_parse(struct x86_cpu_model *m, const char *text, struct err *err);
/* The j-th feature that this host lacks of arch_cpu_model(i); NULL past the end. */
const char *x86_cpu_model_missing(const struct kvm_cpuid2 *supported, unsigned i, unsigned j);

/* --- physical address width --- */
struct x86_phys_need {
	uint64_t ram_end; /* one past the highest RAM or hotplug address */
	uint64_t window;  /* bytes that 64-bit BARs need; the window is naturally aligned */
};
/* The width of the guest's addresses: what the user said, else the narrowest that holds RAM
 * and window in its layout (the top eighth of the space is the window, which is where OVMF
 * puts it) and that OVMF accepts as valid (AMD and Hygon 40 or at least 41, Intel 39 or at
 * least 41); never above the host's. 0 or -EINVAL with a sentence. */
int x86_phys_bits_choose(const struct kvm_cpuid2 *supported, const struct x86_cpu_model *m,
			 const struct x86_phys_need *need, unsigned *bits, struct err *err);
/* The host's own, from leaf 80000008h. */
unsigned x86_phys_bits_host(const struct kvm_cpuid2 *supported);

/* --- CPUID --- */
struct x86_cpuid_config {
	const struct kvm_cpuid2 *supported;
	const struct x86_cpu_model *model;
	struct x86_topology topo;
	unsigned phys_bits; /* as x86_phys_bits_choose() said */
};
/* The leaves of the index-th vCPU. *out is malloc'ed, the caller frees it. -EINVAL with a
 * sentence (features that this host does not have), -ENOMEM. */
int x86_cpuid_build(const struct x86_cpuid_config *cfg, unsigned index, struct kvm_cpuid2 **out,
		    struct err *err);

/* NULL if there is no such leaf. */
const struct kvm_cpuid_entry2 *x86_cpuid_find(const struct kvm_cpuid2 *c, uint32_t function,
					      uint32_t index);
/* Family, model and stepping (leaf 1 EAX), which is what EDX holds at reset. */
uint32_t x86_cpuid_signature(const struct kvm_cpuid2 *c);

#endif
