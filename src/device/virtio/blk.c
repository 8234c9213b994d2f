/*
 * virtio-blk. Virtio 1.2, section 5.2.
 *
 * Path of a request: doorbell → blk_kick() pops all there is → blk_submit() for each → the loop
 * submits them together before it sleeps → io_done() writes the status and pushes → one
 * interrupt for the batch, from the loop's hook.
 *
 * Queues are alike and share nothing but the configuration: each has its loop, its requests and a
 * channel of the block node, which it shares with the device's other queues on the same loop.
 *
 * Invariants:
 * 1. a request structure is free, or its chain is popped and not pushed; a queue has as many as
 *    entries, so one is always free (virtq_split.c and virtq_packed.c, invariant 1);
 * 2. the status byte is the last device-writable byte of the chain, wherever the descriptors
 *    end; the data in front of it is what the block node gets;
 * 3. nothing is allocated after creation.
 *
 * A request that the driver may make but that cannot be done is answered with IOERR or UNSUPP;
 * a chain without room for header or status breaks the device. What the disk cannot do is up to
 * the error policy (werror, rerror): with `stop` the request is kept, the machine stops, and the
 * request is submitted again when its queue starts. While the queue stands still it is parked: not
 * in flight for the queue. A reset drops it. It is saved with the state, and where that is loaded it begins
 * anew, from its header on.
 *
 * Write cache: volatile if the node has one, the driver took FLUSH, and it did not switch the
 * cache off (CONFIG_WCE); else every write and write-zeroes is FUA (5.2.6.2).
 *
 * Threads: the queue's loop; configuration on the control loop. Untrusted: the driver.
 */
#include "device/virtio/blk_int.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "core/power.h"
#include "spec/virtio.h"
#include "spec/virtio_blk.h"

#define QUEUE_SIZE_DEFAULT 256
#define QUEUE_SIZE_MIN	   4
#define HDR_STATUS_SEGS	   2u
#define SPLIT_SEGS	   2u	      /* pieces that lie across two memory regions */
#define DISCARD_SECTORS	   (1u << 22) /* 2 GiB */
#define ZERO_SECTORS	   (1u << 16) /* 32 MiB: they may have to be written */
#define KICK_ROUNDS	   4
#define SECTOR		   VIRTIO_BLK_SECTOR_SIZE
#define FEATURE(bit)	   (UINT64_C(1) << (bit))

/* --- configuration --- */

static uint64_t blk_features(struct virtio_dev *vd)
{
	const struct virtio_blk *b = blk_of_vd(vd);
	uint64_t f = FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
		     FEATURE(VIRTIO_BLK_F_TOPOLOGY);

	if (vd->nqueues > 1) {
		f |= FEATURE(VIRTIO_BLK_F_MQ);
	}

	if (b->read_only) {
		return f | FEATURE(VIRTIO_BLK_F_RO);
	}
	if (b->info.write_cache) {
		f |= FEATURE(VIRTIO_BLK_F_FLUSH);
		f |= b->config_wce ? FEATURE(VIRTIO_BLK_F_CONFIG_WCE) : 0;
	}
	if (b->info.can_discard) {
		f |= FEATURE(VIRTIO_BLK_F_DISCARD);
	}
	if (b->info.can_zero) {
		f |= FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
	}
	return f;
}

static void blk_config_read(struct virtio_dev *vd, unsigned off, void *buf, unsigned len)
{
	struct virtio_blk *b = blk_of_vd(vd);
	const struct blk_info *i = &b->info;
	uint32_t align = MAX(i->discard_granularity, i->block_size) / SECTOR;
	struct virtio_blk_config_layout c = {
		.capacity = le64_of(atomic_load(&b->sectors)),
		.seg_max = le32_of(b->max_segs - HDR_STATUS_SEGS - SPLIT_SEGS),
		.blk_size = le32_of(i->block_size),
		.topology.min_io_size = le16_of(1),
		.writeback = atomic_load(&b->writeback),
		.num_queues = le16_of((uint16_t)vd->nqueues),
	};

	if (i->can_discard && !b->read_only) {
		c.max_discard_sectors = le32_of(DISCARD_SECTORS);
		c.max_discard_seg = le32_of(1);
		c.discard_sector_alignment = le32_of(align);
	}
	if (i->can_zero && !b->read_only) {
		c.max_write_zeroes_sectors = le32_of(ZERO_SECTORS);
		c.max_write_zeroes_seg = le32_of(1);
		c.write_zeroes_may_unmap = i->can_discard;
	}
	memcpy(buf, (const char *)&c + off, len);
}

static void blk_config_write(struct virtio_dev *vd, unsigned off, const void *buf, unsigned len)
{
	struct virtio_blk *b = blk_of_vd(vd);
	uint8_t v;

	if (off != offsetof(struct virtio_blk_config_layout, writeback) || len != 1 ||
	    !virtio_has(vd, VIRTIO_BLK_F_CONFIG_WCE)) {
		return; /* everything else is read-only */
	}
	memcpy(&v, buf, 1);
	atomic_store(&b->writeback, v & 1);
}

static bool writeback_at_first(const struct virtio_blk *b)
{
	return b->info.write_cache && !b->write_through;
}

static void blk_reset(struct virtio_dev *vd)
{
	struct virtio_blk *b = blk_of_vd(vd);

	atomic_store(&b->writeback, writeback_at_first(b));
	/* of a driver that is gone; no queue runs */
	for (unsigned i = 0; i < b->made; i++) {
		blk_kept_drop(&b->queue[i]);
	}
}

/* The node has another size. Control loop. */
static void blk_resized(void *opaque)
{
	struct virtio_blk *b = opaque;

	atomic_store(&b->sectors, blk_size(b->node) / SECTOR);
	virtio_config_changed(&b->vd);
}

static unsigned write_flags(struct virtio_blk *b)
{
	bool cached = atomic_load(&b->writeback) && virtio_has(&b->vd, VIRTIO_BLK_F_FLUSH);

	return cached ? 0 : BLK_FUA;
}

/* --- answers --- */

static void answer(struct blk_request *r, uint8_t status, uint32_t written)
{
	struct blk_queue *bq = r->bq;

	/* The status byte comes back to the chain it was cut from. */
	((uint8_t *)r->last->iov_base)[r->last->iov_len++] = status;
	if (written != r->chain.in_len) {
		/* Not everything in front of the status was written, so the length that the
		 * driver hears cannot count it; the pages are dirty all the same. */
		mem_dirty_iov(bq->vq->vd->vm->mem, r->iov + r->chain.n_out, r->chain.n_in,
			      r->chain.in_len);
	}
	virtq_push(bq->vq, &r->chain, written);
	bq->unsignalled = true;
	r->next = bq->free;
	bq->free = r;
}

/* Nothing but the status was written. */
static void answer_failed(struct blk_request *r, uint8_t status)
{
	answer(r, status, r->chain.in_len == 1 ? 1 : 0);
}

static void stopped_check(struct blk_queue *bq)
{
	struct virtq *q = bq->vq;

	if (!virtq_running(q) && q->inflight == 0) {
		virtq_notify(q);
		bq->unsignalled = false;
		loop_hook_del(&bq->hook);
		virtq_stopped(q);
	}
}

/* --- errors --- */

/* Their driver has reset them. */
void blk_kept_drop(struct blk_queue *bq)
{
	while (bq->kept) {
		struct blk_request *r = bq->kept;

		bq->kept = r->next;
		r->whole = false;
		r->next = bq->free;
		bq->free = r;
	}
	bq->kept_end = &bq->kept;
}

/* Keeps a request until the queue starts again. Of a queue that is stopping it is no longer in
 * flight, so that the machine can stop. */
static void keep(struct blk_request *r)
{
	struct blk_queue *bq = r->bq;
	struct virtq *q = bq->vq;

	if (!virtq_running(q)) {
		virtq_park(q, &r->chain);
	}
	r->next = NULL;
	*bq->kept_end = r;
	bq->kept_end = &r->next;
}

static void io_failed(struct blk_request *r, int result)
{
	struct virtio_blk *b = r->bq->blk;
	bool read = r->io.op == BLK_READ;
	enum virtio_blk_policy action = read ? b->rerror : b->werror;

	if (action == VIRTIO_BLK_ENOSPC) {
		action = result == -ENOSPC ? VIRTIO_BLK_STOP : VIRTIO_BLK_REPORT;
	}
	if (b->error) {
		b->error(b->error_opaque, &(struct virtio_blk_error){
						  .device = b->vd.name,
						  .node = b->node,
						  .read = read,
						  .error = result,
						  .action = action,
					  });
	}
	if (action == VIRTIO_BLK_STOP) {
		keep(r);
		b->vd.vm->power->request(b->vd.vm->power, POWER_IO_ERROR);
	} else if (action == VIRTIO_BLK_IGNORE) {
		answer_failed(r, VIRTIO_BLK_S_OK);
	} else {
		answer_failed(r, VIRTIO_BLK_S_IOERR);
	}
}

static void io_done(struct blk_req *io, int result)
{
	struct blk_request *r = container_of(io, struct blk_request, io);
	struct blk_queue *bq = r->bq;

	if (result == 0) {
		/* A read fills all of the in-part; of a write it is the status alone. */
		bool all = io->op == BLK_READ || r->chain.in_len == 1;

		answer(r, VIRTIO_BLK_S_OK, all ? r->chain.in_len : 0);
	} else {
		io_failed(r, result);
	}
	stopped_check(bq);
}

static void batch_end(void *arg)
{
	struct blk_queue *bq = arg;

	if (bq->unsignalled) {
		bq->unsignalled = false;
		virtq_notify(bq->vq);
	}
}

/* --- requests --- */

/* Byte range of a request in sectors, or false if it is not inside the disk. */
static bool range_set(const struct virtio_blk *b, struct blk_req *io, uint64_t sector,
		      uint64_t bytes)
{
	uint64_t capacity = atomic_load_explicit(&b->sectors, memory_order_relaxed);

	if (bytes % SECTOR || !range_within(sector, bytes / SECTOR, capacity)) {
		return false;
	}
	io->off = sector * SECTOR;
	io->len = bytes;
	return true;
}

/* Cuts the header off the front of the out-part; what is left begins at *first. */
static void header_take(struct blk_request *r, struct virtio_blk_req_hdr *h, unsigned *first)
{
	struct iov_cur cur = iov_cur_init(r->iov, r->chain.n_out);
	size_t done = iov_cur_read(&cur, h, sizeof(*h));
	size_t left = sizeof(*h);
	unsigned i = 0;

	assert(done == sizeof(*h));
	while (i < r->chain.n_out && left >= r->iov[i].iov_len) {
		left -= r->iov[i].iov_len;
		i++;
	}
	if (left) {
		r->iov[i].iov_base = (char *)r->iov[i].iov_base + left;
		r->iov[i].iov_len -= left;
	}
	*first = i;
}

static void transfer(struct blk_request *r, enum blk_op op, uint64_t sector, unsigned first)
{
	struct virtio_blk *b = r->bq->blk;
	bool read = op == BLK_READ;
	unsigned n = read ? (unsigned)(r->last - (r->iov + first)) + 1 : r->chain.n_out - first;
	uint64_t bytes = read ? r->chain.in_len - 1
			      : r->chain.out_len - sizeof(struct virtio_blk_req_hdr);

	if (!range_set(b, &r->io, sector, bytes) || (!read && b->read_only)) {
		answer_failed(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->io.op = op;
	r->io.iov = r->iov + first;
	r->io.niov = n;
	r->io.flags = read ? 0 : write_flags(b);
	blk_submit(r->bq->chan, &r->io);
}

/* DISCARD and WRITE_ZEROES: one segment (max_discard_seg and max_write_zeroes_seg are 1). */
static void erase(struct blk_request *r, enum blk_op op, unsigned first)
{
	struct virtio_blk *b = r->bq->blk;
	struct iov_cur cur = iov_cur_init(r->iov + first, r->chain.n_out - first);
	struct virtio_blk_discard_write_zeroes seg;
	bool zero = op == BLK_WRITE_ZEROES;
	uint64_t payload = r->chain.out_len - sizeof(struct virtio_blk_req_hdr);
	uint32_t flags, sectors;

	if (!virtio_has(&b->vd, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD)) {
		answer_failed(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (payload != sizeof(seg) || iov_cur_read(&cur, &seg, sizeof(seg)) != sizeof(seg)) {
		answer_failed(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	flags = le32_get(seg.flags);
	sectors = le32_get(seg.num_sectors);
	/* 5.2.6.2: unknown flags, and unmap in a discard, are unsupported. */
	if (flags & ~(zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u)) {
		answer_failed(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (sectors > (zero ? ZERO_SECTORS : DISCARD_SECTORS) || b->read_only ||
	    !range_set(b, &r->io, le64_get(seg.sector), (uint64_t)sectors * SECTOR)) {
		answer_failed(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->io.op = op;
	r->io.flags = zero ? write_flags(b) | (flags ? BLK_MAY_UNMAP : 0) : 0;
	r->io.iov = NULL;
	r->io.niov = 0;
	blk_submit(r->bq->chan, &r->io);
}

static void flush(struct blk_request *r)
{
	r->io.op = BLK_FLUSH;
	r->io.flags = 0;
	r->io.off = r->io.len = 0;
	r->io.iov = NULL;
	r->io.niov = 0;
	blk_submit(r->bq->chan, &r->io);
}

static void get_id(struct blk_request *r)
{
	struct iov_cur cur = iov_cur_init(r->iov + r->chain.n_out, r->chain.n_in);
	const uint8_t *serial = r->bq->blk->serial;
	size_t done = iov_cur_write(&cur, serial, VIRTIO_BLK_ID_BYTES);

	answer(r, VIRTIO_BLK_S_OK, done + 1 == r->chain.in_len ? r->chain.in_len : 0);
}

/* One popped chain. False: it broke the device. */
static bool request_start(struct blk_request *r)
{
	struct virtio_blk_req_hdr h;
	unsigned first;

	if (r->chain.out_len < sizeof(h) || r->chain.in_len < 1) {
		virtio_broken(r->bq->vq->vd, "request without room for header or status");
		return false;
	}
	r->last = &r->iov[r->chain.n_out + r->chain.n_in - 1];
	r->last->iov_len--;
	header_take(r, &h, &first);
	switch (le32_get(h.type)) {
	case VIRTIO_BLK_T_IN:
		transfer(r, BLK_READ, le64_get(h.sector), r->chain.n_out);
		break;
	case VIRTIO_BLK_T_OUT:
		transfer(r, BLK_WRITE, le64_get(h.sector), first);
		break;
	case VIRTIO_BLK_T_FLUSH:
		flush(r);
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(r);
		break;
	case VIRTIO_BLK_T_DISCARD:
		erase(r, BLK_DISCARD, first);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		erase(r, BLK_WRITE_ZEROES, first);
		break;
	default:
		answer_failed(r, VIRTIO_BLK_S_UNSUPP);
		break;
	}
	return true;
}

/* --- the queue --- */

/* The first of the free list, which is a stack, or one that was never used; NULL: none. */
struct blk_request *blk_request_free(struct blk_queue *bq)
{
	struct blk_request *r = bq->free;

	if (!r && bq->fresh < bq->vq->max_size) {
		r = bq->free = &bq->pool[bq->fresh];
		r->bq = bq;
		r->iov = bq->iovs + (size_t)bq->fresh * bq->blk->max_segs;
		r->io.done = io_done;
		bq->fresh++;
	}
	return r;
}

/* Takes one request; false if there is none, or the device is broken. */
static bool request_next(struct blk_queue *bq, struct virtq *q)
{
	struct blk_request *r = blk_request_free(bq);

	if (!r) {
		if (!virtq_empty(q)) {
			/* All entries are in flight: one of them was made available twice. */
			virtio_broken(q->vd, "more requests than the queue has entries");
		}
		return false;
	}
	if (virtq_pop(q, &r->chain, r->iov, bq->blk->max_segs) <= 0) {
		return false;
	}
	bq->free = r->next;
	if (!request_start(r)) {
		virtq_unpop(q, &r->chain);
		r->next = bq->free;
		bq->free = r;
		return false;
	}
	return true;
}

static void blk_kick(struct virtq *q)
{
	struct blk_queue *bq = blk_of_vq(q);

	/* Requests that are answered at once could keep a fast driver and us busy for ever:
	 * after some rounds the loop gets to its other work first. */
	for (unsigned rounds = 0; rounds < KICK_ROUNDS; rounds++) {
		unsigned taken = 0;

		virtq_kicks_off(q);
		while (taken < q->size && request_next(bq, q)) {
			taken++;
		}
		if (taken < q->size && !virtq_kicks_on(q)) {
			return;
		}
	}
	virtq_kicks_on(q);
	virtq_kick_self(q);
}

/* A request that was kept, of a queue that runs again. */
static void again(struct blk_queue *bq, struct blk_request *r)
{
	virtq_unpark(bq->vq, &r->chain);
	if (!r->whole) {
		blk_submit(bq->chan, &r->io);
		return;
	}
	r->whole = false;
	if (!request_start(r)) {
		virtq_park(bq->vq, &r->chain); /* it goes nowhere: the device is broken */
		r->next = bq->free;
		bq->free = r;
	}
}

static void blk_queue_start(struct virtq *q)
{
	struct blk_queue *bq = blk_of_vq(q);
	struct blk_request *r;

	bq->unsignalled = false;
	loop_hook_add(q->loop, &bq->hook);
	if (bq->resets != q->resets) {
		blk_kept_drop(bq);
		bq->resets = q->resets;
	}
	r = bq->kept;
	bq->kept = NULL;
	bq->kept_end = &bq->kept;
	while (r) {
		struct blk_request *next = r->next;

		again(bq, r);
		r = next;
	}
}

static void blk_queue_stop(struct virtq *q)
{
	struct blk_queue *bq = blk_of_vq(q);
	struct blk_request *r = bq->kept;

	/* again, now that the queue does not run */
	bq->kept = NULL;
	bq->kept_end = &bq->kept;
	while (r) {
		struct blk_request *next = r->next;

		keep(r);
		r = next;
	}
	blk_chan_hurry(bq->chan);
	stopped_check(bq);
}

/* --- life --- */

static void chan_close_on_loop(void *arg)
{
	struct blk_queue *bq = arg;

	blk_chan_close(bq->chan);
}

static void queues_free(struct virtio_blk *b)
{
	for (unsigned i = 0; i < b->made; i++) {
		struct blk_queue *bq = &b->queue[i];

		if (bq->chan_owned) {
			loop_call(bq->vq->loop, chan_close_on_loop, bq);
		}
		free(bq->pool);
		free(bq->iovs);
	}
	free(b->queue);
}

static void blk_destroy(struct virtio_dev *vd)
{
	struct virtio_blk *b = blk_of_vd(vd);

	virtio_dev_fini(vd);
	queues_free(b);
	blk_detach(b->user);
	free(b);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.pci_class = 0x010000, /* mass storage, SCSI: what firmware expects of it */
	.config_len = sizeof(struct virtio_blk_config_layout),
	.features = blk_features,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.queue_start = blk_queue_start,
	.queue_kick = blk_kick,
	.queue_stop = blk_queue_stop,
	.reset = blk_reset,
	.destroy = blk_destroy,
	.state = &blk_state_desc,
	.save = blk_save,
	.load = blk_load,
};

struct chan_call {
	struct blk_queue *bq;
	struct err *err;
	int result;
};

static void chan_open_on_loop(void *arg)
{
	struct chan_call *c = arg;

	c->result = blk_chan_open(c->bq->blk->node, c->bq->vq->loop, &c->bq->chan, c->err);
}

static int chan_find(struct blk_queue *bq, struct err *err)
{
	struct virtio_blk *b = bq->blk;
	struct chan_call call = {bq, err, 0};

	for (struct blk_queue *o = b->queue; o < bq; o++) {
		if (o->vq->loop == bq->vq->loop) {
			bq->chan = o->chan;
			return 0;
		}
	}
	loop_call(bq->vq->loop, chan_open_on_loop, &call);
	bq->chan_owned = call.result == 0;
	return call.result;
}

static int queue_make(struct virtio_blk *b, unsigned index, struct err *err)
{
	struct blk_queue *bq = &b->queue[index];
	unsigned size;

	bq->blk = b;
	bq->vq = &b->vd.queue[index];
	bq->hook = (struct loop_hook){.fn = batch_end, .opaque = bq};
	bq->kept_end = &bq->kept;
	size = bq->vq->max_size;
	b->made++;
	bq->pool = calloc(size, sizeof(*bq->pool));
	bq->iovs = calloc((size_t)size * b->max_segs, sizeof(*bq->iovs));
	if (!bq->pool || !bq->iovs) {
		return err_set(err, ENOMEM, "out of memory");
	}
	return chan_find(bq, err);
}

static int config_check(const struct virtio_blk_config *cfg, const char *id, struct err *err)
{
	unsigned size = cfg->queue_size;

	if (size && (!is_pow2(size) || size < QUEUE_SIZE_MIN || size > VIRTQ_MAX_SIZE)) {
		return err_set(err, EINVAL,
			       "%s: queue-size=%u is no power of two from %u to %u", id, size,
			       QUEUE_SIZE_MIN, VIRTQ_MAX_SIZE);
	}
	if (cfg->num_queues > VIRTIO_MAX_QUEUES) {
		return err_set(err, EINVAL, "%s: num-queues=%u is more than %u", id,
			       cfg->num_queues, VIRTIO_MAX_QUEUES);
	}
	if (cfg->serial && strlen(cfg->serial) > VIRTIO_BLK_ID_BYTES) {
		return err_set(err, EINVAL, "%s: serial=%s is longer than %u characters", id,
			       cfg->serial, VIRTIO_BLK_ID_BYTES);
	}
	return 0;
}

static const struct blk_user_ops user_ops = {.resized = blk_resized};

static int node_use(struct virtio_blk *b, const struct virtio_blk_config *cfg, const char *id,
		    struct err *err)
{
	unsigned perm = BLK_PERM_CONSISTENT_READ | (b->read_only ? 0 : BLK_PERM_WRITE);
	unsigned shared = cfg->share_rw ? BLK_PERM_ALL : BLK_PERM_ALL & ~BLK_PERM_WRITE;
	char who[96];

	if (!b->info.size) {
		return err_set(err, EINVAL, "disk '%s' is empty; give it a size (truncate -s)",
			       blk_filename(b->node)[0] ? blk_filename(b->node)
							: blk_name(b->node));
	}
	snprintf(who, sizeof(who), "device '%.60s'", id);
	return blk_attach(b->node, who, perm, shared, &user_ops, b, &b->user, err);
}

int virtio_blk_new(struct vm *vm, struct blk_node *node, const struct virtio_blk_config *cfg,
		   const char *id, struct virtio_dev **out, struct err *err)
{
	uint16_t size = cfg->queue_size ? cfg->queue_size : QUEUE_SIZE_DEFAULT;
	unsigned n = MAX(cfg->num_queues, 1u);
	struct virtio_blk *b;
	int r = config_check(cfg, id, err);

	if (r < 0) {
		return r;
	}
	b = calloc(1, sizeof(*b));
	if (!b) {
		return err_set(err, ENOMEM, "%s: out of memory", id);
	}
	b->node = node;
	blk_info(node, &b->info);
	b->read_only = cfg->read_only || b->info.read_only;
	b->max_segs = MIN(size + SPLIT_SEGS, VIRTQ_MAX_SEGS);
	b->write_through = cfg->write_through;
	b->config_wce = !cfg->no_config_wce;
	b->rerror = cfg->rerror;
	b->werror = cfg->werror;
	b->error = cfg->error;
	b->error_opaque = cfg->error_opaque;
	atomic_store(&b->sectors, b->info.size / SECTOR);
	atomic_store(&b->writeback, writeback_at_first(b));
	if (cfg->serial) {
		memcpy(b->serial, cfg->serial, strlen(cfg->serial));
	}
	r = virtio_dev_init(&b->vd, vm, &blk_ops, id, n, size, cfg->loop);
	if (r < 0) {
		err_set(err, -r, "%s: no eventfd (%s)", id, strerror(-r));
		goto destroy;
	}
	b->queue = calloc(n, sizeof(*b->queue));
	if (!b->queue) {
		r = err_set(err, ENOMEM, "%s: out of memory", id);
		goto destroy;
	}
	r = node_use(b, cfg, id, err);
	if (r < 0) {
		err_prefix(err, "%s", id);
		goto destroy;
	}
	for (unsigned i = 0; i < n; i++) {
		if (cfg->queue_loop) {
			virtio_queue_loop(&b->vd, i, cfg->queue_loop[i]);
		}
		r = queue_make(b, i, err);
		if (r < 0) {
			err_prefix(err, "%s", id);
			goto destroy;
		}
	}
	*out = &b->vd;
	return 0;

destroy:
	blk_destroy(&b->vd);
	return r;
}
