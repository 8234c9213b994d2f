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

/* What -smbios may say in words, by structure. */
enum smbios_text {
	SMBIOS_FW_VENDOR, SMBIOS_FW_VERSION, SMBIOS_FW_DATE, /* type 0 */
	SMBIOS_SYS_MANUFACTURER, SMBIOS_SYS_PRODUCT, SMBIOS_SYS_VERSION, SMBIOS_SYS_SERIAL,
	SMBIOS_SYS_SKU, SMBIOS_SYS_FAMILY, /* 1 */
	SMBIOS_BOARD_MANUFACTURER, SMBIOS_BOARD_PRODUCT, SMBIOS_BOARD_VERSION,
	SMBIOS_BOARD_SERIAL, SMBIOS_BOARD_ASSET, SMBIOS_BOARD_LOCATION, /* 2 */
	SMBIOS_CHASSIS_MANUFACTURER, SMBIOS_CHASSIS_VERSION, SMBIOS_CHASSIS_SERIAL,
	SMBIOS_CHASSIS_ASSET, SMBIOS_CHASSIS_SKU, /* 3 */
	SMBIOS_CPU_SOCKET, SMBIOS_CPU_MANUFACTURER, SMBIOS_CPU_VERSION, SMBIOS_CPU_SERIAL,
	SMBIOS_CPU_ASSET, SMBIOS_CPU_PART, /* 4; the socket's number follows its name */
	SMBIOS_DIMM_LOCATOR, SMBIOS_DIMM_BANK, SMBIOS_DIMM_MANUFACTURER, SMBIOS_DIMM_SERIAL,
	SMBIOS_DIMM_ASSET, SMBIOS_DIMM_PART, /* 17; the number follows the locator */
	SMBIOS_TEXTS
};
enum smbios_number {
	SMBIOS_CPU_MAX_SPEED, SMBIOS_CPU_SPEED, /* MHz */
	SMBIOS_DIMM_SPEED,			/* MT/s */
	SMBIOS_NUMBERS
};
#define SMBIOS_MAX_OEM	 255
#define SMBIOS_MAX_TEXTS (60 * 1024) /* bytes of all texts of a structure, which has 64 KiB */

struct smbios_facts {
	const char *product; /* machine type with version: "virt-1.0" */
	const char *name;    /* -name, or NULL: the chassis' asset tag */
	bool has_uuid;
	uint8_t uuid[16];	    /* -uuid in the order of its text */
	unsigned sockets;	    /* present at boot */
	unsigned cores, threads;    /* of a socket */
	uint64_t ram_low, ram_high; /* bytes from low_base and from 4 GiB on */
	uint64_t low_base;
	/* -smbios; NULL, 0: the default. Texts go to the guest as they are. */
	const char *text[SMBIOS_TEXTS];
	uint16_t number[SMBIOS_NUMBERS];
	bool has_release, not_uefi;
	uint8_t release[2]; /* of the firmware: major, minor */
	char **oem;	    /* the OEM strings */
	unsigned noem;	    /* at most SMBIOS_MAX_OEM */
};

#define SMBIOS_ANCHOR_LEN 24
struct smbios {
	uint8_t anchor[SMBIOS_ANCHOR_LEN]; /* table address 0 until smbios_relocate() */
	uint8_t *data;
	size_t len;
};
/* -ENOMEM; -E2BIG with a sentence if the texts of a structure are more than SMBIOS_MAX_TEXTS.
 * Characters of the name that are not printable ASCII become '?', 64 are kept. */
int smbios_build(struct smbios *s, const struct smbios_facts *facts, struct err *err);
void smbios_free(struct smbios *s);
/* The table stands at this address. */
void smbios_relocate(struct smbios *s, uint64_t gpa);

/* Adds etc/smbios/smbios-anchor and smbios-tables. */
int smbios_fw_cfg_add(struct fw_cfg *fw, const struct smbios_facts *facts, struct err *err);
/* Writes anchor and tables to [0xF0000, 0xFFFF0). */
int smbios_place(struct mem *m, const struct smbios_facts *facts, struct err *err);

#endif
