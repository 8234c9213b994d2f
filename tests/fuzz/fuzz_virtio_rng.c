/*
 * virtio-rng with a rate, on the virtual clock.
 *
 * #covers: src/device/virtio/rng.c
 */
#include <assert.h>

#include "device/virtio/rng.h"
#include "fuzz/vfuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct virtio_dev *create(struct vfuzz *w)
{
	struct virtio_dev *vd;
	struct err err;
	int rc = virtio_rng_new(&w->r.fv->vm,
				&(struct virtio_rng_config){.max_bytes = 1000, .period_ms = 10},
				"fuzz0", &vd, &err);

	assert(rc == 0);
	return vd;
}

static void release(struct vfuzz *w)
{
	(void)w;
}

static void device_op(struct vfuzz *w, const struct vfuzz_op *op)
{
	loop_clock_advance(w->r.fv->vm.loop, op->value % 50000000);
}

static bool works(struct vfuzz *w)
{
	struct vdrv_queue *q = &w->r.d.q[0];
	uint16_t head;
	uint32_t len;

	vdrv_add(q, (struct vdrv_seg[]){{w->data, 64}}, 0, 1, 0);
	vdrv_kick(q);
	return vdrv_wait(q, &head, &len) && len == 64;
}

static const struct vfuzz_target target = {
	.create = create,
	.op = device_op,
	.release = release,
	.works = works,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	vfuzz_run(&target, data, len);
	return 0;
}
