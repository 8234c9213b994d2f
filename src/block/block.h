/*
 * Block nodes, as devices see them: named objects that take requests on buffers. No guest
 * memory, no device, no VM here. A format or filter will be a node above another one; today
 * there are files and block devices (io_uring) and, for tests, memory and faults.
 *
 * Threads: a node is opened and closed on the control loop; a channel belongs to one loop, and
 * requests are submitted and completed there, without a lock.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/iov.h"
#include "base/opts.h"
#include "event/loop.h"
#include "event/uring.h"

struct blk_node;
struct blk_chan;

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };
enum {
	BLK_FUA = 1,       /* on stable storage when it completes */
	BLK_MAY_UNMAP = 2, /* write-zeroes may free the blocks */
};

struct blk_req;
typedef void blk_done_fn(struct blk_req *req, int result); /* 0 or -errno */
struct blk_req {
	/* the caller's, constant until done */
	enum blk_op op;
	unsigned flags;
	uint64_t off, len;            /* bytes; iov holds exactly len for READ and WRITE */
	const struct iovec *iov;
	unsigned niov;
	blk_done_fn *done;
	void *opaque;
	/* the node's */
	struct blk_chan *chan;
	struct uring_req ur;
	int result;
	uint64_t progress;            /* bytes done */
	struct iov_cur cur;           /* where they end in iov */
	struct iovec one;             /* the rest of an entry after a short transfer, or a bounce */
	void *bounce;                 /* an aligned copy of what the host cannot take in place */
	struct list node;
};

struct blk_info {
	uint64_t size;                /* bytes */
	uint32_t block_size;          /* logical: 512 or 4096 */
	uint32_t align;               /* memory and offset alignment the host asks for (O_DIRECT) */
	uint32_t discard_granularity; /* 0: discard is a no-op */
	bool read_only, can_discard, can_zero, write_cache;
};

/* -blockdev and -drive: driver=raw|file|host_device|null-co; file.driver=…,file.filename=…;
 * filename, node-name, read-only, cache.direct, cache.no-flush, discard=unmap|ignore, aio=io_uring,
 * locking=auto|on|off, size (null-co). Takes what it understands from o and refuses the rest
 * (-EINVAL). -EAGAIN with a sentence if another process has the image locked, -ENOENT, -EACCES, …
 *
 * A file whose size is no multiple of 512 is refused for writing; read-only it is rounded up and
 * the tail reads as zeros. With cache.direct on a host whose blocks have 4096 bytes the node's
 * blocks have 4096 bytes, too. */
int blk_open(struct opts *o, struct blk_node **out, struct err *err);
/* A node on caller-provided ops is made by tests and later formats with blk_node_new() in
 * block/block_int.h. */
void blk_close(struct blk_node *n); /* flushed; every channel is closed */
const char *blk_name(const struct blk_node *n); /* node-name, or generated "#blockN"-like */
void blk_info(const struct blk_node *n, struct blk_info *out);
/* One writer: a second claim for writing is -EBUSY with a sentence. */
int blk_claim(struct blk_node *n, bool write, struct err *err);
void blk_release(struct blk_node *n, bool write);

/* A channel of the node in a loop; call on that loop (or before it runs). */
int blk_chan_open(struct blk_node *n, struct loop *l, struct blk_chan **out, struct err *err);
void blk_chan_close(struct blk_chan *c); /* nothing in flight */

/* Queues a request on its loop. Never fails directly and never calls done() inside: errors come
 * through done(). Ranges are checked against the size and info.align (-EINVAL), writes to a
 * read-only node are -EROFS. A discard on a node without discard does nothing, as does a flush
 * where nothing is cached; write-zeroes always works. r may be reused inside done(). */
void blk_submit(struct blk_chan *c, struct blk_req *r);
unsigned blk_chan_inflight(const struct blk_chan *c);

#endif
