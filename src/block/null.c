/*
 * driver=null-co: a disk that reads zeros and forgets what is written. For benchmarks of
 * everything above the disk, and for tests. Its loop owns a channel; nothing is shared.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/block_int.h"

static void null_submit(struct blk_chan *c, struct blk_req *r)
{
	(void)c;
	if (r->op == BLK_READ) {
		iov_cur_zero(&r->cur, r->len);
	}
	blk_complete_later(r, 0);
}

static void null_close(struct blk_node *n)
{
	free(n);
}

static const struct blk_node_ops null_ops = {
	.name = "null-co",
	.chan_size = sizeof(struct blk_chan),
	.submit = null_submit,
	.close = null_close,
};

int blk_null_new(const char *name, uint64_t size, bool read_only, struct blk_node **out)
{
	struct blk_node *n = calloc(1, sizeof(*n));

	if (!n) {
		return -ENOMEM;
	}
	blk_node_init(n, &null_ops, name, 0);
	n->info = (struct blk_info){
		.size = size,
		.block_size = 512,
		.align = 1,
		.read_only = read_only,
		.can_zero = true,
	};
	*out = n;
	return 0;
}
