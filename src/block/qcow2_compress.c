/*
 * qcow2: one cluster in and out of its compressed form: raw deflate with a window of 4 KiB, or a
 * zstd frame. What follows the end of the compressed data in its last sector is somebody else's.
 *
 * libzstd is as large as all of NEMU and few images use it: it is loaded when one is opened or made,
 * which for a VM is before the process isolates itself.
 *
 * Making clusters smaller is the one thing here that takes time. A packer is made once and used again, since what
 * zlib sets up for a stream costs as much as half a cluster. In a window of 4 KiB a long search finds little: with
 * the limits below and the hash table of memLevel 8, which fits a processor's cache, it takes less than half of what
 * the default level with memLevel 9 does, and gives up to one percent more bytes. The window could be larger for
 * a reader that inflates a cluster in one call, but none has to.
 *
 * Untrusted: the compressed bytes. The output never exceeds a cluster; zstd's window is bounded.
 * A packer is one thread's; several may be at work.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_int.h"

#define WINDOW_BITS (-12)
#define ZLIB_LEVEL  4
#define ZLIB_MEM    8
#define ZLIB_BLOCK  (16 * KiB) /* symbols of a block at that memLevel */
#define ZSTD_WINDOW 23

struct q2_zstd {
	void *lib;
	ZSTD_DCtx *ctx; /* of q2_inflate(), for the image's owner */
	ZSTD_DCtx *(*ctx_new)(void);
	size_t (*ctx_free)(ZSTD_DCtx *ctx);
	size_t (*ctx_set)(ZSTD_DCtx *ctx, ZSTD_dParameter param, int value);
	size_t (*ctx_reset)(ZSTD_DCtx *ctx, ZSTD_ResetDirective reset);
	size_t (*decompress)(ZSTD_DCtx *ctx, ZSTD_outBuffer *out, ZSTD_inBuffer *in);
	ZSTD_CCtx *(*cctx_new)(void);
	size_t (*cctx_free)(ZSTD_CCtx *ctx);
	size_t (*compress)(ZSTD_CCtx *ctx, void *dst, size_t cap, const void *src, size_t len,
			   int level);
	unsigned (*is_error)(size_t code);
};

/* #syscalls(start): openat read pread64 fstat mmap mprotect close munmap */
static int zstd_load(struct q2_zstd *z, const char *name, struct err *err)
{
	const struct {
		const char *name;
		void *to;
	} symbol[] = {
		{"ZSTD_createDCtx", &z->ctx_new},
		{"ZSTD_freeDCtx", &z->ctx_free},
		{"ZSTD_DCtx_setParameter", &z->ctx_set},
		{"ZSTD_DCtx_reset", &z->ctx_reset},
		{"ZSTD_decompressStream", &z->decompress},
		{"ZSTD_createCCtx", &z->cctx_new},
		{"ZSTD_freeCCtx", &z->cctx_free},
		{"ZSTD_compressCCtx", &z->compress},
		{"ZSTD_isError", &z->is_error},
	};

	z->lib = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
	for (size_t i = 0; i < ARRAY_SIZE(symbol) && z->lib; i++) {
		void *at = dlsym(z->lib, symbol[i].name);

		if (!at) {
			dlclose(z->lib);
			z->lib = NULL;
			break;
		}
		memcpy(symbol[i].to, &at, sizeof(at));
	}
	z->ctx = z->lib ? z->ctx_new() : NULL;
	if (!z->ctx) {
		return err_set(err, ENOENT,
			       "qcow2 image '%s' is compressed with zstd, and libzstd.so.1 cannot be "
			       "loaded; install libzstd1", name);
	}
	z->ctx_set(z->ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW);
	return 0;
}

int q2_zstd_new(struct q2_zstd **out, const char *name, struct err *err)
{
	struct q2_zstd *z = calloc(1, sizeof(*z));
	int r = z ? zstd_load(z, name, err)
		  : err_set(err, ENOMEM, "qcow2 image '%s': out of memory", name);

	if (r < 0) {
		q2_zstd_free(z);
		return r;
	}
	*out = z;
	return 0;
}

void q2_zstd_free(struct q2_zstd *z)
{
	if (!z) {
		return;
	}
	if (z->ctx) {
		z->ctx_free(z->ctx);
	}
	if (z->lib) {
		dlclose(z->lib);
	}
	free(z);
}

static int inflate_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
	z_stream z = {
		.next_in = (Bytef *)(uintptr_t)in,
		.avail_in = (uInt)in_len,
		.next_out = out,
		.avail_out = (uInt)out_len,
	};
	int r;

	if (inflateInit2(&z, WINDOW_BITS) != Z_OK) {
		return -ENOMEM;
	}
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* Z_BUF_ERROR: the output is full before the end was seen */
	return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int inflate_zstd(const struct q2_zstd *z, const uint8_t *in, size_t in_len, uint8_t *out,
			size_t out_len)
{
	ZSTD_inBuffer i = {in, in_len, 0};
	ZSTD_outBuffer o = {out, out_len, 0};

	z->ctx_reset(z->ctx, ZSTD_reset_session_only);
	while (o.pos < o.size) {
		size_t before = i.pos + o.pos;
		size_t r = z->decompress(z->ctx, &o, &i);

		if (z->is_error(r) || (i.pos + o.pos == before)) {
			return -EIO;
		}
	}
	return 0;
}

int q2_inflate(struct q2 *q, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
	return q->zstd ? inflate_zstd(q->zstd, in, in_len, out, out_len)
		       : inflate_zlib(in, in_len, out, out_len);
}

/* --- packers --- */

struct packer {
	struct blk_packer packer;
	const struct q2_zstd *z; /* NULL: zlib */
	z_stream stream;
	ZSTD_CCtx *ctx;
};

static struct packer *packer_of(struct blk_packer *p)
{
	return container_of(p, struct packer, packer);
}

/* Are all bytes as frequent as in noise? A sample of them: chi-squared with 255 degrees of freedom. */
static bool flat(const uint8_t *in, size_t len)
{
	uint64_t count[256] = {0}, n = 0, squares = 0;

	for (size_t i = 0; i < len; i += 7, n++) {
		count[in[i]]++;
	}
	for (unsigned i = 0; i < 256; i++) {
		squares += count[i] * count[i];
	}
	return squares * 256 < n * (n + 400);
}

/* What looks like noise and begins with a block of ZLIB_BLOCK symbols that are nearly all literals is given up. */
static size_t pack_zlib(struct blk_packer *p, const void *in, size_t len, void *out, size_t cap)
{
	z_stream *z = &packer_of(p)->stream;
	size_t first = len >= 2 * ZLIB_BLOCK && flat(in, len) ? ZLIB_BLOCK + 512 : len;

	/* the reset brings back the level's own limits */
	if (deflateReset(z) != Z_OK || deflateTune(z, 4, 8, 32, 16) != Z_OK) {
		return 0;
	}
	z->next_in = (Bytef *)(uintptr_t)in;
	z->avail_in = (uInt)first;
	z->next_out = out;
	z->avail_out = (uInt)cap;
	if (first < len && (deflate(z, Z_NO_FLUSH) != Z_OK || z->total_out)) {
		return 0;
	}
	z->avail_in += (uInt)(len - first);
	return deflate(z, Z_FINISH) == Z_STREAM_END ? cap - z->avail_out : 0;
}

static size_t pack_zstd(struct blk_packer *packer, const void *in, size_t len, void *out,
			size_t cap)
{
	struct packer *p = packer_of(packer);
	size_t r = p->z->compress(p->ctx, out, cap, in, len, ZSTD_CLEVEL_DEFAULT);

	return p->z->is_error(r) ? 0 : r;
}

static void packer_free_zlib(struct blk_packer *p)
{
	deflateEnd(&packer_of(p)->stream);
	free(packer_of(p));
}

static void packer_free_zstd(struct blk_packer *p)
{
	packer_of(p)->z->cctx_free(packer_of(p)->ctx);
	free(packer_of(p));
}

struct blk_packer *q2_packer_new(const struct q2_zstd *z)
{
	struct packer *p = calloc(1, sizeof(*p));
	bool ok = p;

	if (ok && z) {
		p->packer = (struct blk_packer){.pack = pack_zstd, .free = packer_free_zstd};
		p->z = z;
		p->ctx = z->cctx_new();
		ok = p->ctx;
	} else if (ok) {
		p->packer = (struct blk_packer){.pack = pack_zlib, .free = packer_free_zlib};
		ok = deflateInit2(&p->stream, ZLIB_LEVEL, Z_DEFLATED, WINDOW_BITS, ZLIB_MEM,
				  Z_DEFAULT_STRATEGY) == Z_OK;
	}
	if (!ok) {
		free(p);
		return NULL;
	}
	return &p->packer;
}
