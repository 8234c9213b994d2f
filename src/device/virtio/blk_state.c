/*
 * virtio-blk: its state. What is in flight has ended when it is saved; requests that failed and wait
 * for their next try (werror=stop) are part of it.
 *
 * Such a request is saved as it was popped, not as it is under way: where it is loaded it starts from
 * its header, which is checked as every driver's is. Control loop. Untrusted: the stream.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "device/virtio/blk_int.h"
#include "virtio/parked.h"

struct blk_state {
	uint64_t capacity;
	bool writeback;
	struct virtq_parked kept;
};
static const struct state_field state_fields[] = {
	STATE_F_U64(struct blk_state, capacity),
	STATE_F_BOOL(struct blk_state, writeback),
	{
		.name = "kept",
		.type = STATE_STRUCT,
		.offset = offsetof(struct blk_state, kept),
		.size = sizeof(struct virtq_parked),
		.count_offset = -1,
		.nested = &virtq_parked_desc,
		.since = 2,
	},
	STATE_F_END,
};
const struct state_desc blk_state_desc = {
	.name = "virtio-blk",
	.version = 2,
	.min_version = 1,
	.size = sizeof(struct blk_state),
	.fields = state_fields,
};

/* The chain of a kept request as it was popped: header and status byte put back to its ends. */
static struct virtq_chain chain_whole(const struct blk_request *r, struct iovec *iov)
{
	struct virtq_chain c = r->chain;
	size_t out = 0, before = 0, cut;

	memcpy(iov, c.iov, (c.n_out + (size_t)c.n_in) * sizeof(*iov));
	c.iov = iov;
	if (r->whole) {
		return c;
	}
	iov[c.n_out + c.n_in - 1].iov_len++;
	for (unsigned i = 0; i < c.n_out; i++) {
		out += iov[i].iov_len;
	}
	cut = c.out_len - out; /* off the entry in which the header ends */
	for (unsigned i = 0; cut && i < c.n_out; i++) {
		if (before + cut == sizeof(struct virtio_blk_req_hdr)) {
			iov[i].iov_base = (char *)iov[i].iov_base - cut;
			iov[i].iov_len += cut;
			break;
		}
		before += iov[i].iov_len;
	}
	return c;
}

static int kept_save(struct virtio_blk *b, struct virtq_parked *st, struct err *err)
{
	struct iovec iov[VIRTQ_MAX_SEGS];

	for (unsigned i = 0; i < b->made && !atomic_load(&b->vd.broken); i++) {
		struct blk_queue *bq = &b->queue[i];
		bool stale = bq->resets != bq->vq->resets;

		for (struct blk_request *r = stale ? NULL : bq->kept; r; r = r->next) {
			struct virtq_chain c = chain_whole(r, iov);

			if (virtq_parked_save(st, bq->vq, &c)) {
				return err_set(
					err, EBUSY,
					"%s: too many requests have failed and wait for "
					"their next try; make room on the disk and let the "
					"machine go on (cont) before its state is saved",
					b->vd.name);
			}
		}
	}
	return 0;
}

int blk_save(struct virtio_dev *vd, void *st, struct err *err)
{
	struct virtio_blk *b = blk_of_vd(vd);
	struct blk_state *s = st;

	s->capacity = atomic_load(&b->sectors);
	s->writeback = atomic_load(&b->writeback);
	return kept_save(b, &s->kept, err);
}

/* The next free request, kept at once. */
static struct virtq_chain *kept_slot(struct virtq *q, unsigned *max)
{
	struct blk_queue *bq = blk_of_vq(q);
	struct blk_request *r = blk_request_free(bq);

	if (!r) {
		return NULL;
	}
	bq->free = r->next;
	r->whole = true;
	r->next = NULL;
	*bq->kept_end = r;
	bq->kept_end = &r->next;
	r->chain.iov = r->iov;
	*max = bq->blk->max_segs;
	return &r->chain;
}

int blk_load(struct virtio_dev *vd, const void *st, struct err *err)
{
	struct virtio_blk *b = blk_of_vd(vd);
	const struct blk_state *s = st;
	int ret;

	if (s->capacity != atomic_load(&b->sectors)) {
		return err_set(err, EINVAL,
			       "%s: the saved disk has %llu sectors, '%s' has %llu; give the "
			       "device the disk it was saved with",
			       vd->name, (unsigned long long)s->capacity, blk_name(b->node),
			       (unsigned long long)atomic_load(&b->sectors));
	}
	for (unsigned i = 0; i < b->made; i++) {
		blk_kept_drop(&b->queue[i]);
		b->queue[i].resets = b->queue[i].vq->resets;
	}
	ret = virtq_parked_load(&s->kept, vd, kept_slot, err);
	for (unsigned i = 0; i < b->made && ret; i++) {
		blk_kept_drop(&b->queue[i]);
	}
	atomic_store(&b->writeback, s->writeback);
	return ret;
}
