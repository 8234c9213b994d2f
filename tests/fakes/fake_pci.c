/* PCI as firmware uses it, for tests: see fake_pci.h. */
#include "fakes/fake_pci.h"

#include <assert.h>

#include "spec/pci.h"

struct pci_bus *fake_pci_host(struct fake_vm *fv)
{
	struct pci_host *h;
	int rc = pci_host_new(&fv->vm, FAKE_ECAM, true, FAKE_PM_BASE, &h, NULL);

	assert(rc == 0);
	return pci_host_bus(h);
}

uint32_t fake_cfg_read(struct fake_vm *fv, unsigned bdf, unsigned off, unsigned len)
{
	return (uint32_t)fake_mmio_read(fv, FAKE_ECAM + ((uint64_t)bdf << 12) + off, len);
}

void fake_cfg_write(struct fake_vm *fv, unsigned bdf, unsigned off, uint32_t v, unsigned len)
{
	fake_mmio_write(fv, FAKE_ECAM + ((uint64_t)bdf << 12) + off, v, len);
}

int fake_pci_find(struct fake_vm *fv, uint16_t vendor, uint16_t device, unsigned index)
{
	for (unsigned bdf = 0; bdf < 16 << 8; bdf++) {
		if (fake_cfg_read(fv, bdf, PCI_VENDOR_ID, 4) ==
			    ((uint32_t)device << 16 | vendor) &&
		    index-- == 0) {
			return (int)bdf;
		}
	}
	return -1;
}

unsigned fake_pci_cap(struct fake_vm *fv, unsigned bdf, uint8_t id, unsigned after)
{
	unsigned cap =
		fake_cfg_read(fv, bdf, after ? after + PCI_CAP_NEXT : PCI_CAPABILITIES, 1);

	for (int i = 0; cap && i < 48; i++) {
		if (fake_cfg_read(fv, bdf, cap, 1) == id) {
			return cap;
		}
		cap = fake_cfg_read(fv, bdf, cap + PCI_CAP_NEXT, 1);
	}
	assert(cap == 0);
	return 0;
}

static unsigned bar_reg(unsigned bar)
{
	return PCI_BAR0 + 4 * bar;
}

static bool bar_is_64(struct fake_vm *fv, unsigned bdf, unsigned bar)
{
	uint32_t low = fake_cfg_read(fv, bdf, bar_reg(bar), 4);

	return !(low & PCI_BAR_IO_SPACE) && low & PCI_BAR_MEM_64;
}

void fake_pci_bar_write(struct fake_vm *fv, unsigned bdf, unsigned bar, uint64_t addr)
{
	fake_cfg_write(fv, bdf, bar_reg(bar), (uint32_t)addr, 4);
	if (bar_is_64(fv, bdf, bar)) {
		fake_cfg_write(fv, bdf, bar_reg(bar) + 4, (uint32_t)(addr >> 32), 4);
	}
}

uint64_t fake_pci_bar_read(struct fake_vm *fv, unsigned bdf, unsigned bar)
{
	uint64_t v = fake_cfg_read(fv, bdf, bar_reg(bar), 4);

	if (v & PCI_BAR_IO_SPACE) {
		return v & ~UINT64_C(3);
	}
	if (v & PCI_BAR_MEM_64) {
		v |= (uint64_t)fake_cfg_read(fv, bdf, bar_reg(bar) + 4, 4) << 32;
	}
	return v & ~UINT64_C(15);
}

uint64_t fake_pci_bar_size(struct fake_vm *fv, unsigned bdf, unsigned bar)
{
	uint32_t command = fake_cfg_read(fv, bdf, PCI_COMMAND, 2);
	uint64_t old = fake_pci_bar_read(fv, bdf, bar), bits;

	fake_cfg_write(fv, bdf, PCI_COMMAND,
		       command & ~(uint32_t)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY), 2);
	fake_pci_bar_write(fv, bdf, bar, UINT64_MAX);
	bits = fake_pci_bar_read(fv, bdf, bar);
	if (!bar_is_64(fv, bdf, bar) && bits) {
		bits |= UINT64_MAX << 32;
	}
	fake_pci_bar_write(fv, bdf, bar, old);
	fake_cfg_write(fv, bdf, PCI_COMMAND, command, 2);
	return ~bits + 1;
}

void fake_pci_assign(struct fake_vm *fv, struct pci_bus *root)
{
	int rc = pci_assign(root, FAKE_MEM32, FAKE_MEM32_END, FAKE_MEM64, FAKE_MEM64_END, NULL);

	assert(rc == 0);
	for (unsigned bdf = 0; bdf < 256 << 8; bdf++) {
		uint32_t command;

		/* A bus that nothing answers on, at its first function, has none at all. */
		if (bdf % 256 == 0 && bdf &&
		    fake_cfg_read(fv, bdf, PCI_VENDOR_ID, 2) == 0xffff) {
			bdf += 255;
			continue;
		}
		if (fake_cfg_read(fv, bdf, PCI_VENDOR_ID, 2) != 0xffff) {
			command = fake_cfg_read(fv, bdf, PCI_COMMAND, 2);
			fake_cfg_write(fv, bdf, PCI_COMMAND, command | PCI_COMMAND_MASTER, 2);
		}
	}
}

static uint64_t msix_address(struct fake_vm *fv, unsigned bdf, unsigned reg)
{
	unsigned cap = fake_pci_cap(fv, bdf, PCI_CAP_MSIX, 0);
	uint32_t v = fake_cfg_read(fv, bdf, cap + reg, 4);

	assert(cap);
	return fake_pci_bar_read(fv, bdf, v & 7) + (v & ~7u);
}

uint64_t fake_msix_entry(struct fake_vm *fv, unsigned bdf, unsigned vec)
{
	return msix_address(fv, bdf, PCI_MSIX_TABLE) + (uint64_t)vec * PCI_MSIX_ENTRY_SIZE;
}

uint64_t fake_msix_pba(struct fake_vm *fv, unsigned bdf)
{
	return msix_address(fv, bdf, PCI_MSIX_PBA);
}

void fake_msix_control(struct fake_vm *fv, unsigned bdf, bool enable, bool mask)
{
	unsigned cap = fake_pci_cap(fv, bdf, PCI_CAP_MSIX, 0);

	assert(cap);
	fake_cfg_write(fv, bdf, cap + PCI_MSIX_CONTROL,
		       (enable ? PCI_MSIX_ENABLE : 0) | (mask ? PCI_MSIX_FUNCTION_MASK : 0), 2);
}

void fake_msix_program(struct fake_vm *fv, unsigned bdf, unsigned vec, uint64_t addr,
		       uint32_t data, bool masked)
{
	uint64_t entry = fake_msix_entry(fv, bdf, vec);

	fake_mmio_write(fv, entry + 12, PCI_MSIX_ENTRY_MASKED, 4);
	fake_mmio_write(fv, entry, addr, 8);
	fake_mmio_write(fv, entry + 8, data, 4);
	fake_mmio_write(fv, entry + 12, masked ? PCI_MSIX_ENTRY_MASKED : 0, 4);
}

void fake_msix_mask(struct fake_vm *fv, unsigned bdf, unsigned vec, bool masked)
{
	fake_mmio_write(fv, fake_msix_entry(fv, bdf, vec) + 12, masked, 4);
}
