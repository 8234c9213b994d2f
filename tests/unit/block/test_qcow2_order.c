/*
 * qcow2 and those who write beside the owner of an image: what channels wrote straight to the file is
 * flushed with the rest, and a write of the owner does not touch what channels may be writing to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/journal.h"
#include "block/qcow2_int.h"

#define SIZE (1 * MiB)

struct disk {
	struct blk_node *node;
	struct blk_journal *j;
	struct blk_io *io;
};
struct rig {
	struct disk file, data;
	struct q2 *q;
};

static void disk_new(struct disk *d, const char *name)
{
	struct err err = {0};

	assert_int_equal(blk_journal_new(name, NULL, 0, &d->node, &d->j), 0);
	d->node->beyond = d->node->grow = true; /* as below a format */
	assert_int_equal(blk_io_open(d->node, &d->io, &err), 0);
}

static void rig_new(struct rig *r, struct q2_create *c)
{
	struct q2_config cfg = {.name = "image", .file_grows = true, .data_grows = true};
	struct q2_header h;
	struct err err = {0};

	memset(r, 0, sizeof(*r));
	disk_new(&r->file, "file");
	if (c->data_file) {
		disk_new(&r->data, "data");
	}
	if (q2_create(c, r->file.io, true, r->data.io, "image", &err)) {
		fail_msg("%s", err.msg);
	}
	cfg.file = r->file.io;
	cfg.data = r->data.io;
	cfg.file_size = blk_size(r->file.node);
	cfg.data_size = r->data.io ? blk_size(r->data.node) : 0;
	q2_options_default(&cfg.opt);
	assert_int_equal(q2_header_read(cfg.file, cfg.file_size, "image", &h, &err), 0);
	if (q2_open(&cfg, &h, &r->q, &err)) {
		fail_msg("%s", err.msg);
	}
}

static void rig_end(struct rig *r)
{
	assert_int_equal(q2_close(r->q), 0);
	blk_io_close(r->data.io);
	blk_io_close(r->file.io);
	blk_unref(r->data.node);
	blk_unref(r->file.node);
}

static void test_data_file_is_flushed(void **state)
{
	static char name[] = "data";
	struct q2_create c = {
		.size = SIZE, .cluster_size = 65536, .refcount_bits = 16, .data_file = name};
	uint8_t buf[512];
	struct rig r;

	(void)state;
	rig_new(&r, &c);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(q2_write_buf(r.q, 0, buf, sizeof(buf)), 0);
	/* as when the cache is full: the links are written, and not flushed behind */
	assert_int_equal(q2_commit(r.q, false), 0);
	assert_int_equal(q2_write_buf(r.q, 4096, buf, sizeof(buf)), 0);
	assert_true(blk_journal_unsynced(r.data.j, blk_journal_now(r.data.j)) > 0);
	assert_int_equal(q2_flush(r.q), 0);
	assert_int_equal(blk_journal_unsynced(r.data.j, blk_journal_now(r.data.j)), 0);
	assert_int_equal(blk_journal_unsynced(r.file.j, blk_journal_now(r.file.j)), 0);
	rig_end(&r);
}

static void test_corrupt_is_flushed(void **state)
{
	static char name[] = "data";
	struct q2_create c = {
		.size = SIZE, .cluster_size = 65536, .refcount_bits = 16, .data_file = name};
	uint8_t buf[512] = {1};
	struct rig r;

	(void)state;
	rig_new(&r, &c);
	assert_int_equal(q2_write_buf(r.q, 0, buf, sizeof(buf)), 0);
	assert_int_equal(q2_flush(r.q), 0);
	assert_int_equal(q2_write_buf(r.q, 0, buf, sizeof(buf)), 0); /* is in place */
	q2_corrupt(r.q, "it is a test");
	assert_int_equal(q2_flush(r.q), 0);
	assert_int_equal(blk_journal_unsynced(r.data.j, blk_journal_now(r.data.j)), 0);
	rig_end(&r);
}

struct seen {
	uint64_t lo, hi; /* sectors of the file that were written, of those in [from, to) */
	uint64_t from, to;
};

static bool note(void *opaque, unsigned write, uint64_t sector)
{
	struct seen *s = opaque;

	(void)write;
	if (sector >= s->from && sector < s->to) {
		s->lo = MIN(s->lo, sector);
		s->hi = MAX(s->hi, sector + 1);
	}
	return true;
}

/* Subcluster 1 is there, 0 is not. A write to 0 and the first half of 1 leaves the second half alone:
 * another queue's request for it may be on its way to the file. */
static void test_subclusters_that_are_there(void **state)
{
	struct q2_create c = {
		.size = SIZE, .cluster_size = 65536, .refcount_bits = 16, .extended_l2 = true};
	struct seen s = {.lo = UINT64_MAX};
	struct q2_ext_info x;
	uint64_t size;
	uint8_t buf[3072], *image;
	struct rig r;

	(void)state;
	rig_new(&r, &c);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(q2_write_buf(r.q, 2048, buf, 2048), 0);
	assert_int_equal(q2_flush(r.q), 0);
	assert_int_equal(q2_map(r.q, 2048, 2048, &x), 0);
	assert_int_equal(x.type, Q2_NORMAL);
	s.from = x.host / 512 - 4;
	s.to = s.from + 128;
	memset(buf, 2, sizeof(buf));
	assert_int_equal(q2_write_buf(r.q, 0, buf, sizeof(buf)), 0);
	assert_int_equal(blk_journal_image(r.file.j,
					   &(struct blk_crash){.at = blk_journal_now(r.file.j),
							       .unsynced = BLK_CRASH_SOME,
							       .keep = note,
							       .opaque = &s},
					   &image, &size),
			 0);
	free(image);
	assert_int_equal(s.lo, s.from);
	assert_int_equal(s.hi, s.from + 6);
	rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_file_is_flushed),
		cmocka_unit_test(test_corrupt_is_flushed),
		cmocka_unit_test(test_subclusters_that_are_there),
	};

	log_set_level(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
