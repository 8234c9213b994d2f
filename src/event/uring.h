/*
 * One io_uring per loop, shared by the block nodes that run there.
 *
 * Requests are queued without a system call and submitted together when the loop is about to
 * sleep; completions arrive through an eventfd in the loop. Rings are restricted
 * (IORING_REGISTER_RESTRICTIONS) to the operations below on registered files, because io_uring
 * bypasses seccomp; the set is closed when uring_seal() is called, until then files may be
 * registered. Owner thread only, except where said.
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
};

/* The ring of a loop: made on first use, counted. entries is a power of two. -ENOSYS or -EPERM
 * with a sentence if the host forbids io_uring. */
int uring_get(struct loop *l, struct uring **out, struct err *err);
void uring_put(struct uring *u);

/* Registers fd (kept open by the caller until file_del): a slot number ≥ 0 or -errno. At most
 * 64 files a ring. Works after sandboxing, too. */
int uring_file_add(struct uring *u, int fd);
void uring_file_del(struct uring *u, int slot);

/* Queue one request. Never fails: an error comes through done(). iov stays in place until then.
 * At most 1024 iovecs. */
void uring_readv(struct uring *u, struct uring_req *r, int slot, const struct iovec *iov,
		 unsigned niov, uint64_t off);
void uring_writev(struct uring *u, struct uring_req *r, int slot, const struct iovec *iov,
		  unsigned niov, uint64_t off, int rwf_flags); /* RWF_DSYNC for FUA */
void uring_fsync(struct uring *u, struct uring_req *r, int slot); /* fdatasync */
void uring_fallocate(struct uring *u, struct uring_req *r, int slot, int mode, uint64_t off,
		     uint64_t len);
unsigned uring_inflight(const struct uring *u);

#endif
