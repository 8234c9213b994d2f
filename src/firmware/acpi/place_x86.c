/*
 * ACPI tables in guest memory, for a direct boot of the x86-64 machine. Control loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/acpi/acpi.h"
#include "spec/acpi.h"
#include "spec/platform_x86.h"

/*
 * What stands in the place of a BIOS' reset entry, in real-mode code: mov dx, 0xcf9; mov al, 6;
 * out dx, al; hlt; jmp back to the hlt.
 *
 * It is needed because of the HW_REDUCED_ACPI flag: with it Linux restarts through EFI and uses
 * neither the FADT's reset register nor port 0x64 before. Without EFI (direct boot) it goes on to
 * the BIOS, that is, it enters real mode and jumps to FFFF:0000.
 */
static const uint8_t reset_entry[] = {
	0xba,
	PLAT_RESET_PORT & 0xff,
	PLAT_RESET_PORT >> 8,
	0xb0,
	PLAT_RESET_VALUE,
	0xee,
	0xf4,
	0xeb,
	0xfd,
};
_Static_assert(sizeof(reset_entry) <= PLAT_BIOS_AREA_END - PLAT_BIOS_RESET, "it fits");

int acpi_place(struct mem *m, uint64_t low, const struct acpi_facts *facts,
	       struct acpi_placed *out, struct err *err)
{
	const uint64_t beside = PLAT_BIOS_AREA + align_up(ACPI_RSDP_LEN, 64);
	uint8_t rsdp[ACPI_RSDP_LEN];
	struct acpi_tables t;
	uint64_t base;
	int ret;

	*out = (struct acpi_placed){.rsdp = PLAT_BIOS_AREA};
	ret = acpi_build(&t, facts, err);
	if (ret) {
		return ret;
	}
	if (t.len <= PLAT_BIOS_SMBIOS - beside) {
		base = beside;
	} else if (low >= 16 * MiB + t.len) {
		base = align_down(low - t.len, 4096);
		out->base = base;
		out->size = low - base;
	} else {
		ret = err_set(err, ENOSPC,
			      "the ACPI tables of %u processors do not fit into %llu "
			      "MiB of memory; give more with -m",
			      facts->ncpus, (unsigned long long)(low / MiB));
		goto free_tables;
	}
	acpi_relocate(&t, base);
	acpi_rsdp(rsdp, base + acpi_find(&t, "XSDT")->off);
	ret = mem_write(m, base, t.data, t.len);
	if (!ret) {
		ret = mem_write(m, PLAT_BIOS_AREA, rsdp, sizeof(rsdp));
	}
	if (!ret) {
		ret = mem_write(m, PLAT_BIOS_RESET, reset_entry, sizeof(reset_entry));
	}
	if (ret) {
		err_set(err, -ret, "the ACPI tables cannot be placed at 0x%llx: no RAM there",
			(unsigned long long)base);
	}
free_tables:
	acpi_free(&t);
	return ret;
}
