/*
 * The scatter list cursor: see iov.h.
 *
 * Untrusted: lengths of entries may come from a guest or a peer, so sums saturate instead of
 * wrapping. The bytes may change under us; nothing here looks at them.
 */
#include "base/iov.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

size_t iov_len(const struct iovec *iov, size_t cnt)
{
	size_t sum = 0;

	for (size_t i = 0; i < cnt; i++) {
		if (__builtin_add_overflow(sum, iov[i].iov_len, &sum)) {
			return SIZE_MAX;
		}
	}
	return sum;
}

size_t iov_cur_left(const struct iov_cur *c)
{
	size_t len = iov_len(c->iov, c->cnt);

	return len == SIZE_MAX ? len : len - c->off;
}

/* The contiguous piece under the cursor, at most max bytes: its length, 0 at the end (or for
 * max 0). Steps over empty entries and ends of entries. */
static size_t iov_cur_piece(struct iov_cur *c, size_t max, char **base)
{
	size_t left;

	while (c->cnt > 0 && c->off == c->iov->iov_len) {
		c->iov++;
		c->cnt--;
		c->off = 0;
	}
	if (c->cnt == 0) {
		return 0;
	}
	*base = (char *)c->iov->iov_base + c->off;
	left = c->iov->iov_len - c->off;
	return left < max ? left : max;
}

size_t iov_cur_read(struct iov_cur *c, void *buf, size_t len)
{
	size_t done = 0, n;
	char *base;

	while (done < len && (n = iov_cur_piece(c, len - done, &base)) > 0) {
		memcpy((char *)buf + done, base, n);
		c->off += n;
		done += n;
	}
	return done;
}

size_t iov_cur_write(struct iov_cur *c, const void *buf, size_t len)
{
	size_t done = 0, n;
	char *base;

	while (done < len && (n = iov_cur_piece(c, len - done, &base)) > 0) {
		memcpy(base, (const char *)buf + done, n);
		c->off += n;
		done += n;
	}
	return done;
}

size_t iov_cur_zero(struct iov_cur *c, size_t len)
{
	size_t done = 0, n;
	char *base;

	while (done < len && (n = iov_cur_piece(c, len - done, &base)) > 0) {
		memset(base, 0, n);
		c->off += n;
		done += n;
	}
	return done;
}

size_t iov_cur_skip(struct iov_cur *c, size_t len)
{
	size_t done = 0, n;
	char *base;

	while (done < len && (n = iov_cur_piece(c, len - done, &base)) > 0) {
		c->off += n;
		done += n;
	}
	return done;
}

int iov_cur_take(struct iov_cur *c, size_t len, struct iovec *out, size_t max)
{
	struct iov_cur cur = *c;
	size_t count = 0, n;
	char *base;

	while (len > 0) {
		n = iov_cur_piece(&cur, len, &base);
		if (n == 0 || count == max || count == INT_MAX) {
			return -EINVAL;
		}
		out[count].iov_base = base;
		out[count].iov_len = n;
		count++;
		cur.off += n;
		len -= n;
	}
	*c = cur;
	return (int)count;
}
