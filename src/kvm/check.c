/*
 * What this host's KVM offers, for -check-host: the same list of capabilities that kvm_vm_new()
 * demands, what is used where it is there, and what the architecture adds (x86_check.c,
 * arm64_check.c).
 *
 * Threads: main, in a process that does nothing else. Nothing here is reachable by a guest.
 */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "kvm/kvm_int.h"

void kvm_check_tell(const struct kvm_check *c, const char *key, enum host_state state,
		 const char *value, const char *consequence, const char *remedy)
{
	bool lacks = state == HOST_MISSING || state == HOST_FATAL;
	const struct host_fact f = {key, state, value, lacks ? consequence : NULL,
				    lacks ? remedy : NULL};

	c->fn(c->opaque, &f);
}

static bool has_cap(const struct kvm_check *c, unsigned cap)
{
	return ioctl(c->sys_fd, KVM_CHECK_EXTENSION, (unsigned long)cap) > 0;
}

/* Of every architecture. */
static const struct kvm_optional_cap optional_caps[] = {
	{KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "kvm.optional.MANUAL_DIRTY_LOG_PROTECT2",
	 "dirty logging costs more"},
	{KVM_CAP_BINARY_STATS_FD, "kvm.optional.BINARY_STATS_FD",
	 "query-stats has none of KVM's own counters"},
};

static void check_optional(const struct kvm_check *c, const struct kvm_optional_cap *o)
{
	bool has = c->sys_fd >= 0 && has_cap(c, o->cap);

	if (c->sys_fd < 0) {
		kvm_check_tell(c, o->key, HOST_UNKNOWN, KVM_CHECK_NO_KVM, NULL, NULL);
	} else {
		kvm_check_tell(c, o->key, has ? HOST_OK : HOST_MISSING, has ? "yes" : "no",
			       o->without, "use a newer host kernel or processor");
	}
}

/* #ioctls(start): KVM_GET_API_VERSION KVM_CHECK_EXTENSION */
static void check_caps(const struct kvm_check *c)
{
	char text[160], key[64], value[32];
	int version = c->sys_fd < 0 ? -1 : kvm_ioctl(c->sys_fd, KVM_GET_API_VERSION, NULL);

	snprintf(value, sizeof(value), "%d", version);
	kvm_check_tell(c, "kvm.api",
	     c->sys_fd < 0		  ? HOST_UNKNOWN
	     : version == KVM_API_VERSION ? HOST_OK
					  : HOST_FATAL,
	     c->sys_fd < 0 ? KVM_CHECK_NO_KVM : value, "NEMU does not know this interface",
	     "use a newer host kernel");
	for (unsigned i = 0; kvm_required_cap(i); i++) {
		const struct kvm_required_cap *r = kvm_required_cap(i);

		snprintf(key, sizeof(key), "kvm.cap.%s", r->name);
		snprintf(text, sizeof(text), "%s", r->without);
		if (c->sys_fd < 0) {
			kvm_check_tell(c, key, HOST_UNKNOWN, KVM_CHECK_NO_KVM, NULL, NULL);
		} else {
			bool has = has_cap(c, r->cap);

			kvm_check_tell(c, key, has ? HOST_OK : HOST_FATAL, has ? "yes" : "no", text,
			     "use a newer host kernel");
		}
	}
	for (size_t i = 0; i < kvm_arch_noptional_caps; i++) {
		check_optional(c, &kvm_arch_optional_caps[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(optional_caps); i++) {
		check_optional(c, &optional_caps[i]);
	}
}

/* #ioctls(start): KVM_CHECK_EXTENSION */
static void check_vcpus(const struct kvm_check *c)
{
	char value[64];
	int max;

	if (c->sys_fd < 0) {
		kvm_check_tell(c, "kvm.max-vcpus", HOST_UNKNOWN, KVM_CHECK_NO_KVM, NULL, NULL);
		return;
	}
	max = ioctl(c->sys_fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPUS);
	snprintf(value, sizeof(value), "%d", max);
	kvm_check_tell(c, "kvm.max-vcpus", HOST_OK, value, NULL, NULL);
}

void kvm_check_host(host_fact_fn *fn, void *opaque)
{
	struct kvm_check c = {fn, opaque, -1};
	struct err err;

	if (kvm_open(&c.sys_fd, &err)) {
		c.sys_fd = -1;
		/* the sentence has the remedy behind its colon */
		const char *colon = strchr(err.msg, ':');

		kvm_check_tell(&c, "kvm.device", HOST_FATAL, "no", "no guest can run",
		     colon ? colon + 2 : err.msg);
	} else {
		kvm_check_tell(&c, "kvm.device", HOST_OK, "/dev/kvm", NULL, NULL);
	}
	check_caps(&c);
	check_vcpus(&c);
	kvm_arch_check(&c);
	if (c.sys_fd >= 0) {
		close(c.sys_fd);
	}
}
