/*
 * qcow2: writing, by the image's owner. Rewrites of clusters that are ours alone are done by channels
 * themselves unless their slice is not in the cache.
 *
 * A write becomes pieces, each contiguous in the file. Pieces of one or several writes are on their
 * way to the disk at once; when they have arrived their entries are linked. An entry is in one of
 * three states for a write:
 *   in place   allocated, refcount 1, every subcluster that is touched is there: no link
 *   reuse      allocated, refcount 1, but reads as zeros or (in part) from the backing file
 *   new        anything else: clusters are allocated; what it had is freed once the link is on disk
 * What the write does not cover of the first and last subcluster (cluster) is copied with it, in the
 * same request to the file.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define MAX_PIECES 64

struct piece {
	struct q2_write *w;
	uint64_t off, len;     /* guest: what it writes, copied parts included */
	uint64_t host;	       /* of off */
	unsigned clusters;     /* to be linked; 0: in place */
	bool allocated, whole; /* whole: every subcluster is there afterwards */
	struct iovec *iov;
	uint8_t *head, *tail;
	struct q2_async a;
};
struct plan {
	struct piece piece[MAX_PIECES];
	unsigned n;
};

static struct q2_file *data_of(struct q2 *q)
{
	return q->geo.data_file ? &q->data : &q->file;
}

static uint64_t sub_mask(const struct q2 *q, uint64_t off, uint64_t end)
{
	uint64_t in = off & (q->geo.cluster_size - 1);
	unsigned first = (unsigned)(in >> q->geo.sub_bits);
	unsigned last = (unsigned)((in + (end - off) - 1) >> q->geo.sub_bits);

	return ((UINT64_C(2) << last) - 1) & ~((UINT64_C(1) << first) - 1);
}

/* --- links --- */

static int link_one(struct q2 *q, const struct piece *p, uint64_t guest, uint64_t host)
{
	uint64_t cluster = align_down(guest, q->geo.cluster_size);
	uint64_t from = MAX(cluster, p->off),
		 to = MIN(cluster + q->geo.cluster_size, p->off + p->len);
	struct q2_ent old, ent;
	struct q2_slot *s;
	unsigned index;
	int r = q2_slice(q, guest, true, &s, &index);

	if (r < 0) {
		return r;
	}
	old = q2_ent_get(q, s, index);
	ent = (struct q2_ent){host | QCOW2_COPIED, 0};
	if (q->geo.extl2) {
		uint64_t touched = sub_mask(q, from, to);

		if (p->whole) {
			ent.bitmap = QCOW2_SUB_ALLOC;
		} else {
			ent.bitmap = (old.bitmap | touched) & ~(touched << 32);
		}
	}
	q2_ent_set(q, s, index, ent);
	return p->allocated ? q2_ent_free(q, old, Q2_FREE_OTHER) : 0;
}

static int piece_link(struct q2 *q, const struct piece *p)
{
	uint64_t guest = align_down(p->off, q->geo.cluster_size);
	uint64_t host = align_down(p->host, q->geo.cluster_size);

	for (unsigned i = 0; i < p->clusters; i++) {
		int r = link_one(q, p, guest, host);

		if (r < 0) {
			return r;
		}
		guest += q->geo.cluster_size;
		host += q->geo.cluster_size;
	}
	return 0;
}

static void plan_finish(struct q2 *q, struct plan *plan)
{
	for (unsigned i = 0; i < plan->n; i++) {
		q2_wait(data_of(q), &plan->piece[i].a);
	}
	for (unsigned i = 0; i < plan->n; i++) {
		struct piece *p = &plan->piece[i];
		int r = p->a.result;

		if (!r) {
			r = piece_link(q, p);
		} else if (p->allocated && !q->geo.data_file) {
			q2_free_later(q, align_down(p->host, q->geo.cluster_size),
				      p->clusters * q->geo.cluster_size, Q2_FREE_OTHER);
		}
		if (r && !p->w->result) {
			p->w->result = r;
		}
		free(p->iov);
		free(p->head);
		free(p->tail);
	}
	plan->n = 0;
}

/* --- pieces --- */

/* What lies around the data: [lo, off) and [off + len, hi), as it reads now. */
static int piece_around(struct q2 *q, struct piece *p, uint64_t off, uint64_t len, uint64_t lo,
			uint64_t hi, bool zeros)
{
	size_t head = off - lo, tail = hi - (off + len);
	int r = 0;

	if (head) {
		p->head = calloc(1, head);
		r = p->head ? 0 : -ENOMEM;
		/* beyond the guest's end there is nothing to read */
		if (!r && !zeros && lo < q->h.size) {
			r = q2_read_buf(q, lo, p->head, MIN(head, q->h.size - lo));
		}
	}
	if (tail && !r) {
		p->tail = calloc(1, tail);
		r = p->tail ? 0 : -ENOMEM;
		if (!r && !zeros && off + len < q->h.size) {
			r = q2_read_buf(q, off + len, p->tail,
					MIN(tail, q->h.size - off - len));
		}
	}
	return r;
}

/* len bytes of data, behind `head` copied ones. */
static int piece_start(struct q2 *q, struct piece *p, struct iov_cur *from, size_t len,
		       size_t head)
{
	size_t cnt = from->cnt, n = 0;
	int got;

	p->iov = calloc(cnt + 2, sizeof(*p->iov));
	if (!p->iov) {
		return -ENOMEM;
	}
	if (head) {
		p->iov[n++] = (struct iovec){p->head, head};
	}
	got = iov_cur_take(from, len, p->iov + n, cnt);
	if (got < 0) {
		return got;
	}
	n += (size_t)got;
	if (p->tail) {
		p->iov[n++] = (struct iovec){p->tail, p->len - head - len};
	}
	q2_pwrite_start(data_of(q), &p->a, p->host, p->len, p->iov, (unsigned)n);
	return 0;
}

static bool is_ours(const struct q2_geo *g, struct q2_ent ent)
{
	return !(ent.e & QCOW2_COMPRESSED) && (ent.e & QCOW2_COPIED) &&
	       ((ent.e & QCOW2_OFFSET) || g->data_file);
}

/* How many entries from index on need new clusters, at most max. */
static unsigned count_new(struct q2 *q, struct q2_slot *s, unsigned index, uint64_t max)
{
	unsigned n = 0, all = 1u << (q->geo.slice_bits - q->geo.entry_bits);

	while (n < max && index + n < all && !is_ours(&q->geo, q2_ent_get(q, s, index + n))) {
		n++;
	}
	return n;
}

static bool reads_zero(struct q2 *q, uint64_t off, struct q2_ent ent, unsigned sub)
{
	enum q2_type t = q2_ent_type(&q->geo, ent, q->geo.extl2 ? sub : 0);

	return t == Q2_ZERO || t == Q2_ZERO_ALLOC ||
	       (t == Q2_UNALLOC && !q2_backing_covers(q, align_down(off, q->geo.cluster_size)));
}

/* The next piece of w from *off on: planned and sent. */
static int piece_next(struct q2 *q, struct plan *plan, struct q2_write *w, uint64_t *off,
		      uint64_t end, struct iov_cur *from)
{
	const struct q2_geo *g = &q->geo;
	uint64_t mask = g->cluster_size - 1, unit = UINT64_C(1) << g->sub_bits;
	uint64_t pos = *off, stop, lo, hi, n, host = 0;
	struct piece *p = &plan->piece[plan->n];
	struct q2_ext_info x;
	struct q2_ent first, last;
	struct q2_slot *s;
	unsigned index;
	bool fresh = false, zeros;
	int r;

	*p = (struct piece){.w = w};
	r = q2_map(q, pos, end - pos, &x);
	if (r < 0 || q->corrupt) {
		return r ? r : -EIO; /* it may have become that just now */
	}
	if (x.type == Q2_NORMAL && (x.copied || g->data_file)) {
		p->off = pos;
		p->len = x.len;
		p->host = x.host;
		r = piece_start(q, p, from, x.len, 0);
		*off = pos + x.len;
		goto sent;
	}
	r = q2_slice(q, pos, true, &s, &index);
	if (r < 0) {
		return r;
	}
	first = last = q2_ent_get(q, s, index);
	if (is_ours(g, first)) {
		/* up to the first subcluster that is there: channels may be writing to it */
		n = 1;
		stop = MIN(MIN(end, (pos & ~mask) + g->cluster_size), pos + x.len);
		host = g->data_file ? pos & ~mask : first.e & QCOW2_OFFSET;
	} else {
		n = count_new(q, s, index, q2_clusters(g, (pos & mask) + (end - pos)));
		p->allocated = true;
		if (g->data_file) {
			host = pos & ~mask;
		} else {
			r = q2_alloc_data(q, &n, &host, &fresh);
			if (r < 0) {
				return r;
			}
			/* the allocation may have made room in the cache */
			r = q2_slice(q, pos, true, &s, &index);
			if (r < 0) {
				return r;
			}
		}
		stop = MIN(end, (pos & ~mask) + n * g->cluster_size);
		last = q2_ent_get(q, s, index + (unsigned)n - 1);
		/* what a cluster that is shared or compressed holds comes along */
		if ((first.e | last.e) & (QCOW2_COMPRESSED | QCOW2_OFFSET)) {
			unit = g->cluster_size;
			p->whole = true;
		}
	}
	lo = align_down(pos, unit);
	hi = align_up(stop, unit);
	zeros = reads_zero(q, pos, first, (unsigned)((pos & mask) >> g->sub_bits)) &&
		reads_zero(q, stop - 1, last, (unsigned)(((stop - 1) & mask) >> g->sub_bits)) &&
		!p->whole;
	if (zeros && fresh) {
		lo = pos;
		hi = stop;
	}
	p->off = lo;
	p->len = hi - lo;
	p->host = host + (lo - (pos & ~mask));
	p->clusters = (unsigned)n;
	r = piece_around(q, p, pos, stop - pos, lo, hi, zeros);
	r = r ? r : piece_start(q, p, from, stop - pos, pos - lo);
	*off = stop;
	if (r < 0 && p->allocated && !g->data_file) {
		q2_free_later(q, host, n * g->cluster_size, Q2_FREE_OTHER);
	}
sent:
	if (r < 0) {
		free(p->iov);
		free(p->head);
		free(p->tail);
		return r;
	}
	plan->n++;
	return 0;
}

void q2_write_many(struct q2 *q, struct q2_write *w, unsigned n)
{
	struct plan *plan = malloc(sizeof(*plan));
	int r = plan ? q2_first_write(q) : -ENOMEM;

	if (plan) {
		plan->n = 0;
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t off = w[i].off, end = off + w[i].len;

		w[i].result = r;
		while (off < end && !w[i].result) {
			int e;

			if (plan->n == MAX_PIECES) {
				plan_finish(q, plan);
			}
			if (q->corrupt) {
				w[i].result = -EIO;
				break;
			}
			e = piece_next(q, plan, &w[i], &off, end, &w[i].from);
			if (e < 0) {
				w[i].result = e;
			}
		}
	}
	if (plan) {
		if (!r) {
			plan_finish(q, plan);
		}
		free(plan);
	}
}

int q2_write(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *from)
{
	struct q2_write w = {.off = off, .len = len, .from = *from};

	q2_write_many(q, &w, 1);
	*from = w.from;
	return w.result;
}

int q2_write_buf(struct q2 *q, uint64_t off, const void *buf, uint64_t len)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	struct iov_cur cur = iov_cur_init(&iov, 1);

	return q2_write(q, off, len, &cur);
}

/* --- compressed --- */

static unsigned packed_shift(const struct q2 *q)
{
	return 62 - (q->geo.cluster_bits - 8);
}

static int packed_place(struct q2 *q, size_t len, uint64_t *host)
{
	int r = q2_alloc_bytes(q, (unsigned)len, host);

	if (!r && *host + len > UINT64_C(1) << MIN(packed_shift(q), 56u)) {
		q2_free_later(q, *host, len, Q2_FREE_OTHER);
		return -EFBIG;
	}
	return r;
}

/* Those that lie one behind the other go to the file together. */
static int packed_send(struct q2 *q, const struct blk_packed *p, const uint64_t *host,
		       unsigned n)
{
	struct iovec iov[BLK_PACKED_MAX];
	int r = 0;

	for (unsigned i = 0, run; i < n && !r; i += run) {
		struct q2_async a;
		uint64_t len = 0;

		for (run = 0; i + run < n && host[i + run] == host[i] + len; run++) {
			iov[run].iov_base = (void *)(uintptr_t)p[i + run].data;
			iov[run].iov_len = p[i + run].len;
			len += p[i + run].len;
		}
		q2_pwrite_start(&q->file, &a, host[i], len, iov, run);
		r = q2_wait(&q->file, &a);
	}
	return r;
}

static int packed_link(struct q2 *q, const struct blk_packed *p, uint64_t host)
{
	uint64_t sectors = ((host + p->len - 1) >> 9) - (host >> 9);
	struct q2_ent old;
	struct q2_slot *s;
	unsigned index;
	int r = q2_slice(q, p->off, true, &s, &index);

	if (r < 0) {
		q2_free_later(q, host, p->len, Q2_FREE_OTHER);
		return r;
	}
	old = q2_ent_get(q, s, index);
	q2_ent_set(q, s, index,
		   (struct q2_ent){host | QCOW2_COMPRESSED | sectors << packed_shift(q), 0});
	return q2_ent_free(q, old, Q2_FREE_OTHER);
}

int q2_write_packed(struct q2 *q, const struct blk_packed *p, unsigned n)
{
	uint64_t host[BLK_PACKED_MAX];
	unsigned placed = 0, linked = 0;
	int r = q2_first_write(q);

	while (!r && placed < n) {
		r = packed_place(q, p[placed].len, &host[placed]);
		placed += !r;
	}
	r = r ? r : packed_send(q, p, host, placed);
	for (; !r && linked < placed; linked++) {
		r = packed_link(q, &p[linked], host[linked]);
	}
	for (; linked < placed; linked++) {
		q2_free_later(q, host[linked], p[linked].len, Q2_FREE_OTHER);
	}
	return r;
}

int q2_write_compressed(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *from)
{
	size_t size = q->geo.cluster_size;
	uint8_t *plain, *packed;
	int r = 0;

	if (q->geo.data_file) {
		return -ENOTSUP;
	}
	if (off & (size - 1) || (len & (size - 1) && off + len != q->h.size)) {
		return -EINVAL;
	}
	plain = malloc(size);
	packed = malloc(size);
	q->packer = q->packer ? q->packer : q2_packer_new(q->zstd);
	r = plain && packed && q->packer ? 0 : -ENOMEM;
	for (uint64_t end = off + len; off < end && !r; off += size) {
		size_t n = MIN(size, end - off), out;

		iov_cur_read(from, plain, n);
		memset(plain + n, 0, size - n);
		out = q->packer->pack(q->packer, plain, size, packed, size - 1);
		r = out ? q2_write_packed(q, &(struct blk_packed){off, packed, out}, 1) : -EFBIG;
		if (r == -EFBIG) {
			r = q2_write_buf(q, off, plain, n);
		}
	}
	free(plain);
	free(packed);
	return r;
}
