/*
 * What file.c (requests) and file_open.c (opening, size, options) share.
 */
#ifndef BLOCK_FILE_INT_H
#define BLOCK_FILE_INT_H

#include <stdatomic.h>

#include "block/block_int.h"

#define FILE_BOUNCES 4
#define FILE_ZEROS   64

struct blk_file {
	struct blk_node node;
	char *filename;
	int fd;
	bool device, threads; /* threads: aio=threads */
	bool writable;        /* fd is; a read-only node may keep it */
	enum blk_locking locking;
	unsigned lock_perm, lock_shared; /* what the image locks say */
	/* The real size: info.size is rounded up to whole blocks. Any channel raises it. */
	_Atomic uint64_t eof;
	/* options that blk_reopen() may change while requests are in flight */
	_Atomic bool no_flush, unmap;
	bool direct; /* this and mem_align: only while nothing is in flight */
	uint32_t mem_align;
	_Atomic bool no_punch, no_zero_range, no_extents; /* hints that any channel sets */
};

struct file_chan {
	struct blk_chan chan;
	struct uring *ring;
	int slot;
	/* free buffers first; `made` of them exist */
	void *bounce[FILE_BOUNCES];
	unsigned bounce_free, bounce_made;
	struct list bounce_wait;
	struct iovec zeros[FILE_ZEROS];
};

static inline struct blk_file *blk_file_of(struct blk_node *n)
{
	return container_of(n, struct blk_file, node);
}

/* file.c */
int blk_file_chan_open(struct blk_chan *chan, struct err *err);
void blk_file_chan_close(struct blk_chan *chan);
void blk_file_submit(struct blk_chan *chan, struct blk_req *r);
void blk_file_cancel(struct blk_chan *chan, struct blk_req *r);
void blk_file_eof(struct blk_file *f, uint64_t end); /* it is at least that long */
/* The node has another fd: the channel's ring has to know. On its loop, drained. */
int blk_file_chan_refd(struct blk_chan *chan);

#endif
