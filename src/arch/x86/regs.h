/*
 * Register states in which a vCPU starts (Intel SDM vol. 3A, 9.1 "Initialization overview",
 * table 9-1; Documentation/arch/x86/boot.rst, "64-bit boot protocol"). Pure functions on the
 * structures of linux/kvm.h, but for the tables that 64-bit mode needs in guest memory.
 * Any thread.
 */
#ifndef ARCH_X86_REGS_H
#define ARCH_X86_REGS_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/mem.h"

/* Real mode at F000:FFF0 with CS base 0xFFFF0000. signature: CPUID leaf 1 EAX. An AP has the
 * same registers (INIT and SIPI then set its CS). */
void x86_regs_reset(struct kvm_regs *regs, struct kvm_sregs *sregs, bool boot_cpu,
		    uint32_t signature);

/* Where the tables of x86_regs_long_mode() lie: below 0xA0000, page aligned. */
#define X86_BOOT_TABLES_SIZE 0x7000
/* Writes a GDT and page tables that map the first 4 GiB one to one with 2 MiB pages. 0 or
 * -EFAULT with a sentence if [at, at + X86_BOOT_TABLES_SIZE) is not RAM. */
int x86_boot_tables_write(struct mem *m, gpa_t at, struct err *err);
/* What firmware would have left in IA32_MTRR_DEF_TYPE: MTRRs on, memory write-back, and what
 * lies in BARs is made uncached by the page tables. */
#define X86_BOOT_MTRR UINT64_C(0x806)
/* 64-bit mode with those tables: flat segments 0x10 (code) and 0x18 (data), interrupts off,
 * RIP = entry, RSI = boot_params, RSP = 0 (the entry sets its own). */
void x86_regs_long_mode(struct kvm_regs *regs, struct kvm_sregs *sregs, gpa_t tables,
			uint64_t entry, uint64_t boot_params);
/* 32-bit protected mode without paging, as the PVH ABI wants it (spec/pvh.h): flat segments,
 * interrupts off, EIP = entry, EBX = start_info. */
void x86_regs_pvh(struct kvm_regs *regs, struct kvm_sregs *sregs, uint32_t entry,
		  uint32_t start_info);

#endif
