/*
 * -numa hmat-lb and hmat-cache: what the HMAT says of the nodes of numa.c. Keys and limits are
 * QEMU's: latencies in ns, bandwidths in multiples of 1 MiB a second, cache levels from 1 to 3
 * of which each is larger than the one before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "machine/numa_int.h"

#define CACHE_LEVELS 3
#define MAX_LB	     4096 /* options; each pair of nodes of each kind would be 24576 */

static const char *const levels[HMAT_LEVELS + 1] = {
	[HMAT_MEMORY] = "memory",
	[HMAT_FIRST_LEVEL] = "first-level",
	[HMAT_SECOND_LEVEL] = "second-level",
	[HMAT_THIRD_LEVEL] = "third-level",
};
static const char *const types[HMAT_TYPES + 1] = {
	[HMAT_ACCESS_LATENCY] = "access-latency", [HMAT_READ_LATENCY] = "read-latency",
	[HMAT_WRITE_LATENCY] = "write-latency",	  [HMAT_ACCESS_BANDWIDTH] = "access-bandwidth",
	[HMAT_READ_BANDWIDTH] = "read-bandwidth", [HMAT_WRITE_BANDWIDTH] = "write-bandwidth",
};
static const char *const associativities[] = {"none", "direct", "complex", NULL};
static const char *const policies[] = {"none", "write-back", "write-through", NULL};

/* The place of the value in names[], which is what the table has. */
static int get_name(struct opts *o, const char *key, const char *const *names, int *out,
		    struct err *err)
{
	const char *v = opts_get(o, key);
	char list[128] = "";
	size_t n = 0;

	for (int i = 0; names[i]; i++) {
		if (v && !strcmp(v, names[i])) {
			*out = i;
			return 0;
		}
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
				      names[i]);
	}
	return err_set(err, EINVAL, "%s: %s=%s is none of %s", o->what, key, v ? v : "", list);
}

/* The value in the unit of the table: ps or MiB/s. */
static int get_value(struct opts *o, bool latency, uint64_t *out, struct err *err)
{
	const char *key = latency ? "latency" : "bandwidth", *v = opts_get(o, key);
	const char *other = latency ? "bandwidth" : "latency";

	if (!v || opts_get(o, other)) {
		return err_set(err, EINVAL,
			       "-numa hmat-lb: a data-type of this kind needs %s= and no %s=",
			       key, other);
	}
	if (latency && (parse_u64(v, out) || !*out || u64_mul(*out, 1000, out))) {
		return err_set(err, EINVAL,
			       "-numa hmat-lb: latency=%s is not a number of nanoseconds", v);
	}
	if (!latency && (parse_size(v, 'b', out) || !*out || *out % MiB)) {
		return err_set(err, EINVAL,
			       "-numa hmat-lb: bandwidth=%s is not a multiple of 1M (a second)",
			       v);
	}
	*out /= latency ? 1 : MiB;
	return 0;
}

int numa_hmat_lb(struct numa *n, struct opts *o, struct err *err)
{
	unsigned initiator, target;
	struct acpi_hmat_lb *lb;
	uint64_t value;
	int level, type;
	int ret = numa_get_node(n, o, "initiator", &initiator, err);

	ret = ret ? ret : numa_get_node(n, o, "target", &target, err);
	ret = ret ? ret : get_name(o, "hierarchy", levels, &level, err);
	ret = ret ? ret : get_name(o, "data-type", types, &type, err);
	ret = ret ? ret : get_value(o, type < HMAT_ACCESS_BANDWIDTH, &value, err);
	ret = ret ? ret : opts_check_used(o, err);
	if (ret) {
		return ret;
	}
	if (!n->node[initiator].has_cpu) {
		return err_set(err, EINVAL,
			       "-numa hmat-lb: initiator=%u is a node without CPUs; only CPUs "
			       "access memory",
			       initiator);
	}
	for (unsigned i = 0; i < n->nlb; i++) {
		lb = &n->lb[i];
		if (lb->initiator == initiator && lb->target == target &&
		    (int)lb->level == level && (int)lb->type == type) {
			return err_set(err, EINVAL,
				       "-numa hmat-lb,initiator=%u,target=%u,hierarchy=%s,"
				       "data-type=%s is given twice",
				       initiator, target, levels[level], types[type]);
		}
	}
	if (n->nlb == MAX_LB) {
		return err_set(err, EINVAL, "-numa hmat-lb: more than %d of them", MAX_LB);
	}
	lb = reallocarray(n->lb, n->nlb + 1, sizeof(*lb));
	if (!lb) {
		return err_set(err, ENOMEM, "-numa hmat-lb: out of memory");
	}
	n->lb = lb;
	n->lb[n->nlb++] = (struct acpi_hmat_lb){
		.level = (enum acpi_hmat_level)level,
		.type = (enum acpi_hmat_type)type,
		.initiator = initiator,
		.target = target,
		.value = value,
	};
	return 0;
}

static int get_number(struct opts *o, const char *key, uint64_t max, uint64_t *out,
		      struct err *err)
{
	const char *v = opts_get(o, key);

	if (!v || parse_u64(v, out) || *out > max) {
		return err_set(err, EINVAL, "%s: %s=%s is not a number up to %llu", o->what,
			       key, v ? v : "", (unsigned long long)max);
	}
	return 0;
}

int numa_hmat_cache(struct numa *n, struct opts *o, struct err *err)
{
	const char *size = opts_get(o, "size");
	struct acpi_hmat_cache *list;
	uint64_t bytes, level, line;
	int associativity, policy;
	unsigned node;
	int ret = numa_get_node(n, o, "node-id", &node, err);

	if (!ret && (!size || parse_size(size, 'b', &bytes) || !bytes)) {
		ret = err_set(err, EINVAL, "-numa hmat-cache: size=%s is not a size",
			      size ? size : "");
	}
	ret = ret ? ret : get_number(o, "level", CACHE_LEVELS, &level, err);
	ret = ret ? ret : get_number(o, "line", UINT16_MAX, &line, err);
	ret = ret ? ret : get_name(o, "associativity", associativities, &associativity, err);
	ret = ret ? ret : get_name(o, "policy", policies, &policy, err);
	ret = ret ? ret : opts_check_used(o, err);
	if (!ret && !level) {
		ret = err_set(err, EINVAL,
			      "-numa hmat-cache: level=0 is not a cache; levels start at 1");
	}
	if (ret) {
		return ret;
	}
	list = reallocarray(n->cache, n->ncache + 1, sizeof(*list));
	if (!list) {
		return err_set(err, ENOMEM, "-numa hmat-cache: out of memory");
	}
	n->cache = list;
	for (unsigned i = 0; i < n->ncache; i++) {
		if (list[i].node == node && list[i].level == level) {
			return err_set(err, EINVAL,
				       "-numa hmat-cache,node-id=%u,level=%u is given twice",
				       node, (unsigned)level);
		}
	}
	list[n->ncache++] = (struct acpi_hmat_cache){
		.node = node,
		.size = bytes,
		.level = (unsigned)level,
		.line = (uint16_t)line,
		.associativity = (unsigned)associativity,
		.policy = (unsigned)policy,
	};
	return 0;
}

static const struct acpi_hmat_cache *find_cache(const struct numa *n, unsigned node,
						unsigned level)
{
	for (unsigned i = 0; i < n->ncache; i++) {
		if (n->cache[i].node == node && n->cache[i].level == level) {
			return &n->cache[i];
		}
	}
	return NULL;
}

static int check_caches(const struct numa *n, struct err *err)
{
	for (unsigned i = 0; i < n->ncache; i++) {
		const struct acpi_hmat_cache *c = &n->cache[i], *before;

		if (c->level == 1) {
			continue;
		}
		before = find_cache(n, c->node, c->level - 1);
		if (!before || before->size >= c->size) {
			return err_set(err, EINVAL,
				       "-numa hmat-cache,node-id=%u,level=%u: level %u has to "
				       "be there, and smaller",
				       c->node, c->level, c->level - 1);
		}
	}
	return 0;
}

static int check_units(const struct numa *n, struct err *err)
{
	for (unsigned i = 0; i < n->nlb; i++) {
		const struct acpi_hmat_lb *l = &n->lb[i];

		if (!acpi_hmat_unit(n->lb, n->nlb, l->level, l->type)) {
			return err_set(
				err, EINVAL,
				"-numa hmat-lb,hierarchy=%s,data-type=%s: the values are "
				"too far apart for a table of 16-bit multiples; round them",
				levels[l->level], types[l->type]);
		}
	}
	return 0;
}

int numa_hmat_check(struct numa *n, struct err *err)
{
	int ret;

	for (unsigned i = 0; i < n->nodes; i++) {
		struct numa_node *node = &n->node[i];

		if (node->has_cpu && node->initiator >= 0 && node->initiator != (int)i) {
			return err_set(
				err, EINVAL,
				"-numa node,nodeid=%u: initiator=%d: a node with CPUs is "
				"its own initiator",
				i, node->initiator);
		}
		if (node->has_cpu) {
			node->initiator = (int)i;
		}
		if (node->initiator < 0) {
			return err_set(err, EINVAL,
				       "-numa node,nodeid=%u has no CPUs, so it needs "
				       "initiator=, the node whose CPUs are next to its memory",
				       i);
		}
		if (node->initiator >= (int)n->nodes || !n->node[node->initiator].has_cpu) {
			return err_set(err, EINVAL,
				       "-numa node,nodeid=%u: initiator=%d is not a node with "
				       "CPUs",
				       i, node->initiator);
		}
	}
	ret = check_caches(n, err);
	return ret ? ret : check_units(n, err);
}
