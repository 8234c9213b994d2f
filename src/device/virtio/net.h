/*
 * virtio-net on a network back end. Virtio 1.2, section 5.1.
 */
#ifndef DEVICE_VIRTIO_NET_H
#define DEVICE_VIRTIO_NET_H

#include "base/err.h"
#include "net/net.h"
#include "virtio/virtio.h"

struct virtio_net_config {
	uint8_t mac[6];
	bool mac_set;        /* else one is made: 52:54:00 and random bytes */
	struct loop *loop;   /* data path; NULL: the control loop */
	struct loop *const *pair_loop; /* NULL, or a loop for each pair of queues */
	bool mq;             /* as many pairs as the port has queues; else one */
	uint16_t rx_queue_size, tx_queue_size; /* powers of two; 0: 256 */
	uint16_t mtu;        /* 0: not told to the guest */
	/* Offloads that are offered, as far as the back end has them. */
	bool csum, gso;              /* guest to host */
	bool guest_csum, guest_tso;  /* host to guest */
	bool mrg_rxbuf;
};
/* Control loop; loop is not running yet. Claims the port until the device is destroyed; the port
 * stays the caller's and outlives the device. The result goes to virtio_pci_new(), which takes
 * it; else free it with (*out)->ops->destroy(). */
int virtio_net_new(struct vm *vm, struct net_port *port, const struct virtio_net_config *cfg,
		   const char *id, struct virtio_dev **out, struct err *err);

#endif
