/*
 * virtio-blk on a disk in memory that fails and holds requests now and then.
 *
 * #covers: src/device/virtio/blk.c
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "block/block_int.h"
#include "device/virtio/blk.h"
#include "fuzz/vfuzz.h"
#include "spec/virtio_blk.h"

#define DISK (256 * KiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct virtio_dev *create(struct vfuzz *w)
{
	struct blk_node *mem, *fault;
	struct virtio_dev *vd;
	struct err err;
	uint8_t *disk;
	int rc = blk_mem_new("mem", DISK, &mem, &disk);

	assert(rc == 0);
	rc = blk_fault_new("fault", mem, &fault);
	assert(rc == 0);
	w->priv = fault;
	rc = virtio_blk_new(&w->r.fv->vm, fault,
			    &(struct virtio_blk_config){.serial = "fuzz", .queue_size = 16},
			    "fuzz0", &vd, &err);
	assert(rc == 0);
	return vd;
}

static void release(struct vfuzz *w)
{
	blk_fault_set(w->priv, NULL);
	blk_fault_hold(w->priv, false);
	fake_vm_settle(w->r.fv);
}

static void device_op(struct vfuzz *w, const struct vfuzz_op *op)
{
	switch (op->arg % 4) {
	case 0:
		release(w);
		break;
	case 1:
		blk_fault_hold(w->priv, true);
		break;
	case 2:
		blk_fault_hold(w->priv, false);
		break;
	default:
		blk_fault_set(w->priv, &(struct blk_fault_rule){
					       .ops = op->value,
					       .off = op->addr % DISK,
					       .len = op->index,
					       .error = -EIO,
				       });
		break;
	}
}

static bool works(struct vfuzz *w)
{
	struct vdrv_queue *q = &w->r.d.q[0];
	struct virtio_blk_req_hdr h = {le32_of(VIRTIO_BLK_T_IN), le32_of(0), le64_of(0)};
	struct vdrv_seg seg[3] = {
		{w->data, sizeof(h)}, {w->data + 512, 512}, {w->data + 1024, 1}};
	uint8_t *p = vdrv_ptr(&w->r.d, w->data, 2048);
	uint16_t head;
	uint32_t len;

	memcpy(p, &h, sizeof(h));
	p[1024] = 0xff;
	vdrv_add(q, seg, 1, 2, 0);
	vdrv_kick(q);
	return vdrv_wait(q, &head, &len) && len == 513 && p[1024] == VIRTIO_BLK_S_OK;
}

static void destroyed(struct vfuzz *w)
{
	blk_unref(w->priv);
}

static const struct vfuzz_target target = {
	.create = create,
	.op = device_op,
	.release = release,
	.works = works,
	.destroyed = destroyed,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	vfuzz_run(&target, data, len);
	return 0;
}
