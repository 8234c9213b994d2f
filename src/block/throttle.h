/*
 * Limits on requests and bytes per second: driver=throttle, and groups of such nodes that share
 * one set of limits. Names are QEMU's (-object throttle-group).
 *
 * Threads: control loop.
 */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include "block/block.h"

enum blk_limit {
	BLK_BPS_TOTAL, BLK_BPS_READ, BLK_BPS_WRITE,
	BLK_IOPS_TOTAL, BLK_IOPS_READ, BLK_IOPS_WRITE,
	BLK_LIMITS,
};
struct blk_limits {
	struct blk_limit_value {
		uint64_t avg;    /* per second; 0: no limit */
		uint64_t max;    /* in a burst, 0: none; for `length` seconds */
		uint64_t length; /* 1 … */
	} limit[BLK_LIMITS];
	uint64_t iops_size; /* a request of more bytes counts as several; 0: never */
};

/* Reads PREFIXiops-total, PREFIXiops-total-max, PREFIXiops-total-max-length, … and
 * PREFIXiops-size over what *l says; *any: there was one. Checks that they fit together. */
int blk_limits_read(struct opts *o, const char *prefix, struct blk_limits *l, bool *any,
		    struct err *err);
int blk_limits_check(const struct blk_limits *l, const char *what, struct err *err);

/* A group; it goes with the graph. -EEXIST. */
int blk_throttle_group_new(struct blk_graph *g, const char *name, const struct blk_limits *l,
			   struct err *err);
bool blk_throttle_group_find(struct blk_graph *g, const char *name, struct blk_limits *l);
/* Other limits from now on, also for what is waiting. -ENOENT. */
int blk_throttle_group_set(struct blk_graph *g, const char *name, const struct blk_limits *l,
			   struct err *err);

#endif
