/*
 * The common state of a virtio device and its queues, declared.
 *
 * What a driver has configured and how far the device has come in each ring. The rings are
 * guest memory and travel with it; a drained queue has nothing else. Saved and loaded while
 * paused. Untrusted: the stream. Nothing of it is taken over before all of it is checked.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "spec/virtio.h"
#include "virtio/virtio.h"

/* Before version 2 all rings were split and had none. */
#define WRAP_FIELD(f)                                                                          \
	{                                                                                      \
		.name = #f, .type = STATE_BOOL, .offset = offsetof(struct virtq_state, f),     \
		.size = sizeof(bool), .count_offset = -1, .since = 2                           \
	}
static const struct state_field queue_fields[] = {
	STATE_F_U16(struct virtq_state, size),
	STATE_F_U16(struct virtq_state, vector),
	STATE_F_U16(struct virtq_state, last_avail),
	STATE_F_U16(struct virtq_state, used_idx),
	STATE_F_BOOL(struct virtq_state, enabled),
	WRAP_FIELD(avail_wrap),
	WRAP_FIELD(used_wrap),
	STATE_F_U64(struct virtq_state, desc),
	STATE_F_U64(struct virtq_state, avail),
	STATE_F_U64(struct virtq_state, used),
	STATE_F_END,
};
static const struct state_desc queue_desc = {
	.name = "virtqueue",
	.version = 2,
	.min_version = 1,
	.size = sizeof(struct virtq_state),
	.fields = queue_fields,
};

static int state_validate(const void *p, struct err *err)
{
	const struct virtio_state *st = p;
	bool packed = st->features >> VIRTIO_F_RING_PACKED & 1;
	bool ran = !st->broken && (st->status & VIRTIO_STATUS_DRIVER_OK);
	unsigned align = packed ? PVIRTQ_EVENT_ALIGN : VIRTQ_AVAIL_ALIGN;

	_Static_assert(PVIRTQ_DESC_ALIGN == VIRTQ_DESC_ALIGN &&
			       PVIRTQ_EVENT_ALIGN == VIRTQ_USED_ALIGN,
		       "both kinds of rings");
	for (uint32_t i = 0; i < st->nqueues; i++) {
		const struct virtq_state *q = &st->q[i];

		if (!q->size || (!packed && !is_pow2(q->size)) || q->size > VIRTQ_MAX_SIZE) {
			return err_set(err, EINVAL, "virtqueue %u has the impossible size %u",
				       i, q->size);
		}
		/* The driver may write any address before it sets DRIVER_OK, which then breaks
		 * the device. */
		if (q->enabled && ran && (q->desc % VIRTQ_DESC_ALIGN || q->avail % align ||
				   q->used % VIRTQ_USED_ALIGN)) {
			return err_set(err, EINVAL, "virtqueue %u has a misaligned ring", i);
		}
		if (packed && (q->last_avail >= q->size || q->used_idx >= q->size)) {
			return err_set(err, EINVAL, "virtqueue %u is outside its ring", i);
		}
	}
	return 0;
}

static const struct state_field dev_fields[] = {
	STATE_F_U64(struct virtio_state, features),
	STATE_F_U8(struct virtio_state, status),
	STATE_F_U8(struct virtio_state, config_generation),
	STATE_F_U16(struct virtio_state, config_vector),
	STATE_F_BOOL(struct virtio_state, broken),
	STATE_F_VARRAY(struct virtio_state, q, &queue_desc, nqueues),
	STATE_F_END,
};
const struct state_desc virtio_state_desc = {
	.name = "virtio",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct virtio_state),
	.fields = dev_fields,
	.validate = state_validate,
};

void virtio_save(struct virtio_dev *vd, struct virtio_state *st)
{
	memset(st, 0, sizeof(*st));
	st->features = vd->acked;
	st->status = virtio_get_status(vd);
	st->config_generation = atomic_load(&vd->config_generation);
	st->config_vector = vd->config_vector;
	st->broken = atomic_load(&vd->broken);
	st->nqueues = vd->nqueues;
	for (unsigned i = 0; i < vd->nqueues; i++) {
		const struct virtq *q = &vd->queue[i];

		st->q[i] = (struct virtq_state){
			.size = q->size,
			.vector = virtio_queue_vector(q),
			.last_avail = q->last_avail,
			.used_idx = q->used_idx,
			.enabled = q->enabled,
			.avail_wrap = q->avail_wrap,
			.used_wrap = q->used_wrap,
			.desc = q->desc_gpa,
			.avail = q->avail_gpa,
			.used = q->used_gpa,
		};
	}
}

static int state_fits(struct virtio_dev *vd, const struct virtio_state *st, struct err *err)
{
	uint8_t need = VIRTIO_STATUS_FEATURES_OK;

	if (st->nqueues != vd->nqueues) {
		return err_set(err, EINVAL,
			       "%s: the saved device has %u queues, this one %u; start the "
			       "machine with the same device options",
			       vd->name, st->nqueues, vd->nqueues);
	}
	/* Before FEATURES_OK they are only what the driver wrote, judged when it says it is done. */
	if ((st->status & need) && (st->features & ~vd->offered)) {
		return err_set(
			err, EINVAL,
			"%s: the saved driver uses features (0x%llx) that this device does "
			"not offer; start the machine with the same device options",
			vd->name, (unsigned long long)(st->features & ~vd->offered));
	}
	if ((st->status & VIRTIO_STATUS_DRIVER_OK) && !(st->status & need)) {
		return err_set(err, EINVAL, "%s: the saved device status 0x%x is impossible",
			       vd->name, st->status);
	}
	if ((st->status & need) && !(st->features >> VIRTIO_F_VERSION_1 & 1)) {
		return err_set(err, EINVAL, "%s: the saved driver is not a modern one",
			       vd->name);
	}
	return 0;
}

/* What the device's queues are like may depend on the features that are settled. */
static void settle(struct virtio_dev *vd, uint64_t features, uint8_t status)
{
	vd->acked = features;
	if (vd->ops->features_set) {
		vd->ops->features_set(vd, status & VIRTIO_STATUS_FEATURES_OK ? features : 0);
	}
}

static int queue_load(struct virtq *q, const struct virtq_state *s, bool map, struct err *err)
{
	struct virtio_dev *vd = q->vd;

	if (s->size > q->max_size) {
		return err_set(err, EINVAL,
			       "%s: saved queue %u has %u entries, this device has at "
			       "most %u; start the machine with the same queue size",
			       vd->name, q->index, s->size, q->max_size);
	}
	virtq_defaults(q);
	q->size = s->size;
	virtio_queue_set_vector(q, s->vector);
	q->enabled = s->enabled;
	q->desc_gpa = s->desc;
	q->avail_gpa = s->avail;
	q->used_gpa = s->used;
	q->last_avail = s->last_avail;
	q->used_idx = s->used_idx;
	q->avail_wrap = s->avail_wrap;
	q->used_wrap = s->used_wrap;
	if (q->enabled && map && virtq_map(q) < 0) {
		return err_set(err, EINVAL,
			       "%s: the rings of saved queue %u are not in guest memory",
			       vd->name, q->index);
	}
	return 0;
}

int virtio_load(struct virtio_dev *vd, const struct virtio_state *st, struct err *err)
{
	struct virtq old[VIRTIO_MAX_QUEUES];
	uint64_t old_acked = vd->acked;
	int r = state_fits(vd, st, err);

	if (r < 0) {
		return r;
	}
	memcpy(old, vd->queue, sizeof(old));
	settle(vd, st->features, st->status);
	for (unsigned i = 0; i < vd->nqueues; i++) {
		/* A broken device may have had any rings; they are not looked at again. */
		r = queue_load(&vd->queue[i], &st->q[i],
			       !st->broken && (st->status & VIRTIO_STATUS_DRIVER_OK), err);
		if (r < 0) {
			goto restore_queues;
		}
	}
	vd->config_vector = st->config_vector;
	atomic_store(&vd->config_generation, st->config_generation);
	atomic_store(&vd->broken, st->broken);
	atomic_store(&vd->status, st->status);
	if (st->broken && !(st->status & VIRTIO_STATUS_DEVICE_NEEDS_RESET)) {
		loop_post(vd->vm->loop, &vd->broken_work); /* saved before it was said */
	}
	return 0;

restore_queues:
	settle(vd, old_acked, virtio_get_status(vd));
	memcpy(vd->queue, old, sizeof(old));
	return r;
}
