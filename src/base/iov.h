/*
 * A cursor over a scatter list. Buffers of guests and peers travel as struct iovec and are
 * read through this, so that a header may straddle buffers and nothing runs past the end.
 * The cursor owns nothing. Any thread.
 */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

struct iov_cur {
	const struct iovec *iov;
	size_t cnt; /* entries left, the current one included */
	size_t off; /* within iov[0] */
};

static inline struct iov_cur iov_cur_init(const struct iovec *iov, size_t cnt)
{
	return (struct iov_cur){iov, cnt, 0};
}
size_t iov_len(const struct iovec *iov, size_t cnt);
size_t iov_cur_left(const struct iov_cur *c);
/* Copies and advances; return the number of bytes done, short only at the end. */
size_t iov_cur_read(struct iov_cur *c, void *buf, size_t len);
size_t iov_cur_write(struct iov_cur *c, const void *buf, size_t len);
size_t iov_cur_zero(struct iov_cur *c, size_t len);
size_t iov_cur_skip(struct iov_cur *c, size_t len);
/* Writes the next `len` bytes as iovecs to out[max]; returns how many entries, or -EINVAL if
 * there are fewer bytes or more entries than asked. Advances on success. */
int iov_cur_take(struct iov_cur *c, size_t len, struct iovec *out, size_t max);

#endif
