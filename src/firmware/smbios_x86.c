/*
 * SMBIOS tables in guest memory, for a direct boot of the x86-64 machine. Control loop.
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "firmware/smbios.h"
#include "spec/platform_x86.h"

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
