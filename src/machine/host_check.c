/*
 * What this host offers: see host_check.h. KVM's part is kvm_check_host().
 *
 * Each check is a function that tells its facts; the order of the table at the end is that of
 * the output. Device nodes are looked at and not opened, since opening some loads modules.
 */
#include "machine/host_check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/util.h"
#include "event/loop.h"
#include "event/uring.h"
#include "kvm/kvm.h"
#include "spec/landlock.h"

#define LANDLOCK_CALL 444 /* landlock_create_ruleset: the same on every architecture */
#define UFFD_USER     1	  /* UFFD_USER_MODE_ONLY, Linux 5.11 */

struct check {
	host_fact_fn *fn;
	void *opaque;
};

static void tell(const struct check *c, const char *key, enum host_state state,
		 const char *consequence, const char *remedy, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
static void tell(const struct check *c, const char *key, enum host_state state,
		 const char *consequence, const char *remedy, const char *fmt, ...)
{
	bool lacks = state == HOST_MISSING || state == HOST_FATAL;
	char value[256];
	struct host_fact f = {key, state, value, lacks ? consequence : NULL,
			      lacks ? remedy : NULL};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	c->fn(c->opaque, &f);
}

/* The first line of a small file; false if it cannot be read.
 * #syscalls(start): openat read close */
static bool read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(buf, (int)size, f);

	if (f) {
		fclose(f);
	}
	buf[ok ? strcspn(buf, "\n") : 0] = '\0';
	return ok;
}

/* #syscalls(start): uname */
static void check_kernel(const struct check *c)
{
	unsigned major = 0, minor = 0;
	struct utsname u;

	uname(&u);
	sscanf(u.release, "%u.%u", &major, &minor);
	tell(c, "kernel", major > 5 || (major == 5 && minor >= 13) ? HOST_OK : HOST_MISSING,
	     "io_uring cannot be restricted before Linux 5.10, files not locked away "
	     "(Landlock) before "
	     "5.13",
	     "use a newer host kernel", "%s %s", u.sysname, u.release);
}

/* #syscalls(start): sched_getaffinity */
static void check_cpus(const struct check *c)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	tell(c, "cpus", HOST_OK, NULL, NULL, "%ld online, %d for this process", online,
	     sched_getaffinity(0, sizeof(set), &set) ? (int)online : CPU_COUNT(&set));
}

static uint64_t meminfo(const char *key)
{
	FILE *f = fopen("/proc/meminfo", "re");
	size_t n = strlen(key);
	uint64_t kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, n) && line[n] == ':') {
			kib = strtoull(line + n + 1, NULL, 10);
			break;
		}
	}
	if (f) {
		fclose(f);
	}
	return kib;
}

static void check_memory(const struct check *c)
{
	char thp[64];

	tell(c, "memory", HOST_OK, NULL, NULL, "%" PRIu64 " MiB, %" PRIu64 " MiB available",
	     meminfo("MemTotal") / 1024, meminfo("MemAvailable") / 1024);
	if (!read_line("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp))) {
		tell(c, "memory.thp", HOST_MISSING, "guest memory is mapped in pages of 4 KiB",
		     "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE", "no");
		return;
	}
	tell(c, "memory.thp", strstr(thp, "[never]") ? HOST_MISSING : HOST_OK,
	     "guest memory is mapped in pages of 4 KiB",
	     "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled", "%s", thp);
}

static int by_size(const struct dirent **a, const struct dirent **b)
{
	return strverscmp((*a)->d_name, (*b)->d_name);
}

static int is_size(const struct dirent *d)
{
	return !strncmp(d->d_name, "hugepages-", 10);
}

/* #syscalls(start): openat getdents64 close */
static void check_hugepages(const struct check *c)
{
	static const char dir[] = "/sys/kernel/mm/hugepages";
	char path[PATH_MAX], total[32], unused[32], key[300];
	struct dirent **entry;
	int n = scandir(dir, &entry, is_size, by_size);

	if (n <= 0) {
		tell(c, "hugepages", HOST_MISSING, "guest memory cannot be in huge pages",
		     "use a kernel with CONFIG_HUGETLBFS", "no");
	}
	for (int i = 0; i < n; i++) {
		const char *name = entry[i]->d_name;

		snprintf(path, sizeof(path), "%s/%s/nr_hugepages", dir, name);
		read_line(path, total, sizeof(total));
		snprintf(path, sizeof(path), "%s/%s/free_hugepages", dir, name);
		read_line(path, unused, sizeof(unused));
		snprintf(key, sizeof(key), "hugepages.%s", name + 10);
		tell(c, key, atoll(total) > 0 ? HOST_OK : HOST_MISSING,
		     "guest memory cannot be in huge pages of this size",
		     "reserve some: nr_hugepages below /sys/kernel/mm/hugepages", "%s, %s free",
		     total, unused);
		free(entry[i]);
	}
	if (n >= 0) {
		free(entry);
	}
}

static void check_node(const struct check *c, const char *key, const char *path,
		       const char *consequence, const char *load)
{
	if (!access(path, R_OK | W_OK)) {
		tell(c, key, HOST_OK, NULL, NULL, "%s", path);
	} else if (errno == ENOENT) {
		tell(c, key, HOST_MISSING, consequence, load, "no %s", path);
	} else {
		tell(c, key, HOST_MISSING, consequence,
		     "get the right to use it: its group, or its owner", "%s: %s", path,
		     strerror(errno));
	}
}

/* #syscalls(start): access faccessat */
static void check_nodes(const struct check *c)
{
	check_node(c, "net.tun", "/dev/net/tun", "guests cannot have a tap by its name",
		   "modprobe tun");
	check_node(c, "vhost.net", "/dev/vhost-net",
		   "network of guests goes through this program", "modprobe vhost_net");
	check_node(c, "vhost.vsock", "/dev/vhost-vsock", "guests have no vsock to the host",
		   "modprobe vhost_vsock");
	check_node(c, "vhost.scsi", "/dev/vhost-scsi",
		   "guests have no disks of the kernel's SCSI target", "modprobe vhost_scsi");
	check_node(c, "vfio", "/dev/vfio/vfio", "devices of the host cannot be given to guests",
		   "modprobe vfio-pci");
}

static int not_dot(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static void check_iommu(const struct check *c)
{
	struct dirent **entry;
	int n = scandir("/sys/kernel/iommu_groups", &entry, not_dot, NULL);

	for (int i = 0; i < n; i++) {
		free(entry[i]);
	}
	if (n >= 0) {
		free(entry);
	}
	tell(c, "vfio.iommu", n > 0 ? HOST_OK : HOST_MISSING,
	     "devices of the host cannot be given to guests",
	     "enable the IOMMU in the firmware setup, on Intel also with intel_iommu=on",
	     "%d groups", n < 0 ? 0 : n);
}

/* A ring as disks use it, restricted. */
static void check_uring(const struct check *c)
{
	struct uring *ring;
	struct loop *loop;
	struct err err;

	if (loop_new(&loop, "check", 0)) {
		tell(c, "io_uring", HOST_UNKNOWN, NULL, NULL, "no epoll");
		return;
	}
	if (uring_get(loop, &ring, &err)) {
		char *remedy = strchr(err.msg, ';');

		if (remedy) {
			*remedy = '\0';
			remedy += 2;
		}
		tell(c, "io_uring", HOST_MISSING,
		     "guests have no disks from files or block devices", remedy, "%s", err.msg);
	} else {
		uring_put(ring);
		tell(c, "io_uring", HOST_OK, NULL, NULL, "yes, with restrictions");
	}
	loop_free(loop);
}

/* #syscalls(start): userfaultfd */
static void check_userfaultfd(const struct check *c)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER);
	int error = errno;
	bool all = !access("/dev/userfaultfd", R_OK | W_OK);

	if (fd >= 0) {
		close((int)fd);
		fd = syscall(SYS_userfaultfd, O_CLOEXEC);
		all = all || fd >= 0;
		if (fd >= 0) {
			close((int)fd);
		}
	}
	tell(c, "userfaultfd", all ? HOST_OK : HOST_MISSING,
	     "guest memory cannot follow a guest that has moved (post-copy)",
	     "sysctl vm.unprivileged_userfaultfd=1, or get the right to use /dev/userfaultfd",
	     "%s",
	     all	       ? "yes"
	     : error == ENOSYS ? "no"
			       : "not for faults of the kernel");
}

/* #syscalls(start): landlock_create_ruleset */
static void check_landlock(const struct check *c)
{
	long abi = syscall(LANDLOCK_CALL, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi > 0) {
		tell(c, "sandbox.landlock", HOST_OK, NULL, NULL, "ABI %ld", abi);
	} else {
		tell(c, "sandbox.landlock", HOST_MISSING,
		     "one of the sandbox's layers is missing",
		     errno == EOPNOTSUPP
			     ? "boot with lsm=landlock,… on the kernel's command line"
			     : "use Linux 5.13 or later, with CONFIG_SECURITY_LANDLOCK",
		     "no");
	}
}

/* #syscalls(start): seccomp */
static void check_seccomp(const struct check *c)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;
	bool has = !syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);

	tell(c, "sandbox.seccomp", has ? HOST_OK : HOST_FATAL,
	     "guests do not start, unless with -sandbox off",
	     "use a kernel with CONFIG_SECCOMP_FILTER, or a container that permits seccomp",
	     "%s", has ? "yes" : "no");
}

void machine_check_host(host_fact_fn *fn, void *opaque)
{
	static void (*const checks[])(const struct check *c) = {
		check_kernel,  check_cpus,     check_memory,	  check_hugepages, check_uring,
		check_seccomp, check_landlock, check_userfaultfd, check_nodes,	   check_iommu,
	};
	const struct check c = {fn, opaque};

	kvm_check_host(fn, opaque);
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		checks[i](&c);
	}
}
