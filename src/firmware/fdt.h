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
#include "firmware/acpi/acpi.h"

/* Beside the facts that ACPI is told too: */
struct fdt_boot {
	const struct acpi_numa_mem *mem; /* node: counts with facts.numa */
	unsigned nmem;
	/* without firmware */
	bool direct;
	const char *cmdline; /* NULL: none */
	uint64_t initrd_start, initrd_end;
	uint64_t seed; /* for the kernel's address space layout */
};
/* The tree with free space none, malloc()ed; at most FDT_MAX bytes. -ENOSPC, -ENOMEM. */
#define FDT_MAX (1024 * 1024)
int fdt_build(const struct acpi_facts *f, const struct fdt_boot *boot, void **out, size_t *len,
	      struct err *err);

#endif
