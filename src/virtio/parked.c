/*
 * Parked requests as state: see parked.h. Virtio 1.2, sections 2.7 and 2.8.
 */
#include "virtio/parked.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

#include "virtio/virtq_int.h"

static const struct state_field chain_fields[] = {
	STATE_F_U16(struct virtq_parked_chain, queue),
	STATE_F_U16(struct virtq_parked_chain, head),
	STATE_F_U16(struct virtq_parked_chain, slots),
	STATE_F_U16(struct virtq_parked_chain, n_out),
	STATE_F_U16(struct virtq_parked_chain, n_in),
	STATE_F_END,
};
static const struct state_desc chain_desc = {
	.name = "virtqueue-request",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct virtq_parked_chain),
	.fields = chain_fields,
};
static const struct state_field seg_fields[] = {
	STATE_F_U64(struct virtq_parked_seg, gpa),
	STATE_F_U32(struct virtq_parked_seg, len),
	STATE_F_END,
};
static const struct state_desc seg_desc = {
	.name = "virtqueue-segment",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct virtq_parked_seg),
	.fields = seg_fields,
};

static int parked_validate(const void *p, struct err *err)
{
	const struct virtq_parked *st = p;
	uint64_t segs = 0;

	for (uint32_t i = 0; i < st->nchains; i++) {
		segs += st->chain[i].n_out + st->chain[i].n_in;
	}
	return segs == st->nsegs ? 0
				 : err_set(err, EINVAL,
					   "the kept requests have %llu segments, and "
					   "%u are there",
					   (unsigned long long)segs, st->nsegs);
}

static const struct state_field parked_fields[] = {
	STATE_F_VARRAY(struct virtq_parked, chain, &chain_desc, nchains),
	STATE_F_VARRAY(struct virtq_parked, seg, &seg_desc, nsegs),
	STATE_F_END,
};
const struct state_desc virtq_parked_desc = {
	.name = "virtqueue-parked",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct virtq_parked),
	.fields = parked_fields,
	.validate = parked_validate,
};

/* --- saving --- */

struct place {
	const char *host;
	gpa_t gpa;
};

static int region_has(struct mem_region *r, void *arg)
{
	const char *base = mem_region_host(r);
	struct place *p = arg;

	if (mem_region_kind(r) != MEM_RAM || p->host < base ||
	    p->host >= base + mem_region_size(r)) {
		return 0;
	}
	p->gpa = mem_region_gpa(r) + (uint64_t)(p->host - base);
	return 1;
}

int virtq_parked_save(struct virtq_parked *st, struct virtq *q, const struct virtq_chain *c)
{
	unsigned n = (unsigned)c->n_out + c->n_in;

	if (st->nchains == VIRTQ_PARKED_CHAINS || n > VIRTQ_PARKED_SEGS - st->nsegs) {
		return -E2BIG;
	}
	for (unsigned i = 0; i < n; i++) {
		struct place p = {.host = c->iov[i].iov_base};
		/* a segment is a piece of one region: mem_span() */
		int found = mem_for_each(q->vd->vm->mem, region_has, &p);

		assert(found == 1);
		st->seg[st->nsegs++] = (struct virtq_parked_seg){
			.gpa = p.gpa,
			.len = (uint32_t)c->iov[i].iov_len,
		};
	}
	st->chain[st->nchains++] = (struct virtq_parked_chain){
		.queue = (uint16_t)q->index,
		.head = c->head,
		.slots = c->slots,
		.n_out = c->n_out,
		.n_in = c->n_in,
	};
	return 0;
}

/* --- loading --- */

/* How much of a ring the chains before this one have. */
struct ring_use {
	unsigned chains, slots;
};

/* What is wrong with the place in its ring that a chain says it has; or NULL. */
static const char *place_check(const struct virtq *q, const struct virtq_parked_chain *s,
			       struct ring_use *use)
{
	bool packed = q->ring == &virtq_packed;

	if (!q->desc) {
		return "its queue is not in use";
	}
	use->chains++;
	use->slots += s->slots;
	if (use->chains > q->size || use->slots > q->size || packed != (s->slots > 0) ||
	    (!packed && s->head >= q->size)) {
		return "it has no place in its ring";
	}
	return NULL;
}

static const char *chain_fill(struct virtq *q, const struct virtq_parked_chain *s,
			      const struct virtq_parked_seg *seg, struct virtq_chain *c,
			      unsigned max)
{
	const char *bad = NULL;

	*c = (struct virtq_chain){.head = s->head, .slots = s->slots, .iov = c->iov};
	for (unsigned i = 0; i < (unsigned)s->n_out + s->n_in && !bad; i++) {
		struct virtq_elem d = {
			.addr = seg[i].gpa,
			.len = seg[i].len,
			.flags = i < s->n_out ? 0 : VIRTQ_DESC_F_WRITE,
		};

		bad = virtq_chain_add(q, c, &d, MIN(max, VIRTQ_MAX_SEGS));
	}
	return bad;
}

int virtq_parked_load(const struct virtq_parked *st, struct virtio_dev *vd,
		      virtq_parked_slot_fn *slot, struct err *err)
{
	struct ring_use use[VIRTIO_MAX_QUEUES] = {0};
	const struct virtq_parked_seg *seg = st->seg;

	for (uint32_t i = 0; i < st->nchains; i++) {
		const struct virtq_parked_chain *s = &st->chain[i];
		const char *bad = s->queue < vd->nqueues ? NULL : "there is no such queue";
		struct virtq *q = bad ? NULL : &vd->queue[s->queue];
		struct virtq_chain *c = NULL;
		unsigned max = 0;

		if (!bad) {
			bad = place_check(q, s, &use[s->queue]);
		}
		if (!bad) {
			c = slot(q, &max);
			bad = c ? chain_fill(q, s, seg, c, max) : "there is no room for it";
		}
		if (bad) {
			return err_set(err, EINVAL, "%s: kept request %u of queue %u: %s",
				       vd->name, i, s->queue, bad);
		}
		seg += s->n_out + s->n_in;
	}
	return 0;
}
