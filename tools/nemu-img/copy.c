/*
 * Copying images.
 *
 * What is copied is cut into pieces, whole clusters of the target where it has clusters. A piece is
 * zeros (nothing to do in a new image), the target's backing file's (nothing to do), or data. A slot
 * takes a piece of data from one state to the next:
 *
 *   FREE ─▶ READING ─▶ (COMPRESSING) ─▶ READY ─▶ WRITING ─▶ FREE
 *
 * Slots are a ring: pieces are READY in any order, but their writes are started in the order of
 * the image, unless the order does not matter, so that the target's data lies in order. Of the data
 * of a piece, runs of zeros are left out. Callbacks only mark what has ended; run() does the rest.
 *
 * Buffers are small, so that what was read is still in the processor's cache when it is looked
 * at and written.
 */
#include "copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE	    (256 * KiB)
#define PRESS_PIECE (512 * KiB) /* compressed clusters are written a piece at a time */
#define MAX_DEPTH   16
#define WRITES	    8 /* of one slot at once */
#define STATUS_STEP GiB

enum kind { KIND_DATA, KIND_ZERO, KIND_BACKING };
enum state { FREE, READING, COMPRESSING, READY, WRITING };

struct slot;
struct part { /* a write of a slot */
	struct blk_req req;
	struct iovec iov;
	struct slot *slot;
	bool busy;
};
struct slot {
	struct job *job;
	enum state state;
	struct copy_source *src;
	uint64_t off, len, done;
	uint8_t *buf, *comp;
	size_t *comp_len;
	struct blk_req read;
	struct iovec read_iov;
	unsigned writes;
	struct part part[WRITES];
	struct compress_job press;
	int error; /* of the read */
};

struct job {
	struct copy *c;
	struct err *err;
	int error;
	struct loop *loop;
	uint64_t unit;  /* pieces begin and end there */
	uint64_t run;   /* zeros are looked for in steps of this */
	uint64_t piece;
	uint64_t pos, finished;
	/* the extent at pos */
	struct copy_source *src;
	enum kind kind;
	uint64_t ext_end;
	struct blk_extent ext;
	struct slot slot[MAX_DEPTH];
	unsigned head, used;
	/* a range of zeros that is being written */
	struct blk_req zero;
	bool zero_busy;
	struct compress_pool *pool;
	bool offload;
	uint64_t start_ns, moved;
};

static void fail(struct job *j, int error, const char *what, const char *name, uint64_t off)
{
	if (!j->error) {
		j->error = error;
		err_set(j->err, -error, "'%s' cannot be %s at %llu: %s", name, what,
			(unsigned long long)off, strerror(-error));
	}
}

/* --- what comes next --- */

static enum kind kind_of(const struct job *j, const struct copy_source *s, const struct blk_extent *e)
{
	if (e->flags & BLK_EXT_ZERO) {
		return j->c->sparse ? KIND_ZERO : KIND_DATA;
	}
	if (e->flags & (BLK_EXT_DATA | BLK_EXT_ALLOCATED)) {
		return KIND_DATA;
	}
	return s->layers < s->chain.count ? KIND_BACKING : KIND_ZERO;
}

/* Finds the extent at pos; several that are of one kind count as one. */
static int extent_find(struct job *j)
{
	struct copy_source *s = j->c->source;
	uint64_t off, here;
	int r = 0;

	while (j->pos >= s->at + s->size) {
		s++;
	}
	j->src = s;
	j->ext_end = j->pos;
	here = j->pos - s->at + s->skip;
	if (here >= s->img.size) { /* behind its end */
		j->kind = j->c->sparse ? KIND_ZERO : KIND_DATA;
		j->ext_end = s->at + s->size;
		j->ext = (struct blk_extent){.flags = BLK_EXT_ZERO};
		return 0;
	}
	while (j->ext_end < s->at + s->size) {
		uint64_t left = s->at + s->size - j->ext_end;
		struct blk_extent e;
		unsigned depth;

		off = j->ext_end - s->at + s->skip;
		if (off >= s->img.size) {
			break;
		}
		r = img_chain_status(&s->chain, 0, s->layers, off,
				     MIN(MIN(left, STATUS_STEP), s->img.size - off), &e, &depth);
		if (r && j->c->salvage) {
			e = (struct blk_extent){.len = MIN(left, j->piece), .flags = BLK_EXT_DATA};
			r = 0;
		} else if (r) {
			fail(j, r, "asked for what it has", s->img.filename, off);
			return r;
		}
		if (j->ext_end > j->pos && kind_of(j, s, &e) != j->kind) {
			break;
		}
		if (j->ext_end == j->pos) {
			j->ext = e;
			j->kind = kind_of(j, s, &e);
		} else if (j->offload) {
			break; /* the place in the file is that of the first extent */
		}
		j->ext_end += e.len;
		if (j->kind == KIND_DATA && j->ext_end - j->pos >= 64 * MiB) {
			break;
		}
	}
	return 0;
}

/* The next piece: where it ends and what it is. A unit that is of two kinds is data. */
static int piece_next(struct job *j, uint64_t *len, enum kind *kind)
{
	uint64_t src_end, end;
	int r = j->pos < j->ext_end ? 0 : extent_find(j);

	if (r) {
		return r;
	}
	src_end = j->src->at + j->src->size;
	*kind = j->kind;
	end = j->ext_end;
	if (end < src_end) {
		end -= end % j->unit;
		if (end <= j->pos) {
			end = MIN(j->pos - j->pos % j->unit + j->unit, src_end);
			*kind = KIND_DATA;
		} else if (j->kind == KIND_DATA && end < j->ext_end) {
			/* the last unit is partly data: so all of it is */
			end = MIN(end + j->unit, src_end);
		}
	}
	if (*kind == KIND_DATA && !(j->offload && j->kind == KIND_DATA)) {
		end = MIN(end, j->pos - j->pos % j->unit + j->piece);
	}
	*len = end - j->pos;
	return 0;
}

/* --- zeros --- */

static void zero_done(struct blk_req *r, int result)
{
	struct job *j = r->opaque;

	j->zero_busy = false;
	if (result) {
		fail(j, result, "written", j->c->target->filename, r->off);
	}
}

static void zero_start(struct job *j, uint64_t off, uint64_t len)
{
	j->zero = (struct blk_req){
		.op = BLK_WRITE_ZEROES,
		.flags = BLK_MAY_UNMAP,
		.off = off,
		.len = len,
		.done = zero_done,
		.opaque = j,
	};
	j->zero_busy = true;
	blk_submit(blk_io_chan(j->c->target->io), &j->zero);
}

/* --- slots --- */

static void press_done(void *opaque)
{
	struct slot *s = opaque;

	s->state = READY;
}

static void read_done(struct blk_req *r, int result)
{
	struct slot *s = r->opaque;

	s->error = result;
	if (result || !s->job->pool) {
		s->state = READY;
		return;
	}
	s->state = COMPRESSING;
	s->press = (struct compress_job){
		.in = s->buf,
		.len = s->len,
		.cluster = s->job->unit,
		.sparse = s->job->c->sparse,
		.out = s->comp,
		.out_len = s->comp_len,
		.done = press_done,
		.opaque = s,
	};
	compress_pool_add(s->job->pool, &s->press);
}

static void slot_read(struct job *j, uint64_t len)
{
	struct slot *s = &j->slot[(j->head + j->used) % j->c->depth];
	uint64_t here = j->pos - j->src->at + j->src->skip, n = 0;

	j->used++;
	s->state = READING;
	s->src = j->src;
	s->off = j->pos;
	s->len = len;
	s->done = 0;
	s->error = 0;
	if (here < s->src->img.size) {
		n = MIN(len, s->src->img.size - here);
	}
	if (n < len) {
		memset(s->buf + n, 0, len - n);
	}
	s->read_iov = (struct iovec){s->buf, n};
	s->read = (struct blk_req){
		.op = BLK_READ,
		.off = here,
		.len = n,
		.iov = &s->read_iov,
		.niov = 1,
		.done = read_done,
		.opaque = s,
	};
	if (n) {
		blk_submit(blk_io_chan(s->src->img.io), &s->read);
	} else {
		read_done(&s->read, 0);
	}
}

/* --salvage: sector by sector, zeros for what cannot be read. */
static void rescue(struct job *j, struct slot *s)
{
	for (uint64_t at = 0; at < s->read.len; at += 512) {
		uint64_t off = s->read.off + at;
		int r = blk_io_read(s->src->img.io, off, s->buf + at, MIN(512, s->read.len - at));

		if (r) {
			memset(s->buf + at, 0, MIN(512, s->read.len - at));
			if (!j->c->quiet) {
				img_warn("'%s' cannot be read at %llu: %s; zeros are taken for it",
					 s->src->img.filename, (unsigned long long)off,
					 strerror(-r));
			}
		}
	}
	s->error = 0;
}

static void part_done(struct blk_req *r, int result)
{
	struct part *p = container_of(r, struct part, req);
	struct job *j = p->slot->job;

	p->busy = false;
	p->slot->writes--;
	if (result) {
		fail(j, result, "written", j->c->target->filename, r->off);
	}
}

static void part_start(struct slot *s, enum blk_op op, uint64_t at, uint64_t len)
{
	struct part *p = s->part;

	while (p->busy) {
		p++;
	}
	p->slot = s;
	p->busy = true;
	p->iov = (struct iovec){s->buf + at, len};
	p->req = (struct blk_req){
		.op = op,
		.off = s->off + at,
		.len = len,
		.done = part_done,
	};
	if (op == BLK_WRITE) {
		p->req.iov = &p->iov;
		p->req.niov = 1;
	} else {
		p->req.flags = BLK_MAY_UNMAP;
	}
	s->writes++;
	blk_submit(blk_io_chan(s->job->c->target->io), &p->req);
}

/* Clusters from s->done on that have become smaller, all that follow each other. */
static uint64_t press_write(struct job *j, struct slot *s)
{
	struct blk_packed p[BLK_PACKED_MAX];
	unsigned n = 0;
	uint64_t at = s->done;
	int r;

	for (; at < s->len && n < BLK_PACKED_MAX; at += j->unit, n++) {
		size_t len = s->comp_len[at / j->unit];

		if (len == SIZE_MAX || len == 0) {
			break;
		}
		p[n] = (struct blk_packed){s->off + at, s->comp + at, len};
	}
	r = blk_image_write_compressed(j->c->target->node, p, n);
	if (r) {
		fail(j, r, "written", j->c->target->filename, p[0].off);
	}
	return n * j->unit;
}

/* A cluster that a thread has looked at, or several: as they are, smaller, or as zeros. */
static uint64_t pressed_write(struct job *j, struct slot *s)
{
	uint64_t at = s->done, n = MIN(j->unit, s->len - at);
	size_t len = s->comp_len[at / j->unit];

	if (len == 0) {
		part_start(s, BLK_WRITE, at, n);
	} else if (len != SIZE_MAX) {
		return press_write(j, s);
	} else if (!j->c->target_zero) {
		part_start(s, BLK_WRITE_ZEROES, at, n);
	}
	return n;
}

/* Starts writes of what is left of s, as many as there may be at once. False: not all yet. */
static bool slot_write(struct job *j, struct slot *s)
{
	s->state = WRITING;
	while (s->done < s->len && s->writes < WRITES && !j->error) {
		uint64_t n = s->len - s->done;
		bool zero = false;

		if (j->pool) {
			s->done += pressed_write(j, s);
			continue;
		}
		if (j->c->sparse) {
			n = img_zero_run(s->buf + s->done, n, j->run, &zero);
		}
		if (!zero) {
			part_start(s, BLK_WRITE, s->done, n);
		} else if (!j->c->target_zero) {
			part_start(s, BLK_WRITE_ZEROES, s->done, n);
		}
		s->done += n;
	}
	return s->done == s->len || j->error;
}

/* Waits until there may be more. */
static void limit(struct job *j, uint64_t n)
{
	uint64_t due, now;

	j->moved += n;
	if (!j->c->rate) {
		return;
	}
	due = j->start_ns + (uint64_t)((double)j->moved / (double)j->c->rate * 1e9);
	while ((now = now_ns()) < due) {
		struct timespec ts = {0, (long)MIN(due - now, 100000000)};

		nanosleep(&ts, NULL);
	}
}

/* Moves slots on whose turn it is. True: something has changed. */
static bool slots_step(struct job *j)
{
	bool moved = false;

	for (unsigned i = 0; i < j->used; i++) {
		struct slot *s = &j->slot[(j->head + i) % j->c->depth];

		if (s->state == READY && s->error && j->c->salvage) {
			rescue(j, s);
		}
		if (s->state == READY && s->error) {
			fail(j, s->error, "read", s->src->img.filename, s->read.off);
			s->done = s->len;
			s->state = WRITING;
		}
		if ((s->state == READY || s->state == WRITING) && s->done < s->len) {
			bool all = slot_write(j, s);

			moved |= s->state == WRITING && s->writes == 0;
			if (!all && !j->c->any_order) {
				break;
			}
		} else if (s->state != WRITING && !j->c->any_order) {
			break;
		}
	}
	while (j->used) {
		struct slot *s = &j->slot[j->head];

		if (s->state != WRITING || s->writes || (s->done < s->len && !j->error)) {
			break;
		}
		s->state = FREE;
		j->finished = s->off + s->len;
		img_progress(j->c->ctl, j->finished, j->c->total);
		limit(j, s->len);
		j->head = (j->head + 1) % j->c->depth;
		j->used--;
		moved = true;
	}
	return moved;
}

/* From file to file inside the kernel, without a look at the data. False: not, or not all of it. */
static bool offload_copy(struct job *j, uint64_t len)
{
	const struct blk_extent *e = &j->ext;
	uint64_t done = 0;

	if (!(e->flags & BLK_EXT_OFFSET) || e->flags & BLK_EXT_COMPRESSED) {
		return false;
	}
	while (done < len) {
		int64_t n = blk_copy_range(e->file, e->file_off + done, j->c->target->node,
					   j->pos + done, len - done);

		if (n <= 0) {
			return false;
		}
		done += (uint64_t)n;
	}
	return true;
}

/* One piece further. False: it has to wait. */
static bool start_next(struct job *j)
{
	uint64_t len;
	enum kind kind;

	if (piece_next(j, &len, &kind)) {
		return false;
	}
	if (kind == KIND_ZERO && !j->c->target_zero) {
		if (j->zero_busy) {
			return false;
		}
		zero_start(j, j->pos, len);
	} else if (kind == KIND_DATA) {
		if (j->offload && j->kind == KIND_DATA && offload_copy(j, len)) {
			limit(j, len);
			j->ext.file_off += len;
		} else {
			len = MIN(len, j->piece - j->pos % j->unit);
			if (j->used == j->c->depth) {
				return false;
			}
			slot_read(j, len);
			j->ext.file_off += len;
		}
	}
	j->pos += len;
	if (!j->used) {
		img_progress(j->c->ctl, j->pos, j->c->total);
	}
	return true;
}

static void run(struct job *j)
{
	while (!j->error ? j->pos < j->c->total || j->used || j->zero_busy
			 : j->used || j->zero_busy) {
		bool moved = slots_step(j);

		while (!j->error && j->pos < j->c->total && start_next(j)) {
			moved = true;
		}
		if (!moved) {
			loop_step(j->loop, -1);
		} else {
			loop_step(j->loop, 0);
		}
	}
}

/* --- begin and end --- */

/* What the target can have or not have: a cluster, or a part of it with extended L2 entries. */
static uint64_t least_hole(struct blk_node *n, const struct blk_info *info)
{
	uint64_t unit = info->cluster_size;
	json_t *v = NULL;

	if (unit && !blk_image_specific(n, &v, NULL) &&
	    json_is_true(json_object_get(json_object_get(v, "data"), "extended-l2"))) {
		unit /= 32;
	}
	json_decref(v);
	return unit;
}

static int slots_new(struct job *j)
{
	for (unsigned i = 0; i < j->c->depth; i++) {
		struct slot *s = &j->slot[i];

		s->job = j;
		s->buf = aligned_alloc(4096, j->piece);
		if (j->c->compress) {
			s->comp = malloc(j->piece);
			s->comp_len = calloc(j->piece / j->unit, sizeof(*s->comp_len));
		}
		if (!s->buf || (j->c->compress && (!s->comp || !s->comp_len))) {
			return err_set(j->err, ENOMEM, "out of memory");
		}
	}
	return 0;
}

static void job_free(struct job *j)
{
	compress_pool_free(j->pool);
	for (unsigned i = 0; i < MAX_DEPTH; i++) {
		free(j->slot[i].buf);
		free(j->slot[i].comp);
		free(j->slot[i].comp_len);
	}
	free(j);
}

static int job_new(struct copy *c, struct job **out, struct err *err)
{
	struct job *j = calloc(1, sizeof(*j));
	struct blk_info info;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r;

	if (!j) {
		return err_set(err, ENOMEM, "out of memory");
	}
	blk_info(c->target->node, &info);
	j->c = c;
	j->err = err;
	j->loop = blk_io_loop(c->target->io);
	j->unit = info.cluster_size ? info.cluster_size : 4096;
	/* smaller holes in a cluster would make it no smaller */
	j->run = MAX(least_hole(c->target->node, &info), MIN(MAX(c->sparse, 512), 4096));
	j->run = c->sparse > j->run ? c->sparse - c->sparse % 512 : j->run;
	j->piece = MAX(c->compress ? PRESS_PIECE : PIECE, j->unit);
	j->start_ns = now_ns();
	j->offload = c->offload;
	r = slots_new(j);
	if (!r && c->compress) {
		r = compress_pool_new(&j->pool, j->loop, c->target->node, (unsigned)MAX(cpus, 1),
				      err);
	}
	if (r) {
		job_free(j);
		return r;
	}
	*out = j;
	return 0;
}

int img_copy(struct copy *c, struct err *err)
{
	struct job *j = NULL;
	int r = job_new(c, &j, err);

	if (!r) {
		run(j);
		r = j->error;
		job_free(j);
	}
	return r;
}
