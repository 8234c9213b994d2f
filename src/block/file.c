/*
 * Raw images: a regular file or a block device, through io_uring.
 *
 *   read, write    readv/writev; a short transfer is continued where it ended
 *   flush          fdatasync (nothing with cache.no-flush)
 *   discard        fallocate(PUNCH_HOLE): files and block devices alike
 *   write-zeroes   PUNCH_HOLE if the blocks may go, else ZERO_RANGE, else writes of zeros from
 * a constant page in steps of 1 MiB, for file systems that have neither FUA RWF_DSYNC; an
 * fdatasync behind write-zeroes
 *
 * cache.direct (O_DIRECT): offsets are multiples of info.align, which the caller obeys; memory
 * that is not goes through a bounce buffer. A channel has BOUNCE_COUNT of them, made when first
 * needed; a request that finds none free waits for its turn.
 *
 * Size: what the file has when it is opened. If it shrinks later, reads past its end are -EIO.
 * Of a read-only file with an odd size the last sector is filled up with zeros.
 *
 * Untrusted: the content of the file (nothing here looks at it). What the ring does needs no
 * system call of this thread; the ring has restrictions of its own (event/uring.h).
 * Threads: open and close on the control loop; a channel on its own. `no_punch` and
 * `no_zero_range` are hints that any channel sets.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "block/block_int.h"

#define BOUNCE_COUNT 4
#define BOUNCE_SIZE  (256 * KiB)
#define MAX_IOV	     1024
#define ZERO_PIECE   (16 * KiB)
#define ZERO_PIECES  64

struct blk_file {
	struct blk_node node;
	int fd;
	uint64_t eof; /* the real size; info.size may be rounded up */
	bool direct, no_flush, unmap;
	uint32_t mem_align;
	_Atomic bool no_punch, no_zero_range;
};

struct file_chan {
	struct blk_chan chan;
	struct uring *ring;
	int slot;
	/* free buffers first; `made` of them exist */
	void *bounce[BOUNCE_COUNT];
	unsigned bounce_free, bounce_made;
	struct list bounce_wait;
	struct iovec zeros[ZERO_PIECES];
};

static const char zero_piece[ZERO_PIECE] __attribute__((aligned(4096)));

static struct blk_file *of_node(struct blk_node *n)
{
	return container_of(n, struct blk_file, node);
}

static struct file_chan *chan_of(const struct blk_req *r)
{
	return container_of(r->chan, struct file_chan, chan);
}

static struct blk_file *file_of(const struct blk_req *r)
{
	return of_node(r->chan->node);
}

/* --- bounce buffers --- */

static void *bounce_take(struct file_chan *c)
{
	void *p;

	if (c->bounce_free) {
		return c->bounce[--c->bounce_free];
	}
	if (c->bounce_made == BOUNCE_COUNT) {
		return NULL;
	}
	p = aligned_alloc(4096, BOUNCE_SIZE);
	if (p) {
		c->bounce_made++;
	}
	return p;
}

static void rw_step(struct blk_req *r);

static void req_end(struct blk_req *r, int result)
{
	struct file_chan *c = chan_of(r);

	if (r->bounce) {
		if (list_empty(&c->bounce_wait)) {
			c->bounce[c->bounce_free++] = r->bounce;
		} else {
			struct blk_req *next =
				list_entry(c->bounce_wait.next, struct blk_req, node);

			list_del(&next->node);
			next->bounce = r->bounce;
			rw_step(next);
		}
		r->bounce = NULL;
	}
	blk_complete(r, result);
}

/* --- read and write --- */

static bool iov_aligned(const struct blk_file *f, const struct blk_req *r)
{
	uintptr_t bits = 0;

	for (unsigned i = 0; i < r->niov; i++) {
		bits |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
	}
	return !(bits & (f->mem_align - 1));
}

static void rw_done(struct uring_req *ur, int res);

/* Starts the next piece: as much as one call takes. */
static void rw_step(struct blk_req *r)
{
	struct file_chan *c = chan_of(r);
	struct blk_file *f = file_of(r);
	const struct iovec *iov = &r->one;
	uint64_t left = r->len - r->progress;
	unsigned n = 1;

	if (r->bounce) {
		r->one = (struct iovec){r->bounce, MIN(left, BOUNCE_SIZE)};
		if (r->op == BLK_WRITE) {
			struct iov_cur cur = r->cur;

			iov_cur_read(&cur, r->bounce, r->one.iov_len);
		}
	} else if (r->cur.off) {
		r->one.iov_base = (char *)r->cur.iov->iov_base + r->cur.off;
		r->one.iov_len = r->cur.iov->iov_len - r->cur.off;
	} else {
		iov = r->cur.iov;
		n = (unsigned)MIN(r->cur.cnt, MAX_IOV);
	}
	r->ur.done = rw_done;
	if (r->op == BLK_READ) {
		uring_readv(c->ring, &r->ur, c->slot, iov, n, r->off + r->progress);
	} else {
		bool sync = (r->flags & BLK_FUA) && !f->no_flush;

		uring_writev(c->ring, &r->ur, c->slot, iov, n, r->off + r->progress,
			     sync ? RWF_DSYNC : 0);
	}
}

static void rw_done(struct uring_req *ur, int res)
{
	struct blk_req *r = container_of(ur, struct blk_req, ur);
	struct blk_file *f = file_of(r);

	if (res == -EINTR || res == -EAGAIN) {
		rw_step(r);
		return;
	}
	if (res < 0) {
		req_end(r, res);
		return;
	}
	if (r->bounce && r->op == BLK_READ) {
		iov_cur_write(&r->cur, r->bounce, (size_t)res);
	} else {
		iov_cur_skip(&r->cur, (size_t)res);
	}
	r->progress += (uint64_t)res;
	if (r->progress >= r->len) {
		req_end(r, 0);
	} else if (r->op == BLK_READ && r->off + r->progress >= f->eof) {
		iov_cur_zero(&r->cur, r->len - r->progress);
		req_end(r, 0);
	} else if (res == 0 || !r->cur.cnt || (f->direct && r->progress % f->node.info.align)) {
		/* The file ends before the size it had when it was opened. */
		req_end(r, -EIO);
	} else {
		rw_step(r);
	}
}

static void rw_start(struct file_chan *c, struct blk_req *r)
{
	struct blk_file *f = file_of(r);

	if (f->direct && !iov_aligned(f, r)) {
		r->bounce = bounce_take(c);
		if (!r->bounce && !c->bounce_made) {
			blk_complete_later(r, -ENOMEM);
			return;
		}
		if (!r->bounce) {
			list_add_tail(&c->bounce_wait, &r->node);
			return;
		}
	}
	rw_step(r);
}

/* --- flush, discard, write-zeroes --- */

static void plain_done(struct uring_req *ur, int res)
{
	req_end(container_of(ur, struct blk_req, ur), res < 0 ? res : 0);
}

static void flush_start(struct file_chan *c, struct blk_req *r)
{
	r->ur.done = plain_done;
	uring_fsync(c->ring, &r->ur, c->slot);
}

static bool not_supported(int res)
{
	return res == -EOPNOTSUPP || res == -ENOTTY || res == -ENODEV || res == -ENOSYS;
}

static void allocate(struct blk_req *r, int mode, uring_done_fn *done)
{
	struct file_chan *c = chan_of(r);

	r->ur.done = done;
	uring_fallocate(c->ring, &r->ur, c->slot, mode | FALLOC_FL_KEEP_SIZE, r->off, r->len);
}

static void discard_done(struct uring_req *ur, int res)
{
	struct blk_req *r = container_of(ur, struct blk_req, ur);

	if (not_supported(res)) {
		atomic_store(&file_of(r)->no_punch, true);
		res = 0; /* a discard is a hint */
	}
	req_end(r, res);
}

static void discard_start(struct blk_req *r)
{
	if (atomic_load(&file_of(r)->no_punch)) {
		blk_complete_later(r, 0);
	} else {
		allocate(r, FALLOC_FL_PUNCH_HOLE, discard_done);
	}
}

static void zero_end(struct blk_req *r, int res)
{
	if (res == 0 && (r->flags & BLK_FUA) && !file_of(r)->no_flush) {
		flush_start(chan_of(r), r);
	} else {
		req_end(r, res);
	}
}

static void zero_write_done(struct uring_req *ur, int res);

static void zero_write(struct blk_req *r)
{
	struct file_chan *c = chan_of(r);
	uint64_t left = r->len - r->progress;
	unsigned n = (unsigned)MIN(left / ZERO_PIECE, ZERO_PIECES);
	const struct iovec *iov = c->zeros;

	if (!n) {
		r->one = (struct iovec){c->zeros[0].iov_base, left};
		iov = &r->one;
		n = 1;
	}
	r->ur.done = zero_write_done;
	uring_writev(c->ring, &r->ur, c->slot, iov, n, r->off + r->progress, 0);
}

static void zero_write_done(struct uring_req *ur, int res)
{
	struct blk_req *r = container_of(ur, struct blk_req, ur);

	if (res > 0) {
		r->progress += (uint64_t)res;
	}
	if (res == 0) {
		req_end(r, -EIO);
	} else if (res < 0 && res != -EINTR && res != -EAGAIN) {
		req_end(r, res);
	} else if (r->progress < r->len) {
		zero_write(r);
	} else {
		zero_end(r, 0);
	}
}

static void zero_range_done(struct uring_req *ur, int res)
{
	struct blk_req *r = container_of(ur, struct blk_req, ur);

	if (not_supported(res)) {
		atomic_store(&file_of(r)->no_zero_range, true);
		zero_write(r);
	} else {
		zero_end(r, res);
	}
}

static void zero_range(struct blk_req *r)
{
	if (atomic_load(&file_of(r)->no_zero_range)) {
		zero_write(r);
	} else {
		allocate(r, FALLOC_FL_ZERO_RANGE, zero_range_done);
	}
}

static void zero_punch_done(struct uring_req *ur, int res)
{
	struct blk_req *r = container_of(ur, struct blk_req, ur);

	if (not_supported(res)) {
		atomic_store(&file_of(r)->no_punch, true);
		zero_range(r);
	} else {
		zero_end(r, res);
	}
}

static void zero_start(struct blk_req *r)
{
	struct blk_file *f = file_of(r);

	if ((r->flags & BLK_MAY_UNMAP) && f->unmap && !atomic_load(&f->no_punch)) {
		allocate(r, FALLOC_FL_PUNCH_HOLE, zero_punch_done);
	} else {
		zero_range(r);
	}
}

static void file_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);

	switch (r->op) {
	case BLK_READ:
	case BLK_WRITE:
		rw_start(c, r);
		break;
	case BLK_FLUSH:
		flush_start(c, r);
		break;
	case BLK_DISCARD:
		discard_start(r);
		break;
	case BLK_WRITE_ZEROES:
		zero_start(r);
		break;
	}
}

/* --- channels --- */

static int file_chan_open(struct blk_chan *chan, struct err *err)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);
	struct blk_file *f = of_node(chan->node);
	int r = uring_get(chan->loop, &c->ring, err);

	if (r < 0) {
		return r;
	}
	c->slot = uring_file_add(c->ring, f->fd);
	if (c->slot < 0) {
		r = c->slot;
		uring_put(c->ring);
		return err_set(
			err, -r,
			"disk '%s': its loop has no room for one more disk (%s); give it "
			"another -object iothread",
			f->node.name, strerror(-r));
	}
	list_init(&c->bounce_wait);
	for (unsigned i = 0; i < ZERO_PIECES; i++) {
		/* only ever read: an iovec has no const */
		c->zeros[i] = (struct iovec){(void *)(uintptr_t)zero_piece, ZERO_PIECE};
	}
	return 0;
}

static void file_chan_close(struct blk_chan *chan)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);

	while (c->bounce_free) {
		free(c->bounce[--c->bounce_free]);
	}
	uring_file_del(c->ring, c->slot);
	uring_put(c->ring);
}

/* #syscalls(main): fdatasync close */
static void file_close(struct blk_node *n)
{
	struct blk_file *f = of_node(n);

	if (!n->info.read_only && !f->no_flush && fdatasync(f->fd) < 0) {
		log_err(n->name, "flush when closing: %s", strerror(errno));
	}
	blk_unlock_file(f->fd);
	close(f->fd);
	free(f);
}

static const struct blk_node_ops file_ops = {
	.name = "file",
	.chan_size = sizeof(struct file_chan),
	.chan_open = file_chan_open,
	.chan_close = file_chan_close,
	.submit = file_submit,
	.close = file_close,
};

/* --- opening --- */

static int open_error(const struct blk_file_config *cfg, int e, struct err *err)
{
	const char *name = cfg->filename;

	switch (e) {
	case ENOENT:
	case ENOTDIR:
		return err_set(err, e, "disk image '%s' is not there; check the path", name);
	case EACCES:
	case EPERM:
		return err_set(
			err, e,
			"disk image '%s': no permission to %s it; change its mode or owner%s",
			name, cfg->read_only ? "read" : "read and write",
			cfg->read_only ? "" : ", or add read-only=on");
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
		if (cfg->direct) {
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

/* #syscalls(start): openat fcntl */
static int fd_open(const struct blk_file_config *cfg, struct err *err)
{
	int flags = (cfg->read_only ? O_RDONLY : O_RDWR) | (cfg->direct ? O_DIRECT : 0);
	/* O_NONBLOCK: a FIFO with nobody at its other end must not stop us here */
	int fd = open(cfg->filename, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0) {
		return open_error(cfg, errno, err);
	}
	if (fcntl(fd, F_SETFL, flags) < 0) {
		int e = errno;

		close(fd);
		return open_error(cfg, e, err);
	}
	return fd;
}

/* #syscalls(start): newfstatat fstat */
static int kind_check(int fd, const struct blk_file_config *cfg, bool *device, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		return open_error(cfg, errno, err);
	}
	*device = S_ISBLK(st.st_mode);
	if (S_ISDIR(st.st_mode)) {
		return open_error(cfg, EISDIR, err);
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return err_set(err, EINVAL,
			       "disk image '%s' is neither a file nor a block device",
			       cfg->filename);
	}
	if (cfg->kind == BLK_FILE_DEVICE && !*device) {
		return err_set(err, EINVAL,
			       "driver=host_device: '%s' is no block device; use driver=file",
			       cfg->filename);
	}
	if (cfg->kind == BLK_FILE_REGULAR && *device) {
		return err_set(err, EINVAL,
			       "driver=file: '%s' is a block device; use driver=host_device",
			       cfg->filename);
	}
	return 0;
}

/* The smallest aligned read that O_DIRECT takes here: 512, 1024, 2048 or 4096, or -errno.
 * #syscalls(start): pread64 */
static int direct_align(int fd)
{
	char *buf = aligned_alloc(4096, 8192);
	int r = -ENOMEM;

	for (unsigned align = 512; buf && align <= 4096; align *= 2) {
		/* off the next larger alignment in both memory and file */
		ssize_t n = pread(fd, buf + align % 4096, align, align % 4096);

		r = n < 0 ? -errno : (int)align;
		if (r != -EINVAL) {
			break;
		}
	}
	free(buf);
	return r;
}

/* #syscalls(start): ioctl lseek */
static int info_fill(struct blk_file *f, const struct blk_file_config *cfg, bool device,
		     struct err *err)
{
	struct blk_info *i = &f->node.info;
	off_t size = lseek(f->fd, 0, SEEK_END);
	int sector = 512;

	if (size < 0) {
		return open_error(cfg, errno, err);
	}
	if (size == 0) {
		return err_set(err, EINVAL,
			       "disk image '%s' is empty; give it a size (truncate -s)",
			       cfg->filename);
	}
	if (device && ioctl(f->fd, BLKSSZGET, &sector) < 0) {
		return open_error(cfg, errno, err);
	}
	if (cfg->direct) {
		int align = direct_align(f->fd);

		if (align < 0) {
			return open_error(cfg, -align, err);
		}
		sector = MAX(sector, align);
	}
	if (!is_pow2((uint64_t)sector) || sector < 512 || sector > 4096) {
		return err_set(err, EINVAL,
			       "disk image '%s': blocks of %d bytes are not supported",
			       cfg->filename, sector);
	}
	if (!cfg->read_only && (uint64_t)size % (uint64_t)sector) {
		return err_set(err, EINVAL,
			       "disk image '%s' has %lld bytes, which is no multiple of %d; "
			       "enlarge it with truncate -s %%%d, or add read-only=on",
			       cfg->filename, (long long)size, sector, sector);
	}
	f->eof = (uint64_t)size;
	f->mem_align = cfg->direct ? (uint32_t)sector : 1;
	*i = (struct blk_info){
		.size = align_up((uint64_t)size, (uint64_t)sector),
		.block_size = (uint32_t)sector,
		.align = cfg->direct || device ? (uint32_t)sector : 1,
		.discard_granularity = cfg->unmap ? (device ? (uint32_t)sector : 4096) : 0,
		.read_only = cfg->read_only,
		.can_discard = cfg->unmap && !cfg->read_only,
		.can_zero = !cfg->read_only,
		.write_cache = !cfg->no_flush && !cfg->read_only,
	};
	return 0;
}

int blk_file_open(const struct blk_file_config *cfg, struct blk_node **out, struct err *err)
{
	struct blk_file *f = calloc(1, sizeof(*f));
	bool device = false;
	int r;

	if (!f) {
		return err_set(err, ENOMEM, "disk image '%s': out of memory", cfg->filename);
	}
	r = fd_open(cfg, err);
	if (r < 0) {
		goto free_file;
	}
	f->fd = r;
	f->direct = cfg->direct;
	f->no_flush = cfg->no_flush;
	f->unmap = cfg->unmap;
	blk_node_init(&f->node, &file_ops, cfg->node_name, (unsigned)f->fd);
	r = kind_check(f->fd, cfg, &device, err);
	if (!r) {
		r = blk_lock_file(f->fd, cfg->filename, !cfg->read_only, cfg->locking, err);
	}
	if (!r) {
		r = info_fill(f, cfg, device, err);
	}
	if (r < 0) {
		goto close_fd;
	}
	*out = &f->node;
	return 0;

close_fd:
	close(f->fd);
free_file:
	free(f);
	return r;
}
