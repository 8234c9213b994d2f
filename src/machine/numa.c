/*
 * -numa node, cpu, dist: see numa.h; hmat-lb and hmat-cache are in numa_hmat.c.
 *
 * The rules are QEMU's. Nodes are numbered without gaps. If no option assigns a processor, each
 * socket goes to a node, round about; if some are assigned, the others go to node 0, with a
 * warning. A node's distance to itself is 10; where one distance is given all are, but one
 * direction of a pair stands for both, unless some pair is asymmetric.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "machine/numa_int.h"
#include "spec/acpi.h"

int numa_get_node(struct numa *n, struct opts *o, const char *key, unsigned *out,
		  struct err *err)
{
	const char *v = opts_get(o, key);
	uint64_t id;

	if (!v) {
		return err_set(err, EINVAL, "%s: %s= is missing", o->what, key);
	}
	if (parse_u64(v, &id) || id >= NUMA_MAX_NODES || !n->node[id].defined) {
		return err_set(err, EINVAL,
			       "%s: %s=%s: there is no such node; define it with -numa "
			       "node,nodeid=%s",
			       o->what, key, v, v);
	}
	*out = (unsigned)id;
	return 0;
}

/* --- nodes --- */

static int node_id(struct numa *n, struct opts *o, unsigned *id, struct err *err)
{
	const char *v = opts_get(o, "nodeid");
	uint64_t u = n->nodes;

	if ((v && parse_u64(v, &u)) || u >= NUMA_MAX_NODES) {
		return err_set(err, EINVAL, "-numa node: nodeid=%s is not a number below %d",
			       v ? v : "(the next)", NUMA_MAX_NODES);
	}
	if (n->node[u].defined) {
		return err_set(err, EINVAL, "-numa node: nodeid=%u is given twice",
			       (unsigned)u);
	}
	*id = (unsigned)u;
	return 0;
}

static int node_add(struct numa *n, struct opts *o, const struct vm_config *cfg,
		    struct err *err)
{
	struct numa_node *node;
	unsigned id = 0;
	const char *v;
	uint64_t u;
	int ret = node_id(n, o, &id, err);

	if (ret) {
		return ret;
	}
	node = &n->node[id];
	*node = (struct numa_node){.defined = true, .initiator = -1};
	n->nodes++;
	node->memdev = opts_get(o, "memdev");
	for (unsigned i = 0; node->memdev && i < NUMA_MAX_NODES; i++) {
		if (i != id && n->node[i].memdev && !strcmp(n->node[i].memdev, node->memdev)) {
			return err_set(err, EINVAL,
				       "-numa node,nodeid=%u: memdev=%s is the memory of "
				       "node %u already; each node needs a back end of its own",
				       id, node->memdev, i);
		}
	}
	if (opts_get(o, "mem")) {
		return err_set(err, EINVAL,
			       "-numa node,nodeid=%u: mem= cannot be had with this machine; "
			       "name a back end with memdev=",
			       id);
	}
	v = opts_get(o, "initiator");
	if (v && !cfg->hmat) {
		return err_set(err, EINVAL,
			       "-numa node,nodeid=%u: initiator= is for the HMAT; say "
			       "-machine hmat=on",
			       id);
	}
	if (v && (parse_u64(v, &u) || u >= NUMA_MAX_NODES)) {
		return err_set(err, EINVAL,
			       "-numa node,nodeid=%u: initiator=%s is not the number of a "
			       "node",
			       id, v);
	}
	node->initiator = v ? (int)u : -1;
	for (unsigned i = 0; (v = opts_get_item(o, "cpus", i)); i++) {
		uint64_t first, last;

		if (parse_range(v, cfg->max_cpus - 1, &first, &last)) {
			return err_set(err, EINVAL,
				       "-numa node,nodeid=%u: cpus=%s is not a CPU or a range "
				       "of CPUs from 0 to %u",
				       id, v, cfg->max_cpus - 1);
		}
		for (; first <= last; first++) {
			if (n->cpu_node[first] >= 0) {
				return err_set(err, EINVAL,
					       "-numa node,nodeid=%u: CPU %u is assigned to "
					       "node %d already",
					       id, (unsigned)first, n->cpu_node[first]);
			}
			n->cpu_node[first] = (int)id;
		}
	}
	return opts_check_used(o, err);
}

/* --- processors --- */

/* The CPUs of a socket, die, core or thread. */
static int cpu_add(struct numa *n, struct opts *o, const struct vm_config *cfg, struct err *err)
{
	const unsigned of[4] = {cfg->sockets, cfg->dies, cfg->cores, cfg->threads};
	static const char *const key[4] = {"socket-id", "die-id", "core-id", "thread-id"};
	uint64_t want[4];
	bool given[4];
	unsigned node;
	int ret = numa_get_node(n, o, "node-id", &node, err);

	if (ret) {
		return ret;
	}
	for (unsigned k = 0; k < 4; k++) {
		const char *v = opts_get(o, key[k]);

		given[k] = v != NULL;
		if (v && (parse_u64(v, &want[k]) || want[k] >= of[k])) {
			return err_set(err, EINVAL,
				       "-numa cpu,node-id=%u: %s=%s: this machine has %u, "
				       "numbered from 0",
				       node, key[k], v, of[k]);
		}
	}
	ret = opts_check_used(o, err);
	for (unsigned i = 0; !ret && i < cfg->max_cpus; i++) {
		const unsigned is[4] = {
			i / (cfg->threads * cfg->cores * cfg->dies),
			i / (cfg->threads * cfg->cores) % cfg->dies,
			i / cfg->threads % cfg->cores,
			i % cfg->threads,
		};
		bool match = true;

		for (unsigned k = 0; k < 4; k++) {
			match &= !given[k] || want[k] == is[k];
		}
		if (match && n->cpu_node[i] >= 0 && n->cpu_node[i] != (int)node) {
			return err_set(err, EINVAL,
				       "-numa cpu,node-id=%u: CPU %u is assigned to node %d "
				       "already",
				       node, i, n->cpu_node[i]);
		}
		n->cpu_node[i] = match ? (int)node : n->cpu_node[i];
	}
	return ret;
}

static void assign_rest(struct numa *n, const struct vm_config *cfg)
{
	unsigned left = 0, first = 0;

	for (unsigned i = cfg->max_cpus; i-- > 0;) {
		if (n->cpu_node[i] < 0) {
			left++;
			first = i;
		}
	}
	for (unsigned i = 0; i < cfg->max_cpus; i++) {
		unsigned socket = i / (cfg->threads * cfg->cores * cfg->dies);

		if (n->cpu_node[i] < 0) {
			n->cpu_node[i] = left == cfg->max_cpus ? (int)(socket % n->nodes) : 0;
		}
		n->node[n->cpu_node[i]].has_cpu = true;
	}
	if (left && left != cfg->max_cpus) {
		log_warn(
			"numa",
			"%u CPUs, the first of them CPU %u, are in no -numa node: they are put "
			"into node 0",
			left, first);
	}
}

/* --- distances --- */

static uint8_t *distance(struct numa *n, unsigned from, unsigned to)
{
	return &n->distance[from * n->nodes + to];
}

static int dist_add(struct numa *n, struct opts *o, struct err *err)
{
	const char *v = opts_get(o, "val");
	unsigned src, dst;
	uint64_t val;
	int ret = numa_get_node(n, o, "src", &src, err);

	ret = ret ? ret : numa_get_node(n, o, "dst", &dst, err);
	if (ret) {
		return ret;
	}
	if (!v || parse_u64(v, &val) || val < ACPI_SLIT_LOCAL || val > ACPI_SLIT_UNREACHABLE) {
		return err_set(err, EINVAL,
			       "-numa dist,src=%u,dst=%u: val=%s is not a distance from %d "
			       "to %d (255: out of reach)",
			       src, dst, v ? v : "", ACPI_SLIT_LOCAL, ACPI_SLIT_UNREACHABLE);
	}
	if (src == dst && val != ACPI_SLIT_LOCAL) {
		return err_set(err, EINVAL,
			       "-numa dist,src=%u,dst=%u: the distance of a node to itself is "
			       "%d",
			       src, dst, ACPI_SLIT_LOCAL);
	}
	*distance(n, src, dst) = (uint8_t)val;
	n->have_distance = true;
	return opts_check_used(o, err);
}

static int complete_distances(struct numa *n, struct err *err)
{
	bool asymmetric = false;

	for (unsigned s = 0; s < n->nodes; s++) {
		for (unsigned d = 0; d < s; d++) {
			uint8_t there = *distance(n, s, d), back = *distance(n, d, s);

			if (!there && !back) {
				return err_set(err, EINVAL,
					       "-numa dist: the distance of nodes %u and %u is "
					       "missing; where one is given, all have to be",
					       d, s);
			}
			asymmetric |= there && back && there != back;
		}
	}
	for (unsigned s = 0; s < n->nodes; s++) {
		for (unsigned d = 0; d < n->nodes; d++) {
			if (*distance(n, s, d)) {
				continue;
			}
			if (asymmetric && s != d) {
				return err_set(
					err, EINVAL,
					"-numa dist,src=%u,dst=%u is missing: another "
					"pair has two distances, so each pair needs both",
					s, d);
			}
			*distance(n, s, d) = s == d ? ACPI_SLIT_LOCAL : *distance(n, d, s);
		}
	}
	return 0;
}

/* --- all of it --- */

enum pass { PASS_NODES, PASS_CPUS, PASS_REST, PASSES };

/* Nodes first, because the others name them; then processors, whose nodes are initiators. */
static int one(struct numa *n, struct opts *o, const struct vm_config *cfg, enum pass pass,
	       struct err *err)
{
	const char *type = opts_get(o, "type");

	if (!type) {
		return err_set(err, EINVAL,
			       "-numa: say node, cpu, dist, hmat-lb or hmat-cache first");
	}
	if (!strcmp(type, "node")) {
		return pass == PASS_NODES ? node_add(n, o, cfg, err) : 0;
	}
	if (!strcmp(type, "cpu")) {
		return pass == PASS_CPUS ? cpu_add(n, o, cfg, err) : 0;
	}
	if (!strcmp(type, "dist")) {
		return pass == PASS_REST ? dist_add(n, o, err) : 0;
	}
	if (!strcmp(type, "hmat-lb") || !strcmp(type, "hmat-cache")) {
		if (!cfg->hmat) {
			return err_set(err, EINVAL,
				       "-numa %s is for the HMAT; say -machine hmat=on", type);
		}
		if (pass != PASS_REST) {
			return 0;
		}
		return !strcmp(type, "hmat-lb") ? numa_hmat_lb(n, o, err)
						: numa_hmat_cache(n, o, err);
	}
	return err_set(err, EINVAL,
		       "-numa: unknown kind '%s'; there are node, cpu, dist, hmat-lb and "
		       "hmat-cache",
		       type);
}

static int check_nodes(const struct numa *n, struct err *err)
{
	bool memory = false;

	if (!n->nodes) {
		return err_set(err, EINVAL,
			       "-numa: there is no node; define one with -numa node,nodeid=0");
	}
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++) {
		if (n->node[i].defined != (i < n->nodes)) {
			return err_set(
				err, EINVAL,
				"-numa node: %u nodes are numbered 0 to %u; nodeid=%u %s",
				n->nodes, n->nodes - 1, i,
				i < n->nodes ? "is missing" : "is too large");
		}
		memory |= n->node[i].memdev != NULL;
	}
	return memory ? 0
		      : err_set(err, EINVAL,
				"-numa node: no node has memory; name a back end with "
				"memdev=");
}

static int resolve(const struct vm_config *cfg, struct numa *n, struct err *err)
{
	int ret = 0;

	n->cpu_node = malloc(cfg->max_cpus * sizeof(*n->cpu_node));
	if (!n->cpu_node) {
		return err_set(err, ENOMEM, "-numa: out of memory");
	}
	for (unsigned i = 0; i < cfg->max_cpus; i++) {
		n->cpu_node[i] = -1;
	}
	for (enum pass pass = 0; pass < PASSES; pass++) {
		for (size_t i = 0; !ret && i < cfg->numas.count; i++) {
			ret = one(n, &cfg->numas.item[i].opts, cfg, pass, err);
		}
		if (!ret && pass == PASS_NODES) {
			ret = check_nodes(n, err);
		}
		if (!ret && pass == PASS_CPUS) {
			assign_rest(n, cfg);
		}
	}
	if (!ret && n->have_distance) {
		ret = complete_distances(n, err);
	}
	if (!ret && cfg->hmat) {
		ret = numa_hmat_check(n, err);
	}
	return ret;
}

int numa_resolve(const struct vm_config *cfg, struct numa *out, struct err *err)
{
	int ret;

	*out = (struct numa){0};
	if (!cfg->numas.count) {
		return cfg->hmat ? err_set(err, EINVAL,
					   "-machine hmat=on describes NUMA nodes, and there "
					   "are none; leave it out or define some with -numa "
					   "node")
				 : 0;
	}
	ret = resolve(cfg, out, err);
	if (ret) {
		numa_fini(out);
	}
	return ret;
}

void numa_fini(struct numa *n)
{
	free(n->cpu_node);
	free(n->lb);
	free(n->cache);
	*n = (struct numa){0};
}
