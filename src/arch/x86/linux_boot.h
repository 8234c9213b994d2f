/*
 * Direct boot of a bzImage through its 64-bit entry (Documentation/arch/x86/boot.rst and
 * zero-page.rst of the kernel), or of an ELF file through its 32-bit PVH entry (spec/pvh.h).
 * Untrusted: the kernel and the initrd are whatever the user
 * names; each size is checked against the file and against RAM before anything is copied.
 * Control loop, before the vCPUs run.
 */
#ifndef ARCH_X86_LINUX_BOOT_H
#define ARCH_X86_LINUX_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/mem.h"

/* What the header of a kernel says, checked. */
struct x86_linux_kernel {
	uint16_t version;	  /* boot protocol */
	uint32_t setup_size;	  /* bytes of boot sector and setup code; the kernel follows */
	uint64_t payload_size;	  /* bytes of the kernel behind it */
	uint64_t pref_address;	  /* where it wants to lie */
	uint32_t alignment;	  /* a power of two */
	uint32_t init_size;	  /* memory it needs from where it lies */
	uint32_t cmdline_max;	  /* without the terminating zero */
	uint32_t initrd_addr_max; /* the last byte may lie here */
	bool relocatable;
};
/* The part of the file that x86_linux_check() reads. */
#define X86_LINUX_HEADER_SIZE 1024
/* head: the first head_len bytes (all, if the file is shorter than X86_LINUX_HEADER_SIZE) of a
 * file of file_size bytes called name. 0 or -EINVAL with a sentence. Pure. */
int x86_linux_check(const void *head, size_t head_len, uint64_t file_size, const char *name,
		    struct x86_linux_kernel *k, struct err *err);

enum x86_e820_type {
	X86_E820_RAM = 1,
	X86_E820_RESERVED = 2,
};
struct x86_e820 {
	uint64_t addr, size;
	enum x86_e820_type type;
};
#define X86_MAX_E820 32

struct x86_linux_config {
	const char *kernel_name, *initrd_name; /* for messages; initrd_name NULL: none */
	int kernel_fd, initrd_fd;	       /* regular files, read with pread */
	const char *cmdline;		       /* NULL: empty */
	const struct x86_e820 *e820;	       /* in address order, not overlapping */
	unsigned e820_count;
	uint64_t rsdp; /* 0: the kernel scans 0xE0000-0xFFFFF */
};
struct x86_linux_entry {
	uint64_t entry, boot_params; /* for x86_regs_long_mode(), or, if pvh, for */
	bool pvh;		     /* x86_regs_pvh(): boot_params is the start info */
	gpa_t tables;		     /* written already; not with pvh */
};
/* Loads kernel, initrd, command line, boot_params and tables. Uses [0x1000, 0x9F000) of low
 * RAM for the small things. 0 or -errno with a sentence naming the file. */
int x86_linux_load(struct mem *m, const struct x86_linux_config *cfg,
		   struct x86_linux_entry *out, struct err *err);

#endif
