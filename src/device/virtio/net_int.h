/*
 * Between the files of virtio-net: net.c (configuration, control queue, life), net_rx.c and
 * net_tx.c (the data paths). A pair belongs to its loop, everything else to the control loop.
 */
#ifndef DEVICE_VIRTIO_NET_INT_H
#define DEVICE_VIRTIO_NET_INT_H

#include <stdatomic.h>

#include "device/virtio/net.h"
#include "spec/virtio_net.h"

/* The largest frame there is: 64 KiB of IP, an Ethernet header, two VLAN tags. */
#define NET_FRAME_MAX (65535u + 14 + 8)
#define NET_FRAME_MIN 14u
/* readv(2) and writev(2) take so many entries (IOV_MAX). */
#define NET_VECS_MAX  1024u

/*
 * Receive. Buffers are taken from the ring ahead of the frames and wait in a window, oldest
 * first, so that a frame of unknown size can be read straight into them. Their entries lie one
 * behind the other in iov[], with a free one in front (for the header's host copy) and one
 * behind (for the overflow), so that the array goes to readv(2) as it is.
 */
struct net_rx {
	struct virtq_chain *chain; /* ring of chain_mask + 1 */
	unsigned chain_mask, first, count;
	struct iovec *iov;
	unsigned head, tail; /* entries of the window: iov[head..tail) */
	uint64_t bytes;      /* they hold */

	struct virtio_net_hdr_v1 hdr; /* of the frame that is being read */
	uint8_t *overflow; /* what did not fit into the window */
	/* A frame of held bytes (header included) whose end is in overflow, from byte `spilled_at`
	 * on: it waits for buffers. 0: none. */
	size_t held, spilled_at;
	struct loop_timer patience;
	bool on;           /* the port tells us of frames */
	bool port_failed;
};

struct net_tx {
	struct iovec *iov; /* one in front for the header's host copy */
	bool blocked;      /* the port has no room */
};

struct net_pair {
	struct virtio_net *n;
	unsigned index;
	struct net_port *port;
	struct loop *loop;
	bool attached;
	bool active;	   /* the driver wants frames from it */
	uint64_t offloads; /* n->guest_offloads, as far as this loop knows */
	struct net_rx rx;
	struct net_tx tx;
};

struct virtio_net {
	struct virtio_dev vd;
	struct net_port *port;
	struct virtio_net_config cfg;
	bool claimed;
	bool mq;	      /* VIRTIO_NET_F_MQ is settled: the control queue is behind all pairs */
	_Atomic uint64_t mac; /* byte 0 is the lowest; config_read is for any thread */
	_Atomic bool link_up; /* written on the device's loop */
	struct loop_work link_work; /* the driver is told, on the control loop */
	uint64_t guest_offloads; /* feature bits of what the driver takes now */
	unsigned active;	 /* pairs in use: the first so many */
	unsigned npairs;
	struct net_pair *pair;
};

/* Of a pair's queues; the control queue of a device with one pair. */
enum { NET_Q_RX, NET_Q_TX, NET_Q_CTRL };
#define NET_PAIRS_MAX ((VIRTIO_MAX_QUEUES - 1) / 2)

static inline struct virtio_net *net_of(struct virtio_dev *vd)
{
	return container_of(vd, struct virtio_net, vd);
}

static inline struct net_pair *net_pair_of(const struct virtq *q)
{
	return &net_of(q->vd)->pair[q->index / 2];
}

/* Cuts the first len bytes off iov[0..cnt), which has more; saved[len] takes the entries as they
 * were. The number of entries changed: pass it to net_uncut(). */
unsigned net_cut(struct iovec *iov, size_t len, struct iovec *saved);
static inline void net_uncut(struct iovec *iov, const struct iovec *saved, unsigned n)
{
	while (n-- > 0) {
		iov[n] = saved[n];
	}
}

/* Control loop. 0 or -ENOMEM. */
int net_rx_init(struct net_pair *p, uint16_t queue_size);
void net_rx_fini(struct net_pair *p);
/* p->active changed. */
void net_rx_active(struct net_pair *p);
void net_rx_start(struct virtq *q);
void net_rx_kick(struct virtq *q);
void net_rx_stop(struct virtq *q);
void net_rx_ready(void *opaque);

int net_tx_init(struct net_pair *p);
void net_tx_fini(struct net_pair *p);
void net_tx_kick(struct virtq *q);
void net_tx_stop(struct virtq *q);
void net_tx_ready(void *opaque);

/* Checks a driver's header for a frame of `len` bytes and brings it into the form that goes to
 * the port. NULL, or why the frame cannot be sent. Pure, apart from the features. */
const char *net_tx_header_check(const struct virtio_dev *vd, struct virtio_net_hdr_v1 *h,
				size_t len);

#endif
