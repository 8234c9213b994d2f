/*
 * ACPI tables as they stand in memory. ACPI Specification 6.5, chapter 5; MCFG: PCI Firmware
 * Specification 3.3, section 4.1.2. Field names follow the specifications.
 */
#ifndef SPEC_ACPI_H
#define SPEC_ACPI_H

#include "base/wire.h"

struct acpi_header { /* 5.2.6 */
	char signature[4];
	le32 length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	le32 oem_revision;
	char creator_id[4];
	le32 creator_revision;
};
_Static_assert(sizeof(struct acpi_header) == 36, "5.2.6");

struct acpi_gas { /* 5.2.3.2 */
	uint8_t space_id;
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access_size;
	le64 address;
};
#define ACPI_SPACE_IO	  1
#define ACPI_ACCESS_BYTE  1
#define ACPI_ACCESS_DWORD 3

struct acpi_fadt { /* 5.2.9, revision 6.5 */
	struct acpi_header header;
	le32 firmware_ctrl;
	le32 dsdt;
	uint8_t reserved0;
	uint8_t preferred_pm_profile;
	le16 sci_int;
	le32 smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	le32 pm1a_evt_blk, pm1b_evt_blk, pm1a_cnt_blk, pm1b_cnt_blk;
	le32 pm2_cnt_blk, pm_tmr_blk, gpe0_blk, gpe1_blk;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len;
	uint8_t gpe0_blk_len, gpe1_blk_len, gpe1_base, cst_cnt;
	le16 p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alrm, mon_alrm, century;
	le16 iapc_boot_arch;
	uint8_t reserved1;
	le32 flags;
	struct acpi_gas reset_reg;
	uint8_t reset_value;
	le16 arm_boot_arch;
	uint8_t fadt_minor_version;
	le64 x_firmware_ctrl;
	le64 x_dsdt;
	struct acpi_gas x_pm1a_evt_blk, x_pm1b_evt_blk, x_pm1a_cnt_blk, x_pm1b_cnt_blk;
	struct acpi_gas x_pm2_cnt_blk, x_pm_tmr_blk, x_gpe0_blk, x_gpe1_blk;
	struct acpi_gas sleep_control_reg, sleep_status_reg;
	uint8_t hypervisor_vendor[8];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_fadt) == 276, "5.2.9");

#define ACPI_FADT_WBINVD	(1u << 0)
#define ACPI_FADT_PROC_C1	(1u << 2)
#define ACPI_FADT_PWR_BUTTON	(1u << 4) /* no fixed power button */
#define ACPI_FADT_SLP_BUTTON	(1u << 5) /* no fixed sleep button */
#define ACPI_FADT_FIX_RTC	(1u << 6) /* no RTC wake status in fixed registers */
#define ACPI_FADT_RESET_REG_SUP (1u << 10)
#define ACPI_FADT_HW_REDUCED	(1u << 20)

#define ACPI_BOOT_VGA_NOT_PRESENT (1u << 2)

struct acpi_madt { /* 5.2.12 */
	struct acpi_header header;
	le32 local_apic_address;
	le32 flags;
};
struct acpi_madt_lapic { /* 5.2.12.2 */
	uint8_t type, length;
	uint8_t processor_uid;
	uint8_t apic_id;
	le32 flags;
};
struct acpi_madt_ioapic { /* 5.2.12.3 */
	uint8_t type, length;
	uint8_t id;
	uint8_t reserved;
	le32 address;
	le32 gsi_base;
};
struct acpi_madt_lapic_nmi { /* 5.2.12.7 */
	uint8_t type, length;
	uint8_t processor_uid; /* 0xff: all */
	le16 flags;
	uint8_t lint;
} __attribute__((packed));
struct acpi_madt_x2apic { /* 5.2.12.12 */
	uint8_t type, length;
	le16 reserved;
	le32 x2apic_id;
	le32 flags;
	le32 processor_uid;
};
struct acpi_madt_x2apic_nmi { /* 5.2.12.13 */
	uint8_t type, length;
	le16 flags;
	le32 processor_uid; /* 0xffffffff: all */
	uint8_t lint;
	uint8_t reserved[3];
};
#define ACPI_MADT_LAPIC	     0
#define ACPI_MADT_IOAPIC     1
#define ACPI_MADT_LAPIC_NMI  4
#define ACPI_MADT_X2APIC     9
#define ACPI_MADT_X2APIC_NMI 10

#define ACPI_MADT_ENABLED	 (1u << 0)
#define ACPI_MADT_ONLINE_CAPABLE (1u << 1)

struct acpi_mcfg {
	struct acpi_header header;
	uint8_t reserved[8];
};
struct acpi_mcfg_allocation {
	le64 base;
	le16 segment;
	uint8_t start_bus, end_bus;
	le32 reserved;
};

struct acpi_srat_lapic { /* 5.2.16.1 */
	uint8_t type, length;
	uint8_t domain_low;
	uint8_t apic_id;
	le32 flags;
	uint8_t sapic_eid;
	uint8_t domain_high[3];
	le32 clock_domain;
};
_Static_assert(sizeof(struct acpi_srat_lapic) == 16, "5.2.16.1");
struct acpi_srat_memory { /* 5.2.16.2 */
	uint8_t type, length;
	le32 domain;
	uint8_t reserved0[2];
	le64 base, size;
	le32 reserved1;
	le32 flags;
	le64 reserved2;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_srat_memory) == 40, "5.2.16.2");
struct acpi_srat_x2apic { /* 5.2.16.3 */
	uint8_t type, length;
	le16 reserved0;
	le32 domain;
	le32 x2apic_id;
	le32 flags;
	le32 clock_domain;
	le32 reserved1;
};
_Static_assert(sizeof(struct acpi_srat_x2apic) == 24, "5.2.16.3");
#define ACPI_SRAT_LAPIC	  0
#define ACPI_SRAT_MEMORY  1
#define ACPI_SRAT_X2APIC  2
#define ACPI_SRAT_ENABLED (1u << 0)

#define ACPI_SLIT_LOCAL	      10 /* 5.2.17 */
#define ACPI_SLIT_UNREACHABLE 255

struct acpi_hmat_domain { /* 5.2.28.3, memory proximity domain attributes */
	le16 type, reserved0;
	le32 length;
	le16 flags, reserved1;
	le32 initiator, memory;
	le32 reserved2;
	le64 reserved3[2];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_hmat_domain) == 40, "5.2.28.3");
struct acpi_hmat_lb_header { /* 5.2.28.4, system locality latency and bandwidth */
	le16 type, reserved0;
	le32 length;
	uint8_t flags; /* the memory hierarchy in bits 0-3 */
	uint8_t data_type;
	uint8_t min_transfer;
	uint8_t reserved1;
	le32 initiators, targets;
	le32 reserved2;
	le64 unit; /* ps, MB/s */
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_hmat_lb_header) == 32, "5.2.28.4");
struct acpi_hmat_cache_info { /* 5.2.28.5, memory side cache */
	le16 type, reserved0;
	le32 length;
	le32 memory;
	le32 reserved1;
	le64 size;
	le32 attributes; /* levels, level, associativity, policy, line size */
	le16 reserved2;
	le16 smbios_handles;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_hmat_cache_info) == 32, "5.2.28.5");
#define ACPI_HMAT_DOMAIN	  0
#define ACPI_HMAT_LB		  1
#define ACPI_HMAT_CACHE		  2
#define ACPI_HMAT_INITIATOR_VALID (1u << 0)
#define ACPI_HMAT_MAX_ENTRY	  0xfffeu /* 0xffff: unreachable, 0: not said */

struct acpi_rsdp { /* 5.2.5.3 */
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	le32 rsdt_address;
	le32 length;
	le64 xsdt_address;
	uint8_t extended_checksum;
	uint8_t reserved[3];
};
_Static_assert(sizeof(struct acpi_rsdp) == 36, "5.2.5.3");

/* The loader script in fw_cfg: etc/table-loader. QEMU, BIOS linker/loader. */
#define LOADER_FILE_LEN	    56
#define LOADER_ALLOCATE	    1
#define LOADER_ADD_POINTER  2
#define LOADER_ADD_CHECKSUM 3
#define LOADER_ZONE_HIGH    1
#define LOADER_ZONE_FSEG    2
struct loader_entry {
	le32 command;
	union {
		struct {
			char file[LOADER_FILE_LEN];
			le32 align;
			uint8_t zone;
		} __attribute__((packed)) alloc;
		struct {
			char pointer_file[LOADER_FILE_LEN];
			char pointee_file[LOADER_FILE_LEN];
			le32 offset;
			uint8_t size;
		} __attribute__((packed)) pointer;
		struct {
			char file[LOADER_FILE_LEN];
			le32 result_offset;
			le32 start;
			le32 length;
		} __attribute__((packed)) checksum;
		uint8_t pad[124];
	};
};
_Static_assert(sizeof(struct loader_entry) == 128, "an entry of the script");

#endif
