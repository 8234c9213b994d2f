/*
 * Firmware images: read-only ROM, or flash whose content is kept in a file (UEFI
 * variables).
 */
#ifndef FIRMWARE_FLASH_H
#define FIRMWARE_FLASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/vm.h"

struct flash_config {
	const char *option; /* for messages: "-bios", "-drive if=pflash,unit=1" */
	const char *path; /* NULL: no file, the content is lost with the machine */
	bool readonly;
	uint32_t volatile_size; /* without a file */
};
#define FLASH_MAX_UNITS 2

/* Maps the units, on x86 so that unit[0] ends at 4 GiB and each further one directly below the one
 * before, on Arm at multiples of 64 MiB from 0 on, as QEMU does with pflash drives; -bios is one
 * read-only unit. A file is a multiple of 4 KiB, together at most 16 MiB on x86, 64 MiB each on Arm. Read-only files are copied; writable ones are locked, copied, and
 * changes written back as described in flash.c. Each writable unit is a device "flash#N" of
 * vm->devices, which destroys it and so writes back what is left.
 *
 * Errors name option, file and remedy: -ENOENT, -EACCES, -EINVAL (size), -EBUSY (another process
 * has it). Nothing is left behind on error. Opens files: before isolation. Control loop. */
int flash_new(struct vm *vm, const struct flash_config *unit, unsigned nunits, struct err *err);

#endif
