/*
 * The dirty log: which pages of RAM were written since they were last asked for.
 *
 * The guest's own writes are known to the listeners (KVM), which OR them in when the log is
 * read; devices mark theirs with mem_dirty(). Each region has one bitmap of atomic words that
 * any thread ORs into and that mem_log_sync() exchanges with zero, so that no bit is lost and
 * none is reported twice.
 *
 * A device stores data, then asks whether a log is on. Starting a log sets the flag, then
 * whoever started it reads the data. So that one of the two always sees the other, without a
 * fence in every mem_dirty(), mem_log_start() makes every thread of the process pass a barrier.
 *
 * Threads: mem_dirty*() and mem_region_dirty_or() any; the rest the control loop.
 */
#include <assert.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem/mem_int.h"

uint64_t mem_region_pages(const struct mem_region *r)
{
	return r->size >> MEM_PAGE_SHIFT;
}

static size_t bitmap_words(const struct mem_region *r)
{
	return (mem_region_pages(r) + 63) / 64;
}

/* The bits of word i that stand for pages of the region. */
static uint64_t bitmap_valid(const struct mem_region *r, size_t i)
{
	uint64_t left = mem_region_pages(r) - i * 64;

	return left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
}

int mem_region_bitmap_init(struct mem_region *r, bool all)
{
	_Atomic uint64_t *bm = atomic_load_explicit(&r->bitmap, memory_order_relaxed);
	size_t words = bitmap_words(r);

	if (!bm) {
		bm = calloc(words, sizeof(*bm));
		if (!bm) {
			return -ENOMEM;
		}
	}
	for (size_t i = 0; i < words; i++) {
		atomic_store_explicit(&bm[i], all ? bitmap_valid(r, i) : 0,
				      memory_order_relaxed);
	}
	atomic_store_explicit(&r->bitmap, bm, memory_order_release);
	return 0;
}

/* Pages first..last (inclusive, within the region). */
static void region_mark(struct mem_region *r, uint64_t first, uint64_t last)
{
	_Atomic uint64_t *bm = atomic_load_explicit(&r->bitmap, memory_order_acquire);

	if (!bm) {
		return; /* firmware, which is no part of the log */
	}
	for (uint64_t word = first / 64; word <= last / 64; word++) {
		uint64_t bits = UINT64_MAX;

		if (word == first / 64) {
			bits &= UINT64_MAX << (first % 64);
		}
		if (word == last / 64) {
			bits &= UINT64_MAX >> (63 - last % 64);
		}
		/* Release: what was written to the page is seen by who takes the bit. */
		atomic_fetch_or_explicit(&bm[word], bits, memory_order_release);
	}
}

static void mem_mark(struct mem *m, gpa_t gpa, uint64_t len)
{
	while (len) {
		struct mem_region *r = mem_lookup(m, gpa);
		uint64_t off, piece;

		if (!r) {
			return;
		}
		off = gpa - r->gpa;
		piece = MIN(len, r->size - off);
		region_mark(r, off >> MEM_PAGE_SHIFT, (off + piece - 1) >> MEM_PAGE_SHIFT);
		gpa += piece;
		len -= piece;
	}
}

void mem_dirty(struct mem *m, gpa_t gpa, uint64_t len)
{
	if (atomic_load_explicit(&m->logging, memory_order_relaxed)) {
		mem_mark(m, gpa, len);
	}
}

static void mem_mark_iov(struct mem *m, const struct iovec *iov, int cnt, uint64_t len)
{
	for (int i = 0; i < cnt && len; i++) {
		uint64_t piece = MIN(len, iov[i].iov_len);
		struct mem_region *r;
		uint64_t off;

		len -= piece;
		if (piece == 0) {
			continue;
		}
		r = mem_lookup_host(m, iov[i].iov_base);
		if (r) {
			off = (uint64_t)((uint8_t *)iov[i].iov_base - r->host);
			assert(range_within(off, piece, r->size)); /* it came from mem_span() */
			region_mark(r, off >> MEM_PAGE_SHIFT,
				    (off + piece - 1) >> MEM_PAGE_SHIFT);
		}
	}
}

void mem_dirty_iov(struct mem *m, const struct iovec *iov, int cnt, uint64_t len)
{
	if (atomic_load_explicit(&m->logging, memory_order_relaxed)) {
		mem_mark_iov(m, iov, cnt, len);
	}
}

void mem_region_dirty_or(struct mem_region *r, const uint64_t *bitmap, size_t words)
{
	_Atomic uint64_t *bm = atomic_load_explicit(&r->bitmap, memory_order_acquire);

	if (!bm) {
		return;
	}
	words = MIN(words, bitmap_words(r));
	for (size_t i = 0; i < words; i++) {
		uint64_t bits = bitmap[i] & bitmap_valid(r, i);

		if (bits) {
			atomic_fetch_or_explicit(&bm[i], bits, memory_order_release);
		}
	}
}

/*
 * Makes every other thread of the process pass a full barrier. Where the kernel cannot, the
 * listeners' system calls that follow give every store the microseconds it needs.
 * #syscalls(main): membarrier
 */
static void barrier_all_threads(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

int mem_log_start(struct mem *m)
{
	struct list *n;
	int rc;

	if (atomic_load_explicit(&m->logging, memory_order_relaxed)) {
		return -EALREADY;
	}
	for (unsigned i = 0; i < m->count; i++) {
		if (m->region[i]->kind == MEM_RAM) {
			rc = mem_region_bitmap_init(m->region[i], false);
			if (rc < 0) {
				return rc;
			}
		}
	}
	atomic_store_explicit(&m->logging, true, memory_order_release);
	barrier_all_threads();
	list_for_each(n, &m->listeners) {
		struct mem_listener *l = list_entry(n, struct mem_listener, node);

		rc = l->ops->log_start ? l->ops->log_start(l) : 0;
		if (rc < 0) {
			goto stop_listeners;
		}
	}
	return 0;

stop_listeners:
	for (n = n->prev; n != &m->listeners; n = n->prev) {
		struct mem_listener *l = list_entry(n, struct mem_listener, node);

		if (l->ops->log_stop) {
			l->ops->log_stop(l);
		}
	}
	atomic_store_explicit(&m->logging, false, memory_order_release);
	return rc;
}

void mem_log_stop(struct mem *m)
{
	struct list *n;

	if (!atomic_load_explicit(&m->logging, memory_order_relaxed)) {
		return;
	}
	list_for_each(n, &m->listeners) {
		struct mem_listener *l = list_entry(n, struct mem_listener, node);

		if (l->ops->log_stop) {
			l->ops->log_stop(l);
		}
	}
	atomic_store_explicit(&m->logging, false, memory_order_release);
}

int mem_log_sync(struct mem *m, struct mem_region *r, uint64_t *bitmap, size_t words)
{
	_Atomic uint64_t *bm = atomic_load_explicit(&r->bitmap, memory_order_acquire);
	struct list *n;

	if (!atomic_load_explicit(&m->logging, memory_order_relaxed) || !bm ||
	    words < bitmap_words(r)) {
		return -EINVAL;
	}
	list_for_each(n, &m->listeners) {
		struct mem_listener *l = list_entry(n, struct mem_listener, node);
		int rc = l->ops->log_sync && mem_listener_wants(l, r) ? l->ops->log_sync(l, r)
								      : 0;

		if (rc < 0) {
			return rc;
		}
	}
	for (size_t i = 0; i < words; i++) {
		bitmap[i] = i < bitmap_words(r)
				    ? atomic_exchange_explicit(&bm[i], 0, memory_order_acquire)
				    : 0;
	}
	return 0;
}
