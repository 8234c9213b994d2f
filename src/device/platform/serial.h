/*
 * A serial port of the platform on a character back end.
 */
#ifndef DEVICE_PLATFORM_SERIAL_H
#define DEVICE_PLATFORM_SERIAL_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct chr;
struct serial_config {
	const char *id; /* "serial0" */
	uint64_t base;	/* port or address */
	struct irq_line line;
	struct chr *chr; /* NULL: what is sent vanishes, nothing arrives */
};
/* Registers the device in vm->devices, which destroys it (and then detaches from chr). -EBUSY
 * if chr has a client already. Control loop. */
int uart_new(struct vm *vm, const struct serial_config *cfg, struct err *err);	/* 16550A */
int pl011_new(struct vm *vm, const struct serial_config *cfg, struct err *err); /* PL011 */

#endif
