/*
 * Raw images on real files: transfers, flush, discard, write-zeroes, O_DIRECT, and files that
 * are not what they should be. With io_uring, with aio=threads, and where the host forbids io_uring.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkrig.h"

#define SIZE (4 * MiB)

static const char *aio = "io_uring"; /* how this run makes its requests */

static void open_file(struct blkrig *r, const char *path, const char *more)
{
	char text[300];
	int rc;

	snprintf(text, sizeof(text),
		 "driver=raw,file.driver=file,file.aio=%s,file.filename=%s%s", aio, path, more);
	rc = blkrig_open(r, text);
	if (rc < 0) {
		fail_msg("%s", r->err.msg);
	}
}

static void file_check(const char *path, uint64_t off, const void *want, size_t len)
{
	char *have = malloc(len);
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, have, len, (off_t)off), len);
	assert_memory_equal(have, want, len);
	close(fd);
	free(have);
}

static void test_read_write(void **state)
{
	static const struct {
		uint64_t off, len;
	} cases[] = {
		{0, 1},		  {0, 512},	 {511, 2},   {4095, 4098},
		{65536, 1 << 20}, {SIZE - 1, 1}, {7, 65537},
	};
	char *path = blkrig_file(NULL, SIZE), *buf = malloc(SIZE), *back = malloc(SIZE);
	struct blkrig r;

	open_file(&r, path, "");
	assert_int_equal(r.info.size, SIZE);
	assert_int_equal(r.info.block_size, 512);
	assert_true(r.info.write_cache);
	assert_false(r.info.can_discard);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(buf, (int)i + 1, cases[i].len);
		assert_int_equal(blkrig_do(&r, BLK_WRITE, i % 2 ? BLK_FUA : 0, cases[i].off,
					   cases[i].len, buf),
				 0);
		file_check(path, cases[i].off, buf, cases[i].len);
		memset(back, 0xee, cases[i].len);
		assert_int_equal(blkrig_do(&r, BLK_READ, 0, cases[i].off, cases[i].len, back),
				 0);
		assert_memory_equal(buf, back, cases[i].len);
	}
	assert_int_equal(blkrig_do(&r, BLK_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 100, 0, NULL), 0);
	blkrig_close(&r);
	unlink(path);
	free(path);
	free(buf);
	free(back);
	(void)state;
}

static void test_scatter(void **state)
{
	char *path = blkrig_file(NULL, SIZE);
	static uint64_t a[64], b[1000], c[1];
	struct blkreq q;
	struct blkrig r;

	open_file(&r, path, "");
	for (enum blk_op op = BLK_READ; op <= BLK_WRITE; op++) {
		q.iov[0] = (struct iovec){a, sizeof(a)};
		q.iov[1] = (struct iovec){b, 0};
		q.iov[2] = (struct iovec){b, sizeof(b)};
		q.iov[3] = (struct iovec){c, sizeof(c)};
		/* read here, written 64 KiB further on */
		blkrig_submit_iov(&r, &q, op, 0, op == BLK_READ ? 8192 : 73728, 4);
		assert_int_equal(blkrig_wait(&r, &q), 0);
		for (unsigned i = 0; i < 64; i++) {
			assert_int_equal(a[i], 8192 + 8 * i);
		}
		for (unsigned i = 0; i < 1000; i++) {
			assert_int_equal(b[i], 8192 + 512 + 8 * i);
		}
		assert_int_equal(c[0], 8192 + 512 + 8000);
	}
	file_check(path, 73728, a, sizeof(a));
	file_check(path, 73728 + 512, b, sizeof(b));
	file_check(path, 73728 + 512 + 8000, c, sizeof(c));
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

static void test_ranges(void **state)
{
	char *path = blkrig_file(NULL, SIZE), buf[512];
	struct blkrig r;

	open_file(&r, path, "");
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, SIZE, 1, buf), -EINVAL);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, SIZE - 511, 512, buf), -EINVAL);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, UINT64_MAX - 511, 512, buf), -EINVAL);
	assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, 0, 1, UINT64_MAX, NULL), -EINVAL);
	assert_int_equal(blkrig_do(&r, BLK_DISCARD, 0, SIZE, 512, NULL), -EINVAL);
	blkrig_close(&r);
	open_file(&r, path, ",read-only=on");
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 0, 512, buf), -EROFS);
	assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, 0, 0, 512, NULL), -EROFS);
	assert_int_equal(blkrig_do(&r, BLK_DISCARD, 0, 0, 512, NULL), -EROFS);
	assert_int_equal(blkrig_do(&r, BLK_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 0, 512, buf), 0);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

static void test_shrinks(void **state)
{
	char *path = blkrig_file(NULL, SIZE), *buf = malloc(SIZE);
	struct blkrig r;

	open_file(&r, path, "");
	assert_int_equal(truncate(path, 65536 + 100), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 65536, 4096, buf), -EIO);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, SIZE - 512, 512, buf), -EIO);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 0, 65536, buf), 0);
	/* a write makes it long again */
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, SIZE - 512, 512, buf), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 0, SIZE, buf), 0);
	blkrig_close(&r);
	unlink(path);
	free(path);
	free(buf);
	(void)state;
}

static void test_odd_size(void **state)
{
	char *path = blkrig_file(NULL, 8192 + 100);
	uint8_t buf[1024], want[1024] = {0};
	struct blkrig r;

	open_file(&r, path, ",read-only=on");
	assert_int_equal(r.info.size, 8192 + 512);
	memset(buf, 0xee, sizeof(buf));
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 8192 - 512, 1024, buf), 0);
	for (unsigned i = 0; i < (512 + 96) / 8; i++) {
		memcpy(want + 8 * i, &(uint64_t){8192 - 512 + 8 * i}, 8);
	}
	memcpy(want + 512 + 96, &(uint64_t){8192 + 96}, 4);
	assert_memory_equal(buf, want, sizeof(buf));
	memset(buf, 0xee, sizeof(buf));
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 8192 + 100, 412, buf), 0);
	assert_memory_equal(buf, want + 612, 412);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

/* Both ways of zeroing, with neighbours that stay. */
static void zeroes(const char *dir, const char *more, unsigned flags)
{
	const uint64_t off = 4096 + 512, len = 3 * MiB + 5 * 512;
	char *path = blkrig_file(dir, SIZE), *zero = calloc(1, len);
	uint64_t before = off - 8, after = off + len;
	struct blkrig r;

	open_file(&r, path, more);
	assert_true(r.info.can_zero);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, flags, off, len, NULL), 0);
		file_check(path, off, zero, len);
		file_check(path, off - 8, &before, 8);
		file_check(path, off + len, &after, 8);
	}
	blkrig_close(&r);
	unlink(path);
	free(path);
	free(zero);
}

static void test_write_zeroes(void **state)
{
	zeroes(NULL, "", 0);
	zeroes(NULL, "", BLK_MAY_UNMAP | BLK_FUA);
	zeroes(NULL, ",discard=unmap", BLK_MAY_UNMAP);
	zeroes(NULL, ",cache.no-flush=on", BLK_FUA);
	(void)state;
}

/* tmpfs has PUNCH_HOLE and no ZERO_RANGE: zeros are written. */
static void test_write_zeroes_fallback(void **state)
{
	zeroes("/dev/shm", "", 0);
	zeroes("/dev/shm", "", BLK_FUA);
	zeroes("/dev/shm", ",discard=unmap", BLK_MAY_UNMAP);
	(void)state;
}

static void test_discard(void **state)
{
	char *path = blkrig_file("/dev/shm", SIZE);
	uint64_t zero[64] = {0}, first = 0;
	struct stat st0, st1;
	struct blkrig r;

	open_file(&r, path, "");
	assert_int_equal(blkrig_do(&r, BLK_DISCARD, 0, 0, SIZE, NULL), 0);
	file_check(path, 0, &first, 8);
	file_check(path, 8, &(uint64_t){8}, 8);
	blkrig_close(&r);
	assert_int_equal(stat(path, &st0), 0);
	open_file(&r, path, ",discard=unmap");
	assert_true(r.info.can_discard);
	assert_true(r.info.discard_granularity >= 512);
	assert_int_equal(blkrig_do(&r, BLK_DISCARD, 0, 0, SIZE / 2, NULL), 0);
	file_check(path, 4096, zero, sizeof(zero));
	file_check(path, SIZE / 2, &(uint64_t){SIZE / 2}, 8);
	assert_int_equal(stat(path, &st1), 0);
	assert_true(st1.st_blocks <= st0.st_blocks / 2);
	assert_int_equal(st1.st_size, SIZE);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

/* O_DIRECT, with memory that the host cannot use as it is, more at a time than there are bounce
 * buffers, and larger than one of them. */
static void test_direct(void **state)
{
	enum { N = 12 };
	char *path = blkrig_file(NULL, SIZE), *buf[N], text[300];
	struct blkreq q[N];
	struct blkrig r;
	int rc;

	snprintf(text, sizeof(text), "driver=file,aio=%s,filename=%s,cache.direct=on", aio,
		 path);
	rc = blkrig_open(&r, text);
	if (rc == -EINVAL && strstr(r.err.msg, "O_DIRECT")) {
		unlink(path);
		free(path);
		skip(); /* such a file system */
	}
	assert_int_equal(rc, 0);
	assert_true(r.info.align >= 512 && r.info.block_size == r.info.align);
	for (unsigned i = 0; i < N; i++) {
		uint64_t len = i % 3 ? 4096 * i : 320 * KiB, off = i * 340 * KiB;

		off = align_down(off, 4096);
		buf[i] = aligned_alloc(4096, 4096 + align_up(len, 4096));
		memset(buf[i], 0, len + i);
		blkrig_submit(&r, &q[i], BLK_READ, 0, off, len, buf[i] + i);
	}
	for (unsigned i = 0; i < N; i++) {
		uint64_t *w = (uint64_t *)(void *)buf[i], v;

		assert_int_equal(blkrig_wait(&r, &q[i]), 0);
		for (uint64_t k = 0; k < q[i].req.len; k += 8) {
			memcpy(&v, (char *)w + i + k, 8);
			assert_int_equal(v, q[i].req.off + k);
		}
	}
	for (unsigned i = 0; i < N; i++) {
		uint64_t len = q[i].req.len, off = q[i].req.off;

		memset(buf[i] + i, (int)i + 1, len);
		blkrig_submit(&r, &q[i], BLK_WRITE, i & 1 ? BLK_FUA : 0, off, len, buf[i] + i);
	}
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(blkrig_wait(&r, &q[i]), 0);
	}
	for (unsigned i = 0; i < N; i++) {
		if (q[i].req.len) {
			file_check(path, q[i].req.off, buf[i] + i, 4096);
		}
	}
	/* parts of blocks */
	memset(buf[1], 0x77, 5000);
	assert_int_equal(blkrig_do(&r, BLK_WRITE, 0, 8192 + 511, 5000, buf[1]), 0);
	file_check(path, 8192 + 511, buf[1], 5000);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 8192 + 500, 5100, buf[0]), 0);
	assert_memory_equal(buf[0] + 11, buf[1], 5000);
	assert_int_equal((uint8_t)buf[0][10] == 0x77 || (uint8_t)buf[0][5011] == 0x77, 0);
	assert_int_equal(blkrig_do(&r, BLK_WRITE_ZEROES, 0, 4096, MiB, NULL), 0);
	/* the file shrinks under us */
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 0, 16384, buf[0] + 1), -EIO);
	assert_int_equal(blkrig_do(&r, BLK_READ, 0, 0, 16384, buf[0]), -EIO);
	blkrig_close(&r);
	for (unsigned i = 0; i < N; i++) {
		free(buf[i]);
	}
	unlink(path);
	free(path);
	(void)state;
}

/* Random requests, many at a time, against a copy in memory. Those in flight do not overlap. */
static void test_random(void **state)
{
	enum { SLOTS = 16, ROUNDS = 60 };
	const uint64_t part = SIZE / SLOTS;
	char *path = blkrig_file("/dev/shm", SIZE);
	uint8_t *model = malloc(SIZE), *buf = malloc(SIZE);
	struct blkreq q[SLOTS];
	struct blkrig r;
	int fd = open(path, O_RDONLY);

	assert_int_equal(read(fd, model, SIZE), SIZE);
	close(fd);
	srand(7);
	open_file(&r, path, ",discard=unmap");
	for (int round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < SLOTS; i++) {
			uint64_t from = (uint64_t)rand() % part;
			uint64_t off = i * part + from, len = (uint64_t)rand() % (part - from);
			enum blk_op op = (enum blk_op)(rand() % 5);
			unsigned flags = (unsigned)rand() % 4;

			if (op == BLK_WRITE) {
				memset(buf + off, rand(), len);
				memcpy(model + off, buf + off, len);
			} else if (op == BLK_DISCARD || op == BLK_WRITE_ZEROES) {
				memset(model + off, 0, len);
			}
			blkrig_submit(&r, &q[i], op, flags, off, len,
				      op == BLK_READ || op == BLK_WRITE ? buf + off : NULL);
		}
		assert_true(blk_chan_inflight(r.chan) == SLOTS);
		for (unsigned i = 0; i < SLOTS; i++) {
			assert_int_equal(blkrig_wait(&r, &q[i]), 0);
			if (q[i].req.op == BLK_READ) {
				assert_memory_equal(buf + q[i].req.off, model + q[i].req.off,
						    q[i].req.len);
			}
		}
		assert_int_equal(blk_chan_inflight(r.chan), 0);
	}
	file_check(path, 0, model, SIZE);
	blkrig_close(&r);
	unlink(path);
	free(path);
	free(model);
	free(buf);
	(void)state;
}

static unsigned threads_now(void)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d)) {
		n++;
	}
	closedir(d);
	return n;
}

/* Where io_uring is forbidden the requests are made by threads, without a word on the command line. */
static void test_forbidden(void **state)
{
	char *path = blkrig_file(NULL, SIZE);
	unsigned before = threads_now();
	struct blkrig r;

	assert_int_equal(syscall(SYS_io_uring_setup, 1, NULL), -1);
	assert_int_equal(errno, EPERM);
	open_file(&r, path, "");
	assert_true(threads_now() > before);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

/* For good: the last thing that this process does. */
static void forbid_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {ARRAY_SIZE(code), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
		perror("seccomp");
		abort();
	}
}

int main(void)
{
	const struct CMUnitTest forbidden[] = {cmocka_unit_test(test_forbidden)};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_write),
		cmocka_unit_test(test_scatter),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_shrinks),
		cmocka_unit_test(test_odd_size),
		cmocka_unit_test(test_write_zeroes),
		cmocka_unit_test(test_write_zeroes_fallback),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_random),
	};

	int failed = cmocka_run_group_tests_name("block file", tests, NULL, NULL);

	aio = "threads";
	failed += cmocka_run_group_tests_name("block file, threads", tests, NULL, NULL);
	aio = "io_uring";
	forbid_io_uring();
	failed += cmocka_run_group_tests_name("block file, forbidden", forbidden, NULL, NULL);
	return failed + cmocka_run_group_tests_name("block file, forbidden", tests, NULL, NULL);
}
