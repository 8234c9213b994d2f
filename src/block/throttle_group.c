/*
 * Groups of limits, and their arithmetic.
 *
 * A limit is a bucket that requests fill and that leaks `avg` units a second; a request may go
 * while there is not more in it than it holds. So one request may overfill it, and the next one
 * waits for that: in the long run the rate is exact, whatever the size of requests. A bucket
 * holds what a burst may be, max * length; without `max` it holds a hundredth of a second's
 * worth, so that a late timer loses nothing and a second from a standing start is within 2 %.
 * During a burst of more than a second a second bucket that leaks `max` units a second bounds
 * the rate.
 *
 * Threads: options and the list of groups on the control loop, levels under the group's lock.
 */
#include "block/throttle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/throttle_int.h"

#define SECOND	   1e9
#define SLACK	   100 /* 1 / SLACK of a second's worth */
#define LIMIT_MAX  1000000000000000ull
#define LENGTH_MAX 1000000

static const char *const names[BLK_LIMITS] = {
	[BLK_BPS_TOTAL] = "bps-total", [BLK_BPS_READ] = "bps-read",
	[BLK_BPS_WRITE] = "bps-write", [BLK_IOPS_TOTAL] = "iops-total",
	[BLK_IOPS_READ] = "iops-read", [BLK_IOPS_WRITE] = "iops-write",
};

/* --- arithmetic --- */

static bool applies(unsigned i, bool write)
{
	unsigned kind = i % 3; /* total, read, write */

	return kind == 0 || (kind == 2) == write;
}

static double capacity(const struct blk_limit_value *v)
{
	return v->max ? (double)v->max * (double)v->length : (double)v->avg / SLACK;
}

static void leak(struct throttle_group *t, uint64_t now)
{
	double s = now > t->at ? (double)(now - t->at) / SECOND : 0;

	for (unsigned i = 0; i < BLK_LIMITS; i++) {
		const struct blk_limit_value *v = &t->limits.limit[i];
		struct throttle_bucket *b = &t->bucket[i];

		b->level -= (double)v->avg * s;
		b->level = b->level > 0 ? b->level : 0;
		b->burst -= (double)v->max * s;
		b->burst = b->burst > 0 ? b->burst : 0;
	}
	t->at = MAX(t->at, now);
}

static double wait_of(double level, double holds, double rate)
{
	return level > holds ? (level - holds) / rate * SECOND : 0;
}

uint64_t throttle_wait_locked(struct throttle_group *t, bool write, uint64_t now)
{
	double longest = 0;

	leak(t, now);
	for (unsigned i = 0; i < BLK_LIMITS; i++) {
		const struct blk_limit_value *v = &t->limits.limit[i];
		double w;

		if (!v->avg || !applies(i, write)) {
			continue;
		}
		w = wait_of(t->bucket[i].level, capacity(v), (double)v->avg);
		longest = w > longest ? w : longest;
		if (v->length > 1) {
			w = wait_of(t->bucket[i].burst, (double)v->max / SLACK, (double)v->max);
			longest = w > longest ? w : longest;
		}
	}
	/* rounded up, or it would be looked at again a moment too early for ever */
	return longest > 0 ? (uint64_t)longest + 1 : 0;
}

void throttle_charge_locked(struct throttle_group *t, bool write, uint64_t bytes, uint64_t now)
{
	uint64_t size = t->limits.iops_size;
	double ops = size && bytes > size ? (double)bytes / (double)size : 1;

	leak(t, now);
	for (unsigned i = 0; i < BLK_LIMITS; i++) {
		if (t->limits.limit[i].avg && applies(i, write)) {
			double units = i >= BLK_IOPS_TOTAL ? ops : (double)bytes;

			t->bucket[i].level += units;
			t->bucket[i].burst += units;
		}
	}
}

/* --- options --- */

static int number_read(struct opts *o, const char *prefix, const char *name, const char *suffix,
		       uint64_t *out, bool *any, struct err *err)
{
	char key[64];
	const char *v;

	snprintf(key, sizeof(key), "%s%s%s", prefix, name, suffix);
	v = opts_get(o, key);
	if (!v) {
		return 0;
	}
	*any = true;
	if (parse_u64(v, out) && parse_size(v, 'b', out)) {
		return err_set(err, EINVAL, "%s: %s=%s is no number", o->what, key, v);
	}
	return 0;
}

int blk_limits_check(const struct blk_limits *l, const char *what, struct err *err)
{
	bool iops = false;

	for (unsigned i = 0; i < BLK_LIMITS; i++) {
		const struct blk_limit_value *v = &l->limit[i];
		const struct blk_limit_value *total = &l->limit[i / 3 * 3];

		iops |= i >= BLK_IOPS_TOTAL && v->avg;
		if (v->avg > LIMIT_MAX || v->max > LIMIT_MAX || v->length > LENGTH_MAX ||
		    l->iops_size > LIMIT_MAX) {
			return err_set(err, ERANGE,
				       "%s: %s and what belongs to it are at most %llu", what,
				       names[i], LIMIT_MAX);
		}
		if (i % 3 && (v->avg || v->max) && (total->avg || total->max)) {
			return err_set(err, EINVAL,
				       "%s: %s and %s exclude each other; keep one of them",
				       what, names[i / 3 * 3], names[i]);
		}
		if (v->max && !v->avg) {
			return err_set(err, EINVAL, "%s: %s-max needs %s; add it", what,
				       names[i], names[i]);
		}
		if (v->max && v->max < v->avg) {
			return err_set(err, EINVAL, "%s: %s-max is less than %s", what,
				       names[i], names[i]);
		}
		if (!v->length || (v->length > 1 && !v->max)) {
			return err_set(
				err, EINVAL,
				"%s: %s-max-length is at least 1, and needs %s-max if it is "
				"more",
				what, names[i], names[i]);
		}
	}
	if (l->iops_size && !iops) {
		return err_set(err, EINVAL, "%s: iops-size needs a limit on iops", what);
	}
	return 0;
}

int blk_limits_read(struct opts *o, const char *prefix, struct blk_limits *l, bool *any,
		    struct err *err)
{
	int r = 0;

	*any = false;
	for (unsigned i = 0; i < BLK_LIMITS && !r; i++) {
		struct blk_limit_value *v = &l->limit[i];

		v->length = v->length ? v->length : 1;
		r = number_read(o, prefix, names[i], "", &v->avg, any, err);
		r = r ? r : number_read(o, prefix, names[i], "-max", &v->max, any, err);
		r = r ? r
		      : number_read(o, prefix, names[i], "-max-length", &v->length, any, err);
	}
	r = r ? r : number_read(o, prefix, "iops-size", "", &l->iops_size, any, err);
	return r ? r : blk_limits_check(l, o->what, err);
}

/* --- groups --- */

struct throttle_group *throttle_group_get(struct blk_graph *g, const char *name)
{
	struct list *groups = g ? blk_graph_groups(g) : NULL, *pos;

	if (groups) {
		list_for_each (pos, groups) {
			struct throttle_group *t = list_entry(pos, struct throttle_group, link);

			if (!strcmp(t->name, name)) {
				return t;
			}
		}
	}
	return NULL;
}

int blk_throttle_group_new(struct blk_graph *g, const char *name, const struct blk_limits *l,
			   struct err *err)
{
	struct throttle_group *t;

	if (strlen(name) >= sizeof(t->name)) {
		return err_set(err, EINVAL, "throttle group '%.40s…': the name is too long",
			       name);
	}
	if (throttle_group_get(g, name)) {
		return err_set(err, EEXIST, "there is a throttle group '%s' already", name);
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		return err_set(err, ENOMEM, "throttle group '%s': out of memory", name);
	}
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->limits = *l;
	list_init(&t->turn[0]);
	list_init(&t->turn[1]);
	pthread_mutex_init(&t->lock, NULL);
	list_add_tail(blk_graph_groups(g), &t->link);
	return 0;
}

void blk_throttle_groups_free(struct list *groups)
{
	while (!list_empty(groups)) {
		struct throttle_group *t =
			list_entry(groups->next, struct throttle_group, link);

		list_del(&t->link);
		pthread_mutex_destroy(&t->lock);
		free(t);
	}
}

bool blk_throttle_group_find(struct blk_graph *g, const char *name, struct blk_limits *l)
{
	struct throttle_group *t = throttle_group_get(g, name);

	if (t && l) {
		*l = t->limits; /* changed by this thread alone */
	}
	return t != NULL;
}

int blk_throttle_group_set(struct blk_graph *g, const char *name, const struct blk_limits *l,
			   struct err *err)
{
	struct throttle_group *t = throttle_group_get(g, name);
	int r = t ? blk_limits_check(l, name, err)
		  : err_set(err, ENOENT, "there is no throttle group '%s'", name);

	if (r) {
		return r;
	}
	pthread_mutex_lock(&t->lock);
	t->limits = *l;
	/* What was used up under other limits says nothing about these. */
	memset(t->bucket, 0, sizeof(t->bucket));
	blk_throttle_look_locked(t);
	pthread_mutex_unlock(&t->lock);
	return 0;
}
