/*
 * Opening of firmware images and their place below 4 GiB: read-only ones become ROM, writable
 * ones the flash of flash.c.
 *
 * An image is copied into memory of our own rather than mapped: a mapped file that another
 * process truncates would kill this one. A writable file stays open and is locked as a whole,
 * which also keeps out programs that lock single bytes of images (QEMU). A read-only file is
 * tested for such a lock, read and closed.
 *
 * Runs at start only, on the control loop. Untrusted: the file, of which only type and size
 * matter here.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "firmware/flash_int.h"

#define FLASH_ID_LEN 16

struct image {
	int fd;
	uint32_t size;
};

/* Opens, checks and locks. #syscalls(start): openat newfstatat fcntl close */
static int image_open(const struct flash_config *c, struct image *img, struct err *err)
{
	struct flock fl = {.l_type = c->readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	struct stat sb;
	int ret;
	/* O_NONBLOCK: a FIFO in place of the image must not hang the start */
	int fd = open(c->path,
		      (c->readonly ? O_RDONLY : O_RDWR | O_DSYNC) | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		ret = -errno;
		if (ret == -EACCES || ret == -EROFS || ret == -EPERM) {
			return err_set(err, -ret, "%s: cannot open %s %s: %s; %s", c->option,
				       c->path, c->readonly ? "for reading" : "for writing",
				       strerror(-ret),
				       c->readonly ? "make it readable for this user"
						   : "make it writable, or give readonly=on");
		}
		return err_set(err, -ret,
			       "%s: cannot open %s: %s; give the path of a firmware "
			       "image",
			       c->option, c->path, strerror(-ret));
	}
	if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode)) {
		ret = err_set(err, EINVAL,
			      "%s: %s is not a regular file; give a firmware image", c->option,
			      c->path);
		goto close_fd;
	}
	if (!sb.st_size || sb.st_size % FLASH_BLOCK || (uint64_t)sb.st_size > NEMU_FLASH_MAX) {
		ret = err_set(err, EINVAL,
			      "%s: %s has %lld bytes, which is no multiple of 4 KiB up "
			      "to %u MiB; give a complete firmware image",
			      c->option, c->path, (long long)sb.st_size,
			      (unsigned)(NEMU_FLASH_MAX / MiB));
		goto close_fd;
	}
	if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
		if (errno == EAGAIN || errno == EACCES) {
			ret = err_set(err, EBUSY,
				      "%s: %s is in use by another process; stop that "
				      "or give a copy of the file",
				      c->option, c->path);
			goto close_fd;
		}
		log_warn(c->path,
			 "cannot be locked (%s): nothing keeps a second process from "
			 "writing it",
			 strerror(errno));
	}
	img->fd = fd;
	img->size = (uint32_t)sb.st_size;
	return 0;

close_fd:
	close(fd);
	return ret;
}

/* Fills host memory. #syscalls(start): pread64 */
static int image_read(const struct flash_config *c, const struct image *img, uint8_t *to,
		      struct err *err)
{
	static const uint8_t zeroes[FLASH_BLOCK];
	uint8_t block[FLASH_BLOCK];

	for (size_t at = 0; at < img->size; at += sizeof(block)) {
		size_t done = 0;

		while (done < sizeof(block)) {
			ssize_t n = pread(img->fd, block + done, sizeof(block) - done,
					  (off_t)(at + done));

			if (n < 0 && errno == EINTR) {
				continue;
			}
			if (n <= 0) {
				int errnum = n ? errno : EIO;

				return err_set(err, errnum, "%s: cannot read %s: %s", c->option,
					       c->path,
					       n ? strerror(errnum)
						 : "it became shorter meanwhile");
			}
			done += (size_t)n;
		}
		if (memcmp(block, zeroes, sizeof(block))) { /* padding costs no memory */
			memcpy(to + at, block, sizeof(block));
		}
	}
	return 0;
}

static void unit_id(char id[FLASH_ID_LEN], unsigned unit)
{
	snprintf(id, FLASH_ID_LEN, "flash#%u", unit);
}

static int unit_device(struct vm *vm, unsigned unit, const struct flash_config *c,
		       const struct image *img, struct mem_region *rom, struct err *err)
{
	char id[FLASH_ID_LEN];
	int ret;

	unit_id(id, unit);
	ret = flash_device_new(vm, id, c->path ? c->path : "no file", img->fd, rom, err);
	if (ret) {
		err_prefix(err, "%s", c->option);
	}
	return ret;
}

/* Maps one unit. *rom stays the caller's unless the unit became a device (*dev).
 * #syscalls(start): close */
static int unit_add(struct vm *vm, const struct flash_config *c, unsigned unit, uint64_t *next,
		    struct mem_region **rom, bool *dev, struct err *err)
{
	struct image img = {.fd = -1, .size = c->volatile_size};
	uint64_t gpa;
	int ret = c->path ? image_open(c, &img, err) : 0;

	if (ret) {
		return ret;
	}
	*dev = false;
	if (!flash_place(unit, img.size, next, &gpa)) {
		ret = err_set(err, EINVAL,
			      "%s: %s and the image before it have more than %u MiB "
			      "together; give smaller images",
			      c->option, c->path, (unsigned)(NEMU_FLASH_MAX / MiB));
		goto close_image;
	}
	ret = mem_region_add(vm->mem, c->readonly ? "rom" : "flash", gpa, img.size,
			     MEM_FIRMWARE, MEM_READONLY, rom, err);
	if (ret) {
		goto close_image;
	}
	ret = c->path ? image_read(c, &img, mem_region_host(*rom), err) : 0;
	if (!ret && !c->readonly) {
		ret = unit_device(vm, unit, c, &img, *rom, err);
		*dev = !ret;
	}
	if (ret) {
		goto del_rom;
	}
	if (c->readonly) {
		close(img.fd);
	}
	return 0;

del_rom:
	mem_region_del(vm->mem, *rom);
close_image:
	if (img.fd >= 0) {
		close(img.fd);
	}
	return ret;
}

int flash_new(struct vm *vm, const struct flash_config *unit, unsigned nunits, struct err *err)
{
	struct mem_region *rom[FLASH_MAX_UNITS];
	bool dev[FLASH_MAX_UNITS];
	uint64_t next = 0;
	unsigned done = 0;
	int ret = 0;

	assert(nunits <= FLASH_MAX_UNITS);
	for (; done < nunits; done++) {
		ret = unit_add(vm, &unit[done], done, &next, &rom[done], &dev[done], err);
		if (ret) {
			break;
		}
	}
	while (ret && done--) {
		if (dev[done]) {
			char id[FLASH_ID_LEN];

			unit_id(id, done);
			flash_device_undo(device_find(vm->devices, id));
		} else {
			mem_region_del(vm->mem, rom[done]);
		}
	}
	return ret;
}
