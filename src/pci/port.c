/*
 * pcie-root-port: a PCI Express root port with one slot behind it.
 *
 * Type-1 header with 32-bit and 64-bit prefetchable memory windows and no I/O window, MSI with
 * one vector (native hotplug, PME and AER will signal with it), subsystem ids in their own
 * capability. The slot is cold-plugged: present or not from the start.
 *
 * PCI Express 5.0, chapter 7. Control loop.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "pci/host.h"
#include "pci/msi.h"
#include "pci/pci_int.h"
#include "spec/pci.h"

/* The generic root port that guests know from other hypervisors; class drivers bind to it. */
#define PORT_VENDOR	0x1b36
#define PORT_DEVICE	0x000c
#define PORT_CLASS	0x060400
#define PORT_SUB_VENDOR 0x1af4
#define PORT_SUB_DEVICE 0x1100

struct root_port {
	struct device dev;
	struct pci_func func;
	struct pci_bus secondary;
	uint16_t slot;
	uint8_t chassis;
};

static const struct pci_func_ops port_func_ops;

static struct root_port *of_dev(struct device *d)
{
	return container_of(d, struct root_port, dev);
}

static void port_reset(struct device *d)
{
	pci_func_reset(&of_dev(d)->func);
}

static void port_destroy(struct device *d)
{
	struct root_port *p = of_dev(d);

	pci_func_remove(&p->func);
	msi_fini(&p->func);
	free(p);
}

static int port_save(struct device *d, void *st, struct err *err)
{
	pci_func_save(&of_dev(d)->func, st);
	return 0;
}

static int port_load(struct device *d, const void *st, struct err *err)
{
	return pci_func_load(&of_dev(d)->func, st, err);
}

static const struct device_state_ops port_func_state = {
	.desc = &pci_func_state_desc,
	.save = port_save,
	.load = port_load,
};
static const struct device_state_ops *const port_state[] = {&port_func_state, NULL};

static const struct device_ops port_ops = {
	.name = "pcie-root-port",
	.reset = port_reset,
	.destroy = port_destroy,
	.state = port_state,
};

/* Is the physical slot number in use, or the pair of chassis and slot as configured? */
static const struct root_port *port_find(const struct pci_bus *root, int number, int chassis,
					 int slot)
{
	for (unsigned i = 0; i < ARRAY_SIZE(root->func); i++) {
		const struct pci_func *f = root->func[i];
		const struct root_port *p;

		if (!f || f->ops != &port_func_ops) {
			continue;
		}
		p = container_of(f, struct root_port, func);
		if (number >= 0 && (int)(pci_get32(f, f->exp_cap + PCI_EXP_SLTCAP) >>
					 PCI_EXP_SLTCAP_NR_SHIFT) == number) {
			return p;
		}
		if (chassis >= 0 && p->chassis == chassis && p->slot == slot) {
			return p;
		}
	}
	return NULL;
}

/* What the guest reads as Physical Slot Number: unique, or Linux would make up names. */
static unsigned port_slot_number(const struct pci_bus *root,
				 const struct pcie_root_port_config *cfg)
{
	unsigned number = cfg->slot ? cfg->slot : cfg->chassis;

	if (number == 0) {
		number = 1;
	}
	while (port_find(root, (int)number, -1, -1)) {
		number = number % PCI_EXP_SLTCAP_NR_MAX + 1;
	}
	return number;
}

static int port_check(const struct pci_bus *bus, const struct pcie_root_port_config *cfg,
		      struct err *err)
{
	const struct root_port *twin = NULL;

	if (bus->bridge) {
		return err_set(
			err, EINVAL,
			"%s: a root port cannot stand behind '%s': put it on the root bus",
			cfg->id, bus->name);
	}
	if (cfg->slot > PCI_EXP_SLTCAP_NR_MAX) {
		return err_set(err, EINVAL, "%s: slot=%u is more than %u", cfg->id, cfg->slot,
			       PCI_EXP_SLTCAP_NR_MAX);
	}
	if (cfg->chassis || cfg->slot) {
		twin = port_find(bus, -1, cfg->chassis, cfg->slot);
	}
	if (twin) {
		return err_set(
			err, EBUSY,
			"%s: chassis=%u,slot=%u is taken by '%s': give each port its own",
			cfg->id, cfg->chassis, cfg->slot, twin->func.name);
	}
	return 0;
}

static void port_caps_add(struct root_port *p, unsigned number)
{
	struct pci_func *f = &p->func;
	unsigned cap;

	pci_set_ids(f, PORT_VENDOR, PORT_DEVICE, PORT_CLASS, 0, 0, 0);
	pci_pm_cap_add(f);
	pci_express_cap_add(f, PCI_EXP_TYPE_ROOT_PORT, number);
	cap = pci_cap_add(f, PCI_CAP_SSVID, PCI_SSVID_SIZE);
	pci_set16(f, cap + PCI_SSVID_VENDOR, PORT_SUB_VENDOR);
	pci_set16(f, cap + PCI_SSVID_ID, PORT_SUB_DEVICE);
}

int pcie_root_port_new(struct vm *vm, struct pci_bus *bus,
		       const struct pcie_root_port_config *cfg, struct pci_bus **secondary,
		       struct err *err)
{
	unsigned number;
	struct root_port *p;
	int rc;

	rc = port_check(bus, cfg, err);
	if (rc < 0) {
		return rc;
	}
	number = port_slot_number(bus, cfg);
	p = calloc(1, sizeof(*p));
	if (!p) {
		return err_set(err, ENOMEM, "%s: out of memory", cfg->id);
	}
	p->slot = cfg->slot;
	p->chassis = cfg->chassis;
	p->func.multifunction = cfg->multifunction;
	p->func.secondary = &p->secondary;
	pci_bus_init(&p->secondary, vm, cfg->id, &p->func, 1);
	rc = pci_func_add(&p->func, bus, cfg->devfn, cfg->id, &port_func_ops, err);
	if (rc < 0) {
		goto free_port;
	}
	port_caps_add(p, number);
	rc = msi_init(&p->func, 1, err);
	if (rc < 0) {
		goto remove_func;
	}
	rc = device_add(vm->devices, &p->dev, &port_ops, cfg->id, err);
	if (rc < 0) {
		goto fini_msi;
	}
	*secondary = &p->secondary;
	return 0;

fini_msi:
	msi_fini(&p->func);
remove_func:
	pci_func_remove(&p->func);
free_port:
	free(p);
	return rc;
}
