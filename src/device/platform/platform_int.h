/*
 * What the platform devices share.
 */
#ifndef DEVICE_PLATFORM_PLATFORM_INT_H
#define DEVICE_PLATFORM_PLATFORM_INT_H

#include "core/bus.h"
#include "core/device.h"
#include "core/vm.h"

/* The region goes on the bus and the device into the list, or neither: 0 or -errno with a
 * sentence that begins with the id. Control loop. */
int platform_add(struct vm *vm, struct device *d, const struct device_ops *ops, const char *id,
		 struct bus_region *r, struct err *err);

#endif
