/*
 * What the AArch64 machine needs of kvm/ beside kvm.h: how a vCPU is made and starts, the GICv3
 * with its ITS. Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst, vcpu.rst.
 *
 * Order: kvm_vcpu_new() for all, kvm_gic_new(), then everything else.
 */
#ifndef KVM_ARM64_H
#define KVM_ARM64_H

#include "kvm/kvm.h"

/* Bits of an intermediate physical address: the guest's memory and devices lie below. */
unsigned kvm_vm_ipa_bits(const struct kvm_vm *vm);

/* What guests get of the host's processor. Each is there only if KVM has it. */
struct kvm_arm64_cpu {
	bool no_pmu, no_sve, no_pauth;
};
/* A vCPU, still without a thread; index 0, 1, … in order. 0 or -errno with a sentence. */
int kvm_vcpu_new(struct kvm_vm *vm, unsigned index, const struct kvm_arm64_cpu *cpu,
		 struct kvm_vcpu **out, struct err *err);
uint64_t kvm_vcpu_mpidr(const struct kvm_vcpu *v); /* affinity fields only */
bool kvm_vcpu_has_pmu(const struct kvm_vcpu *v);

/* How the boot CPU starts: at EL1 with the MMU off. */
struct kvm_arm64_init {
	uint64_t pc, x0;
};
/* init NULL: off until PSCI's CPU_ON. Paused only. Also revives a vCPU that stopped. */
int kvm_vcpu_reset(struct kvm_vcpu *v, const struct kvm_arm64_init *init, struct err *err);

/* --- GICv3 --- */
#define KVM_GIC_REGIONS 2
struct kvm_gic_config {
	uint64_t dist, its;
	struct {
		uint64_t base;
		unsigned cpus;	   /* 128 KiB each */
	} redist[KVM_GIC_REGIONS]; /* cpus 0: not there */
	unsigned spis;		   /* a multiple of 32 */
	unsigned pmu_ppi;
};
int kvm_gic_new(struct kvm_vm *vm, const struct kvm_gic_config *cfg, struct err *err);
/* A shared peripheral interrupt, 0 being INTID 32. */
struct irq_line kvm_gic_spi(struct kvm_vm *vm, unsigned spi);

/* Everything paused. reset: as the GIC was when it was made. */
int kvm_gic_reset(struct kvm_vm *vm, struct err *err);
/* Section "arm64-gic". The ITS keeps its tables and the redistributors the pending LPIs in guest
 * memory: save before the memory is saved, load after it and the vCPUs are loaded. */
int kvm_gic_save(struct kvm_vm *vm, struct state_out *o, struct err *err);
int kvm_gic_load(struct kvm_vm *vm, struct state_in *in, struct err *err);

#endif
