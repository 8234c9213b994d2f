/*
 * The I/O APIC in user space, beside KVM's local APICs (split irqchip): 24 pins, each an MSI
 * once the guest has programmed it.
 */
#ifndef DEVICE_PLATFORM_IOAPIC_H
#define DEVICE_PLATFORM_IOAPIC_H

#include <stdint.h>

#include "base/err.h"
#include "core/irq.h"
#include "core/vm.h"

struct ioapic;

/* Makes the device "ioapic" at its fixed address (spec/platform_x86.h) and registers it in
 * vm->devices, which destroys it. GSIs 0..23 of vm->irq must belong to it. Control loop. */
int ioapic_new(struct vm *vm, struct ioapic **out, struct err *err);

/* The line of a pin (0..23), for devices; valid while the I/O APIC lives. */
struct irq_line ioapic_line(struct ioapic *io, unsigned pin);

/* A local APIC completed this vector, which KVM reports for vectors of level-triggered routes.
 * Any thread (the vCPU that made the exit). */
void ioapic_eoi(struct ioapic *io, uint8_t vector);

#endif
