/*
 * The platform contract of the AArch64 `virt` machine: every fixed address and interrupt in one
 * place (documented in docs/, described to the guest by device tree and ACPI). The map is that of
 * QEMU's machine of this name, which firmware is built for. What is not listed here reads all-ones
 * and ignores writes. Nothing here ever changes within a machine version.
 */
#ifndef SPEC_PLATFORM_ARM64_H
#define SPEC_PLATFORM_ARM64_H

#include <stdint.h>

#include "spec/ged.h"

/* --- guest physical memory --- */
#define PLAT_FLASH_BASE	    UINT64_C(0x00000000)
#define PLAT_FLASH_BANK	    UINT64_C(0x04000000) /* two of them */
#define PLAT_GICD_BASE	    UINT64_C(0x08000000)
#define PLAT_GICD_SIZE	    UINT64_C(0x00010000)
#define PLAT_ITS_BASE	    UINT64_C(0x08080000)
#define PLAT_ITS_SIZE	    UINT64_C(0x00020000)
#define PLAT_GICR_BASE	    UINT64_C(0x080A0000) /* of 123 processors */
#define PLAT_GICR_CPU	    UINT64_C(0x00020000) /* each */
#define PLAT_GICR_CPUS	    123u
#define PLAT_UART_BASE	    UINT64_C(0x09000000)
#define PLAT_RTC_BASE	    UINT64_C(0x09010000)
#define PLAT_FW_CFG_BASE    UINT64_C(0x09020000)
#define PLAT_GPIO_BASE	    UINT64_C(0x09030000)
#define PLAT_DEVICE_SIZE    UINT64_C(0x00001000) /* of the three PrimeCells */
#define PLAT_GED_BASE	    UINT64_C(0x09080000)
#define PLAT_MMIO32_BASE    UINT64_C(0x10000000) /* 32-bit BARs */
#define PLAT_MMIO32_END	    UINT64_C(0x3EFF0000)
#define PLAT_PCI_IO_BASE    UINT64_C(0x3EFF0000) /* the ports of PCI; nothing of ours has one */
#define PLAT_PCI_IO_SIZE    UINT64_C(0x00010000)
#define PLAT_RAM_BASE	    UINT64_C(0x40000000)

/*
 * Above the RAM, from half of an address space of 39 bits on: QEMU's places. Where guest addresses
 * have fewer bits, everything is at half of those, and the window at three quarters.
 */
#define PLAT_IPA_BITS_MIN 36u
#define PLAT_HIGH_BITS	  39u
#define PLAT_HIGH(bits)                                                                        \
	(UINT64_C(1) << (((bits) < PLAT_HIGH_BITS ? (bits) : PLAT_HIGH_BITS) - 1))
#define PLAT_GICR2_OFF	    UINT64_C(0x00000000) /* of the processors from number 123 on */
#define PLAT_GICR2_CPUS	    389u		 /* 512 together */
#define PLAT_ECAM_OFF	    UINT64_C(0x10000000)
#define PLAT_ECAM_SIZE	    UINT64_C(0x10000000)			/* buses 0-255 */
#define PLAT_ECAM_BASE	    (PLAT_HIGH(PLAT_HIGH_BITS) + PLAT_ECAM_OFF) /* with 39 bits and more */
#define PLAT_MMIO64_BASE    UINT64_C(0x8000000000) /* with more than 39 bits */
#define PLAT_MMIO64_END	    UINT64_C(0x10000000000)

/* --- interrupts --- */
#define PLAT_SPIS	   224u /* INTID 32 to 255 */
#define PLAT_SPI_UART	   1u
#define PLAT_SPI_RTC	   2u
#define PLAT_SPI_GPIO	   7u
#define PLAT_SPI_GED	   9u
#define PLAT_FIRST_SPI	   32u
/* private ones, as INTIDs */
#define PLAT_PPI_MAINT	   25u
#define PLAT_PPI_EL2_TIMER 26u
#define PLAT_PPI_VTIMER	   27u
#define PLAT_PPI_S_TIMER   29u
#define PLAT_PPI_TIMER	   30u
#define PLAT_PPI_PMU	   23u

#define PLAT_UART_CLOCK_HZ   24000000u
#define PLAT_GPIO_POWER_KEY  3u	  /* pin of the PL061 */
#define PLAT_KEY_POWER	     116u /* Linux' code for it */

#endif
