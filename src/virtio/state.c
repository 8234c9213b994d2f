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

static const struct state_field queue_fields[] = {
	STATE_F_U16(struct virtq_state, size),
	STATE_F_U16(struct virtq_state, vector),
	STATE_F_U16(struct virtq_state, last_avail),
	STATE_F_U16(struct virtq_state, used_idx),
	STATE_F_BOOL(struct virtq_state, enabled),
	STATE_F_U64(struct virtq_state, desc),
	STATE_F_U64(struct virtq_state, avail),
	STATE_F_U64(struct virtq_state, used),
	STATE_F_END,
};
static const struct state_desc queue_desc = {
	.name = "virtqueue",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct virtq_state),
	.fields = queue_fields,
};

static int state_validate(const void *p, struct err *err)
{
	const struct virtio_state *st = p;

	for (uint32_t i = 0; i < st->nqueues; i++) {
		const struct virtq_state *q = &st->q[i];

		if (!is_pow2(q->size) || q->size > VIRTQ_MAX_SIZE) {
			return err_set(err, EINVAL, "virtqueue %u has the impossible size %u",
				       i, q->size);
		}
		if (q->desc % VIRTQ_DESC_ALIGN || q->avail % VIRTQ_AVAIL_ALIGN ||
		    q->used % VIRTQ_USED_ALIGN) {
			return err_set(err, EINVAL, "virtqueue %u has a misaligned ring", i);
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
	if (st->features & ~vd->offered) {
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
	for (unsigned i = 0; i < vd->nqueues; i++) {
		if (st->q[i].size > vd->queue[i].max_size) {
			return err_set(err, EINVAL,
				       "%s: saved queue %u has %u entries, this device has at "
				       "most %u; start the machine with the same queue size",
				       vd->name, i, st->q[i].size, vd->queue[i].max_size);
		}
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
	vd->acked = st->features;
	for (unsigned i = 0; i < vd->nqueues; i++) {
		const struct virtq_state *s = &st->q[i];
		struct virtq *q = &vd->queue[i];

		virtq_defaults(q);
		q->size = s->size;
		virtio_queue_set_vector(q, s->vector);
		q->enabled = s->enabled;
		q->desc_gpa = s->desc;
		q->avail_gpa = s->avail;
		q->used_gpa = s->used;
		q->last_avail = s->last_avail;
		q->used_idx = s->used_idx;
		/* A broken device may have had any rings; they are not looked at again. */
		if (q->enabled && !st->broken && (st->status & VIRTIO_STATUS_DRIVER_OK) &&
		    virtq_map(q) < 0) {
			r = err_set(err, EINVAL,
				    "%s: the rings of saved queue %u are not in guest memory",
				    vd->name, i);
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
	memcpy(vd->queue, old, sizeof(old));
	vd->acked = old_acked;
	return r;
}
