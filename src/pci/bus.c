/*
 * Buses: which function is where, and how the guest reaches it.
 *
 * Bus 0 is the root bus. A function on another bus is found by following the secondary and
 * subordinate bus numbers that the guest wrote into the bridges. A bridge whose secondary
 * number is 0 leads nowhere (0 is taken); of two bridges that claim a number the lower one has
 * it. The search goes down a tree that the configuration made, so numbers cannot make it loop.
 *
 * Threads: pci_find() any; changes the control loop, before the guest runs.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pci/msix.h"
#include "pci/pci_int.h"
#include "spec/pci.h"

#define FUNCS_PER_SLOT 8

void pci_bus_init(struct pci_bus *b, struct vm *vm, const char *name, struct pci_func *bridge,
		  unsigned slots)
{
	assert(slots >= 1 && slots <= 32);
	*b = (struct pci_bus){.vm = vm, .bridge = bridge, .slots = slots};
	snprintf(b->name, sizeof(b->name), "%s", name);
}

uint16_t pci_requester_id(const struct pci_func *f)
{
	const struct pci_func *bridge = f->bus->bridge;

	return (uint16_t)((bridge ? bridge->cfg[PCI_SECONDARY_BUS] << 8 : 0) | f->devfn);
}

struct pci_bus *pci_root(const struct pci_func *f)
{
	struct pci_bus *b = f->bus;

	while (b->bridge) {
		b = b->bridge->bus;
	}
	return b;
}

struct pci_func *pci_bus_func(const struct pci_bus *b, uint8_t devfn)
{
	return __atomic_load_n(&b->func[devfn], __ATOMIC_ACQUIRE);
}

int pci_parse_addr(const char *text, int *devfn, struct err *err)
{
	unsigned long slot, fn = 0;
	char *end;

	*devfn = -1;
	if (!text) {
		return 0;
	}
	/* strtoul() would take a sign, blanks and 0x. */
	if (strspn(text, "0123456789abcdefABCDEF.") != strlen(text) || strlen(text) > 4) {
		goto bad;
	}
	slot = strtoul(text, &end, 16);
	if (end == text || slot > 31) {
		goto bad;
	}
	if (*end == '.') {
		text = end + 1;
		fn = strtoul(text, &end, 16);
		if (end == text || fn >= FUNCS_PER_SLOT) {
			goto bad;
		}
	}
	if (*end) {
		goto bad;
	}
	*devfn = PCI_DEVFN((int)slot, (int)fn);
	return 0;
bad:
	return err_set(err, EINVAL,
		       "addr=%s is no PCI address: use SLOT or SLOT.FUNCTION in hexadecimal, "
		       "slot 0 to 1f, function 0 to 7",
		       text);
}

static const struct pci_func *slot_any(const struct pci_bus *b, unsigned slot)
{
	for (unsigned fn = 0; fn < FUNCS_PER_SLOT; fn++) {
		const struct pci_func *f = b->func[PCI_DEVFN(slot, fn)];

		if (f) {
			return f;
		}
	}
	return NULL;
}

/* Where f may go, or -errno with a sentence. */
static int bus_place(const struct pci_bus *b, const struct pci_func *f, int devfn,
		     const char *name, struct err *err)
{
	unsigned slot = (unsigned)devfn / FUNCS_PER_SLOT;
	const struct pci_func *first, *other;

	if (devfn < 0) {
		/* Slot 0 of the root bus is the host bridge's, on machines without one as well. */
		for (slot = b->bridge ? 0 : 1; slot < b->slots; slot++) {
			if (!slot_any(b, slot)) {
				return (int)PCI_DEVFN(slot, 0);
			}
		}
		return err_set(err, ENOSPC,
			       "%s: no slot is free on PCI bus '%s': put it on another bus",
			       name, b->name);
	}
	assert(devfn < 256);
	if (slot >= b->slots) {
		return err_set(err, EINVAL, "%s: PCI bus '%s' has only slot 0: use addr=0",
			       name, b->name);
	}
	other = b->func[devfn];
	if (other) {
		return err_set(
			err, EBUSY,
			"%s: address %x.%x of PCI bus '%s' belongs to '%s': choose another "
			"addr",
			name, slot, (unsigned)devfn % FUNCS_PER_SLOT, b->name, other->name);
	}
	/* The guest looks at functions 1 to 7 only if function 0 says that they exist. */
	first = b->func[PCI_DEVFN(slot, 0)];
	other = slot_any(b, slot);
	if ((first && !first->multifunction) ||
	    (other && devfn % FUNCS_PER_SLOT == 0 && !f->multifunction)) {
		return err_set(
			err, EBUSY,
			"%s: slot %x of PCI bus '%s' is shared with '%s': give function 0 "
			"multifunction=on",
			name, slot, b->name, other->name);
	}
	return devfn;
}

static void header_init(struct pci_func *f)
{
	bool bridge = pci_is_bridge(f);

	f->cap_end = PCI_HEADER_SIZE;
	f->ext_cap_end = PCI_EXT_CAP_FIRST;
	pci_set8(f, PCI_HEADER_TYPE,
		 (uint8_t)((bridge ? PCI_HEADER_TYPE_1 : PCI_HEADER_TYPE_0) |
			   (f->multifunction ? PCI_HEADER_TYPE_MULTI : 0)));
	pci_wmask_set16(f, PCI_COMMAND,
			PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
				PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	pci_w1c_set16(f, PCI_STATUS, PCI_STATUS_RW1C);
	f->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
	f->wmask[PCI_INTERRUPT_LINE] = 0xff;
	if (!bridge) {
		return;
	}
	f->wmask[PCI_PRIMARY_BUS] = 0xff;
	f->wmask[PCI_SECONDARY_BUS] = 0xff;
	f->wmask[PCI_SUBORDINATE_BUS] = 0xff;
	pci_w1c_set16(f, PCI_SECONDARY_STATUS, PCI_STATUS_RW1C);
	/* No I/O window: its registers stay 0. The others start closed, base above limit. */
	pci_wmask_set16(f, PCI_MEMORY_BASE, PCI_WINDOW_ADDRESS);
	pci_wmask_set16(f, PCI_MEMORY_LIMIT, PCI_WINDOW_ADDRESS);
	pci_set16(f, PCI_MEMORY_BASE, PCI_WINDOW_ADDRESS);
	pci_wmask_set16(f, PCI_PREFETCH_BASE, PCI_WINDOW_ADDRESS);
	pci_wmask_set16(f, PCI_PREFETCH_LIMIT, PCI_WINDOW_ADDRESS);
	pci_set16(f, PCI_PREFETCH_BASE, PCI_WINDOW_ADDRESS | PCI_PREFETCH_64);
	pci_set16(f, PCI_PREFETCH_LIMIT, PCI_PREFETCH_64);
	pci_wmask_set32(f, PCI_PREFETCH_BASE_UPPER, UINT32_MAX);
	pci_wmask_set32(f, PCI_PREFETCH_LIMIT_UPPER, UINT32_MAX);
	pci_wmask_set16(f, PCI_BRIDGE_CONTROL,
			PCI_BRIDGE_PARITY | PCI_BRIDGE_SERR | PCI_BRIDGE_RESET);
}

int pci_func_add(struct pci_func *f, struct pci_bus *bus, int devfn, const char *name,
		 const struct pci_func_ops *ops, struct err *err)
{
	int at = bus_place(bus, f, devfn, name, err);

	if (at < 0) {
		return at;
	}
	f->ops = ops;
	f->vm = bus->vm;
	f->bus = bus;
	f->devfn = (uint8_t)at;
	snprintf(f->name, sizeof(f->name), "%s", name);
	header_init(f);
	__atomic_store_n(&bus->func[at], f, __ATOMIC_RELEASE);
	if (bus->bridge) {
		pci_port_update(bus->bridge);
	}
	return 0;
}

void pci_func_remove(struct pci_func *f)
{
	struct pci_bus *bus = f->bus;

	if (!bus) {
		return;
	}
	__atomic_store_n(&bus->func[f->devfn], NULL, __ATOMIC_RELEASE);
	pci_bars_unmap(f);
	if (bus->bridge) {
		pci_port_update(bus->bridge);
	}
	f->bus = NULL;
}

struct pci_func *pci_find(struct pci_bus *root, uint8_t bus, uint8_t devfn)
{
	struct pci_bus *b = root;

	if (bus == 0) {
		return pci_bus_func(root, devfn);
	}
	while (b) {
		struct pci_bus *next = NULL;

		for (unsigned i = 0; i < ARRAY_SIZE(b->func); i++) {
			const struct pci_func *f = pci_bus_func(b, (uint8_t)i);
			uint32_t numbers;
			uint8_t secondary, subordinate;

			if (!f || !pci_is_bridge(f)) {
				continue;
			}
			numbers = pci_get32(f, PCI_PRIMARY_BUS);
			secondary = (uint8_t)(numbers >> 8);
			subordinate = (uint8_t)(numbers >> 16);
			if (secondary == 0 || bus < secondary || bus > subordinate) {
				continue;
			}
			if (!pci_in_d0(f) || !pci_port_link_up(f)) {
				return NULL;
			}
			if (bus == secondary) {
				return pci_bus_func(f->secondary, devfn);
			}
			next = f->secondary;
			break;
		}
		b = next;
	}
	return NULL;
}

static int for_each_on(struct pci_bus *b, int (*fn)(struct pci_func *f, void *arg), void *arg)
{
	int rc = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(b->func) && rc == 0; i++) {
		if (b->func[i]) {
			rc = pci_for_each_from(b->func[i], fn, arg);
		}
	}
	return rc;
}

int pci_for_each_from(struct pci_func *f, int (*fn)(struct pci_func *f, void *arg), void *arg)
{
	int rc = fn(f, arg);

	return rc == 0 && pci_is_bridge(f) ? for_each_on(f->secondary, fn, arg) : rc;
}

int pci_for_each(struct pci_bus *root, int (*fn)(struct pci_func *f, void *arg), void *arg)
{
	return for_each_on(root, fn, arg);
}
