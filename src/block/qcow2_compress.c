/*
 * qcow2: one cluster in and out of its compressed form: raw deflate with a window of 4 KiB, or a
 * zstd frame. What follows the end of the compressed data in its last sector is somebody else's.
 *
 * Untrusted: the compressed bytes. The output never exceeds a cluster; zstd's window is bounded.
 * q2_deflate() is for any thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_int.h"

#define WINDOW_BITS (-12)
#define ZSTD_WINDOW 23

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

static int inflate_zstd(struct q2 *q, const uint8_t *in, size_t in_len, uint8_t *out,
			size_t out_len)
{
	ZSTD_inBuffer i = {in, in_len, 0};
	ZSTD_outBuffer o = {out, out_len, 0};

	if (!q->zctx) {
		q->zctx = ZSTD_createDCtx();
		if (!q->zctx) {
			return -ENOMEM;
		}
		ZSTD_DCtx_setParameter(q->zctx, ZSTD_d_windowLogMax, ZSTD_WINDOW);
	}
	ZSTD_DCtx_reset(q->zctx, ZSTD_reset_session_only);
	while (o.pos < o.size) {
		size_t before = i.pos + o.pos;
		size_t r = ZSTD_decompressStream(q->zctx, &o, &i);

		if (ZSTD_isError(r) || (i.pos + o.pos == before)) {
			return -EIO;
		}
	}
	return 0;
}

int q2_inflate(struct q2 *q, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
	return q->h.compression ? inflate_zstd(q, in, in_len, out, out_len)
				: inflate_zlib(in, in_len, out, out_len);
}

void q2_compress_fini(struct q2 *q)
{
	ZSTD_freeDCtx(q->zctx);
	q->zctx = NULL;
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

size_t q2_deflate(unsigned type, const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
	size_t r;

	if (!type) {
		return deflate_zlib(in, len, out, cap);
	}
	r = ZSTD_compress(out, cap, in, len, ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(r) ? 0 : r;
}
