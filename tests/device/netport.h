/*
 * A network back end for tests: what the device sends is kept, what the test puts in is received.
 * Put, room and the counters are for any thread; the rest happens on the device's loop.
 */
#ifndef DEVICE_NETPORT_H
#define DEVICE_NETPORT_H

#include <pthread.h>

#include "net/net.h"
#include "spec/virtio_net.h"

#define NETPORT_FRAMES 512

struct netport_frame {
	struct virtio_net_hdr_v1 hdr;
	uint8_t *data;
	size_t len; /* without the header */
};

struct netport {
	struct net_port port;
	struct net_client client;
	struct loop *loop;
	struct loop_fd watch;
	struct loop_work work;
	int fd; /* always readable and writable */
	pthread_mutex_t lock;
	struct netport_frame in[NETPORT_FRAMES], out[NETPORT_FRAMES];
	unsigned in_head, in_tail, nout; /* nout counts on, out[] keeps the first ones */
	bool rx_on, tx_on, full;
	bool echo;	     /* what is sent is received */
	int recv_error;	     /* -errno instead of frames */
	unsigned can, taken; /* offloads */
	unsigned attached, recvs;
};

void netport_init(struct netport *p, unsigned can);
void netport_fini(struct netport *p); /* after the device */
void netport_put(struct netport *p, const struct virtio_net_hdr_v1 *h, const void *data,
		 size_t len);
void netport_full(struct netport *p, bool full);
unsigned netport_sent(struct netport *p);
unsigned netport_waiting(struct netport *p); /* frames not received yet */
void netport_forget(struct netport *p);	     /* what was sent */

#endif
