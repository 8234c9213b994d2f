/*
 * What only Arm hosts are asked by -check-host. Threads: as check.c.
 */
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "kvm/arm64_int.h"

const struct kvm_optional_cap kvm_arch_optional_caps[] = {
	{KVM_CAP_ARM_PMU_V3, "kvm.optional.ARM_PMU_V3", "guests have no performance counters"},
	{KVM_CAP_ARM_SVE, "kvm.optional.ARM_SVE", "guests have no scalable vectors"},
	{KVM_CAP_ARM_PTRAUTH_ADDRESS, "kvm.optional.ARM_PTRAUTH_ADDRESS",
	 "guests have no pointer authentication"},
	{KVM_CAP_ARM_NISV_TO_USER, "kvm.optional.ARM_NISV_TO_USER",
	 "a guest stops when it accesses a device with a pair of registers"},
};
const unsigned kvm_arch_noptional_caps = ARRAY_SIZE(kvm_arch_optional_caps);

/* #ioctls(start): KVM_CHECK_EXTENSION */
void kvm_arch_check(const struct kvm_check *c)
{
	char value[32];
	int bits;

	if (c->sys_fd < 0) {
		kvm_check_tell(c, "kvm.ipa-bits", HOST_UNKNOWN, KVM_CHECK_NO_KVM, NULL, NULL);
		return;
	}
	bits = ioctl(c->sys_fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_ARM_VM_IPA_SIZE);
	snprintf(value, sizeof(value), "%d", bits > 0 ? bits : 40);
	kvm_check_tell(c, "kvm.ipa-bits", HOST_OK, value, NULL, NULL);
}
