/*
 * What a device may use of its machine: one pointer table, so that a device can be built in a
 * unit test from fakes. Everything here outlives the devices.
 */
#ifndef CORE_VM_H
#define CORE_VM_H

struct bus;
struct mem;
struct irqchip;
struct doorbells;
struct power;
struct loop;
struct device_list;

struct vm {
	struct loop *loop; /* the control loop: owns configuration */
	struct bus *bus;
	struct mem *mem;
	struct irqchip *irq;
	struct doorbells *doorbells;
	struct power *power;
	struct device_list *devices;
};

#endif
