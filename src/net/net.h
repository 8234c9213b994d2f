/*
 * Network back ends, as devices see them: a port that takes and gives Ethernet frames, each with
 * a virtio-net header in front (struct virtio_net_hdr_v1, 12 bytes) when vnet_hdr is on.
 *
 * Threads: opened on the control loop; after net_attach() owned by the loop given there (each
 * queue of a port by its own), but for set_offloads() and set_active().
 * Untrusted: frames from the network, and what the guest sends.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/opts.h"
#include "base/rights.h"
#include "event/loop.h"

enum { /* offloads the port takes on receive (from port to guest) and on send */
	NET_OFF_CSUM = 1, NET_OFF_TSO4 = 2, NET_OFF_TSO6 = 4, NET_OFF_ECN = 8, NET_OFF_UFO = 16,
	NET_OFF_USO = 32,
};

struct net_port;
struct net_client {
	/* A frame is waiting (level: called again until rx is drained or disabled). On the loop. */
	void (*rx_ready)(void *opaque);
	/* send() returned -EAGAIN before; now there is room. On the loop. */
	void (*tx_ready)(void *opaque);
	void *opaque;
	/* The peer has gone, or is there again; up at attach() unless it is called from there. On
	 * the loop. May be NULL. */
	void (*link)(void *opaque, bool up);
};
struct net_port_ops {
	const char *type; /* "tap" */
	/* One frame with its virtio-net header. Bytes taken, or -EAGAIN, or -errno (frame dropped). */
	ssize_t (*send)(struct net_port *p, const struct iovec *iov, unsigned cnt);
	/* Reads one frame (header first) into iov; bytes, -EAGAIN if none, -EMSGSIZE if it did not
	 * fit (frame dropped). */
	ssize_t (*recv)(struct net_port *p, const struct iovec *iov, unsigned cnt);
	void (*rx_enable)(struct net_port *p, bool on);
	void (*tx_poll)(struct net_port *p, bool on); /* want tx_ready */
	unsigned (*offloads)(struct net_port *p);     /* what it can do */
	int (*set_offloads)(struct net_port *p, unsigned rx_offloads); /* what the guest takes */
	int (*attach)(struct net_port *p, struct loop *l, const struct net_client *c);
	void (*detach)(struct net_port *p);
	void (*close)(struct net_port *p); /* frees, with all queues */
	/* A queue takes its share of the frames, or none. Control loop. NULL: there is one queue. */
	int (*set_active)(struct net_port *p, bool on);
};
struct net_port {
	const struct net_port_ops *ops;
	char id[64];
	bool claimed; /* a device has it */
	/* The other queues of the same interface, ports of their own but for close() and offloads,
	 * which all have in common. The first is active from the start. */
	struct net_port **more;
	unsigned nmore;
};

static inline struct net_port *net_port_queue(struct net_port *p, unsigned i)
{
	return i ? p->more[i - 1] : p;
}

#define NET_HDR_LEN 12u

/* What opening needs. rights may be NULL: nothing is started or connected again. */
struct net_env {
	struct loop *loop; /* the control loop, on which this is called */
	const struct rights *rights;
};
/* -netdev tap|user|stream,id=…,…: -EINVAL for a key that is not supported here, by name. Before
 * isolation. */
int net_open(struct opts *o, const struct net_env *env, struct net_port **out, struct err *err);
/* Keys of -netdev that may be given several times (opts_parse_lists()), NULL at the end. */
extern const char *const net_list_keys[];

#endif
