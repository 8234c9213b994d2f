/*
 * BARs and bridge windows: what is on the bus follows the registers.
 *
 * A BAR is wanted at an address when it is assigned, its function decodes that space and is in
 * D0, and every bridge above forwards the whole of it. After any write that may matter, the
 * function (a bridge: everything behind it, too) is looked at again in two passes, first
 * everything that has to leave, then what has to appear, so that BARs can change places.
 *
 * A wanted BAR that does not fit because something else is there is a conflict: it is logged
 * and not decoded. While a machine has conflicts, every change looks at all functions, so that
 * the loser appears as soon as the place is free.
 *
 * "Assigned" leaves out address 0, what runs over the end of the BAR's address space, and what
 * touches its last byte: that is how a BAR looks while it is being sized.
 *
 * PCI Express 5.0, 7.5.1.2.1 and 7.5.1.3. Control loop. Untrusted: the registers.
 */
#include <assert.h>
#include <inttypes.h>

#include "base/log.h"
#include "pci/pci_int.h"
#include "pci/trace.h"
#include "spec/pci.h"

static unsigned bar_reg(unsigned bar)
{
	return PCI_BAR0 + 4 * bar;
}

void pci_bar_init(struct pci_func *f, unsigned bar, uint64_t size, unsigned flags)
{
	bool io = flags & PCI_BAR_IO, wide = flags & PCI_BAR_64;
	uint32_t low = io ? PCI_BAR_IO_SPACE : 0;

	assert(bar + wide < (pci_is_bridge(f) ? 2 : 6) && f->bar[bar].size == 0);
	assert(bar == 0 || !(f->bar[bar - 1].flags & PCI_BAR_64));
	assert(is_pow2(size) && size >= (io ? 16 : 4096) &&
	       size <= (io ? 256u : 1 * GiB * GiB));
	assert(wide || size <= 2 * GiB);
	if (!io) {
		low |= wide ? PCI_BAR_MEM_64 : 0;
		low |= flags & PCI_BAR_PREFETCH ? PCI_BAR_PREFETCHABLE : 0;
	}
	f->bar[bar].size = size;
	f->bar[bar].flags = flags;
	pci_set32(f, bar_reg(bar), low);
	pci_wmask_set32(f, bar_reg(bar), (uint32_t) ~(size - 1));
	if (wide) {
		pci_wmask_set32(f, bar_reg(bar + 1), (uint32_t)(~(size - 1) >> 32));
	}
	if (io) {
		f->wmask[PCI_COMMAND] |= PCI_COMMAND_IO;
	}
}

void pci_bar_region(struct pci_func *f, unsigned bar, uint64_t off, uint64_t size,
		    const char *name, const struct bus_ops *ops, void *opaque,
		    struct loop *owner)
{
	struct pci_bar *b = &f->bar[bar];

	assert(b->nregions < ARRAY_SIZE(b->region) && range_within(off, size, b->size));
	b->region_off[b->nregions] = off;
	b->region[b->nregions++] = (struct bus_region){
		.name = name,
		.device = f->name,
		.space = b->flags & PCI_BAR_IO ? BUS_PIO : BUS_MMIO,
		.size = size,
		.ops = ops,
		.opaque = opaque,
		.owner = owner,
	};
}

bool pci_bar_address(const struct pci_func *f, unsigned bar, uint64_t *addr)
{
	const struct pci_bar *b = &f->bar[bar];
	uint64_t top, last;

	if (b->size == 0) {
		return false;
	}
	*addr = pci_get32(f, bar_reg(bar));
	if (b->flags & PCI_BAR_IO) {
		*addr &= ~UINT64_C(3);
		top = UINT16_MAX;
	} else if (b->flags & PCI_BAR_64) {
		*addr = (*addr & ~UINT64_C(15)) | (uint64_t)pci_get32(f, bar_reg(bar + 1))
							  << 32;
		top = UINT64_MAX;
	} else {
		*addr &= ~UINT64_C(15);
		top = UINT32_MAX;
	}
	last = *addr + (b->size - 1);
	return *addr != 0 && last > *addr && last < top;
}

bool pci_bridge_window(const struct pci_func *f, bool prefetch, uint64_t *base, uint64_t *last)
{
	unsigned reg = prefetch ? PCI_PREFETCH_BASE : PCI_MEMORY_BASE;

	*base = (uint64_t)(pci_get16(f, reg) & PCI_WINDOW_ADDRESS) << 16;
	*last = (uint64_t)(pci_get16(f, reg + 2) & PCI_WINDOW_ADDRESS) << 16 | 0xfffff;
	if (prefetch) {
		*base |= (uint64_t)pci_get32(f, PCI_PREFETCH_BASE_UPPER) << 32;
		*last |= (uint64_t)pci_get32(f, PCI_PREFETCH_LIMIT_UPPER) << 32;
	}
	return *base <= *last;
}

/* Does the bridge pass [addr, last] down? */
static bool bridge_forwards(const struct pci_func *f, bool io, uint64_t addr, uint64_t last)
{
	uint64_t wbase, wlast;

	if (io || !(pci_get16(f, PCI_COMMAND) & PCI_COMMAND_MEMORY) || !pci_in_d0(f) ||
	    !pci_port_link_up(f)) {
		return false;
	}
	for (int prefetch = 0; prefetch < 2; prefetch++) {
		if (pci_bridge_window(f, prefetch, &wbase, &wlast) && addr >= wbase &&
		    last <= wlast) {
			return true;
		}
	}
	return false;
}

static bool bar_wanted(const struct pci_func *f, unsigned bar, uint64_t *addr)
{
	bool io = f->bar[bar].flags & PCI_BAR_IO;
	uint16_t decode = io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

	if (!pci_bar_address(f, bar, addr) || !(pci_get16(f, PCI_COMMAND) & decode) ||
	    !pci_in_d0(f)) {
		return false;
	}
	for (const struct pci_func *up = f->bus->bridge; up; up = up->bus->bridge) {
		if (!bridge_forwards(up, io, *addr, *addr + (f->bar[bar].size - 1))) {
			return false;
		}
	}
	return true;
}

static void bar_unmap(struct pci_func *f, unsigned bar)
{
	struct pci_bar *b = &f->bar[bar];

	for (unsigned i = 0; i < b->nregions; i++) {
		bus_del(f->vm->bus, &b->region[i]);
	}
	b->mapped = false;
	trace_pci_bar_unmap(f->name, bar, b->mapped_addr);
	if (f->ops && f->ops->bar_changed) {
		f->ops->bar_changed(f, bar, false, 0);
	}
}

static void bar_conflict(struct pci_func *f, unsigned bar, bool conflict)
{
	struct pci_bar *b = &f->bar[bar];

	if (b->conflict != conflict) {
		b->conflict = conflict;
		pci_root(f)->conflicts += conflict ? 1 : -1u;
	}
}

static void bar_map(struct pci_func *f, unsigned bar, uint64_t addr)
{
	struct pci_bar *b = &f->bar[bar];

	for (unsigned i = 0; i < b->nregions; i++) {
		int rc;

		b->region[i].base = addr + b->region_off[i];
		rc = bus_add(f->vm->bus, &b->region[i]);
		if (rc == 0) {
			continue;
		}
		while (i-- > 0) {
			bus_del(f->vm->bus, &b->region[i]);
		}
		if (!b->conflict) {
			log_guest(f->name,
				  "BAR %u at 0x%" PRIx64
				  " is not decoded: something else is there",
				  bar, addr);
		}
		bar_conflict(f, bar, true);
		return;
	}
	bar_conflict(f, bar, false);
	b->mapped = true;
	b->mapped_addr = addr;
	trace_pci_bar_map(f->name, bar, addr, b->size);
	if (f->ops && f->ops->bar_changed) {
		f->ops->bar_changed(f, bar, true, addr);
	}
}

static int func_leave(struct pci_func *f, void *arg)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f->bar); i++) {
		struct pci_bar *b = &f->bar[i];
		uint64_t addr;
		bool wanted;

		if (!b->mapped && !b->conflict) {
			continue;
		}
		wanted = bar_wanted(f, i, &addr);
		if (b->mapped && !(wanted && addr == b->mapped_addr)) {
			bar_unmap(f, i);
		}
		if (b->conflict && !wanted) {
			bar_conflict(f, i, false);
		}
	}
	return 0;
}

static int func_appear(struct pci_func *f, void *arg)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f->bar); i++) {
		uint64_t addr;

		if (!f->bar[i].mapped && bar_wanted(f, i, &addr)) {
			bar_map(f, i, addr);
		}
	}
	return 0;
}

void pci_bars_update(struct pci_func *f)
{
	struct pci_bus *root = pci_root(f);

	pci_for_each_from(f, func_leave, NULL);
	if (root->conflicts) {
		pci_for_each(root, func_appear, NULL);
	} else {
		pci_for_each_from(f, func_appear, NULL);
	}
}

void pci_bars_unmap(struct pci_func *f)
{
	struct pci_bus *root = pci_root(f);

	for (unsigned i = 0; i < ARRAY_SIZE(f->bar); i++) {
		if (f->bar[i].mapped) {
			bar_unmap(f, i);
		}
		bar_conflict(f, i, false);
	}
	if (root->conflicts) {
		pci_for_each(root, func_appear, NULL);
	}
}
