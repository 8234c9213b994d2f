/*
 * Requests that are waited for: see io.h.
 */
#include "block/io.h"

#include <errno.h>
#include <stdlib.h>

#include "block/block_int.h"

struct blk_io {
	struct loop *loop;
	struct blk_chan *chan;
	bool owns_loop;
	bool awake; /* for good: somebody submits on the channel */
};

static int io_new(struct blk_node *n, struct loop *loop, struct blk_io **out, struct err *err)
{
	struct blk_io *io = calloc(1, sizeof(*io));
	int r;

	if (!io) {
		return err_set(err, ENOMEM, "disk '%s': out of memory", blk_name(n));
	}
	io->loop = loop;
	if (!loop) {
		r = loop_new(&io->loop, "block io", 0);
		if (r) {
			err_set(err, -r, "disk '%s': no loop for it", blk_name(n));
			goto free_io;
		}
		io->owns_loop = true;
	}
	r = blk_chan_open(n, io->loop, &io->chan, err);
	if (r) {
		goto free_loop;
	}
	blk_drain_chan_sleep(io->chan, true);
	*out = io;
	return 0;

free_loop:
	if (io->owns_loop) {
		loop_free(io->loop);
	}
free_io:
	free(io);
	return r;
}

int blk_io_open(struct blk_node *n, struct blk_io **out, struct err *err)
{
	return io_new(n, NULL, out, err);
}

int blk_io_open_beside(struct blk_io *io, struct blk_node *n, struct blk_io **out,
		       struct err *err)
{
	blk_io_own(io);
	return io_new(n, io->loop, out, err);
}

void blk_io_close(struct blk_io *io)
{
	if (!io) {
		return;
	}
	blk_io_own(io);
	blk_chan_close(io->chan);
	if (io->owns_loop) {
		loop_free(io->loop);
	}
	free(io);
}

void blk_io_own(struct blk_io *io)
{
	if (!loop_is_current(io->loop)) {
		loop_own(io->loop);
	}
}

struct blk_chan *blk_io_chan(struct blk_io *io)
{
	blk_io_own(io);
	if (!io->awake) {
		io->awake = true;
		blk_drain_chan_sleep(io->chan, false);
	}
	return io->chan;
}

struct loop *blk_io_loop(struct blk_io *io)
{
	return io->loop;
}

/* --- one request --- */

struct wait {
	struct blk_req req;
	bool done;
	int result;
};

static void wait_done(struct blk_req *r, int result)
{
	struct wait *w = container_of(r, struct wait, req);

	w->done = true;
	w->result = result;
}

static int wait_for(struct blk_io *io, struct wait *w)
{
	w->req.done = wait_done;
	blk_io_own(io);
	if (!io->awake) {
		blk_drain_chan_sleep(io->chan, false);
	}
	blk_submit(io->chan, &w->req);
	while (!w->done) {
		loop_step(io->loop, -1);
	}
	if (!io->awake) {
		blk_drain_chan_sleep(io->chan, true);
	}
	return w->result;
}

static int transfer(struct blk_io *io, enum blk_op op, uint64_t off, void *buf, size_t len,
		    unsigned flags)
{
	struct iovec iov = {buf, len};
	struct wait w = {
		.req = {.op = op,
			.flags = flags,
			.off = off,
			.len = len,
			.iov = &iov,
			.niov = 1},
	};

	return wait_for(io, &w);
}

static int plain(struct blk_io *io, enum blk_op op, uint64_t off, uint64_t len, unsigned flags)
{
	struct wait w = {.req = {.op = op, .flags = flags, .off = off, .len = len}};

	return wait_for(io, &w);
}

int blk_io_read(struct blk_io *io, uint64_t off, void *buf, size_t len)
{
	return transfer(io, BLK_READ, off, buf, len, 0);
}

int blk_io_write(struct blk_io *io, uint64_t off, const void *buf, size_t len, unsigned flags)
{
	return transfer(io, BLK_WRITE, off, (void *)(uintptr_t)buf, len, flags);
}

int blk_io_flush(struct blk_io *io)
{
	return plain(io, BLK_FLUSH, 0, 0, 0);
}

int blk_io_discard(struct blk_io *io, uint64_t off, uint64_t len)
{
	return plain(io, BLK_DISCARD, off, len, 0);
}

int blk_io_zero(struct blk_io *io, uint64_t off, uint64_t len, unsigned flags)
{
	return plain(io, BLK_WRITE_ZEROES, off, len, flags);
}

int blk_io_status(struct blk_io *io, uint64_t off, uint64_t len, struct blk_extent *out)
{
	struct wait w = {.req = {.op = BLK_STATUS, .off = off, .len = len}};
	int r = wait_for(io, &w);

	*out = w.req.status;
	return r;
}
