/*
 * The VM and its vCPUs on x86: what KVM has to have there, the split irqchip, CPUID.
 * Documentation/virt/kvm/api.rst and x86/ of the kernel. Nothing here is reachable by a guest.
 * Threads: control loop, before isolation.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kvm/x86_int.h"

/* Guest addresses that KVM uses for itself on Intel hosts without unrestricted guest mode:
 * one page of identity page table and three of TSS, below the flash. */
#define KVM_IDENTITY_MAP_GPA UINT64_C(0xFEFFC000)
#define KVM_TSS_GPA	     UINT64_C(0xFEFFD000)

/* Machine check banks a guest sees, and the capabilities we can save with their MSRs. */
#define KVM_MCE_BANKS 10
#define MCG_CTL_P     (UINT64_C(1) << 8)
#define MCG_SER_P     (UINT64_C(1) << 24)

const struct kvm_required_cap kvm_arch_caps[] = {
	{KVM_CAP_IRQCHIP, "IRQCHIP", "vCPUs would have no local APIC"},
	{KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", "vCPUs would have no local APIC of their own"},
	{KVM_CAP_EXT_CPUID, "EXT_CPUID", "guests could not be told which CPU they run on"},
	{KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER",
	 "guests would have no timer that they can calibrate"},
	{KVM_CAP_GET_TSC_KHZ, "GET_TSC_KHZ", "guest time could not be saved"},
	{KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK", "guest time could not be saved"},
	{KVM_CAP_DEBUGREGS, "DEBUGREGS", "debug registers could not be saved"},
	{KVM_CAP_XSAVE, "XSAVE", "FPU and vector registers could not be saved"},
};
const unsigned kvm_arch_ncaps = ARRAY_SIZE(kvm_arch_caps);
const char kvm_arch_how_to_get[] = "enable virtualisation in the firmware setup and load the "
				   "module kvm_intel or kvm_amd";

void kvm_arch_vm_teardown(struct kvm_vm *vm)
{
}

unsigned long kvm_arch_vm_type(const struct kvm_vm *vm)
{
	return 0;
}

/* #ioctls(start): KVM_SET_IDENTITY_MAP_ADDR KVM_SET_TSS_ADDR
 * #ioctls(start): KVM_X86_GET_MCE_CAP_SUPPORTED */
int kvm_arch_vm_setup(struct kvm_vm *vm, struct err *err)
{
	uint64_t identity = KVM_IDENTITY_MAP_GPA;
	int n, r;

	if (kvm_cap(vm, KVM_CAP_SET_IDENTITY_MAP_ADDR)) {
		r = kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
		if (r < 0) {
			return err_set(err, -r, "KVM refuses its identity map at %#jx: %s",
				       (uintmax_t)identity, strerror(-r));
		}
	}
	if (kvm_cap(vm, KVM_CAP_SET_TSS_ADDR)) {
		r = kvm_ioctl(vm->fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)KVM_TSS_GPA);
		if (r < 0) {
			return err_set(err, -r, "KVM refuses its TSS at %#jx: %s",
				       (uintmax_t)KVM_TSS_GPA, strerror(-r));
		}
	}
	r = kvm_enable(vm, KVM_CAP_SPLIT_IRQCHIP, KVM_IOAPIC_PINS);
	if (r < 0) {
		return err_set(err, -r, "KVM cannot give the vCPUs local APICs: %s",
			       strerror(-r));
	}
	n = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
	if ((kvm_cap(vm, KVM_CAP_X2APIC_API) & n) == n) {
		r = kvm_enable(vm, KVM_CAP_X2APIC_API, n);
		if (r < 0) {
			return err_set(err, -r, "KVM cannot use 32-bit APIC ids: %s",
				       strerror(-r));
		}
		vm->max_vcpu_ids = kvm_cap(vm, KVM_CAP_MAX_VCPU_ID);
	} else {
		n = kvm_cap(vm, KVM_CAP_MAX_VCPU_ID);
		vm->max_vcpu_ids = MIN(n, 255);
	}
	/* since Linux 5.18; before, CPUID alone hides them */
	if (vm->cfg.no_pmu && kvm_cap(vm, KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE) {
		r = kvm_enable(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
		if (r < 0) {
			return err_set(err, -r,
				       "KVM cannot switch its performance counters off: %s",
				       strerror(-r));
		}
	}
	vm->xcrs = kvm_cap(vm, KVM_CAP_XCRS); /* absent on processors without XSAVE */
	vm->sregs2 = kvm_cap(vm, KVM_CAP_SREGS2);
	vm->tsc_control = kvm_cap(vm, KVM_CAP_TSC_CONTROL);
	vm->tsc_offset = kvm_cap(vm, KVM_CAP_VCPU_ATTRIBUTES);
	vm->kvmclock_ctrl = kvm_cap(vm, KVM_CAP_KVMCLOCK_CTRL);
	/* events then say what an exception that is not delivered yet carries */
	vm->payload = kvm_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD) &&
		      kvm_enable(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1) >= 0;
	if (kvm_cap(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT)) {
		kvm_enable(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
	}
	n = kvm_cap(vm, KVM_CAP_MCE);
	if (n) {
		uint64_t cap = 0;

		if (kvm_ioctl(vm->sys_fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap) >= 0) {
			vm->mce_cap = (cap & (MCG_CTL_P | MCG_SER_P)) | MIN(n, KVM_MCE_BANKS);
		}
	}
	n = kvm_cap(vm, KVM_CAP_XSAVE2);
	vm->xsave2 = n > 0;
	vm->xsave_size = MAX((size_t)n, sizeof(struct kvm_xsave));
	return 0;
}

/* #ioctls(start): KVM_GET_SUPPORTED_CPUID */
int kvm_supported_cpuid(struct kvm_vm *vm, struct kvm_cpuid2 **out, struct err *err)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + KVM_MAX_CPUID * sizeof(c->entries[0]));
	int r;

	if (!c) {
		return err_set(err, ENOMEM, "no memory for CPUID");
	}
	c->nent = KVM_MAX_CPUID;
	r = kvm_ioctl(vm->sys_fd, KVM_GET_SUPPORTED_CPUID, c);
	if (r < 0) {
		free(c);
		return err_set(err, -r, "KVM does not say which CPU features it supports: %s",
			       strerror(-r));
	}
	for (uint32_t i = 0; i < c->nent; i++) {
		if (c->entries[i].function == 1) {
			c->entries[i].ecx |= 1u << 24; /* TSC-deadline: in the table above */
		}
	}
	*out = c;
	return 0;
}

/* #ioctls(start): KVM_SET_CPUID2 */
static int vcpu_set_cpuid(struct kvm_vcpu *v, const struct kvm_cpuid2 *cpuid, struct err *err)
{
	size_t size = sizeof(*cpuid) + cpuid->nent * sizeof(cpuid->entries[0]);
	int r;

	assert(cpuid->nent <= KVM_MAX_CPUID);
	v->cpuid = malloc(size);
	if (!v->cpuid) {
		return err_set(err, ENOMEM, "no memory for %s", v->name);
	}
	memcpy(v->cpuid, cpuid, size);
	r = kvm_ioctl(v->fd, KVM_SET_CPUID2, v->cpuid);
	if (r < 0) {
		return err_set(err, -r, "KVM refuses the CPUID of %s: %s", v->name,
			       strerror(-r));
	}
	return 0;
}

int kvm_arch_vcpu_setup(struct kvm_vcpu *v, const void *config, struct err *err)
{
	int r = vcpu_set_cpuid(v, config, err);

	return r < 0 ? r : x86_vcpu_setup(v, err);
}

int kvm_vcpu_new(struct kvm_vm *vm, unsigned index, uint32_t apic_id,
		 const struct kvm_cpuid2 *cpuid, struct kvm_vcpu **out, struct err *err)
{
	return kvm_vcpu_create(vm, index, apic_id, cpuid, out, err);
}

uint32_t kvm_vcpu_apic_id(const struct kvm_vcpu *v)
{
	return v->id;
}
