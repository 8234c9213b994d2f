/*
 * What this host's KVM offers, for -check-host: the same list of capabilities that kvm_vm_new()
 * demands, what is used where it is there, and whether guest code runs on the processor.
 *
 * Threads: main, in a process that does nothing else. Nothing here is reachable by a guest but
 * the loop of x86_probe.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/kvm_int.h"

#define NO_KVM		"cannot be asked without /dev/kvm"
#define KVM_CPUID_LEAF	0x40000001u
#define KVMCLOCK_BIT	(1u << 3) /* KVM_FEATURE_CLOCKSOURCE2 */
#define NATIVE_LIMIT_US 500000	  /* of a loop that takes a processor a millisecond */

struct check {
	host_fact_fn *fn;
	void *opaque;
	int sys_fd; /* -1: no KVM */
};

static const struct {
	unsigned cap;
	const char *key, *without;
} optional_caps[] = {
	{KVM_CAP_X2APIC_API, "kvm.optional.X2APIC_API", "guests have at most 255 vCPUs"},
	{KVM_CAP_XCRS, "kvm.optional.XCRS", "guests have no AVX: the processor has no XSAVE"},
	{KVM_CAP_TSC_CONTROL, "kvm.optional.TSC_CONTROL",
	 "a saved guest continues only where the TSC has the same frequency"},
	{KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "kvm.optional.MANUAL_DIRTY_LOG_PROTECT2",
	 "dirty logging costs more"},
	{KVM_CAP_BINARY_STATS_FD, "kvm.optional.BINARY_STATS_FD",
	 "query-stats has none of KVM's own counters"},
};

static void tell(const struct check *c, const char *key, enum host_state state,
		 const char *value, const char *consequence, const char *remedy)
{
	bool lacks = state == HOST_MISSING || state == HOST_FATAL;
	const struct host_fact f = {key, state, value, lacks ? consequence : NULL,
				    lacks ? remedy : NULL};

	c->fn(c->opaque, &f);
}

static bool has_cap(const struct check *c, unsigned cap)
{
	return ioctl(c->sys_fd, KVM_CHECK_EXTENSION, (unsigned long)cap) > 0;
}

/* #ioctls(start): KVM_GET_API_VERSION KVM_CHECK_EXTENSION */
static void check_caps(const struct check *c)
{
	char text[160], key[64], value[32];
	int version = c->sys_fd < 0 ? -1 : kvm_ioctl(c->sys_fd, KVM_GET_API_VERSION, NULL);

	snprintf(value, sizeof(value), "%d", version);
	tell(c, "kvm.api",
	     c->sys_fd < 0		  ? HOST_UNKNOWN
	     : version == KVM_API_VERSION ? HOST_OK
					  : HOST_FATAL,
	     c->sys_fd < 0 ? NO_KVM : value, "NEMU does not know this interface",
	     "use a newer host kernel");
	for (unsigned i = 0; i < kvm_nrequired_caps; i++) {
		const struct kvm_required_cap *r = &kvm_required_caps[i];

		snprintf(key, sizeof(key), "kvm.cap.%s", r->name);
		snprintf(text, sizeof(text), "%s", r->without);
		if (c->sys_fd < 0) {
			tell(c, key, HOST_UNKNOWN, NO_KVM, NULL, NULL);
		} else {
			bool has = has_cap(c, r->cap);

			tell(c, key, has ? HOST_OK : HOST_FATAL, has ? "yes" : "no", text,
			     "use a newer host kernel");
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(optional_caps); i++) {
		bool has = c->sys_fd >= 0 && has_cap(c, optional_caps[i].cap);

		if (c->sys_fd < 0) {
			tell(c, optional_caps[i].key, HOST_UNKNOWN, NO_KVM, NULL, NULL);
		} else {
			tell(c, optional_caps[i].key, has ? HOST_OK : HOST_MISSING,
			     has ? "yes" : "no", optional_caps[i].without,
			     "use a newer host kernel or processor");
		}
	}
}

/* #ioctls(start): KVM_GET_SUPPORTED_CPUID */
static void check_clock(const struct check *c)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[KVM_MAX_CPUID];
	} id = {.head.nent = KVM_MAX_CPUID};
	bool has = false;

	if (c->sys_fd < 0) {
		tell(c, "kvm.kvmclock", HOST_UNKNOWN, NO_KVM, NULL, NULL);
		return;
	}
	if (kvm_ioctl(c->sys_fd, KVM_GET_SUPPORTED_CPUID, &id) >= 0) {
		for (uint32_t i = 0; i < id.head.nent; i++) {
			has = has || (id.entry[i].function == KVM_CPUID_LEAF &&
				      id.entry[i].eax & KVMCLOCK_BIT);
		}
	}
	tell(c, "kvm.kvmclock", has ? HOST_OK : HOST_MISSING, has ? "yes" : "no",
	     "guests cannot calibrate their clock", "use a newer host kernel");
}

static void check_execution(const struct check *c)
{
	char value[128];
	struct err err;
	uint64_t us;
	int r;

	if (c->sys_fd < 0) {
		tell(c, "kvm.execution", HOST_UNKNOWN, NO_KVM, NULL, NULL);
		return;
	}
	r = x86_probe_loop(c->sys_fd, &us, &err);
	if (r) {
		tell(c, "kvm.execution", HOST_FATAL, err.msg, "guests do not run",
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
	tell(c, "kvm.execution", us <= NATIVE_LIMIT_US ? HOST_OK : HOST_MISSING, value,
	     "this KVM interprets guest kernel code: tiny guests run, an operating system "
	     "takes too "
	     "long to start",
	     "use a host with hardware virtualisation (with nested virtualisation if it is a "
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
static void check_nested(const struct check *c)
{
	int intel = module_parameter("/sys/module/kvm_intel/parameters/nested");
	int amd = module_parameter("/sys/module/kvm_amd/parameters/nested");
	bool on = intel > 0 || amd > 0;

	if (intel < 0 && amd < 0) {
		tell(c, "kvm.nested", HOST_UNKNOWN, "neither kvm_intel nor kvm_amd is loaded",
		     NULL, NULL);
		return;
	}
	tell(c, "kvm.nested", on ? HOST_OK : HOST_MISSING, on ? "yes" : "no",
	     "guests cannot run guests of their own",
	     "load kvm_intel or kvm_amd with nested=1");
}

/* #ioctls(start): KVM_CHECK_EXTENSION */
static void check_vcpus(const struct check *c)
{
	char value[64];
	int max;

	if (c->sys_fd < 0) {
		tell(c, "kvm.max-vcpus", HOST_UNKNOWN, NO_KVM, NULL, NULL);
		return;
	}
	max = ioctl(c->sys_fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPUS);
	snprintf(value, sizeof(value), "%d", max);
	tell(c, "kvm.max-vcpus", HOST_OK, value, NULL, NULL);
}

void kvm_check_host(host_fact_fn *fn, void *opaque)
{
	struct check c = {fn, opaque, -1};
	struct err err;

	if (kvm_open(&c.sys_fd, &err)) {
		c.sys_fd = -1;
		/* the sentence has the remedy behind its colon */
		const char *colon = strchr(err.msg, ':');

		tell(&c, "kvm.device", HOST_FATAL, "no", "no guest can run",
		     colon ? colon + 2 : err.msg);
	} else {
		tell(&c, "kvm.device", HOST_OK, "/dev/kvm", NULL, NULL);
	}
	check_caps(&c);
	check_clock(&c);
	check_vcpus(&c);
	check_execution(&c);
	check_nested(&c);
	if (c.sys_fd >= 0) {
		close(c.sys_fd);
	}
}
