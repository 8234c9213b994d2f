/*
 * Between throttle.c (the filter) and throttle_group.c (limits and their arithmetic).
 */
#ifndef BLOCK_THROTTLE_INT_H
#define BLOCK_THROTTLE_INT_H

#include "block/block_int.h"
#include "block/throttle.h"

/* How full the buckets of one limit are. */
struct throttle_bucket {
	double level, burst;
};

struct throttle_group {
	char name[64];
	struct list link; /* in the graph */
	pthread_mutex_t lock; /* what follows */
	struct blk_limits limits;
	struct throttle_bucket bucket[BLK_LIMITS];
	uint64_t at; /* the time of the levels */
	/* Channels with requests that wait, by direction (write): the first one's turn it is,
	 * and its loop has a timer or work for it. */
	struct list turn[2];
};

struct throttle_group *throttle_group_get(struct blk_graph *g, const char *name);
/* All with the lock held. Nanoseconds until a request may go; 0: now. */
uint64_t throttle_wait_locked(struct throttle_group *t, bool write, uint64_t now);
void throttle_charge_locked(struct throttle_group *t, bool write, uint64_t bytes, uint64_t now);
/* throttle.c: the limits are others. */
void blk_throttle_look_locked(struct throttle_group *t);

#endif
