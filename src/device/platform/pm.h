/*
 * Power management ports 0x600-0x60B: ACPI sleep control and status, the PM timer.
 */
#ifndef DEVICE_PLATFORM_PM_H
#define DEVICE_PLATFORM_PM_H

#include "base/err.h"
#include "core/vm.h"

/* Makes the device "pm" and registers it in vm->devices, which destroys it. Power-off goes to
 * vm->power. Control loop. */
int pm_new(struct vm *vm, struct err *err);

#endif
