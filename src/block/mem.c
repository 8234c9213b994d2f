/*
 * A disk in memory: the trivial second implementation of the seam, for tests and benchmarks.
 * Channels of different loops share the content without a lock, as two queues of one disk do:
 * who overlaps two writes gets either. It can grow to twice its size, because the content stays
 * where it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

struct blk_mem {
	struct blk_node node;
	uint8_t *data;
	uint64_t room;
};

static void mem_submit(struct blk_chan *c, struct blk_req *r)
{
	struct blk_mem *m = container_of(c->node, struct blk_mem, node);

	if (r->op != BLK_FLUSH && r->off + r->len > m->room) {
		blk_complete_later(r, -ENOSPC);
		return;
	}
	switch (r->op) {
	case BLK_READ:
		iov_cur_write(&r->cur, m->data + r->off, r->len);
		break;
	case BLK_WRITE:
		iov_cur_read(&r->cur, m->data + r->off, r->len);
		blk_grown(c->node, r->off + r->len);
		break;
	case BLK_DISCARD:
	case BLK_WRITE_ZEROES:
		memset(m->data + r->off, 0, r->len);
		blk_grown(c->node, r->off + r->len);
		break;
	case BLK_STATUS:
		r->status = (struct blk_extent){
			.len = r->len,
			.flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_OFFSET,
			.file = c->node,
			.file_off = r->off,
		};
		break;
	case BLK_FLUSH:
		break;
	}
	blk_complete_later(r, 0);
}

static int mem_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc,
			struct err *err)
{
	struct blk_mem *m = container_of(n, struct blk_mem, node);

	(void)prealloc;
	if (size > m->room) {
		return err_set(err, ENOSPC, "disk '%s' has room for %llu bytes", n->name,
			       (unsigned long long)m->room);
	}
	memset(m->data + size, 0, m->room - size);
	blk_set_size(n, size);
	return 0;
}

static void mem_close(struct blk_node *n)
{
	free(container_of(n, struct blk_mem, node)->data);
}

static const struct blk_driver mem_driver = {
	.name = "mem",
	.node_size = sizeof(struct blk_mem),
	.chan_size = sizeof(struct blk_chan),
	.protocol = true,
	.submit = mem_submit,
	.close = mem_close,
	.truncate = mem_truncate,
};

int blk_mem_new(const char *name, uint64_t size, struct blk_node **out, uint8_t **data)
{
	struct blk_mem *m = calloc(1, sizeof(*m));

	if (!m) {
		return -ENOMEM;
	}
	m->room = 2 * size;
	m->data = calloc(1, size ? m->room : 1);
	if (!m->data) {
		free(m);
		return -ENOMEM;
	}
	blk_node_init(&m->node, &mem_driver, name, 1);
	m->node.can_grow = true;
	m->node.info = (struct blk_info){
		.size = size,
		.block_size = 512,
		.align = 1,
		.discard_granularity = 512,
		.can_discard = true,
		.can_zero = true,
		.write_cache = true,
		.resizable = true,
	};
	*data = m->data;
	*out = &m->node;
	return 0;
}
