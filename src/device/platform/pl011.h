/*
 * PrimeCell UART (PL011) on a character back end.
 */
#ifndef DEVICE_PLATFORM_PL011_H
#define DEVICE_PLATFORM_PL011_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct chr;
struct pl011_config {
	const char *id; /* "serial0" */
	uint64_t base;
	struct irq_line line;
	struct chr *chr; /* NULL: what is sent vanishes, nothing arrives */
};
/* Registers the device in vm->devices, which destroys it (and then detaches from chr). -EBUSY
 * if chr has a client already. Control loop. */
int pl011_new(struct vm *vm, const struct pl011_config *cfg, struct err *err);

#endif
