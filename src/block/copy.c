/*
 * Copies from file to file inside the kernel: a file system may share the blocks, a server may
 * copy them itself. For tools: it blocks.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "block/file_int.h"

/* The file behind n and the offset there, through windows of driver=raw; NULL: something
 * else. */
static struct blk_file *file_below(struct blk_node *n, uint64_t *off)
{
	while (n->drv == &blk_raw_driver) {
		*off += blk_raw_offset(n);
		n = n->file;
	}
	return n->drv == &blk_file_driver || n->drv == &blk_host_device_driver ? blk_file_of(n)
									       : NULL;
}

/* #syscalls(start): copy_file_range */
int64_t blk_copy_range(struct blk_node *src, uint64_t src_off, struct blk_node *dst,
		       uint64_t dst_off, uint64_t len)
{
	struct blk_file *from, *to;
	loff_t a, b;
	ssize_t n;

	if (!range_within(src_off, len, blk_size(src)) ||
	    !range_within(dst_off, len, blk_size(dst))) {
		return -EINVAL;
	}
	if (dst->info.read_only || !(dst->perm & BLK_PERM_WRITE)) {
		return -EROFS;
	}
	from = file_below(src, &src_off);
	to = file_below(dst, &dst_off);
	if (!from || !to || from->direct || to->direct) {
		return -ENOTSUP;
	}
	a = (loff_t)src_off;
	b = (loff_t)dst_off;
	n = copy_file_range(from->fd, &a, to->fd, &b, len, 0);
	if (n < 0) {
		bool cannot = errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL ||
			      errno == ENOSYS;

		return cannot ? -ENOTSUP : -errno;
	}
	if (n > 0) {
		blk_file_eof(to, (uint64_t)b);
	}
	return n;
}
