/*
 * Between the files of virtio-blk: blk.c (configuration, requests, life) and blk_state.c.
 */
#ifndef DEVICE_VIRTIO_BLK_INT_H
#define DEVICE_VIRTIO_BLK_INT_H

#include <stdatomic.h>

#include "device/virtio/blk.h"
#include "spec/virtio_blk.h"
#include "state/state.h"

struct blk_request {
	struct blk_queue *bq;
	struct blk_request *next; /* free list */
	struct virtq_chain chain;
	struct blk_req io;
	struct iovec *iov;
	struct iovec *last; /* entry whose end is the status byte */
	bool whole;	    /* loaded: as it was popped, request_start() comes first */
};

/* Owner: the queue's loop, after creation. */
struct blk_queue {
	struct virtio_blk *blk;
	struct virtq *vq;
	struct blk_chan *chan;
	bool chan_owned; /* else it is that of an earlier queue on the same loop */
	struct blk_request *pool, *free;
	struct blk_request *kept,
		**kept_end; /* failed, and tried again when the queue starts … */
	uint32_t resets;    /* … if it has not been reset since then */
	unsigned
		fresh; /* requests of the pool from here on were never used: their pages neither */
	struct iovec *iovs;
	struct loop_hook hook;
	bool unsignalled; /* pushed since the last virtq_notify() */
};

struct virtio_blk {
	struct virtio_dev vd;
	struct blk_node *node;
	struct blk_info info; /* but for its size, which can change: */
	_Atomic uint64_t sectors;
	struct blk_user *user;
	bool read_only, write_through, config_wce;
	enum virtio_blk_policy rerror, werror;
	void (*error)(void *opaque, const struct virtio_blk_error *e);
	void *error_opaque;
	uint8_t serial[VIRTIO_BLK_ID_BYTES];
	_Atomic bool writeback;
	unsigned max_segs;
	struct blk_queue *queue; /* vd.nqueues, and `made` of them have memory and a channel */
	unsigned made;
};

static inline struct virtio_blk *blk_of_vd(struct virtio_dev *vd)
{
	return container_of(vd, struct virtio_blk, vd);
}

static inline struct blk_queue *blk_of_vq(struct virtq *q)
{
	return &blk_of_vd(q->vd)->queue[q->index];
}

/* blk.c; both for the owner of the queue */
struct blk_request *
blk_request_free(struct blk_queue *bq);	  /* stays the first of its free list */
void blk_kept_drop(struct blk_queue *bq); /* their driver has reset them */
/* blk_state.c */
extern const struct state_desc blk_state_desc;
int blk_save(struct virtio_dev *vd, void *st, struct err *err);
int blk_load(struct virtio_dev *vd, const void *st, struct err *err);

#endif
