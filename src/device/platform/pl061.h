/*
 * PrimeCell GPIO (PL061) with a key on one of its pins.
 */
#ifndef DEVICE_PLATFORM_PL061_H
#define DEVICE_PLATFORM_PL061_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct pl061;
/* The device "gpio" of vm->devices, which destroys it. Control loop. */
int pl061_new(struct vm *vm, uint64_t base, struct irq_line line, struct pl061 **out,
	      struct err *err);
/* The pin goes high, and low again a tenth of a second later: somebody presses a key. Control
 * loop. */
void pl061_press(struct pl061 *g, unsigned pin);

#endif
