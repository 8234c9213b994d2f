/*
 * The simplest virtio device: copies what a request reads into what it may write. For tests of
 * the virtqueue, the transport and the life cycle.
 *
 * It can be told to keep requests in flight (hold), to try the protocols that wait for them.
 * hold may be switched by any thread; the rest belongs to the queue's loop.
 */
#ifndef DEVICE_ECHO_H
#define DEVICE_ECHO_H

#include <stdatomic.h>
#include <stdbool.h>

#include "rig.h"
#include "virtio/virtio.h"

#define ECHO_QUEUES	2
#define ECHO_QUEUE_SIZE 64
#define ECHO_SEGS	32
#define ECHO_CONFIG	16
#define ECHO_F_REFUSED	5 /* offered, but refused at FEATURES_OK */

struct echo_req {
	struct virtq_chain c;
	struct iovec iov[ECHO_SEGS];
};
struct echo {
	struct virtio_dev vd;
	_Atomic bool hold;
	_Atomic unsigned held;
	_Atomic unsigned served, resets, starts, stops;
	_Atomic uint8_t config[ECHO_CONFIG];
	bool *destroyed; /* set when it is, if not NULL */
	struct loop_work release_work[ECHO_QUEUES];
	struct {
		struct virtq *q;
		unsigned n; /* held requests */
		struct echo_req req[ECHO_QUEUE_SIZE];
	} q[ECHO_QUEUES];
};

struct echo *echo_new(struct vm *vm, const char *id, struct loop *loop);
static inline struct echo *echo_of(struct virtio_dev *vd)
{
	return container_of(vd, struct echo, vd);
}
/* Lets everything go that is held, and holds nothing more. Any thread. */
void echo_release(struct echo *e);

/* A machine with an echo device and its driver. */
#define ECHO_DATA 64u
struct echo_rig {
	struct rig r;
	struct echo *e;
	gpa_t out, in; /* a page each */
};
void echo_rig_init(struct echo_rig *f);
void echo_rig_init_io(struct echo_rig *f, bool iothread, unsigned ram_high_mib);
void echo_rig_fini(struct echo_rig *f); /* releases what is held */
/* One request of ECHO_DATA bytes through queue i and back; whether it came back as it should. */
bool echo_request(struct echo_rig *f, unsigned i, unsigned flags);
#define echo_once(f, i, flags) assert_true(echo_request(f, i, flags))

#endif
