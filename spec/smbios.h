/*
 * SMBIOS structures. DMTF DSP0134, version 3.6; names follow it.
 */
#ifndef SPEC_SMBIOS_H
#define SPEC_SMBIOS_H

#include "base/wire.h"

struct smbios_entry_point { /* 5.2.2, 64-bit */
	char anchor[5];
	uint8_t checksum;
	uint8_t length;
	uint8_t major, minor, docrev;
	uint8_t revision;
	uint8_t reserved;
	le32 table_max_size;
	le64 table_address;
};
_Static_assert(sizeof(struct smbios_entry_point) == 24, "5.2.2");

struct smbios_header { /* 6.1.2 */
	uint8_t type, length;
	le16 handle;
};
struct smbios_type0 { /* 7.1 platform firmware */
	struct smbios_header header;
	uint8_t vendor, version;
	le16 start_segment;
	uint8_t release_date;
	uint8_t rom_size;
	le64 characteristics;
	uint8_t characteristics_ext[2];
	uint8_t major, minor;
	uint8_t ec_major, ec_minor;
	le16 rom_size_ext;
} __attribute__((packed));
#define SMBIOS_FW_CHARACTERISTICS_UNSUPPORTED (1u << 3)
#define SMBIOS_FW_EXT2_UEFI		      (1u << 3)
#define SMBIOS_FW_EXT2_VIRTUAL		      (1u << 4)

struct smbios_type1 { /* 7.2 system */
	struct smbios_header header;
	uint8_t manufacturer, product, version, serial;
	uint8_t uuid[16];
	uint8_t wake_up;
	uint8_t sku, family;
} __attribute__((packed));
#define SMBIOS_WAKE_UP_POWER_SWITCH 6

struct smbios_type2 { /* 7.3 baseboard */
	struct smbios_header header;
	uint8_t manufacturer, product, version, serial, asset_tag;
	uint8_t features;
	uint8_t location;
	le16 chassis;
	uint8_t type;
	uint8_t contained;
} __attribute__((packed));
#define SMBIOS_BOARD_HOSTING	 (1u << 0)
#define SMBIOS_BOARD_MOTHERBOARD 10

struct smbios_type3 { /* 7.4 chassis */
	struct smbios_header header;
	uint8_t manufacturer, type, version, serial, asset_tag;
	uint8_t boot_up_state, power_supply_state, thermal_state, security_status;
	le32 oem;
	uint8_t height, power_cords, elements, element_len;
	uint8_t sku;
} __attribute__((packed));
#define SMBIOS_CHASSIS_OTHER	1
#define SMBIOS_STATE_SAFE	3
#define SMBIOS_SECURITY_UNKNOWN 2

struct smbios_type4 { /* 7.5 processor */
	struct smbios_header header;
	uint8_t socket, type, family, manufacturer;
	uint8_t id[8];
	uint8_t version, voltage;
	le16 external_clock, max_speed, current_speed;
	uint8_t status, upgrade;
	le16 l1, l2, l3;
	uint8_t serial, asset_tag, part_number;
	uint8_t core_count, core_enabled, thread_count;
	le16 characteristics, family2;
	le16 core_count2, core_enabled2, thread_count2;
} __attribute__((packed));
#define SMBIOS_CPU_CENTRAL	 3
#define SMBIOS_CPU_FAMILY_OTHER	 1
#define SMBIOS_CPU_ENABLED	 0x41 /* populated and enabled */
#define SMBIOS_CPU_UPGRADE_OTHER 1
#define SMBIOS_CPU_64BIT	 (1u << 2)
#define SMBIOS_CPU_MULTI_CORE	 (1u << 3)
#define SMBIOS_CPU_MULTI_THREAD	 (1u << 4)
#define SMBIOS_NO_HANDLE	 0xffff

struct smbios_type11 { /* 7.12 OEM strings */
	struct smbios_header header;
	uint8_t count;
} __attribute__((packed));

struct smbios_type16 { /* 7.17 memory array */
	struct smbios_header header;
	uint8_t location, use, error_correction;
	le32 max_capacity;
	le16 error_handle;
	le16 devices;
	le64 max_capacity_ext;
} __attribute__((packed));
#define SMBIOS_MEM_LOCATION_OTHER 1
#define SMBIOS_MEM_USE_SYSTEM	  3
#define SMBIOS_MEM_ECC_NONE	  3
#define SMBIOS_MEM_CAPACITY_EXT	  UINT32_C(0x80000000)

struct smbios_type17 { /* 7.18 memory device, as of version 3.2 */
	struct smbios_header header;
	le16 array_handle, error_handle;
	le16 total_width, data_width;
	le16 size;
	uint8_t form_factor, set;
	uint8_t device_locator, bank_locator;
	uint8_t type;
	le16 type_detail;
	le16 speed;
	uint8_t manufacturer, serial, asset_tag, part_number;
	uint8_t attributes;
	le32 extended_size;
	le16 configured_speed;
	le16 min_voltage, max_voltage, voltage;
	uint8_t technology;
	le16 operating_modes;
	uint8_t firmware_version;
	le16 vendor_id, product_id, controller_vendor_id, controller_product_id;
	le64 nonvolatile, volatile_size, cache, logical;
} __attribute__((packed));
_Static_assert(sizeof(struct smbios_type17) == 0x54, "7.18");
#define SMBIOS_DEV_FORM_DIMM	 9
#define SMBIOS_DEV_TYPE_RAM	 7
#define SMBIOS_DEV_DETAIL_OTHER	 (1u << 1)
#define SMBIOS_DEV_SIZE_EXT	 0x7fff
#define SMBIOS_DEV_TECH_DRAM	 3
#define SMBIOS_DEV_MODE_VOLATILE (1u << 3)

struct smbios_type19 { /* 7.20 memory array mapped address */
	struct smbios_header header;
	le32 start, end; /* KiB, inclusive */
	le16 array_handle;
	uint8_t partition_width;
	le64 start_ext, end_ext; /* bytes, inclusive, when start is 0xffffffff */
} __attribute__((packed));

struct smbios_type32 { /* 7.33 system boot */
	struct smbios_header header;
	uint8_t reserved[6];
	uint8_t status;
} __attribute__((packed));

#endif
