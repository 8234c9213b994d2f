/*
 * The memory map that firmware (fw_cfg, etc/e820) and a directly booted kernel (boot_params)
 * get: the BIOS call INT 15h AX=E820h in its 20-byte form. ACPI 6.5, 15.1. Pure functions.
 */
#ifndef FIRMWARE_E820_H
#define FIRMWARE_E820_H

#include <stdint.h>

#include "base/err.h"
#include "base/wire.h"
#include "firmware/fw_cfg.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
	le64 base, size;
	le32 type;
};
_Static_assert(sizeof(struct e820_entry) == 20, "as on the wire");

#define E820_MAX 128 /* what boot_params has room for */
struct e820_map {
	unsigned count;
	struct e820_entry entry[E820_MAX]; /* sorted by address, without overlaps */
};

/* Adds [base, base + size): sorted in; where it overlaps what is there, the later call wins;
 * equal neighbours are joined. size 0 is ignored. -ENOSPC, -EINVAL if it wraps. */
int e820_add(struct e820_map *m, uint64_t base, uint64_t size, enum e820_type type);

/* The map of the x86-64 machine: RAM [0, low) and [4 GiB, 4 GiB + high), ECAM reserved (Linux
 * uses it only then). */
int e820_init(struct e820_map *m, uint64_t low, uint64_t high);
/* The same for a kernel that is entered without firmware: what a BIOS would keep for itself
 * (the EBDA, the hole and [0xE0000, 1 MiB) where the tables stand) is not RAM, and
 * [keep, keep + keep_size) is reserved for further tables (keep_size 0: none). */
int e820_init_direct(struct e820_map *m, uint64_t low, uint64_t high, uint64_t keep,
		     uint64_t keep_size);

/* As etc/e820. */
int e820_fw_cfg_add(struct fw_cfg *fw, const struct e820_map *m, struct err *err);

#endif
