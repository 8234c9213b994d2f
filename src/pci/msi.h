/*
 * MSI: 1 to 32 vectors with a 64-bit address, per-vector masking and pending bits, each vector
 * a GSI with an eventfd as in msix.h. For what has to signal and has no BAR (root ports).
 *
 * With fewer vectors enabled than there are, vector n is sent as n modulo their number.
 * Threads: msi_trigger() any thread, everything else the control loop.
 * PCI Express 5.0, 7.7.1. Untrusted: the guest writes the registers as it likes.
 */
#ifndef PCI_MSI_H
#define PCI_MSI_H

#include <stdbool.h>

#include "base/err.h"
#include "pci/pci.h"

/* nvec: a power of two, 1..32. */
int msi_init(struct pci_func *f, unsigned nvec, struct err *err);
void msi_fini(struct pci_func *f); /* harmless if there is none */
void msi_reset(struct pci_func *f);
bool msi_enabled(const struct pci_func *f); /* any thread */
/* Fires, or marks it pending; ignored when out of range or MSI is off. */
void msi_trigger(struct pci_func *f, unsigned vec);
/* Called by pci/ before the guest reads these registers: brings the pending bits up to date.
 * On the reader's thread. */
void msi_cfg_reading(struct pci_func *f, unsigned off, unsigned len);

#endif
