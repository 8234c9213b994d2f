/*
 * The steps of giving up that the VM process and the broker share. Each works on the calling
 * thread, cannot be undone, and is repeated without harm.
 */
#include <cap-ng.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include "sandbox/sandbox_int.h"

/* #syscalls(start): prctl */
int confine_no_new_privs(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/*
 * Only a process with CAP_SETPCAP may drop from the bounding set; without it there is nothing
 * in the bounding set that no_new_privs would let come back.
 * #syscalls(start): capget capset prctl openat read close
 */
int confine_caps(uint64_t keep)
{
	capng_select_t sets = CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT;

	if (capng_get_caps_process() < 0) {
		return -EPERM;
	}
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP)) {
		sets |= CAPNG_SELECT_BOUNDS;
	}
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (!capng_have_capability(CAPNG_PERMITTED, cap)) {
			keep &= ~(UINT64_C(1) << cap);
		}
	}
	capng_clear(CAPNG_SELECT_ALL);
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if ((keep & (UINT64_C(1) << cap)) &&
		    capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, cap) < 0) {
			return -EPERM;
		}
	}
	return capng_apply(sets) < 0 ? -EPERM : 0;
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
