/*
 * Which devices firmware starts from, and in which order: bootindex= and -boot order=, as the
 * text of fw_cfg's "bootorder": one OpenFirmware path a line. Control loop, at start.
 */
#ifndef MACHINE_BOOTORDER_H
#define MACHINE_BOOTORDER_H

#include "base/err.h"
#include "pci/pci.h"

#define BOOTINDEX_NONE UINT32_MAX

enum boot_kind { BOOT_DISK, BOOT_NET };

/* All zero: empty. */
struct bootorder {
	struct boot_entry {
		char id[64]; /* of the device: the name of its PCI function */
		enum boot_kind kind;
		uint32_t index; /* BOOTINDEX_NONE: none given */
	} * entry;
	size_t count;
};

/* A device that firmware can start from. -EEXIST with a sentence if the index is taken, -ENOMEM. */
int bootorder_add(struct bootorder *b, const char *id, enum boot_kind kind, uint32_t index,
		  struct err *err);
void bootorder_fini(struct bootorder *b);

/* The text with its NUL, allocated; NULL in *text if there is no order: neither an index nor
 * `order` ("c" disks, "n" network, or both; as in -boot). Not both: -EINVAL with a sentence. */
int bootorder_text(struct bootorder *b, struct pci_bus *root, const char *order, char **text,
		   struct err *err);

#endif
