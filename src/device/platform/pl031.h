/*
 * PrimeCell real time clock (PL031).
 */
#ifndef DEVICE_PLATFORM_PL031_H
#define DEVICE_PLATFORM_PL031_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct pl031_config {
	uint64_t base;
	struct irq_line line;
	int64_t offset_s;	      /* added to the host's UTC */
	int64_t (*now)(void *opaque); /* ns since 1970; NULL: the host's clock */
	void *opaque;
};
/* The device "rtc" of vm->devices, which destroys it. Control loop. */
int pl031_new(struct vm *vm, const struct pl031_config *cfg, struct err *err);

#endif
