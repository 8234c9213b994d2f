/*
 * rebase: another backing file for an image.
 *
 * Safe mode keeps what the image shows: where it has no data of its own and the two backing files
 * differ, it gets the data of the old one. Only when all of that is on disk the name changes, so that
 * whenever this stops the image shows the same. Unsafe mode (-u) changes the name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"

#define STEP (2 * MiB)

const struct img_opt rebase_opts[] = {
	{'b', NULL, "FILE", "the new backing file, as seen from the directory of the image; empty: none"},
	{'F', NULL, "FMT", "format of the new backing file"},
	{'u', NULL, NULL, "unsafe: change the name, do not look at any data"},
	{'f', NULL, "FMT", "format of the image; otherwise it is found out"},
	{'t', NULL, "CACHE", "cache mode of the image: writeback (default), none, unsafe, ..."},
	{'T', NULL, "CACHE", "cache mode of the backing files"},
	{'p', NULL, NULL, "show progress"},
	{'q', NULL, NULL, "print nothing but errors"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the new backing file may be in use by a process that writes it"},
	{.code = 0},
};

struct rebase {
	struct img_args *a;
	struct img img, base; /* base.node NULL: none */
	struct img_chain chain, base_chain;
	uint8_t *old, *new;
	size_t cluster;
};

/* What layers from..end of a chain have at off; zeros behind the end of the first. */
static int chain_read(struct img_chain *c, unsigned from, uint64_t off, uint8_t *buf, size_t len)
{
	size_t n = 0;
	int r = 0;

	if (c->count > from && off < c->layer[from].size) {
		n = (size_t)MIN(len, c->layer[from].size - off);
		/* a node reads through to its own backing file */
		r = blk_io_read(c->layer[from].io, off, buf, n);
	}
	memset(buf + n, 0, len - n);
	return r;
}

static int merge(struct rebase *b, uint64_t off, size_t len)
{
	/* behind the end of the old one the image has zeros already and would take no note */
	bool below = b->chain.count > 1 && off < b->chain.layer[1].size;
	size_t done = 0;
	int r = chain_read(&b->chain, 1, off, b->old, len);

	r = r ? r : chain_read(&b->base_chain, 0, off, b->new, len);
	while (!r && done < len) {
		size_t n = MIN(b->cluster, len - done), end = done;

		while (end < len && memcmp(b->old + end, b->new + end, MIN(n, len - end))) {
			end += MIN(n, len - end);
		}
		if (end > done && below && img_is_zero(b->old + done, end - done)) {
			r = blk_io_zero(b->img.io, off + done, end - done, 0);
		} else if (end > done) {
			r = blk_io_write(b->img.io, off + done, b->old + done, end - done, 0);
		}
		done = end > done ? end : done + n;
	}
	return r;
}

/* Nothing below in either: nothing to compare. */
static int both_zero(struct rebase *b, uint64_t off, uint64_t *len, bool *zero)
{
	struct img_chain *chains[] = {&b->chain, &b->base_chain};
	unsigned from[] = {1, 0};

	*zero = true;
	for (int i = 0; i < 2 && *zero; i++) {
		struct img_chain *c = chains[i];
		struct blk_extent e = {.flags = BLK_EXT_ZERO, .len = *len};
		unsigned depth;
		int r = 0;

		if (c->count > from[i] && off < c->layer[from[i]].size) {
			r = img_chain_status(c, from[i], c->count, off, *len, &e, &depth);
		}
		if (r) {
			return r;
		}
		*len = MIN(*len, e.len);
		*zero = e.flags & BLK_EXT_ZERO;
	}
	return 0;
}

static int step(struct rebase *b, uint64_t off, uint64_t *done, struct err *err)
{
	struct blk_extent e;
	unsigned depth;
	bool zero;
	int r = img_chain_status(&b->chain, 0, 1, off, b->img.size - off, &e, &depth);

	*done = e.len;
	if (!r && !(e.flags & BLK_EXT_ALLOCATED)) {
		r = both_zero(b, off, done, &zero);
		if (!r && !zero) {
			*done = MIN(*done, STEP - off % b->cluster);
			r = merge(b, off, (size_t)*done);
		}
	}
	return r ? err_set(err, -r, "'%s' cannot be changed at %llu: %s", b->img.filename,
			   (unsigned long long)off, strerror(-r))
		 : 0;
}

static int merge_all(struct rebase *b, struct err *err)
{
	struct blk_info info;
	int r = img_chain_open(&b->img, &b->chain, err);

	blk_info(b->img.node, &info);
	b->cluster = info.cluster_size ? info.cluster_size : 64 * KiB;
	b->old = aligned_alloc(4096, STEP);
	b->new = aligned_alloc(4096, STEP);
	if (!b->old || !b->new) {
		r = err_set(err, ENOMEM, "out of memory");
	}
	if (!r && b->base.node) {
		r = img_chain_open(&b->base, &b->base_chain, err);
	}
	img_progress_start(b->a->ctl, img_given(b->a, 'p') && !img_given(b->a, 'q'));
	for (uint64_t off = 0, n; !r && off < b->img.size; off += n) {
		r = step(b, off, &n, err);
		img_progress(b->a->ctl, off + n, b->img.size);
	}
	if (!r) {
		r = blk_io_flush(b->img.io);
		if (r) {
			err_set(err, -r, "'%s' cannot be flushed: %s", b->img.filename,
				strerror(-r));
		}
	}
	img_progress_end(b->a->ctl, !r);
	img_chain_close(&b->chain);
	img_chain_close(&b->base_chain);
	free(b->old);
	free(b->new);
	return r;
}

static int open_base(struct rebase *b, const char *file, const char *fmt, struct err *err)
{
	struct img_how how = {
		.fmt = fmt,
		.cache = img_arg(b->a, 'T'),
		.force_share = img_given(b->a, 'U'),
	};
	char *path = img_path_beside(b->img.filename, file);
	int r = path ? img_open(path, &how, NULL, &b->base, err)
		     : err_set(err, ENOMEM, "out of memory");

	free(path);
	return r;
}

static int rebase(struct rebase *b, const char *file, const char *fmt, struct err *err)
{
	bool unsafe = img_given(b->a, 'u');
	struct img_how how = {
		.fmt = img_arg(b->a, 'f'),
		.image_opts = img_given(b->a, ARG_IMAGE_OPTS),
		.cache = img_arg(b->a, 't'),
		.write = true,
		.no_backing = unsafe,
		.quiet = img_given(b->a, 'q'),
	};
	int r = img_open(b->a->operand[0], &how, NULL, &b->img, err);

	if (!r && strcmp(img_format(&b->img), "qcow2")) {
		r = err_set(err, ENOTSUP, "an image of format '%s' has no backing file",
			    img_format(&b->img));
	}
	if (!r && file && !unsafe) {
		r = open_base(b, file, fmt, err);
	}
	if (!r && !unsafe) {
		r = merge_all(b, err);
	}
	if (!r) {
		r = blk_image_set_backing(b->img.node, file, fmt, err);
	}
	return r;
}

int cmd_rebase(struct img_args *a)
{
	const char *file = img_arg(a, 'b'), *fmt = img_arg(a, 'F');
	struct rebase *b;
	struct err err;
	int r;

	if (img_operands(a, 1, "the name of the image")) {
		return 1;
	}
	if (!file && !img_given(a, 'u')) {
		img_error("rebase: -b is missing; give the new backing file, or -b '' for none");
		return 1;
	}
	file = file && *file ? file : NULL;
	r = img_cache_check(img_arg(a, 't'), "-t", &err);
	r = r ? r : img_cache_check(img_arg(a, 'T'), "-T", &err);
	if (!r && fmt) {
		r = img_format_check(fmt, &err);
	}
	if (!r && file && !fmt) {
		r = err_set(&err, EINVAL, "the format of the backing file '%s' is missing; add -F",
			    file);
	}
	b = calloc(1, sizeof(*b));
	if (!r && !b) {
		r = err_set(&err, ENOMEM, "out of memory");
	}
	if (!r) {
		b->a = a;
		r = rebase(b, file, file ? fmt : NULL, &err);
		img_close(&b->base);
		img_close(&b->img);
	}
	free(b);
	if (r) {
		img_error("rebase: %s", err.msg);
	}
	return r ? 1 : 0;
}
