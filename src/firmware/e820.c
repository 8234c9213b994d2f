/*
 * The e820 memory map. ACPI 6.5, 15.1. Pure functions; nothing untrusted.
 *
 * Invariant: entries are sorted, do not overlap, and neighbours of one type do not touch.
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "firmware/e820.h"
#include "spec/platform_x86.h"

/* In real mode the BIOS keeps its extended data area here, the last KiB below 640 KiB. */
#define EBDA_BASE   UINT64_C(0x9FC00)
#define LOW_MEM_END UINT64_C(0xA0000)

struct span {
	uint64_t base, end;
	enum e820_type type;
};

static struct span entry_get(const struct e820_entry *e)
{
	uint64_t base = le64_get(e->base);

	return (struct span){base, base + le64_get(e->size), (enum e820_type)le32_get(e->type)};
}

/* Appends to m, joining with the entry before. */
static int append(struct e820_map *m, struct span s)
{
	if (s.base >= s.end) {
		return 0;
	}
	if (m->count) {
		struct e820_entry *last = &m->entry[m->count - 1];
		struct span l = entry_get(last);

		if (l.type == s.type && l.end == s.base) {
			last->size = le64_of(s.end - l.base);
			return 0;
		}
	}
	if (m->count == E820_MAX) {
		return -ENOSPC;
	}
	m->entry[m->count++] = (struct e820_entry){
		.base = le64_of(s.base),
		.size = le64_of(s.end - s.base),
		.type = le32_of(s.type),
	};
	return 0;
}

int e820_add(struct e820_map *m, uint64_t base, uint64_t size, enum e820_type type)
{
	struct span new = {base, base + size, type};
	struct e820_map out = {0};
	bool done = false;
	int ret = 0;

	if (!size) {
		return 0;
	}
	if (new.end < new.base) {
		return -EINVAL;
	}
	for (unsigned i = 0; i < m->count && !ret; i++) {
		struct span s = entry_get(&m->entry[i]);
		struct span before = {s.base, MIN(s.end, new.base), s.type};
		struct span after = {MAX(s.base, new.end), s.end, s.type};

		ret = append(&out, before);
		if (!done && s.end > new.base) {
			ret = ret ? ret : append(&out, new);
			done = true;
		}
		ret = ret ? ret : append(&out, after);
	}
	if (!done && !ret) {
		ret = append(&out, new);
	}
	if (!ret) {
		*m = out;
	}
	return ret;
}

int e820_init(struct e820_map *m, uint64_t low, uint64_t high)
{
	int ret;

	*m = (struct e820_map){0};
	if ((ret = e820_add(m, 0, low, E820_RAM)) ||
	    (ret = e820_add(m, PLAT_HIGH_RAM_BASE, high, E820_RAM)) ||
	    (ret = e820_add(m, PLAT_ECAM_BASE, PLAT_ECAM_SIZE, E820_RESERVED))) {
		return ret;
	}
	return 0;
}

/* Takes [base, end) out of the map. */
static int hole(struct e820_map *m, uint64_t base, uint64_t end)
{
	struct e820_map out = {0};
	int ret = 0;

	for (unsigned i = 0; i < m->count && !ret; i++) {
		struct span s = entry_get(&m->entry[i]);

		ret = append(&out, (struct span){s.base, MIN(s.end, base), s.type});
		ret = ret ? ret : append(&out, (struct span){MAX(s.base, end), s.end, s.type});
	}
	if (!ret) {
		*m = out;
	}
	return ret;
}

int e820_init_direct(struct e820_map *m, uint64_t low, uint64_t high, uint64_t keep,
		     uint64_t keep_size)
{
	int ret = e820_init(m, low, high);

	if (ret || (ret = e820_add(m, EBDA_BASE, LOW_MEM_END - EBDA_BASE, E820_RESERVED)) ||
	    (ret = hole(m, LOW_MEM_END, PLAT_BIOS_AREA)) ||
	    (ret = e820_add(m, PLAT_BIOS_AREA, PLAT_BIOS_AREA_END - PLAT_BIOS_AREA,
			    E820_RESERVED)) ||
	    (ret = e820_add(m, keep, keep_size, E820_RESERVED))) {
		return ret;
	}
	return 0;
}

int e820_fw_cfg_add(struct fw_cfg *fw, const struct e820_map *m, struct err *err)
{
	return fw_cfg_add_file(fw, "etc/e820", m->entry, m->count * sizeof(m->entry[0]),
			       FW_CFG_COPY, err);
}
