/*
 * Requests that are waited for: for tools, and for threads of format nodes.
 *
 * A blk_io is a private loop with a channel of a node. One thread uses it at a time, and may
 * hand it to another. Each call runs that loop until the request is done; 0 or -errno.
 */
#ifndef BLOCK_IO_H
#define BLOCK_IO_H

#include <stddef.h>

#include "block/block.h"

struct blk_io;

/* On the main thread, before isolation: the loop makes its io_uring here. */
int blk_io_open(struct blk_node *n, struct blk_io **out, struct err *err);
/* Another node's channel on the same loop, so that requests of both can be in flight at
 * once. */
int blk_io_open_beside(struct blk_io *io, struct blk_node *n, struct blk_io **out,
		       struct err *err);
void blk_io_close(struct blk_io *io); /* harmless on NULL; those beside it first */

int blk_io_read(struct blk_io *io, uint64_t off, void *buf, size_t len);
int blk_io_write(struct blk_io *io, uint64_t off, const void *buf, size_t len, unsigned flags);
int blk_io_flush(struct blk_io *io);
int blk_io_discard(struct blk_io *io, uint64_t off, uint64_t len);
int blk_io_zero(struct blk_io *io, uint64_t off, uint64_t len, unsigned flags);
int blk_io_status(struct blk_io *io, uint64_t off, uint64_t len, struct blk_extent *out);

/* For several requests at once: submit on the channel, then loop_step() until they are done. From the
 * first call on a drain of the node waits for this loop to run. */
struct blk_chan *blk_io_chan(struct blk_io *io);
struct loop *blk_io_loop(struct blk_io *io);
/* The calling thread uses it from now on; the calls above do that by themselves. */
void blk_io_own(struct blk_io *io);

#endif
