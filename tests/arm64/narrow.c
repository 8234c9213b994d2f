/*
 * Loaded before the C library (LD_PRELOAD) it makes a host's KVM one with 36 bits of guest addresses:
 * KVM_CHECK_EXTENSION says so, and the VM is then made with as many, which KVM enforces.
 */
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if (request == KVM_CHECK_EXTENSION && arg == KVM_CAP_ARM_VM_IPA_SIZE) {
		return 36;
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
