/*
 * PCI, for the files of pci/ only.
 */
#ifndef PCI_PCI_INT_H
#define PCI_PCI_INT_H

#include "pci/pci.h"

/* --- cfg.c --- */
/* As the guest's write of len bytes at off, within one aligned dword: masks apply, and what
 * depends on the registers follows. Control loop. */
void pci_func_cfg_write(struct pci_func *f, unsigned off, unsigned len, uint32_t value);
/* A register gets bits that the guest may write, and those that it clears by writing 1. */
void pci_wmask_set16(struct pci_func *f, unsigned off, uint16_t mask);
void pci_wmask_set32(struct pci_func *f, unsigned off, uint32_t mask);
void pci_w1c_set16(struct pci_func *f, unsigned off, uint16_t mask);
/* Bus mastering of f may have changed: interrupts of f and of all behind it follow. */
void pci_interrupts_update(struct pci_func *f);
/* Remembers the registers as the guest first finds them; the first call counts. */
void pci_func_created(struct pci_func *f);
static inline bool pci_is_bridge(const struct pci_func *f)
{
	return f->secondary != NULL;
}
static inline bool pci_overlaps(unsigned off, unsigned len, unsigned reg, unsigned size)
{
	return off < reg + size && reg < off + len;
}

/* --- bar.c --- */
/* What the BAR's registers say, decoded or not; false if it is not there or unassigned. */
bool pci_bar_address(const struct pci_func *f, unsigned bar, uint64_t *addr);
/* The window of a bridge; false if it is closed. */
bool pci_bridge_window(const struct pci_func *f, bool prefetch, uint64_t *base, uint64_t *last);
/* Puts the BARs of f and of all behind it where the registers say. */
void pci_bars_update(struct pci_func *f);
void pci_bars_unmap(struct pci_func *f);

/* --- bus.c --- */
struct pci_bus *pci_root(const struct pci_func *f);
/* Calls fn for f and every function behind it. */
int pci_for_each_from(struct pci_func *f, int (*fn)(struct pci_func *f, void *arg), void *arg);
struct pci_func *pci_bus_func(const struct pci_bus *b, uint8_t devfn);
/* Bus and devfn as messages carry them, by the bus numbers of now. */
uint16_t pci_requester_id(const struct pci_func *f);

/* --- express.c --- */
bool pci_in_d0(const struct pci_func *f);
bool pci_pm_state_valid(uint16_t pmcsr); /* D0 or D3hot */
/* Is there a working link to what is behind this port? */
bool pci_port_link_up(const struct pci_func *port);
/* Presence and link state follow what is on the secondary bus. */
void pci_port_update(struct pci_func *port);

/* --- msi.c, msix.c --- */
/* Enabling, masks, bus mastering or the power state may have changed. */
void msi_cfg_changed(struct pci_func *f);
uint32_t msi_pending(struct pci_func *f);
void msi_restore(struct pci_func *f, uint32_t pending);
void msix_save(struct pci_func *f, struct pci_func_state *st);
void msix_restore(struct pci_func *f, const struct pci_func_state *st);

#endif
