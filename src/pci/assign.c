/*
 * Assigning bus numbers, bridge windows and BARs, for boots without firmware.
 *
 * What a bus needs of each of the two windows is laid out from address 0 first, children before
 * parents, the largest alignment first; the window of a bridge is then an item like a BAR, of
 * its bus's needs rounded up to whole mebibytes, and whatever is laid out inside it keeps its
 * place relative to a base with the bus's alignment. Registers are written the way a guest
 * would.
 *
 * 64-bit BARs go to the 64-bit window, but behind a bridge only prefetchable ones may, because
 * the bridge's other window has 32 bits. I/O BARs get nothing: nothing of ours needs one.
 *
 * Control loop, before the guest runs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "pci/pci_int.h"
#include "spec/pci.h"

#define BRIDGE_WINDOW (1 * MiB)

enum { WIN32, WIN64 };

struct assign {
	bool have64;
	unsigned last_bus;
};

struct item {
	struct pci_func *f;
	int bar; /* -1: the window of the bridge f */
	uint64_t size, align;
};

static int bar_window(const struct assign *a, const struct pci_func *f, unsigned bar)
{
	unsigned flags = f->bar[bar].flags;

	if (f->bar[bar].size == 0 || flags & PCI_BAR_IO) {
		return -1;
	}
	if (flags & PCI_BAR_64 && a->have64 && (!f->bus->bridge || flags & PCI_BAR_PREFETCH)) {
		return WIN64;
	}
	return WIN32;
}

static int by_alignment(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;

	if (a->align != b->align) {
		return a->align < b->align ? 1 : -1;
	}
	if (a->f->devfn != b->f->devfn) {
		return a->f->devfn < b->f->devfn ? -1 : 1;
	}
	return a->bar - b->bar;
}

/* What bus b wants of a window, largest alignment first; the caller frees. */
static int collect(const struct assign *a, const struct pci_bus *b, int win, struct item **out)
{
	struct item *items = calloc(ARRAY_SIZE(b->func) * 7, sizeof(*items));
	unsigned n = 0;

	if (!items) {
		return -ENOMEM;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(b->func); i++) {
		struct pci_func *f = b->func[i];

		if (!f) {
			continue;
		}
		for (unsigned bar = 0; bar < ARRAY_SIZE(f->bar); bar++) {
			uint64_t size = f->bar[bar].size;

			if (bar_window(a, f, bar) == win) {
				items[n++] = (struct item){f, (int)bar, size, size};
			}
		}
		if (pci_is_bridge(f) && f->secondary->need[win]) {
			items[n++] = (struct item){f, -1, f->secondary->need[win],
						   f->secondary->align[win]};
		}
	}
	qsort(items, n, sizeof(*items), by_alignment);
	*out = items;
	return (int)n;
}

static void bar_write(struct pci_func *f, unsigned bar, uint64_t addr)
{
	pci_func_cfg_write(f, PCI_BAR0 + 4 * bar, 4, (uint32_t)addr);
	if (f->bar[bar].flags & PCI_BAR_64) {
		pci_func_cfg_write(f, PCI_BAR0 + 4 * bar + 4, 4, (uint32_t)(addr >> 32));
	}
}

/* base above last closes it */
static void window_write(struct pci_func *f, int win, uint64_t base, uint64_t last)
{
	unsigned reg = win == WIN64 ? PCI_PREFETCH_BASE : PCI_MEMORY_BASE;

	pci_func_cfg_write(f, reg, 4,
			   ((uint32_t)(base >> 16) & PCI_WINDOW_ADDRESS) |
				   ((uint32_t)(last >> 16) & PCI_WINDOW_ADDRESS) << 16);
	if (win == WIN64) {
		pci_func_cfg_write(f, PCI_PREFETCH_BASE_UPPER, 4, (uint32_t)(base >> 32));
		pci_func_cfg_write(f, PCI_PREFETCH_LIMIT_UPPER, 4, (uint32_t)(last >> 32));
	}
}

/* Lays the items of bus b out in [base, end], writing registers (all the way down) if `write`.
 * *next is one past the last byte used. -ENOSPC if they do not fit. */
static int layout(const struct assign *a, struct pci_bus *b, int win, uint64_t base,
		  uint64_t end, bool write, uint64_t *next)
{
	struct item *items;
	int n = collect(a, b, win, &items), rc = 0;

	*next = base;
	if (n < 0) {
		return n;
	}
	for (int i = 0; i < n && rc == 0; i++) {
		const struct item *it = &items[i];
		uint64_t addr = align_up(*next, it->align), past, used;

		if (addr < *next || u64_add(addr, it->size, &past) || past > end) {
			rc = -ENOSPC;
			break;
		}
		*next = past;
		if (!write) {
			continue;
		}
		if (it->bar >= 0) {
			bar_write(it->f, (unsigned)it->bar, addr);
		} else {
			window_write(it->f, win, addr, past - 1);
			rc = layout(a, it->f->secondary, win, addr, past, true, &used);
		}
	}
	free(items);
	return rc;
}

/* Fills need and align of every bus below b, then of b itself. */
static int measure(const struct assign *a, struct pci_bus *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(b->func); i++) {
		if (b->func[i] && pci_is_bridge(b->func[i])) {
			int rc = measure(a, b->func[i]->secondary);

			if (rc < 0) {
				return rc;
			}
		}
	}
	for (int win = WIN32; win <= WIN64; win++) {
		struct item *items;
		int n = collect(a, b, win, &items), rc;

		if (n < 0) {
			return n;
		}
		b->align[win] = MAX(BRIDGE_WINDOW, n ? items[0].align : 0);
		free(items);
		rc = layout(a, b, win, 0, UINT64_MAX - BRIDGE_WINDOW, false, &b->need[win]);
		if (rc < 0) {
			return rc;
		}
		b->need[win] = align_up(b->need[win], BRIDGE_WINDOW);
	}
	return 0;
}

static int number_buses(struct assign *a, struct pci_bus *b, unsigned number)
{
	for (unsigned i = 0; i < ARRAY_SIZE(b->func); i++) {
		struct pci_func *f = b->func[i];
		unsigned secondary;
		int rc;

		if (!f || !pci_is_bridge(f)) {
			continue;
		}
		if (a->last_bus == UINT8_MAX) {
			return -ENOSPC;
		}
		secondary = ++a->last_bus;
		rc = number_buses(a, f->secondary, secondary);
		if (rc < 0) {
			return rc;
		}
		pci_func_cfg_write(f, PCI_PRIMARY_BUS, 4,
				   number | secondary << 8 | a->last_bus << 16);
	}
	return 0;
}

static int decode_off(struct pci_func *f, void *arg)
{
	pci_func_cfg_write(f, PCI_COMMAND, 2, 0);
	if (pci_is_bridge(f)) {
		window_write(f, WIN32, UINT32_MAX, 0);
		window_write(f, WIN64, UINT32_MAX, 0);
	}
	return 0;
}

static int decode_on(struct pci_func *f, void *arg)
{
	pci_func_cfg_write(f, PCI_COMMAND, 2,
			   PCI_COMMAND_MEMORY | (pci_is_bridge(f) ? PCI_COMMAND_MASTER : 0));
	return 0;
}

int pci_assign(struct pci_bus *root, uint64_t mem32_base, uint64_t mem32_end,
	       uint64_t mem64_base, uint64_t mem64_end, struct err *err)
{
	struct assign a = {.have64 = mem64_end > mem64_base};
	uint64_t next;
	int rc;

	pci_for_each(root, decode_off, NULL);
	rc = number_buses(&a, root, 0);
	if (rc < 0) {
		return err_set(err, ENOSPC,
			       "more than 255 PCI buses: use fewer pcie-root-port devices");
	}
	rc = measure(&a, root);
	if (rc == 0) {
		rc = layout(&a, root, WIN32, mem32_base, mem32_end, true, &next);
	}
	if (rc == 0 && a.have64) {
		rc = layout(&a, root, WIN64, mem64_base, mem64_end, true, &next);
	}
	if (rc == -ENOSPC) {
		return err_set(err, ENOSPC,
			       "the BARs of the PCI devices do not fit between 0x%" PRIx64
			       " and 0x%" PRIx64 ", 0x%" PRIx64 " and 0x%" PRIx64
			       ": use fewer devices, or smaller ones",
			       mem32_base, mem32_end, mem64_base, mem64_end);
	}
	if (rc < 0) {
		return err_set(err, -rc, "out of memory while PCI addresses are assigned");
	}
	pci_for_each(root, decode_on, NULL);
	return 0;
}

struct extent {
	uint64_t base, last;
	bool any;
};

static void extent_add(struct extent *e, uint64_t base, uint64_t last)
{
	if (base < 4 * GiB) {
		return;
	}
	e->base = e->any ? MIN(e->base, base) : base;
	e->last = e->any ? MAX(e->last, last) : last;
	e->any = true;
}

static int extent_of(struct pci_func *f, void *arg)
{
	struct extent *e = arg;
	uint64_t base, last;

	for (unsigned bar = 0; bar < ARRAY_SIZE(f->bar); bar++) {
		if (f->bar[bar].flags & PCI_BAR_64 && pci_bar_address(f, bar, &base)) {
			extent_add(e, base, base + (f->bar[bar].size - 1));
		}
	}
	if (pci_is_bridge(f) && pci_bridge_window(f, true, &base, &last)) {
		extent_add(e, base, last);
	}
	return 0;
}

static int last_bus_of(struct pci_func *f, void *arg)
{
	uint8_t *last = arg;

	if (pci_is_bridge(f)) {
		*last = MAX(*last, (uint8_t)pci_get16(f, PCI_SUBORDINATE_BUS));
	}
	return 0;
}

uint8_t pci_last_bus(struct pci_bus *root)
{
	uint8_t last = 0;

	pci_for_each(root, last_bus_of, &last);
	return last;
}

bool pci_mem64_extent(struct pci_bus *root, uint64_t *base, uint64_t *end)
{
	struct extent e = {0};

	pci_for_each(root, extent_of, &e);
	*base = e.base;
	*end = e.last == UINT64_MAX ? UINT64_MAX : e.last + 1;
	return e.any;
}
