/*
 * What firmware does with PCI, for tests: everything through ECAM and BARs as a guest would,
 * from the test's own thread. A function is named by bdf = bus << 8 | devfn.
 */
#ifndef FAKES_FAKE_PCI_H
#define FAKES_FAKE_PCI_H

#include "fakes/fakes.h"
#include "pci/host.h"
#include "pci/pci.h"

#define FAKE_ECAM      UINT64_C(0xb0000000)
#define FAKE_MEM32     UINT64_C(0xc0000000)
#define FAKE_MEM32_END UINT64_C(0xfc000000)
#define FAKE_MEM64     UINT64_C(0x4000000000)
#define FAKE_MEM64_END UINT64_C(0x8000000000)
#define FAKE_PM_BASE   0x600
#define FAKE_MSI_ADDR  UINT64_C(0xfee00000)

/* The real host bridge at FAKE_ECAM with CF8/CFC; returns the root bus. */
struct pci_bus *fake_pci_host(struct fake_vm *fv);

uint32_t fake_cfg_read(struct fake_vm *fv, unsigned bdf, unsigned off, unsigned len);
void fake_cfg_write(struct fake_vm *fv, unsigned bdf, unsigned off, uint32_t v, unsigned len);
/* The index-th function with these ids on buses 0 to 15, or -1. */
int fake_pci_find(struct fake_vm *fv, uint16_t vendor, uint16_t device, unsigned index);
/* Offset of the first capability with this id after `after` (0: from the start); 0: none. */
unsigned fake_pci_cap(struct fake_vm *fv, unsigned bdf, uint8_t id, unsigned after);
/* The size that the BAR's bits tell; decoding is off meanwhile. */
uint64_t fake_pci_bar_size(struct fake_vm *fv, unsigned bdf, unsigned bar);
void fake_pci_bar_write(struct fake_vm *fv, unsigned bdf, unsigned bar, uint64_t addr);
uint64_t fake_pci_bar_read(struct fake_vm *fv, unsigned bdf, unsigned bar);
/* Bus numbers, windows and BARs for all that is there now; memory decoding and bus mastering
 * on. */
void fake_pci_assign(struct fake_vm *fv, struct pci_bus *root);

/* Where an entry of the MSI-X table and the PBA are, by the capability and the BARs. */
uint64_t fake_msix_entry(struct fake_vm *fv, unsigned bdf, unsigned vec);
uint64_t fake_msix_pba(struct fake_vm *fv, unsigned bdf);
/* Control word: enabled, function mask. */
void fake_msix_control(struct fake_vm *fv, unsigned bdf, bool enable, bool mask);
void fake_msix_program(struct fake_vm *fv, unsigned bdf, unsigned vec, uint64_t addr,
		       uint32_t data, bool masked);
void fake_msix_mask(struct fake_vm *fv, unsigned bdf, unsigned vec, bool masked);

#endif
