/*
 * compare: do two images have the same content?
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"

#define STEP (2 * MiB)
#define SECTOR 512

const struct img_opt compare_opts[] = {
	{'f', NULL, "FMT", "format of the first image; otherwise it is found out"},
	{'F', NULL, "FMT", "format of the second image"},
	{'T', NULL, "CACHE", "cache mode: writeback (default), none, unsafe, ..."},
	{'s', NULL, NULL, "strictly: size and what is allocated have to be the same, too"},
	{'p', NULL, NULL, "show progress"},
	{'q', NULL, NULL, "print nothing but errors"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "both names are lists of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the images may be in use by processes that write them"},
	{.code = 0},
};

enum { SAME, DIFFERENT, OPEN_FAILED, STATUS_FAILED, READ_FAILED };

struct side {
	struct img img;
	struct img_chain chain;
	uint8_t *buf;
	/* the extent at the position, and how much of it is left */
	struct blk_extent ext;
};

struct compare {
	struct img_args *a;
	struct side side[2];
	bool strict, quiet;
	uint64_t least, most;
};

static void say(const struct compare *c, const char *text)
{
	if (!c->quiet) {
		puts(text);
	}
}

static int differs(const struct compare *c, uint64_t off)
{
	if (!c->quiet) {
		printf("Content mismatch at offset %llu!\n", (unsigned long long)off);
	}
	return DIFFERENT;
}

static int status(struct side *s, uint64_t off, uint64_t end)
{
	unsigned depth;
	int r = img_chain_status(&s->chain, 0, s->chain.count, off, end - off, &s->ext, &depth);

	if (r) {
		img_error("compare: what '%s' has at %llu cannot be told: %s", s->img.filename,
			  (unsigned long long)off, strerror(-r));
		return STATUS_FAILED;
	}
	return 0;
}

static int fetch(struct side *s, uint64_t off, size_t len)
{
	int r = blk_io_read(s->img.io, off, s->buf, len);

	if (r) {
		img_error("compare: '%s' cannot be read at %llu: %s", s->img.filename,
			  (unsigned long long)off, strerror(-r));
		return READ_FAILED;
	}
	return 0;
}

/* The first sector that differs. */
static size_t mismatch(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t off = 0;

	if (!memcmp(a, b, len)) {
		return len;
	}
	while (!memcmp(a + off, b + off, MIN(SECTOR, len - off))) {
		off += SECTOR;
	}
	return off;
}

static size_t nonzero(const uint8_t *a, size_t len)
{
	size_t off = 0;

	while (off < len && img_is_zero(a + off, MIN(SECTOR, len - off))) {
		off += SECTOR;
	}
	return MIN(off, len);
}

static int both(struct compare *c, uint64_t off, size_t len)
{
	struct side *s = c->side;
	bool zero0 = s[0].ext.flags & BLK_EXT_ZERO, zero1 = s[1].ext.flags & BLK_EXT_ZERO;
	size_t at;
	int r = 0;

	if (zero0 && zero1) {
		return SAME;
	}
	for (int i = 0; i < 2 && !r; i++) {
		if (!(i ? zero1 : zero0)) {
			r = fetch(&s[i], off, len);
		}
	}
	if (r) {
		return r;
	}
	if (zero0 || zero1) {
		at = nonzero(zero0 ? s[1].buf : s[0].buf, len);
	} else {
		at = mismatch(s[0].buf, s[1].buf, len);
	}
	if (at < len) {
		return differs(c, off + at);
	}
	return SAME;
}

/* Up to where both have data: each step as long as neither extent ends. */
static int common(struct compare *c)
{
	const unsigned seen = BLK_EXT_DATA | BLK_EXT_ZERO | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET;
	uint64_t off = 0;

	while (off < c->least) {
		struct side *s = c->side;
		uint64_t len;
		int r = 0;

		for (int i = 0; i < 2 && !r; i++) {
			if (!s[i].ext.len) {
				r = status(&s[i], off, c->least);
			}
		}
		if (r) {
			return r;
		}
		if (c->strict && (s[0].ext.flags & seen) != (s[1].ext.flags & seen)) {
			if (!c->quiet) {
				printf("Strict mode: Offset %llu block status mismatch!\n",
				       (unsigned long long)off);
			}
			return DIFFERENT;
		}
		len = MIN(s[0].ext.len, s[1].ext.len);
		if (!(s[0].ext.flags & s[1].ext.flags & BLK_EXT_ZERO)) {
			len = MIN(len, STEP);
		}
		r = both(c, off, (size_t)len);
		if (r) {
			return r;
		}
		off += len;
		s[0].ext.len -= len;
		s[1].ext.len -= len;
		img_progress(c->a->ctl, off, c->most);
	}
	return SAME;
}

/* The longer one: zeros to its end? */
static int tail(struct compare *c)
{
	struct side *s = &c->side[c->side[1].img.size > c->side[0].img.size];
	uint64_t off = c->least;

	while (off < c->most) {
		uint64_t len;
		size_t at;
		int r = status(s, off, c->most);

		if (r) {
			return r;
		}
		len = s->ext.len;
		if (!(s->ext.flags & BLK_EXT_ZERO)) {
			len = MIN(len, STEP);
			r = fetch(s, off, (size_t)len);
			at = nonzero(s->buf, (size_t)len);
			if (r || at < len) {
				return r ? r : differs(c, off + at);
			}
		}
		off += len;
		img_progress(c->a->ctl, off, c->most);
	}
	return SAME;
}

static int compare(struct compare *c)
{
	uint64_t size0 = c->side[0].img.size, size1 = c->side[1].img.size;
	int r;

	c->least = MIN(size0, size1);
	c->most = MAX(size0, size1);
	if (c->strict && size0 != size1) {
		say(c, "Strict mode: Image size mismatch!");
		return DIFFERENT;
	}
	img_progress_start(c->a->ctl, img_given(c->a, 'p') && !c->quiet);
	r = common(c);
	if (!r && size0 != size1) {
		say(c, "Warning: Image size mismatch!");
		r = tail(c);
	}
	if (!r) {
		say(c, "Images are identical.");
	}
	img_progress_end(c->a->ctl, !r);
	return r;
}

static int open_side(struct compare *c, int n, struct err *err)
{
	struct side *s = &c->side[n];
	struct img_how how = {
		.fmt = img_arg(c->a, n ? 'F' : 'f'),
		.image_opts = img_given(c->a, ARG_IMAGE_OPTS),
		.cache = img_arg(c->a, 'T'),
		.force_share = img_given(c->a, 'U'),
	};
	int r = img_open(c->a->operand[n], &how, NULL, &s->img, err);

	if (r) {
		return r;
	}
	s->buf = aligned_alloc(4096, STEP);
	return s->buf ? img_chain_open(&s->img, &s->chain, err)
		      : err_set(err, ENOMEM, "out of memory");
}

int cmd_compare(struct img_args *a)
{
	struct compare *c;
	struct err err;
	int r;

	if (img_operands(a, 2, "the name of the first or the second image")) {
		return 1;
	}
	if (img_cache_check(img_arg(a, 'T'), "-T", &err)) {
		img_error("compare: %s", err.msg);
		return OPEN_FAILED;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		img_error("compare: out of memory");
		return OPEN_FAILED;
	}
	c->a = a;
	c->strict = img_given(a, 's');
	c->quiet = img_given(a, 'q');
	r = open_side(c, 0, &err);
	r = r ? r : open_side(c, 1, &err);
	if (r) {
		img_error("compare: %s", err.msg);
		r = OPEN_FAILED;
	} else {
		r = compare(c);
	}
	for (int i = 0; i < 2; i++) {
		img_chain_close(&c->side[i].chain);
		img_close(&c->side[i].img);
		free(c->side[i].buf);
	}
	free(c);
	return r;
}
