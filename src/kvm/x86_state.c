/*
 * The declared state of vCPUs (state/state.h). vcpu_state.c has its way in and out of a stream.
 *
 * A vCPU's section holds its CPUID too, and loading compares it with that of the vCPU at hand:
 * a guest must not wake up on another CPU than it fell asleep on. The APIC id in CPUID makes
 * sure that it is the right one of several.
 *
 * Threads: control loop, vCPUs parked. Untrusted: the stream. Ranges are checked by the tables,
 * the meaning of registers by KVM, which refuses what the CPU could not be in.
 */
#include <errno.h>

#include "base/util.h"
#include "kvm/x86_int.h"

static const struct state_field seg_fields[] = {
	STATE_F_U64(struct x86_seg, base),
	STATE_F_U32(struct x86_seg, limit),
	STATE_F_U16(struct x86_seg, selector),
	STATE_F_RANGE(STATE_U8, struct x86_seg, type, 0, 15),
	STATE_F_RANGE(STATE_U8, struct x86_seg, present, 0, 1),
	STATE_F_RANGE(STATE_U8, struct x86_seg, dpl, 0, 3),
	STATE_F_RANGE(STATE_U8, struct x86_seg, db, 0, 1),
	STATE_F_RANGE(STATE_U8, struct x86_seg, s, 0, 1),
	STATE_F_RANGE(STATE_U8, struct x86_seg, l, 0, 1),
	STATE_F_RANGE(STATE_U8, struct x86_seg, g, 0, 1),
	STATE_F_RANGE(STATE_U8, struct x86_seg, avl, 0, 1),
	STATE_F_RANGE(STATE_U8, struct x86_seg, unusable, 0, 1),
	STATE_F_END,
};
static const struct state_desc seg_desc = {
	.name = "x86-segment",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_seg),
	.fields = seg_fields,
};

static const struct state_field dtable_fields[] = {
	STATE_F_U64(struct x86_dtable, base),
	STATE_F_U16(struct x86_dtable, limit),
	STATE_F_END,
};
static const struct state_desc dtable_desc = {
	.name = "x86-descriptor-table",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_dtable),
	.fields = dtable_fields,
};

static const struct state_field gprs_fields[] = {
	STATE_F_U64(struct x86_gprs, rax),
	STATE_F_U64(struct x86_gprs, rbx),
	STATE_F_U64(struct x86_gprs, rcx),
	STATE_F_U64(struct x86_gprs, rdx),
	STATE_F_U64(struct x86_gprs, rsi),
	STATE_F_U64(struct x86_gprs, rdi),
	STATE_F_U64(struct x86_gprs, rsp),
	STATE_F_U64(struct x86_gprs, rbp),
	STATE_F_U64(struct x86_gprs, r8),
	STATE_F_U64(struct x86_gprs, r9),
	STATE_F_U64(struct x86_gprs, r10),
	STATE_F_U64(struct x86_gprs, r11),
	STATE_F_U64(struct x86_gprs, r12),
	STATE_F_U64(struct x86_gprs, r13),
	STATE_F_U64(struct x86_gprs, r14),
	STATE_F_U64(struct x86_gprs, r15),
	STATE_F_U64(struct x86_gprs, rip),
	STATE_F_U64(struct x86_gprs, rflags),
	STATE_F_END,
};
static const struct state_desc gprs_desc = {
	.name = "x86-registers",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_gprs),
	.fields = gprs_fields,
};

static const struct state_field sys_fields[] = {
	STATE_F_STRUCT(struct x86_system, cs, &seg_desc),
	STATE_F_STRUCT(struct x86_system, ds, &seg_desc),
	STATE_F_STRUCT(struct x86_system, es, &seg_desc),
	STATE_F_STRUCT(struct x86_system, fs, &seg_desc),
	STATE_F_STRUCT(struct x86_system, gs, &seg_desc),
	STATE_F_STRUCT(struct x86_system, ss, &seg_desc),
	STATE_F_STRUCT(struct x86_system, tr, &seg_desc),
	STATE_F_STRUCT(struct x86_system, ldt, &seg_desc),
	STATE_F_STRUCT(struct x86_system, gdt, &dtable_desc),
	STATE_F_STRUCT(struct x86_system, idt, &dtable_desc),
	STATE_F_U64(struct x86_system, cr0),
	STATE_F_U64(struct x86_system, cr2),
	STATE_F_U64(struct x86_system, cr3),
	STATE_F_U64(struct x86_system, cr4),
	STATE_F_U64(struct x86_system, cr8),
	STATE_F_U64(struct x86_system, efer),
	STATE_F_U64(struct x86_system, apic_base),
	STATE_F_BOOL(struct x86_system, pdptrs_valid),
	STATE_F_U64(struct x86_system, pdptr0),
	STATE_F_U64(struct x86_system, pdptr1),
	STATE_F_U64(struct x86_system, pdptr2),
	STATE_F_U64(struct x86_system, pdptr3),
	STATE_F_END,
};
static const struct state_desc sys_desc = {
	.name = "x86-special-registers",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_system),
	.fields = sys_fields,
};

static const struct state_field events_fields[] = {
	STATE_F_U32(struct x86_events, flags),
	STATE_F_BOOL(struct x86_events, exception_injected),
	STATE_F_BOOL(struct x86_events, exception_has_error_code),
	STATE_F_BOOL(struct x86_events, exception_pending),
	STATE_F_RANGE(STATE_U8, struct x86_events, exception_nr, 0, 31),
	STATE_F_U32(struct x86_events, exception_error_code),
	STATE_F_BOOL(struct x86_events, exception_has_payload),
	STATE_F_U64(struct x86_events, exception_payload),
	STATE_F_BOOL(struct x86_events, interrupt_injected),
	STATE_F_BOOL(struct x86_events, interrupt_soft),
	STATE_F_U8(struct x86_events, interrupt_nr),
	STATE_F_U8(struct x86_events, interrupt_shadow),
	STATE_F_BOOL(struct x86_events, nmi_injected),
	STATE_F_BOOL(struct x86_events, nmi_masked),
	STATE_F_U8(struct x86_events, nmi_pending),
	STATE_F_BOOL(struct x86_events, smm),
	STATE_F_BOOL(struct x86_events, smm_pending),
	STATE_F_BOOL(struct x86_events, smm_inside_nmi),
	STATE_F_BOOL(struct x86_events, smm_latched_init),
	STATE_F_BOOL(struct x86_events, triple_fault_pending),
	STATE_F_END,
};
static const struct state_desc events_desc = {
	.name = "x86-events",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_events),
	.fields = events_fields,
};

static const struct state_field debug_fields[] = {
	STATE_F_U64(struct x86_debug, dr0),
	STATE_F_U64(struct x86_debug, dr1),
	STATE_F_U64(struct x86_debug, dr2),
	STATE_F_U64(struct x86_debug, dr3),
	STATE_F_U64(struct x86_debug, dr6),
	STATE_F_U64(struct x86_debug, dr7),
	STATE_F_END,
};
static const struct state_desc debug_desc = {
	.name = "x86-debug-registers",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_debug),
	.fields = debug_fields,
};

static const struct state_field xcr_fields[] = {
	STATE_F_U32(struct x86_xcr, xcr),
	STATE_F_U64(struct x86_xcr, value),
	STATE_F_END,
};
static const struct state_desc xcr_desc = {
	.name = "x86-xcr",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_xcr),
	.fields = xcr_fields,
};

static const struct state_field msr_fields[] = {
	STATE_F_U32(struct x86_msr, index),
	STATE_F_U64(struct x86_msr, value),
	STATE_F_END,
};
static const struct state_desc msr_desc = {
	.name = "x86-msr",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_msr),
	.fields = msr_fields,
};

static const struct state_field cpuid_fields[] = {
	STATE_F_U32(struct x86_cpuid_leaf, function), STATE_F_U32(struct x86_cpuid_leaf, index),
	STATE_F_U32(struct x86_cpuid_leaf, flags),    STATE_F_U32(struct x86_cpuid_leaf, eax),
	STATE_F_U32(struct x86_cpuid_leaf, ebx),      STATE_F_U32(struct x86_cpuid_leaf, ecx),
	STATE_F_U32(struct x86_cpuid_leaf, edx),      STATE_F_END,
};
static const struct state_desc cpuid_desc = {
	.name = "x86-cpuid",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_cpuid_leaf),
	.fields = cpuid_fields,
};

static const struct state_field vcpu_fields[] = {
	STATE_F_U32(struct x86_vcpu_state, apic_id),
	STATE_F_U8(struct x86_vcpu_state, mp_state),
	STATE_F_STRUCT(struct x86_vcpu_state, gprs, &gprs_desc),
	STATE_F_STRUCT(struct x86_vcpu_state, sys, &sys_desc),
	STATE_F_STRUCT(struct x86_vcpu_state, events, &events_desc),
	STATE_F_STRUCT(struct x86_vcpu_state, debug, &debug_desc),
	STATE_F_VARRAY(struct x86_vcpu_state, xcrs, &xcr_desc, xcr_count),
	STATE_F_BUF(struct x86_vcpu_state, xsave, xsave_size),
	STATE_F_BYTES(struct x86_vcpu_state, lapic),
	STATE_F_VARRAY(struct x86_vcpu_state, msrs, &msr_desc, msr_count),
	STATE_F_VARRAY(struct x86_vcpu_state, cpuid, &cpuid_desc, cpuid_count),
	STATE_F_END,
};
const struct state_desc kvm_arch_vcpu_desc = {
	.name = "x86-vcpu",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct x86_vcpu_state),
	.fields = vcpu_fields,
};

static void vcpu_cpuid(const struct kvm_vcpu *v, struct x86_vcpu_state *st)
{
	st->cpuid_count = v->cpuid->nent;
	for (uint32_t i = 0; i < v->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &v->cpuid->entries[i];

		st->cpuid[i] = (struct x86_cpuid_leaf){
			e->function, e->index, e->flags, e->eax, e->ebx, e->ecx, e->edx,
		};
	}
}

int kvm_arch_vcpu_check(const struct kvm_vcpu *v, const void *state, struct err *err)
{
	const struct x86_vcpu_state *st = state;

	if (st->apic_id != v->id) {
		return err_set(err, EINVAL,
			       "the saved %s has APIC id %u, this one %u: use the same -smp",
			       v->name, st->apic_id, v->id);
	}
	if (st->xsave_size > v->vm->xsave_size) {
		return err_set(err, EINVAL,
			       "the saved %s has %u bytes of FPU state, this host keeps %zu",
			       v->name, st->xsave_size, v->vm->xsave_size);
	}
	if (st->cpuid_count != v->cpuid->nent) {
		return err_set(err, EINVAL,
			       "the saved %s has %u CPUID leaves, this one %u: use the same "
			       "-cpu and -smp on a host with the same processor",
			       v->name, st->cpuid_count, v->cpuid->nent);
	}
	for (uint32_t i = 0; i < v->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &v->cpuid->entries[i];
		const struct x86_cpuid_leaf *l = &st->cpuid[i];

		if (l->function != e->function || l->index != e->index ||
		    l->flags != e->flags || l->eax != e->eax || l->ebx != e->ebx ||
		    l->ecx != e->ecx || l->edx != e->edx) {
			return err_set(err, EINVAL,
				       "the saved %s differs from this one in CPUID leaf "
				       "%#x,%u: use the same -cpu and -smp on a host with the "
				       "same processor",
				       v->name, e->function, e->index);
		}
	}
	return 0;
}

int kvm_arch_vcpu_capture(struct kvm_vcpu *v, void *state, struct err *err)
{
	struct x86_vcpu_state *st = state;
	int r = x86_vcpu_capture(v, st, err);

	if (r == 0) {
		vcpu_cpuid(v, st);
	}
	return r;
}

int kvm_arch_vcpu_apply(struct kvm_vcpu *v, const void *state, struct err *err)
{
	return x86_vcpu_apply(v, state, err);
}
