/*
 * Guest memory: checked copies and spans.
 *
 * A range is walked piece by piece, a piece being what lies in one region; the whole range is
 * checked before the first byte is copied, so a refused access has no effect. The table may
 * change between the two walks: a piece that is gone by then ends the copy with -EFAULT (the
 * memory itself stays, because regions go only when nothing accesses them).
 *
 * Threads: any. Untrusted: every address and length.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "mem/mem_int.h"

enum access {
	ACCESS_COPY_READ, /* RAM and firmware */
	ACCESS_READ,	  /* RAM: what a device may hold a pointer to */
	ACCESS_WRITE,	  /* RAM that is not read-only */
};

static bool access_allowed(const struct mem_region *r, enum access how)
{
	switch (how) {
	case ACCESS_COPY_READ:
		return true;
	case ACCESS_READ:
		return r->kind == MEM_RAM;
	case ACCESS_WRITE:
		return r->kind == MEM_RAM && !(r->flags & MEM_READONLY);
	}
	return false;
}

/* The first piece of [gpa, gpa + len): its host address, and its length in *piece; NULL if the
 * first byte is not accessible that way. len is not 0. */
static uint8_t *mem_piece(struct mem *m, gpa_t gpa, uint64_t len, enum access how,
			  uint64_t *piece)
{
	struct mem_region *r = mem_lookup(m, gpa);
	uint64_t off;

	if (!r || !access_allowed(r, how)) {
		return NULL;
	}
	off = gpa - r->gpa;
	*piece = MIN(len, r->size - off);
	return r->host + off;
}

/* True if all of the range is accessible. A range may end at 2^64, but not run over it. */
static bool mem_range_ok(struct mem *m, gpa_t gpa, uint64_t len, enum access how)
{
	uint64_t piece;

	if (len && gpa + (len - 1) < gpa) {
		return false;
	}
	for (; len; gpa += piece, len -= piece) {
		if (!mem_piece(m, gpa, len, how, &piece)) {
			return false;
		}
	}
	return true;
}

static int mem_copy(struct mem *m, gpa_t gpa, void *dst, const void *src, size_t len,
		    enum access how)
{
	uint64_t piece;
	uint8_t *host;

	if (len == 0) {
		return 0;
	}
	host = mem_piece(m, gpa, len, how, &piece);
	if (host && piece < len && !mem_range_ok(m, gpa, len, how)) {
		host = NULL;
	}
	for (;;) {
		if (!host) {
			return -EFAULT;
		}
		if (how == ACCESS_WRITE) {
			memcpy(host, src, piece);
			mem_dirty(m, gpa, piece);
			src = (const uint8_t *)src + piece;
		} else {
			memcpy(dst, host, piece);
			dst = (uint8_t *)dst + piece;
		}
		gpa += piece;
		len -= piece;
		if (len == 0) {
			return 0;
		}
		host = mem_piece(m, gpa, len, how, &piece);
	}
}

int mem_read(struct mem *m, gpa_t gpa, void *buf, size_t len)
{
	return mem_copy(m, gpa, buf, NULL, len, ACCESS_COPY_READ);
}

int mem_write(struct mem *m, gpa_t gpa, const void *buf, size_t len)
{
	return mem_copy(m, gpa, NULL, buf, len, ACCESS_WRITE);
}

int mem_span(struct mem *m, gpa_t gpa, uint64_t len, bool write, struct iovec *iov, int max)
{
	enum access how = write ? ACCESS_WRITE : ACCESS_READ;
	uint64_t piece;
	int n = 0;

	if (len && gpa + (len - 1) < gpa) {
		return -EFAULT;
	}
	for (; len; gpa += piece, len -= piece) {
		void *host = mem_piece(m, gpa, len, how, &piece);

		if (!host) {
			return -EFAULT;
		}
		if (n == max) {
			/* A bad address is named as such, however short the vector is. */
			return mem_range_ok(m, gpa, len, how) ? -E2BIG : -EFAULT;
		}
		iov[n++] = (struct iovec){.iov_base = host, .iov_len = piece};
	}
	return n;
}

void *mem_ptr(struct mem *m, gpa_t gpa, uint64_t len, bool write)
{
	uint64_t piece;
	void *host;

	if (len == 0 || gpa + (len - 1) < gpa) {
		return NULL;
	}
	host = mem_piece(m, gpa, len, write ? ACCESS_WRITE : ACCESS_READ, &piece);
	return host && piece == len ? host : NULL;
}
