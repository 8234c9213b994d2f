/*
 * Generic event device: one selector register that says what happened, one edge interrupt.
 */
#ifndef DEVICE_PLATFORM_GED_H
#define DEVICE_PLATFORM_GED_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct ged;
/* Makes the device "ged" with its register at base and registers it in vm->devices,
 * which destroys it. Control loop. */
int ged_new(struct vm *vm, uint64_t base, struct irq_line line, struct ged **out, struct err *err);
/* Tells the guest of these events (PLAT_GED_*). Any thread. */
void ged_raise(struct ged *g, uint32_t events);

#endif
