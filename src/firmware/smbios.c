/*
 * SMBIOS 3 tables. DMTF DSP0134 3.6; structures in spec/smbios.h.
 *
 *   0 firmware, 1 system, 3 chassis, 4 processor (one, with all cores), 16 memory array,
 *   17 memory devices (one for each 64 GiB or part of it, so that sizes are exact),
 *   19 address ranges (below and above 4 GiB), 32 boot status, 127 end.
 *
 * Strings come from the command line, so they are cut and cleaned; nothing here is the guest's.
 * Pure functions on a buffer; control loop.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/smbios.h"
#include "spec/platform_x86.h"
#include "spec/smbios.h"

#define STRING_MAX 64
#define DIMM_MAX   (64 * GiB)
#define MAX_SOCKETS 64 /* more are not described, only counted by others */
#define MAX_DIMMS  256 /* 16 TiB; more memory makes larger ones */

enum { /* handles */
       H_FIRMWARE = 0x0000,
       H_SYSTEM = 0x0100,
       H_CHASSIS = 0x0300,
       H_CPU = 0x0400, /* and following */
       H_ARRAY = 0x1000,
       H_DIMM = 0x1100, /* and following */
       H_MAPPED = 0x1300,
       H_BOOT = 0x2000,
       H_END = 0x7f00,
};

struct out {
	uint8_t *data;
	size_t len, cap;
	bool failed;
};

static void put(struct out *o, const void *p, size_t len)
{
	if (o->cap - o->len < len && !o->failed) {
		size_t cap = o->cap * 2 + len + 1024;
		uint8_t *d = realloc(o->data, cap);

		o->failed = !d;
		if (d) {
			o->data = d;
			o->cap = cap;
		}
	}
	if (!o->failed) {
		memcpy(o->data + o->len, p, len);
		o->len += len;
	}
}

/* The formatted part and then its strings, numbered from 1 in the order given; NULL ends the
 * list. */
static void put_structure(struct out *o, const void *p, size_t len, const char *const *strings)
{
	put(o, p, len);
	for (; strings && *strings; strings++) {
		char clean[STRING_MAX + 1];
		size_t n = 0;

		for (; (*strings)[n] && n < STRING_MAX; n++) {
			char c = (*strings)[n];

			clean[n] = c >= ' ' && c <= '~' ? c : '?';
		}
		clean[n] = 0;
		/* an empty string would end the list */
		put(o, n ? clean : " ", MAX(n, 1) + 1);
		if (!strings[1]) {
			put(o, "", 1);
			return;
		}
	}
	put(o, "\0", 2);
}

#define HEADER(st, t, h)                                                                       \
	{                                                                                      \
		.type = t, .length = sizeof(st), .handle = le16_of((uint16_t)(h))              \
	}

static void put_firmware(struct out *o)
{
	const struct smbios_type0 t = {
		.header = HEADER(t, 0, H_FIRMWARE),
		.vendor = 1,
		.version = 2,
		.release_date = 3,
		.start_segment = le16_of(0xe800),
		.characteristics = le64_of(SMBIOS_FW_CHARACTERISTICS_UNSUPPORTED),
		.characteristics_ext = {0, SMBIOS_FW_EXT2_UEFI | SMBIOS_FW_EXT2_VIRTUAL},
		.major = 0xff, /* no release of the firmware itself is known here */
		.minor = 0xff,
		.ec_major = 0xff,
		.ec_minor = 0xff,
	};
	const char *const strings[] = {"NEMU", NEMU_VERSION, "01/01/2000", NULL};

	put_structure(o, &t, sizeof(t), strings);
}

static void put_system(struct out *o, const struct smbios_facts *f)
{
	struct smbios_type1 t = {
		.header = HEADER(t, 1, H_SYSTEM),
		.manufacturer = 1,
		.product = 2,
		.version = 3,
		.wake_up = SMBIOS_WAKE_UP_POWER_SWITCH,
		.family = 4,
	};
	const char *const strings[] = {"NEMU", f->product, NEMU_VERSION, "Virtual Machine",
				       NULL};

	if (f->has_uuid) {
		/* 7.2.1: the first three fields are little-endian, the text is not */
		static const uint8_t order[16] = {3, 2, 1,  0,	5,  4,	7,  6,
						  8, 9, 10, 11, 12, 13, 14, 15};

		for (unsigned i = 0; i < 16; i++) {
			t.uuid[i] = f->uuid[order[i]];
		}
	}
	put_structure(o, &t, sizeof(t), strings);
}

static void put_chassis(struct out *o, const struct smbios_facts *f)
{
	bool named = f->name && *f->name;
	const struct smbios_type3 t = {
		.header = HEADER(t, 3, H_CHASSIS),
		.manufacturer = 1,
		.type = SMBIOS_CHASSIS_OTHER,
		.version = 2,
		.asset_tag = named ? 3 : 0,
		.boot_up_state = SMBIOS_STATE_SAFE,
		.power_supply_state = SMBIOS_STATE_SAFE,
		.thermal_state = SMBIOS_STATE_SAFE,
		.security_status = SMBIOS_SECURITY_UNKNOWN,
	};
	const char *const strings[] = {"NEMU", f->product, named ? f->name : NULL, NULL};

	put_structure(o, &t, sizeof(t), strings);
}

/* One socket. In the narrow fields 0xff means: see the wide ones. */
static void put_processor(struct out *o, const struct smbios_facts *f, unsigned n)
{
	unsigned threads = f->ncpus / f->sockets, cores = threads / f->threads;
	uint8_t few = (uint8_t)MIN(cores, 255u);
	le16 many = le16_of((uint16_t)MIN(cores, 0xfffeu));
	const struct smbios_type4 t = {
		.header = HEADER(t, 4, H_CPU + n),
		.socket = 1,
		.type = SMBIOS_CPU_CENTRAL,
		.family = SMBIOS_CPU_FAMILY_OTHER,
		.manufacturer = 2,
		.version = 3,
		.status = SMBIOS_CPU_ENABLED,
		.upgrade = SMBIOS_CPU_UPGRADE_OTHER,
		.l1 = le16_of(SMBIOS_NO_HANDLE),
		.l2 = le16_of(SMBIOS_NO_HANDLE),
		.l3 = le16_of(SMBIOS_NO_HANDLE),
		.core_count = few,
		.core_enabled = few,
		.thread_count = (uint8_t)MIN(threads, 255u),
		.characteristics =
			le16_of(SMBIOS_CPU_64BIT | (cores > 1 ? SMBIOS_CPU_MULTI_CORE : 0)),
		.family2 = le16_of(SMBIOS_CPU_FAMILY_OTHER),
		.core_count2 = many,
		.core_enabled2 = many,
		.thread_count2 = le16_of((uint16_t)MIN(threads, 0xfffeu)),
	};
	char socket[16];
	const char *const strings[] = {socket, "NEMU", f->product, NULL};

	snprintf(socket, sizeof(socket), "CPU %u", n);
	put_structure(o, &t, sizeof(t), strings);
}

/* --- memory --- */

static void put_array(struct out *o, uint64_t ram, unsigned dimms)
{
	uint64_t kib = ram / KiB;
	const struct smbios_type16 t = {
		.header = HEADER(t, 16, H_ARRAY),
		.location = SMBIOS_MEM_LOCATION_OTHER,
		.use = SMBIOS_MEM_USE_SYSTEM,
		.error_correction = SMBIOS_MEM_ECC_NONE,
		.max_capacity =
			le32_of(kib < SMBIOS_MEM_CAPACITY_EXT ? (uint32_t)kib
							      : SMBIOS_MEM_CAPACITY_EXT),
		.error_handle = le16_of(0xfffe), /* none provided */
		.devices = le16_of((uint16_t)dimms),
		.max_capacity_ext = le64_of(kib < SMBIOS_MEM_CAPACITY_EXT ? 0 : ram),
	};

	put_structure(o, &t, sizeof(t), NULL);
}

static void put_dimm(struct out *o, unsigned n, uint64_t size)
{
	uint64_t mib = size / MiB;
	bool kib_units = size % MiB || !mib;
	bool ext = !kib_units && mib >= SMBIOS_DEV_SIZE_EXT;
	/* sizes that are no whole MiB count KiB, flagged by bit 15; they are below 32 MiB */
	uint16_t small =
		kib_units ? (uint16_t)(0x8000 | MIN(size / KiB, 0x7ffeu)) : (uint16_t)mib;
	const struct smbios_type17 t = {
		.header = HEADER(t, 17, H_DIMM + n),
		.array_handle = le16_of(H_ARRAY),
		.error_handle = le16_of(0xfffe),
		.total_width = le16_of(0xffff),
		.data_width = le16_of(0xffff),
		.size = le16_of(ext ? SMBIOS_DEV_SIZE_EXT : small),
		.extended_size = le32_of(ext ? (uint32_t)mib : 0),
		.form_factor = SMBIOS_DEV_FORM_DIMM,
		.device_locator = 1,
		.manufacturer = 2,
		.type = SMBIOS_DEV_TYPE_RAM,
		.type_detail = le16_of(SMBIOS_DEV_DETAIL_OTHER),
		.technology = SMBIOS_DEV_TECH_DRAM,
		.operating_modes = le16_of(SMBIOS_DEV_MODE_VOLATILE),
		.volatile_size = le64_of(size),
	};
	char locator[16];
	const char *const strings[] = {locator, "NEMU", NULL};

	snprintf(locator, sizeof(locator), "DIMM %u", n);
	put_structure(o, &t, sizeof(t), strings);
}

static void put_mapped(struct out *o, unsigned n, uint64_t base, uint64_t size, unsigned dimms)
{
	uint64_t last = base + size - 1;
	bool ext = last / KiB >= UINT32_MAX;
	const struct smbios_type19 t = {
		.header = HEADER(t, 19, H_MAPPED + n),
		.start = le32_of(ext ? UINT32_MAX : (uint32_t)(base / KiB)),
		.end = le32_of(ext ? UINT32_MAX : (uint32_t)(last / KiB)),
		.array_handle = le16_of(H_ARRAY),
		.partition_width = (uint8_t)MIN(dimms, 255u),
		.start_ext = le64_of(ext ? base : 0),
		.end_ext = le64_of(ext ? last : 0),
	};

	if (size) {
		put_structure(o, &t, sizeof(t), NULL);
	}
}

static void put_memory(struct out *o, const struct smbios_facts *f)
{
	uint64_t ram = f->ram_low + f->ram_high, left = ram;
	uint64_t each = DIMM_MAX;
	unsigned dimms;

	while ((ram + each - 1) / each > MAX_DIMMS) {
		each *= 2;
	}
	dimms = (unsigned)((ram + each - 1) / each);
	put_array(o, ram, dimms);
	for (unsigned i = 0; i < dimms; i++) {
		put_dimm(o, i, MIN(left, each));
		left -= MIN(left, each);
	}
	put_mapped(o, 0, 0, f->ram_low, dimms);
	put_mapped(o, 1, PLAT_HIGH_RAM_BASE, f->ram_high, dimms);
}

static void put_end(struct out *o)
{
	const struct smbios_type32 boot = {.header = HEADER(boot, 32, H_BOOT)};
	const struct smbios_header end = HEADER(end, 127, H_END);

	put_structure(o, &boot, sizeof(boot), NULL);
	put_structure(o, &end, sizeof(end), NULL);
}

int smbios_build(struct smbios *s, const struct smbios_facts *f, struct err *err)
{
	struct out o = {0};

	*s = (struct smbios){0};
	put_firmware(&o);
	put_system(&o, f);
	put_chassis(&o, f);
	for (unsigned i = 0; i < MIN(f->sockets, MAX_SOCKETS); i++) {
		put_processor(&o, f, i);
	}
	put_memory(&o, f);
	put_end(&o);
	if (o.failed) {
		free(o.data);
		return err_set(err, ENOMEM, "no memory for the SMBIOS tables");
	}
	s->data = o.data;
	s->len = o.len;
	smbios_relocate(s, 0);
	return 0;
}

void smbios_free(struct smbios *s)
{
	free(s->data);
	*s = (struct smbios){0};
}

void smbios_relocate(struct smbios *s, uint64_t gpa)
{
	struct smbios_entry_point e = {
		.anchor = {'_', 'S', 'M', '3', '_'},
		.length = sizeof(e),
		.major = 3,
		.revision = 1,
		.table_max_size = le32_of((uint32_t)s->len),
		.table_address = le64_of(gpa),
	};
	uint8_t sum = 0;

	for (size_t i = 0; i < sizeof(e); i++) {
		sum = (uint8_t)(sum + ((uint8_t *)&e)[i]);
	}
	e.checksum = (uint8_t)-sum;
	memcpy(s->anchor, &e, sizeof(e));
}

int smbios_fw_cfg_add(struct fw_cfg *fw, const struct smbios_facts *facts, struct err *err)
{
	struct smbios s;
	int ret = smbios_build(&s, facts, err);

	if (ret) {
		return ret;
	}
	ret = fw_cfg_add_file(fw, "etc/smbios/smbios-tables", s.data, s.len, FW_CFG_TAKE, err);
	if (ret) {
		return ret;
	}
	return fw_cfg_add_file(fw, "etc/smbios/smbios-anchor", s.anchor, sizeof(s.anchor),
			       FW_CFG_COPY, err);
}

int smbios_place(struct mem *m, const struct smbios_facts *facts, struct err *err)
{
	const uint64_t table = PLAT_BIOS_SMBIOS + align_up(SMBIOS_ANCHOR_LEN, 16);
	struct smbios s;
	int ret = smbios_build(&s, facts, err);

	if (ret) {
		return ret;
	}
	if (s.len > PLAT_BIOS_RESET - table) {
		ret = err_set(err, ENOSPC,
			      "the SMBIOS tables need %zu bytes, more than there are "
			      "below 1 MiB",
			      s.len);
		goto free_tables;
	}
	smbios_relocate(&s, table);
	ret = mem_write(m, table, s.data, s.len);
	if (!ret) {
		ret = mem_write(m, PLAT_BIOS_SMBIOS, s.anchor, sizeof(s.anchor));
	}
	if (ret) {
		err_set(err, -ret, "the SMBIOS tables cannot be placed at 0x%llx: no RAM there",
			(unsigned long long)PLAT_BIOS_SMBIOS);
	}
free_tables:
	smbios_free(&s);
	return ret;
}
