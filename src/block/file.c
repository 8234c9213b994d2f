/*
 * Requests on a regular file or a block device, through io_uring.
 *
 *   read, write    readv/writev; a short transfer is continued where it ended
 *   flush          fdatasync (nothing with cache.no-flush)
 *   discard        fallocate(PUNCH_HOLE): files and block devices alike
 *   write-zeroes   PUNCH_HOLE if the blocks may go, else ZERO_RANGE, else writes of zeros from
 * a constant page in steps of 1 MiB, for file systems that have neither FUA RWF_DSYNC; an
 * fdatasync behind write-zeroes
 *   status         SEEK_DATA and SEEK_HOLE
 *
 * cache.direct (O_DIRECT): offsets are multiples of info.align, which block.c sees to; memory
 * that is not goes through a bounce buffer. A channel has FILE_BOUNCES of them, made when first
 * needed; a request that finds none free waits for its turn.
 *
 * Size: `eof` is what the file has, as far as is known here. If it shrinks, reads past its end
 * are -EIO. Of a file with an odd size the last block is filled up with zeros.
 *
 * Untrusted: the content of the file (nothing here looks at it). What the ring does needs no
 * system call of this thread; the ring has restrictions of its own (event/uring.h).
 * Threads: a channel on its own loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/file_int.h"

#define BOUNCE_SIZE (256 * KiB)
#define MAX_IOV	    1024
#define ZERO_PIECE  (16 * KiB)

static const char zero_piece[ZERO_PIECE] __attribute__((aligned(4096)));

static struct file_chan *chan_of(const struct blk_req *r)
{
	return container_of(r->chan, struct file_chan, chan);
}

static struct blk_file *file_of(const struct blk_req *r)
{
	return blk_file_of(r->chan->node);
}

/* --- bounce buffers --- */

static void *bounce_take(struct file_chan *c)
{
	void *p;

	if (c->bounce_free) {
		return c->bounce[--c->bounce_free];
	}
	if (c->bounce_made == FILE_BOUNCES) {
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

void blk_file_eof(struct blk_file *f, uint64_t end)
{
	uint64_t eof = atomic_load_explicit(&f->eof, memory_order_relaxed);

	while (eof < end) {
		if (atomic_compare_exchange_weak(&f->eof, &eof, end)) {
			blk_grown(&f->node, align_up(end, f->node.info.block_size));
			return;
		}
	}
}

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
	if (r->op == BLK_WRITE) {
		blk_file_eof(f, r->off + r->progress);
	}
	if (r->progress >= r->len) {
		req_end(r, 0);
	} else if (r->op == BLK_READ && r->off + r->progress >= atomic_load(&f->eof)) {
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
	uring_fallocate(c->ring, &r->ur, c->slot, mode, r->off, r->len);
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
		allocate(r, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, discard_done);
	}
}

static void zero_end(struct blk_req *r, int res)
{
	if (res == 0) {
		blk_file_eof(file_of(r), r->off + r->len);
	}
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
	unsigned n = (unsigned)MIN(left / ZERO_PIECE, FILE_ZEROS);
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

/* May be inside submit(). */
static void zero_fallback(struct blk_req *r)
{
	if (r->flags & BLK_NO_FALLBACK) {
		blk_complete_later(r, -ENOTSUP);
	} else {
		zero_write(r);
	}
}

static void zero_range_done(struct uring_req *ur, int res)
{
	struct blk_req *r = container_of(ur, struct blk_req, ur);

	if (not_supported(res)) {
		atomic_store(&file_of(r)->no_zero_range, true);
		zero_fallback(r);
	} else {
		zero_end(r, res);
	}
}

static void zero_range(struct blk_req *r)
{
	if (atomic_load(&file_of(r)->no_zero_range)) {
		zero_fallback(r);
	} else {
		/* Zeros past the end make the file longer. */
		bool longer = r->off + r->len > atomic_load(&file_of(r)->eof);

		allocate(r, FALLOC_FL_ZERO_RANGE | (longer ? 0 : FALLOC_FL_KEEP_SIZE),
			 zero_range_done);
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

	/* A hole does not make the file longer. */
	if ((r->flags & BLK_MAY_UNMAP) && f->unmap && !atomic_load(&f->no_punch) &&
	    r->off + r->len <= atomic_load(&f->eof)) {
		allocate(r, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, zero_punch_done);
	} else {
		zero_range(r);
	}
}

/* --- status --- */

/* What is not known is data. Reading the extent map of a file does not wait for its content.
 * #syscalls(main,io): lseek */
static void status_start(struct blk_req *r)
{
	struct blk_file *f = file_of(r);
	struct blk_extent *e = &r->status;
	off_t off = (off_t)r->off, to;

	*e = (struct blk_extent){
		.len = r->len,
		.flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET,
		.file = &f->node,
		.file_off = r->off,
	};
	if (!f->device && !atomic_load(&f->no_extents)) {
		bool hole;

		to = lseek(f->fd, off, SEEK_DATA);
		hole = to > off || (to < 0 && errno == ENXIO);
		if (to == off) {
			to = lseek(f->fd, off, SEEK_HOLE);
		} else if (to < 0 && errno != ENXIO) {
			atomic_store(&f->no_extents, true);
		}
		if (to > off) {
			e->len = MIN(e->len, (uint64_t)(to - off));
		}
		if (hole) {
			e->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET;
		}
	}
	blk_complete_later(r, 0);
}

void blk_file_cancel(struct blk_chan *chan, struct blk_req *r)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);
	struct list *pos;

	/* What the kernel has will end; what waits for a buffer need not. */
	list_for_each (pos, &c->bounce_wait) {
		if (pos == &r->node) {
			list_del(&r->node);
			blk_complete_later(r, -ECANCELED);
			return;
		}
	}
}

void blk_file_submit(struct blk_chan *chan, struct blk_req *r)
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
	case BLK_STATUS:
		status_start(r);
		break;
	}
}

/* --- channels --- */

/* io_uring, or threads if they are asked for or the host has nothing else. */
static int ring_get(struct blk_file *f, struct loop *l, struct uring **out, struct err *err)
{
	struct err why;
	int r = f->threads ? -ENOSYS : uring_get(l, out, &why);

	if (r == -ENOSYS || r == -EPERM) {
		if (!f->threads) {
			log_warn(f->node.name,
				 "%s. Requests of '%s' are made by threads until then", why.msg,
				 loop_name(l));
		}
		return blk_threads_get(f->node.graph, l, out, err);
	}
	return r < 0 ? err_set(err, -r, "%s", why.msg) : 0;
}

int blk_file_chan_open(struct blk_chan *chan, struct err *err)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);
	struct blk_file *f = blk_file_of(chan->node);
	int r = ring_get(f, chan->loop, &c->ring, err);

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
	for (unsigned i = 0; i < FILE_ZEROS; i++) {
		/* only ever read: an iovec has no const */
		c->zeros[i] = (struct iovec){(void *)(uintptr_t)zero_piece, ZERO_PIECE};
	}
	return 0;
}

void blk_file_chan_close(struct blk_chan *chan)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);

	while (c->bounce_free) {
		free(c->bounce[--c->bounce_free]);
	}
	uring_file_del(c->ring, c->slot);
	uring_put(c->ring);
}

int blk_file_chan_refd(struct blk_chan *chan)
{
	struct file_chan *c = container_of(chan, struct file_chan, chan);
	int slot = uring_file_add(c->ring, blk_file_of(chan->node)->fd);

	if (slot < 0) {
		return slot;
	}
	uring_file_del(c->ring, c->slot);
	c->slot = slot;
	return 0;
}
