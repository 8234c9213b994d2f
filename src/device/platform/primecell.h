/*
 * The PrimeCells of the AArch64 machine beside its UART (serial.h): real-time clock (PL031), GPIO
 * (PL061). Each becomes a device of vm->devices, which destroys it. Control loop.
 */
#ifndef DEVICE_PLATFORM_PRIMECELL_H
#define DEVICE_PLATFORM_PRIMECELL_H

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
/* The device "rtc". */
int pl031_new(struct vm *vm, const struct pl031_config *cfg, struct err *err);

struct pl061;
/* The device "gpio". */
int pl061_new(struct vm *vm, uint64_t base, struct irq_line line, struct pl061 **out,
	      struct err *err);
/* The pin goes high, and low again a tenth of a second later: somebody presses a key. */
void pl061_press(struct pl061 *g, unsigned pin);

#endif
