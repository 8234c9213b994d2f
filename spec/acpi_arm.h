/*
 * ACPI tables that only Arm machines have. ACPI 6.5, chapter 5; GTDT 5.2.25, PPTT 5.2.30; IORT: ARM
 * DEN 0049D; SPCR and DBG2: Microsoft's specifications of them. Field names follow these.
 */
#ifndef SPEC_ACPI_ARM_H
#define SPEC_ACPI_ARM_H

#include "base/wire.h"
#include "spec/acpi.h"

#define ACPI_SPACE_MEMORY 0

#define ACPI_ARM_PSCI	  (1u << 0) /* FADT, ARM_BOOT_ARCH */
#define ACPI_ARM_PSCI_HVC (1u << 1)

struct acpi_madt_gicc { /* 5.2.12.14, as of 6.0: without trace and SPE interrupts' words */
	uint8_t type, length;
	le16 reserved0;
	le32 cpu_interface_number, processor_uid;
	le32 flags;
	le32 parking_version;
	le32 performance_gsiv;
	le64 parked_address, base_address, gicv, gich;
	le32 vgic_maintenance;
	le64 gicr_base;
	le64 mpidr;
	uint8_t efficiency_class, reserved1;
	le16 spe_interrupt;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_madt_gicc) == 80, "5.2.12.14");
struct acpi_madt_gicd { /* 5.2.12.15 */
	uint8_t type, length;
	le16 reserved0;
	le32 gic_id;
	le64 base;
	le32 global_irq_base;
	uint8_t version;
	uint8_t reserved1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_madt_gicd) == 24, "5.2.12.15");
struct acpi_madt_gicr { /* 5.2.12.17 */
	uint8_t type, length;
	le16 reserved;
	le64 base;
	le32 size;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_madt_gicr) == 16, "5.2.12.17");
struct acpi_madt_its { /* 5.2.12.18 */
	uint8_t type, length;
	le16 reserved0;
	le32 its_id;
	le64 base;
	le32 reserved1;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_madt_its) == 20, "5.2.12.18");
#define ACPI_MADT_GICC 11
#define ACPI_MADT_GICD 12
#define ACPI_MADT_GICR 14
#define ACPI_MADT_ITS  15
#define ACPI_GIC_V3    3

struct acpi_srat_gicc { /* 5.2.16.4 */
	uint8_t type, length;
	le32 domain;
	le32 processor_uid;
	le32 flags;
	le32 clock_domain;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_srat_gicc) == 18, "5.2.16.4");
#define ACPI_SRAT_GICC 3

struct acpi_gtdt { /* 5.2.25, revision 2 */
	struct acpi_header header;
	le64 cnt_control_base;
	le32 reserved;
	le32 secure_el1_gsiv, secure_el1_flags;
	le32 nonsecure_el1_gsiv, nonsecure_el1_flags;
	le32 virtual_gsiv, virtual_flags;
	le32 el2_gsiv, el2_flags;
	le64 cnt_read_base;
	le32 platform_timers, platform_timer_offset;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_gtdt) == 96, "5.2.25");
#define ACPI_GTDT_ALWAYS_ON (1u << 2) /* level, active high */

struct acpi_spcr { /* revision 2 */
	struct acpi_header header;
	uint8_t interface_type;
	uint8_t reserved0[3];
	struct acpi_gas base;
	uint8_t interrupt_type, irq;
	le32 gsiv;
	uint8_t baud_rate, parity, stop_bits, flow_control, terminal_type, language;
	le16 pci_device_id, pci_vendor_id;
	uint8_t pci_bus, pci_device, pci_function;
	le32 pci_flags;
	uint8_t pci_segment;
	le32 uart_clock;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_spcr) == 80, "SPCR");
#define ACPI_SPCR_PL011	     3
#define ACPI_SPCR_GIC	     8
#define ACPI_SPCR_115200     7
#define ACPI_SPCR_1_STOP_BIT 1

struct acpi_dbg2 {
	struct acpi_header header;
	le32 info_offset, info_count;
	uint8_t revision; /* of the one device that follows */
	le16 length;
	uint8_t registers;
	le16 name_length, name_offset;
	le16 oem_length, oem_offset;
	le16 port_type, port_subtype;
	le16 reserved;
	le16 base_offset, size_offset;
	struct acpi_gas base;
	le32 size;
	char name[10];
} __attribute__((packed));
#define ACPI_DBG2_SERIAL 0x8000
#define ACPI_DBG2_PL011	 0x0003
#define ACPI_DBG2_NAME	 "\\_SB.COM0"

struct acpi_iort { /* DEN 0049D, revision 0: a group with the ITS, a root complex that maps to it */
	struct acpi_header header;
	le32 nodes, node_offset, reserved;
	struct {
		uint8_t type;
		le16 length;
		uint8_t revision;
		le32 reserved, mappings, mapping_offset;
		le32 count, its_id;
	} __attribute__((packed)) group;
	struct {
		uint8_t type;
		le16 length;
		uint8_t revision;
		le32 reserved, mappings, mapping_offset;
		le32 cache_coherent;
		uint8_t allocation_hints;
		le16 reserved0;
		uint8_t memory_flags;
		le32 ats, segment;
		uint8_t address_size;
		uint8_t reserved1[3];
		struct {
			le32 input_base, count, output_base, reference, flags;
		} map;
	} __attribute__((packed)) root;
} __attribute__((packed));
#define ACPI_IORT_ITS_GROUP    0
#define ACPI_IORT_ROOT_COMPLEX 2
#define ACPI_IORT_CPM_DACS     3 /* memory attributes are inherited, cacheable */

struct acpi_pptt_processor { /* 5.2.30.1 */
	uint8_t type, length;
	le16 reserved;
	le32 flags, parent, uid, resources;
};
#define ACPI_PPTT_PACKAGE   (1u << 0)
#define ACPI_PPTT_UID_VALID (1u << 1)
#define ACPI_PPTT_THREAD    (1u << 2)
#define ACPI_PPTT_LEAF	    (1u << 3)

#endif
