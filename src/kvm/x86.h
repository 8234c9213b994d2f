/*
 * What the x86-64 machine needs of kvm/ beside kvm.h: CPUID, how a vCPU starts, the clocks.
 */
#ifndef KVM_X86_H
#define KVM_X86_H

#include "kvm/kvm.h"

/* KVM_GET_SUPPORTED_CPUID, with the TSC-deadline bit of leaf 1 set (KVM has the capability,
 * that was checked, but does not list it). The caller frees *out. 0 or -errno with a sentence. */
int kvm_supported_cpuid(struct kvm_vm *vm, struct kvm_cpuid2 **out, struct err *err);

/* How a vCPU starts: built by arch/. What is not here has the value that KVM gave the fresh
 * vCPU (MSRs, local APIC, FPU, debug registers). */
struct kvm_x86_init {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	bool runnable; /* false: waits for INIT and SIPI */
	/* IA32_MTRR_DEF_TYPE. 0, the reset value: all memory uncached, as firmware finds it; a
	 * kernel that is entered without firmware expects X86_BOOT_MTRR (arch/x86/regs.h) on
	 * every vCPU. */
	uint64_t mtrr_def_type;
};

/* A vCPU, still without a thread. index: 0, 1, … in order; 0 is the boot CPU. cpuid is copied. 0
 * or -errno with a sentence; owned by vm. */
int kvm_vcpu_new(struct kvm_vm *vm, unsigned index, uint32_t apic_id,
		 const struct kvm_cpuid2 *cpuid, struct kvm_vcpu **out, struct err *err);
uint32_t kvm_vcpu_apic_id(const struct kvm_vcpu *v);

/* Paused only. Also revives a vCPU that stopped (triple fault, internal error). 0 or -errno
 * with a sentence. Needed once before the first resume. */
int kvm_vcpu_reset(struct kvm_vcpu *v, const struct kvm_x86_init *init, struct err *err);

/* kvmclock and the TSCs: section "x86-clock". Guest time stands still between save and load
 * (but goes on during a mere pause). Load it when all vCPUs exist and RAM and devices are
 * loaded, immediately before kvm_vcpu_load(), whose timers count from it. */
int kvm_clock_save(struct kvm_vm *vm, struct state_out *o, struct err *err);
int kvm_clock_load(struct kvm_vm *vm, struct state_in *in, struct err *err);

#endif
