/*
 * /dev/kvm and the VM: what NEMU needs of KVM, checked once, and how the VM is set up.
 * Documentation/virt/kvm/api.rst of the kernel, sections 4.1-4.4 and 8.
 *
 * The table of capabilities is the whole list of what is mandatory. What is optional is a
 * flag of struct kvm_vm. Nothing here is reachable by a guest.
 * Threads: control loop, mostly before isolation.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/kvm_int.h"

/* Guest addresses that KVM uses for itself on Intel hosts without unrestricted guest mode:
 * one page of identity page table and three of TSS, below the flash. */
#define KVM_IDENTITY_MAP_GPA UINT64_C(0xFEFFC000)
#define KVM_TSS_GPA	     UINT64_C(0xFEFFD000)

/* Machine check banks a guest sees, and the capabilities we can save with their MSRs. */
#define KVM_MCE_BANKS 10
#define MCG_CTL_P     (UINT64_C(1) << 8)
#define MCG_SER_P     (UINT64_C(1) << 24)

const struct kvm_required_cap kvm_required_caps[] = {
	{KVM_CAP_USER_MEMORY, "USER_MEMORY", "guests would have no memory"},
	{KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS",
	 "memory could not be taken back from a guest"},
	{KVM_CAP_READONLY_MEM, "READONLY_MEM", "guests could overwrite their firmware"},
	{KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", "a running vCPU could not be paused safely"},
	{KVM_CAP_IRQCHIP, "IRQCHIP", "vCPUs would have no local APIC"},
	{KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", "vCPUs would have no local APIC of their own"},
	{KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", "devices could not raise MSI interrupts"},
	{KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", "devices could not raise MSI interrupts"},
	{KVM_CAP_IRQFD, "IRQFD", "devices could not raise interrupts from their threads"},
	{KVM_CAP_IOEVENTFD, "IOEVENTFD", "devices would not hear their doorbells"},
	{KVM_CAP_IOEVENTFD_ANY_LENGTH, "IOEVENTFD_ANY_LENGTH",
	 "devices would miss doorbells of an unusual width"},
	{KVM_CAP_EXT_CPUID, "EXT_CPUID", "guests could not be told which CPU they run on"},
	{KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER",
	 "guests would have no timer that they can calibrate"},
	{KVM_CAP_GET_TSC_KHZ, "GET_TSC_KHZ", "guest time could not be saved"},
	{KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK", "guest time could not be saved"},
	{KVM_CAP_MP_STATE, "MP_STATE", "vCPU states could not be saved"},
	{KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS", "pending interrupts could not be saved"},
	{KVM_CAP_DEBUGREGS, "DEBUGREGS", "debug registers could not be saved"},
	{KVM_CAP_XSAVE, "XSAVE", "FPU and vector registers could not be saved"},
};
const unsigned kvm_nrequired_caps = ARRAY_SIZE(kvm_required_caps);

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

int kvm_cap(const struct kvm_vm *vm, unsigned cap)
{
	int fd = vm->fd >= 0 ? vm->fd : vm->sys_fd;
	int r = ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)cap);

	return r > 0 ? r : 0;
}

/* #syscalls(start): openat */
int kvm_open(int *fd, struct err *err)
{
	*fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (*fd >= 0) {
		return 0;
	}
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return err_set(err, ENOENT,
			       "/dev/kvm is missing: enable virtualisation in the firmware "
			       "setup and load the module kvm_intel or kvm_amd");
	case EACCES:
	case EPERM:
		return err_set(err, EACCES,
			       "/dev/kvm may not be opened by this user: add the user to the "
			       "group that owns it (usually kvm) and log in again");
	case EBUSY:
		return err_set(err, EBUSY,
			       "/dev/kvm is busy: stop the other hypervisor that uses the "
			       "processor's virtualisation");
	default:
		return err_set(err, errno, "/dev/kvm cannot be opened: %s", strerror(errno));
	}
}

/* #ioctls(start): KVM_GET_API_VERSION KVM_CHECK_EXTENSION */
static int vm_check(struct kvm_vm *vm, struct err *err)
{
	int version = kvm_ioctl(vm->sys_fd, KVM_GET_API_VERSION, NULL);

	if (version != KVM_API_VERSION) {
		return err_set(err, ENOTSUP,
			       "/dev/kvm speaks API version %d instead of %d: use a kernel of "
			       "this century",
			       version, KVM_API_VERSION);
	}
	for (size_t i = 0; i < kvm_nrequired_caps; i++) {
		if (!kvm_cap(vm, kvm_required_caps[i].cap)) {
			return err_set_class(err, ERR_KVM_MISSING_CAP, ENOTSUP,
					     "/dev/kvm lacks KVM_CAP_%s, without which %s: use "
					     "a newer host kernel",
					     kvm_required_caps[i].name, kvm_required_caps[i].without);
		}
	}
	return 0;
}

/* #ioctls(start): KVM_CREATE_VM */
static int vm_create(struct kvm_vm *vm, struct err *err)
{
	int r;

	do {
		/* KVM gives up with EINTR when a signal is pending */
		r = ioctl(vm->sys_fd, KVM_CREATE_VM, 0UL);
	} while (r < 0 && errno == EINTR);
	if (r >= 0) {
		vm->fd = r;
		return 0;
	}
	r = errno;
	if (r == EBUSY) {
		return err_set(err, r,
			       "/dev/kvm is busy: stop the other hypervisor that uses the "
			       "processor's virtualisation");
	}
	if (r == ENOMEM) {
		return err_set(err, r,
			       "/dev/kvm has no memory left for another virtual "
			       "machine: stop one or add memory");
	}
	return err_set(err, r, "/dev/kvm cannot create a virtual machine: %s", strerror(r));
}

static int vm_enable(struct kvm_vm *vm, unsigned cap, uint64_t arg)
{
	struct kvm_enable_cap ec = {.cap = cap, .args = {arg}};

	return kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &ec);
}

/* #ioctls(start): KVM_SET_IDENTITY_MAP_ADDR KVM_SET_TSS_ADDR KVM_ENABLE_CAP
 * #ioctls(start): KVM_X86_GET_MCE_CAP_SUPPORTED KVM_GET_VCPU_MMAP_SIZE */
static int vm_setup(struct kvm_vm *vm, struct err *err)
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
	r = vm_enable(vm, KVM_CAP_SPLIT_IRQCHIP, KVM_IOAPIC_PINS);
	if (r < 0) {
		return err_set(err, -r, "KVM cannot give the vCPUs local APICs: %s",
			       strerror(-r));
	}
	n = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
	if ((kvm_cap(vm, KVM_CAP_X2APIC_API) & n) == n) {
		r = vm_enable(vm, KVM_CAP_X2APIC_API, n);
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
		r = vm_enable(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
		if (r < 0) {
			return err_set(err, -r, "KVM cannot switch its performance counters off: %s",
				       strerror(-r));
		}
	}
	vm->max_vcpus = kvm_cap(vm, KVM_CAP_MAX_VCPUS);
	if (!vm->max_vcpus) {
		n = kvm_cap(vm, KVM_CAP_NR_VCPUS);
		vm->max_vcpus = MAX(n, 4); /* api.rst 4.7 */
	}
	vm->max_vcpus = MIN(vm->max_vcpus, KVM_MAX_VCPUS);
	if (!vm->max_vcpu_ids) {
		vm->max_vcpu_ids = vm->max_vcpus;
	}
	vm->xcrs = kvm_cap(vm, KVM_CAP_XCRS); /* absent on processors without XSAVE */
	vm->sregs2 = kvm_cap(vm, KVM_CAP_SREGS2);
	vm->tsc_control = kvm_cap(vm, KVM_CAP_TSC_CONTROL);
	vm->tsc_offset = kvm_cap(vm, KVM_CAP_VCPU_ATTRIBUTES);
	vm->kvmclock_ctrl = kvm_cap(vm, KVM_CAP_KVMCLOCK_CTRL);
	/* events then say what an exception that is not delivered yet carries */
	vm->payload = kvm_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD) &&
		      vm_enable(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1) >= 0;
	if (kvm_cap(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT)) {
		vm_enable(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
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
	r = kvm_ioctl(vm->sys_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run)) {
		return err_set(err, EIO, "/dev/kvm gives vCPUs %d bytes to talk through", r);
	}
	vm->run_size = r;
	return 0;
}

static void kick_handler(int sig)
{
	/* it is enough that KVM_RUN was interrupted */
}

/* #syscalls(start): rt_sigaction */
static void vm_install_kick(void)
{
	struct sigaction sa = {.sa_handler = kick_handler, .sa_flags = SA_RESTART};

	sigemptyset(&sa.sa_mask);
	sigaction(KVM_KICK_SIGNAL, &sa, NULL);
}

int kvm_vm_new(const struct kvm_vm_config *cfg, struct kvm_vm **out, struct err *err)
{
	struct kvm_vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm) {
		return err_set(err, ENOMEM, "no memory for a virtual machine");
	}
	vm->cfg = *cfg;
	vm->sys_fd = vm->fd = vm->stats_fd = -1;
	vm->paused = true;
	r = kvm_open(&vm->sys_fd, err);
	if (r < 0) {
		goto free_vm;
	}
	r = vm_check(vm, err);
	if (r < 0) {
		goto close_sys;
	}
	r = vm_create(vm, err);
	if (r < 0) {
		goto close_sys;
	}
	r = vm_setup(vm, err);
	if (r < 0) {
		goto close_vm;
	}
	r = kvm_irqs_init(vm, err);
	if (r < 0) {
		goto close_vm;
	}
	kvm_doorbells_init(vm);
	r = kvm_slots_init(vm, err);
	if (r < 0) {
		goto fini_irqs;
	}
	vm->stats_fd = kvm_stats_open(vm->fd);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->wake, NULL);
	vm_install_kick();
	*out = vm;
	return 0;

fini_irqs:
	kvm_irqs_fini(vm);
close_vm:
	close(vm->fd);
close_sys:
	close(vm->sys_fd);
free_vm:
	free(vm);
	return r;
}

/* #syscalls(main): close */
void kvm_vm_free(struct kvm_vm *vm)
{
	if (!vm) {
		return;
	}
	assert(!vm->running && !vm->done);
	kvm_vcpus_stop(vm);
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		kvm_vcpu_free(vm->vcpus[i]);
	}
	free(vm->vcpus);
	kvm_slots_fini(vm);
	kvm_irqs_fini(vm);
	pthread_cond_destroy(&vm->wake);
	pthread_mutex_destroy(&vm->lock);
	if (vm->stats_fd >= 0) {
		close(vm->stats_fd);
	}
	close(vm->fd);
	close(vm->sys_fd);
	free(vm);
}

unsigned kvm_vm_max_vcpus(const struct kvm_vm *vm)
{
	return vm->max_vcpus;
}

unsigned kvm_vm_max_vcpu_ids(const struct kvm_vm *vm)
{
	return vm->max_vcpu_ids;
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
