/*
 * A vCPU's whole state as a plain structure: what is saved, loaded, and restored at reset.
 * x86_vcpu.c moves it between KVM and memory, x86_state.c between memory and a stream.
 * The structure is the state structure of state/state.h: scalars and bounded buffers only.
 */
#ifndef KVM_X86_INT_H
#define KVM_X86_INT_H

#include "kvm/kvm_int.h"
#include "kvm/x86.h"

/* AMX needs 11 KiB; KVM_CAP_XSAVE2 says how much this host uses. */
#define X86_XSAVE_MAX  16384
#define X86_LAPIC_SIZE 1024

struct x86_seg {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint8_t type, present, dpl, db, s, l, g, avl, unusable;
};

struct x86_dtable {
	uint64_t base;
	uint16_t limit;
};

struct x86_gprs {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rip, rflags;
};

struct x86_system {
	struct x86_seg cs, ds, es, fs, gs, ss, tr, ldt;
	struct x86_dtable gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
	bool pdptrs_valid;
	uint64_t pdptr0, pdptr1, pdptr2, pdptr3;
};

struct x86_events {
	uint32_t flags;
	bool exception_injected, exception_has_error_code, exception_pending;
	uint8_t exception_nr;
	uint32_t exception_error_code;
	bool exception_has_payload;
	uint64_t exception_payload;
	bool interrupt_injected, interrupt_soft;
	uint8_t interrupt_nr, interrupt_shadow;
	bool nmi_injected, nmi_masked;
	uint8_t nmi_pending;
	bool smm, smm_pending, smm_inside_nmi, smm_latched_init;
	bool triple_fault_pending;
};

struct x86_debug {
	uint64_t dr0, dr1, dr2, dr3, dr6, dr7;
};

struct x86_xcr {
	uint32_t xcr;
	uint64_t value;
};

struct x86_msr {
	uint32_t index;
	uint64_t value;
};

struct x86_cpuid_leaf {
	uint32_t function, index, flags, eax, ebx, ecx, edx;
};

struct x86_vcpu_state {
	uint32_t apic_id;
	uint8_t mp_state;
	struct x86_gprs gprs;
	struct x86_system sys;
	struct x86_events events;
	struct x86_debug debug;
	uint32_t xcr_count;
	struct x86_xcr xcrs[KVM_MAX_XCRS];
	uint32_t xsave_size;
	uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64)));
	uint8_t lapic[X86_LAPIC_SIZE];
	uint32_t msr_count;
	struct x86_msr msrs[KVM_MAX_MSRS];
	uint32_t cpuid_count; /* save and load only */
	struct x86_cpuid_leaf cpuid[KVM_MAX_CPUID];
};

int x86_vcpu_setup(struct kvm_vcpu *v, struct err *err);
/* x86_vcpu.c. apply: what is not in st (the TSC) keeps going. */
int x86_vcpu_capture(struct kvm_vcpu *v, struct x86_vcpu_state *st, struct err *err);
int x86_vcpu_apply(struct kvm_vcpu *v, const struct x86_vcpu_state *st, struct err *err);

/* x86_msrs.c: the list is found once per VM, with the first vCPU */
int x86_msrs_probe(struct kvm_vcpu *v, struct err *err);
int x86_msrs_get(struct kvm_vcpu *v, struct x86_vcpu_state *st, struct err *err);
/* Everything but the TSC, which is kvm_clock_load()'s, and the deadline. */
int x86_msrs_set(struct kvm_vcpu *v, const struct x86_vcpu_state *st, struct err *err);
/* After the local APIC, which decides whether the deadline counts. */
int x86_msrs_set_deadline(struct kvm_vcpu *v, const struct x86_vcpu_state *st, struct err *err);
int x86_msr_read(struct kvm_vcpu *v, uint32_t index, uint64_t *value);
int x86_msr_write(struct kvm_vcpu *v, uint32_t index, uint64_t value);

/* x86_probe.c: microseconds that a short loop takes a guest, UINT64_MAX: more than 5 s. 0 or
 * -errno with a sentence. */
int x86_probe_loop(int sys_fd, uint64_t *us, struct err *err);

#endif
