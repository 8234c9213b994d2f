/*
 * virtio-blk on a block node. Virtio 1.2, section 5.2.
 */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "base/err.h"
#include "block/block.h"
#include "core/vm.h"
#include "virtio/virtio.h"

struct virtio_blk_config {
	const char *serial;  /* NULL or "": none; at most 20 bytes */
	struct loop *loop;   /* data path; NULL: the control loop */
	struct loop *const *queue_loop; /* NULL, or num_queues loops, one for each queue */
	uint16_t queue_size; /* power of two, 4 … 1024; 0: 256 */
	uint16_t num_queues; /* at most VIRTIO_MAX_QUEUES; 0: 1 */
	bool read_only;      /* also if the node is writable */
	bool share_rw;       /* others may write to the node, too */
};
/* Control loop; loop is not running yet or is not the caller's to wait for (loop_call()). The node
 * stays the caller's and outlives the device. The result goes to virtio_pci_new(), which takes it;
 * else free it with (*out)->ops->destroy(). -EBUSY: the node has another writer; -EINVAL. */
int virtio_blk_new(struct vm *vm, struct blk_node *node, const struct virtio_blk_config *cfg,
		   const char *id, struct virtio_dev **out, struct err *err);

#endif
