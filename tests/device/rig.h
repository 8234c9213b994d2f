/*
 * What the virtio tests set up again and again: a fake machine with a root bus, a device behind
 * the PCI transport, and a driver for it.
 */
#ifndef DEVICE_RIG_H
#define DEVICE_RIG_H

#include "vdrv.h"
#include "virtio/transport/pci.h"

#define RIG_BAR 0xe000000000ull

struct rig {
	struct fake_vm *fv;
	struct pci_bus root;
	struct loop *iothread; /* NULL: the control loop does it all */
	struct device *dev;
	struct vdrv d;
};

/* The machine; with_iothread: a loop with a thread of its own for data paths. */
void rig_init(struct rig *r, bool with_iothread, unsigned ram_high_mib);
/* The environment says NEMU_TEST_RING=packed: every device then offers packed rings and every
 * driver takes them. */
bool rig_packed(void);
/* The device (which the machine then owns) behind the transport; the driver has found it. */
void rig_add(struct rig *r, struct virtio_dev *vd, const char *id);
/* Pauses, destroys, frees everything. */
void rig_fini(struct rig *r);
/* Runs the control loop until cond(arg), at most 10 s; whether it came true. */
bool rig_until(struct rig *r, bool (*cond)(void *arg), void *arg);

#endif
