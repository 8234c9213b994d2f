/*
 * The PCI Express and power management capabilities, and the link of a port.
 *
 * Links are 2.5 GT/s, one lane: a figure that means nothing for a virtual device, so the one
 * with the fewest registers. A port's link is up when a function sits behind it, unless the
 * guest disabled the link or holds the secondary bus in reset; while it is down, nothing behind
 * the port answers. A slot shows presence from the first; it is not hot-plug capable.
 *
 * PCI Express 5.0, 7.5.2 and 7.5.3. Control loop, but for what says any thread.
 */
#include <assert.h>

#include "pci/pci_int.h"
#include "spec/pci.h"

unsigned pci_pm_cap_add(struct pci_func *f)
{
	unsigned cap = pci_cap_add(f, PCI_CAP_PM, PCI_PM_SIZE);

	pci_set16(f, cap + PCI_PM_PMC, PCI_PMC_VERSION_3);
	pci_set16(f, cap + PCI_PM_PMCSR, PCI_PMCSR_NO_SOFT_RESET);
	pci_wmask_set16(f, cap + PCI_PM_PMCSR, PCI_PMCSR_STATE);
	f->pm_cap = (uint16_t)cap;
	return cap;
}

bool pci_pm_state_valid(uint16_t pmcsr)
{
	pmcsr &= PCI_PMCSR_STATE;
	return pmcsr == PCI_PMCSR_D0 || pmcsr == PCI_PMCSR_D3HOT;
}

/* Any thread. */
bool pci_in_d0(const struct pci_func *f)
{
	return !f->pm_cap || (pci_get16(f, f->pm_cap + PCI_PM_PMCSR) & PCI_PMCSR_STATE) == 0;
}

/* Any thread. */
bool pci_bus_master(const struct pci_func *f)
{
	for (; f; f = f->bus->bridge) {
		if (!(pci_get16(f, PCI_COMMAND) & PCI_COMMAND_MASTER) || !pci_in_d0(f)) {
			return false;
		}
		if (!f->bus) {
			return false;
		}
	}
	return true;
}

static void link_cap_add(struct pci_func *f, unsigned cap, bool port)
{
	uint32_t lnkcap = PCI_EXP_LNK_SPEED_2_5 | PCI_EXP_LNK_WIDTH_1 | PCI_EXP_LNKCAP_ASPM_OPT;
	uint16_t lnkctl = PCI_EXP_LNKCTL_ASPM | PCI_EXP_LNKCTL_COMMON | PCI_EXP_LNKCTL_EXT_SYNC;

	if (port) {
		lnkcap |= PCI_EXP_LNKCAP_DLLLA | (uint32_t)f->devfn
							 << PCI_EXP_LNKCAP_PORT_SHIFT;
		lnkctl |= PCI_EXP_LNKCTL_DISABLE; /* Retrain Link reads 0 and is done at once */
	} else {
		lnkctl |= PCI_EXP_LNKCTL_RCB;
		pci_set16(f, cap + PCI_EXP_LNKSTA, PCI_EXP_LNK_SPEED_2_5 | PCI_EXP_LNK_WIDTH_1);
	}
	pci_set32(f, cap + PCI_EXP_LNKCAP, lnkcap);
	pci_wmask_set16(f, cap + PCI_EXP_LNKCTL, lnkctl);
	pci_set32(f, cap + PCI_EXP_LNKCAP2, PCI_EXP_LNKCAP2_2_5);
}

unsigned pci_express_cap_add(struct pci_func *f, unsigned port_type, unsigned slot_number)
{
	unsigned cap = pci_cap_add(f, PCI_CAP_EXPRESS, PCI_EXP_SIZE);
	bool port = port_type == PCI_EXP_TYPE_ROOT_PORT;
	uint16_t flags = PCI_EXP_FLAGS_VERSION_2;

	assert(port == pci_is_bridge(f) && slot_number <= PCI_EXP_SLTCAP_NR_MAX);
	if (port_type == PCI_EXP_TYPE_ENDPOINT && !f->bus->bridge) {
		port_type = PCI_EXP_TYPE_RC_ENDPOINT;
	}
	flags |= (uint16_t)(port_type << PCI_EXP_FLAGS_TYPE_SHIFT);
	pci_set16(f, cap + PCI_EXP_FLAGS, port ? flags | PCI_EXP_FLAGS_SLOT : flags);
	pci_set32(f, cap + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_ROLE_ERRORS);
	pci_set16(f, cap + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_RESET);
	pci_wmask_set16(f, cap + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_WRITABLE);
	pci_w1c_set16(f, cap + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_RW1C);
	pci_set32(f, cap + PCI_EXP_DEVCAP2, PCI_EXP_DEVCAP2_NO_TIMEOUT);
	pci_wmask_set16(f, cap + PCI_EXP_DEVCTL2, PCI_EXP_DEVCTL2_NO_TIMEOUT);
	if (port_type != PCI_EXP_TYPE_RC_ENDPOINT) {
		link_cap_add(f, cap, port);
	}
	f->exp_cap = (uint16_t)cap;
	if (port) {
		pci_set32(f, cap + PCI_EXP_SLTCAP,
			  PCI_EXP_SLTCAP_NO_COMMAND | slot_number << PCI_EXP_SLTCAP_NR_SHIFT);
		pci_wmask_set16(f, cap + PCI_EXP_RTCTL, PCI_EXP_RTCTL_WRITABLE);
		pci_w1c_set16(f, cap + PCI_EXP_RTSTA + 2, PCI_EXP_RTSTA_RW1C >> 16);
		pci_port_update(f);
	}
	return cap;
}

static bool slot_occupied(const struct pci_bus *b)
{
	for (unsigned fn = 0; fn < 8; fn++) {
		if (pci_bus_func(b, (uint8_t)fn)) {
			return true;
		}
	}
	return false;
}

/* Any thread. A bridge without the capability has no link to lose. */
bool pci_port_link_up(const struct pci_func *port)
{
	if (pci_get16(port, PCI_BRIDGE_CONTROL) & PCI_BRIDGE_RESET) {
		return false;
	}
	return !port->exp_cap ||
	       (slot_occupied(port->secondary) &&
		!(pci_get16(port, port->exp_cap + PCI_EXP_LNKCTL) & PCI_EXP_LNKCTL_DISABLE));
}

void pci_port_update(struct pci_func *port)
{
	unsigned cap = port->exp_cap;
	uint16_t slot, link;

	if (!cap) {
		return;
	}
	slot = pci_get16(port, cap + PCI_EXP_SLTSTA) & (uint16_t)~PCI_EXP_SLTSTA_PRESENT;
	link = 0;
	if (slot_occupied(port->secondary)) {
		slot |= PCI_EXP_SLTSTA_PRESENT;
	}
	if (pci_port_link_up(port)) {
		link = PCI_EXP_LNKSTA_DLLLA | PCI_EXP_LNK_SPEED_2_5 | PCI_EXP_LNK_WIDTH_1;
	}
	pci_set16(port, cap + PCI_EXP_SLTSTA, slot);
	pci_set16(port, cap + PCI_EXP_LNKSTA, link);
}
