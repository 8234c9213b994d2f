/*
 * Doorbells: guest writes that become an eventfd signal in the kernel (ioeventfd), so that the
 * data path never passes through a vCPU thread. Implemented by kvm/; a recorder in tests.
 * Control loop.
 */
#ifndef CORE_DOORBELL_H
#define CORE_DOORBELL_H

#include <stdint.h>

struct doorbells;
struct doorbells_ops {
	/* size 0: any width at addr; else exactly that width (1, 2, 4, 8), any value.
	 * 0 or -errno (-EEXIST: there is one). */
	int (*add)(struct doorbells *d, uint64_t mmio_addr, unsigned size, int eventfd);
	void (*del)(struct doorbells *d, uint64_t mmio_addr, unsigned size, int eventfd);
};
struct doorbells {
	const struct doorbells_ops *ops;
};

#endif
