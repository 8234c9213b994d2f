/*
 * driver=file and driver=host_device: opening, locks, size and changed options. Requests are in
 * file.c.
 *
 * Threads: control loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "block/file_int.h"

#define FULL_STEP (1 * MiB)

struct file_options {
	char *filename;
	int aio, locking;
};
static const char *const aio_names[] = {"threads", "io_uring", "native", NULL};
static const char *const locking_names[] = {"auto", "on", "off", NULL};

static const struct opt_desc file_rows[] = {
	{"filename", OPT_STR, offsetof(struct file_options, filename), .required = true},
	{"aio", OPT_ENUM, offsetof(struct file_options, aio), .names = aio_names,
	 .def = "io_uring"},
	{"locking", OPT_ENUM, offsetof(struct file_options, locking), .names = locking_names,
	 .def = "auto"},
	{.key = NULL},
};

/* #syscalls(main): fdatasync close */
static void file_close(struct blk_node *n)
{
	struct blk_file *f = blk_file_of(n);

	if (!n->info.read_only && !f->no_flush && fdatasync(f->fd) < 0) {
		log_err(n->name, "flush when closing: %s", strerror(errno));
	}
	blk_unlock_file(f->fd);
	close(f->fd);
	free(f->filename);
}

static int file_set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *err)
{
	struct blk_file *f = blk_file_of(n);
	int r = blk_lock_file(f->fd, f->filename, f->lock_perm, f->lock_shared, perm, shared,
			      f->locking, err);

	if (!r) {
		f->lock_perm = perm;
		f->lock_shared = shared;
	}
	return r;
}

/* --- opening --- */

static int open_error(const char *name, const struct blk_node_opt *opt, int e, struct err *err)
{
	switch (e) {
	case ENOENT:
	case ENOTDIR:
		return err_set(err, e, "disk image '%s' is not there; check the path", name);
	case EACCES:
	case EPERM:
		return err_set(
			err, e,
			"disk image '%s': no permission to %s it; change its mode or owner%s",
			name, opt->read_only ? "read" : "read and write",
			opt->read_only ? "" : ", or add read-only=on");
	case EROFS:
		return err_set(
			err, e,
			"disk image '%s' is on a read-only file system; add read-only=on",
			name);
	case EISDIR:
		return err_set(err, e,
			       "disk image '%s' is a directory; name a file or a block device",
			       name);
	case EINVAL:
		if (opt->direct) {
			return err_set(
				err, e,
				"disk image '%s': its file system has no O_DIRECT; leave "
				"cache.direct=on (cache=none) away",
				name);
		}
		break;
	default:
		break;
	}
	return err_set(err, e, "disk image '%s' cannot be opened: %s", name, strerror(e));
}

/* After isolation open(2) ends the process. */
static int sealed_check(const struct blk_node *n, const char *name, struct err *err)
{
	return blk_graph_sealed(n->graph)
		       ? err_set(err, EPERM,
				 "disk image '%s' cannot be opened any more: the process has given "
				 "up its rights; open it (writable) on the command line",
				 name)
		       : 0;
}

/* #syscalls(start): openat fcntl */
static int fd_open(const char *name, const struct blk_node_opt *opt, struct err *err)
{
	int flags = (opt->read_only ? O_RDONLY : O_RDWR) | (opt->direct ? O_DIRECT : 0);
	/* O_NONBLOCK: a FIFO with nobody at its other end must not stop us here */
	int fd = open(name, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0) {
		return open_error(name, opt, errno, err);
	}
	if (fcntl(fd, F_SETFL, flags) < 0) {
		int e = errno;

		close(fd);
		return open_error(name, opt, e, err);
	}
	return fd;
}

/* auto-read-only: read-only where writing is not permitted. */
static int fd_open_auto(const char *name, struct blk_node_opt *opt, struct err *err)
{
	int fd = fd_open(name, opt, err);

	if (opt->auto_read_only && !opt->read_only &&
	    (fd == -EACCES || fd == -EPERM || fd == -EROFS)) {
		opt->read_only = true;
		fd = fd_open(name, opt, err);
	}
	return fd;
}

/* #syscalls(start): newfstatat */
bool blk_is_device(const char *filename)
{
	struct stat st;

	return stat(filename, &st) == 0 && S_ISBLK(st.st_mode);
}

/* #syscalls(start): newfstatat fstat */
static int kind_check(struct blk_file *f, struct err *err)
{
	bool want_device = f->node.drv == &blk_host_device_driver;
	struct stat st;

	if (fstat(f->fd, &st) < 0) {
		return open_error(f->filename, &f->node.opt, errno, err);
	}
	f->device = S_ISBLK(st.st_mode);
	if (S_ISDIR(st.st_mode)) {
		return open_error(f->filename, &f->node.opt, EISDIR, err);
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return err_set(err, EINVAL,
			       "disk image '%s' is neither a file nor a block device",
			       f->filename);
	}
	if (want_device && !f->device) {
		return err_set(err, EINVAL,
			       "driver=host_device: '%s' is no block device; use driver=file",
			       f->filename);
	}
	if (!want_device && f->device) {
		return err_set(err, EINVAL,
			       "driver=file: '%s' is a block device; use driver=host_device",
			       f->filename);
	}
	return 0;
}

/* The smallest aligned read that O_DIRECT takes here: 512, 1024, 2048 or 4096, or -errno.
 * #syscalls(main): preadv */
static int direct_align(int fd)
{
	char *buf = aligned_alloc(4096, 8192);
	int r = -ENOMEM;

	for (unsigned align = 512; buf && align <= 4096; align *= 2) {
		/* off the next larger alignment in both memory and file */
		struct iovec iov = {buf + align % 4096, align};
		ssize_t n = preadv(fd, &iov, 1, align % 4096);

		r = n < 0 ? -errno : (int)align;
		if (r != -EINVAL) {
			break;
		}
	}
	free(buf);
	return r;
}

/* What depends on options that can change. */
static void info_options(struct blk_file *f, const struct blk_node_opt *opt)
{
	struct blk_info *i = &f->node.info;

	atomic_store(&f->no_flush, opt->no_flush);
	atomic_store(&f->unmap, opt->unmap);
	i->read_only = opt->read_only;
	i->discard_granularity = opt->unmap ? (f->device ? i->block_size : 4096) : 0;
	i->can_discard = opt->unmap && !opt->read_only;
	i->can_zero = !opt->read_only;
	i->write_cache = !opt->no_flush && !opt->read_only;
}

/* #syscalls(start): ioctl lseek */
static int info_fill(struct blk_file *f, struct err *err)
{
	const struct blk_node_opt *opt = &f->node.opt;
	off_t size = lseek(f->fd, 0, SEEK_END);
	int sector = 512, align = 0;

	if (size < 0 || (f->device && ioctl(f->fd, BLKSSZGET, &sector) < 0)) {
		return open_error(f->filename, opt, errno, err);
	}
	if (opt->direct) {
		align = direct_align(f->fd);
		if (align < 0) {
			return open_error(f->filename, opt, -align, err);
		}
		sector = MAX(sector, align);
	}
	if (!is_pow2((uint64_t)sector) || sector < 512 || sector > 4096) {
		return err_set(err, EINVAL,
			       "disk image '%s': blocks of %d bytes are not supported",
			       f->filename, sector);
	}
	atomic_store(&f->eof, (uint64_t)size);
	f->direct = opt->direct;
	f->mem_align = opt->direct ? (uint32_t)sector : 1;
	f->node.can_grow = !f->device;
	f->node.info = (struct blk_info){
		.size = align_up((uint64_t)size, (uint64_t)sector),
		.block_size = (uint32_t)sector,
		.align = opt->direct ? (uint32_t)sector : 1,
		.resizable = !f->device,
	};
	info_options(f, opt);
	return 0;
}

static int file_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_file *f = blk_file_of(n);
	struct file_options c = {.filename = NULL};
	int r = opts_read(o, file_rows, &c, err);

	if (!r && !*c.filename) {
		r = err_set(err, EINVAL, "%s: filename is missing; add filename=FILE", o->what);
	}
	/* Linux AIO needs O_DIRECT, and who asks for it may count on that; io_uring does it
	 * here. */
	if (!r && !strcmp(aio_names[c.aio], "native") && !n->opt.direct) {
		r = err_set(err, EINVAL,
			    "%s: aio=native needs cache.direct=on; add it, or say aio=io_uring",
			    o->what);
	}
	if (r) {
		goto free_options;
	}
	f->filename = c.filename;
	c.filename = NULL;
	n->filename = f->filename;
	f->locking = (enum blk_locking)c.locking;
	f->threads = !strcmp(aio_names[c.aio], "threads");
	f->lock_shared = BLK_PERM_ALL;
	r = sealed_check(n, f->filename, err);
	if (r) {
		goto free_filename;
	}
	r = fd_open_auto(f->filename, &n->opt, err);
	if (r < 0) {
		goto free_filename;
	}
	f->fd = r;
	f->writable = !n->opt.read_only;
	r = kind_check(f, err);
	if (!r) {
		r = info_fill(f, err);
	}
	if (r < 0) {
		goto close_fd;
	}
	return 0;

close_fd:
	close(f->fd);
free_filename:
	free(f->filename);
free_options:
	opts_free_struct(file_rows, &c);
	return r;
}

/* --- size --- */

/* Writes zeros from off on; only before anything else knows that part.
 * #syscalls(start): pwrite64 */
static int write_full(int fd, uint64_t off, uint64_t end)
{
	char *zeros = aligned_alloc(4096, FULL_STEP);
	int r = zeros ? 0 : -ENOMEM;

	if (zeros) {
		memset(zeros, 0, FULL_STEP);
	}
	while (!r && off < end) {
		ssize_t n = pwrite(fd, zeros, MIN(end - off, FULL_STEP), (off_t)off);

		if (n <= 0) {
			r = n ? -errno : -EIO;
			r = r == -EINTR ? 0 : r;
		} else {
			off += (uint64_t)n;
		}
	}
	free(zeros);
	return r;
}

static int grow(struct blk_file *f, uint64_t from, uint64_t size, enum blk_prealloc prealloc)
{
	if (prealloc == BLK_PREALLOC_FALLOC &&
	    fallocate(f->fd, 0, (off_t)from, (off_t)(size - from)) < 0) {
		return -errno;
	}
	if (prealloc == BLK_PREALLOC_FULL) {
		return write_full(f->fd, from, size);
	}
	return 0;
}

/* #syscalls(main): ftruncate
 * #syscalls(start): fallocate */
static int file_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			 struct err *err)
{
	struct blk_file *f = blk_file_of(n);
	uint64_t had = atomic_load(&f->eof);
	int r;

	if (f->device) {
		return err_set(err, ENOTSUP,
			       "'%s' is a block device, whose size cannot be set here",
			       f->filename);
	}
	if (prealloc == BLK_PREALLOC_METADATA) {
		return err_set(err, ENOTSUP,
			       "'%s': a file has no metadata to preallocate; use "
			       "preallocation=falloc or full",
			       f->filename);
	}
	if (size > INT64_MAX || ftruncate(f->fd, (off_t)size) < 0) {
		r = size > INT64_MAX ? EFBIG : errno;
		return err_set(err, r, "'%s' cannot be made %llu bytes long: %s", f->filename,
			       (unsigned long long)size, strerror(r));
	}
	r = size > had ? grow(f, had, size, prealloc) : 0;
	if (r) {
		/* as long as it was, so that it can be tried again */
		(void)!ftruncate(f->fd, (off_t)had);
		return err_set(err, -r, "'%s': %llu bytes cannot be allocated: %s", f->filename,
			       (unsigned long long)(size - had), strerror(-r));
	}
	atomic_store(&f->eof, size);
	blk_set_size(n, align_up(size, n->info.block_size));
	return 0;
}

/* --- changed options --- */

struct refd_call {
	struct blk_chan *chan;
	int result;
};

static void refd_on_loop(void *arg)
{
	struct refd_call *c = arg;

	c->result = blk_file_chan_refd(c->chan);
}

/* Every channel's ring gets f->fd as it is now. Drained, so that no request is on the old
 * one. */
static int chans_refd(struct blk_file *f)
{
	struct list *pos;
	int r = 0;

	list_for_each (pos, &f->node.chans) {
		struct refd_call c = {.chan = list_entry(pos, struct blk_chan, link)};

		loop_call(c.chan->loop, refd_on_loop, &c);
		r = r ? r : c.result;
	}
	return r;
}

/* O_DIRECT of an open file can be switched, its access mode cannot. What was opened for writing stays so
 * when the node becomes read-only; else writing needs another open file, with the same locks.
 * #syscalls(main): fcntl
 * #syscalls(start): openat -- not of a sealed graph */
static int direct_switch(struct blk_file *f, const struct blk_node_opt *to, struct err *err)
{
	int flags = fcntl(f->fd, F_GETFL), align = 1;

	flags = to->direct ? flags | O_DIRECT : flags & ~O_DIRECT;
	if (fcntl(f->fd, F_SETFL, flags) < 0) {
		return open_error(f->filename, to, errno, err);
	}
	if (to->direct) {
		align = direct_align(f->fd);
	}
	if (align > 0 && f->node.info.size % (uint64_t)align) {
		err_set(err, EINVAL,
			"disk image '%s': cache.direct=on needs a size that is a multiple of "
			"%d",
			f->filename, align);
		align = -EINVAL;
	} else if (align < 0) {
		open_error(f->filename, to, -align, err);
	}
	if (align < 0) {
		(void)fcntl(f->fd, F_SETFL, flags & ~O_DIRECT);
		return align;
	}
	f->direct = to->direct;
	f->mem_align = f->node.info.align = (uint32_t)align;
	return 0;
}

static int access_switch(struct blk_file *f, const struct blk_node_opt *to, struct err *err)
{
	struct blk_node_opt as_is = *to;
	int old = f->fd, r;

	if (to->read_only || f->writable) {
		return 0;
	}
	as_is.direct = f->direct;
	r = sealed_check(&f->node, f->filename, err);
	r = r ? r : fd_open(f->filename, &as_is, err);
	if (r < 0) {
		return r;
	}
	f->fd = r;
	if (f->locking != BLK_LOCKING_OFF) {
		blk_lock_copy(f->fd, f->lock_perm, f->lock_shared);
	}
	r = chans_refd(f);
	if (r) {
		int failed = f->fd;

		f->fd = old;
		(void)chans_refd(f);
		old = failed;
		err_set(err, -r, "disk image '%s': a loop has no room for another file (%s)",
			f->filename, strerror(-r));
	}
	f->writable = f->writable || !r;
	blk_unlock_file(old);
	close(old);
	return r;
}

static int file_reopen(struct blk_node *n, const struct blk_node_opt *to, struct opts *o,
		       struct err *err)
{
	struct blk_file *f = blk_file_of(n);
	int r = opts_check_used(o, err);

	if (!r && to->read_only && n->perm & BLK_PERM_WRITE) {
		r = err_set(err, EBUSY, "disk image '%s' has a user that writes to it",
			    f->filename);
	}
	if (!r && to->direct != f->direct) {
		r = direct_switch(f, to, err);
	}
	if (!r && to->read_only != n->info.read_only) {
		r = access_switch(f, to, err);
	}
	if (!r) {
		info_options(f, to);
	}
	return r;
}

#define FILE_DRIVER(n)                                                                         \
	{                                                                                      \
		.name = n, .node_size = sizeof(struct blk_file),                               \
		.chan_size = sizeof(struct file_chan), .protocol = true, .open = file_open,    \
		.close = file_close, .chan_open = blk_file_chan_open,                          \
		.chan_close = blk_file_chan_close, .submit = blk_file_submit,                  \
		.cancel = blk_file_cancel, .set_perm = file_set_perm,                          \
		.truncate = file_truncate, .reopen = file_reopen,                              \
	}

const struct blk_driver blk_file_driver = FILE_DRIVER("file");
const struct blk_driver blk_host_device_driver = FILE_DRIVER("host_device");
