/*
 * The io_uring of a loop: see uring.h for the contract.
 *
 * A request is in one of these places, and `inflight` counts all of them:
 *   waiting   the ring is full; first in, first out
 *   in the ring (`in_ring`): from the submission entry until its completion was read
 *   refused   its offset would mean something else to the kernel; done() follows with -EINVAL
 *
 * Work happens in the loop's hook, before it sleeps: completions are read, freed entries are
 * filled from `waiting`, all new entries are submitted with one system call, and what the
 * kernel completed at once is read without another sleep. Completions that come later raise
 * the eventfd, which is watched edge-triggered and so never read.
 *
 * Invariants:
 *  1. in_ring ≤ URING_ENTRIES, half of the completion queue: it cannot overflow, and a free
 *     submission entry is always there.
 *  2. When the hook returns, nothing that could go on is left behind without a reason to come
 *     back: completions have raised the eventfd, `waiting` waits for completions, and whatever
 *     else is left posts `again`.
 *  3. A slot is not given to another file while requests name it (slot_users).
 *
 * The ring: restricted before it is enabled (Linux 5.10) to the operations of uring.h on
 * registered files, and to changing the table of those. Nobody can lift that, nor can code that
 * has taken over the thread. IORING_SETUP_SINGLE_ISSUER is not used: the main thread makes the
 * ring before isolation, the loop's thread uses it. COOP_TASKRUN: completions are carried out
 * when the thread enters the kernel anyway, or wake it from its sleep, instead of interrupting
 * it; a wake-up of that kind looks like EINTR to the loop and leads to the hook.
 *
 * Threads: the loop's owner. Untrusted: offsets, lengths and the number of iovecs may come from
 * a guest; the kernel judges them (-EINVAL, -EFAULT in done()), but for offsets beyond INT64_MAX,
 * of which -1 would mean "the current position".
 */
#include "event/uring.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "event/loop_int.h"
#include "event/uring_int.h"

#define URING_ENTRIES 256
#define URING_ROUNDS  4 /* submissions in one hook, when requests complete at once */

struct uring {
	struct loop *loop;
	unsigned refs;
	struct uring_threads *threads; /* in place of the ring, see uring_threads.c; or NULL */
	struct io_uring ring;
	int event_fd;
	struct loop_fd event_watch;
	struct loop_hook hook;
	struct loop_work again; /* makes the loop not sleep */

	unsigned inflight, in_ring;
	struct uring_queue waiting, refused;

	bool slot_used[URING_FILES];
	unsigned slot_users[URING_FILES]; /* requests of inflight */

	bool busy; /* done() may be running */
	bool dead; /* the last reference was put meanwhile */
};

/* ---- from requests to the ring and back ---- */

static void req_finish(struct uring *u, struct uring_req *r, int res)
{
	u->inflight--;
	u->slot_users[r->slot]--;
	u->loop->hook_worked = true;
	r->done(r, res); /* r may be gone or queued again */
}

static void req_to_sqe(struct uring *u, struct uring_req *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	assert(sqe);
	switch (r->op) {
	case IORING_OP_READV:
		io_uring_prep_readv(sqe, r->slot, r->iov, r->niov, r->off);
		break;
	case IORING_OP_WRITEV:
		io_uring_prep_writev2(sqe, r->slot, r->iov, r->niov, r->off, r->arg);
		break;
	case IORING_OP_FSYNC:
		io_uring_prep_fsync(sqe, r->slot, IORING_FSYNC_DATASYNC);
		break;
	case IORING_OP_FALLOCATE:
		io_uring_prep_fallocate(sqe, r->slot, r->arg, (off_t)r->off, (off_t)r->len);
		break;
	default:
		assert(!"unknown operation");
	}
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, r);
	u->in_ring++;
}

static void req_queue(struct uring *u, struct uring_req *r)
{
	assert(loop_is_current(u->loop));
	assert(r->slot >= 0 && r->slot < URING_FILES && u->slot_used[r->slot]);
	u->inflight++;
	u->slot_users[r->slot]++;
	if (r->off > INT64_MAX) {
		uring_queue_push(&u->refused, r);
		if (u->threads) {
			loop_post(u->loop, &u->again);
		}
	} else if (u->threads) {
		uring_threads_push(u->threads, r);
	} else if (u->waiting.head || u->in_ring == URING_ENTRIES) {
		uring_queue_push(&u->waiting, r);
	} else {
		req_to_sqe(u, r);
	}
}

/* Calls done() for what is complete. What done() queues is not submitted here, so this ends
 * after URING_ENTRIES calls at most. */
static void uring_reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	struct uring_queue refused = u->refused;

	if (refused.head) {
		uring_queue_init(&u->refused);
		while (refused.head && !u->dead) {
			req_finish(u, uring_queue_pop(&refused), -EINVAL);
		}
	}
	while (!u->dead && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		struct uring_req *r = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		u->in_ring--;
		req_finish(u, r, res);
	}
}

/* Submits all that fits; false if there was nothing.
 * #syscalls(main,io): io_uring_enter */
static bool uring_flush(struct uring *u)
{
	while (u->waiting.head && u->in_ring < URING_ENTRIES) {
		req_to_sqe(u, uring_queue_pop(&u->waiting));
	}
	if (io_uring_sq_ready(&u->ring) == 0) {
		return false;
	}
	while (io_uring_sq_ready(&u->ring) > 0) {
		int r = io_uring_submit(&u->ring);

		if (r == -EINTR) {
			continue;
		}
		if (r <= 0) {
			/* The kernel is short of memory (EAGAIN, EBUSY): the next round tries
			 * again. Nothing else is expected. */
			if (r < 0 && r != -EAGAIN && r != -EBUSY) {
				log_guest(loop_name(u->loop), "io_uring: %s", strerror(-r));
			}
			break;
		}
	}
	return true;
}

/* The guard around whatever calls done(), which may put the last reference. */
static void uring_enter(struct uring *u)
{
	assert(!u->busy);
	u->busy = true;
}

static void uring_leave(struct uring *u)
{
	u->busy = false;
	if (u->dead) {
		free(u);
	}
}

static void uring_before_sleep(void *opaque)
{
	struct uring *u = opaque;

	uring_enter(u);
	for (int i = 0; i < URING_ROUNDS; i++) {
		uring_reap(u);
		if (u->dead || !uring_flush(u)) {
			break;
		}
	}
	if (!u->dead && (u->refused.head || io_uring_sq_ready(&u->ring) > 0)) {
		loop_post(u->loop, &u->again);
	}
	uring_leave(u);
}

static void uring_event(void *opaque, uint32_t events)
{
	struct uring *u = opaque;

	uring_enter(u);
	uring_reap(u);
	uring_leave(u);
}

static void uring_again(void *arg)
{
	struct uring *u = arg;
	struct uring_queue refused = u->refused;

	/* With a ring the round it made is what was wanted. */
	if (!u->threads || !refused.head) {
		return;
	}
	uring_queue_init(&u->refused);
	while (refused.head) {
		req_finish(u, uring_queue_pop(&refused), -EINVAL); /* the last one may free u */
	}
}

/* ---- the ring ---- */

/* #syscalls(start): io_uring_setup io_uring_register mmap */
static int ring_open(struct io_uring *ring)
{
	static const struct io_uring_restriction allowed[] = {
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
		 .sqe_flags = IOSQE_FIXED_FILE},
		{.opcode = IORING_RESTRICTION_REGISTER_OP,
		 .register_op = IORING_REGISTER_FILES_UPDATE},
	};
	struct io_uring_params p = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN |
			 IORING_SETUP_SUBMIT_ALL,
	};
	int none[URING_FILES];
	int r;

	r = io_uring_queue_init_params(URING_ENTRIES, ring, &p);
	if (r == -EINVAL) { /* a kernel before 5.19; nothing depends on the other two */
		p = (struct io_uring_params){.flags = IORING_SETUP_R_DISABLED};
		r = io_uring_queue_init_params(URING_ENTRIES, ring, &p);
	}
	if (r) {
		return r;
	}
	memset(none, 0xff, sizeof(none));
	/* Here and below the general call: Debian 12's liburing.so lacks the special ones. */
	r = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed,
			      ARRAY_SIZE(allowed));
	if (!r) {
		r = io_uring_register_files(ring, none, URING_FILES);
	}
	if (r) {
		io_uring_queue_exit(ring);
	}
	return r;
}

/* #syscalls(start): eventfd2 io_uring_register epoll_ctl close munmap */
static int uring_new(struct loop *l, struct uring **out)
{
	struct uring *u = calloc(1, sizeof(*u));
	int r;

	if (!u) {
		return -ENOMEM;
	}
	u->loop = l;
	u->refs = 1;
	u->again = (struct loop_work){.fn = uring_again, .arg = u};
	u->hook = (struct loop_hook){.fn = uring_before_sleep, .opaque = u};
	uring_queue_init(&u->waiting);
	uring_queue_init(&u->refused);
	r = ring_open(&u->ring);
	if (r) {
		goto free_uring;
	}
	u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->event_fd < 0) {
		r = -errno;
		goto close_ring;
	}
	r = io_uring_register_eventfd(&u->ring, u->event_fd);
	if (!r) {
		r = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
				      NULL, 0);
	}
	if (!r) {
		r = loop_fd_add(l, &u->event_watch, u->event_fd, EPOLLIN | EPOLLET, uring_event,
				u);
	}
	if (r) {
		goto close_event;
	}
	loop_hook_add(l, &u->hook);
	l->uring = u;
	*out = u;
	return 0;

close_event:
	close(u->event_fd);
close_ring:
	io_uring_queue_exit(&u->ring);
free_uring:
	free(u);
	return r;
}

int uring_get(struct loop *l, struct uring **out, struct err *err)
{
	int r;

	assert(loop_is_current(l));
	if (l->uring) {
		l->uring->refs++;
		*out = l->uring;
		return 0;
	}
	r = uring_new(l, out);
	switch (r) {
	case 0:
		return 0;
	case -EPERM:
	case -EACCES:
		return err_set(err, EPERM,
			       "this host forbids io_uring; allow it with sysctl "
			       "kernel.io_uring_disabled=0, in a container also in its seccomp "
			       "profile");
	case -ENOSYS:
	case -EINVAL:
		return err_set(err, ENOSYS,
			       "this host's kernel has no io_uring that can be restricted; use "
			       "Linux 5.10 or later");
	case -ENOMEM:
		return err_set(
			err, ENOMEM,
			"there is no memory for an io_uring; free some, or raise the limit "
			"on locked memory (ulimit -l)");
	default:
		return err_set(err, -r, "an io_uring cannot be set up: %s", strerror(-r));
	}
}

int uring_get_threads(struct loop *l, loop_work_fn *init, void *arg, struct uring **out,
		      struct err *err)
{
	struct uring *u = l->uring_threads;
	int r;

	assert(loop_is_current(l));
	if (u) {
		u->refs++;
		*out = u;
		return 0;
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		return err_set(err, ENOMEM, "threads for disk requests: out of memory");
	}
	u->loop = l;
	u->refs = 1;
	u->again = (struct loop_work){.fn = uring_again, .arg = u};
	uring_queue_init(&u->waiting);
	uring_queue_init(&u->refused);
	r = uring_threads_new(l, init, arg, u, req_finish, &u->threads);
	if (r) {
		free(u);
		return err_set(err, -r, "threads for disk requests cannot be started: %s",
			       strerror(-r));
	}
	l->uring_threads = u;
	*out = u;
	return 0;
}

/* #syscalls(main,io): close munmap epoll_ctl */
void uring_put(struct uring *u)
{
	assert(loop_is_current(u->loop) && u->refs > 0);
	if (--u->refs > 0) {
		return;
	}
	/* A request that is still in the kernel would write to memory that has a new owner. */
	assert(u->inflight == 0);
	loop_work_cancel(u->loop, &u->again);
	if (u->threads) {
		u->loop->uring_threads = NULL;
		uring_threads_free(u->threads);
		free(u);
		return;
	}
	loop_hook_del(&u->hook);
	loop_fd_del(&u->event_watch);
	u->loop->uring = NULL;
	io_uring_queue_exit(&u->ring);
	close(u->event_fd);
	if (u->busy) {
		u->dead = true;
	} else {
		free(u);
	}
}

/* ---- files ---- */

/* #syscalls(main,io): io_uring_register */
int uring_file_add(struct uring *u, int fd)
{
	int r;

	assert(loop_is_current(u->loop));
	if (fd < 0) {
		return -EBADF; /* the kernel would take -1 as "empty the slot" */
	}
	for (int slot = 0; slot < URING_FILES; slot++) {
		if (u->slot_used[slot]) {
			continue;
		}
		r = 1;
		if (u->threads) {
			uring_threads_file(u->threads, slot, fd);
		} else {
			r = io_uring_register_files_update(&u->ring, (unsigned)slot, &fd, 1);
		}
		if (r != 1) {
			return r < 0 ? r : -EIO;
		}
		u->slot_used[slot] = true;
		return slot;
	}
	return -ENOSPC;
}

/* #syscalls(main,io): io_uring_register */
void uring_file_del(struct uring *u, int slot)
{
	int none = -1, r;

	assert(loop_is_current(u->loop));
	assert(slot >= 0 && slot < URING_FILES && u->slot_used[slot]);
	assert(u->slot_users[slot] == 0);
	r = u->threads ? 1
		       : io_uring_register_files_update(&u->ring, (unsigned)slot, &none, 1);
	if (r != 1) {
		/* The slot stays out of use: what is in it is not known. */
		log_warn(loop_name(u->loop), "io_uring: file not released: %s", strerror(-r));
		return;
	}
	u->slot_used[slot] = false;
}

/* ---- requests ---- */

void uring_readv(struct uring *u, struct uring_req *r, int slot, const struct iovec *iov,
		 unsigned niov, uint64_t off)
{
	r->op = IORING_OP_READV;
	r->slot = slot;
	r->iov = iov;
	r->niov = niov;
	r->off = off;
	req_queue(u, r);
}

void uring_writev(struct uring *u, struct uring_req *r, int slot, const struct iovec *iov,
		  unsigned niov, uint64_t off, int rwf_flags)
{
	r->op = IORING_OP_WRITEV;
	r->slot = slot;
	r->arg = rwf_flags;
	r->iov = iov;
	r->niov = niov;
	r->off = off;
	req_queue(u, r);
}

void uring_fsync(struct uring *u, struct uring_req *r, int slot)
{
	r->op = IORING_OP_FSYNC;
	r->slot = slot;
	r->off = 0;
	req_queue(u, r);
}

void uring_fallocate(struct uring *u, struct uring_req *r, int slot, int mode, uint64_t off,
		     uint64_t len)
{
	r->op = IORING_OP_FALLOCATE;
	r->slot = slot;
	r->arg = mode;
	r->off = off;
	r->len = len;
	req_queue(u, r);
}

unsigned uring_inflight(const struct uring *u)
{
	return u->inflight;
}
