/*
 * qcow2: reads and writes of the children, waited for. What lies past the end of a file reads as
 * zeros; a write past it makes the file longer.
 *
 * Threads: the image's owner. Each call runs the private loop of the child's struct blk_io.
 */
#include <errno.h>

#include "block/qcow2_int.h"

static bool may_write(const struct q2_file *f, uint64_t off, uint64_t len)
{
	return f->grows || range_within(off, len, f->size);
}

int q2_pread(struct q2_file *f, uint64_t off, void *buf, size_t len)
{
	size_t n = off < f->size ? (size_t)MIN(len, f->size - off) : 0;

	if (n < len) {
		memset((char *)buf + n, 0, len - n);
	}
	return n ? blk_io_read(f->io, off, buf, n) : 0;
}

int q2_pwrite(struct q2_file *f, uint64_t off, const void *buf, size_t len)
{
	int r;

	if (!may_write(f, off, len)) {
		return -ENOSPC;
	}
	r = blk_io_write(f->io, off, buf, len, 0);
	if (!r) {
		f->size = MAX(f->size, off + len);
	}
	return r;
}

int q2_pzero(struct q2_file *f, uint64_t off, uint64_t len, unsigned flags)
{
	int r;

	if (!may_write(f, off, len)) {
		return -ENOSPC;
	}
	r = blk_io_zero(f->io, off, len, flags);
	if (!r) {
		f->size = MAX(f->size, off + len);
	}
	return r;
}

int q2_pflush(struct q2_file *f)
{
	return f->io ? blk_io_flush(f->io) : 0;
}

static void async_done(struct blk_req *req, int result)
{
	struct q2_async *a = req->opaque;

	a->result = result;
	a->done = true;
}

static void start(struct q2_file *f, struct q2_async *a, enum blk_op op, uint64_t off,
		  uint64_t len, const struct iovec *iov, unsigned niov)
{
	*a = (struct q2_async){
		.req = {.op = op,
			.off = off,
			.len = len,
			.iov = iov,
			.niov = niov,
			.done = async_done,
			.opaque = a},
	};
	blk_io_own(f->io);
	blk_submit(blk_io_chan(f->io), &a->req);
}

void q2_pwrite_start(struct q2_file *f, struct q2_async *a, uint64_t off, uint64_t len,
		     const struct iovec *iov, unsigned niov)
{
	if (!may_write(f, off, len)) {
		*a = (struct q2_async){.done = true, .result = -ENOSPC};
		return;
	}
	start(f, a, BLK_WRITE, off, len, iov, niov);
}

int q2_wait(struct q2_file *f, struct q2_async *a)
{
	while (!a->done) {
		loop_step(blk_io_loop(f->io), -1);
	}
	if (!a->result) {
		f->size = MAX(f->size, a->req.off + a->req.len);
	}
	return a->result;
}

int q2_pread_iov(struct q2_file *f, uint64_t off, uint64_t len, struct iov_cur *to)
{
	uint64_t n = off < f->size ? MIN(len, f->size - off) : 0;

	while (n) {
		struct iovec iov[Q2_MAX_IOV];
		struct q2_async a;
		struct iov_cur cur = *to;
		uint64_t part = 0;
		int cnt = 0, r;

		/* as many entries as fit */
		while (part < n && cnt < Q2_MAX_IOV && cur.cnt) {
			size_t m = (size_t)MIN(cur.iov->iov_len - cur.off, n - part);

			if (m) {
				iov[cnt++] =
					(struct iovec){(char *)cur.iov->iov_base + cur.off, m};
			}
			part += m;
			cur.off += m;
			if (cur.off == cur.iov->iov_len) {
				cur = (struct iov_cur){cur.iov + 1, cur.cnt - 1, 0};
			}
		}
		if (!part) {
			return -EINVAL;
		}
		start(f, &a, BLK_READ, off, part, iov, (unsigned)cnt);
		r = q2_wait(f, &a);
		if (r < 0) {
			return r;
		}
		*to = cur;
		off += part;
		len -= part;
		n -= part;
	}
	iov_cur_zero(to, len);
	return 0;
}
