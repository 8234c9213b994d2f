/*
 * A machine with a virtio-blk device: see blk_rig.h.
 */
#include "blk_rig.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

/* --- the spy: everything goes on to the node below, on a channel of its own --- */

struct spy_chan {
	struct blk_chan chan;
	struct blk_chan *below;
};

static void spy_done(struct blk_req *req, int result)
{
	struct blk_req *upper = req->opaque;

	req->opaque = NULL;
	blk_complete(upper, result);
}

/* Requests of a rig at a time: a queue's worth, several times over. */
struct spy_pool {
	struct spy_chan c;
	struct blk_req req[2048];
};

static void spy_submit(struct blk_chan *chan, struct blk_req *r)
{
	struct blk_spy *s = container_of(chan->node, struct blk_spy, node);
	struct spy_pool *p = (struct spy_pool *)chan;

	s->op = r->op;
	s->flags = r->flags;
	s->off = r->off;
	s->len = r->len;
	s->requests++;
	for (unsigned i = 0; i < ARRAY_SIZE(p->req); i++) {
		struct blk_req *q = &p->req[i];

		if (!q->opaque) {
			*q = (struct blk_req){
				.op = r->op,
				.flags = r->flags,
				.off = r->off,
				.len = r->len,
				.iov = r->iov,
				.niov = r->niov,
				.done = spy_done,
				.opaque = r,
			};
			blk_submit(p->c.below, q);
			return;
		}
	}
	assert(!"more requests than the rig has");
}

static int spy_open(struct blk_chan *chan, struct err *err)
{
	struct blk_spy *s = container_of(chan->node, struct blk_spy, node);

	return blk_chan_open(s->below, chan->loop, &((struct spy_pool *)chan)->c.below, err);
}

static void spy_close(struct blk_chan *chan)
{
	blk_chan_close(((struct spy_pool *)chan)->c.below);
}

static void spy_node_close(struct blk_node *n)
{
	(void)n; /* part of the rig */
}

static const struct blk_driver spy_ops = {
	.name = "spy",
	.chan_size = sizeof(struct spy_pool),
	.chan_open = spy_open,
	.chan_close = spy_close,
	.submit = spy_submit,
	.close = spy_node_close,
};

static void spy_resized(void *opaque)
{
	blk_tell_resized(&((struct blk_rig *)opaque)->spy.node);
}

static const struct blk_user_ops spy_user_ops = {.resized = spy_resized};

/* --- the rig --- */

void blk_rig_init_io(struct blk_rig *b, const struct virtio_blk_config *cfg, bool iothread,
		     struct blk_node *node)
{
	struct virtio_blk_config c = cfg ? *cfg : (struct virtio_blk_config){0};
	struct err err = {.msg = ""};
	struct virtio_dev *vd;
	int rc;

	memset(b, 0, sizeof(*b));
	rig_init(&b->r, iothread, 0);
	b->disk_node = node;
	if (!node) {
		rc = blk_mem_new("disk", BLK_RIG_SIZE, &b->disk_node, &b->disk);
		assert(rc == 0);
	}
	rc = blk_fault_new("fault", b->disk_node, &b->fault);
	assert(rc == 0);
	b->spy.below = b->fault;
	blk_node_init(&b->spy.node, &spy_ops, "spy", 0);
	b->spy.node.info = b->fault->info;
	b->spy.node.follows = b->fault;
	c.loop = b->r.iothread;
	rc = virtio_blk_new(&b->r.fv->vm, &b->spy.node, &c, "disk0", &vd, &err);
	assert(rc == 0);
	/* so that a test can see a second device refused */
	rc = blk_attach(b->fault, "the spy",
			BLK_PERM_CONSISTENT_READ |
				(b->fault->info.read_only ? 0 : BLK_PERM_WRITE),
			BLK_PERM_ALL & ~BLK_PERM_WRITE, &spy_user_ops, b, &b->fault_user, NULL);
	assert(rc == 0);
	rig_add(&b->r, vd, "disk0");
	b->hdr = vdrv_alloc(&b->r.d, 4096, 4096);
	b->status = vdrv_alloc(&b->r.d, 4096, 4096);
	b->data = vdrv_alloc(&b->r.d, BLK_RIG_SLOTS * (uint64_t)BLK_RIG_DATA, 4096);
}

void blk_rig_init(struct blk_rig *b, const struct virtio_blk_config *cfg)
{
	blk_rig_init_io(b, cfg, false, NULL);
}

void blk_rig_fini(struct blk_rig *b)
{
	blk_rig_hold(b, false);
	rig_fini(&b->r);
	blk_unref(&b->spy.node);
	blk_detach(b->fault_user);
	blk_unref(b->fault);
}

void blk_rig_hold(struct blk_rig *b, bool on)
{
	blk_fault_hold(b->fault, on);
}

static bool reads_data(uint32_t type)
{
	return type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_DISCARD ||
	       type == VIRTIO_BLK_T_WRITE_ZEROES;
}

static int add(struct blk_rig *b, unsigned slot, uint32_t type, uint64_t sector, uint32_t len,
	       unsigned flags)
{
	struct vdrv *d = &b->r.d;
	gpa_t hdr = b->hdr + 16 * slot, status = b->status + slot;
	struct virtio_blk_req_hdr *h = vdrv_ptr(d, hdr, sizeof(*h));
	struct vdrv_seg seg[3] = {{hdr, sizeof(*h)}};
	unsigned n = 1, n_out;

	assert(slot < BLK_RIG_SLOTS && len <= BLK_RIG_DATA);
	*h = (struct virtio_blk_req_hdr){le32_of(type), le32_of(0), le64_of(sector)};
	*(uint8_t *)vdrv_ptr(d, status, 1) = 0xff;
	if (len) {
		seg[n++] = (struct vdrv_seg){b->data + slot * (uint64_t)BLK_RIG_DATA, len};
	}
	n_out = reads_data(type) ? n : 1;
	seg[n++] = (struct vdrv_seg){status, 1};
	return vdrv_add(&d->q[0], seg, n_out, n - n_out, flags);
}

int blk_rig_add(struct blk_rig *b, unsigned slot, uint32_t type, uint64_t sector, uint32_t len)
{
	return add(b, slot, type, sector, len, 0);
}

int blk_rig_add_indirect(struct blk_rig *b, unsigned slot, uint32_t type, uint64_t sector,
			 uint32_t len)
{
	return add(b, slot, type, sector, len, VDRV_INDIRECT);
}

static bool go(struct blk_rig *b, int head)
{
	struct vdrv_queue *q = &b->r.d.q[0];
	uint16_t back;

	if (head < 0) {
		return false;
	}
	vdrv_kick(q);
	return vdrv_wait(q, &back, &b->used_len) && back == head;
}

uint8_t blk_rig_do(struct blk_rig *b, uint32_t type, uint64_t sector, uint32_t len)
{
	if (!go(b, blk_rig_add(b, 0, type, sector, len))) {
		return 0xff;
	}
	return *(uint8_t *)vdrv_ptr(&b->r.d, b->status, 1);
}

uint8_t blk_rig_erase(struct blk_rig *b, uint32_t type, uint64_t sector, uint32_t count,
		      uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes *s = vdrv_ptr(&b->r.d, b->data, sizeof(*s));

	s->sector = le64_of(sector);
	s->num_sectors = le32_of(count);
	s->flags = le32_of(flags);
	return blk_rig_do(b, type, 0, sizeof(*s));
}

/* Lays out pieces of the given lengths, a hole between any two; how many there are. */
static unsigned lay_out(gpa_t at, const unsigned len[8], struct vdrv_seg *seg)
{
	unsigned n = 0;

	while (n < 8 && len[n]) {
		seg[n] = (struct vdrv_seg){at, len[n]};
		at += len[n] + 5;
		n++;
	}
	return n;
}

uint8_t blk_rig_raw(struct blk_rig *b, uint32_t type, uint64_t sector,
		    const unsigned out_len[8], const unsigned in_len[8], const void *out,
		    void *in, unsigned flags)
{
	struct vdrv *d = &b->r.d;
	struct virtio_blk_req_hdr h = {le32_of(type), le32_of(0), le64_of(sector)};
	struct vdrv_seg seg[16];
	unsigned n_out = lay_out(b->data, out_len, seg);
	unsigned n_in = lay_out(b->data + BLK_RIG_DATA, in_len, seg + n_out);
	uint8_t all[sizeof(h) + 4096], *p = all;

	memcpy(all, &h, sizeof(h));
	if (out) {
		unsigned total = 0;

		for (unsigned i = 0; i < n_out; i++) {
			total += seg[i].len;
		}
		assert(total > sizeof(h) && total <= sizeof(all));
		memcpy(all + sizeof(h), out, total - sizeof(h));
	}
	for (unsigned i = 0; i < n_out; i++) {
		memcpy(vdrv_ptr(d, seg[i].addr, seg[i].len), p, seg[i].len);
		p += seg[i].len;
	}
	for (unsigned i = 0; i < n_in; i++) {
		memset(vdrv_ptr(d, seg[n_out + i].addr, seg[n_out + i].len), 0xff,
		       seg[n_out + i].len);
	}
	if (!go(b, vdrv_add(&d->q[0], seg, n_out, n_in, flags))) {
		return 0xff;
	}
	p = in;
	for (unsigned i = 0; i < n_in; i++) {
		memcpy(p, vdrv_ptr(d, seg[n_out + i].addr, seg[n_out + i].len),
		       seg[n_out + i].len);
		p += seg[n_out + i].len;
	}
	return p[-1];
}
