/*
 * commit: what an image has, and what is between it and its base, goes into the base.
 *
 * The layers above the base are opened each by itself, so that the base can be opened for writing. The
 * base is on disk before anything is dropped above it: whenever this stops, the image shows the
 * same as before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "img.h"

#define STEP (2 * MiB)

const struct img_opt commit_opts[] = {
	{'b', NULL, "BASE", "the backing file that gets it, however far below; implies -d"},
	{'d', NULL, NULL, "do not empty the image afterwards"},
	{'f', NULL, "FMT", "format of the image; otherwise it is found out"},
	{'t', NULL, "CACHE", "cache mode: writeback (default), none, unsafe, ..."},
	{'r', NULL, "RATE", "at most so many bytes per second"},
	{'p', NULL, NULL, "show progress"},
	{'q', NULL, NULL, "print nothing but errors"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{.code = 0},
};

struct commit {
	struct img_args *a;
	struct img layer[IMG_LAYERS];
	unsigned count; /* above the base */
	struct img base;
	uint8_t *buf;
	uint64_t rate, start_ns, bytes;
};

/* The layer that has something at off, or count: none has. */
static int find(struct commit *c, uint64_t off, uint64_t end, struct blk_extent *e, unsigned *which)
{
	uint64_t len = end - off;

	for (*which = 0; *which < c->count; (*which)++) {
		struct img *l = &c->layer[*which];
		int r;

		if (off >= l->size) {
			/* it hides what is below: zeros */
			*e = (struct blk_extent){.len = len, .flags = BLK_EXT_ZERO};
			return 0;
		}
		r = blk_io_status(l->io, off, MIN(len, l->size - off), e);
		if (r) {
			return r;
		}
		len = e->len;
		if (e->flags & BLK_EXT_ALLOCATED) {
			return 0;
		}
	}
	e->len = len;
	return 0;
}

/* Waits until there may be `n` bytes more. */
static void limit(struct commit *c, uint64_t n)
{
	uint64_t due;

	c->bytes += n;
	if (!c->rate) {
		return;
	}
	due = c->start_ns + (uint64_t)((double)c->bytes / (double)c->rate * 1e9);
	while (now_ns() < due) {
		uint64_t ns = MIN(due - now_ns(), 100000000);
		struct timespec ts = {0, (long)MAX(ns, 1000)};

		nanosleep(&ts, NULL);
	}
}

static int copy(struct commit *c, struct err *err)
{
	uint64_t end = c->layer[0].size;
	int r = 0;

	c->start_ns = now_ns();
	for (uint64_t off = 0, n; off < end && !r; off += n) {
		struct blk_extent e;
		unsigned which;

		r = find(c, off, end, &e, &which);
		n = e.len;
		if (!r && which < c->count && e.flags & BLK_EXT_ZERO) {
			r = blk_io_zero(c->base.io, off, n, BLK_MAY_UNMAP);
		} else if (!r && which < c->count) {
			n = MIN(n, STEP);
			r = blk_io_read(c->layer[which].io, off, c->buf, (size_t)n);
			r = r ? r : blk_io_write(c->base.io, off, c->buf, (size_t)n, 0);
			limit(c, n);
		}
		img_progress(c->a->ctl, off + n, end);
		if (r) {
			return err_set(err, -r, "%llu bytes at %llu cannot be copied to '%s': %s",
				       (unsigned long long)n, (unsigned long long)off,
				       c->base.filename, strerror(-r));
		}
	}
	r = blk_io_flush(c->base.io);
	return r ? err_set(err, -r, "'%s' cannot be flushed: %s", c->base.filename, strerror(-r))
		 : 0;
}

static bool same_file(const char *a, const char *b)
{
	char *ra = realpath(a, NULL), *rb = realpath(b, NULL);
	bool same = !strcmp(a, b) || (ra && rb && !strcmp(ra, rb));

	free(ra);
	free(rb);
	return same;
}

static int open_base(struct commit *c, const char *path, const char *fmt, struct err *err)
{
	struct img_how how = {
		.fmt = fmt,
		.cache = img_arg(c->a, 't'),
		.write = true,
		.resize = true,
		.quiet = true,
		.unmap = true,
	};
	int r = img_open(path, &how, NULL, &c->base, err);

	if (!r && c->base.size < c->layer[0].size) {
		r = blk_truncate(c->base.node, c->layer[0].size, BLK_PREALLOC_OFF, err);
	}
	return r;
}

/* From the image down to its base. */
static int open_all(struct commit *c, struct err *err)
{
	const char *base = img_arg(c->a, 'b');
	struct img_how how = {
		.fmt = img_arg(c->a, 'f'),
		.image_opts = img_given(c->a, ARG_IMAGE_OPTS),
		.cache = img_arg(c->a, 't'),
		.write = true,
		.resize = true,
		.no_backing = true,
		.quiet = img_given(c->a, 'q'),
	};
	char *name = strdup(c->a->operand[0]), *fmt = NULL;
	int r = name ? 0 : err_set(err, ENOMEM, "out of memory");

	while (!r) {
		struct img *l = &c->layer[c->count];
		char *file = NULL, *next_fmt = NULL, *path;

		r = img_open(name, &how, NULL, l, err);
		if (r) {
			break;
		}
		c->count++;
		r = blk_image_backing(l->node, &file, &next_fmt, err);
		if (!r && !file) {
			r = c->count == 1 || !base
				    ? err_set(err, EINVAL, "'%s' has no backing file", l->filename)
				    : err_set(err, EINVAL,
					      "'%s' is not among the backing files of '%s'", base,
					      c->a->operand[0]);
		}
		if (!r && c->count == IMG_LAYERS) {
			r = err_set(err, ELOOP, "more than %d backing files; is there a loop?",
				    IMG_LAYERS);
		}
		path = r ? NULL : img_path_beside(l->filename, file);
		if (!r && !path) {
			r = err_set(err, ENOMEM, "out of memory");
		}
		if (!r && (!base || same_file(path, base) || !strcmp(file, base))) {
			r = open_base(c, path, next_fmt, err);
			free(file);
			free(next_fmt);
			free(path);
			break;
		}
		free(file);
		free(name);
		free(fmt);
		name = path;
		fmt = next_fmt;
		how = (struct img_how){.fmt = fmt, .cache = how.cache, .no_backing = true};
	}
	free(name);
	free(fmt);
	return r;
}

int cmd_commit(struct img_args *a)
{
	bool keep = img_given(a, 'd') || img_given(a, 'b');
	struct commit *c;
	struct err err;
	int r;

	if (img_operands(a, 1, "the name of the image")) {
		return 1;
	}
	r = img_cache_check(img_arg(a, 't'), "-t", &err);
	c = calloc(1, sizeof(*c));
	if (c) {
		c->a = a;
		c->buf = aligned_alloc(4096, STEP);
	}
	if (!r && (!c || !c->buf)) {
		r = err_set(&err, ENOMEM, "out of memory");
	}
	if (!r && img_arg_size(a, 'r', 1, INT64_MAX, 0, &c->rate)) {
		free(c->buf);
		free(c);
		return 1;
	}
	r = r ? r : open_all(c, &err);
	if (!r) {
		img_progress_start(a->ctl, img_given(a, 'p') && !img_given(a, 'q'));
		r = copy(c, &err);
		if (!r && !keep) {
			r = blk_image_empty(c->layer[0].node, &err);
		}
		img_progress_end(a->ctl, !r);
	}
	if (c) {
		img_close(&c->base);
		while (c->count) {
			img_close(&c->layer[--c->count]);
		}
		free(c->buf);
		free(c);
	}
	if (r) {
		img_error("commit: %s", err.msg);
		return 1;
	}
	if (!img_given(a, 'q')) {
		printf("Image committed.\n");
	}
	return 0;
}
