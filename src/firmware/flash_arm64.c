/*
 * The flash of the AArch64 machine, as AAVMF programs it: two interleaved 16-bit chips (Intel
 * StrataFlash P30 datasheet) that are accessed as 32 bits, so each half of a command or a status is
 * for one chip and both are the same. Erase blocks of 256 KiB, buffers of 32 words. Commands:
 * flash_cfi.c.
 *
 * Unit n stands at n times 64 MiB.
 */
#include "base/util.h"
#include "firmware/flash_int.h"
#include "spec/cfi_flash.h"
#include "spec/platform_arm64.h"

const struct flash_chip flash_chip = {
	.bus = {flash_cfi_read, flash_cfi_write, .min_size = 1,
		.max_size = 4}, /* the bus splits */
	.width = 4,
	.chips = 2,
	.erase_block = 256 * KiB,
	.buffer_words = 32,
	.status_follows = true,
	.device_id = CFI_INTEL_P30_256MBIT,
	.query_minor = '0',
};

bool flash_place(unsigned unit, uint32_t size, uint64_t *next, uint64_t *gpa)
{
	*gpa = PLAT_FLASH_BASE + unit * PLAT_FLASH_BANK;
	return unit < FLASH_MAX_UNITS && size <= PLAT_FLASH_BANK;
}
