/*
 * The guest's RAM as the machine has it: back ends, their places, NUMA nodes. Owner: the
 * machine; control loop. Filled by memory_object() and memory_open() before isolation, then
 * constant.
 */
#ifndef MACHINE_MEMORY_H
#define MACHINE_MEMORY_H

#include "machine/config.h"
#include "machine/numa.h"
#include "mem/backend.h"
#include "mem/mem.h"

#define MEMORY_MAX_PARTS NUMA_MAX_NODES

struct named_mem {
	char *id; /* "": the one that no option names */
	struct mem_backend_config config;
	struct mem_backend open;
};
struct memory_part {
	struct named_mem *backend;
	unsigned node;
};
struct memory {
	struct named_mem *object; /* grows until memory_open() takes pointers to them */
	size_t count;
	struct numa numa;
	struct memory_part part[MEMORY_MAX_PARTS];
	unsigned nparts;
	uint64_t size, low, high; /* all; below and above the hole */
	struct acpi_numa_mem map[MEMORY_MAX_PARTS + 1];
	unsigned nmap;
	struct acpi_numa acpi;
};

/* -object memory-backend-…: recorded, to be opened later. */
int memory_object(struct memory *mem, struct opts *o, const char *id,
		  enum mem_backend_kind kind, struct err *err);
struct named_mem *memory_find(struct memory *mem, const char *id);
/* Opens everything and adds the regions to m: RAM is [0, low_max) and from high_base on. What
 * was opened stays until memory_close(), also after an error; m goes before it. */
int memory_open(struct memory *mem, const struct vm_config *cfg, struct mem *m,
		uint64_t low_max, uint64_t high_base, struct err *err);
void memory_close(struct memory *mem);

unsigned memory_cpu_node(const struct memory *mem, unsigned cpu);
const struct acpi_numa *memory_acpi(const struct memory *mem); /* NULL: no nodes */

/* Where parts of these sizes stand; returns the number of pieces, at most n + 1. */
struct memory_piece {
	unsigned part;
	uint64_t gpa, offset, size; /* offset: in the part */
};
unsigned memory_layout(const uint64_t *size, unsigned n, uint64_t low_max, uint64_t high_base,
		       struct memory_piece *out);

#endif
