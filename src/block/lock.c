/*
 * Image locks, the same as QEMU's, so that two programs never write one image by accident.
 *
 * Locks are open-file-description locks on single bytes of the image, all of them shared ones:
 * byte 100 + n says "I use right n", byte 200 + n says "nobody else may have right n". Who
 * opens an image takes its own bytes first and then asks whether somebody else holds a byte
 * that contradicts; both may give up in a race, but never do both go on. The bytes need not
 * exist in the file.
 *
 * The locks belong to the open file, so they end with the process, however it ends. Closing does
 * not end them at once: an io_uring keeps its files for a moment after it was closed, and whoever
 * opens the image next would find it in use. So they are given back before that.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "block/block_int.h"

#define LOCK_USED_BASE	 100
#define LOCK_DENIED_BASE 200

/* Rights, by bit number. */
enum {
	RIGHT_CONSISTENT_READ = 1 << 0,
	RIGHT_WRITE = 1 << 1,
	RIGHT_WRITE_UNCHANGED = 1 << 2,
	RIGHT_RESIZE = 1 << 3,
	RIGHTS = 4,
};

/* #syscalls(start): fcntl */
static int byte_lock(int fd, off_t byte)
{
	struct flock fl = {
		.l_type = F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* -EAGAIN if another open file has a lock on the byte. #syscalls(start): fcntl */
static int byte_test(int fd, off_t byte)
{
	struct flock fl = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &fl) < 0) {
		return -errno;
	}
	return fl.l_type == F_UNLCK ? 0 : -EAGAIN;
}

static int rights_lock(int fd, unsigned used, unsigned denied)
{
	int r = 0;

	for (unsigned i = 0; i < RIGHTS && !r; i++) {
		if (used >> i & 1) {
			r = byte_lock(fd, LOCK_USED_BASE + i);
		}
		if (!r && (denied >> i & 1)) {
			r = byte_lock(fd, LOCK_DENIED_BASE + i);
		}
	}
	for (unsigned i = 0; i < RIGHTS && !r; i++) {
		if (used >> i & 1) {
			r = byte_test(fd, LOCK_DENIED_BASE + i);
		}
		if (!r && (denied >> i & 1)) {
			r = byte_test(fd, LOCK_USED_BASE + i);
		}
	}
	return r;
}

int blk_lock_file(int fd, const char *filename, bool write, enum blk_locking mode,
		  struct err *err)
{
	unsigned used = RIGHT_CONSISTENT_READ | (write ? RIGHT_WRITE : 0);
	int r;

	if (mode == BLK_LOCKING_OFF) {
		return 0;
	}
	r = rights_lock(fd, used, RIGHT_WRITE | RIGHT_RESIZE);
	if (r == -EAGAIN || r == -EACCES) {
		return err_set(
			err, EAGAIN,
			"disk image '%s' is in use by another process (it holds a lock on "
			"it); stop that process, or open the image read-only in both",
			filename);
	}
	if (r < 0 && mode == BLK_LOCKING_ON) {
		return err_set(
			err, -r,
			"disk image '%s' cannot be locked (%s); with locking=auto it is used "
			"without a lock",
			filename, strerror(-r));
	}
	if (r < 0) {
		log_warn(filename, "no image lock on this file system (%s)", strerror(-r));
	}
	return 0;
}

/* #syscalls(main): fcntl */
void blk_unlock_file(int fd)
{
	struct flock fl = {
		.l_type = F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = LOCK_USED_BASE,
		.l_len = LOCK_DENIED_BASE + RIGHTS - LOCK_USED_BASE,
	};

	/* where there are no locks, none are left */
	(void)fcntl(fd, F_OFD_SETLK, &fl);
}
