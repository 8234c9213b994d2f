/*
 * The VM on Arm: what KVM has to have there, and how wide its addresses are. Documentation/virt/
 * kvm/api.rst of the kernel. Nothing here is reachable by a guest. Control loop, before isolation.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/arm64_int.h"

#define IPA_BITS_OLD 40u /* of a kernel that cannot say */

const struct kvm_required_cap kvm_arch_caps[] = {
	{KVM_CAP_ONE_REG, "ONE_REG", "registers could not be set"},
	{KVM_CAP_ARM_PSCI_0_2, "ARM_PSCI_0_2", "guests could not start their processors"},
	{KVM_CAP_DEVICE_CTRL, "DEVICE_CTRL", "guests would have no interrupt controller"},
};
const unsigned kvm_arch_ncaps = ARRAY_SIZE(kvm_arch_caps);
const char kvm_arch_how_to_get[] =
	"use a kernel with KVM, started at EL2 by the host's firmware";

/* The widest that the host has: the windows of PCI devices lie far up. */
unsigned long kvm_arch_vm_type(const struct kvm_vm *vm)
{
	int bits = kvm_cap(vm, KVM_CAP_ARM_VM_IPA_SIZE);

	return bits ? KVM_VM_TYPE_ARM_IPA_SIZE((unsigned long)bits) : 0;
}

int kvm_arch_vm_setup(struct kvm_vm *vm, struct err *err)
{
	int bits = kvm_cap(vm, KVM_CAP_ARM_VM_IPA_SIZE), r;
	struct kvm_create_device gic = {
		.type = KVM_DEV_TYPE_ARM_VGIC_V3,
		.flags = KVM_CREATE_DEVICE_TEST,
	};

	vm->ipa_bits = bits ? (unsigned)bits : IPA_BITS_OLD;
	if (kvm_ioctl(vm->fd, KVM_CREATE_DEVICE, &gic) < 0) {
		return err_set(err, ENOTSUP,
			       "/dev/kvm gives guests no GICv3: use a host with that interrupt "
			       "controller");
	}
	/* An access that the processor does not describe (a pair of registers to a device) is
	 * then the guest's mistake and not the end of it. */
	if (kvm_cap(vm, KVM_CAP_ARM_NISV_TO_USER)) {
		r = kvm_enable(vm, KVM_CAP_ARM_NISV_TO_USER, 0);
		if (r < 0) {
			return err_set(err, -r,
				       "KVM cannot report accesses that it does not "
				       "decode: %s",
				       strerror(-r));
		}
	}
	return 0;
}

/* #syscalls(main): close */
void kvm_arch_vm_teardown(struct kvm_vm *vm)
{
	if (vm->gic) {
		if (vm->gic->its_fd >= 0) {
			close(vm->gic->its_fd);
		}
		if (vm->gic->fd >= 0) {
			close(vm->gic->fd);
		}
		free(vm->gic->initial);
		free(vm->gic);
	}
}

unsigned kvm_vm_ipa_bits(const struct kvm_vm *vm)
{
	return vm->ipa_bits;
}
