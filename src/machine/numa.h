/*
 * The guest's NUMA nodes, as -numa says: which node a processor belongs to, which back end is
 * its memory, the distances and what the HMAT tells. The options may stand in any order;
 * everything is checked here and -EINVAL comes with one sentence that names the option.
 */
#ifndef MACHINE_NUMA_H
#define MACHINE_NUMA_H

#include "firmware/acpi/acpi.h"
#include "machine/config.h"

#define NUMA_MAX_NODES ACPI_MAX_NODES

struct numa_node {
	bool defined;
	const char *memdev; /* in the options; NULL: the node has no memory */
	bool has_cpu;
	int initiator; /* -1: not given */
};
struct numa {
	unsigned nodes; /* 0: no -numa */
	struct numa_node node[NUMA_MAX_NODES];
	int *cpu_node; /* of each processor */
	bool have_distance;
	uint8_t distance[NUMA_MAX_NODES * NUMA_MAX_NODES]; /* nodes * nodes are used */
	struct acpi_hmat_lb *lb;
	unsigned nlb;
	struct acpi_hmat_cache *cache;
	unsigned ncache;
};

/* out is all zero on error. */
int numa_resolve(const struct vm_config *cfg, struct numa *out, struct err *err);
void numa_fini(struct numa *n);

#endif
