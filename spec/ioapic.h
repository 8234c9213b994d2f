/*
 * I/O APIC registers. Intel 82093AA datasheet (290566-001) section 3; the EOI register and
 * version 0x20 from the I/O controller hub datasheets. MSI message format: Intel SDM volume 3,
 * section 11.11. Extended destination: KVM's KVM_FEATURE_MSI_EXT_DEST_ID.
 */
#ifndef SPEC_IOAPIC_H
#define SPEC_IOAPIC_H

#include <stdint.h>

#define IOAPIC_IOREGSEL 0x00
#define IOAPIC_IOWIN	0x10
#define IOAPIC_EOI	0x40

#define IOAPIC_REG_ID	  0x00
#define IOAPIC_REG_VER	  0x01
#define IOAPIC_REG_ARB	  0x02
#define IOAPIC_REG_REDTBL 0x10 /* two 32-bit registers for each pin */

#define IOAPIC_VERSION_EOI 0x20u /* has the EOI register */

#define IOAPIC_RTE_VECTOR     UINT64_C(0xff)
#define IOAPIC_RTE_DELMODE    (UINT64_C(7) << 8)
#define IOAPIC_RTE_DEST_LOGIC (UINT64_C(1) << 11)
#define IOAPIC_RTE_DELIVS     (UINT64_C(1) << 12) /* read-only */
#define IOAPIC_RTE_ACTIVE_LOW (UINT64_C(1) << 13)
#define IOAPIC_RTE_REMOTE_IRR (UINT64_C(1) << 14) /* read-only */
#define IOAPIC_RTE_LEVEL      (UINT64_C(1) << 15)
#define IOAPIC_RTE_MASKED     (UINT64_C(1) << 16)
#define IOAPIC_RTE_EXT_DEST   (UINT64_C(0x7f) << 49) /* destination bits 8-14 */
#define IOAPIC_RTE_DEST	      (UINT64_C(0xff) << 56)

#define IOAPIC_DELMODE_FIXED  0u
#define IOAPIC_DELMODE_LOWEST 1u
#define IOAPIC_DELMODE_EXTINT 7u

#define MSI_ADDR_BASE		UINT64_C(0xFEE00000)
#define MSI_ADDR_DEST_SHIFT	12
#define MSI_ADDR_EXT_DEST_SHIFT 5
#define MSI_ADDR_LOGICAL	(1u << 2)
#define MSI_ADDR_REDIRECT	(1u << 3)
#define MSI_DATA_DELMODE_SHIFT	8
#define MSI_DATA_ASSERT		(1u << 14)
#define MSI_DATA_LEVEL		(1u << 15)

#endif
