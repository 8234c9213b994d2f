/*
 * Block nodes from the inside: what a node implements, for files of block/ and for tests.
 *
 * A node's submit() gets requests that block.c has checked (range, alignment, read-only) and ends
 * each with blk_complete() (from the loop, not inside submit) or blk_complete_later() (from
 * anywhere on the loop). It sees no guest memory and no device.
 */
#ifndef BLOCK_BLOCK_INT_H
#define BLOCK_BLOCK_INT_H

#include "block/block.h"

struct blk_node_ops {
	const char *name; /* driver=… */
	size_t chan_size; /* of a structure that begins with struct blk_chan */
	/* On the channel's loop. May be NULL. */
	int (*chan_open)(struct blk_chan *c, struct err *err);
	void (*chan_close)(struct blk_chan *c);
	void (*submit)(struct blk_chan *c, struct blk_req *r);
	void (*close)(struct blk_node *n); /* flushes, frees what blk_node_new() was given */
};

struct blk_node {
	const struct blk_node_ops *ops;
	char name[64];
	struct blk_info info;  /* constant while channels are open */
	unsigned readers, writers;
	_Atomic unsigned chans;
};

struct blk_chan {
	struct blk_node *node;
	struct loop *loop;
	unsigned inflight;
	/* finished inside submit(): their done() is called from the loop */
	struct list later;
	struct loop_work later_work;
};

/* n is embedded in the node's own structure, zeroed. name NULL or "": "#block" and tag. */
void blk_node_init(struct blk_node *n, const struct blk_node_ops *ops, const char *name,
		   unsigned tag);
void blk_complete(struct blk_req *r, int result);
void blk_complete_later(struct blk_req *r, int result);

/* file.c: opens and locks. All strings are the caller's. */
struct blk_file_config {
	const char *filename, *node_name;
	bool read_only, direct, no_flush, unmap;
	enum blk_locking { BLK_LOCKING_AUTO, BLK_LOCKING_ON, BLK_LOCKING_OFF } locking;
	enum blk_file_kind { BLK_FILE_ANY, BLK_FILE_REGULAR, BLK_FILE_DEVICE } kind;
};
int blk_file_open(const struct blk_file_config *cfg, struct blk_node **out, struct err *err);

/* lock.c: takes QEMU's image locks on an open file for a reader or a writer. -EAGAIN with a
 * sentence if another process uses the file. */
int blk_lock_file(int fd, const char *filename, bool write, enum blk_locking mode,
		  struct err *err);
/* Gives them back, before fd is closed: see lock.c. */
void blk_unlock_file(int fd);

/* null.c: reads zeros, drops writes. */
int blk_null_new(const char *name, uint64_t size, bool read_only, struct blk_node **out);

/* mem.c: a disk in memory, for tests and benchmarks. *data is its content, size bytes. */
int blk_mem_new(const char *name, uint64_t size, struct blk_node **out, uint8_t **data);

/* fault.c: passes requests on to a child node (which it owns), but fails or holds some of them;
 * for tests. */
struct blk_fault_rule {
	unsigned ops;       /* bits 1 << BLK_…; 0: no request */
	uint64_t off, len;  /* requests that touch this range; len 0: any */
	unsigned skip;      /* the first this many that match pass */
	unsigned count;     /* then so many fail; 0: all */
	int error;          /* -errno, instead of passing them on */
};
int blk_fault_new(const char *name, struct blk_node *child, struct blk_node **out);
/* Both: any thread. rule NULL: no failures. */
void blk_fault_set(struct blk_node *n, const struct blk_fault_rule *rule);
/* While on, requests are kept; off lets them go, in the order in which they came. */
void blk_fault_hold(struct blk_node *n, bool on);
unsigned blk_fault_held(struct blk_node *n); /* how many are kept */

#endif
