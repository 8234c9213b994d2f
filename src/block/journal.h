/*
 * A disk in memory that remembers every write, for tests of what a loss of power leaves behind.
 *
 * The node behaves as a file does: it grows when a format writes past its end, and it can be
 * truncated. Time is counted in moments: each begin and each end of a write or flush is one. At
 * a moment, a write is durable if it ended before a flush began that has ended by then, or if
 * it was FUA and has ended. Of every other write that has begun, any 512-byte sector may be on
 * the disk or not, in any order; of several to one sector it may be any of them.
 *
 *	blk_journal_new("j", NULL, 0, &node, &j);          a disk, first of size 0
 *	… a format on it: blk_attach(), blk_open() with file=j, writes …
 *	flushed = blk_journal_now(j);                  after a flush: all of it is safe
 *	… more writes …
 *	for (at = flushed; at <= blk_journal_now(j); at++)
 *		blk_journal_image(j, &(struct blk_crash){.at = at, .unsynced = BLK_CRASH_SOME,
 *				  .seed = seed}, &data, &size);
 *
 * Threads: the node's are as for every node; the functions below may be called on any thread.
 */
#ifndef BLOCK_JOURNAL_H
#define BLOCK_JOURNAL_H

#include "block/block_int.h"

struct blk_journal;

/* base: size bytes that are durable from the start, copied; NULL: zeros. *j lives as long as
 * the node. -ENOMEM. */
int blk_journal_new(const char *name, const void *base, uint64_t size, struct blk_node **out,
		    struct blk_journal **j);
/* The same in a graph, so that file=NAME finds it. */
int blk_journal_open(struct blk_graph *g, const char *name, const void *base, uint64_t size,
		     struct blk_node **out, struct blk_journal **j);

unsigned blk_journal_now(struct blk_journal *j);
/* Writes that have begun at that moment and are not durable. */
unsigned blk_journal_unsynced(struct blk_journal *j, unsigned at);

struct blk_crash {
	unsigned at; /* what begins later has not happened */
	enum {
		BLK_CRASH_KEEP, /* all that has begun is on the disk */
		BLK_CRASH_LOSE, /* nothing but what is durable */
		BLK_CRASH_SOME, /* of each other write: all, nothing, or some sectors */
	} unsynced;
	uint64_t seed;          /* decides with BLK_CRASH_SOME */
	/* Decides instead, if it is not NULL: is this sector of this write (counted from 0 over
	 * all writes, zeroes, discards and truncations) on the disk? */
	bool (*keep)(void *opaque, unsigned write, uint64_t sector);
	void *opaque;
};
/* The disk after a loss of power at that moment; *data is the caller's to free. -ENOMEM. */
int blk_journal_image(struct blk_journal *j, const struct blk_crash *c, uint8_t **data,
		      uint64_t *size);

#endif
