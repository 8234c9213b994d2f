/*
 * Block nodes, as devices, tools and the control side see them: a graph of named nodes that
 * take requests on buffers. No guest memory, no device, no VM here.
 *
 *   device, tool ──user──▶ format or filter node ──edge──▶ … ──edge──▶ protocol node (file)
 *
 * A user (struct blk_user) says what it does with a node and what it suffers others to do; an
 * edge between two nodes is a user, too. Permissions travel down the graph, and the image locks
 * of the file at its end follow them.
 *
 * Threads: graph, nodes and users belong to the control loop. A channel belongs to one loop;
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

struct blk_graph;
struct blk_node;
struct blk_chan;
struct blk_user;

/* --- requests --- */

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES, BLK_STATUS };
enum {
	BLK_FUA = 1,              /* on stable storage when it completes */
	BLK_MAY_UNMAP = 2,        /* write-zeroes may free the blocks */
	BLK_NO_FALLBACK = 4,      /* write-zeroes: -ENOTSUP instead of writing zeros */
	BLK_WRITE_COMPRESSED = 8, /* whole clusters, to a format that can; else -ENOTSUP */
};

/* What is at an offset: the answer to BLK_STATUS. */
enum {
	BLK_EXT_DATA = 1,        /* has to be read to be known */
	BLK_EXT_ZERO = 2,        /* reads as zeros */
	BLK_EXT_ALLOCATED = 4,   /* in this layer, not in its backing file */
	BLK_EXT_OFFSET = 8,      /* file and file_off are valid */
	BLK_EXT_COMPRESSED = 16,
	BLK_EXT_EOF = 32,        /* the node ends behind it */
};
struct blk_extent {
	uint64_t len; /* from 1 to what was asked */
	unsigned flags;
	struct blk_node *file; /* the protocol node that has it */
	uint64_t file_off;
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
	struct blk_chan *chan, *top;  /* where it is, and where it was submitted */
	uint64_t shift;               /* what nodes on the way down have added to off */
	unsigned tag;                 /* of a format that has handed it down: qcow2.c */
	struct uring_req ur;
	int result;
	uint64_t progress;            /* bytes done */
	struct iov_cur cur;           /* where they end in iov */
	struct iovec one;             /* the rest of an entry, or a bounce */
	void *bounce;                 /* an aligned copy of what cannot be taken in place */
	struct list node;
	/* the answer to BLK_STATUS */
	struct blk_extent status;
};

struct blk_info {
	uint64_t size;                /* bytes */
	uint32_t block_size;          /* logical, of a device on this node: 512 to 4096 */
	uint32_t align;               /* of offsets: what is not is done in a slower way */
	uint32_t discard_granularity; /* 0: discard is a no-op */
	uint32_t max_iov;             /* 0 here and below: no limit; longer ones are cut up */
	uint64_t max_transfer, max_discard, max_zeroes;
	uint32_t cluster_size;        /* of a format; 0: none */
	bool read_only, can_discard, can_zero, write_cache;
	bool resizable;               /* blk_truncate() can work */
};

/* --- the graph --- */

int blk_graph_new(struct blk_graph **out); /* 0 or -ENOMEM */
/* Every node is closed by then. Harmless on NULL. */
void blk_graph_free(struct blk_graph *g);
/* What a thread of a node (a format's worker) runs first; before nodes are opened. */
void blk_graph_thread_init(struct blk_graph *g, loop_work_fn *fn, void *arg);

/* From now on no file can be opened: the process has given up the right to. */
void blk_graph_seal(struct blk_graph *g);

/* Opens what -blockdev's pairs say: driver=…, node-name=…, options of the driver, and its
 * children: file.driver=…, backing.file.filename=… (nested), or file=NODE-NAME; backing=
 * (empty) is none. A filename "json:{…}" stands for the pairs of that object. filename=F beside
 * a driver that stands on a node means file.filename=F with file.driver=file or host_device as
 * F is.
 *
 * Every node: node-name, read-only, auto-read-only, force-share, cache.direct, cache.no-flush,
 * discard=unmap|ignore, detect-zeroes=off|on|unmap. Children that are not named have their
 * parent's read-only, cache.*, force-share and discard if they do not say their own. The
 * content of an image is never probed.
 *
 * Takes what it understands from o and refuses the rest (-EINVAL); *out has one reference. g is
 * NULL for a tool's or test's node that stands alone. */
int blk_open(struct blk_graph *g, struct opts *o, struct blk_node **out, struct err *err);
struct blk_node *blk_find(struct blk_graph *g, const char *node_name); /* no reference taken */
/* Calls fn for every node. */
void blk_graph_each(struct blk_graph *g, void (*fn)(struct blk_node *n, void *opaque),
		    void *opaque);
/* "json:{…}" or "{…}" as pairs, appended to o. */
int blk_json_opts(struct opts *o, const char *json, struct err *err);

void blk_ref(struct blk_node *n);
/* The last one closes: every user is detached and every channel closed by then; flushed, its
 * children are unreferenced. Harmless on NULL. */
void blk_unref(struct blk_node *n);

const char *blk_name(const struct blk_node *n);   /* node-name, or generated "#block123" */
const char *blk_driver_name(const struct blk_node *n);
const char *blk_filename(const struct blk_node *n); /* of the file at its end, or "" */
struct blk_node *blk_child(const struct blk_node *n, const char *role); /* or NULL */
struct blk_node *blk_parent(const struct blk_node *n); /* the first that stands on n, or NULL */
void blk_info(const struct blk_node *n, struct blk_info *out);
uint64_t blk_size(const struct blk_node *n); /* any thread */

/* --- users and permissions --- */

enum { /* QEMU's, and the bits of its image locks */
	BLK_PERM_CONSISTENT_READ = 1,
	BLK_PERM_WRITE = 2,
	BLK_PERM_WRITE_UNCHANGED = 4,
	BLK_PERM_RESIZE = 8,
	BLK_PERM_ALL = 15,
};
struct blk_user_ops {
	void (*resized)(void *opaque); /* may be NULL. Control loop */
};
/* Uses the node: perm is what it does, shared what others may do. who is for messages ("device
 * 'disk0'") and copied. -EBUSY with a sentence that names the other user, -EROFS, -EAGAIN if
 * another process has the image locked. Holds a reference. ops may be NULL. */
int blk_attach(struct blk_node *n, const char *who, unsigned perm, unsigned shared,
	       const struct blk_user_ops *ops, void *opaque, struct blk_user **out,
	       struct err *err);
/* On failure everything stays as it was. */
int blk_user_set_perm(struct blk_user *u, unsigned perm, unsigned shared, struct err *err);
void blk_detach(struct blk_user *u); /* harmless on NULL */
struct blk_node *blk_user_node(const struct blk_user *u);

/* --- channels --- */

/* A channel of the node in a loop; call on that loop (or before it runs). */
int blk_chan_open(struct blk_node *n, struct loop *l, struct blk_chan **out, struct err *err);
void blk_chan_close(struct blk_chan *c); /* nothing in flight. Harmless on NULL */
struct blk_node *blk_chan_node(const struct blk_chan *c);
/* Off: each write is on stable storage when it completes (cache=writethrough). */
void blk_chan_write_cache(struct blk_chan *c, bool on);

/* Queues a request on its loop. Never fails directly and never calls done() inside: errors come
 * through done(). A range outside the node is -EINVAL, a write to a read-only node -EROFS. Any
 * alignment will do, but info.align is best; what is longer than the limits is cut up. A
 * discard on a node without discard does nothing, as does a flush where nothing is cached;
 * write-zeroes always works. r may be reused inside done().
 *
 * On a node below a format, reads past the end give zeros, and writes past the end make the
 * node grow if one of its users has BLK_PERM_RESIZE. */
void blk_submit(struct blk_chan *c, struct blk_req *r);
unsigned blk_chan_inflight(const struct blk_chan *c);
/* On its loop: r ends soon, with -ECANCELED or its result. Inside this call nothing is
 * called. */
void blk_cancel(struct blk_req *r);

/* On its loop: what waits there for a limit (driver=throttle) goes on at once, so that nobody
 * has to wait for that who waits for the channel to be idle. */
void blk_chan_hurry(struct blk_chan *c);

/* --- the node as a whole; control loop --- */

enum blk_prealloc {
	BLK_PREALLOC_OFF,
	BLK_PREALLOC_METADATA,
	BLK_PREALLOC_FALLOC,
	BLK_PREALLOC_FULL,
};
/* A user has BLK_PERM_RESIZE. Requests may be in flight: those that were checked against the
 * old size still go through. What is added reads as zeros. Calls resized() of the users, also
 * of nodes above. -ENOTSUP with a sentence. */
int blk_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
		 struct err *err);

/* For tools: copies up to len bytes inside the kernel, both ranges within their nodes. How
 * many, 0 at the end of the source's file; -ENOTSUP where that cannot be done (another file
 * system, a format, O_DIRECT); other -errno. Blocks; no request of either node is in flight
 * there. */
int64_t blk_copy_range(struct blk_node *src, uint64_t src_off, struct blk_node *dst,
		       uint64_t dst_off, uint64_t len);

/* Stops a node: new requests of every channel wait in the channel; drained() is called on
 * d->loop, once, when nothing is in flight. Nests. Of two nodes above each other the upper one
 * is drained first. */
struct blk_drain {
	struct loop *loop; /* the caller's */
	void (*drained)(void *opaque);
	void *opaque;
	/* internal */
	struct blk_node *on;
	struct list node;
	struct loop_work work;
	bool told;
};
void blk_drain_begin(struct blk_node *n, struct blk_drain *d);
void blk_drain_end(struct blk_drain *d); /* also before drained(), which is then not called */

/* Changes read-only, cache.direct, cache.no-flush, discard, detect-zeroes and what the driver
 * can. What o does not name stays. While cache.direct or read-only change the node is drained.
 * On failure nothing has changed. */
int blk_reopen(struct blk_node *n, struct opts *o, struct err *err);

#endif
