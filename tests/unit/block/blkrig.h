/*
 * What the tests of block/ share: a loop, a node, a channel, and requests that are waited for.
 */
#ifndef UNIT_BLOCK_BLKRIG_H
#define UNIT_BLOCK_BLKRIG_H

#include <stdbool.h>
#include <stdint.h>

#include "block/block_int.h"

struct blkrig {
	struct loop *loop;
	struct blk_graph *graph;
	struct blk_node *node;
	struct blk_user *user; /* as a device would use it */
	struct blk_chan *chan;
	struct blk_info info;
	struct err err;
};

/* Opens what "-blockdev text" asks for and uses it; the result of that, its sentence in
 * r->err. */
int blkrig_open(struct blkrig *r, const char *text);
/* The same around a node that is there already, which r then owns. */
void blkrig_node(struct blkrig *r, struct blk_node *node);
void blkrig_close(struct blkrig *r);

struct blkreq {
	struct blk_req req;
	struct iovec iov[16];
	bool done;
	int result;
};
/* Fills in q and submits it; buf NULL for those that have none. */
void blkrig_submit(struct blkrig *r, struct blkreq *q, enum blk_op op, unsigned flags,
		   uint64_t off, uint64_t len, void *buf);
/* The same with q->iov[0..n) as the caller filled it in; len is their sum. */
void blkrig_submit_iov(struct blkrig *r, struct blkreq *q, enum blk_op op, unsigned flags,
		       uint64_t off, unsigned n);
/* Runs the loop until q is done (at most 10 s, then aborts); its result. */
int blkrig_wait(struct blkrig *r, struct blkreq *q);
/* Both. */
int blkrig_do(struct blkrig *r, enum blk_op op, unsigned flags, uint64_t off, uint64_t len,
	      void *buf);

/* A new file of that size below dir (NULL: $TMPDIR or /tmp), every 64-bit word its own
 * offset; its path, which the caller frees. */
char *blkrig_file(const char *dir, uint64_t size);

#endif
