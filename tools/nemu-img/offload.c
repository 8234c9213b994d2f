/*
 * Copy offload: copy_file_range(2) from the file of one image to that of another, without a look at
 * the data. File systems that can share blocks do that.
 *
 * Only where the target is a raw file, whose data is at its own offset, and only for extents whose
 * place in a file is known. The nodes of both images are open meanwhile, with their locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"

struct offload {
	const struct blk_node *file; /* that `from` is */
	int from, to;
};

struct offload *offload_new(struct img *source, struct img *target)
{
	struct blk_node *out = blk_child(target->node, "file");
	struct blk_extent e;
	struct offload *o;

	if (strcmp(img_format(target), "raw") || !out || strcmp(blk_driver_name(out), "file") ||
	    !target->size || blk_io_status(target->io, 0, 1, &e) || !(e.flags & BLK_EXT_OFFSET) ||
	    e.file_off) {
		return NULL;
	}
	o = calloc(1, sizeof(*o));
	if (!o) {
		return NULL;
	}
	o->from = open(blk_filename(source->node), O_RDONLY | O_CLOEXEC);
	o->to = open(blk_filename(target->node), O_RDWR | O_CLOEXEC);
	o->file = blk_child(source->node, "file");
	if (o->from < 0 || o->to < 0) {
		offload_free(o);
		return NULL;
	}
	return o;
}

void offload_free(struct offload *o)
{
	if (!o) {
		return;
	}
	if (o->from >= 0) {
		close(o->from);
	}
	if (o->to >= 0) {
		close(o->to);
	}
	free(o);
}

int offload_copy(struct offload *o, const struct blk_extent *e, uint64_t to, uint64_t len)
{
	off_t in = (off_t)e->file_off, out = (off_t)to;

	if (!(e->flags & BLK_EXT_OFFSET) || e->flags & BLK_EXT_COMPRESSED || e->file != o->file) {
		return -ENOTSUP;
	}
	while (len) {
		ssize_t n = copy_file_range(o->from, &in, o->to, &out, len, 0);

		if (n < 0) {
			return -errno;
		}
		if (n == 0) {
			return -EIO; /* shorter than it was */
		}
		len -= (uint64_t)n;
	}
	return 0;
}
