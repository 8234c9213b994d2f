/*
 * virtio-console with MULTIPORT: a controller (virtio-serial-pci) with consoles and named ports.
 * Virtio 1.2, section 5.3. The data path is the control loop's, where character back ends live.
 */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include "base/err.h"
#include "chardev/chr.h"
#include "virtio/virtio.h"

#define VIRTIO_SERIAL_MAX_PORTS 31

struct virtio_serial_config {
	uint32_t max_ports; /* 1 … VIRTIO_SERIAL_MAX_PORTS */
};
/* Control loop. The result goes to virtio_pci_new(), which takes it. */
int virtio_serial_new(struct vm *vm, const struct virtio_serial_config *cfg, const char *id,
		      struct virtio_dev **out, struct err *err);

struct virtio_port_config {
	struct chr *chr;  /* outlives the device */
	bool console;     /* virtconsole: hvcN; else virtserialport */
	const char *name; /* copied; NULL: none */
	uint32_t nr;      /* UINT32_MAX: the first free. Port 0 is for a console */
};
/* Before the guest runs. -ENOSPC, -EBUSY (the chardev or the number is taken) with a sentence. */
int virtio_serial_add_port(struct virtio_dev *serial, const struct virtio_port_config *cfg,
			   struct err *err);

#endif
