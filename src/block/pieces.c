/*
 * Requests that fit no call of the driver: longer than the node's limits, not aligned to
 * info.align, past the end of a node below a format, or a write of zeros with detect-zeroes.
 * They are done in pieces, one after the other, each a request of its own to the same driver.
 *
 *   read          whole blocks into a buffer, where the caller's part is not whole blocks
 *   write, zeroes a block at a time is read, changed and written where a part of it changes
 *   discard       the whole blocks in it
 *
 * Two writes to parts of one block must not read it at the same time: node->partial has the
 * blocks that are being changed, in order of arrival, over all channels of the node. An entry
 * may go on when no earlier one is on the same block; who leaves lets the next one go. (A write
 * of whole blocks does not look there: who has it in flight at once with another write to the
 * same bytes gets either.)
 *
 * Threads: a piece is on its channel's loop; node->partial is under node->lock, which only
 * writes of parts of blocks take. A channel keeps some pieces for the next request.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

#define PIECE_BUF   (64 * KiB)
#define PIECE_IOV   64
#define PIECE_SPARE 16
#define ZERO_STEP   256

enum step { STEP_DIRECT, STEP_READ, STEP_MODIFY_READ, STEP_MODIFY_WRITE };

struct blk_piece {
	struct blk_piece *next; /* spare */
	struct blk_chan *chan;
	struct blk_req req;
	struct blk_req *whole;
	enum blk_op op; /* whole's, or write-zeroes for a write of zeros */
	enum step step;
	uint64_t part; /* bytes of whole that this step is for */
	uint8_t *buf;  /* PIECE_BUF, when it was needed once */
	struct iovec iov[PIECE_IOV];
	/* node->partial */
	struct list node;
	uint64_t block;
	bool waits;
	struct loop_work go;
};

static void piece_next(struct blk_piece *p);

/* --- what needs pieces --- */

static bool all_zero(const struct iovec *iov, unsigned n)
{
	static const char zeros[ZERO_STEP];

	for (unsigned i = 0; i < n; i++) {
		const char *b = iov[i].iov_base;

		for (size_t off = 0; off < iov[i].iov_len; off += ZERO_STEP) {
			if (memcmp(b + off, zeros, MIN(ZERO_STEP, iov[i].iov_len - off))) {
				return false;
			}
		}
	}
	return true;
}

static uint64_t limit_of(const struct blk_info *i, enum blk_op op)
{
	uint64_t max = op == BLK_DISCARD	? i->max_discard
		       : op == BLK_WRITE_ZEROES ? i->max_zeroes
						: i->max_transfer;

	return max ? align_down(max, i->align) : UINT64_MAX;
}

static bool becomes_zeroes(const struct blk_chan *c, const struct blk_req *r)
{
	return blk_chan_special(c) && r->op == BLK_WRITE && !(r->flags & BLK_WRITE_COMPRESSED) &&
	       c->node->opt.detect_zeroes != BLK_DETECT_OFF && all_zero(r->iov, r->niov);
}

bool blk_pieces_needed(const struct blk_chan *c, const struct blk_req *r, uint64_t size)
{
	const struct blk_info *i = &c->node->info;

	if (r->op == BLK_FLUSH) {
		return false;
	}
	if (r->off + r->len > size && !blk_op_writes(r->op)) {
		return true;
	}
	if (r->op == BLK_STATUS) {
		return false;
	}
	return ((r->off | r->len) & (i->align - 1)) || r->len > limit_of(i, r->op) ||
	       (i->max_iov && r->niov > i->max_iov) || becomes_zeroes(c, r);
}

/* --- life of a piece --- */

static void partial_leave(struct blk_piece *p);

static void piece_end(struct blk_piece *p, int result)
{
	struct blk_chan *c = p->chan;
	struct blk_req *r = p->whole;
	unsigned kept = 0;

	for (struct blk_piece *s = c->spare; s; s = s->next) {
		kept++;
	}
	if (kept < PIECE_SPARE) {
		p->next = c->spare;
		c->spare = p;
	} else {
		free(p->buf);
		free(p);
	}
	blk_complete_later(r, result);
}

void blk_pieces_free(struct blk_chan *c)
{
	while (c->spare) {
		struct blk_piece *p = c->spare;

		c->spare = p->next;
		free(p->buf);
		free(p);
	}
}

static bool buf_get(struct blk_piece *p)
{
	if (!p->buf) {
		p->buf = aligned_alloc(4096, PIECE_BUF);
	}
	return p->buf != NULL;
}

static void piece_done(struct blk_req *req, int result);

static void piece_submit(struct blk_piece *p, enum blk_op op, uint64_t off, uint64_t len,
			 const struct iovec *iov, unsigned niov)
{
	struct blk_req *q = &p->req;

	*q = (struct blk_req){
		.op = op,
		.flags = p->whole->flags,
		.off = off,
		.len = len,
		.iov = iov,
		.niov = niov,
		.done = piece_done,
		.chan = p->chan,
		.top = p->chan,
		.cur = iov_cur_init(iov, niov),
	};
	p->chan->inflight++;
	p->chan->node->drv->submit(p->chan, q);
}

static void piece_submit_buf(struct blk_piece *p, enum blk_op op, uint64_t off, uint64_t len)
{
	p->iov[0] = (struct iovec){p->buf, len};
	piece_submit(p, op, off, len, p->iov, 1);
}

/* --- parts of blocks --- */

static bool partial_first_locked(const struct blk_node *n, const struct blk_piece *p)
{
	const struct list *pos;

	list_for_each (pos, &n->partial) {
		const struct blk_piece *o = list_entry(pos, const struct blk_piece, node);

		if (o == p) {
			return true;
		}
		if (o->block == p->block) {
			return false;
		}
	}
	return true;
}

static void modify_read(struct blk_piece *p)
{
	struct blk_node *n = p->chan->node;

	p->step = STEP_MODIFY_READ;
	if (p->block >= blk_size(n)) {
		memset(p->buf, 0, n->info.align);
		piece_done(&p->req, 0);
	} else {
		piece_submit_buf(p, BLK_READ, p->block, n->info.align);
	}
}

static void partial_go(void *arg)
{
	modify_read(arg);
}

static void partial_enter(struct blk_piece *p)
{
	struct blk_node *n = p->chan->node;
	bool first;

	p->go = (struct loop_work){.fn = partial_go, .arg = p};
	pthread_mutex_lock(&n->lock);
	list_add_tail(&n->partial, &p->node);
	first = partial_first_locked(n, p);
	p->waits = !first;
	pthread_mutex_unlock(&n->lock);
	if (first) {
		modify_read(p);
	}
}

static void partial_leave(struct blk_piece *p)
{
	struct blk_node *n = p->chan->node;
	struct list *pos;

	pthread_mutex_lock(&n->lock);
	list_del(&p->node);
	list_for_each (pos, &n->partial) {
		struct blk_piece *o = list_entry(pos, struct blk_piece, node);

		if (o->waits && partial_first_locked(n, o)) {
			o->waits = false;
			loop_post(o->chan->loop, &o->go);
		}
	}
	pthread_mutex_unlock(&n->lock);
}

/* --- steps --- */

/* How many iovecs of whole, from where it is, hold at most len bytes, and not fewer than a
 * block; they are copied to p->iov, and *len is what they hold, a multiple of align. 0: not
 * even a block. */
static unsigned iov_slice(struct blk_piece *p, uint64_t *len, unsigned max_iov, uint32_t align)
{
	struct iov_cur cur = p->whole->cur;
	unsigned max = max_iov ? MIN(max_iov, PIECE_IOV) : PIECE_IOV, n = 0;
	uint64_t have = 0, want;

	while (have < *len && n < max && cur.cnt) {
		size_t here = cur.iov->iov_len - cur.off;

		here = MIN(here, *len - have);
		p->iov[n] = (struct iovec){(char *)cur.iov->iov_base + cur.off, here};
		n += here > 0;
		have += here;
		iov_cur_skip(&cur, here);
		if (cur.cnt && cur.off == cur.iov->iov_len) {
			cur.iov++;
			cur.cnt--;
			cur.off = 0;
		}
	}
	want = align_down(have, align);
	while (n && have > want) {
		uint64_t cut = MIN(have - want, p->iov[n - 1].iov_len);

		p->iov[n - 1].iov_len -= cut;
		have -= cut;
		n -= p->iov[n - 1].iov_len == 0;
	}
	*len = want;
	return n;
}

/* The caller's part of the block or blocks in the buffer. */
static void read_step(struct blk_piece *p, uint64_t pos, uint64_t end, uint32_t align)
{
	uint64_t from = align_down(pos, align);
	uint64_t to = MIN(align_up(end, align), from + PIECE_BUF);

	if (!buf_get(p)) {
		piece_end(p, -ENOMEM);
		return;
	}
	p->step = STEP_READ;
	p->part = MIN(to, end) - pos;
	piece_submit_buf(p, BLK_READ, from, to - from);
}

static void modify_step(struct blk_piece *p, uint64_t pos, uint64_t end, uint32_t align)
{
	if (!buf_get(p)) {
		piece_end(p, -ENOMEM);
		return;
	}
	p->block = align_down(pos, align);
	p->part = MIN(p->block + align, end) - pos;
	partial_enter(p);
}

static void transfer_step(struct blk_piece *p, uint64_t pos, uint64_t end, bool aligned)
{
	const struct blk_info *i = &p->chan->node->info;
	uint64_t len = MIN(align_down(end - pos, i->align), limit_of(i, p->op));
	unsigned n = aligned && len ? iov_slice(p, &len, i->max_iov, i->align) : 0;

	if (n) {
		p->step = STEP_DIRECT;
		p->part = len;
		piece_submit(p, p->op, pos, len, p->iov, n);
	} else if (p->op == BLK_READ) {
		read_step(p, pos, end, i->align);
	} else {
		modify_step(p, pos, end, i->align);
	}
}

static void zeroes_step(struct blk_piece *p, uint64_t pos, uint64_t end)
{
	const struct blk_info *i = &p->chan->node->info;
	uint64_t len = MIN(align_down(end - pos, i->align), limit_of(i, p->op));

	if (pos % i->align == 0 && len) {
		p->step = STEP_DIRECT;
		p->part = len;
		piece_submit(p, p->op, pos, len, NULL, 0);
	} else if (p->whole->flags & BLK_NO_FALLBACK) {
		piece_end(p, -ENOTSUP);
	} else {
		modify_step(p, pos, end, i->align);
	}
}

static void discard_step(struct blk_piece *p, uint64_t pos, uint64_t end)
{
	const struct blk_info *i = &p->chan->node->info;
	uint64_t from = align_up(pos, i->align), to = align_down(end, i->align);

	if (from >= to) {
		piece_end(p, 0);
		return;
	}
	to = MIN(to, from + MIN(limit_of(i, p->op), to - from));
	p->step = STEP_DIRECT;
	p->part = to - pos;
	piece_submit(p, p->op, from, to - from, NULL, 0);
}

static void status_step(struct blk_piece *p, uint64_t pos, uint64_t size)
{
	struct blk_req *r = p->whole;

	if (pos >= size) {
		r->status =
			(struct blk_extent){.len = r->len, .flags = BLK_EXT_ZERO | BLK_EXT_EOF};
		piece_end(p, 0);
		return;
	}
	p->step = STEP_DIRECT;
	p->part = r->len;
	piece_submit(p, BLK_STATUS, pos, size - pos, NULL, 0);
}

static void piece_next(struct blk_piece *p)
{
	struct blk_req *r = p->whole;
	uint64_t pos = r->off + r->progress, end = r->off + r->len;
	uint64_t size = blk_size(p->chan->node);

	if (r->progress >= r->len) {
		piece_end(p, 0);
		return;
	}
	switch (p->op) {
	case BLK_READ:
		if (pos >= size) {
			iov_cur_zero(&r->cur, end - pos);
			piece_end(p, 0);
			return;
		}
		end = MIN(end, size);
		transfer_step(p, pos, end, pos % p->chan->node->info.align == 0);
		break;
	case BLK_WRITE:
		transfer_step(p, pos, end, pos % p->chan->node->info.align == 0);
		break;
	case BLK_WRITE_ZEROES:
		zeroes_step(p, pos, end);
		break;
	case BLK_DISCARD:
		discard_step(p, pos, end);
		break;
	default:
		status_step(p, pos, size);
		break;
	}
}

static void piece_done(struct blk_req *req, int result)
{
	struct blk_piece *p = container_of(req, struct blk_piece, req);
	struct blk_req *r = p->whole;
	uint64_t inside = (r->off + r->progress) % p->chan->node->info.align;

	if (p->step == STEP_MODIFY_READ && !result) {
		p->step = STEP_MODIFY_WRITE;
		if (p->op == BLK_WRITE) {
			iov_cur_read(&r->cur, p->buf + inside, p->part);
		} else {
			memset(p->buf + inside, 0, p->part);
		}
		piece_submit_buf(p, BLK_WRITE, p->block, p->chan->node->info.align);
		return;
	}
	if (p->step >= STEP_MODIFY_READ) {
		partial_leave(p);
	}
	if (result) {
		piece_end(p, result);
		return;
	}
	if (p->step == STEP_READ) {
		iov_cur_write(&r->cur, p->buf + inside, p->part);
	} else if (p->step == STEP_DIRECT && (p->op == BLK_READ || p->op == BLK_WRITE)) {
		iov_cur_skip(&r->cur, p->part);
	} else if (p->op == BLK_STATUS) {
		r->status = req->status;
	}
	r->progress += p->part;
	piece_next(p);
}

void blk_pieces_start(struct blk_chan *c, struct blk_req *r)
{
	struct blk_piece *p = c->spare;

	if (p) {
		c->spare = p->next;
	} else {
		p = calloc(1, sizeof(*p));
		if (!p) {
			blk_complete_later(r, -ENOMEM);
			return;
		}
		p->chan = c;
	}
	p->whole = r;
	p->op = r->op;
	if (becomes_zeroes(c, r)) {
		p->op = BLK_WRITE_ZEROES;
		r->flags |= c->node->opt.detect_zeroes == BLK_DETECT_UNMAP ? BLK_MAY_UNMAP : 0;
	}
	piece_next(p);
}
