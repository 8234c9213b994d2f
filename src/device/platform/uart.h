/*
 * 16550A UART on a character back end.
 */
#ifndef DEVICE_PLATFORM_UART_H
#define DEVICE_PLATFORM_UART_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct chr;
struct uart_config {
	const char *id; /* "serial0" */
	uint16_t port;
	struct irq_line line;
	struct chr *chr; /* NULL: what is sent vanishes, nothing arrives */
};
/* Registers the device in vm->devices, which destroys it (and then detaches from chr). -EBUSY
 * if chr has a client already. Control loop. */
int uart_new(struct vm *vm, const struct uart_config *cfg, struct err *err);

#endif
