/*
 * The x86/HVM direct boot ABI ("PVH"): what a kernel with the ELF note PHYS32_ENTRY gets. Xen,
 * docs/misc/pvh.pandoc; structures of public/arch-x86/hvm/start_info.h, version 1.
 */
#ifndef SPEC_PVH_H
#define SPEC_PVH_H

#include "base/wire.h"

/* An ELF note with this owner and type holds the entry's physical address, 32 or 64 bits. */
#define PVH_NOTE_NAME "Xen"
#define PVH_NOTE_TYPE 18 /* XEN_ELFNOTE_PHYS32_ENTRY */

#define HVM_START_MAGIC	  UINT32_C(0x336ec578)
#define HVM_START_VERSION 1 /* the first with a memory map */

/* An address of 0 stands for "not there". */
struct hvm_start_info {
	le32 magic, version;
	le32 flags;
	le32 nr_modules;
	le64 modlist_paddr;
	le64 cmdline_paddr; /* ends with a NUL */
	le64 rsdp_paddr;
	le64 memmap_paddr;
	le32 memmap_entries;
	le32 reserved;
};
_Static_assert(sizeof(struct hvm_start_info) == 56, "as in start_info.h");

struct hvm_modlist_entry {
	le64 paddr, size;
	le64 cmdline_paddr;
	le64 reserved;
};

struct hvm_memmap_entry { /* types are those of E820 */
	le64 addr, size;
	le32 type;
	le32 reserved;
};

#endif
