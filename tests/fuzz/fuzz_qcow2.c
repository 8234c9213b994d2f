/*
 * A qcow2 image from anybody: the whole input is the file. It is opened, read, written to, checked and
 * repaired; then an image that was repaired opens.
 *
 * #covers: src/block/qcow2_header.c src/block/qcow2_engine.c src/block/qcow2_map.c
 * #covers: src/block/qcow2_refcount.c src/block/qcow2_read.c src/block/qcow2_write.c
 * #covers: src/block/qcow2_zero.c src/block/qcow2_check.c src/block/qcow2_snapshot.c
 * #covers: src/block/qcow2_bitmap.c src/block/qcow2_compress.c src/block/qcow2_resize.c
 */
#include <stdlib.h>

#include "block/qcow2_int.h"

#define MAX_FILE (1 * MiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct q2 *image_open(struct blk_node *n, struct blk_io *io, uint64_t size,
			     bool read_only, bool no_repair)
{
	struct q2_config cfg = {.name = "fuzz",
				.file = io,
				.file_size = size,
				.file_grows = true,
				.read_only = read_only,
				.no_repair = no_repair};
	struct q2_header h;
	struct q2 *q = NULL;
	struct err err;

	(void)n;
	q2_options_default(&cfg.opt);
	cfg.opt.l2_cache_size = cfg.opt.refcount_cache_size = 32768;
	if (q2_header_read(io, cfg.file_size, "fuzz", &h, &err) == 0) {
		q2_open(&cfg, &h, &q, &err);
	}
	q2_header_fini(&h);
	return q;
}

static void use(struct q2 *q)
{
	static uint8_t buf[65536];
	uint64_t size = q->h.size;
	struct q2_snap s = {.name = (char *)(uintptr_t) "f", .icount = UINT64_MAX};
	struct err err;

	for (uint64_t off = 0; off < size && off < 8 * sizeof(buf); off += sizeof(buf)) {
		q2_read_buf(q, off, buf, MIN(sizeof(buf), size - off));
	}
	if (size > sizeof(buf)) {
		q2_read_buf(q, size - 1000, buf, 1000);
		q2_write_buf(q, size - 1000, buf, 1000);
	}
	if (size >= 5000) {
		q2_write_buf(q, 10, buf, 4900);
		q2_flush(q);
		q2_zero(q, 0, 4500, true);
		q2_discard(q, 0, MIN(size, 1 * MiB), false, Q2_FREE_REQUEST);
		q2_write_buf(q, 600, buf, 300);
	}
	if (q->nsnap < 3 && size < 64 * MiB) {
		q2_snap_create(q, &s, &err);
		q2_write_buf(q, 0, buf, MIN(size, 700));
		q2_snap_apply(q, "f", &err);
		q2_snap_delete(q, "f", &err);
	}
	if (size < 16 * MiB) {
		q2_resize(q, align_up(size, 512) + 65536, BLK_PREALLOC_OFF, &err);
		q2_resize(q, 4096, BLK_PREALLOC_OFF, &err);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct blk_check check;
	struct blk_node *n;
	struct blk_io *io;
	struct q2 *q;
	struct err err;
	uint8_t *mem;

	log_set_level(LOG_ERR);
	log_set_fd(-1);
	if (size < 72 || size > MAX_FILE || blk_mem_new("fuzz", MAX_FILE, &n, &mem)) {
		return -1;
	}
	memcpy(mem, data, size);
	n->beyond = n->grow = true;
	if (blk_io_open(n, &io, &err)) {
		abort();
	}
	q = image_open(n, io, size, true, false);
	if (q) {
		q2_check(q, &check, 0, &err);
		q2_close(q);
	}
	q = image_open(n, io, size, false, false);
	if (q) {
		use(q);
		q2_close(q);
	}
	memcpy(mem, data, size);
	q = image_open(n, io, size, false, true);
	if (q) {
		q2_check(q, &check, BLK_FIX_LEAKS | BLK_FIX_ERRORS, &err);
		q2_close(q);
	}
	blk_io_close(io);
	blk_unref(n);
	return 0;
}
