/*
 * qcow2: one cluster in and out of its compressed form: raw deflate with a window of 4 KiB, or a
 * zstd frame. What follows the end of the compressed data in its last sector is somebody else's.
 *
 * libzstd is as large as all of NEMU and few images use it: it is loaded when one is opened or made,
 * which for a VM is before the process isolates itself.
 *
 * Untrusted: the compressed bytes. The output never exceeds a cluster; zstd's window is bounded.
 * q2_deflate() is for any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_int.h"

#define WINDOW_BITS (-12)
#define ZSTD_WINDOW 23

struct q2_zstd {
	void *lib;
	ZSTD_DCtx *ctx; /* of q2_inflate(), for the image's owner */
	ZSTD_DCtx *(*ctx_new)(void);
	size_t (*ctx_free)(ZSTD_DCtx *ctx);
	size_t (*ctx_set)(ZSTD_DCtx *ctx, ZSTD_dParameter param, int value);
	size_t (*ctx_reset)(ZSTD_DCtx *ctx, ZSTD_ResetDirective reset);
	size_t (*decompress)(ZSTD_DCtx *ctx, ZSTD_outBuffer *out, ZSTD_inBuffer *in);
	size_t (*compress)(void *dst, size_t cap, const void *src, size_t len, int level);
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
		{"ZSTD_compress", &z->compress},
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

static size_t deflate_zlib(const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
	z_stream z = {
		.next_in = (Bytef *)(uintptr_t)in,
		.avail_in = (uInt)len,
		.next_out = out,
		.avail_out = (uInt)cap,
	};
	int r;

	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, 9,
			 Z_DEFAULT_STRATEGY) != Z_OK) {
		return 0;
	}
	r = deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return r == Z_STREAM_END ? cap - z.avail_out : 0;
}

size_t q2_deflate(const struct q2_zstd *z, const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
	size_t r;

	if (!z) {
		return deflate_zlib(in, len, out, cap);
	}
	r = z->compress(out, cap, in, len, ZSTD_CLEVEL_DEFAULT);
	return z->is_error(r) ? 0 : r;
}
