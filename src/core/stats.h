/*
 * One statistic, as whoever counts hands it to whoever shows it. Types and units are those of
 * QMP's query-stats-schemas.
 */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include <stdint.h>

enum stat_type {
	STAT_CUMULATIVE, /* only grows */
	STAT_INSTANT,
	STAT_PEAK,
	STAT_LINEAR_HISTOGRAM,
	STAT_LOG2_HISTOGRAM,
};
enum stat_unit { STAT_NUMBER, STAT_BYTES, STAT_SECONDS, STAT_CYCLES, STAT_BOOLEAN };

/* Valid during the call only. The value in units is value * base^exponent. */
struct stat_sample {
	const char *name;
	enum stat_type type;
	enum stat_unit unit;
	int base; /* 10 or 2 */
	int exponent;
	uint32_t bucket_size; /* linear histograms */
	const uint64_t *value;
	unsigned count; /* 1, or the buckets of a histogram */
};
typedef void stat_fn(void *opaque, const struct stat_sample *s);

#endif
