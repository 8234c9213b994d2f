/*
 * driver=qcow2: channels and the worker.
 *
 * What a request needs of the mapping is looked up in the cache on the channel's own loop, without a
 * lock (q2_peek()). If all of it is there, reads, and writes to clusters that are allocated and ours
 * alone, go straight to the child's channel of the same loop: as they are if they are in one piece there,
 * else as requests of their own. Everything else is posted to the node's
 * worker, the one thread that changes the image: what is not in the cache, allocation, copying,
 * compressed clusters, write-zeroes, discard, flush with metadata to write. A read that only lacked a
 * slice comes back and goes the fast way.
 *
 * Invariants:
 *  1. while a request of the fast path is in flight the channel's reader counts it, so that no cluster
 *     that it uses is given to somebody else (qcow2_overlap.c);
 *  2. a flush goes straight to the file only if every link that was made is on disk (q->meta_dirty);
 *  3. the fast path writes only after q2_first_write() (q->write_ready), and not to a corrupt image.
 *
 * Threads: a channel is its loop's. b->todo and c->back are under their locks, off the fast path.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define MAX_EXTENTS 16
#define MAX_BATCH   32
#define SUB_IOV	    8
#define RETRY	    1 /* as a result: from the worker back to the fast path */

struct q2_op;
struct q2_sub { /* a request to a child */
	struct blk_req req;
	struct q2_op *op;
	struct q2_sub *next;
	struct iovec iov[SUB_IOV], *more;
};
struct q2_op { /* a request in flight on the fast path */
	struct blk_req *r;
	struct q2_op *next;
	unsigned phase, pending;
	int error;
};
struct q2_chan {
	struct blk_chan chan;
	struct blk_chan *file, *data, *backing;
	bool forwards; /* requests whole: no other qcow2 does that with the same ones */
	struct q2_reader reader;
	struct q2_op *ops; /* free ones */
	struct q2_sub *subs;
	pthread_mutex_t lock;
	struct list back; /* lock: lock; done by the worker */
	struct loop_work back_work;
};

static struct q2_chan *chan_of(struct blk_chan *c)
{
	return container_of(c, struct q2_chan, chan);
}

/* --- to the worker and back --- */

static void to_worker(struct q2_chan *c, struct blk_req *r)
{
	struct blk_qcow2 *b = q2_node_of(c->chan.node);

	pthread_mutex_lock(&b->lock);
	list_add_tail(&b->todo, &r->node);
	pthread_mutex_unlock(&b->lock);
	loop_post(b->worker, &b->work);
}

static void give_back(struct blk_req *r, int result)
{
	struct q2_chan *c = chan_of(r->chan);

	r->result = result;
	pthread_mutex_lock(&c->lock);
	list_add_tail(&c->back, &r->node);
	/* under the lock: the channel may be closed as soon as r is done */
	loop_post(c->chan.loop, &c->back_work);
	pthread_mutex_unlock(&c->lock);
}

static int status(struct blk_qcow2 *b, struct blk_req *r)
{
	struct q2_ext_info x;
	struct blk_extent *e = &r->status;
	struct blk_node *below = b->data_node ? b->data_node : b->node.file;
	int err = q2_status(b->q, r->off, r->len, &x);

	if (err < 0) {
		return err;
	}
	*e = (struct blk_extent){.len = x.len};
	switch (x.type) {
	case Q2_UNALLOC:
		/* where there is nothing below either it reads as zeros */
		e->flags = b->q->has_backing ? 0 : BLK_EXT_ZERO;
		break;
	case Q2_ZERO:
		e->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED;
		break;
	case Q2_ZERO_ALLOC:
		e->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET;
		break;
	case Q2_COMP:
		e->flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_COMPRESSED;
		break;
	default:
		e->flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET;
		break;
	}
	if (e->flags & BLK_EXT_OFFSET) {
		while (below->file) {
			below = below->file;
		}
		e->file = below;
		e->file_off = x.host;
	}
	return 0;
}

/* Loads what the fast path lacks; RETRY if it can do the rest. */
static int read_prepare(struct q2 *q, const struct blk_req *r)
{
	uint64_t pos = r->off, end = r->off + r->len;
	unsigned n = 0;

	while (pos < end) {
		struct q2_ext_info x;
		int err = q2_map(q, pos, end - pos, &x);

		if (err < 0) {
			return err;
		}
		if (x.type == Q2_COMP || ++n > MAX_EXTENTS) {
			return 0;
		}
		pos += x.len;
	}
	return RETRY;
}

static int work_read(struct q2 *q, struct blk_req *r)
{
	int err = r->progress ? 0 : read_prepare(q, r);

	if (err) {
		r->progress = 1; /* the second time it is read here */
		return err;
	}
	return q2_read(q, r->off, r->len, &r->cur);
}

static int work_one(struct blk_qcow2 *b, struct blk_req *r)
{
	struct q2 *q = b->q;
	int err;

	switch (r->op) {
	case BLK_READ:
		return work_read(q, r);
	case BLK_WRITE:
		err = q2_write_compressed(q, r->off, r->len, &r->cur);
		break;
	case BLK_FLUSH:
		return q2_flush(q);
	case BLK_DISCARD:
		err = q2_discard(q, r->off, r->len, false, Q2_FREE_REQUEST);
		break;
	case BLK_WRITE_ZEROES:
		if (r->flags & BLK_NO_FALLBACK && q->geo.version < 3) {
			return -ENOTSUP;
		}
		err = q2_zero(q, r->off, r->len, r->flags & BLK_MAY_UNMAP);
		break;
	case BLK_STATUS:
		return status(b, r);
	default:
		return -ENOTSUP;
	}
	return !err && r->flags & BLK_FUA ? q2_flush(q) : err;
}

static bool plain_write(const struct blk_req *r)
{
	return r->op == BLK_WRITE && !(r->flags & BLK_WRITE_COMPRESSED);
}

static bool same_cluster(const struct q2 *q, const struct q2_write *w, const struct blk_req *r)
{
	uint64_t size = q->geo.cluster_size;

	return r->off < align_up(w->off + w->len, size) &&
	       align_down(w->off, size) < r->off + r->len;
}

/* Writes that came together and touch different clusters are done together. */
static void work_writes(struct blk_qcow2 *b, struct list *todo)
{
	struct q2_write w[MAX_BATCH];
	struct blk_req *req[MAX_BATCH];
	bool fua = false;
	unsigned n = 0;
	int err = 0;

	while (n < MAX_BATCH && !list_empty(todo)) {
		struct blk_req *r = list_entry(todo->next, struct blk_req, node);
		bool clash = !plain_write(r);

		for (unsigned i = 0; i < n && !clash; i++) {
			clash = same_cluster(b->q, &w[i], r);
		}
		if (clash) {
			break;
		}
		list_del(&r->node);
		fua = fua || r->flags & BLK_FUA;
		w[n] = (struct q2_write){.off = r->off, .len = r->len, .from = r->cur};
		req[n++] = r;
	}
	q2_write_many(b->q, w, n);
	if (fua) {
		err = q2_flush(b->q);
	}
	for (unsigned i = 0; i < n; i++) {
		give_back(req[i], w[i].result		    ? w[i].result
				  : req[i]->flags & BLK_FUA ? err
							    : 0);
	}
}

static void worker_run(void *arg)
{
	struct blk_qcow2 *b = arg;
	struct list todo;

	list_init(&todo);
	pthread_mutex_lock(&b->lock);
	while (!list_empty(&b->todo)) {
		struct list *n = b->todo.next;

		list_del(n);
		list_add_tail(&todo, n);
	}
	pthread_mutex_unlock(&b->lock);
	while (!list_empty(&todo)) {
		struct blk_req *r = list_entry(todo.next, struct blk_req, node);

		if (plain_write(r)) {
			work_writes(b, &todo);
		} else {
			list_del(&r->node);
			give_back(r, work_one(b, r));
		}
	}
}

void q2_node_call(struct blk_qcow2 *b, void (*fn)(void *), void *arg)
{
	if (b->running) {
		loop_call(b->worker, fn, arg);
	} else {
		fn(arg);
	}
}

/* --- the fast path --- */

static void op_end(struct q2_chan *c, struct q2_op *op, bool later)
{
	struct blk_req *r = op->r;
	int error = op->error;

	q2_reader_leave(&c->reader, op->phase);
	op->next = c->ops;
	c->ops = op;
	if (later) {
		blk_complete_later(r, error);
	} else {
		blk_complete(r, error);
	}
}

static void sub_done(struct blk_req *req, int result)
{
	struct q2_sub *s = container_of(req, struct q2_sub, req);
	struct q2_op *op = s->op;
	struct q2_chan *c = chan_of(op->r->chan);

	free(s->more);
	s->more = NULL;
	s->next = c->subs;
	c->subs = s;
	if (result < 0 && !op->error) {
		op->error = result;
	}
	if (--op->pending == 0) {
		op_end(c, op, false);
	}
}

/* len bytes from where r->cur is, at off of a child. */
static void sub_start(struct q2_chan *c, struct q2_op *op, struct blk_chan *child, uint64_t off,
		      uint64_t len)
{
	struct blk_req *r = op->r;
	struct q2_sub *s = c->subs;
	int n;

	if (s) {
		c->subs = s->next;
	} else {
		s = calloc(1, sizeof(*s));
		if (!s) {
			op->error = -ENOMEM;
			return;
		}
	}
	s->op = op;
	s->req.op = r->op;
	s->req.flags = r->flags & BLK_FUA;
	s->req.off = off;
	s->req.len = len;
	s->req.done = sub_done;
	if (len == r->len) {
		s->req.iov = r->iov;
		s->req.niov = r->niov;
	} else {
		s->req.iov = s->iov;
		n = iov_cur_take(&r->cur, len, s->iov, SUB_IOV);
		if (n < 0) {
			s->more = calloc(r->niov, sizeof(*s->more));
			n = s->more ? iov_cur_take(&r->cur, len, s->more, r->niov) : -ENOMEM;
			s->req.iov = s->more;
		}
		if (n < 0) {
			op->error = n;
			free(s->more);
			s->more = NULL;
			s->next = c->subs;
			c->subs = s;
			return;
		}
		s->req.niov = (unsigned)n;
	}
	op->pending++;
	blk_submit(child, &s->req);
}

static struct q2_op *op_new(struct q2_chan *c, struct blk_req *r, unsigned phase)
{
	struct q2_op *op = c->ops;

	if (op) {
		c->ops = op->next;
	} else {
		op = malloc(sizeof(*op));
	}
	if (op) {
		*op = (struct q2_op){.r = r, .phase = phase, .pending = 1};
	}
	return op;
}

/* Everything was started; what has no request below is done. */
static void op_started(struct q2_chan *c, struct q2_op *op)
{
	if (--op->pending == 0) {
		op_end(c, op, true);
	}
}

static void read_below(struct q2_chan *c, struct q2_op *op, uint64_t off, uint64_t len)
{
	struct q2 *q = q2_node_of(c->chan.node)->q;
	uint64_t n = q2_backing_covers(q, off) ? MIN(len, q->backing.size - off) : 0;

	if (n) {
		sub_start(c, op, c->backing, off, n);
	}
	if (n < len) {
		iov_cur_zero(&op->r->cur, len - n);
	}
}

static bool fast_ok(const struct q2 *q, const struct blk_req *r, const struct q2_ext_info *x)
{
	return r->op == BLK_READ || (x->type == Q2_NORMAL && (x->copied || q->geo.data_file));
}

/* All of r is at off of the data's file, and goes there as it is: ended() follows. */
static void hand_down(struct q2_chan *c, struct blk_req *r, uint64_t off, unsigned phase)
{
	r->tag = phase;
	blk_forward(c->data ? c->data : c->file, r, off);
}

static void ended(struct blk_chan *chan, struct blk_req *r, int result)
{
	q2_reader_leave(&chan_of(chan)->reader, r->tag);
}

/* Reads and writes. False: it is for the worker, and nothing was done. */
static bool fast(struct q2_chan *c, struct blk_req *r)
{
	struct q2 *q = q2_node_of(c->chan.node)->q;
	struct blk_chan *data = c->data ? c->data : c->file;
	struct q2_ext_info x[MAX_EXTENTS];
	uint64_t pos = r->off, end = r->off + r->len;
	unsigned phase = q2_reader_enter(&q->grace, &c->reader), n = 0;
	struct q2_op *op;

	while (pos < end) {
		if (n == MAX_EXTENTS || q2_peek(q, pos, end - pos, &x[n]) < 0 ||
		    !fast_ok(q, r, &x[n])) {
			goto leave;
		}
		pos += x[n++].len;
	}
	if (r->op == BLK_WRITE && (!atomic_load(&q->write_ready) ||
				   (r->flags & BLK_FUA && atomic_load(&q->meta_dirty)))) {
		goto leave;
	}
	if (n == 1 && x[0].type == Q2_NORMAL && c->forwards) {
		hand_down(c, r, x[0].host, phase);
		return true;
	}
	op = op_new(c, r, phase);
	if (!op) {
		goto leave;
	}
	pos = r->off;
	for (unsigned i = 0; i < n; i++) {
		if (x[i].type == Q2_NORMAL) {
			sub_start(c, op, data, x[i].host, x[i].len);
		} else if (x[i].type == Q2_UNALLOC && c->backing) {
			read_below(c, op, pos, x[i].len);
		} else {
			iov_cur_zero(&r->cur, x[i].len);
		}
		pos += x[i].len;
	}
	op_started(c, op);
	return true;

leave:
	q2_reader_leave(&c->reader, phase);
	return false;
}

static void fast_flush(struct q2_chan *c, struct blk_req *r)
{
	struct q2 *q = q2_node_of(c->chan.node)->q;
	struct q2_op *op = NULL;

	if (!atomic_load(&q->meta_dirty)) {
		op = op_new(c, r, q2_reader_enter(&q->grace, &c->reader));
	}
	if (!op) {
		to_worker(c, r);
		return;
	}
	sub_start(c, op, c->data ? c->data : c->file, 0, 0);
	op_started(c, op);
}

static void submit(struct blk_chan *chan, struct blk_req *r)
{
	struct q2_chan *c = chan_of(chan);
	bool moves = r->op == BLK_READ || plain_write(r);

	if (r->op == BLK_FLUSH) {
		fast_flush(c, r);
	} else if (!moves || !fast(c, r)) {
		to_worker(c, r);
	}
}

static void back_run(void *arg)
{
	struct q2_chan *c = arg;

	for (;;) {
		struct blk_req *r = NULL;

		pthread_mutex_lock(&c->lock);
		if (!list_empty(&c->back)) {
			r = list_entry(c->back.next, struct blk_req, node);
			list_del(&r->node);
		}
		pthread_mutex_unlock(&c->lock);
		if (!r) {
			return;
		}
		if (r->result != RETRY) {
			/* done() may close the channel when this was the last one */
			bool last = c->chan.inflight == 1;

			blk_complete(r, r->result);
			if (last) {
				return;
			}
		} else if (!fast(c, r)) {
			to_worker(c, r);
		}
	}
}

/* --- channels --- */

static int chan_open(struct blk_chan *chan, struct err *err)
{
	struct q2_chan *c = chan_of(chan);
	struct blk_qcow2 *b = q2_node_of(chan->node);
	int r = blk_chan_open_below(chan, b->node.file, &c->file, err);

	if (!r && b->data_node) {
		r = blk_chan_open_below(chan, b->data_node, &c->data, err);
	}
	if (!r && b->node.backing) {
		r = blk_chan_open(b->node.backing, chan->loop, &c->backing, err);
	}
	if (r) {
		blk_chan_close(c->data);
		blk_chan_close(c->file);
		return r;
	}
	c->forwards = true;
	for (struct blk_chan *up = chan->upper; up; up = up->upper) {
		c->forwards = c->forwards && up->node->drv != &blk_qcow2_driver;
	}
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->back);
	c->back_work = (struct loop_work){.fn = back_run, .arg = c};
	q2_reader_add(&b->q->grace, &c->reader);
	return 0;
}

static void chan_close(struct blk_chan *chan)
{
	struct q2_chan *c = chan_of(chan);
	struct blk_qcow2 *b = q2_node_of(chan->node);

	/* a worker that has just given the last request back is out of the lock after this */
	pthread_mutex_lock(&c->lock);
	pthread_mutex_unlock(&c->lock);
	loop_work_cancel(chan->loop, &c->back_work);
	q2_reader_del(&b->q->grace, &c->reader);
	blk_chan_close(c->backing);
	blk_chan_close(c->data);
	blk_chan_close(c->file);
	while (c->ops) {
		struct q2_op *op = c->ops;

		c->ops = op->next;
		free(op);
	}
	while (c->subs) {
		struct q2_sub *s = c->subs;

		c->subs = s->next;
		free(s);
	}
	pthread_mutex_destroy(&c->lock);
}

/* --- the node --- */

static void clean_tick(void *arg)
{
	struct blk_qcow2 *b = arg;
	uint32_t now = atomic_load(&b->q->l2.tick);

	q2_cache_clean(&b->q->l2, b->q->clean_tick);
	b->q->clean_tick = now;
	loop_timer_arm(&b->clean, loop_now_ns(b->worker) + b->clean_ns);
}

static void worker_begin(void *arg)
{
	struct blk_qcow2 *b = arg;

	if (b->clean_ns) {
		loop_timer_arm(&b->clean, loop_now_ns(b->worker) + b->clean_ns);
	}
}

static void worker_end(struct blk_qcow2 *b)
{
	if (b->running) {
		loop_thread_join(b->worker);
		b->running = false;
	}
	loop_timer_disarm(&b->clean);
	loop_free(b->worker);
	pthread_mutex_destroy(&b->lock);
}

static void node_free(struct blk_qcow2 *b)
{
	blk_io_close(b->backing);
	blk_io_close(b->data);
	blk_io_close(b->file);
}

static int node_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_qcow2 *b = q2_node_of(n);
	int r = q2_node_open(n, o, err);

	if (r) {
		node_free(b);
		return r;
	}
	pthread_mutex_init(&b->lock, NULL);
	list_init(&b->todo);
	b->work = (struct loop_work){.fn = worker_run, .arg = b};
	r = loop_new(&b->worker, "qcow2", 0);
	if (!r) {
		loop_timer_init(b->worker, &b->clean, clean_tick, b);
		r = blk_thread_start(n->graph, b->worker);
		b->running = !r;
	}
	if (r) {
		err_set(err, -r, "qcow2 image '%s': no thread for it: %s", b->q->name,
			strerror(-r));
		if (b->worker) {
			worker_end(b);
		}
		q2_close(b->q);
		node_free(b);
		return r;
	}
	loop_call(b->worker, worker_begin, b);
	return 0;
}

static void node_close(struct blk_node *n)
{
	struct blk_qcow2 *b = q2_node_of(n);
	char name[64];
	int r;

	worker_end(b);
	snprintf(name, sizeof(name), "%s", n->name);
	r = q2_close(b->q);
	if (r < 0) {
		log_err(name, "qcow2: writing metadata when closing: %s", strerror(-r));
	}
	node_free(b);
}

const struct blk_driver blk_qcow2_driver = {
	.name = "qcow2",
	.node_size = sizeof(struct blk_qcow2),
	.chan_size = sizeof(struct q2_chan),
	.format = true,
	.open = node_open,
	.close = node_close,
	.chan_open = chan_open,
	.chan_close = chan_close,
	.submit = submit,
	.ended = ended,
	.truncate = q2_node_truncate,
	.reopen = q2_node_reopen,
	.create = q2_node_create,
	.check = q2_node_check,
	.snapshot_list = q2_node_snapshot_list,
	.snapshot_create = q2_node_snapshot_create,
	.snapshot_apply = q2_node_snapshot_apply,
	.snapshot_delete = q2_node_snapshot_delete,
	.snapshot_load = q2_node_snapshot_load,
	.measure = q2_node_measure,
	.specific_info = q2_node_specific_info,
	.backing_name = q2_node_backing_name,
	.set_backing = q2_node_set_backing,
	.make_empty = q2_node_make_empty,
	.dirty = q2_node_dirty,
	.packer = q2_node_packer,
	.write_compressed = q2_node_write_compressed,
};
