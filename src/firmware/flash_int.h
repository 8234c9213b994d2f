/*
 * Between flash_open.c and flash.c.
 */
#ifndef FIRMWARE_FLASH_INT_H
#define FIRMWARE_FLASH_INT_H

#include "core/device.h"
#include "firmware/flash.h"
#include "mem/mem.h"

#define FLASH_BLOCK UINT32_C(4096) /* erase block, and the unit of sizes */

/* The device around a mapped region that holds the content of fd, opened for durable writes.
 * On success fd and rom are the device's, on error they stay the caller's. */
int flash_device_new(struct vm *vm, const char *id, const char *path, int fd,
		     struct mem_region *rom, struct err *err);
/* Removes and destroys it, for a start that fails later. */
void flash_device_undo(struct device *d);

#endif
