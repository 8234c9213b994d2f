/*
 * driver=null-co: a disk that reads zeros and forgets what is written. For benchmarks of
 * everything above the disk, and for tests. Its loop owns a channel; nothing is shared.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "block/block_int.h"

struct blk_null {
	struct blk_node node;
	uint64_t size;
};

static const struct opt_desc null_rows[] = {
	{"size", OPT_SIZE, offsetof(struct blk_null, size), .def = "1073741824"},
	{.key = NULL},
};

static void null_submit(struct blk_chan *c, struct blk_req *r)
{
	(void)c;
	if (r->op == BLK_READ) {
		iov_cur_zero(&r->cur, r->len);
	} else if (r->op == BLK_STATUS) {
		r->status = (struct blk_extent){.len = r->len,
						.flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED};
	}
	blk_complete_later(r, 0);
}

static void null_info(struct blk_node *n, uint64_t size)
{
	n->info = (struct blk_info){
		.size = size,
		.block_size = 512,
		.align = 1,
		.read_only = n->opt.read_only,
		.can_zero = true,
		.resizable = true,
	};
}

static int null_open(struct blk_node *n, struct opts *o, struct err *err)
{
	struct blk_null *z = container_of(n, struct blk_null, node);
	int r = opts_read(o, null_rows, z, err);

	if (r) {
		return r;
	}
	if (!z->size || z->size % 512 || z->size > INT64_MAX) {
		return err_set(err, EINVAL, "driver=null-co: size must be a multiple of 512");
	}
	null_info(n, z->size);
	return 0;
}

static int null_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			 struct err *err)
{
	(void)prealloc;
	(void)err;
	blk_set_size(n, size);
	return 0;
}

static void null_close(struct blk_node *n)
{
	(void)n;
}

const struct blk_driver blk_null_driver = {
	.name = "null-co",
	.node_size = sizeof(struct blk_null),
	.chan_size = sizeof(struct blk_chan),
	.protocol = true,
	.open = null_open,
	.close = null_close,
	.submit = null_submit,
	.truncate = null_truncate,
};

int blk_null_new(const char *name, uint64_t size, bool read_only, struct blk_node **out)
{
	struct blk_null *z = calloc(1, sizeof(*z));

	if (!z) {
		return -ENOMEM;
	}
	blk_node_init(&z->node, &blk_null_driver, name, 0);
	z->node.opt.read_only = read_only;
	null_info(&z->node, size);
	*out = &z->node;
	return 0;
}
