/*
 * Dispatch of guest accesses: MMIO and port I/O, by address, to devices.
 *
 * A handler gets an offset into its region and a size of 1, 2, 4 or 8 that lies wholly inside
 * the region and within [min_size, max_size]: larger accesses are split, smaller ones and
 * straddling ones are refused by the bus. What nobody handles reads all-ones and drops writes.
 *
 * Threads: vCPU threads look regions up in an immutable table (epoch-protected, no lock);
 * bus_add/bus_del are for the control loop and wait only for look-ups, never for handlers.
 * With `owner` set, writes (and reads, if owner_reads) run on that loop while the vCPU waits;
 * without, the handler runs on the vCPU's thread and protects itself. After bus_del() a handler
 * that the control loop owns is not called any more; one that runs on vCPU threads may just be
 * running, so what it uses is freed only once the vCPUs have been paused.
 */
#ifndef CORE_BUS_H
#define CORE_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "event/loop.h"

struct bus;
enum bus_space { BUS_MMIO, BUS_PIO };

struct bus_ops {
	uint64_t (*read)(void *opaque, uint64_t off, unsigned size);
	void (*write)(void *opaque, uint64_t off, uint64_t value, unsigned size);
	uint8_t min_size, max_size; /* 0: 1 and 8 */
};
struct bus_region {
	const char *name;   /* not owned; for logs and statistics */
	const char *device; /* the same: whose region it is, NULL if the name says it */
	enum bus_space space;
	uint64_t base, size;
	const struct bus_ops *ops;
	void *opaque;
	struct loop *owner; /* NULL: handlers run on the calling thread */
	bool owner_reads;
	bool added;	/* internal */
	unsigned stat;	/* internal */
};

/* At most this many regions (a guest with all BARs enabled stays below). */
#define BUS_MAX_REGIONS 4096

int bus_new(struct bus **out);
void bus_free(struct bus *b);
/* r stays in place and unchanged until bus_del(). -EEXIST if it overlaps, -EINVAL if it wraps
 * or is empty, -ENOSPC. Control loop. */
int bus_add(struct bus *b, struct bus_region *r);
void bus_del(struct bus *b, struct bus_region *r); /* harmless if not added */

/* One per thread that dispatches. */
struct bus_reader;
int bus_reader_new(struct bus *b, struct bus_reader **out);
void bus_reader_free(struct bus_reader *rd);

/* len 1..8 for MMIO, 1, 2, 4 for PIO. data: little-endian bytes of the access. */
void bus_read(struct bus_reader *rd, enum bus_space space, uint64_t addr, void *data,
	      unsigned len);
void bus_write(struct bus_reader *rd, enum bus_space space, uint64_t addr, const void *data,
	       unsigned len);

/* --- statistics: accesses by region, counted where they are made --- */

/* What is counted under i: "DEVICE/REGION" or "REGION", regions of the same name together. 0 is
 * "unassigned", 1 "other" (what has no room in the table). NULL past the end. Control loop. */
#define BUS_STATS 256
const char *bus_stat_name(const struct bus *b, unsigned i);
/* Since the reader was made; any thread. */
uint64_t bus_reader_stat(const struct bus_reader *rd, unsigned i, bool write);

#endif
