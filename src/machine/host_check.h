/*
 * What this host offers to guests and what it lacks, with the consequence and the remedy of
 * each: one list for -check-host's table and its JSON. Opens nothing for long, changes nothing;
 * also for users without any right. Main thread, in a process that runs no guest.
 */
#ifndef MACHINE_HOST_CHECK_H
#define MACHINE_HOST_CHECK_H

#include "core/host_fact.h"

void machine_check_host(host_fact_fn *fn, void *opaque);

#endif
