/*
 * What only x86 hosts are asked by -check-host: the clock, whether guest code runs on the
 * processor (x86_probe.c), nested virtualisation. Threads: as check.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/x86_int.h"

#define KVM_CPUID_LEAF	0x40000001u
#define KVMCLOCK_BIT	(1u << 3) /* KVM_FEATURE_CLOCKSOURCE2 */
#define NATIVE_LIMIT_US 500000	  /* of a loop that takes a processor a millisecond */

const struct kvm_optional_cap kvm_arch_optional_caps[] = {
	{KVM_CAP_X2APIC_API, "kvm.optional.X2APIC_API", "guests have at most 255 vCPUs"},
	{KVM_CAP_XCRS, "kvm.optional.XCRS", "guests have no AVX: the processor has no XSAVE"},
	{KVM_CAP_TSC_CONTROL, "kvm.optional.TSC_CONTROL",
	 "a saved guest continues only where the TSC has the same frequency"},
};
const unsigned kvm_arch_noptional_caps = ARRAY_SIZE(kvm_arch_optional_caps);

/* #ioctls(start): KVM_GET_SUPPORTED_CPUID */
static void check_clock(const struct kvm_check *c)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[KVM_MAX_CPUID];
	} id = {.head.nent = KVM_MAX_CPUID};
	bool has = false;

	if (c->sys_fd < 0) {
		kvm_check_tell(c, "kvm.kvmclock", HOST_UNKNOWN, KVM_CHECK_NO_KVM, NULL, NULL);
		return;
	}
	if (kvm_ioctl(c->sys_fd, KVM_GET_SUPPORTED_CPUID, &id) >= 0) {
		for (uint32_t i = 0; i < id.head.nent; i++) {
			has = has || (id.entry[i].function == KVM_CPUID_LEAF &&
				      id.entry[i].eax & KVMCLOCK_BIT);
		}
	}
	kvm_check_tell(c, "kvm.kvmclock", has ? HOST_OK : HOST_MISSING, has ? "yes" : "no",
		       "guests cannot calibrate their clock", "use a newer host kernel");
}

static void check_execution(const struct kvm_check *c)
{
	char value[128];
	struct err err;
	uint64_t us;
	int r;

	if (c->sys_fd < 0) {
		kvm_check_tell(c, "kvm.execution", HOST_UNKNOWN, KVM_CHECK_NO_KVM, NULL, NULL);
		return;
	}
	r = x86_probe_loop(c->sys_fd, &us, &err);
	if (r) {
		kvm_check_tell(c, "kvm.execution", HOST_FATAL, err.msg, "guests do not run",
			       "look into the kernel's log (dmesg)");
		return;
	}
	if (us == UINT64_MAX) {
		snprintf(value, sizeof(value),
			 "emulated: 10^6 turns of a loop take more than 5 s");
	} else {
		snprintf(value, sizeof(value), "%s: 10^6 turns of a loop take %ju.%03ju ms",
			 us <= NATIVE_LIMIT_US ? "native" : "emulated", (uintmax_t)us / 1000,
			 (uintmax_t)us % 1000);
	}
	kvm_check_tell(
		c, "kvm.execution", us <= NATIVE_LIMIT_US ? HOST_OK : HOST_MISSING, value,
		"this KVM interprets guest kernel code: tiny guests run, an operating system "
		"takes too "
		"long to start",
		"use a host with hardware virtualisation (with nested virtualisation if it is "
		"a "
		"guest "
		"itself)");
}

static int module_parameter(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char word = 0;

	if (fd < 0) {
		return -1;
	}
	if (read(fd, &word, 1) != 1) {
		word = 0;
	}
	close(fd);
	return word == 'Y' || word == '1';
}

/* #syscalls(start): openat read close */
static void check_nested(const struct kvm_check *c)
{
	int intel = module_parameter("/sys/module/kvm_intel/parameters/nested");
	int amd = module_parameter("/sys/module/kvm_amd/parameters/nested");
	bool on = intel > 0 || amd > 0;

	if (intel < 0 && amd < 0) {
		kvm_check_tell(c, "kvm.nested", HOST_UNKNOWN,
			       "neither kvm_intel nor kvm_amd is loaded", NULL, NULL);
		return;
	}
	kvm_check_tell(c, "kvm.nested", on ? HOST_OK : HOST_MISSING, on ? "yes" : "no",
		       "guests cannot run guests of their own",
		       "load kvm_intel or kvm_amd with nested=1");
}

void kvm_arch_check(const struct kvm_check *c)
{
	check_clock(c);
	check_execution(c);
	check_nested(c);
}
