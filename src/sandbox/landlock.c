/*
 * Landlock: the calling thread, and every thread it starts, loses all access to files by name
 * but what the given rules leave. Descriptors that are open already keep working.
 * linux/Documentation/userspace-api/landlock.rst, ABI 1 to 6.
 *
 * The system calls are made by number: libc has no wrappers, and the header of the build
 * machine may be older than the kernel (spec/landlock.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "sandbox/sandbox_int.h"
#include "spec/landlock.h"

/* What each ABI adds; an older kernel refuses bits and bytes it does not know. */
struct landlock_abi {
	uint64_t fs, net, scoped;
	size_t attr_size;
};
#define FS_ABI1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)
#define FS_ABI2 (FS_ABI1 | LANDLOCK_ACCESS_FS_REFER)
#define FS_ABI3 (FS_ABI2 | LANDLOCK_ACCESS_FS_TRUNCATE)
#define FS_ABI5 (FS_ABI3 | LANDLOCK_ACCESS_FS_IOCTL_DEV)
#define NET_ABI4 (LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP)
#define SCOPED_ABI6 (LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL)
#define SIZE_UP_TO(member) \
	(offsetof(struct landlock_ruleset_attr, member) + sizeof(uint64_t))

static const struct landlock_abi abis[] = {
	[1] = {FS_ABI1, 0, 0, SIZE_UP_TO(handled_access_fs)},
	[2] = {FS_ABI2, 0, 0, SIZE_UP_TO(handled_access_fs)},
	[3] = {FS_ABI3, 0, 0, SIZE_UP_TO(handled_access_fs)},
	[4] = {FS_ABI3, NET_ABI4, 0, SIZE_UP_TO(handled_access_net)},
	[5] = {FS_ABI5, NET_ABI4, 0, SIZE_UP_TO(handled_access_net)},
	[6] = {FS_ABI5, NET_ABI4, SCOPED_ABI6, SIZE_UP_TO(scoped)},
};

/* #syscalls(start): openat landlock_add_rule close */
static int landlock_allow(int ruleset, const struct landlock_path *p, uint64_t handled)
{
	struct landlock_path_beneath_attr attr = {.allowed_access = p->access & handled};
	int r = 0;

	if (!attr.allowed_access) {
		return 0;
	}
	attr.parent_fd = open(p->path, O_PATH | O_CLOEXEC);
	if (attr.parent_fd < 0) {
		/* A directory that is gone: there is nothing beneath it to allow. */
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	}
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) < 0) {
		r = -errno;
	}
	close(attr.parent_fd);
	return r;
}

/* #syscalls(start): landlock_create_ruleset landlock_restrict_self close */
int landlock_enter(const struct landlock_path *paths, size_t n)
{
	struct landlock_ruleset_attr attr = {0};
	const struct landlock_abi *abi;
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0,
			       LANDLOCK_CREATE_RULESET_VERSION);
	int r = 0, ruleset;

	if (version < 1) {
		/* Not built, not enabled at boot, or a container's filter hides it: which of
		 * the errors that is depends on the container. */
		return -EOPNOTSUPP;
	}
	abi = &abis[MIN((size_t)version, ARRAY_SIZE(abis) - 1)];
	attr.handled_access_fs = abi->fs;
	attr.handled_access_net = abi->net;
	attr.scoped = abi->scoped;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, abi->attr_size, 0);
	if (ruleset < 0) {
		return -errno;
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		r = landlock_allow(ruleset, &paths[i], abi->fs);
	}
	if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) {
		r = -errno;
	}
	close(ruleset);
	return r;
}
