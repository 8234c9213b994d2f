/*
 * A disk in memory: the trivial second implementation of the seam, for tests and benchmarks.
 * Channels of different loops share the content without a lock, as two queues of one disk do:
 * who overlaps two writes gets either.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

struct blk_mem {
	struct blk_node node;
	uint8_t *data;
};

static void mem_submit(struct blk_chan *c, struct blk_req *r)
{
	struct blk_mem *m = container_of(c->node, struct blk_mem, node);

	switch (r->op) {
	case BLK_READ:
		iov_cur_write(&r->cur, m->data + r->off, r->len);
		break;
	case BLK_WRITE:
		iov_cur_read(&r->cur, m->data + r->off, r->len);
		break;
	case BLK_DISCARD:
	case BLK_WRITE_ZEROES:
		memset(m->data + r->off, 0, r->len);
		break;
	case BLK_FLUSH:
		break;
	}
	blk_complete_later(r, 0);
}

static void mem_close(struct blk_node *n)
{
	struct blk_mem *m = container_of(n, struct blk_mem, node);

	free(m->data);
	free(m);
}

static const struct blk_node_ops mem_ops = {
	.name = "mem",
	.chan_size = sizeof(struct blk_chan),
	.submit = mem_submit,
	.close = mem_close,
};

int blk_mem_new(const char *name, uint64_t size, struct blk_node **out, uint8_t **data)
{
	struct blk_mem *m = calloc(1, sizeof(*m));

	if (!m) {
		return -ENOMEM;
	}
	m->data = calloc(1, size ? size : 1);
	if (!m->data) {
		free(m);
		return -ENOMEM;
	}
	blk_node_init(&m->node, &mem_ops, name, 1);
	m->node.info = (struct blk_info){
		.size = size,
		.block_size = 512,
		.align = 1,
		.discard_granularity = 512,
		.can_discard = true,
		.can_zero = true,
		.write_cache = true,
	};
	*data = m->data;
	*out = &m->node;
	return 0;
}
