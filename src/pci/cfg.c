/*
 * Configuration space: registers, masks, capabilities and what follows from a write.
 *
 * The registers are kept as the bytes the guest reads. Every access here is of one aligned
 * dword, relaxed atomic, so a reader on a vCPU's thread never sees half of a write that runs on
 * the control loop. A bit is one of: writable (wmask), cleared by writing 1 (w1c), or read-only
 * to the guest (neither); the host's pci_set*() change any.
 *
 * A function without the PCI Express capability is a conventional one, whose configuration space
 * ends at 256 bytes: beyond, nothing answers.
 *
 * PCI Express 5.0, 7.5.1. Untrusted: offsets are checked by pci_cfg_read() and pci_cfg_write(),
 * values go through the masks.
 */
#include <assert.h>
#include <string.h>

#include "pci/msi.h"
#include "pci/msix.h"
#include "pci/pci_int.h"
#include "spec/pci.h"

static uint32_t dword_load(const uint8_t *space, unsigned off)
{
	return __atomic_load_n((const uint32_t *)(const void *)&space[off & ~3u],
			       __ATOMIC_RELAXED);
}

static void dword_store(uint8_t *space, unsigned off, uint32_t v)
{
	__atomic_store_n((uint32_t *)(void *)&space[off & ~3u], v, __ATOMIC_RELAXED);
}

/* The bits of an aligned dword that an access of len bytes at off covers. */
static uint32_t lanes(unsigned off, unsigned len)
{
	return (uint32_t)(((UINT64_C(1) << (8 * len)) - 1) << (8 * (off & 3)));
}

static uint32_t reg_get(const uint8_t *space, unsigned off, unsigned len)
{
	assert((off & 3) + len <= 4 && off + len <= PCI_CFG_SIZE);
	return (dword_load(space, off) & lanes(off, len)) >> (8 * (off & 3));
}

static void reg_set(uint8_t *space, unsigned off, unsigned len, uint32_t v)
{
	uint32_t bits = lanes(off, len);

	assert((off & 3) + len <= 4 && off + len <= PCI_CFG_SIZE);
	dword_store(space, off,
		    (dword_load(space, off) & ~bits) | (v << (8 * (off & 3)) & bits));
}

uint16_t pci_get16(const struct pci_func *f, unsigned off)
{
	if ((off & 3) == 3) {
		return (uint16_t)(reg_get(f->cfg, off, 1) | reg_get(f->cfg, off + 1, 1) << 8);
	}
	return (uint16_t)reg_get(f->cfg, off, 2);
}

uint32_t pci_get32(const struct pci_func *f, unsigned off)
{
	if (off & 3) {
		return (uint32_t)pci_get16(f, off + 2) << 16 | pci_get16(f, off);
	}
	return reg_get(f->cfg, off, 4);
}

void pci_set8(struct pci_func *f, unsigned off, uint8_t v)
{
	reg_set(f->cfg, off, 1, v);
}

void pci_set16(struct pci_func *f, unsigned off, uint16_t v)
{
	if ((off & 3) == 3) {
		reg_set(f->cfg, off, 1, v & 0xff);
		reg_set(f->cfg, off + 1, 1, v >> 8);
	} else {
		reg_set(f->cfg, off, 2, v);
	}
}

void pci_set32(struct pci_func *f, unsigned off, uint32_t v)
{
	if (off & 3) {
		pci_set16(f, off, (uint16_t)v);
		pci_set16(f, off + 2, (uint16_t)(v >> 16));
	} else {
		reg_set(f->cfg, off, 4, v);
	}
}

void pci_wmask_set16(struct pci_func *f, unsigned off, uint16_t mask)
{
	memcpy(&f->wmask[off], &mask, sizeof(mask));
}

void pci_wmask_set32(struct pci_func *f, unsigned off, uint32_t mask)
{
	memcpy(&f->wmask[off], &mask, sizeof(mask));
}

void pci_w1c_set16(struct pci_func *f, unsigned off, uint16_t mask)
{
	memcpy(&f->w1c[off], &mask, sizeof(mask));
}

void pci_set_ids(struct pci_func *f, uint16_t vendor, uint16_t device, uint32_t class_code,
		 uint8_t rev, uint16_t sub_vendor, uint16_t sub_device)
{
	pci_set16(f, PCI_VENDOR_ID, vendor);
	pci_set16(f, PCI_DEVICE_ID, device);
	pci_set32(f, PCI_REVISION_ID, class_code << 8 | rev);
	if (!pci_is_bridge(f)) {
		pci_set16(f, PCI_SUBSYSTEM_VENDOR_ID, sub_vendor);
		pci_set16(f, PCI_SUBSYSTEM_ID, sub_device);
	}
}

unsigned pci_cap_add(struct pci_func *f, uint8_t id, unsigned len)
{
	unsigned cap = (unsigned)align_up(f->cap_end, 4);
	unsigned link = PCI_CAPABILITIES;

	assert(len >= 2 && cap >= PCI_HEADER_SIZE && cap + len <= PCI_EXT_CAP_FIRST);
	while (f->cfg[link]) {
		link = f->cfg[link] + PCI_CAP_NEXT;
	}
	pci_set8(f, link, (uint8_t)cap);
	pci_set8(f, cap, id);
	pci_set16(f, PCI_STATUS, pci_get16(f, PCI_STATUS) | PCI_STATUS_CAPABILITIES);
	f->cap_end = (uint16_t)(cap + len);
	return cap;
}

unsigned pci_ext_cap_add(struct pci_func *f, uint16_t id, uint8_t ver, unsigned len)
{
	unsigned cap = (unsigned)align_up(f->ext_cap_end, 4);

	assert(len >= 4 && cap >= PCI_EXT_CAP_FIRST && cap + len <= PCI_CFG_SIZE);
	if (f->ext_cap_last) {
		pci_set32(f, f->ext_cap_last,
			  pci_get32(f, f->ext_cap_last) | cap << PCI_EXT_CAP_NEXT_SHIFT);
	}
	pci_set32(f, cap, id | (uint32_t)ver << PCI_EXT_CAP_VERSION_SHIFT);
	f->ext_cap_last = (uint16_t)cap;
	f->ext_cap_end = (uint16_t)(cap + len);
	return cap;
}

void pci_func_created(struct pci_func *f)
{
	if (!f->created) {
		memcpy(f->cfg_reset, f->cfg, sizeof(f->cfg));
		f->created = true;
	}
}

void pci_func_reset(struct pci_func *f)
{
	pci_func_created(f);
	for (unsigned off = 0; off < PCI_CFG_SIZE; off += 4) {
		uint32_t guest = reg_get(f->wmask, off, 4) | reg_get(f->w1c, off, 4);

		if (guest) {
			dword_store(f->cfg, off,
				    (dword_load(f->cfg, off) & ~guest) |
					    (reg_get(f->cfg_reset, off, 4) & guest));
		}
	}
	pci_bars_update(f);
	if (f->msix) {
		msix_reset(f);
	}
	if (f->msi) {
		msi_reset(f);
	}
	if (pci_is_bridge(f)) {
		pci_port_update(f);
		pci_interrupts_update(f);
	}
}

/* --- what follows from a write --- */

static int interrupts_changed(struct pci_func *f, void *arg)
{
	if (f->msix) {
		msix_cfg_changed(f);
	}
	if (f->msi) {
		msi_cfg_changed(f);
	}
	return 0;
}

void pci_interrupts_update(struct pci_func *f)
{
	pci_for_each_from(f, interrupts_changed, NULL);
}

static void reset_behind(struct pci_func *bridge)
{
	for (unsigned devfn = 0; devfn < ARRAY_SIZE(bridge->secondary->func); devfn++) {
		struct pci_func *f = pci_bus_func(bridge->secondary, (uint8_t)devfn);

		if (!f) {
			continue;
		}
		if (pci_is_bridge(f)) {
			reset_behind(f);
		}
		if (f->ops && f->ops->bus_reset) {
			f->ops->bus_reset(f);
		} else {
			pci_func_reset(f);
		}
	}
}

/* D1 and D2 are not there: writing them leaves the state as it was [7.5.2.2]. */
static void pm_written(struct pci_func *f, uint16_t old)
{
	unsigned pmcsr = f->pm_cap + PCI_PM_PMCSR;
	uint16_t now = pci_get16(f, pmcsr);

	if (!pci_pm_state_valid(now)) {
		pci_set16(f, pmcsr,
			  (uint16_t)((now & ~PCI_PMCSR_STATE) | (old & PCI_PMCSR_STATE)));
	}
}

/* The registers that something hangs on, as they were before a write. */
struct before {
	uint16_t command, bridge_control, pmcsr;
	bool link_up;
};

static struct before before_write(const struct pci_func *f)
{
	return (struct before){
		.command = pci_get16(f, PCI_COMMAND),
		.bridge_control = pci_get16(f, PCI_BRIDGE_CONTROL),
		.pmcsr = f->pm_cap ? pci_get16(f, f->pm_cap + PCI_PM_PMCSR) : 0,
		.link_up = pci_is_bridge(f) && pci_port_link_up(f),
	};
}

static void after_write(struct pci_func *f, unsigned off, unsigned len, struct before was)
{
	bool bars = pci_overlaps(off, len, PCI_BAR0, 0x28 - PCI_BAR0) ||
		    (pci_is_bridge(f) && pci_overlaps(off, len, PCI_MEMORY_BASE, 0x30 - 0x20));
	uint16_t command = pci_get16(f, PCI_COMMAND) ^ was.command;
	bool irqs = command & PCI_COMMAND_MASTER;

	bars = bars || command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	if (f->pm_cap && pci_overlaps(off, len, f->pm_cap + PCI_PM_PMCSR, 2)) {
		pm_written(f, was.pmcsr);
		if ((pci_get16(f, f->pm_cap + PCI_PM_PMCSR) ^ was.pmcsr) & PCI_PMCSR_STATE) {
			bars = irqs = true;
		}
	}
	if (pci_is_bridge(f)) {
		uint16_t control = pci_get16(f, PCI_BRIDGE_CONTROL);

		pci_port_update(f);
		bars = bars || was.link_up != pci_port_link_up(f);
		if ((control & ~was.bridge_control & PCI_BRIDGE_RESET) ||
		    (was.link_up && !pci_port_link_up(f))) {
			reset_behind(f);
		}
	}
	if (bars) {
		pci_bars_update(f);
	}
	if (irqs) {
		pci_interrupts_update(f);
	} else if (off >= PCI_HEADER_SIZE) {
		interrupts_changed(f, NULL);
	}
	if (off + len > PCI_HEADER_SIZE && f->ops && f->ops->cfg_written) {
		f->ops->cfg_written(f, off, len);
	}
}

void pci_func_cfg_write(struct pci_func *f, unsigned off, unsigned len, uint32_t value)
{
	uint32_t bits = lanes(off, len);
	uint32_t v = value << (8 * (off & 3)) & bits;
	uint32_t w = reg_get(f->wmask, off & ~3u, 4) & bits;
	uint32_t c = reg_get(f->w1c, off & ~3u, 4) & bits;
	uint32_t old = dword_load(f->cfg, off);
	struct before was;

	pci_func_created(f);
	was = before_write(f);
	dword_store(f->cfg, off, ((old & ~w) | (v & w)) & ~(v & c));
	after_write(f, off, len, was);
}

/* --- the host side --- */

/* The function that an access reaches, or NULL. */
static struct pci_func *target(struct pci_bus *root, uint8_t bus, uint8_t devfn, unsigned off,
			       unsigned len)
{
	struct pci_func *f;

	if ((len != 1 && len != 2 && len != 4) || off >= PCI_CFG_SIZE || off % len) {
		return NULL;
	}
	f = pci_find(root, bus, devfn);
	return f && (off < PCI_EXT_CAP_FIRST || f->exp_cap) ? f : NULL;
}

uint32_t pci_cfg_read(struct pci_bus *root, uint8_t bus, uint8_t devfn, unsigned off,
		      unsigned len)
{
	struct pci_func *f = target(root, bus, devfn, off, len);

	if (!f) {
		return len >= 4 ? UINT32_MAX : (1u << (8 * len)) - 1;
	}
	if (f->msi) {
		msi_cfg_reading(f, off, len);
	}
	if (off + len > PCI_HEADER_SIZE && f->ops && f->ops->cfg_reading) {
		f->ops->cfg_reading(f, off, len);
	}
	return reg_get(f->cfg, off, len);
}

void pci_cfg_write(struct pci_bus *root, uint8_t bus, uint8_t devfn, unsigned off, unsigned len,
		   uint32_t value)
{
	struct pci_func *f = target(root, bus, devfn, off, len);

	if (f) {
		pci_func_cfg_write(f, off, len, value);
	}
}
