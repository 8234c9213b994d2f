/*
 * qcow2 from the inside. docs/qcow2.md describes the whole; in short:
 *
 *   qcow2.c           the driver: options, channels, the fast path, the worker thread
 *   qcow2_engine.c    an open image: open, close, commit (the order of writes)
 *   qcow2_header.c    header and extensions: pure functions over a buffer
 *   qcow2_cache.c     bounded caches of pieces of L2 tables and refcount blocks
 *   qcow2_refcount.c  refcounts, allocation, freeing
 *   qcow2_overlap.c   which clusters are metadata, so that no entry points at one as data
 *   qcow2_map.c       L1, L2 and what an entry means
 *   qcow2_read.c, qcow2_write.c, qcow2_zero.c    requests
 *   qcow2_compress.c  one cluster in and out of zlib and zstd
 *   qcow2_snapshot.c, qcow2_bitmap.c, qcow2_check.c, qcow2_create.c, qcow2_resize.c
 *
 * Threads: a struct q2 has one thread that may change it (the node's worker; a tool; a test).
 * Channels of any loop call only q2_peek(), which is wait-free, and the q2_grace functions.
 *
 * Untrusted: everything in the file. Offsets are checked where they are read; what is wrong ends in
 * q2_corrupt(), which logs once, marks the image and returns -EIO.
 */
#ifndef BLOCK_QCOW2_INT_H
#define BLOCK_QCOW2_INT_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "block/block_int.h"
#include "block/io.h"
#include "spec/qcow2.h"

/* --- header --- */

struct q2_ext { /* one that we do not know, kept as it is */
	uint32_t type, len;
	uint8_t *data;
};

struct q2_header {
	unsigned version, cluster_bits, refcount_order;
	uint32_t crypt_method, header_length;
	uint64_t size;
	uint64_t l1_offset, rt_offset, snap_offset;
	uint32_t l1_size, rt_clusters, nsnap;
	uint64_t incompat, compat, autoclear;
	unsigned compression; /* 0 zlib, 1 zstd */
	char backing[QCOW2_MAX_BACKING + 1], backing_fmt[64], data_file[1024];
	bool has_data_file; /* the extension is there */
	bool has_bitmaps;
	uint32_t nbitmaps;
	uint64_t bitmap_dir_size, bitmap_dir_offset;
	struct q2_ext *ext;
	unsigned next;
	uint8_t *tail; /* additional header fields that we do not know */
	uint32_t tail_len;
};

/* buf: the first len bytes of the file, len at least a cluster or the whole file. name: of the file,
 * for messages. Each field is checked by itself and against file_size. 0, -EINVAL (not qcow2, or
 * malformed), -ENOTSUP (a feature that we do not have, named), -ENOMEM. h is freed by
 * q2_header_fini() in either case. */
int q2_header_parse(struct q2_header *h, const uint8_t *buf, size_t len, uint64_t file_size,
		    const char *name, struct err *err);
/* How much of the file q2_header_parse() wants, from its first 512 bytes. */
size_t q2_header_want(const uint8_t *buf, size_t len);
void q2_header_fini(struct q2_header *h);
/* The first cluster anew. -ENOSPC if it does not fit in len (one cluster). */
int q2_header_encode(const struct q2_header *h, uint8_t *buf, size_t len);
/* The fixed part alone: at most QCOW2_HEADER_V3 bytes; how many. */
size_t q2_header_fields(const struct q2_header *h, uint8_t buf[QCOW2_HEADER_V3]);

/* --- geometry: what follows from the header and never changes --- */

struct q2_geo {
	unsigned cluster_bits, l2_bits; /* entries of an L2 table: 1 << l2_bits */
	unsigned entry_bits;		/* 3, or 4 with extended entries */
	unsigned slice_bits;		/* bytes of a slice */
	unsigned sub_bits;		/* bytes of a subcluster, or of a cluster */
	unsigned refcount_order;
	uint64_t cluster_size;
	unsigned version;
	bool extl2, data_file;
};
void q2_geo_init(struct q2_geo *g, const struct q2_header *h);

/* --- caches --- */

struct q2_slot {
	_Atomic uint32_t seq;  /* odd while the slot changes its key or an entry of two words */
	_Atomic uint64_t key;  /* file offset of the slice; 0: empty */
	_Atomic uint32_t used; /* tick of the last use; a hint, any thread */
	bool dirty;
	uint64_t lo, hi; /* host offsets in it are within (L2) */
};
struct q2_cache {
	struct q2_slot *slot;
	_Atomic uint64_t *data; /* nslots slices, as they are on disk */
	unsigned nsets, nslots;
	unsigned slice_bits;
	_Atomic uint32_t tick;
	unsigned ndirty;
	uint64_t data_bytes;
};
#define Q2_WAYS 8
int q2_cache_init(struct q2_cache *c, unsigned slice_bits, uint64_t bytes);
void q2_cache_fini(struct q2_cache *c);
static inline _Atomic uint64_t *q2_slot_data(const struct q2_cache *c, const struct q2_slot *s)
{
	return c->data + ((size_t)(s - c->slot) << (c->slice_bits - 3));
}
struct q2_slot *q2_cache_find(struct q2_cache *c, uint64_t key);
/* A slot for key: the oldest clean one of its set, or NULL if all are dirty. Emptied. */
struct q2_slot *q2_cache_victim(struct q2_cache *c, uint64_t key);
void q2_slot_fill(struct q2_cache *c, struct q2_slot *s, uint64_t key, const void *buf);
void q2_slot_drop(struct q2_cache *c, struct q2_slot *s);
void q2_slot_dirty(struct q2_cache *c, struct q2_slot *s);
/* Forgets what is in [off, off + len), dirty or not. */
void q2_cache_drop(struct q2_cache *c, uint64_t off, uint64_t len);
void q2_cache_clean(struct q2_cache *c, uint32_t since); /* slots not used since that tick */

/* --- which clusters are metadata --- */

enum { /* the bits of overlap-check */
       Q2_OL_HEADER = 1,
       Q2_OL_L1 = 2,
       Q2_OL_L2 = 4,
       Q2_OL_REFTABLE = 8,
       Q2_OL_REFBLOCK = 16,
       Q2_OL_SNAPTABLE = 32,
       Q2_OL_INACTIVE_L1 = 64,
       Q2_OL_INACTIVE_L2 = 128,
       Q2_OL_BITMAPS = 256,
       Q2_OL_CONSTANT =
	       Q2_OL_HEADER | Q2_OL_L1 | Q2_OL_REFTABLE | Q2_OL_SNAPTABLE | Q2_OL_BITMAPS,
       Q2_OL_CACHED = Q2_OL_CONSTANT | Q2_OL_L2 | Q2_OL_REFBLOCK | Q2_OL_INACTIVE_L1,
       Q2_OL_ALL = 0x1ff,
};
struct q2_set {
	uint64_t *key; /* cluster number + 1, kind in the upper 8 bits; 0 free, 1 deleted */
	size_t cap, count, dead;
};
int q2_set_reserve(struct q2_set *s, size_t more); /* before so many are added: -ENOMEM */
int q2_set_add(struct q2_set *s, uint64_t cluster, unsigned kind); /* -EEXIST, -ENOMEM */
void q2_set_del(struct q2_set *s, uint64_t cluster);
unsigned q2_set_kind(const struct q2_set *s, uint64_t cluster); /* 0: not there */
void q2_set_fini(struct q2_set *s);
const char *q2_kind_name(unsigned kind);

/* --- an open image --- */

enum q2_reason { Q2_FREE_OTHER, Q2_FREE_REQUEST, Q2_FREE_SNAPSHOT, Q2_FREE_NEVER };
struct q2_zstd;
struct q2_free {
	uint64_t off, len; /* clusters */
	enum q2_reason why;
	uint8_t stage; /* which of the two conditions of reuse hold: see qcow2_refcount.c */
};

struct q2_snap {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec, vm_state_size, disk_size, icount;
	char *id, *name;
	uint8_t *extra; /* what of the entry we do not know */
	uint32_t extra_len;
};

struct q2_options {
	uint64_t l2_cache_size, refcount_cache_size, cache_size; /* 0: default */
	uint64_t cache_clean_interval;				 /* s */
	unsigned overlap;
	bool discard_request, discard_snapshot, discard_other;
	bool request_set; /* discard_request was; else it is as discard= */
	int lazy_refcounts; /* -1: as the image says */
};

/* Counts of requests of the fast path that are in flight, one for each channel: see qcow2_overlap.c. */
struct q2_reader {
	_Atomic uint64_t count[2];
	struct q2_reader *next; /* lock: grace.lock */
};
struct q2_grace {
	_Atomic unsigned phase;
	pthread_mutex_t
		lock; /* of the list, for opening and closing channels and the worker's look */
	struct q2_reader *readers;
	bool saw_idle[2]; /* since the grace period began */
};
void q2_grace_init(struct q2_grace *g);
void q2_grace_fini(struct q2_grace *g);
void q2_reader_add(struct q2_grace *g, struct q2_reader *r);
void q2_reader_del(struct q2_grace *g, struct q2_reader *r);
static inline unsigned q2_reader_enter(struct q2_grace *g, struct q2_reader *r)
{
	unsigned p = atomic_load_explicit(&g->phase, memory_order_relaxed) & 1;

	/* seq_cst: before any look at an entry. Only this thread writes the counter. */
	atomic_fetch_add(&r->count[p], 1);
	return p;
}
static inline void q2_reader_leave(struct q2_reader *r, unsigned p)
{
	uint64_t n = atomic_load_explicit(&r->count[p], memory_order_relaxed);

	atomic_store_explicit(&r->count[p], n - 1, memory_order_release);
}
void q2_grace_begin(struct q2_grace *g);
bool q2_grace_over(
	struct q2_grace *g); /* every request from before q2_grace_begin() has ended */

struct q2_file { /* a child, and how far it reaches */
	struct blk_io *io;
	uint64_t size;
	bool grows;
};

/* The active L1 table, host byte order. One that was replaced stays until the image is closed, for
 * channels that still look at it. */
struct q2_l1 {
	struct q2_l1 *old;
	uint32_t n;
	_Atomic uint64_t e[];
};

struct q2 {
	const char *name; /* of the image file, for messages; owned */
	struct q2_header h;
	struct q2_geo geo;
	struct q2_options opt;
	bool read_only, corrupt, bad_overlap;
	bool shown; /* l1 is a snapshot's: read-only for good */
	_Atomic bool meta_dirty;  /* something is not on disk that a flush has to write */
	_Atomic bool write_ready; /* q2_first_write() was called */
	struct q2_file file, data, backing;
	bool has_backing;
	bool child_discard;
	_Atomic(struct q2_l1 *) l1_view; /* what channels read */
	_Atomic uint64_t *l1;		 /* its entries */
	uint32_t l1_size;
	uint32_t l1_lo, l1_hi;
	struct q2_cache l2, rc;
	struct q2_slot *rc_last; /* of rc, where the last look ended; or NULL */
	bool rc_ahead;		 /* refcounts are looked at in order */
	uint64_t *rt; /* refcount table, host byte order */
	uint32_t rt_size, rt_lo, rt_hi;
	uint32_t rt_reserved; /* one entry of the file with reserved bits, plus 1 */
	bool lazy;
	uint64_t free_hint; /* cluster number: no free one before */
	uint64_t zero_from; /* file offsets from here were never written */
	uint64_t comp_off;  /* where the next compressed cluster may begin; 0: none */
	struct q2_free *frees;
	unsigned nfree, free_cap;
	bool grace_running;
	bool unsynced; /* written since the last flush of ours, and links at that */
	struct q2_grace grace;
	struct q2_set meta;
	struct q2_snap *snap;
	unsigned nsnap;
	uint64_t snap_bytes; /* of the snapshot table */
	uint8_t *cluster_buf, *comp_buf;
	struct q2_zstd *zstd; /* NULL: compressed clusters are zlib's */
	struct blk_packer *packer; /* made when it is needed */
	uint64_t comp_cached; /* guest cluster + 1 that cluster_buf holds */
	uint32_t clean_tick;
};

/* engine */
struct q2_config {
	const char *name;
	struct blk_io *file, *data, *backing; /* data, backing may be NULL */
	uint64_t file_size, data_size, backing_size;
	bool read_only, file_grows, data_grows, no_repair;
	struct q2_options opt;
};
void q2_options_default(struct q2_options *o);
/* Reads the header of an image; the caller then opens the children that it names. */
int q2_header_read(struct blk_io *file, uint64_t file_size, const char *name,
		   struct q2_header *h, struct err *err);
/* Takes over *h (zeroed). A dirty image is repaired if writable, unknown autoclear bits are cleared. */
int q2_open(const struct q2_config *cfg, struct q2_header *h, struct q2 **out, struct err *err);
int q2_close(struct q2 *q);    /* metadata on disk, frees q even if that fails */
/* All of it is on stable storage as if the image were closed; lazy refcounts are off from then on. */
int q2_settle(struct q2 *q);
/* What writing needs: bits of features that we would break are cleared, lazy refcounts chosen. repair:
 * if the image was not closed. */
int q2_open_write(struct q2 *q, bool repair, struct err *err);
/* Empty caches of the sizes that o asks for. */
int q2_caches_new(const struct q2 *q, const struct q2_options *o, struct q2_cache *l2,
		  struct q2_cache *rc, struct err *err);
void q2_abandon(struct q2 *q); /* frees q, writes nothing */
int q2_flush(struct q2 *q);
/* Everything dirty in the right order; sync: until it is on stable storage. */
int q2_commit(struct q2 *q, bool sync);
int q2_refcounts_out(struct q2 *q); /* refcount blocks and table, not flushed behind */
int q2_first_write(struct q2 *q);
int q2_header_update(struct q2 *q);  /* fixed fields, not flushed */
int q2_header_rewrite(struct q2 *q); /* all of the first cluster, flushed */
int q2_set_backing(struct q2 *q, const char *file, const char *fmt, struct err *err);
/* Logs once, marks the image corrupt if it is writable; -EIO. */
int q2_corrupt(struct q2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int q2_meta_build(struct q2 *q);
/* An L2 table that is no longer the active one, but still a snapshot's. */
int q2_meta_inactive(struct q2 *q, uint64_t l2);

int q2_pread(struct q2_file *f, uint64_t off, void *buf, size_t len);
int q2_pwrite(struct q2_file *f, uint64_t off, const void *buf, size_t len);
int q2_pzero(struct q2_file *f, uint64_t off, uint64_t len, unsigned flags);
int q2_pflush(struct q2_file *f);
/* To and from a cursor, which advances. What lies past the end of the file is zeros. */
int q2_pread_iov(struct q2_file *f, uint64_t off, uint64_t len, struct iov_cur *to);
#define Q2_MAX_IOV 1024 /* entries that one request of ours has */
struct q2_async {	/* a write on its way */
	struct blk_req req;
	bool done;
	int result;
};
/* niov entries at iov stay until q2_wait(). */
void q2_pwrite_start(struct q2_file *f, struct q2_async *a, uint64_t off, uint64_t len,
		     const struct iovec *iov, unsigned niov);
int q2_wait(struct q2_file *f, struct q2_async *a);

/* refcounts */
int q2_refcount_get(struct q2 *q, uint64_t cluster, uint64_t *out);
int q2_refcount_set(struct q2 *q, uint64_t cluster, uint64_t value);
int q2_refcount_add(struct q2 *q, uint64_t off, uint64_t len, int delta); /* each cluster */
/* Contiguous clusters, refcount 1. *count: wanted, then got (at least 1). */
/* fresh: nothing was ever written there, so it reads as zeros. */
int q2_alloc_data(struct q2 *q, uint64_t *count, uint64_t *off, bool *fresh);
int q2_alloc_meta(struct q2 *q, uint64_t bytes, unsigned kind, uint64_t *off);
int q2_alloc_bytes(struct q2 *q, unsigned bytes, uint64_t *off);
/* The reference goes once the change that dropped it is on disk and no request uses it any more. */
int q2_free_later(struct q2 *q, uint64_t off, uint64_t len, enum q2_reason why);
int q2_free_meta(struct q2 *q, uint64_t off,
		 uint64_t bytes);    /* the same, and no metadata now */
void q2_frees_durable(struct q2 *q); /* the L2 and L1 changes up to now are on disk */
int q2_frees_apply(struct q2 *q);
int q2_rc_writeback(struct q2 *q);
uint64_t q2_ref_max(const struct q2 *q);
uint64_t q2_ref_read(const void *block, unsigned order, uint64_t index);
void q2_ref_write(void *block, unsigned order, uint64_t index, uint64_t value);
int q2_rt_grow(struct q2 *q, uint64_t entries);

/* map */
enum q2_type { Q2_UNALLOC, Q2_ZERO, Q2_ZERO_ALLOC, Q2_NORMAL, Q2_COMP, Q2_BAD };
struct q2_ent {
	uint64_t e, bitmap;
};
struct q2_ext_info { /* what holds for `len` bytes from a guest offset */
	enum q2_type type;
	uint64_t
		host; /* file offset of the byte at the guest offset; of the entry if compressed */
	uint64_t len;
	uint64_t entry; /* compressed: the entry */
	bool copied;
};
enum q2_type q2_ent_type(const struct q2_geo *g, struct q2_ent ent, unsigned sub);
uint64_t q2_comp_range(const struct q2_geo *g, uint64_t entry,
		       uint64_t *len); /* its file offset */
/* Wait-free, any thread. 0, or -EAGAIN: not in the cache, or nothing that a channel can do. Subclusters
 * and clusters that follow each other in the file come as one. */
int q2_peek(struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out);
int q2_map(struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out);
/* The slice with the entry of guest offset `off`. make: its L2 table is made or copied if it is not
 * ours alone. *slot NULL without error: no table. */
int q2_slice(struct q2 *q, uint64_t off, bool make, struct q2_slot **slot, unsigned *index);
struct q2_ent q2_ent_get(struct q2 *q, struct q2_slot *s, unsigned index);
void q2_ent_set(struct q2 *q, struct q2_slot *s, unsigned index, struct q2_ent ent);
int q2_ent_free(struct q2 *q, struct q2_ent old, enum q2_reason why);
void q2_l1_set(struct q2 *q, uint32_t index, uint64_t value);
struct q2_l1 *q2_l1_new(uint32_t n); /* zeros, or NULL */
void q2_l1_publish(struct q2 *q, struct q2_l1 *l1);
int q2_l2_load(struct q2 *q, uint64_t key, struct q2_slot **out);
static inline unsigned q2_l1_bits(const struct q2_geo *g)
{
	return g->cluster_bits + g->l2_bits;
}
static inline uint64_t q2_clusters(const struct q2_geo *g, uint64_t bytes)
{
	return (bytes >> g->cluster_bits) + !!(bytes & (g->cluster_size - 1));
}

/* requests. Offsets and lengths are any number of bytes within the guest's size. */
int q2_read(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *to);
int q2_read_buf(struct q2 *q, uint64_t off, void *buf, uint64_t len);
int q2_read_comp(struct q2 *q, uint64_t guest, uint64_t entry, const uint8_t **cluster);
int q2_backing_read(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *to);
struct q2_write { /* one of several that are done at once */
	uint64_t off, len;
	struct iov_cur from;
	int result;
};
/* Writes that do not touch the same cluster. Results are in each. */
void q2_write_many(struct q2 *q, struct q2_write *w, unsigned n);
int q2_write(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *from);
int q2_write_buf(struct q2 *q, uint64_t off, const void *buf, uint64_t len);
int q2_write_compressed(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *from);
/* Clusters that a packer made smaller, at most BLK_PACKED_MAX. -EFBIG: no entry can point that far. */
int q2_write_packed(struct q2 *q, const struct blk_packed *p, unsigned n);
int q2_zero(struct q2 *q, uint64_t off, uint64_t len, bool unmap);
int q2_discard(struct q2 *q, uint64_t off, uint64_t len, bool full, enum q2_reason why);
int q2_status(struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out);
bool q2_backing_covers(const struct q2 *q, uint64_t off);

/* compression: 0; -EIO (malformed); -ENOMEM. compress: the length, or 0 if it would not be smaller. */
/* zstd as a library that is loaded now. -ENOENT with a sentence. name: of the image, for it. */
int q2_zstd_new(struct q2_zstd **out, const char *name, struct err *err);
void q2_zstd_free(struct q2_zstd *z); /* harmless on NULL */
int q2_inflate(struct q2 *q, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len);
/* z NULL: zlib. NULL: out of memory. */
struct blk_packer *q2_packer_new(const struct q2_zstd *z);

/* snapshots; no request is in flight */
int q2_snap_load(struct q2 *q, struct err *err);
void q2_snap_fini(struct q2 *q);
int q2_snap_create(struct q2 *q, const struct q2_snap *s,
		   struct err *err); /* id, name, times */
int q2_snap_apply(struct q2 *q, const char *id_or_name, struct err *err);
int q2_snap_delete(struct q2 *q, const char *id_or_name, struct err *err);
int q2_snap_l1(struct q2 *q, const struct q2_snap *s,
	       uint64_t **out); /* host order; caller frees */

/* bitmaps */
int q2_bitmaps_load(
	struct q2 *q); /* checks the directory; drops the extension's bit if it is bad */
int q2_bitmaps_use(struct q2 *q, bool all); /* marks those that changes concern as in use */
/* calls fn for each range of the file that bitmaps occupy */
typedef int q2_range_fn(void *opaque, uint64_t off, uint64_t len, const char *what);
int q2_bitmaps_each(struct q2 *q, q2_range_fn *fn, void *opaque);
int q2_bitmaps_json(struct q2 *q, json_t *array);

/* check, size, create */
int q2_check(struct q2 *q, struct blk_check *out, unsigned fix, struct err *err);
int q2_resize(struct q2 *q, uint64_t size, unsigned prealloc, struct err *err);
int q2_empty(struct q2 *q); /* all of it is the backing file's */
/* A read-only image shows a snapshot. */
int q2_snap_show(struct q2 *q, const char *id_or_name, struct err *err);
uint64_t q2_used_end(struct q2 *q); /* of the file: the end of the last cluster in use */
int q2_prealloc(struct q2 *q, uint64_t from, uint64_t to, unsigned mode, struct err *err);

struct q2_create {
	uint64_t size, cluster_size;
	char *compat, *backing_file, *backing_fmt, *data_file;
	int preallocation, compression_type;
	bool lazy_refcounts, data_file_raw, extended_l2;
	uint64_t refcount_bits;
};
int q2_create_check(const struct q2_create *c, struct err *err);
/* On an empty file. data: the external data file, or NULL. */
int q2_create(const struct q2_create *c, struct blk_io *file, bool file_grows,
	      struct blk_io *data, const char *name, struct err *err);
/* Bytes of the file for `data` bytes of guest clusters in use. */
uint64_t q2_measure(const struct q2_create *c, uint64_t data);

/* --- the node --- */

struct blk_qcow2 {
	struct blk_node node;
	struct q2 *q;
	struct blk_io *file, *data, *backing; /* on one loop; the worker's while it runs */
	struct blk_node *data_node;
	struct loop *worker;
	bool running;
	uint64_t clean_ns;
	struct loop_timer clean;
	/* requests for the worker */
	pthread_mutex_t lock;
	struct list todo; /* lock: lock */
	struct loop_work work;
};
/* Runs fn on the thread that owns the image, and waits. Control loop. */
void q2_node_call(struct blk_qcow2 *b, void (*fn)(void *), void *arg);
static inline struct blk_qcow2 *q2_node_of(struct blk_node *n)
{
	return container_of(n, struct blk_qcow2, node);
}

/* qcow2_tool.c: rows of the driver */
int q2_node_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc p, struct err *err);
int q2_node_create(struct blk_graph *g, struct blk_node *file, struct opts *o, struct err *err);
int q2_node_check(struct blk_node *n, struct blk_check *out, unsigned fix, struct err *err);
int q2_node_snapshot_list(struct blk_node *n, struct blk_snapshot **out, size_t *count,
			  struct err *err);
int q2_node_snapshot_create(struct blk_node *n, const char *name, struct err *err);
int q2_node_snapshot_apply(struct blk_node *n, const char *id_or_name, struct err *err);
int q2_node_snapshot_delete(struct blk_node *n, const char *id_or_name, struct err *err);
int q2_node_snapshot_load(struct blk_node *n, const char *id_or_name, struct err *err);
int q2_node_measure(struct opts *o, struct blk_node *content, struct blk_measure *out,
		    struct err *err);
int q2_node_specific_info(struct blk_node *n, json_t **out, struct err *err);
int q2_node_backing_name(struct blk_node *n, char **file, char **fmt, struct err *err);
int q2_node_set_backing(struct blk_node *n, const char *file, const char *fmt, struct err *err);
int q2_node_make_empty(struct blk_node *n, struct err *err);
bool q2_node_dirty(struct blk_node *n);
struct blk_packer *q2_node_packer(struct blk_node *n);
int q2_node_write_compressed(struct blk_node *n, const struct blk_packed *p, unsigned count);
/* qcow2_open.c */
int q2_node_open(struct blk_node *n, struct opts *o, struct err *err);
int q2_node_reopen(struct blk_node *n, const struct blk_node_opt *to, struct opts *o,
		   struct err *err);
/* A name in an image, as seen from the image's directory; allocated. */
char *q2_name_beside(const char *image, const char *name);

#endif
