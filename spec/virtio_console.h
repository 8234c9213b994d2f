/*
 * Virtual I/O Device (VIRTIO) Version 1.2, section 5.3: Console Device.
 */
#ifndef SPEC_VIRTIO_CONSOLE_H
#define SPEC_VIRTIO_CONSOLE_H

#include "base/wire.h"

/* Feature bits [5.3.3] */
#define VIRTIO_CONSOLE_F_SIZE        0
#define VIRTIO_CONSOLE_F_MULTIPORT   1
#define VIRTIO_CONSOLE_F_EMERG_WRITE 2

/* [5.3.4] */
struct virtio_console_config_layout {
	le16 cols;
	le16 rows;
	le32 max_nr_ports;
	le32 emerg_wr;
};
_Static_assert(sizeof(struct virtio_console_config_layout) == 12, "virtio_console_config");

/* Queues [5.3.2]: receive and transmit of port 0, the two of control, then two for each port */
#define VIRTIO_CONSOLE_Q_CTRL_RX 2
#define VIRTIO_CONSOLE_Q_CTRL_TX 3

/* Control messages [5.3.6.2] */
struct virtio_console_control {
	le32 id; /* port */
	le16 event;
	le16 value;
};
_Static_assert(sizeof(struct virtio_console_control) == 8, "virtio_console_control");
#define VIRTIO_CONSOLE_DEVICE_READY  0
#define VIRTIO_CONSOLE_DEVICE_ADD    1
#define VIRTIO_CONSOLE_DEVICE_REMOVE 2
#define VIRTIO_CONSOLE_PORT_READY    3
#define VIRTIO_CONSOLE_CONSOLE_PORT  4
#define VIRTIO_CONSOLE_RESIZE        5
#define VIRTIO_CONSOLE_PORT_OPEN     6
#define VIRTIO_CONSOLE_PORT_NAME     7

#endif
