/*
 * The platform contract of the x86-64 `virt` machine: every fixed address, port and interrupt
 * in one place (documented in docs/, described to the guest by ACPI). What is not listed here
 * reads all-ones and ignores writes. Nothing here ever changes within a machine version.
 */
#ifndef SPEC_PLATFORM_X86_H
#define SPEC_PLATFORM_X86_H

#include <stdint.h>

#include "spec/ged.h"

/* --- guest physical memory --- */
#define PLAT_LOW_RAM_MAX   UINT64_C(0x80000000)	 /* RAM below 4 GiB ends here at the latest */
#define PLAT_HIGH_RAM_BASE UINT64_C(0x100000000) /* the rest of RAM starts here */
#define PLAT_ECAM_BASE	   UINT64_C(0xB0000000)
#define PLAT_ECAM_SIZE	   UINT64_C(0x10000000) /* buses 0-255 */
#define PLAT_MMIO32_BASE   UINT64_C(0xC0000000) /* 32-bit BARs */
#define PLAT_MMIO32_END	   UINT64_C(0xFC000000) /* one past the end */
#define PLAT_IOAPIC_BASE   UINT64_C(0xFEC00000)
#define PLAT_IOAPIC_SIZE   UINT64_C(0x1000)
#define PLAT_TPM_BASE	   UINT64_C(0xFED40000) /* reads 0xFF when there is no TPM */
#define PLAT_LAPIC_BASE	   UINT64_C(0xFEE00000)
#define PLAT_IDENTITY_MAP  UINT64_C(0xFEFFC000)	 /* KVM's page for Intel hosts */
#define PLAT_TSS	   UINT64_C(0xFEFFD000)	 /* and its three */
#define PLAT_FLASH_END	   UINT64_C(0x100000000) /* unit 0 ends here, unit 1 directly below */
#define PLAT_FLASH_MAX	   UINT64_C(0x01000000)	 /* all units together */

/* The block of platform registers: a page, 256 bytes for each function. */
#define PLAT_REGS_BASE	  UINT64_C(0xFED00000)
#define PLAT_REGS_SIZE	  UINT64_C(0x1000)
#define PLAT_GED_BASE	  (PLAT_REGS_BASE + 0x000) /* u32 selector, read clears */
#define PLAT_PVPANIC_BASE (PLAT_REGS_BASE + 0x100) /* reserved from here on: not there yet */
#define PLAT_VMGENID_BASE (PLAT_REGS_BASE + 0x200)
#define PLAT_CPUHP_BASE	  (PLAT_REGS_BASE + 0x300)
#define PLAT_MEMHP_BASE	  (PLAT_REGS_BASE + 0x400)
#define PLAT_PCIHP_BASE	  (PLAT_REGS_BASE + 0x500)
#define PLAT_NVDIMM_BASE  (PLAT_REGS_BASE + 0x600)

/* Direct boot: ACPI from the first, SMBIOS from the second address; the BIOS area scanned by
 * operating systems. */
#define PLAT_BIOS_AREA	   UINT64_C(0xE0000)
#define PLAT_BIOS_SMBIOS   UINT64_C(0xF0000)
#define PLAT_BIOS_RESET	   UINT64_C(0xFFFF0) /* where real-mode code jumps to for a reset */
#define PLAT_BIOS_AREA_END UINT64_C(0x100000)

/* --- I/O ports --- */
#define PLAT_RTC_PORT	 0x70u
#define PLAT_RTC_LEN	 2u
#define PLAT_KBC_PORT	 0x64u /* writing 0xFE resets; nothing else of an i8042 is there */
#define PLAT_KBC_RESET	 0xFEu
#define PLAT_UART_PORT	 0x3F8u
#define PLAT_UART_LEN	 8u
#define PLAT_FW_CFG_PORT 0x510u
#define PLAT_FW_CFG_LEN	 12u
#define PLAT_PM_PORT	 0x600u
#define PLAT_PM_LEN	 12u
/*
 * Firmware for a Q35 chipset powers off with a 16-bit write to PM1_CNT at 0x604: SLP_EN bit 13,
 * SLP_TYP bits 10-12 = 0. ACPI's byte-wide SLEEP_CONTROL register has SLP_EN in bit 5 and
 * SLP_TYP in bits 2-4, so it is simply the upper byte of the former, and \_S5 says type 0.
 */
#define PLAT_PM1_CNT_PORT   0x604u
#define PLAT_SLEEP_CTL_PORT 0x605u
#define PLAT_SLEEP_STS_PORT 0x606u
#define PLAT_PM_TIMER_PORT  0x608u
#define PLAT_S5_TYPE	    0u
#define PLAT_RESET_PORT	    0xCF9u
#define PLAT_RESET_VALUE    0x06u
#define PLAT_PCI_IO_BASE    0x6000u /* I/O BARs, as stock OVMF assigns them */
#define PLAT_PCI_IO_END	    0x10000u

/* --- interrupts (IOAPIC pins = GSIs; all edge triggered, active high) --- */
#define PLAT_IOAPIC_PINS 24u
#define PLAT_IOAPIC_ID	 0u
#define PLAT_GSI_UART	 4u
#define PLAT_GSI_GED	 16u

#endif
