/*
 * Guest memory, for the files of mem/ only: the region, the look-up table that readers on any
 * thread search, and the list of listeners that the control loop walks.
 */
#ifndef MEM_MEM_INT_H
#define MEM_MEM_INT_H

#include <stdatomic.h>

#include "mem/mem.h"

#define MEM_PAGE_SHIFT 12
#define MEM_PAGE_SIZE  (UINT64_C(1) << MEM_PAGE_SHIFT)

#define MEM_HUGE_PAGE  (2 * MiB)

struct mem_region {
	char name[48];
	gpa_t gpa;
	uint64_t size;
	uint8_t *host;
	enum mem_kind kind;
	unsigned flags;
	bool mapped; /* host is ours to unmap */
	bool direct; /* listeners know it; control loop */
	/* One bit a page. Made when a log first starts and kept until the region goes, because
	 * a device may still be setting bits when the log stops. */
	_Atomic(_Atomic uint64_t *) bitmap;
};

/* A row of the look-up table. Atomic only because a slow reader may look at a copy that is
 * being rewritten; it notices by the sequence number and starts again. */
struct mem_row {
	_Atomic uint64_t gpa, last; /* last: inclusive, so that a region may end at 2^64 */
	_Atomic uintptr_t host;
	_Atomic(struct mem_region *) region;
};
struct mem_table {
	_Atomic unsigned count;
	struct mem_row row[MEM_MAX_REGIONS]; /* by address */
};

struct mem {
	/* Readers: table[seq & 1] is the one to search, valid if seq is the same afterwards. */
	_Atomic unsigned seq;
	struct mem_table table[2];
	_Atomic bool logging;

	/* Control loop only. */
	struct mem_region *region[MEM_MAX_REGIONS]; /* by address */
	unsigned count;
	struct list listeners;
};

/* The region that holds gpa, or NULL. Any thread. */
struct mem_region *mem_lookup(struct mem *m, gpa_t gpa);
/* The region that holds this host address, or NULL. Any thread. */
struct mem_region *mem_lookup_host(struct mem *m, const void *host);

/* backend.c: maps [0, size) of fd (-1 with MAP_ANONYMOUS), readable and writable, at an address
 * with the offset of gpa within `align` (a power of two; at least a huge page where size has
 * one), kept out of core files. NULL with errno. Control loop. */
void *mem_map(uint64_t gpa, uint64_t size, uint64_t align, int flags, int fd);

/* "2 GiB": in the largest unit from KiB that has no fraction, for messages. */
void mem_size_text(uint64_t size, char *buf, size_t len);

/* dirty.c: a bitmap for the region, all bits set or none. 0 or -ENOMEM. Control loop. */
int mem_region_bitmap_init(struct mem_region *r, bool all);

static inline bool mem_listener_wants(const struct mem_listener *l, const struct mem_region *r)
{
	return r->direct && (r->kind == MEM_RAM || l->ops->firmware);
}

#endif
