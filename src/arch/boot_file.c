/*
 * See boot_file.h. Files are read straight into guest memory with the sizes found first; one that
 * shrinks meanwhile is an error, not a fault (nothing is mapped). Untrusted: the files.
 */
#include "arch/boot_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

/* By seeking and not by fstat(2), which libc turns into another call on every architecture and
 * version: this runs at every reset, behind the filter. #syscalls(main): lseek */
int boot_file_size(int fd, const char *option, const char *name, uint64_t *size,
		   struct err *err)
{
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0 && errno != ESPIPE) {
		return err_set(err, errno, "%s %s: %s", option, name, strerror(errno));
	}
	if (end <= 0) {
		return err_set(err, EINVAL, "%s %s: %s: give a file with contents", option,
			       name, end == 0 ? "empty" : "not a regular file");
	}
	*size = (uint64_t)end;
	return 0;
}

/* Reads size bytes from off straight into guest memory. #syscalls(main): preadv */
int boot_file_to_guest(struct mem *m, int fd, uint64_t off, gpa_t gpa, uint64_t size,
		       const char *option, const char *name, struct err *err)
{
	while (size) {
		uint64_t chunk = MIN(size, GiB);
		struct iovec iov[2];
		int n = mem_span(m, gpa, chunk, true, iov, ARRAY_SIZE(iov));
		ssize_t got;

		if (n < 0) {
			return err_set(err, EFAULT,
				       "%s %s: no guest memory at %#jx: use a larger -m",
				       option, name, (uintmax_t)gpa);
		}
		got = preadv(fd, iov, n, off);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return err_set(err, errno, "%s %s: %s", option, name, strerror(errno));
		}
		if (got == 0) {
			return err_set(err, EIO,
				       "%s %s: became shorter while it was read: "
				       "copy it again",
				       option, name);
		}
		mem_dirty(m, gpa, got);
		off += got;
		gpa += got;
		size -= got;
	}
	return 0;
}
