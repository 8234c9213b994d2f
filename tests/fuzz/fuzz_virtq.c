/*
 * The split ring, the transport and the life cycle, with the echo device behind them.
 *
 * #covers: src/virtio/virtq.c src/virtio/virtio.c src/virtio/state.c
 * #covers: src/virtio/transport/pci.c
 */
#include "device/echo.h"
#include "fuzz/vfuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct virtio_dev *create(struct vfuzz *w)
{
	return &echo_new(&w->r.fv->vm, "fuzz0", NULL)->vd;
}

static void release(struct vfuzz *w)
{
	echo_release(echo_of(w->vd));
	fake_vm_settle(w->r.fv);
}

static void device_op(struct vfuzz *w, const struct vfuzz_op *op)
{
	if (op->arg & 1) {
		atomic_store(&echo_of(w->vd)->hold, true);
	} else {
		release(w);
	}
}

static bool works(struct vfuzz *w)
{
	struct vdrv_queue *q = &w->r.d.q[0];
	uint8_t *p = vdrv_ptr(&w->r.d, w->data, 128);
	uint16_t head;
	uint32_t len;

	memset(p, 0x5a, 64);
	memset(p + 64, 0, 64);
	vdrv_add(q, (struct vdrv_seg[]){{w->data, 64}, {w->data + 64, 64}}, 1, 1, 0);
	vdrv_kick(q);
	return vdrv_wait(q, &head, &len) && len == 64 && memcmp(p, p + 64, 64) == 0;
}

static const struct vfuzz_target target = {
	.without = UINT64_C(1) << ECHO_F_REFUSED,
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
