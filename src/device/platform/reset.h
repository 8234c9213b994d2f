/*
 * Reset by the keyboard controller's command: 0xFE written to port 0x64. Nothing else of an
 * i8042 is there. (Port 0xCF9 belongs to the PCI host bridge.)
 */
#ifndef DEVICE_PLATFORM_RESET_H
#define DEVICE_PLATFORM_RESET_H

#include "base/err.h"
#include "core/vm.h"

/* Makes the device "reset" and registers it in vm->devices, which destroys it. The request
 * goes to vm->power. Control loop. */
int reset_new(struct vm *vm, struct err *err);

#endif
