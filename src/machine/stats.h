/*
 * Statistics of a machine, for query-stats: KVM's own, and what the vCPUs count when they leave
 * the guest. Control loop only.
 */
#ifndef MACHINE_STATS_H
#define MACHINE_STATS_H

#include "core/stats.h"
#include "machine/machine.h"

enum machine_stats { MACHINE_STATS_KVM, MACHINE_STATS_NEMU };

/* Of the VM (vcpu -1), or of a vCPU below machine_cpus(). Without vCPUs (-machine none) there
 * are none. fn is called for each one. 0 or -errno with a sentence. */
int machine_stats_each(struct machine *m, enum machine_stats which, int vcpu, stat_fn *fn,
		       void *opaque, struct err *err);

#endif
