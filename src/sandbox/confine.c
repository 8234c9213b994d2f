/*
 * The steps of giving up that the VM process and the broker share. Each works on the calling
 * thread, cannot be undone, and is repeated without harm.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/sandbox_int.h"

/* #syscalls(start): prctl */
int confine_no_new_privs(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/*
 * Only a process with CAP_SETPCAP may drop from the bounding set; without it there is nothing
 * in the bounding set that no_new_privs would let come back. Done with the system calls
 * themselves: libcap-ng asks for each capability of each set first, 250 calls and a tenth of the
 * time from exec to the guest's first instruction.
 * #syscalls(start): capget capset prctl
 */
int confine_caps(uint64_t keep)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	uint64_t have;

	if (syscall(SYS_capget, &head, data) < 0) {
		return -errno;
	}
	have = data[0].permitted | (uint64_t)data[1].permitted << 32;
	if (data[CAP_TO_INDEX(CAP_SETPCAP)].effective & CAP_TO_MASK(CAP_SETPCAP)) {
		/* EINVAL: past the last one that this kernel knows */
		for (unsigned cap = 0; cap < 64 && !prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); cap++) {
		}
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
		return -errno;
	}
	have &= keep;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		data[i].effective = data[i].permitted = (uint32_t)(have >> (32 * i));
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

static int fd_compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* #syscalls(start): close_range */
int confine_close_fds(int *keep, size_t n)
{
	unsigned first = STDERR_FILENO + 1;

	qsort(keep, n, sizeof(*keep), fd_compare);
	for (size_t i = 0; i < n; i++) {
		unsigned fd = (unsigned)keep[i];

		if (keep[i] < 0 || fd < first) {
			continue;
		}
		if (fd > first && close_range(first, fd - 1, 0) < 0) {
			return -errno;
		}
		first = fd + 1;
	}
	return close_range(first, UINT_MAX, 0) < 0 ? -errno : 0;
}

/*
 * libc knows that there never was a second thread. If there was one that has ended, /proc tells.
 * #syscalls(start): openat getdents64 close
 */
bool confine_single_threaded(void)
{
	unsigned tasks = 0;
	DIR *dir;

	if (__libc_single_threaded) {
		return true;
	}
	dir = opendir("/proc/self/task");
	if (!dir) {
		return false;
	}
	for (struct dirent *d; (d = readdir(dir));) {
		tasks += d->d_name[0] != '.';
	}
	closedir(dir);
	return tasks == 1;
}
