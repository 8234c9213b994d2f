/*
 * Interrupts as devices see them. Implemented by kvm/ (GSI routes, irqfd) and, in tests, by a
 * recorder. Any thread may trigger; routes and lines are set up by the control loop.
 */
#ifndef CORE_IRQ_H
#define CORE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct irqchip;
struct irqchip_ops {
	/* Delivers now. source: the PCI requester id (bus << 8 | devfn) of who sends, which an
	 * interrupt translation service goes by; 0 for others. 0 or -errno. Any thread. */
	int (*msi_send)(struct irqchip *c, uint64_t addr, uint32_t data, uint32_t source);
	/* A GSI for an MSI route, or -ENOSPC. Control loop. */
	int (*gsi_alloc)(struct irqchip *c);
	void (*gsi_free)(struct irqchip *c, int gsi);
	/* Sets the message of a GSI (also of one of the IOAPIC's pins, so that KVM reports EOIs);
	 * valid=false removes the route. Commits at once. An eventfd that is signalled while
	 * its GSI has no route may still interrupt if a route follows within milliseconds
	 * (KVM looks it up from a work item), so masking is irqfd(…, false), not this. Control
	 * loop. */
	int (*route_set)(struct irqchip *c, int gsi, bool valid, uint64_t addr, uint32_t data,
			 uint32_t source);
	/* Binds an eventfd to the GSI, or unbinds it. Control loop. */
	int (*irqfd)(struct irqchip *c, int gsi, int fd, bool assign);
};
struct irqchip {
	const struct irqchip_ops *ops;
};

/* An interrupt line of a platform device: edge or level pins of the IOAPIC (GIC on Arm). */
struct irq_line {
	void (*set)(void *opaque, unsigned pin, bool level); /* any thread */
	void *opaque;
	unsigned pin;
};
static inline void irq_line_set(const struct irq_line *l, bool level)
{
	if (l->set) {
		l->set(l->opaque, l->pin, level);
	}
}
static inline void irq_line_pulse(const struct irq_line *l)
{
	irq_line_set(l, true);
	irq_line_set(l, false);
}

#endif
