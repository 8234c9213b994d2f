/*
 * SMBIOS 3 tables: who the machine is (product, UUID), its processors and memory. For firmware
 * through fw_cfg, or placed in the BIOS area for a direct boot. Control loop.
 */
#ifndef FIRMWARE_SMBIOS_H
#define FIRMWARE_SMBIOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "firmware/fw_cfg.h"
#include "mem/mem.h"

struct smbios_facts {
	const char *product; /* machine type with version: "virt-1.0" */
	const char *name;    /* -name, or NULL: the chassis' asset tag */
	bool has_uuid;
	uint8_t uuid[16];	    /* -uuid in the order of its text */
	unsigned ncpus;		    /* present at boot, in all sockets */
	unsigned sockets, threads;  /* threads: per core */
	uint64_t ram_low, ram_high; /* bytes below and above 4 GiB */
};

#define SMBIOS_ANCHOR_LEN 24
struct smbios {
	uint8_t anchor[SMBIOS_ANCHOR_LEN]; /* table address 0 until smbios_relocate() */
	uint8_t *data;
	size_t len;
};
/* -ENOMEM. Characters of strings that are not printable ASCII become '?', 64 are kept. */
int smbios_build(struct smbios *s, const struct smbios_facts *facts, struct err *err);
void smbios_free(struct smbios *s);
/* The table stands at this address. */
void smbios_relocate(struct smbios *s, uint64_t gpa);

/* Adds etc/smbios/smbios-anchor and smbios-tables. */
int smbios_fw_cfg_add(struct fw_cfg *fw, const struct smbios_facts *facts, struct err *err);
/* Writes anchor and tables to [0xF0000, 0xFFFF0). */
int smbios_place(struct mem *m, const struct smbios_facts *facts, struct err *err);

#endif
