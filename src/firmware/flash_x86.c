/*
 * The flash of the x86-64 machine, as OVMF programs it: one byte-wide chip with erase blocks of
 * 4 KiB (Intel StrataFlash J3 datasheet). After program and erase the array is readable at once:
 * OVMF goes on reading without asking for the status or for the array (QemuFlash.c), and so the
 * array need not leave its memory slot. Commands: flash_cfi.c.
 *
 * Unit 0 ends at 4 GiB, the next stands directly below it.
 */
#include "firmware/flash_int.h"
#include "spec/cfi_flash.h"
#include "spec/platform_x86.h"

const struct flash_chip flash_chip = {
	.bus = {flash_cfi_read, flash_cfi_write, .min_size = 1,
		.max_size = 1}, /* the bus splits */
	.width = 1,
	.chips = 1,
	.erase_block = FLASH_BLOCK,
	.device_id = CFI_INTEL_J3_64MBIT,
	.query_minor = '1',
};

bool flash_place(unsigned unit, uint32_t size, uint64_t *next, uint64_t *gpa)
{
	uint64_t end = *next ? *next : PLAT_FLASH_END;

	if (size > PLAT_FLASH_MAX - (PLAT_FLASH_END - end)) {
		return false;
	}
	*next = *gpa = end - size;
	return true;
}
