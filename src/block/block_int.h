/*
 * Block nodes from the inside: what a driver implements, for files of block/ and for tests.
 *
 * A node's submit() gets requests that block.c has checked and cut to the node's limits (range,
 * alignment, read-only), and ends each with blk_complete() (from the loop, not inside submit),
 * with blk_complete_later() (from anywhere on the loop), or by handing it down with
 * blk_forward(). It sees no guest memory and no device.
 */
#ifndef BLOCK_BLOCK_INT_H
#define BLOCK_BLOCK_INT_H

#include <jansson.h>
#include <pthread.h>

#include "block/block.h"
#include "block/image.h"

enum blk_detect_zeroes { BLK_DETECT_OFF, BLK_DETECT_ON, BLK_DETECT_UNMAP };

/* What every node has: options of -blockdev, and what blk_reopen() changes. */
struct blk_node_opt {
	bool read_only, auto_read_only, force_share, direct, no_flush, unmap;
	enum blk_detect_zeroes detect_zeroes;
};

/* A row of drivers.c. */
struct blk_driver {
	const char *name;    /* driver=… */
	size_t node_size;    /* of what begins with struct blk_node; 0: not opened by name */
	size_t chan_size;    /* of one that begins with struct blk_chan */
	bool format;         /* its children's bytes are its own: see perm.c */
	bool protocol;       /* stands on no other node */

	/* n is zeroed but for what open.c fills in (name, opt). Reads its options from o with
	 * opts_read(), which refuses what is left, and opens its children with
	 * blk_open_child(): these first, or behind blk_child_keys(). Fills in n->info. What is
	 * open in n when this fails is closed by it, but for children. */
	int (*open)(struct blk_node *n, struct opts *o, struct err *err);
	/* Flushes, frees what open() made, but not n, nor children, which are still there. */
	void (*close)(struct blk_node *n);
	/* On the channel's loop. Both may be NULL. */
	int (*chan_open)(struct blk_chan *c, struct err *err);
	void (*chan_close)(struct blk_chan *c);
	void (*submit)(struct blk_chan *c, struct blk_req *r);
	/* What follows may be NULL. */
	/* r was given to submit() and is not done: ends it early if that can be done. */
	void (*cancel)(struct blk_chan *c, struct blk_req *r);
	/* What waits for anything but I/O goes on now: see blk_chan_hurry(). */
	void (*hurry)(struct blk_chan *c);
	/* A request that c handed down has ended; just before its done(). */
	void (*ended)(struct blk_chan *c, struct blk_req *r, int result);

	/* What the edge to a child needs, from what n's users need. NULL: see perm.c. */
	void (*child_perm)(struct blk_node *n, const char *role, unsigned perm, unsigned shared,
			   unsigned *child_perm, unsigned *child_shared);
	/* Protocols: takes the image locks. On failure nothing has changed. */
	int (*set_perm)(struct blk_node *n, unsigned perm, unsigned shared, struct err *err);
	/* Changes the size and n->info.size. NULL: not resizable. */
	int (*truncate)(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			struct err *err);
	/* `to` is what n->opt will be. Other keys of the driver are in o. */
	int (*reopen)(struct blk_node *n, const struct blk_node_opt *to, struct opts *o,
		      struct err *err);
	/* A child's size has changed. NULL: n has its size and tells its users. */
	void (*child_resized)(struct blk_node *n, struct blk_node *child);

	/* --- formats, for tools --- */
	/* Makes the image in file, a writable node of size 0 or with old content. */
	int (*create)(struct blk_graph *g, struct blk_node *file, struct opts *o,
		      struct err *err);
	int (*check)(struct blk_node *n, struct blk_check *out, unsigned fix, struct err *err);
	int (*snapshot_list)(struct blk_node *n, struct blk_snapshot **out, size_t *count,
			     struct err *err);
	int (*snapshot_create)(struct blk_node *n, const char *name, struct err *err);
	int (*snapshot_apply)(struct blk_node *n, const char *id_or_name, struct err *err);
	int (*snapshot_delete)(struct blk_node *n, const char *id_or_name, struct err *err);
	/* Of an image with this content (NULL: empty, of o's size). */
	int (*measure)(struct opts *o, struct blk_node *content, struct blk_measure *out,
		       struct err *err);
	int (*specific_info)(struct blk_node *n, json_t **out, struct err *err);
	/* As image.h has them. */
	int (*backing_name)(struct blk_node *n, char **file, char **fmt, struct err *err);
	int (*set_backing)(struct blk_node *n, const char *file, const char *fmt, struct err *err);
	int (*make_empty)(struct blk_node *n, struct err *err);
	bool (*dirty)(struct blk_node *n);
	int (*snapshot_load)(struct blk_node *n, const char *id_or_name, struct err *err);
	struct blk_packer *(*packer)(struct blk_node *n);
	int (*write_compressed)(struct blk_node *n, const struct blk_packed *p, unsigned count);
};

/* NULL if there is none of that name. i: the table, NULL at its end. */
const struct blk_driver *blk_driver_find(const char *name);
const struct blk_driver *blk_driver_nth(unsigned i);

struct blk_node {
	const struct blk_driver *drv;
	struct blk_graph *graph; /* or NULL */
	char name[64];
	unsigned refs;
	struct list link; /* in the graph */
	/* size: any thread reads it, see blk_grown(); the rest is constant while channels are
	 * open */
	struct blk_info info;
	struct blk_node *follows; /* has this child's size, or NULL */
	struct blk_node_opt opt;
	const char *filename;     /* of a protocol that has one */
	unsigned depth;           /* how many nodes were being opened around it */
	bool can_grow;            /* by writes past the end; the driver calls blk_grown() */
	bool beyond;              /* a format stands on it: reads past the end are zeros */
	bool grow;                /* … and a user has BLK_PERM_RESIZE */
	/* the edges to children, in order of opening; and the two that most have */
	struct list edges;
	struct blk_node *file, *backing;
	struct list users;
	unsigned perm, shared;    /* of all users together */

	/* Channels come, go and drain: control loop and their own loops. */
	pthread_mutex_t lock;
	struct list chans, drains;
	unsigned draining;
	/* Ranges that writes of parts of blocks have read and will write: pieces.c. */
	struct list partial;
};

struct blk_user {
	struct blk_node *node;
	char who[96];
	unsigned perm, shared;
	const struct blk_user_ops *ops;
	void *opaque;
	struct list link; /* in node->users */
	/* an edge: */
	struct blk_node *parent;
	char role[16];
	struct list edge; /* in parent->edges */
};

struct blk_piece;
struct blk_chan {
	struct blk_node *node;
	struct loop *loop;
	/* Requests come from this channel, by blk_forward() or as its own, and from nobody
	 * else; or NULL. */
	struct blk_chan *upper;
	unsigned inflight; /* with the driver */
	unsigned flags;    /* BLK_FUA: added to each write */
	bool special;      /* blk_submit() has to look closer: held or detect-zeroes */
	bool held, idle;   /* drain.c; idle: node->lock */
	bool asleep;       /* node->lock: its loop does not run, and nothing is in flight */
	struct list waiting;
	unsigned nwaiting;
	struct loop_work drain_work;
	struct list link; /* in node->chans */
	struct blk_piece *spare;
	/* finished inside submit(): their done() is called from the loop */
	struct list later;
	struct loop_work later_work;
};

/* Set by the control loop at any time. */
static inline bool blk_chan_special(const struct blk_chan *c)
{
	return __atomic_load_n(&c->special, __ATOMIC_RELAXED);
}

/* --- nodes --- */

/* n is zeroed and embedded in the caller's structure; drv->node_size 0: it is the caller's,
 * else it was allocated and block.c frees it. One reference. name NULL or "": "#block" and tag.
 * In no graph. */
void blk_node_init(struct blk_node *n, const struct blk_driver *drv, const char *name,
		   unsigned tag);
/* Opens the child that o describes for that role and uses it. Not there: *out NULL and 0, or
 * -EINVAL if it is required. On failure of n's open() block.c closes it. */
int blk_open_child(struct blk_node *n, struct opts *o, const char *role, bool required,
		   struct blk_node **out, struct err *err);
/* Leaves the keys of that child to blk_open_child(), so that opts_read() can come before it. */
void blk_child_keys(struct opts *o, const char *role);
/* A node that is open already as a child; takes over the caller's reference, also on
 * failure. */
int blk_add_child(struct blk_node *n, const char *role, struct blk_node *child,
		  struct err *err);
/* Takes the edge away (replacing a backing file). n is drained. */
void blk_remove_child(struct blk_node *n, struct blk_node *child);
/* n->info from its child's: limits, abilities and size. */
void blk_info_from(struct blk_node *n, const struct blk_node *child);
/* The node grew to end by a write. Any thread. */
void blk_grown(struct blk_node *n, uint64_t end);
void blk_set_size(struct blk_node *n, uint64_t size); /* the same for truncate() */

/* --- requests --- */

/* result 0 or -errno; r->done() is called inside. */
void blk_complete(struct blk_req *r, int result);
void blk_complete_later(struct blk_req *r, int result);
/* A channel below c, on its loop, that takes what c hands down and what c itself submits. */
int blk_chan_open_below(struct blk_chan *c, struct blk_node *child, struct blk_chan **out,
			struct err *err);
/* Hands r, which submit() was given, down to a channel of blk_chan_open_below(), with another
 * offset: it ends there, and its off is the old one again then. No other field is changed. */
void blk_forward(struct blk_chan *below, struct blk_req *r, uint64_t off);
/* r as submit() would get it: for one that waited in the driver. */
static inline bool blk_op_writes(enum blk_op op)
{
	return op == BLK_WRITE || op == BLK_DISCARD || op == BLK_WRITE_ZEROES;
}

/* --- between the files of block/ --- */

void blk_chan_start(struct blk_chan *c, struct blk_req *r); /* block.c: checks and submits */
/* pieces.c: does r, which fits no call of the driver, in pieces that do. */
void blk_pieces_start(struct blk_chan *c, struct blk_req *r);
bool blk_pieces_needed(const struct blk_chan *c, const struct blk_req *r, uint64_t size);
void blk_pieces_free(struct blk_chan *c);
/* drain.c */
void blk_drain_chan_init(struct blk_chan *c);
void blk_drain_chan_gone(struct blk_chan *c);
void blk_drain_chan_sleep(struct blk_chan *c, bool asleep); /* on its loop */
/* graph.c */
int blk_graph_add(struct blk_graph *g, struct blk_node *n, struct err *err);
bool blk_graph_sealed(const struct blk_graph *g); /* g may be NULL */
unsigned blk_graph_serial(struct blk_graph *g);
int blk_thread_start(struct blk_graph *g, struct loop *l); /* a thread for l. g may be NULL */
/* uring_get_threads() with what the graph's threads run first. */
int blk_threads_get(struct blk_graph *g, struct loop *l, struct uring **out, struct err *err);
struct list *blk_graph_groups(struct blk_graph *g); /* of limits: throttle_group.c */
void blk_throttle_groups_free(struct list *groups);
/* open.c: the common options of o over those in opt. */
int blk_common_reopen(struct opts *o, struct blk_node_opt *opt, struct err *err);
/* file_open.c */
bool blk_is_device(const char *filename);
/* resize.c: for reopen(): what changes from n->opt to `to` and concerns files, for a child. */
int blk_reopen_below(struct blk_node *n, struct blk_node *child, const struct blk_node_opt *to,
		     const char *what, struct err *err);
/* The reopen() of a node that is nothing without its file: that changes, too. */
int blk_reopen_file(struct blk_node *n, const struct blk_node_opt *to, struct opts *o,
		    struct err *err);
/* perm.c */
int blk_edge_new(struct blk_node *parent, const char *role, struct blk_node *child,
		 struct err *err);
void blk_edge_free(struct blk_user *edge);
/* What n asks of its children after a change of n itself. On failure some have changed. */
int blk_perm_refresh(struct blk_node *n, struct err *err);
void blk_tell_resized(struct blk_node *n);

/* --- drivers --- */

extern const struct blk_driver blk_file_driver, blk_host_device_driver, blk_null_driver,
	blk_raw_driver, blk_throttle_driver, blk_qcow2_driver;

uint64_t blk_raw_offset(const struct blk_node *n); /* of driver=raw */

/* lock.c: image locks, see there. Takes the bytes for perm and shared on an open file, on top
 * of those for had_perm and had_shared, which it has; -EAGAIN with a sentence if another
 * process is in the way, and then nothing has changed. */
enum blk_locking { BLK_LOCKING_AUTO, BLK_LOCKING_ON, BLK_LOCKING_OFF };
int blk_lock_file(int fd, const char *filename, unsigned had_perm, unsigned had_shared,
		  unsigned perm, unsigned shared, enum blk_locking mode, struct err *err);
/* The same bytes on another open file of this process, which replaces one that has them. */
void blk_lock_copy(int fd, unsigned perm, unsigned shared);
/* Gives all of them back, before fd is closed: see lock.c. */
void blk_unlock_file(int fd);

/* --- nodes for tests --- */

/* null.c: reads zeros, drops writes. */
int blk_null_new(const char *name, uint64_t size, bool read_only, struct blk_node **out);

/* mem.c: a disk in memory. *data is its content, size bytes, with room for as many behind them,
 * into which it can grow. */
int blk_mem_new(const char *name, uint64_t size, struct blk_node **out, uint8_t **data);

/* fault.c: passes requests on to a child node (whose reference it takes over), but fails,
 * delays or holds some of them. */
struct blk_fault_rule {
	unsigned ops;       /* bits 1 << BLK_…; 0: no request */
	uint64_t off, len;  /* requests that touch this range; len 0: any */
	unsigned skip;      /* the first this many that match pass */
	unsigned count;     /* then so many fail; 0: all */
	int error;          /* -errno, instead of passing them on */
	uint64_t torn;      /* with an error: of a write, so many bytes happen all the same */
	uint64_t delay_ns;  /* they end so much later */
};
int blk_fault_new(const char *name, struct blk_node *child, struct blk_node **out);
/* Both: any thread. rule NULL: no failures. */
void blk_fault_set(struct blk_node *n, const struct blk_fault_rule *rule);
/* While on, requests are kept; off lets them go, in the order in which they came. */
void blk_fault_hold(struct blk_node *n, bool on);
unsigned blk_fault_held(struct blk_node *n); /* how many are kept */

#endif
