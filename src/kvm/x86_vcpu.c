/*
 * A vCPU's state between KVM and struct x86_vcpu_state.
 *
 * The order of loading matters, and is:
 *   special registers   the APIC base (xAPIC or x2APIC) before the APIC's registers, EFER and
 *                       CR4 before what they allow
 *   XCRs, FPU           XCR0 before the components it enables
 *   MSRs                without the TSC-deadline
 *   local APIC          its timer mode decides whether a deadline is kept
 *   TSC-deadline        against the TSC that kvm_clock_load() has set
 *   debug registers
 *   general registers   KVM drops pending exceptions when it takes them
 *   events              hence after them
 *   MP state            last: KVM makes a boot CPU runnable by itself when it sees reset values
 *
 * Reset is loading the state that KVM gave the fresh vCPU, with general and special registers
 * from arch/, so whatever KVM adds in future is reset too.
 *
 * Threads: control loop, vCPU parked. The vCPU ioctls are made from there.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/x86_int.h"
#include "spec/x86.h"

static int refused(struct kvm_vcpu *v, int r, const char *verb, const char *what,
		   struct err *err)
{
	return err_set(err, -r, "KVM does not %s the %s of %s: %s", verb, what, v->name,
		       strerror(-r));
}

static struct x86_seg seg_get(const struct kvm_segment *k)
{
	return (struct x86_seg){
		.base = k->base,
		.limit = k->limit,
		.selector = k->selector,
		.type = k->type,
		.present = k->present,
		.dpl = k->dpl,
		.db = k->db,
		.s = k->s,
		.l = k->l,
		.g = k->g,
		.avl = k->avl,
		.unusable = k->unusable,
	};
}

static struct kvm_segment seg_put(const struct x86_seg *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->type,
		.present = s->present,
		.dpl = s->dpl,
		.db = s->db,
		.s = s->s,
		.l = s->l,
		.g = s->g,
		.avl = s->avl,
		.unusable = s->unusable,
	};
}

/* sregs and sregs2 have the same fields, but not at the same place */
#define SYS_FROM(sys, k)                                                                       \
	do {                                                                                   \
		(sys)->cs = seg_get(&(k)->cs);                                                 \
		(sys)->ds = seg_get(&(k)->ds);                                                 \
		(sys)->es = seg_get(&(k)->es);                                                 \
		(sys)->fs = seg_get(&(k)->fs);                                                 \
		(sys)->gs = seg_get(&(k)->gs);                                                 \
		(sys)->ss = seg_get(&(k)->ss);                                                 \
		(sys)->tr = seg_get(&(k)->tr);                                                 \
		(sys)->ldt = seg_get(&(k)->ldt);                                               \
		(sys)->gdt = (struct x86_dtable){(k)->gdt.base, (k)->gdt.limit};               \
		(sys)->idt = (struct x86_dtable){(k)->idt.base, (k)->idt.limit};               \
		(sys)->cr0 = (k)->cr0;                                                         \
		(sys)->cr2 = (k)->cr2;                                                         \
		(sys)->cr3 = (k)->cr3;                                                         \
		(sys)->cr4 = (k)->cr4;                                                         \
		(sys)->cr8 = (k)->cr8;                                                         \
		(sys)->efer = (k)->efer;                                                       \
		(sys)->apic_base = (k)->apic_base;                                             \
	} while (0)

#define SYS_TO(k, sys)                                                                         \
	do {                                                                                   \
		(k)->cs = seg_put(&(sys)->cs);                                                 \
		(k)->ds = seg_put(&(sys)->ds);                                                 \
		(k)->es = seg_put(&(sys)->es);                                                 \
		(k)->fs = seg_put(&(sys)->fs);                                                 \
		(k)->gs = seg_put(&(sys)->gs);                                                 \
		(k)->ss = seg_put(&(sys)->ss);                                                 \
		(k)->tr = seg_put(&(sys)->tr);                                                 \
		(k)->ldt = seg_put(&(sys)->ldt);                                               \
		(k)->gdt = (struct kvm_dtable){(sys)->gdt.base, (sys)->gdt.limit};             \
		(k)->idt = (struct kvm_dtable){(sys)->idt.base, (sys)->idt.limit};             \
		(k)->cr0 = (sys)->cr0;                                                         \
		(k)->cr2 = (sys)->cr2;                                                         \
		(k)->cr3 = (sys)->cr3;                                                         \
		(k)->cr4 = (sys)->cr4;                                                         \
		(k)->cr8 = (sys)->cr8;                                                         \
		(k)->efer = (sys)->efer;                                                       \
		(k)->apic_base = (sys)->apic_base;                                             \
	} while (0)

static int sys_get(struct kvm_vcpu *v, struct x86_system *sys)
{
	struct kvm_sregs2 s2;
	struct kvm_sregs s;
	int r;

	if (v->vm->sregs2) {
		r = kvm_ioctl(v->fd, KVM_GET_SREGS2, &s2);
		if (r < 0) {
			return r;
		}
		SYS_FROM(sys, &s2);
		sys->pdptrs_valid = s2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
		if (sys->pdptrs_valid) {
			sys->pdptr0 = s2.pdptrs[0];
			sys->pdptr1 = s2.pdptrs[1];
			sys->pdptr2 = s2.pdptrs[2];
			sys->pdptr3 = s2.pdptrs[3];
		}
		return 0;
	}
	r = kvm_ioctl(v->fd, KVM_GET_SREGS, &s);
	if (r < 0) {
		return r;
	}
	/* its interrupt_bitmap is the injected interrupt, which the events have as well */
	SYS_FROM(sys, &s);
	return 0;
}

static int sys_set(struct kvm_vcpu *v, const struct x86_system *sys)
{
	struct kvm_sregs2 s2;
	struct kvm_sregs s;

	if (v->vm->sregs2) {
		memset(&s2, 0, sizeof(s2));
		SYS_TO(&s2, sys);
		if (sys->pdptrs_valid) {
			s2.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
			s2.pdptrs[0] = sys->pdptr0;
			s2.pdptrs[1] = sys->pdptr1;
			s2.pdptrs[2] = sys->pdptr2;
			s2.pdptrs[3] = sys->pdptr3;
		}
		return kvm_ioctl(v->fd, KVM_SET_SREGS2, &s2);
	}
	memset(&s, 0, sizeof(s));
	SYS_TO(&s, sys);
	return kvm_ioctl(v->fd, KVM_SET_SREGS, &s);
}

static void gprs_from(struct x86_gprs *g, const struct kvm_regs *k)
{
	*g = (struct x86_gprs){
		.rax = k->rax,
		.rbx = k->rbx,
		.rcx = k->rcx,
		.rdx = k->rdx,
		.rsi = k->rsi,
		.rdi = k->rdi,
		.rsp = k->rsp,
		.rbp = k->rbp,
		.r8 = k->r8,
		.r9 = k->r9,
		.r10 = k->r10,
		.r11 = k->r11,
		.r12 = k->r12,
		.r13 = k->r13,
		.r14 = k->r14,
		.r15 = k->r15,
		.rip = k->rip,
		.rflags = k->rflags,
	};
}

static int gprs_set(struct kvm_vcpu *v, const struct x86_gprs *g)
{
	struct kvm_regs k = {
		.rax = g->rax,
		.rbx = g->rbx,
		.rcx = g->rcx,
		.rdx = g->rdx,
		.rsi = g->rsi,
		.rdi = g->rdi,
		.rsp = g->rsp,
		.rbp = g->rbp,
		.r8 = g->r8,
		.r9 = g->r9,
		.r10 = g->r10,
		.r11 = g->r11,
		.r12 = g->r12,
		.r13 = g->r13,
		.r14 = g->r14,
		.r15 = g->r15,
		.rip = g->rip,
		.rflags = g->rflags,
	};

	return kvm_ioctl(v->fd, KVM_SET_REGS, &k);
}

static int events_get(struct kvm_vcpu *v, struct x86_events *e)
{
	struct kvm_vcpu_events k = {0};
	int r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k);

	if (r < 0) {
		return r;
	}
	*e = (struct x86_events){
		.flags = k.flags,
		.exception_injected = k.exception.injected,
		.exception_nr = k.exception.nr,
		.exception_has_error_code = k.exception.has_error_code,
		.exception_pending = k.exception.pending,
		.exception_error_code = k.exception.error_code,
		.exception_has_payload = k.exception_has_payload,
		.exception_payload = k.exception_payload,
		.interrupt_injected = k.interrupt.injected,
		.interrupt_nr = k.interrupt.nr,
		.interrupt_soft = k.interrupt.soft,
		.interrupt_shadow = k.interrupt.shadow,
		.nmi_injected = k.nmi.injected,
		.nmi_pending = k.nmi.pending,
		.nmi_masked = k.nmi.masked,
		.smm = k.smi.smm,
		.smm_pending = k.smi.pending,
		.smm_inside_nmi = k.smi.smm_inside_nmi,
		.smm_latched_init = k.smi.latched_init,
		.triple_fault_pending = k.triple_fault.pending,
	};
	return 0;
}

static int events_set(struct kvm_vcpu *v, const struct x86_events *e)
{
	struct kvm_vcpu_events k = {
		.flags = e->flags,
		.exception =
			{
				.injected = e->exception_injected,
				.nr = e->exception_nr,
				.has_error_code = e->exception_has_error_code,
				.pending = e->exception_pending,
				.error_code = e->exception_error_code,
			},
		.exception_has_payload = e->exception_has_payload,
		.exception_payload = e->exception_payload,
		.interrupt =
			{
				.injected = e->interrupt_injected,
				.nr = e->interrupt_nr,
				.soft = e->interrupt_soft,
				.shadow = e->interrupt_shadow,
			},
		.nmi =
			{
				.injected = e->nmi_injected,
				.pending = e->nmi_pending,
				.masked = e->nmi_masked,
			},
		.smi =
			{
				.smm = e->smm,
				.pending = e->smm_pending,
				.smm_inside_nmi = e->smm_inside_nmi,
				.latched_init = e->smm_latched_init,
			},
		.triple_fault.pending = e->triple_fault_pending,
	};

	return kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k);
}

static int debug_get(struct kvm_vcpu *v, struct x86_debug *d)
{
	struct kvm_debugregs k = {0};
	int r = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &k);

	*d = (struct x86_debug){
		.dr0 = k.db[0],
		.dr1 = k.db[1],
		.dr2 = k.db[2],
		.dr3 = k.db[3],
		.dr6 = k.dr6,
		.dr7 = k.dr7,
	};
	return r;
}

static int debug_set(struct kvm_vcpu *v, const struct x86_debug *d)
{
	struct kvm_debugregs k = {
		.db = {d->dr0, d->dr1, d->dr2, d->dr3},
		.dr6 = d->dr6,
		.dr7 = d->dr7,
	};

	return kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &k);
}

static int xcrs_get(struct kvm_vcpu *v, struct x86_vcpu_state *st)
{
	struct kvm_xcrs k = {0};

	if (v->vm->xcrs) {
		int r = kvm_ioctl(v->fd, KVM_GET_XCRS, &k);

		if (r < 0) {
			return r;
		}
	}
	st->xcr_count = MIN(k.nr_xcrs, KVM_MAX_XCRS);
	for (uint32_t i = 0; i < st->xcr_count; i++) {
		st->xcrs[i] = (struct x86_xcr){k.xcrs[i].xcr, k.xcrs[i].value};
	}
	return 0;
}

static int xcrs_set(struct kvm_vcpu *v, const struct x86_vcpu_state *st)
{
	struct kvm_xcrs k = {.nr_xcrs = MIN(st->xcr_count, KVM_MAX_XCRS)};

	if (!k.nr_xcrs) {
		return 0; /* a CPU without XSAVE */
	}
	for (uint32_t i = 0; i < k.nr_xcrs; i++) {
		k.xcrs[i].xcr = st->xcrs[i].xcr;
		k.xcrs[i].value = st->xcrs[i].value;
	}
	return kvm_ioctl(v->fd, KVM_SET_XCRS, &k);
}

static int xsave_get(struct kvm_vcpu *v, struct x86_vcpu_state *st)
{
	st->xsave_size = v->vm->xsave_size;
	return kvm_ioctl(v->fd, v->vm->xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, st->xsave);
}

/* #ioctls(main): KVM_GET_MP_STATE KVM_GET_REGS KVM_GET_SREGS KVM_GET_SREGS2
 * #ioctls(main): KVM_GET_VCPU_EVENTS KVM_GET_DEBUGREGS KVM_GET_XCRS KVM_GET_XSAVE
 * #ioctls(main): KVM_GET_XSAVE2 KVM_GET_LAPIC */
int x86_vcpu_capture(struct kvm_vcpu *v, struct x86_vcpu_state *st, struct err *err)
{
	struct kvm_mp_state mp = {0};
	struct kvm_regs regs;
	int r;

	st->apic_id = v->id;
	/* first of all: KVM applies what an INIT or SIPI left pending */
	r = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);
	if (r < 0) {
		return refused(v, r, "give", "MP state", err);
	}
	st->mp_state = mp.mp_state;
	r = kvm_ioctl(v->fd, KVM_GET_REGS, &regs);
	if (r < 0) {
		return refused(v, r, "give", "registers", err);
	}
	gprs_from(&st->gprs, &regs);
	r = sys_get(v, &st->sys);
	if (r < 0) {
		return refused(v, r, "give", "special registers", err);
	}
	r = events_get(v, &st->events);
	if (r < 0) {
		return refused(v, r, "give", "pending events", err);
	}
	r = debug_get(v, &st->debug);
	if (r < 0) {
		return refused(v, r, "give", "debug registers", err);
	}
	r = xcrs_get(v, st);
	if (r < 0) {
		return refused(v, r, "give", "XCRs", err);
	}
	r = xsave_get(v, st);
	if (r < 0) {
		return refused(v, r, "give", "FPU state", err);
	}
	r = kvm_ioctl(v->fd, KVM_GET_LAPIC, st->lapic);
	if (r < 0) {
		return refused(v, r, "give", "local APIC", err);
	}
	return x86_msrs_get(v, st, err);
}

/* #ioctls(main): KVM_SET_MP_STATE KVM_SET_REGS KVM_SET_SREGS KVM_SET_SREGS2
 * #ioctls(main): KVM_SET_VCPU_EVENTS KVM_SET_DEBUGREGS KVM_SET_XCRS KVM_SET_XSAVE
 * #ioctls(main): KVM_SET_LAPIC */
int x86_vcpu_apply(struct kvm_vcpu *v, const struct x86_vcpu_state *st, struct err *err)
{
	struct kvm_mp_state mp = {.mp_state = st->mp_state};
	int r;

	r = sys_set(v, &st->sys);
	if (r < 0) {
		return refused(v, r, "take", "special registers", err);
	}
	r = xcrs_set(v, st);
	if (r < 0) {
		return refused(v, r, "take", "XCRs", err);
	}
	/* KVM reads as much as it gave: the rest of the buffer is zero */
	r = kvm_ioctl(v->fd, KVM_SET_XSAVE, (void *)st->xsave);
	if (r < 0) {
		return refused(v, r, "take", "FPU state", err);
	}
	r = x86_msrs_set(v, st, err);
	if (r < 0) {
		return r;
	}
	r = kvm_ioctl(v->fd, KVM_SET_LAPIC, (void *)st->lapic);
	if (r < 0) {
		return refused(v, r, "take", "local APIC", err);
	}
	r = x86_msrs_set_deadline(v, st, err);
	if (r < 0) {
		return r;
	}
	r = debug_set(v, &st->debug);
	if (r < 0) {
		return refused(v, r, "take", "debug registers", err);
	}
	r = gprs_set(v, &st->gprs);
	if (r < 0) {
		return refused(v, r, "take", "registers", err);
	}
	r = events_set(v, &st->events);
	if (r < 0) {
		return refused(v, r, "take", "pending events", err);
	}
	r = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
	if (r < 0) {
		return refused(v, r, "take", "MP state", err);
	}
	return 0;
}

/* #ioctls(start): KVM_X86_SETUP_MCE */
int x86_vcpu_setup(struct kvm_vcpu *v, struct err *err)
{
	uint64_t mce = v->vm->mce_cap;
	int r;

	if (v->vm->xsave_size > X86_XSAVE_MAX) {
		return err_set(err, ENOTSUP,
			       "KVM keeps %zu bytes of FPU state, NEMU at most %u",
			       v->vm->xsave_size, X86_XSAVE_MAX);
	}
	if (mce) {
		r = kvm_ioctl(v->fd, KVM_X86_SETUP_MCE, &mce);
		if (r < 0) {
			return refused(v, r, "take", "machine check banks", err);
		}
	}
	r = x86_msrs_probe(v, err);
	if (r < 0) {
		return r;
	}
	v->initial = calloc(1, sizeof(*v->initial));
	if (!v->initial) {
		return err_set(err, ENOMEM, "no memory for %s", v->name);
	}
	return x86_vcpu_capture(v, v->initial, err);
}

void kvm_arch_vcpu_teardown(struct kvm_vcpu *v)
{
	free(v->initial);
	free(v->cpuid);
}

static void set_mtrr(struct x86_vcpu_state *st, uint64_t value)
{
	for (uint32_t i = 0; i < st->msr_count; i++) {
		if (st->msrs[i].index == MSR_MTRRdefType) {
			st->msrs[i].value = value;
		}
	}
}

int kvm_vcpu_reset(struct kvm_vcpu *v, const struct kvm_x86_init *init, struct err *err)
{
	struct x86_vcpu_state *st = v->initial;
	int r;

	assert(!v->running);
	gprs_from(&st->gprs, &init->regs);
	SYS_FROM(&st->sys, &init->sregs);
	st->sys.pdptrs_valid = false;
	set_mtrr(st, init->mtrr_def_type);
	st->mp_state = init->runnable ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
	r = x86_vcpu_apply(v, st, err);
	if (r < 0) {
		return r;
	}
	/* zero is KVM's word for "the same as the other vCPUs": undoes a guest's WRMSR */
	r = x86_msr_write(v, MSR_IA32_TSC, 0);
	if (r < 0) {
		return refused(v, r, "take", "time stamp counter", err);
	}
	atomic_store(&v->stopped, false);
	return 0;
}

/* #ioctls(vcpu): KVM_GET_REGS KVM_GET_SREGS */
void kvm_arch_log_registers(struct kvm_vcpu *v)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (kvm_ioctl(v->fd, KVM_GET_REGS, &r) < 0 || kvm_ioctl(v->fd, KVM_GET_SREGS, &s) < 0) {
		return;
	}
	log_guest(v->name, "rip=%016jx rsp=%016jx rflags=%08jx cs=%04x/%jx ss=%04x/%jx",
		  (uintmax_t)r.rip, (uintmax_t)r.rsp, (uintmax_t)r.rflags, s.cs.selector,
		  (uintmax_t)s.cs.base, s.ss.selector, (uintmax_t)s.ss.base);
	log_guest(v->name, "cr0=%08jx cr2=%016jx cr3=%016jx cr4=%08jx efer=%jx apic=%jx",
		  (uintmax_t)s.cr0, (uintmax_t)s.cr2, (uintmax_t)s.cr3, (uintmax_t)s.cr4,
		  (uintmax_t)s.efer, (uintmax_t)s.apic_base);
	log_guest(v->name, "rax=%016jx rbx=%016jx rcx=%016jx rdx=%016jx rsi=%016jx rdi=%016jx",
		  (uintmax_t)r.rax, (uintmax_t)r.rbx, (uintmax_t)r.rcx, (uintmax_t)r.rdx,
		  (uintmax_t)r.rsi, (uintmax_t)r.rdi);
	log_guest(v->name, "rbp=%016jx r8=%016jx r9=%016jx r10=%016jx r11=%016jx r12=%016jx",
		  (uintmax_t)r.rbp, (uintmax_t)r.r8, (uintmax_t)r.r9, (uintmax_t)r.r10,
		  (uintmax_t)r.r11, (uintmax_t)r.r12);
	log_guest(v->name, "r13=%016jx r14=%016jx r15=%016jx", (uintmax_t)r.r13,
		  (uintmax_t)r.r14, (uintmax_t)r.r15);
}

bool kvm_arch_exit(struct kvm_vcpu *v)
{
	return false;
}
