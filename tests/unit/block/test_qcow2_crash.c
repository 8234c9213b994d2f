/*
 * qcow2 and a loss of power: random programs on a disk that remembers its writes. For every moment, with
 * unsynced writes kept, lost, or some of their sectors lost, the image has no error but leaks, and what
 * was flushed before is there. An image with the dirty bit (lazy refcounts, a snapshot in the making) is
 * repaired first, as every user of it would.
 *
 * NEMU_SEED, NEMU_ROUNDS: other programs, more of them. NEMU_CRASH_DIR: some images go there, for
 * another program's check (tests/format/test_qcow2.py).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/journal.h"
#include "block/qcow2_int.h"

#define SIZE   (256 * KiB)
#define SECTOR 512

struct rig {
	struct blk_node *node;
	struct blk_journal *j;
	struct blk_io *io;
	struct q2 *q;
	struct err err;
	uint8_t model[SIZE], safe[SIZE]; /* now; when it was last flushed */
	bool touched[SIZE / SECTOR];	 /* since then */
	uint8_t snap[SIZE];
	bool has_snap;
	unsigned from; /* the moment of the last flush */
	unsigned images;
	uint32_t rng;
	const char *name;
};

static uint32_t roll(struct rig *r, uint32_t n)
{
	r->rng = r->rng * 1664525 + 1013904223;
	return (r->rng >> 8) % n;
}

static void stand_on(struct blk_node *n)
{
	n->beyond = n->grow = true; /* as below a format */
}

static struct q2 *engine(struct blk_node *n, struct blk_io *io, bool read_only, struct err *err)
{
	struct q2_config cfg = {.name = "image",
				.file = io,
				.file_size = blk_size(n),
				.file_grows = !read_only,
				.read_only = read_only};
	struct q2_header h;
	struct q2 *q = NULL;

	q2_options_default(&cfg.opt);
	/* small caches: what is evicted has to keep the order, too */
	cfg.opt.l2_cache_size = cfg.opt.refcount_cache_size = 4096;
	if (q2_header_read(io, cfg.file_size, "image", &h, err) == 0) {
		q2_open(&cfg, &h, &q, err);
	}
	q2_header_fini(&h);
	return q;
}

static void save(struct rig *r, const uint8_t *data, uint64_t size)
{
	const char *dir = getenv("NEMU_CRASH_DIR");
	char path[512];
	FILE *f;

	if (!dir || r->images % 41) {
		return;
	}
	snprintf(path, sizeof(path), "%s/%s-%u.qcow2", dir, r->name, r->images);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
	fclose(f);
}

/* What is left after a loss of power then. */
static void judge(struct rig *r, struct blk_crash c)
{
	static uint8_t now[SIZE];
	struct blk_check check;
	struct blk_node *n;
	struct blk_io *io;
	struct err err = {0};
	uint64_t size;
	uint8_t *data, *copy;
	struct q2 *q;
	bool dirty;

	assert_int_equal(blk_journal_image(r->j, &c, &data, &size), 0);
	r->images++;
	assert_int_equal(blk_mem_new("crashed", MAX(size, 512), &n, &copy), 0);
	memcpy(copy, data, size);
	stand_on(n);
	assert_int_equal(blk_io_open(n, &io, &err), 0);
	dirty = data[79] & QCOW2_INCOMPAT_DIRTY && data[7] == 3;
	q = engine(n, io, !dirty, &err);
	if (!q) {
		fail_msg("%s: moment %u: %s", r->name, c.at, err.msg);
		return;
	}
	assert_int_equal(q2_check(q, &check, 0, &err), 0);
	if (check.corruptions || check.check_errors) {
		fail_msg("%s: moment %u of %u, mode %d, seed %lu: %lu corruptions", r->name,
			 c.at, blk_journal_now(r->j), c.unsynced, (unsigned long)c.seed,
			 (unsigned long)check.corruptions);
	}
	assert_int_equal(q2_read_buf(q, 0, now, SIZE), 0);
	for (unsigned i = 0; i < SIZE / SECTOR; i++) {
		if (!r->touched[i] &&
		    memcmp(now + i * SECTOR, r->safe + i * SECTOR, SECTOR) != 0) {
			fail_msg("%s: moment %u, mode %d, seed %lu: sector %u was flushed as "
				 "%02x and is "
				 "%02x",
				 r->name, c.at, c.unsynced, (unsigned long)c.seed, i,
				 r->safe[i * SECTOR], now[i * SECTOR]);
		}
	}
	if (!dirty) {
		save(r, data, size);
	}
	q2_abandon(q);
	blk_io_close(io);
	blk_unref(n);
	free(data);
}

static void judge_all(struct rig *r)
{
	unsigned now = blk_journal_now(r->j);

	for (unsigned at = r->from; at <= now; at++) {
		judge(r, (struct blk_crash){.at = at, .unsynced = BLK_CRASH_LOSE});
		judge(r, (struct blk_crash){.at = at, .unsynced = BLK_CRASH_KEEP});
		for (unsigned i = 0; i < 2; i++) {
			judge(r, (struct blk_crash){.at = at,
						    .unsynced = BLK_CRASH_SOME,
						    .seed = at * 16 + i + r->rng});
		}
	}
}

static void flushed(struct rig *r)
{
	/* while it was on its way nothing new was safe */
	judge_all(r);
	memcpy(r->safe, r->model, SIZE);
	memset(r->touched, 0, sizeof(r->touched));
	r->from = blk_journal_now(r->j);
}

static void touch(struct rig *r, uint64_t off, uint64_t len, int byte)
{
	memset(r->model + off, byte, len);
	for (uint64_t i = off / SECTOR; i <= (off + len - 1) / SECTOR; i++) {
		r->touched[i] = true;
	}
}

static void touch_all(struct rig *r)
{
	memset(r->touched, 1, sizeof(r->touched));
}

static void snapshot(struct rig *r)
{
	struct q2_snap s = {.name = (char *)(uintptr_t) "s", .icount = UINT64_MAX};
	int e;

	if (!r->has_snap) {
		e = q2_snap_create(r->q, &s, &r->err);
		memcpy(r->snap, r->model, SIZE);
		r->has_snap = true;
	} else if (roll(r, 2)) {
		touch_all(r);
		e = q2_snap_apply(r->q, "s", &r->err);
		memcpy(r->model, r->snap, SIZE);
	} else {
		e = q2_snap_delete(r->q, "s", &r->err);
		r->has_snap = false;
	}
	if (e) {
		fail_msg("%s: %s", r->name, r->err.msg);
	}
}

static void step(struct rig *r, bool snapshots)
{
	uint64_t cluster = r->q->geo.cluster_size;
	static uint8_t buf[SIZE];
	uint64_t off = roll(r, SIZE / SECTOR) * SECTOR;
	uint64_t len = (1 + roll(r, (uint32_t)(3 * cluster / SECTOR))) * SECTOR;
	int byte = 1 + (int)roll(r, 255), e = 0;
	struct iovec iov = {buf, cluster};
	struct iov_cur cur = iov_cur_init(&iov, 1);

	len = MIN(len, SIZE - off);
	switch (roll(r, 12)) {
	case 0:
		touch(r, off, len, 0);
		e = q2_zero(r->q, off, len, roll(r, 2));
		break;
	case 1:
		off = align_down(off, cluster);
		len = cluster;
		if (r->q->geo.version == 3) {
			touch(r, off, len, 0);
			e = q2_discard(r->q, off, len, false, Q2_FREE_REQUEST);
		}
		break;
	case 2:
		off = align_down(off, cluster);
		touch(r, off, cluster, byte);
		memset(buf, byte, cluster);
		e = q2_write_compressed(r->q, off, cluster, &cur);
		break;
	case 3:
	case 4:
		e = q2_flush(r->q);
		flushed(r);
		break;
	case 5:
		if (snapshots && !roll(r, 2)) {
			snapshot(r);
		}
		break;
	default:
		touch(r, off, len, byte);
		memset(buf, byte, len);
		e = q2_write_buf(r->q, off, buf, len);
		break;
	}
	if (e) {
		fail_msg("%s: a step failed: %s", r->name, strerror(-e));
	}
}

static void run(const char *name, const struct q2_create *c, bool snapshots, unsigned seed,
		unsigned steps)
{
	struct rig *r = calloc(1, sizeof(*r));

	r->name = name;
	r->rng = seed;
	print_message("%s: seed %u\n", name, seed);
	assert_int_equal(blk_journal_new("j", NULL, 0, &r->node, &r->j), 0);
	stand_on(r->node);
	assert_int_equal(blk_io_open(r->node, &r->io, &r->err), 0);
	if (q2_create(c, r->io, true, NULL, "image", &r->err)) {
		fail_msg("%s: %s", name, r->err.msg);
	}
	r->q = engine(r->node, r->io, false, &r->err);
	assert_non_null(r->q);
	r->from = blk_journal_now(r->j);
	for (unsigned i = 0; i < steps; i++) {
		step(r, snapshots);
	}
	assert_int_equal(q2_close(r->q), 0);
	flushed(r);
	judge_all(r);
	print_message("%s: %u images\n", name, r->images);
	blk_io_close(r->io);
	blk_unref(r->node);
	free(r);
}

static unsigned env(const char *name, unsigned def)
{
	const char *v = getenv(name);

	return v ? (unsigned)strtoul(v, NULL, 0) : def;
}

static void test_formats(void **state)
{
	static char v2[] = "0.10";
	const struct {
		const char *name;
		struct q2_create c;
		bool snapshots;
	} f[] = {
		{"small", {.cluster_size = 512, .refcount_bits = 16}, true},
		{"4k", {.cluster_size = 4096, .refcount_bits = 64}, true},
		{"v2", {.cluster_size = 1024, .refcount_bits = 16, .compat = v2}, false},
		{"lazy",
		 {.cluster_size = 1024, .refcount_bits = 16, .lazy_refcounts = true},
		 false},
		{"extl2",
		 {.cluster_size = 16384, .refcount_bits = 8, .extended_l2 = true},
		 true},
		{"zstd",
		 {.cluster_size = 2048, .refcount_bits = 4, .compression_type = 1},
		 true},
	};

	(void)state;
	for (unsigned round = 0; round < env("NEMU_ROUNDS", 1); round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
			struct q2_create c = f[i].c;

			c.size = SIZE;
			run(f[i].name, &c, f[i].snapshots,
			    env("NEMU_SEED", 1) + round * 100 + i, 25);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_formats)};

	log_set_level(LOG_ERR); /* what repairs say is not of interest here */

	return cmocka_run_group_tests(tests, NULL, NULL);
}
