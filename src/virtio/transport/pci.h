/*
 * virtio over PCI, modern only (virtio 1.2, section 4.1): ids 0x1040 + type, revision 1, one
 * 64-bit memory BAR (BAR 4) with common, ISR, device and notify areas and the MSI-X table, plus
 * the PCI_CFG window. Each queue has a doorbell address of its own with an ioeventfd.
 */
#ifndef VIRTIO_TRANSPORT_PCI_H
#define VIRTIO_TRANSPORT_PCI_H

#include "pci/pci.h"
#include "virtio/virtio.h"

struct virtio_pci_config {
	const char *id;      /* device id */
	struct pci_bus *bus;
	int devfn;           /* -1: first free */
	unsigned vectors;    /* 0: one per queue and one for configuration */
	bool multifunction;
};
/* Takes vd (destroyed through vd->ops->destroy when the device is, or on error here), puts it on
 * the bus and into vm->devices. */
int virtio_pci_new(struct vm *vm, struct virtio_dev *vd, const struct virtio_pci_config *cfg,
		   struct device **out, struct err *err);

#endif
