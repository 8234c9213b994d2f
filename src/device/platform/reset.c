/*
 * Reset through port 0x64: what firmware (OVMF's warm reset) and Linux's reboot=k write to the
 * keyboard controller that is not there. Reads give all-ones, as from an empty bus.
 *
 * Threads: accesses on vCPU threads, without state. Untrusted: the guest.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "core/power.h"
#include "device/platform/platform_int.h"
#include "device/platform/reset.h"
#include "spec/platform_x86.h"

struct reset_port {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
};

static uint64_t port_read(void *opaque, uint64_t off, unsigned size)
{
	return UINT64_MAX;
}

static void port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct reset_port *r = opaque;

	if ((uint8_t)value == PLAT_KBC_RESET) {
		r->vm->power->request(r->vm->power, POWER_RESET);
	}
}

static const struct bus_ops port_ops = {
	.read = port_read,
	.write = port_write,
	.min_size = 1,
	.max_size = 1,
};

static void reset_reset(struct device *d)
{
	/* no state */
}

static void reset_destroy(struct device *d)
{
	struct reset_port *r = container_of(d, struct reset_port, dev);

	bus_del(r->vm->bus, &r->region);
	free(r);
}

static const struct device_ops reset_ops = {
	.name = "reset",
	.reset = reset_reset,
	.destroy = reset_destroy,
};

int reset_new(struct vm *vm, struct err *err)
{
	struct reset_port *r = calloc(1, sizeof(*r));
	int ret;

	if (!r) {
		return err_set(err, ENOMEM, "no memory for the reset port");
	}
	r->vm = vm;
	r->region = (struct bus_region){
		.name = "reset",
		.space = BUS_PIO,
		.base = PLAT_KBC_PORT,
		.size = 1,
		.ops = &port_ops,
		.opaque = r,
	};
	ret = platform_add(vm, &r->dev, &reset_ops, "reset", &r->region, err);
	if (ret) {
		free(r);
	}
	return ret;
}
