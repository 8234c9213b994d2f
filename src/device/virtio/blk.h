/*
 * virtio-blk on a block node. Virtio 1.2, section 5.2.
 */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "base/err.h"
#include "block/block.h"
#include "core/vm.h"
#include "virtio/virtio.h"

/* What happens to a request that the disk cannot do. */
enum virtio_blk_policy {
	VIRTIO_BLK_REPORT, /* the driver is told */
	VIRTIO_BLK_IGNORE, /* it is told that all is well */
	VIRTIO_BLK_STOP,   /* the machine stops; the request is tried again when it goes on */
	VIRTIO_BLK_ENOSPC, /* stop if the disk is full, else report */
};
struct virtio_blk_error {
	const char *device;
	struct blk_node *node;
	bool read;
	int error;                     /* -errno */
	enum virtio_blk_policy action; /* what was done; never ENOSPC */
};

struct virtio_blk_config {
	const char *serial;  /* NULL or "": none; at most 20 bytes */
	struct loop *loop;   /* data path; NULL: the control loop */
	struct loop *const *queue_loop; /* NULL, or num_queues loops, one for each queue */
	uint16_t queue_size; /* power of two, 4 … 1024; 0: 256 */
	uint16_t num_queues; /* at most VIRTIO_MAX_QUEUES; 0: 1 */
	bool read_only;      /* also if the node is writable */
	bool share_rw;       /* others may write to the node, too */
	bool write_through;  /* the write cache is off until the driver switches it on */
	bool no_config_wce;  /* which it cannot */
	enum virtio_blk_policy rerror, werror;
	/* Every error; on the queue's loop, before the machine is asked to stop. May be NULL. */
	void (*error)(void *opaque, const struct virtio_blk_error *e);
	void *error_opaque;
};
/* Control loop; loop is not running yet or is not the caller's to wait for (loop_call()). The node
 * stays the caller's and outlives the device. The result goes to virtio_pci_new(), which takes it;
 * else free it with (*out)->ops->destroy(). -EBUSY: the node has another writer; -EINVAL. */
int virtio_blk_new(struct vm *vm, struct blk_node *node, const struct virtio_blk_config *cfg,
		   const char *id, struct virtio_dev **out, struct err *err);

#endif
