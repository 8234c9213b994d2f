/*
 * What the two kinds of direct boot share: bzImage (linux_boot.c) and PVH (pvh.c).
 */
#ifndef ARCH_X86_BOOT_INT_H
#define ARCH_X86_BOOT_INT_H

#include "arch/boot_file.h"
#include "arch/x86/linux_boot.h"

/* Low memory: GDT and page tables, boot_params or start info, command line. */
#define LOW_TABLES  0x1000
#define LOW_PARAMS  0x8000
#define LOW_CMDLINE 0x20000
/* The command line may reach up to here. */
#define LOW_END 0x9F000

/* Is [addr, addr + size) inside one RAM entry, below 4 GiB? */
bool boot_is_ram(const struct x86_linux_config *cfg, uint64_t addr, uint64_t size);

/* Zeroes guest memory that boot_is_ram(). */
void boot_zero_guest(struct mem *m, gpa_t gpa, uint64_t size);

/* Reads the initrd, if there is one, to where it may lie (the last byte at most at addr_max)
 * beside the kernel's [kernel, kernel + need): as high as possible. -errno with a sentence. */
int boot_load_initrd(struct mem *m, const struct x86_linux_config *cfg, uint64_t addr_max,
		     uint64_t kernel, uint64_t need, uint64_t *addr, uint64_t *size,
		     struct err *err);

/* The command line to LOW_CMDLINE; max: what the kernel takes. -errno with a sentence. */
int boot_check_cmdline(const struct x86_linux_config *cfg, uint64_t max, struct err *err);
int boot_write_cmdline(struct mem *m, const struct x86_linux_config *cfg, struct err *err);

/* pvh.c: as x86_linux_load(), for an ELF file of file_size bytes. */
int x86_pvh_load(struct mem *m, const struct x86_linux_config *cfg, uint64_t file_size,
		 struct x86_linux_entry *out, struct err *err);

#endif
