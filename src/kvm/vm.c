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

static const struct kvm_required_cap required_caps[] = {
	{KVM_CAP_USER_MEMORY, "USER_MEMORY", "guests would have no memory"},
	{KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS",
	 "memory could not be taken back from a guest"},
	{KVM_CAP_READONLY_MEM, "READONLY_MEM", "guests could overwrite their firmware"},
	{KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", "a running vCPU could not be paused safely"},
	{KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", "devices could not raise MSI interrupts"},
	{KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", "devices could not raise MSI interrupts"},
	{KVM_CAP_IRQFD, "IRQFD", "devices could not raise interrupts from their threads"},
	{KVM_CAP_IOEVENTFD, "IOEVENTFD", "devices would not hear their doorbells"},
	{KVM_CAP_IOEVENTFD_ANY_LENGTH, "IOEVENTFD_ANY_LENGTH",
	 "devices would miss doorbells of an unusual width"},
	{KVM_CAP_MP_STATE, "MP_STATE", "vCPU states could not be saved"},
	{KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS", "pending interrupts could not be saved"},
};

const struct kvm_required_cap *kvm_required_cap(unsigned i)
{
	if (i < ARRAY_SIZE(required_caps)) {
		return &required_caps[i];
	}
	i -= (unsigned)ARRAY_SIZE(required_caps);
	return i < kvm_arch_ncaps ? &kvm_arch_caps[i] : NULL;
}

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
		return err_set(err, ENOENT, "/dev/kvm is missing: %s", kvm_arch_how_to_get);
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
	for (unsigned i = 0; kvm_required_cap(i); i++) {
		const struct kvm_required_cap *c = kvm_required_cap(i);

		if (!kvm_cap(vm, c->cap)) {
			return err_set_class(err, ERR_KVM_MISSING_CAP, ENOTSUP,
					     "/dev/kvm lacks KVM_CAP_%s, without which %s: use "
					     "a newer host kernel",
					     c->name, c->without);
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
		r = ioctl(vm->sys_fd, KVM_CREATE_VM, kvm_arch_vm_type(vm));
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

int kvm_enable(struct kvm_vm *vm, unsigned cap, uint64_t arg)
{
	struct kvm_enable_cap ec = {.cap = cap, .args = {arg}};

	return kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &ec);
}

/* #ioctls(start): KVM_ENABLE_CAP KVM_GET_VCPU_MMAP_SIZE */
static int vm_setup(struct kvm_vm *vm, struct err *err)
{
	int n, r;

	r = kvm_arch_vm_setup(vm, err);
	if (r < 0) {
		return r;
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
	kvm_arch_vm_teardown(vm);
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
