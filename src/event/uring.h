/*
 * One io_uring per loop, shared by the block nodes that run there.
 *
 * Requests are queued without a system call and submitted together when the loop is about to
 * sleep; completions arrive through an eventfd in the loop. Rings are restricted
 * (IORING_REGISTER_RESTRICTIONS) to the operations below on registered files, because io_uring
 * bypasses seccomp. A restriction cannot be lifted, so files may come and go at any time.
 *
 * Threads: the loop's owner. io_uring_setup(2) is permitted only before isolation, so a loop's
 * first uring_get() belongs there: on the main thread, which owns the loop until
 * loop_thread_start(). The loop's thread then uses the ring.
 */
#ifndef EVENT_URING_H
#define EVENT_URING_H

#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "event/loop.h"

struct uring;
struct uring_req;
/* res: bytes done, or -errno. Called on the loop, never from inside a uring_ function. */
typedef void uring_done_fn(struct uring_req *req, int res);
struct uring_req {
	uring_done_fn *done;
	struct uring_req *next; /* internal: waits for a free entry */
	/* what was asked, kept until it is done */
	uint8_t op;
	int slot, arg;
	uint64_t off, len;
	const struct iovec *iov;
	unsigned niov;
	int result; /* internal */
};

/* The ring of a loop: made on first use, counted. -ENOSYS or -EPERM with a sentence if the host
 * has no io_uring or forbids it; other -errno, with a sentence too. */
int uring_get(struct loop *l, struct uring **out, struct err *err);
/* The same requests made by threads of the loop's own, for hosts without io_uring. The first call starts
 * them (on the main thread, before isolation); init(arg) is what each runs first, or NULL. Another
 * ring than that of uring_get(). */
int uring_get_threads(struct loop *l, loop_work_fn *init, void *arg, struct uring **out,
		      struct err *err);
/* The last put closes the ring: nothing may be in flight. Also from within done(). */
void uring_put(struct uring *u);

/* Registers fd (kept open by the caller until file_del): a slot number ≥ 0 or -errno. At most
 * 64 files a ring, then -ENOSPC. Works after sandboxing, too. */
int uring_file_add(struct uring *u, int fd);
/* No request on the slot is in flight. */
void uring_file_del(struct uring *u, int slot);

/* Queue one request; beyond 256 in the ring they wait here, in order. Never fails: an error comes
 * through done(), also for an offset beyond INT64_MAX (-EINVAL). iov stays in place until then; at
 * most 1024 iovecs, else -EINVAL. r may be reused or freed inside done(). A short read or write
 * is the caller's to continue. Requests are not ordered among each other. */
void uring_readv(struct uring *u, struct uring_req *r, int slot, const struct iovec *iov,
		 unsigned niov, uint64_t off);
void uring_writev(struct uring *u, struct uring_req *r, int slot, const struct iovec *iov,
		  unsigned niov, uint64_t off, int rwf_flags);	  /* RWF_DSYNC for FUA */
void uring_fsync(struct uring *u, struct uring_req *r, int slot); /* fdatasync */
void uring_fallocate(struct uring *u, struct uring_req *r, int slot, int mode, uint64_t off,
		     uint64_t len);
/* Requests whose done() was not called yet. */
unsigned uring_inflight(const struct uring *u);

#endif
