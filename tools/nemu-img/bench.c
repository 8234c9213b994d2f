/*
 * bench: reads or writes one after another, `depth` of them at once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"

const struct img_opt bench_opts[] = {
	{'c', NULL, "COUNT", "how many requests (75000)"},
	{'d', NULL, "DEPTH", "how many at once (64)"},
	{'s', NULL, "SIZE", "bytes of a request (4k)"},
	{'S', NULL, "STEP", "from one to the next (as SIZE)"},
	{'o', NULL, "OFFSET", "of the first"},
	{'w', NULL, NULL, "write instead of read"},
	{ARG_PATTERN, "pattern", "BYTE", "what is written (0)"},
	{ARG_FLUSH_INTERVAL, "flush-interval", "N", "flush after every N writes, when they are done"},
	{ARG_NO_DRAIN, "no-drain", NULL, "flush while writes go on"},
	{'f', NULL, "FMT", "format of the image; otherwise it is found out"},
	{'t', NULL, "CACHE", "cache mode: writeback (default), none, unsafe, ..."},
	{'i', NULL, "AIO", "how requests are made: threads, native or io_uring"},
	{'n', NULL, NULL, "the same as -i native"},
	{'q', NULL, NULL, "print nothing but errors and the times"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the image may be in use by a process that writes it"},
	{.code = 0},
};

struct slot {
	struct blk_req req;
	struct iovec iov;
	struct slot *next;
};

struct bench {
	uint64_t count, depth, size, step, offset, interval;
	bool write, no_drain;
	uint8_t pattern;
	struct img img;
	struct slot *slots, *spare;
	uint8_t *buf;
	uint64_t left, inflight, since_flush;
	bool flushing;
	struct blk_req flush;
	int error;
};

static void done(struct blk_req *r, int result)
{
	struct slot *s = container_of(r, struct slot, req);
	struct bench *b = r->opaque;

	s->next = b->spare;
	b->spare = s;
	b->inflight--;
	if (result && !b->error) {
		b->error = result;
	}
}

static void flushed(struct blk_req *r, int result)
{
	struct bench *b = r->opaque;

	b->flushing = false;
	b->inflight--;
	if (result && !b->error) {
		b->error = result;
	}
}

static void start(struct bench *b)
{
	struct slot *s = b->spare;

	b->spare = s->next;
	s->req = (struct blk_req){
		.op = b->write ? BLK_WRITE : BLK_READ,
		.off = b->offset,
		.len = b->size,
		.iov = &s->iov,
		.niov = 1,
		.done = done,
		.opaque = b,
	};
	b->offset += b->step;
	if (b->offset >= b->img.size) {
		b->offset %= b->img.size;
	}
	b->left--;
	b->inflight++;
	b->since_flush++;
	blk_submit(blk_io_chan(b->img.io), &s->req);
}

static bool flush_due(const struct bench *b)
{
	return b->interval && b->since_flush == b->interval;
}

static void run(struct bench *b)
{
	struct loop *loop = blk_io_loop(b->img.io);

	while ((b->left || b->inflight || flush_due(b)) && !(b->error && !b->inflight)) {
		while (b->left && b->spare && !flush_due(b) && !b->error &&
		       !(b->flushing && !b->no_drain)) {
			start(b);
		}
		if (flush_due(b) && !b->flushing && (b->no_drain || !b->inflight) && !b->error) {
			b->flush = (struct blk_req){
				.op = BLK_FLUSH, .done = flushed, .opaque = b};
			b->flushing = true;
			b->inflight++;
			b->since_flush = 0;
			blk_submit(blk_io_chan(b->img.io), &b->flush);
			continue;
		}
		loop_step(loop, -1);
	}
}

static int buffers(struct bench *b, struct err *err)
{
	size_t each = align_up(MAX(b->size, 1), 4096), all;

	if (u64_mul(each, b->depth, &all) || all > 16 * GiB) {
		return err_set(err, EINVAL, "%llu requests of %llu bytes at once are too many",
			       (unsigned long long)b->depth, (unsigned long long)b->size);
	}
	b->buf = aligned_alloc(4096, all);
	b->slots = calloc(b->depth, sizeof(*b->slots));
	if (!b->buf || !b->slots) {
		return err_set(err, ENOMEM, "out of memory");
	}
	memset(b->buf, b->write ? b->pattern : 0, all);
	for (uint64_t i = 0; i < b->depth; i++) {
		b->slots[i].iov = (struct iovec){b->buf + i * each, b->size};
		b->slots[i].next = b->spare;
		b->spare = &b->slots[i];
	}
	return 0;
}

static int read_args(struct img_args *a, struct bench *b)
{
	uint64_t pattern;

	if (img_arg_size(a, 'c', 0, INT32_MAX, 75000, &b->count) ||
	    img_arg_size(a, 'd', 1, 65536, 64, &b->depth) ||
	    img_arg_size(a, 's', 0, INT32_MAX, 4096, &b->size) ||
	    img_arg_size(a, 'S', 0, INT32_MAX, b->size, &b->step) ||
	    img_arg_size(a, 'o', 0, INT64_MAX, 0, &b->offset) ||
	    img_arg_size(a, ARG_FLUSH_INTERVAL, 0, INT32_MAX, 0, &b->interval)) {
		return -EINVAL;
	}
	b->write = img_given(a, 'w');
	b->no_drain = img_given(a, ARG_NO_DRAIN);
	if (img_given(a, ARG_PATTERN)) {
		if (parse_u64(img_arg(a, ARG_PATTERN), &pattern) || pattern > 255) {
			img_error("bench: --pattern=%s is no byte; give 0 to 255",
				  img_arg(a, ARG_PATTERN));
			return -EINVAL;
		}
		b->pattern = (uint8_t)pattern;
	}
	if (b->interval && !b->write) {
		img_error("bench: --flush-interval is for writes; add -w");
		return -EINVAL;
	}
	if (b->interval && b->interval < b->depth) {
		img_error("bench: --flush-interval=%llu is less than the depth; lower -d",
			  (unsigned long long)b->interval);
		return -EINVAL;
	}
	return 0;
}

static int open_image(struct img_args *a, struct bench *b, struct err *err)
{
	static const char *const aios[] = {"threads", "native", "io_uring"};
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.cache = img_arg(a, 't'),
		.force_share = img_given(a, 'U'),
		.write = b->write,
		.quiet = img_given(a, 'q'),
		.aio = img_given(a, 'n') ? "native" : img_arg(a, 'i'),
	};
	bool known = !how.aio;
	int r = img_cache_check(how.cache, "-t", err);

	for (size_t i = 0; i < ARRAY_SIZE(aios) && !known; i++) {
		known = !strcmp(aios[i], how.aio);
	}
	if (!known) {
		return err_set(err, EINVAL, "-i %s is not valid; give threads, native or io_uring",
			       how.aio);
	}
	r = r ? r : img_open(a->operand[0], &how, NULL, &b->img, err);
	if (!r && !b->img.size) {
		r = err_set(err, EINVAL, "'%s' is empty", a->operand[0]);
	}
	return r;
}

static int measure(struct bench *b, struct err *err)
{
	uint64_t start_ns;
	int r = buffers(b, err);

	if (r) {
		return r;
	}
	printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset "
	       "%llu, step size %llu)\n",
	       (unsigned long long)b->count, b->write ? "write" : "read",
	       (unsigned long long)b->size, (unsigned long long)b->depth,
	       (unsigned long long)b->offset, (unsigned long long)b->step);
	if (b->interval) {
		printf("Sending flush every %llu requests\n", (unsigned long long)b->interval);
	}
	fflush(stdout);
	b->left = b->count;
	start_ns = now_ns();
	run(b);
	if (b->error) {
		return err_set(err, -b->error, "a request failed: %s",
			       b->error == -EINVAL ? "it is not within the image"
						   : strerror(-b->error));
	}
	printf("Run completed in %.3f seconds.\n", (double)(now_ns() - start_ns) / 1e9);
	return 0;
}

int cmd_bench(struct img_args *a)
{
	struct bench b = {.count = 0};
	struct err err;
	int r;

	if (img_operands(a, 1, "the name of the image") || read_args(a, &b)) {
		return 1;
	}
	r = open_image(a, &b, &err);
	r = r ? r : measure(&b, &err);
	img_close(&b.img);
	free(b.buf);
	free(b.slots);
	if (r) {
		img_error("bench: %s", err.msg);
	}
	return r ? 1 : 0;
}
