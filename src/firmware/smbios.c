/*
 * SMBIOS 3 tables. DMTF DSP0134 3.6; structures in spec/smbios.h.
 *
 *   0 firmware, 1 system, 2 baseboard (if -smbios says something of it), 3 chassis,
 *   4 processors (one for each socket), 11 OEM strings (if there are any), 16 memory array,
 *   17 memory devices (one for each 64 GiB or part of it, so that sizes are exact),
 *   19 address ranges (below and above 4 GiB), 32 boot status, 127 end.
 *
 * Strings come from the command line. -name is for people and is cut and cleaned; what -smbios
 * says goes to the guest as it is (strings are UTF-8, 6.1.3). Nothing here is the guest's.
 * Pure functions on a buffer; control loop.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/smbios.h"
#include "spec/smbios.h"

#define NAME_MAX_LEN 64
#define DIMM_MAX     (64 * GiB)
#define MAX_SOCKETS  64 /* more are not described, only counted by others */
#define MAX_DIMMS    256 /* 16 TiB; more memory makes larger ones */

enum { /* handles */
       H_FIRMWARE = 0x0000,
       H_SYSTEM = 0x0100,
       H_BOARD = 0x0200,
       H_CHASSIS = 0x0300,
       H_CPU = 0x0400, /* and following */
       H_OEM = 0x0b00,
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
	bool too_long; /* the texts of a structure */
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

/* The strings of a structure: fields name them by their number. */
struct strings {
	const char *s[8];
	unsigned n;
};

/* The number of a string in its structure; 0: there is none (an empty one would end the list). */
static uint8_t add(struct strings *l, const char *text)
{
	if (!text || !*text) {
		return 0;
	}
	assert(l->n < ARRAY_SIZE(l->s));
	l->s[l->n++] = text;
	return (uint8_t)l->n;
}

/* The formatted part and then its strings. */
static void put_strings(struct out *o, const void *p, size_t len, const char *const *strings,
			unsigned n)
{
	size_t total = 0;

	put(o, p, len);
	for (unsigned i = 0; i < n; i++) {
		total += strlen(strings[i]) + 1;
		if (total > SMBIOS_MAX_TEXTS) {
			o->too_long = true;
			return;
		}
		put(o, strings[i], strlen(strings[i]) + 1);
	}
	put(o, "\0", n ? 1 : 2);
}

static void put_structure(struct out *o, const void *p, size_t len, const struct strings *l)
{
	put_strings(o, p, len, l ? l->s : NULL, l ? l->n : 0);
}

static const char *text_or(const struct smbios_facts *f, enum smbios_text t, const char *def)
{
	return f->text[t] ? f->text[t] : def;
}

#define HEADER(st, t, h)                                                                       \
	{                                                                                      \
		.type = t, .length = sizeof(st), .handle = le16_of((uint16_t)(h))              \
	}

static void put_firmware(struct out *o, const struct smbios_facts *f)
{
	struct strings l = {0};
	const struct smbios_type0 t = {
		.header = HEADER(t, 0, H_FIRMWARE),
		.vendor = add(&l, text_or(f, SMBIOS_FW_VENDOR, "NEMU")),
		.version = add(&l, text_or(f, SMBIOS_FW_VERSION, NEMU_VERSION)),
		.release_date = add(&l, text_or(f, SMBIOS_FW_DATE, "01/01/2000")),
		.start_segment = le16_of(0xe800),
		.characteristics = le64_of(SMBIOS_FW_CHARACTERISTICS_UNSUPPORTED),
		.characteristics_ext = {0, SMBIOS_FW_EXT2_VIRTUAL |
						   (f->not_uefi ? 0 : SMBIOS_FW_EXT2_UEFI)},
		/* 0xff: the release of the firmware itself is not known */
		.major = f->has_release ? f->release[0] : 0xff,
		.minor = f->has_release ? f->release[1] : 0xff,
		.ec_major = 0xff,
		.ec_minor = 0xff,
	};

	put_structure(o, &t, sizeof(t), &l);
}

static void put_system(struct out *o, const struct smbios_facts *f)
{
	struct strings l = {0};
	struct smbios_type1 t = {
		.header = HEADER(t, 1, H_SYSTEM),
		.manufacturer = add(&l, text_or(f, SMBIOS_SYS_MANUFACTURER, "NEMU")),
		.product = add(&l, text_or(f, SMBIOS_SYS_PRODUCT, f->product)),
		.version = add(&l, text_or(f, SMBIOS_SYS_VERSION, NEMU_VERSION)),
		.serial = add(&l, f->text[SMBIOS_SYS_SERIAL]),
		.wake_up = SMBIOS_WAKE_UP_POWER_SWITCH,
		.sku = add(&l, f->text[SMBIOS_SYS_SKU]),
		.family = add(&l, text_or(f, SMBIOS_SYS_FAMILY, "Virtual Machine")),
	};

	if (f->has_uuid) {
		/* 7.2.1: the first three fields are little-endian, the text is not */
		static const uint8_t order[16] = {3, 2, 1,  0,	5,  4,	7,  6,
						  8, 9, 10, 11, 12, 13, 14, 15};

		for (unsigned i = 0; i < 16; i++) {
			t.uuid[i] = f->uuid[order[i]];
		}
	}
	put_structure(o, &t, sizeof(t), &l);
}

static void put_board(struct out *o, const struct smbios_facts *f)
{
	struct strings l = {0};
	const struct smbios_type2 t = {
		.header = HEADER(t, 2, H_BOARD),
		.manufacturer = add(&l, text_or(f, SMBIOS_BOARD_MANUFACTURER, "NEMU")),
		.product = add(&l, text_or(f, SMBIOS_BOARD_PRODUCT, f->product)),
		.version = add(&l, f->text[SMBIOS_BOARD_VERSION]),
		.serial = add(&l, f->text[SMBIOS_BOARD_SERIAL]),
		.asset_tag = add(&l, f->text[SMBIOS_BOARD_ASSET]),
		.features = SMBIOS_BOARD_HOSTING,
		.location = add(&l, f->text[SMBIOS_BOARD_LOCATION]),
		.chassis = le16_of(H_CHASSIS),
		.type = SMBIOS_BOARD_MOTHERBOARD,
	};

	for (int i = SMBIOS_BOARD_MANUFACTURER; i <= SMBIOS_BOARD_LOCATION; i++) {
		if (f->text[i]) {
			put_structure(o, &t, sizeof(t), &l);
			return;
		}
	}
}

static void put_chassis(struct out *o, const struct smbios_facts *f)
{
	const char *name = f->name ? f->name : "";
	char clean[NAME_MAX_LEN + 1] = "";
	struct strings l = {0};

	for (size_t i = 0; name[i] && i < NAME_MAX_LEN; i++) {
		clean[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
	}
	const struct smbios_type3 t = {
		.header = HEADER(t, 3, H_CHASSIS),
		.manufacturer = add(&l, text_or(f, SMBIOS_CHASSIS_MANUFACTURER, "NEMU")),
		.type = SMBIOS_CHASSIS_OTHER,
		.version = add(&l, text_or(f, SMBIOS_CHASSIS_VERSION, f->product)),
		.serial = add(&l, f->text[SMBIOS_CHASSIS_SERIAL]),
		.asset_tag = add(&l, text_or(f, SMBIOS_CHASSIS_ASSET, clean)),
		.boot_up_state = SMBIOS_STATE_SAFE,
		.power_supply_state = SMBIOS_STATE_SAFE,
		.thermal_state = SMBIOS_STATE_SAFE,
		.security_status = SMBIOS_SECURITY_UNKNOWN,
		.sku = add(&l, f->text[SMBIOS_CHASSIS_SKU]),
	};

	put_structure(o, &t, sizeof(t), &l);
}

static le16 wide(unsigned n)
{
	return le16_of((uint16_t)MIN(n, 0xfffeu));
}

static uint8_t narrow(unsigned n)
{
	return (uint8_t)MIN(n, 0xffu); /* 0xff: see the wide field */
}

static void put_processor(struct out *o, const struct smbios_facts *f, unsigned n)
{
	struct strings l = {0};
	char *socket = NULL;

	if (asprintf(&socket, "%s %u", text_or(f, SMBIOS_CPU_SOCKET, "CPU"), n) < 0) {
		o->failed = true;
		return;
	}
	const struct smbios_type4 t = {
		.header = HEADER(t, 4, H_CPU + n),
		.socket = add(&l, socket),
		.type = SMBIOS_CPU_CENTRAL,
		.family = SMBIOS_CPU_FAMILY_OTHER,
		.manufacturer = add(&l, text_or(f, SMBIOS_CPU_MANUFACTURER, "NEMU")),
		.version = add(&l, text_or(f, SMBIOS_CPU_VERSION, f->product)),
		.max_speed = le16_of(f->number[SMBIOS_CPU_MAX_SPEED]),
		.current_speed = le16_of(f->number[SMBIOS_CPU_SPEED]),
		.status = SMBIOS_CPU_ENABLED,
		.upgrade = SMBIOS_CPU_UPGRADE_OTHER,
		.l1 = le16_of(SMBIOS_NO_HANDLE),
		.l2 = le16_of(SMBIOS_NO_HANDLE),
		.l3 = le16_of(SMBIOS_NO_HANDLE),
		.serial = add(&l, f->text[SMBIOS_CPU_SERIAL]),
		.asset_tag = add(&l, f->text[SMBIOS_CPU_ASSET]),
		.part_number = add(&l, f->text[SMBIOS_CPU_PART]),
		.core_count = narrow(f->cores),
		.core_enabled = narrow(f->cores),
		.thread_count = narrow(f->threads),
		.characteristics =
			le16_of(SMBIOS_CPU_64BIT | (f->cores > 1 ? SMBIOS_CPU_MULTI_CORE : 0) |
				(f->threads > f->cores ? SMBIOS_CPU_MULTI_THREAD : 0)),
		.family2 = le16_of(SMBIOS_CPU_FAMILY_OTHER),
		.core_count2 = wide(f->cores),
		.core_enabled2 = wide(f->cores),
		.thread_count2 = wide(f->threads),
	};

	put_structure(o, &t, sizeof(t), &l);
	free(socket);
}

static void put_oem(struct out *o, const struct smbios_facts *f)
{
	const struct smbios_type11 t = {
		.header = HEADER(t, 11, H_OEM),
		.count = (uint8_t)f->noem,
	};

	if (f->noem) {
		put_strings(o, &t, sizeof(t), (const char *const *)f->oem, f->noem);
	}
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

static void put_dimm(struct out *o, const struct smbios_facts *f, unsigned n, uint64_t size)
{
	uint64_t mib = size / MiB;
	bool kib_units = size % MiB || !mib;
	bool ext = !kib_units && mib >= SMBIOS_DEV_SIZE_EXT;
	/* sizes that are no whole MiB count KiB, flagged by bit 15; they are below 32 MiB */
	uint16_t small =
		kib_units ? (uint16_t)(0x8000 | MIN(size / KiB, 0x7ffeu)) : (uint16_t)mib;
	struct strings l = {0};
	char *locator = NULL;

	if (asprintf(&locator, "%s %u", text_or(f, SMBIOS_DIMM_LOCATOR, "DIMM"), n) < 0) {
		o->failed = true;
		return;
	}
	const struct smbios_type17 t = {
		.header = HEADER(t, 17, H_DIMM + n),
		.array_handle = le16_of(H_ARRAY),
		.error_handle = le16_of(0xfffe),
		.total_width = le16_of(0xffff),
		.data_width = le16_of(0xffff),
		.size = le16_of(ext ? SMBIOS_DEV_SIZE_EXT : small),
		.extended_size = le32_of(ext ? (uint32_t)mib : 0),
		.form_factor = SMBIOS_DEV_FORM_DIMM,
		.device_locator = add(&l, locator),
		.bank_locator = add(&l, f->text[SMBIOS_DIMM_BANK]),
		.speed = le16_of(f->number[SMBIOS_DIMM_SPEED]),
		.configured_speed = le16_of(f->number[SMBIOS_DIMM_SPEED]),
		.manufacturer = add(&l, text_or(f, SMBIOS_DIMM_MANUFACTURER, "NEMU")),
		.serial = add(&l, f->text[SMBIOS_DIMM_SERIAL]),
		.asset_tag = add(&l, f->text[SMBIOS_DIMM_ASSET]),
		.part_number = add(&l, f->text[SMBIOS_DIMM_PART]),
		.type = SMBIOS_DEV_TYPE_RAM,
		.type_detail = le16_of(SMBIOS_DEV_DETAIL_OTHER),
		.technology = SMBIOS_DEV_TECH_DRAM,
		.operating_modes = le16_of(SMBIOS_DEV_MODE_VOLATILE),
		.volatile_size = le64_of(size),
	};

	put_structure(o, &t, sizeof(t), &l);
	free(locator);
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
		put_dimm(o, f, i, MIN(left, each));
		left -= MIN(left, each);
	}
	put_mapped(o, 0, f->low_base, f->ram_low, dimms);
	put_mapped(o, 1, 4 * GiB, f->ram_high, dimms);
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
	put_firmware(&o, f);
	put_system(&o, f);
	put_board(&o, f);
	put_chassis(&o, f);
	for (unsigned i = 0; i < MIN(f->sockets, MAX_SOCKETS); i++) {
		put_processor(&o, f, i);
	}
	put_oem(&o, f);
	put_memory(&o, f);
	put_end(&o);
	if (o.too_long) {
		free(o.data);
		return err_set(err, E2BIG,
			       "-smbios: the texts of a structure have together more than %u "
			       "KiB: use shorter ones",
			       SMBIOS_MAX_TEXTS / 1024);
	}
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
