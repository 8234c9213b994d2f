/* event/uring.h on real files: data, errors, more requests than entries, restrictions, reuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "event/uring.h"

static struct loop *l;
static struct uring *u;
static int fd, slot;

static int setup(void **state)
{
	fd = memfd_create("uring", MFD_CLOEXEC);
	if (fd < 0 || loop_new(&l, "uring", 0) || uring_get(l, &u, NULL)) {
		return -1;
	}
	slot = uring_file_add(u, fd);
	return slot < 0;
}

static int teardown(void **state)
{
	uring_file_del(u, slot);
	uring_put(u);
	loop_free(l);
	close(fd);
	return 0;
}

struct req {
	struct uring_req r;
	int res;
	bool done;
};

static void req_done(struct uring_req *r, int res)
{
	struct req *q = container_of(r, struct req, r);

	assert_false(q->done);
	q->done = true;
	q->res = res;
}

/* Runs the loop until q is done; it must not be done before the loop had a turn. */
static int wait_for(struct req *q)
{
	assert_false(q->done);
	assert_int_equal(uring_inflight(u), 1);
	while (!q->done) {
		loop_step(l, -1);
	}
	assert_int_equal(uring_inflight(u), 0);
	return q->res;
}

static int do_write(int s, const void *buf, size_t len, uint64_t off, int flags)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)buf, len / 2},
			       {(char *)(uintptr_t)buf + len / 2, len - len / 2}};
	struct req q = {.r.done = req_done};

	uring_writev(u, &q.r, s, iov, 2, off, flags);
	return wait_for(&q);
}

static int do_read(int s, void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	struct req q = {.r.done = req_done};

	uring_readv(u, &q.r, s, &iov, 1, off);
	return wait_for(&q);
}

static int do_fsync(int s)
{
	struct req q = {.r.done = req_done};

	uring_fsync(u, &q.r, s);
	return wait_for(&q);
}

static int do_fallocate(int s, int mode, uint64_t off, uint64_t len)
{
	struct req q = {.r.done = req_done};

	uring_fallocate(u, &q.r, s, mode, off, len);
	return wait_for(&q);
}

static void test_data(void **state)
{
	char buf[64] = {0};
	struct stat st;

	assert_int_equal(do_write(slot, "hello, world", 12, 4096, 0), 12);
	assert_int_equal(do_write(slot, "H", 1, 4096, RWF_DSYNC), 1);
	assert_int_equal(do_fsync(slot), 0);
	assert_int_equal(do_read(slot, buf, 12, 4096), 12);
	assert_string_equal(buf, "Hello, world");
	/* A short transfer is passed on as it is. */
	assert_int_equal(do_read(slot, buf, sizeof(buf), 4100), 8);
	assert_int_equal(do_read(slot, buf, sizeof(buf), 1 << 20), 0);
	assert_int_equal(
		do_fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 5), 0);
	assert_int_equal(do_read(slot, buf, 6, 4096), 6);
	assert_memory_equal(buf, "\0\0\0\0\0,", 6);
	assert_int_equal(do_fallocate(slot, 0, 0, 1 << 16), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1 << 16);
}

static void test_errors(void **state)
{
	int ro, ro_slot, p[2], p_slot;
	struct iovec *many = calloc(1025, sizeof(*many));
	struct req q = {.r.done = req_done};
	char c = 'x';

	/* -1 is "the current position" to the kernel and must not get there. */
	assert_int_equal(write(fd, "abc", 3), 3);
	assert_int_equal(do_read(slot, &c, 1, UINT64_MAX), -EINVAL);
	assert_int_equal(do_write(slot, &c, 1, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(do_write(slot, &c, 1, UINT64_C(1) << 63, 0), -EINVAL);
	assert_int_equal(do_fallocate(slot, 0, UINT64_MAX, 1), -EINVAL);
	assert_int_equal(do_fallocate(slot, 0, 0, UINT64_MAX), -EINVAL);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 3);
	assert_int_equal(lseek(fd, 0, SEEK_END), 3);

	for (int i = 0; i < 1025; i++) {
		many[i] = (struct iovec){&c, 1};
	}
	uring_writev(u, &q.r, slot, many, 1025, 0, 0);
	assert_int_equal(wait_for(&q), -EINVAL);
	q.done = false;
	uring_writev(u, &q.r, slot, many, 1024, 0, 0);
	assert_int_equal(wait_for(&q), 1024);
	assert_int_equal(do_read(slot, (void *)16, 1, 0), -EFAULT);

	ro = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ro_slot = uring_file_add(u, ro);
	assert_true(ro_slot >= 0 && ro_slot != slot);
	assert_int_equal(do_write(ro_slot, &c, 1, 0, 0), -EBADF);
	uring_file_del(u, ro_slot);
	assert_int_equal(pipe(p), 0);
	p_slot = uring_file_add(u, p[0]);
	assert_int_equal(do_fsync(p_slot), -EINVAL);
	uring_file_del(u, p_slot);
	close(ro);
	close(p[0]);
	close(p[1]);
	free(many);
}

static void test_files(void **state)
{
	int slots[64], other = memfd_create("other", MFD_CLOEXEC);
	char c;

	assert_int_equal(uring_file_add(u, -1), -EBADF);
	assert_int_equal(uring_file_add(u, 999999), -EBADF);
	for (int i = 0; i < 63; i++) {
		slots[i] = uring_file_add(u, i % 2 ? fd : other);
		assert_in_range(slots[i], 0, 63);
	}
	assert_int_equal(uring_file_add(u, other), -ENOSPC);
	assert_int_equal(do_write(slots[1], "F", 1, 0, 0), 1);
	assert_int_equal(do_write(slots[0], "O", 1, 0, 0), 1);
	assert_int_equal(pread(fd, &c, 1, 0), 1);
	assert_int_equal(c, 'F');
	assert_int_equal(pread(other, &c, 1, 0), 1);
	assert_int_equal(c, 'O');
	/* A slot given back is free and names what it is given next. */
	uring_file_del(u, slots[0]);
	assert_int_equal(uring_file_add(u, fd), slots[0]);
	assert_int_equal(do_read(slots[0], &c, 1, 0), 1);
	assert_int_equal(c, 'F');
	for (int i = 0; i < 63; i++) {
		uring_file_del(u, slots[i]);
	}
	close(other);
}

/* ---- many at once ---- */

#define MANY 2000

struct many {
	struct uring_req r;
	struct iovec iov;
	uint32_t value;
	int reads;
};

static unsigned finished;

/* Each writes its number, reads it back, checks it, three times over. */
static void many_done(struct uring_req *r, int res)
{
	struct many *m = container_of(r, struct many, r);
	uint64_t off = (uint64_t)(m->value & 0xffff) * 4;

	assert_int_equal(res, 4);
	if (m->reads % 2 == 0) {
		m->reads++;
		uring_readv(u, r, slot, &m->iov, 1, off);
	} else if (m->reads < 5) {
		m->reads++;
		m->value += 0x10000;
		uring_writev(u, r, slot, &m->iov, 1, off, 0);
	} else {
		finished++;
		if (finished == MANY) {
			loop_stop(l);
		}
	}
}

static void test_many(void **state)
{
	struct many *m = calloc(MANY, sizeof(*m));

	finished = 0;
	for (uint32_t i = 0; i < MANY; i++) {
		m[i].r.done = many_done;
		m[i].value = i;
		m[i].iov = (struct iovec){&m[i].value, 4};
		uring_writev(u, &m[i].r, slot, &m[i].iov, 1, i * 4, 0);
	}
	assert_int_equal(uring_inflight(u), MANY);
	loop_run(l);
	assert_int_equal(uring_inflight(u), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		uint32_t v = 0;

		assert_int_equal(m[i].value, i + 0x20000);
		assert_int_equal(pread(fd, &v, 4, i * 4), 4);
		assert_int_equal(v, i + 0x20000);
	}
	free(m);
}

/* A read that the kernel cannot finish does not hold up others, nor the loop. */
static void test_blocking_and_timer(void **state)
{
	struct req q = {.r.done = req_done}, w = {.r.done = req_done};
	struct iovec iov, wiov = {(char[1]){'y'}, 1};
	int p[2], p_slot;
	char c = 0;

	assert_int_equal(pipe(p), 0);
	p_slot = uring_file_add(u, p[0]);
	iov = (struct iovec){&c, 1};
	uring_readv(u, &q.r, p_slot, &iov, 1, 0);
	for (int i = 0; i < 5; i++) {
		loop_step(l, 1);
	}
	assert_false(q.done);
	uring_writev(u, &w.r, slot, &wiov, 1, 0, 0);
	while (!w.done) {
		loop_step(l, -1);
	}
	assert_int_equal(w.res, 1);
	assert_false(q.done);
	assert_int_equal(uring_inflight(u), 1);
	assert_int_equal(write(p[1], "z", 1), 1);
	while (!q.done) {
		loop_step(l, -1);
	}
	assert_int_equal(q.res, 1);
	assert_int_equal(c, 'z');
	uring_file_del(u, p_slot);
	close(p[0]);
	close(p[1]);
}

/* ---- life of the ring ---- */

static void test_counted(void **state)
{
	struct uring *again;

	assert_int_equal(uring_get(l, &again, NULL), 0);
	assert_ptr_equal(again, u);
	uring_put(again);
	assert_int_equal(do_fsync(slot), 0);
}

static void put_in_done(struct uring_req *r, int res)
{
	req_done(r, res);
	uring_file_del(u, slot);
	uring_put(u);
}

/* The last user goes inside its own completion, refused, at once or by the eventfd. */
static void test_put_in_done(void **state)
{
	static const int want[] = {-EINVAL, 0, 1};

	for (int how = 0; how < 3; how++) {
		struct req q = {.r.done = put_in_done};
		struct iovec iov = {(char[1]){0}, 1};
		int p[2];

		assert_int_equal(pipe(p), 0);
		if (how == 2) {
			uring_file_del(u, slot);
			slot = uring_file_add(u, p[0]);
			uring_readv(u, &q.r, slot, &iov, 1, 0);
			loop_step(l, 0);
			assert_int_equal(write(p[1], "z", 1), 1);
		} else {
			uring_readv(u, &q.r, slot, &iov, 1, how ? 0 : UINT64_MAX);
		}
		while (!q.done) {
			loop_step(l, -1);
		}
		assert_int_equal(q.res, want[how]);
		loop_step(l, 0);
		assert_int_equal(uring_get(l, &u, NULL), 0);
		slot = uring_file_add(u, fd);
		assert_true(slot >= 0);
		close(p[0]);
		close(p[1]);
	}
}

/* Made by the main thread, used by the loop's, put by the main thread again. */
static void thread_write(void *arg)
{
	struct many *m = arg;

	m->iov = (struct iovec){&m->value, 4};
	uring_writev(u, &m->r, slot, &m->iov, 1, 0, 0);
}

static _Atomic bool thread_finished;

static void thread_done(struct uring_req *r, int res)
{
	struct many *m = container_of(r, struct many, r);

	assert_true(loop_is_current(l));
	assert_int_equal(res, 4);
	m->reads++;
	if (m->reads < 100) {
		uring_writev(u, &m->r, slot, &m->iov, 1, 0, 0);
	} else {
		atomic_store(&thread_finished, true);
	}
}

static void test_thread(void **state)
{
	struct many m = {.r.done = thread_done, .value = 0x12345678};
	struct loop_work w = {.fn = thread_write, .arg = &m};
	uint32_t v;

	assert_int_equal(loop_thread_start(l, NULL, NULL), 0);
	loop_post(l, &w);
	while (!atomic_load(&thread_finished)) {
		usleep(1000);
	}
	loop_thread_join(l);
	assert_int_equal(uring_inflight(u), 0);
	assert_int_equal(pread(fd, &v, 4, 0), 4);
	assert_int_equal(v, 0x12345678);
}

/* ---- what somebody who has taken over the process could try with the ring ---- */

/* The ring's descriptor: the one that says so in /proc. */
static int ring_fd(void)
{
	for (int i = 3; i < 1000; i++) {
		char path[64], link[64] = {0};

		snprintf(path, sizeof(path), "/proc/self/fd/%d", i);
		if (readlink(path, link, sizeof(link) - 1) > 0 &&
		    !strcmp(link, "anon_inode:[io_uring]")) {
			return i;
		}
	}
	return -1;
}

/* Lets the test put any entry into the ring, through the same mappings. */
struct raw {
	struct io_uring_sqe *sqes;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_cqe *cqes;
	void *sq, *se;
	size_t sq_len, se_len;
	int fd;
};

static void raw_open(struct raw *r)
{
	/* The layout of a ring of this size, from one of our own. */
	struct io_uring_params p = {0};
	struct io_uring own;
	char *sq;

	assert_int_equal(io_uring_queue_init_params(256, &own, &p), 0);
	io_uring_queue_exit(&own);
	r->fd = ring_fd();
	assert_true(r->fd >= 0);
	r->sq_len = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	r->sq_len = MAX(r->sq_len, p.sq_off.array + p.sq_entries * sizeof(unsigned));
	r->se_len = p.sq_entries * sizeof(struct io_uring_sqe);
	r->sq = mmap(NULL, r->sq_len, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		     IORING_OFF_SQ_RING);
	r->se = mmap(NULL, r->se_len, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		     IORING_OFF_SQES);
	assert_ptr_not_equal(r->sq, MAP_FAILED);
	assert_ptr_not_equal(r->se, MAP_FAILED);
	sq = r->sq;
	r->sqes = r->se;
	r->sq_tail = (unsigned *)(sq + p.sq_off.tail);
	r->sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
	r->sq_array = (unsigned *)(sq + p.sq_off.array);
	r->cq_head = (unsigned *)(sq + p.cq_off.head);
	r->cq_tail = (unsigned *)(sq + p.cq_off.tail);
	r->cq_mask = (unsigned *)(sq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(sq + p.cq_off.cqes);
}

static int raw_submit(struct raw *r, const struct io_uring_sqe *sqe)
{
	unsigned tail = *r->sq_tail, head = *r->cq_head;
	int res;

	r->sqes[tail & *r->sq_mask] = *sqe;
	r->sq_array[tail & *r->sq_mask] = tail & *r->sq_mask;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	assert_int_equal(
		syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), 1);
	assert_int_equal(__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE), head + 1);
	res = r->cqes[head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return res;
}

static void test_restrictions(void **state)
{
	char c = 'r';
	struct iovec iov = {&c, 1};
	struct io_uring_sqe good = {.opcode = IORING_OP_WRITEV,
				    .flags = IOSQE_FIXED_FILE,
				    .fd = slot,
				    .addr = (uintptr_t)&iov,
				    .len = 1};
	struct io_uring_sqe sqe;
	struct raw raw;
	int none = -1;

	raw_open(&raw);
	assert_int_equal(raw_submit(&raw, &good), 1); /* the method works */
	/* Every other operation is refused … */
	for (unsigned op = 0; op < IORING_OP_LAST; op++) {
		if (op == IORING_OP_READV || op == IORING_OP_WRITEV || op == IORING_OP_FSYNC ||
		    op == IORING_OP_FALLOCATE) {
			continue;
		}
		sqe = (struct io_uring_sqe){
			.opcode = (uint8_t)op, .flags = IOSQE_FIXED_FILE, .fd = slot};
		assert_int_equal(raw_submit(&raw, &sqe), -EACCES);
	}
	/* … and so is a plain descriptor, and anything clever. */
	sqe = good;
	sqe.flags = 0;
	sqe.fd = fd;
	assert_int_equal(raw_submit(&raw, &sqe), -EACCES);
	sqe = good;
	sqe.flags |= IOSQE_IO_LINK;
	assert_int_equal(raw_submit(&raw, &sqe), -EACCES);
	sqe = good;
	sqe.fd = slot + 1; /* a slot without a file */
	assert_int_equal(raw_submit(&raw, &sqe), -EBADF);
	/* Registration: nothing but the file table. */
	for (unsigned op = 0; op < IORING_REGISTER_LAST; op++) {
		if (op != IORING_REGISTER_FILES_UPDATE) {
			assert_int_equal(syscall(__NR_io_uring_register, raw.fd, op, &none, 1),
					 -1);
			assert_true(errno == EACCES || errno == EINVAL || errno == EBADFD);
		}
	}
	munmap(raw.sq, raw.sq_len);
	munmap(raw.se, raw.se_len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_data, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blocking_and_timer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_put_in_done, setup, teardown),
		cmocka_unit_test_setup_teardown(test_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restrictions, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
