/*
 * Copying the content of images into another one: for convert and dd. See copy.c.
 */
#ifndef NEMU_IMG_COPY_H
#define NEMU_IMG_COPY_H

#include "img.h"

struct copy_source {
	struct img img;
	struct img_chain chain;
	uint64_t at;     /* where it begins in what is copied */
	uint64_t skip;   /* what of it is left out at its beginning */
	uint64_t size;   /* of what is copied of it; zeros behind its end */
	unsigned layers; /* the first so many; what is in none of them is the target's backing file's */
};

struct copy {
	struct img_ctl *ctl;
	struct copy_source *source;
	unsigned nsource;
	uint64_t total;
	struct img *target;
	unsigned depth;       /* requests at once */
	uint64_t sparse;      /* -S: so many zeros are not written; 0: everything is */
	uint64_t rate;        /* bytes per second; 0: no limit */
	bool target_zero;     /* what is not written reads as zeros */
	bool compress, any_order, salvage, quiet, offload;
};

/* 0 or -errno and a sentence. */
int img_copy(struct copy *c, struct err *err);

/* compress.c: threads that make compressed clusters. */
struct compress_job {
	const uint8_t *in;
	size_t len, cluster;
	bool sparse;       /* zeros need not be compressed */
	uint8_t *out;      /* as large as in */
	size_t *out_len;   /* of each cluster; 0: not smaller; SIZE_MAX: zeros */
	void (*done)(void *opaque); /* on the loop */
	void *opaque;
	/* internal */
	struct compress_pool *pool;
	struct compress_job *next;
	struct loop_work work;
};
struct compress_pool;
/* node: for which they are made; it stays open longer. */
int compress_pool_new(struct compress_pool **out, struct loop *loop, struct blk_node *node,
		      unsigned threads, struct err *err);
void compress_pool_free(struct compress_pool *p); /* no job is in it */
void compress_pool_add(struct compress_pool *p, struct compress_job *j);

#endif
