/*
 * Files that may be packed: see gunzip.h. zlib does the work.
 */
#include "base/gunzip.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <zlib.h>

#include "base/util.h"

#define CHUNK (64 * KiB)

struct gunzip {
	int fd;
	off_t off;
	bool packed, end;
	z_stream z;
	uint8_t in[CHUNK];
};

/* #syscalls(main): preadv */
static ssize_t read_some(struct gunzip *g, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = preadv(g->fd, &(struct iovec){buf, len}, 1, g->off);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		return -errno;
	}
	g->off += n;
	return n;
}

int gunzip_open(int fd, struct gunzip **out)
{
	struct gunzip *g = calloc(1, sizeof(*g));
	ssize_t n;

	if (!g) {
		return -ENOMEM;
	}
	g->fd = fd;
	n = read_some(g, g->in, 2);
	g->packed = n == 2 && g->in[0] == 0x1f && g->in[1] == 0x8b;
	g->off = 0;
	if (n >= 0 && g->packed && inflateInit2(&g->z, 16 + MAX_WBITS) != Z_OK) {
		n = -ENOMEM;
	}
	if (n < 0) {
		free(g);
		return (int)n;
	}
	*out = g;
	return 0;
}

void gunzip_close(struct gunzip *g)
{
	if (g) {
		if (g->packed) {
			inflateEnd(&g->z);
		}
		free(g);
	}
}

static ssize_t read_plain(struct gunzip *g, uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read_some(g, buf + done, len - done);

		if (n < 0) {
			return n;
		}
		if (n == 0) {
			break;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t gunzip_read(struct gunzip *g, void *buf, size_t len)
{
	if (!g->packed) {
		return read_plain(g, buf, len);
	}
	len = MIN(len, GiB);
	g->z.next_out = buf;
	g->z.avail_out = (uInt)len;
	while (g->z.avail_out && !g->end) {
		int r;

		if (!g->z.avail_in) {
			ssize_t n = read_some(g, g->in, sizeof(g->in));

			if (n <= 0) {
				return n ? n : -EINVAL;
			}
			g->z.next_in = g->in;
			g->z.avail_in = (uInt)n;
		}
		r = inflate(&g->z, Z_NO_FLUSH);
		if (r == Z_STREAM_END) {
			g->end = true; /* what follows is no kernel: Debian signs behind it */
		} else if (r != Z_OK) {
			return r == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
		}
	}
	return (ssize_t)(len - g->z.avail_out);
}
