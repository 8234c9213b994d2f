/*
 * Image locks, the same as QEMU's, so that two programs never write one image by accident.
 *
 * Locks are open-file-description locks on single bytes of the image, all of them shared ones:
 * byte 100 + n says "I use right n", byte 200 + n says "nobody else may have right n". Who
 * opens an image takes its own bytes first and then asks whether somebody else holds a byte
 * that contradicts; both may give up in a race, but never do both go on. The bytes need not
 * exist in the file.
 *
 * The locks belong to the open file, so they end with the process, however it ends. Closing
 * does not end them at once: an io_uring keeps its files for a moment after it was closed, and
 * whoever opens the image next would find it in use. So they are given back before that.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "block/block_int.h"

#define LOCK_USED_BASE	 100
#define LOCK_DENIED_BASE 200

#define RIGHTS 4 /* BLK_PERM_…, by bit number */

/* #syscalls(main): fcntl */
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

/* -EAGAIN if another open file has a lock on the byte. #syscalls(main): fcntl */
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

static void byte_unlock(int fd, off_t byte)
{
	struct flock fl = {
		.l_type = F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};

	(void)fcntl(fd, F_OFD_SETLK, &fl);
}

/* Which bytes: bit n is byte LOCK_USED_BASE + n, bit 8 + n byte LOCK_DENIED_BASE + n. */
static unsigned bytes_of(unsigned perm, unsigned shared)
{
	return (perm & BLK_PERM_ALL) | (~shared & BLK_PERM_ALL) << 8;
}

static off_t byte_of(unsigned bit)
{
	return bit < 8 ? LOCK_USED_BASE + (off_t)bit : LOCK_DENIED_BASE + (off_t)bit - 8;
}

static int bytes_lock(int fd, unsigned bytes)
{
	int r = 0;

	for (unsigned i = 0; i < 8 + RIGHTS && !r; i++) {
		r = bytes >> i & 1 ? byte_lock(fd, byte_of(i)) : 0;
	}
	return r;
}

static void bytes_unlock(int fd, unsigned bytes)
{
	for (unsigned i = 0; i < 8 + RIGHTS; i++) {
		if (bytes >> i & 1) {
			byte_unlock(fd, byte_of(i));
		}
	}
}

/* Does somebody else hold a byte that contradicts one of these? */
static int bytes_test(int fd, unsigned bytes)
{
	int r = 0;

	for (unsigned i = 0; i < 8 + RIGHTS && !r; i++) {
		r = bytes >> i & 1 ? byte_test(fd, byte_of(i ^ 8)) : 0;
	}
	return r;
}

int blk_lock_file(int fd, const char *filename, unsigned had_perm, unsigned had_shared,
		  unsigned perm, unsigned shared, enum blk_locking mode, struct err *err)
{
	unsigned had = bytes_of(had_perm, had_shared), want = bytes_of(perm, shared);
	int r;

	if (mode == BLK_LOCKING_OFF || had == want) {
		return 0;
	}
	r = bytes_lock(fd, want & ~had);
	if (!r) {
		r = bytes_test(fd, want & ~had);
	}
	if (!r) {
		bytes_unlock(fd, had & ~want);
		return 0;
	}
	bytes_unlock(fd, want & ~had);
	if (r == -EAGAIN || r == -EACCES) {
		return err_set(
			err, EAGAIN,
			"disk image '%s' is in use by another process (it holds a lock on "
			"it); stop that process, or open the image read-only in both",
			filename);
	}
	if (mode == BLK_LOCKING_ON) {
		return err_set(
			err, -r,
			"disk image '%s' cannot be locked (%s); with locking=auto it is used "
			"without a lock",
			filename, strerror(-r));
	}
	log_warn(filename, "no image lock on this file system (%s)", strerror(-r));
	return 0;
}

void blk_lock_copy(int fd, unsigned perm, unsigned shared)
{
	(void)bytes_lock(fd, bytes_of(perm, shared));
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
