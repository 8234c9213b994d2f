/*
 * qcow2: the pure parts one by one, and two threads that write to one image at once.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/qcow2_int.h"

static void test_header_both_ways(void **state)
{
	static uint8_t buf[4096];
	uint8_t more[16] = {7, 8, 9};
	struct q2_header h =
				 {
					 .version = 3,
					 .cluster_bits = 12,
					 .refcount_order = 3,
					 .header_length = 112,
					 .size = 1 << 20,
					 .l1_offset = 3 << 12,
					 .l1_size = 1,
					 .rt_offset = 1 << 12,
					 .rt_clusters = 1,
					 .compat = QCOW2_COMPAT_LAZY,
					 .backing = "base",
					 .backing_fmt = "raw",
				 },
			 back;
	struct q2_ext ext = {.type = 0x1234, .len = 3, .data = more};
	struct err err;

	(void)state;
	h.ext = &ext;
	h.next = 1;
	assert_int_equal(q2_header_encode(&h, buf, sizeof(buf)), 0);
	assert_int_equal(q2_header_parse(&back, buf, sizeof(buf), 1 << 20, "x", &err), 0);
	assert_string_equal(back.backing, "base");
	assert_string_equal(back.backing_fmt, "raw");
	assert_int_equal(back.size, h.size);
	assert_int_equal(back.refcount_order, 3);
	assert_int_equal(back.compat, QCOW2_COMPAT_LAZY);
	/* what we do not know is kept */
	assert_int_equal(back.next, 1);
	assert_int_equal(back.ext[0].type, 0x1234);
	assert_memory_equal(back.ext[0].data, more, 3);
	q2_header_fini(&back);
	/* a name that does not fit beside the rest */
	memset(h.backing, 'b', QCOW2_MAX_BACKING);
	assert_int_equal(q2_header_encode(&h, buf, 1024), -ENOSPC);
}

static void test_refcount_widths(void **state)
{
	(void)state;
	for (unsigned order = 0; order <= 6; order++) {
		unsigned bits = 1u << order;
		uint64_t max = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
		uint8_t block[64] = {0};

		for (unsigned i = 0; i < 8; i += 2) {
			q2_ref_write(block, order, i, max);
		}
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(q2_ref_read(block, order, i), i % 2 ? 0 : max);
		}
		q2_ref_write(block, order, 2, 1);
		assert_int_equal(q2_ref_read(block, order, 2), 1);
		assert_int_equal(q2_ref_read(block, order, 0), max);
	}
}

static void test_entries(void **state)
{
	struct q2_geo g = {
		.version = 3, .cluster_bits = 16, .cluster_size = 65536, .sub_bits = 16};
	struct q2_geo x = {.version = 3,
			   .cluster_bits = 16,
			   .cluster_size = 65536,
			   .extl2 = true,
			   .sub_bits = 11};
	struct q2_geo v2 = g;
	uint64_t len;

	(void)state;
	v2.version = 2;
	assert_int_equal(q2_ent_type(&g, (struct q2_ent){0, 0}, 0), Q2_UNALLOC);
	assert_int_equal(q2_ent_type(&g, (struct q2_ent){1, 0}, 0), Q2_ZERO);
	assert_int_equal(q2_ent_type(&v2, (struct q2_ent){1, 0}, 0), Q2_BAD);
	assert_int_equal(q2_ent_type(&g, (struct q2_ent){0x50001, 0}, 0), Q2_ZERO_ALLOC);
	assert_int_equal(q2_ent_type(&g, (struct q2_ent){0x50000, 0}, 0), Q2_NORMAL);
	assert_int_equal(q2_ent_type(&g, (struct q2_ent){0x50200, 0}, 0), Q2_BAD);
	assert_int_equal(q2_ent_type(&g, (struct q2_ent){QCOW2_COMPRESSED, 0}, 0), Q2_COMP);
	assert_int_equal(q2_ent_type(&x, (struct q2_ent){0x50000, 2}, 0), Q2_UNALLOC);
	assert_int_equal(q2_ent_type(&x, (struct q2_ent){0x50000, 2}, 1), Q2_NORMAL);
	assert_int_equal(q2_ent_type(&x, (struct q2_ent){0, UINT64_C(2) << 32}, 1), Q2_ZERO);
	assert_int_equal(q2_ent_type(&x, (struct q2_ent){0, 2}, 1), Q2_BAD);
	assert_int_equal(q2_ent_type(&x, (struct q2_ent){0x50000, UINT64_C(2) << 32 | 2}, 1),
			 Q2_BAD);
	/* 64 KiB clusters: 54 bits of offset, then sectors beyond the first */
	assert_int_equal(
		q2_comp_range(&g, QCOW2_COMPRESSED | UINT64_C(3) << 54 | 0x12345, &len),
		0x12345);
	assert_int_equal(len, 4 * 512 - 0x145);
}

static void test_set(void **state)
{
	struct q2_set s = {0};

	(void)state;
	for (uint64_t i = 0; i < 5000; i++) {
		assert_int_equal(q2_set_add(&s, i * 977, i % 2 ? Q2_OL_L2 : Q2_OL_BITMAPS), 0);
	}
	assert_int_equal(q2_set_add(&s, 977, Q2_OL_L1), -EEXIST);
	for (uint64_t i = 0; i < 5000; i += 3) {
		q2_set_del(&s, i * 977);
	}
	for (uint64_t i = 0; i < 5000; i++) {
		assert_int_equal(q2_set_kind(&s, i * 977), i % 3 == 0 ? 0
							   : i % 2    ? Q2_OL_L2
								      : Q2_OL_BITMAPS);
		assert_int_equal(q2_set_kind(&s, i * 977 + 1), 0);
	}
	q2_set_fini(&s);
}

static void test_grace(void **state)
{
	struct q2_grace g;
	struct q2_reader a = {0}, b = {0};
	unsigned pa, pb;

	(void)state;
	q2_grace_init(&g);
	q2_reader_add(&g, &a);
	q2_reader_add(&g, &b);
	pa = q2_reader_enter(&g, &a);
	q2_grace_begin(&g);
	assert_false(q2_grace_over(&g));
	/* one that comes later does not hold it up for ever */
	pb = q2_reader_enter(&g, &b);
	q2_reader_leave(&a, pa);
	assert_true(q2_grace_over(&g));
	q2_reader_leave(&b, pb);
	q2_grace_begin(&g);
	assert_true(q2_grace_over(&g));
	q2_reader_del(&g, &a);
	q2_reader_del(&g, &b);
	q2_grace_fini(&g);
}

static void test_compress(void **state)
{
	static uint8_t in[65536], packed[65536], out[65536];
	static uint8_t noise[65536];
	struct q2 q = {0};
	struct err err;
	uint32_t seed = 1;

	(void)state;
	for (unsigned i = 0; i < sizeof(in); i++) {
		in[i] = (uint8_t)(i / 100);
		seed = seed * 1664525 + 1013904223;
		noise[i] = (uint8_t)(seed >> 24);
	}
	for (unsigned type = 0; type < 2; type++) {
		struct blk_packer *p;
		size_t n;

		assert_int_equal(type ? q2_zstd_new(&q.zstd, "image", &err) : 0, 0);
		p = q2_packer_new(q.zstd);
		assert_non_null(p);
		/* the second time nothing of the first one is left */
		assert_int_equal(p->pack(p, noise, sizeof(noise), packed, sizeof(packed) - 1), 0);
		n = p->pack(p, in, sizeof(in), packed, sizeof(packed) - 1);
		p->free(p);
		assert_true(n > 0 && n < 20000);
		/* what follows in the last sector does not matter; what is cut off does */
		memset(packed + n, 0xa5, 100);
		assert_int_equal(q2_inflate(&q, packed, n + 100, out, sizeof(out)), 0);
		assert_memory_equal(in, out, sizeof(in));
		assert_int_equal(q2_inflate(&q, packed, n / 2, out, sizeof(out)), -EIO);
		memset(packed, 0xff, 200);
		assert_int_equal(q2_inflate(&q, packed, n, out, sizeof(out)), -EIO);
	}
	q2_zstd_free(q.zstd);
}

/* --- threads --- */

#define DISK   (4 * MiB)
#define UNIT   4096
#define ROUNDS 700

struct writer {
	struct blk_node *node;
	struct blk_io *io;
	unsigned me;
	uint8_t have[DISK / UNIT]; /* of its units: byte that each is full of */
	bool failed;
};

static bool unit_is(struct writer *w, unsigned u)
{
	uint8_t buf[UNIT];

	if (blk_io_read(w->io, (uint64_t)u * UNIT, buf, UNIT)) {
		return false;
	}
	for (unsigned i = 0; i < UNIT; i++) {
		if (buf[i] != w->have[u]) {
			return false;
		}
	}
	return true;
}

/* Every second unit of the lower half is its own; and every second cluster of the upper half. */
static void *writer_run(void *arg)
{
	struct writer *w = arg;
	uint8_t buf[UNIT];
	uint32_t x = w->me + 1;

	for (unsigned i = 0; i < ROUNDS && !w->failed; i++) {
		unsigned per = 65536 / UNIT, u, cluster;

		x = x * 1664525 + 1013904223;
		u = (x >> 9) % (DISK / UNIT / 4) * 2 + w->me;
		cluster = (DISK / 2 / 65536) + (x >> 7) % (DISK / 65536 / 4) * 2 + w->me;
		if (i % 4 < 2) {
			memset(buf, (int)(x >> 24), UNIT);
			w->have[u] = (uint8_t)(x >> 24);
			w->failed = blk_io_write(w->io, (uint64_t)u * UNIT, buf, UNIT, 0) != 0;
		} else {
			bool zero = i % 4 == 2;

			u = cluster * per + x % per;
			if (zero) {
				w->failed =
					blk_io_discard(w->io, cluster * UINT64_C(65536), 65536);
				memset(w->have + cluster * per, 0, per);
			} else {
				memset(buf, (int)(x >> 24), UNIT);
				w->have[u] = (uint8_t)(x >> 24);
				w->failed =
					blk_io_write(w->io, (uint64_t)u * UNIT, buf, UNIT, 0);
			}
		}
		w->failed = w->failed || !unit_is(w, u);
		if (i % 50 == 0) {
			w->failed = w->failed || blk_io_flush(w->io);
		}
	}
	return NULL;
}

static void test_two_threads(void **state)
{
	char path[] = "/tmp/nemu-qcow2-XXXXXX", text[256];
	struct writer w[2] = {{.me = 0}, {.me = 1}};
	struct blk_user *user;
	struct blk_node *n;
	struct blk_check check;
	struct opts o = {0};
	struct err err = {0};
	pthread_t thread[2];

	(void)state;
	close(mkstemp(path));
	snprintf(text, sizeof(text), "file,filename=%s", path);
	assert_int_equal(opts_parse(&o, "image", text, "driver", &err), 0);
	assert_int_equal(blk_open(NULL, &o, &n, &err), 0);
	opts_fini(&o);
	assert_int_equal(blk_attach(n, "test", BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL,
				    NULL, NULL, &user, &err),
			 0);
	assert_int_equal(opts_parse(&o, "create", "4M", "size", &err), 0);
	assert_int_equal(blk_qcow2_driver.create(NULL, n, &o, &err), 0);
	opts_fini(&o);
	blk_detach(user);
	blk_unref(n);
	snprintf(text, sizeof(text), "qcow2,file.driver=file,file.filename=%s", path);
	assert_int_equal(opts_parse(&o, "image", text, "driver", &err), 0);
	if (blk_open(NULL, &o, &n, &err)) {
		fail_msg("%s", err.msg);
	}
	opts_fini(&o);
	assert_int_equal(
		blk_attach(n, "test", BLK_PERM_WRITE, BLK_PERM_ALL, NULL, NULL, &user, &err),
		0);
	for (unsigned i = 0; i < 2; i++) {
		w[i].node = n;
		assert_int_equal(blk_io_open(n, &w[i].io, &err), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&thread[i], NULL, writer_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		assert_false(w[i].failed);
	}
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned u = w[i].me; u < DISK / UNIT / 2; u += 2) {
			assert_true(unit_is(&w[i], u));
		}
		blk_io_close(w[i].io);
	}
	assert_int_equal(n->drv->check(n, &check, 0, &err), 0);
	assert_int_equal(check.corruptions + check.check_errors, 0);
	blk_detach(user);
	blk_unref(n);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_both_ways),
		cmocka_unit_test(test_refcount_widths),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_grace),
		cmocka_unit_test(test_compress),
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
