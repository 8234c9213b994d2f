/*
 * MSI-X: table, pending bits, masking; each vector is a GSI with an eventfd bound to it
 * (irqfd), so a device triggers with one write and no lock.
 *
 * Invariants: (1) a masked vector never fires, its trigger sets the pending bit; (2) unmasking
 * fires once if pending; (3) a vector that was never unmasked has no GSI. The trigger is
 * lock-free against mask and unmask: one atomic word per vector holds {masked, pending}.
 * Threads: msix_trigger() any thread, everything else the control loop.
 * PCI Express 5.0, 7.7.2. Untrusted: the guest writes table entries as it likes.
 */
#ifndef PCI_MSIX_H
#define PCI_MSIX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "pci/pci.h"

/* Adds the capability, the table at table_off and the PBA at pba_off of BAR `bar` (already
 * pci_bar_init()ed), nvec 1..256 here. */
int msix_init(struct pci_func *f, unsigned nvec, unsigned bar, uint64_t table_off,
	      uint64_t pba_off, struct err *err);
void msix_fini(struct pci_func *f);
void msix_reset(struct pci_func *f);
unsigned msix_nvec(const struct pci_func *f);
bool msix_enabled(const struct pci_func *f);
/* Fires vector vec, or marks it pending; ignored when out of range or MSI-X is off. */
void msix_trigger(struct pci_func *f, unsigned vec);
/* The eventfd bound to the vector for kernel back ends (vhost, VFIO): it fires in the kernel
 * while unmasked; while masked, a write is seen as pending. Made on first use. -errno. */
int msix_eventfd(struct pci_func *f, unsigned vec);
/* Called by pci/ when the capability's control word or bus mastering changed. */
void msix_cfg_changed(struct pci_func *f);

#endif
