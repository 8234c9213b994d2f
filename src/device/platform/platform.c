/* See platform_int.h. */
#include <string.h>

#include "device/platform/platform_int.h"

int platform_add(struct vm *vm, struct device *d, const struct device_ops *ops, const char *id,
		 struct bus_region *r, struct err *err)
{
	int ret = bus_add(vm->bus, r);

	if (ret) {
		return err_set(err, -ret, "%s: cannot use the %s at 0x%llx: %s", id,
			       r->space == BUS_PIO ? "ports" : "addresses",
			       (unsigned long long)r->base, strerror(-ret));
	}
	ret = device_add(vm->devices, d, ops, id, err);
	if (ret) {
		bus_del(vm->bus, r);
	}
	return ret;
}
