/*
 * The device tree of the AArch64 machine, for firmware and for a kernel that is entered directly.
 * Devicetree Specification 0.4; the bindings of the Linux kernel. Fixed addresses come from the
 * platform contract, so the facts hold only what differs from machine to machine. Control loop.
 */
#ifndef FIRMWARE_FDT_H
#define FIRMWARE_FDT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct fdt_cpu {
	uint64_t mpidr;
	uint32_t node;
};
struct fdt_memory {
	uint64_t base, size;
	uint32_t node;
};
struct fdt_facts {
	const struct fdt_cpu *cpu;
	unsigned ncpus;
	unsigned cores, threads; /* of a socket, of a core */
	const struct fdt_memory *mem;
	unsigned nmem;
	unsigned nodes;		 /* 0: no NUMA */
	const uint8_t *distance; /* nodes * nodes; NULL: not said */
	unsigned redist_cpus[2]; /* of each redistributor region */
	bool pmu, uart;
	uint64_t mem64_base, mem64_end; /* the window of 64-bit BARs; equal: none */
	/* direct boot */
	const char *cmdline; /* NULL: none */
	uint64_t initrd_start, initrd_end;
	bool direct;
	uint64_t seed; /* for the kernel's address space layout */
};
/* The tree with free space none, malloc()ed; at most FDT_MAX bytes. -ENOSPC, -ENOMEM. */
#define FDT_MAX (1024 * 1024)
int fdt_build(const struct fdt_facts *f, void **out, size_t *len, struct err *err);

#endif
