/* What numa.c and numa_hmat.c share. */
#ifndef MACHINE_NUMA_INT_H
#define MACHINE_NUMA_INT_H

#include "machine/numa.h"

/* The node that a key names; it has to be defined. */
int numa_get_node(struct numa *n, struct opts *o, const char *key, unsigned *out,
		  struct err *err);

/* One option each, when all nodes and processors are known. */
int numa_hmat_lb(struct numa *n, struct opts *o, struct err *err);
int numa_hmat_cache(struct numa *n, struct opts *o, struct err *err);
/* When all options are there. */
int numa_hmat_check(struct numa *n, struct err *err);

#endif
