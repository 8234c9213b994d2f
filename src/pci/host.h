/*
 * The host bridge: ECAM, and on x86 CF8/CFC, 00:00.0 (device id 0x29C0, what makes stock OVMF use
 * ECAM) and 00:1f.0 (PMBASE 0x40 and ACPI_CNTL 0x44 only; class 0601 so that firmware finds the
 * UART). Also pcie-root-port.
 */
#ifndef PCI_HOST_H
#define PCI_HOST_H

#include "base/err.h"
#include "core/device.h"
#include "pci/pci.h"

#define PCI_ECAM_SIZE (256 * MiB)

struct pci_host;
/* Adds the regions to vm->bus: ECAM at ecam_base, PCI_ECAM_SIZE bytes for buses 0 to 255; when io
 * is true (x86) CF8/CFC (one-byte accesses to 0xCF9 are the reset register, which asks vm->power
 * for POWER_RESET) and the two functions. Registers the device "pci-host" in vm->devices, which
 * destroys it. pm_base goes to 00:1f.0 register 0x40. */
int pci_host_new(struct vm *vm, uint64_t ecam_base, bool io, uint16_t pm_base,
		 struct pci_host **out, struct err *err);
struct pci_bus *pci_host_bus(struct pci_host *h); /* the root bus, "pcie.0" */
/* Root bus or a port's secondary bus by name; NULL if there is none. */
struct pci_bus *pci_bus_by_name(struct pci_bus *root, const char *name);

/* -device pcie-root-port,id=…,bus=…,addr=…,chassis=…,slot=…: a port with an empty slot, on the
 * root bus. Its secondary bus has the port's id as its name. chassis and slot together must be
 * the port's own (slot is what the guest reads as Physical Slot Number, at most 8191). */
struct pcie_root_port_config {
	const char *id;
	int devfn; /* -1: first free */
	uint16_t slot;
	uint8_t chassis;
	bool multifunction;
};
int pcie_root_port_new(struct vm *vm, struct pci_bus *bus,
		       const struct pcie_root_port_config *cfg, struct pci_bus **secondary,
		       struct err *err);

#endif
