/*
 * A PCI function for the tests of pci/: BAR 0 is 32-bit memory (4 KiB, one register block), BAR
 * 2 64-bit prefetchable memory (16 KiB: a register block, the MSI-X table at 0x1000, the PBA at
 * 0x2000), BAR 4 I/O (32 bytes). Reads of a block give TOY_MARK + BAR number + 256 * tag.
 */
#ifndef TEST_TOY_H
#define TEST_TOY_H

#include "core/device.h"
#include "pci/pci.h"

#define TOY_VENDOR 0x1b36
#define TOY_DEVICE 0x7077
#define TOY_MARK   0x70000000u
#define TOY_NVEC   40

struct toy {
	struct device dev;
	struct pci_func func;
	unsigned tag;
	uint32_t written[6]; /* last value written to a BAR's block */
	unsigned maps[6], unmaps[6];
	uint64_t addr[6]; /* where bar_changed() last put it; 0: away */
	unsigned cfg_writes, bus_resets;
	struct toy_block {
		struct toy *toy;
		unsigned bar;
	} block[6];
};

/* nvec 0: no MSI-X. The device id is "toy-" and the tag. */
struct toy *toy_new(struct vm *vm, struct pci_bus *bus, int devfn, unsigned nvec, unsigned tag);

#endif
