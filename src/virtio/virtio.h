/*
 * A virtio device, apart from its transport. Virtio 1.2, chapters 2 and 3.
 *
 * Two const tables, one per direction: struct virtio_ops is what a device does,
 * struct virtio_transport_ops what the transport does for it. A device knows no PCI.
 *
 * Life of a queue: the driver enables it and sets DRIVER_OK → queue_start() on the queue's loop
 * → queue_kick() on each doorbell → queue_stop(): take nothing new, finish what is in flight,
 * virtq_stopped(). Device reset, queue reset, pause and destruction all use that one stop. After
 * a write of 0 the status reads non-zero until every queue has stopped, as the specification
 * allows (2.1.2), so no loop waits for I/O.
 *
 * Threads: the control loop owns configuration, features and status; each running queue is owned
 * by its loop. config_read may be called on any thread.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/device.h"
#include "core/vm.h"
#include "state/state.h"
#include "virtio/virtq.h"

#define VIRTIO_MAX_QUEUES 64u
#define VIRTIO_NO_VECTOR  0xffffu

struct virtio_dev;

struct virtio_ops {
	const char *name;      /* "virtio-blk" */
	uint16_t device_id;    /* 5. Device Types */
	uint32_t pci_class;    /* for the transport's header */
	unsigned config_len;
	/* Features of the device type (bits 0–23, 50–63) that this instance offers. */
	uint64_t (*features)(struct virtio_dev *vd);
	/* The driver wrote FEATURES_OK with this set; false refuses it. May be NULL. */
	bool (*features_ok)(struct virtio_dev *vd, uint64_t features);
	/* The features were settled by the driver, taken from a saved state, or cleared (0). For
	 * devices whose queues depend on them: none runs. May be NULL. */
	void (*features_set)(struct virtio_dev *vd, uint64_t features);
	/* off + len within config_len; any thread for read. write may be NULL. */
	/* config_len 0: both may be NULL. */
	void (*config_read)(struct virtio_dev *vd, unsigned off, void *buf, unsigned len);
	void (*config_write)(struct virtio_dev *vd, unsigned off, const void *buf, unsigned len);
	/* On the queue's loop. start may be NULL. */
	void (*queue_start)(struct virtq *q);
	void (*queue_kick)(struct virtq *q);
	void (*queue_stop)(struct virtq *q); /* NULL: nothing is ever in flight after a kick */
	/* All queues are stopped; back to the state before the driver. Control loop. May be NULL. */
	void (*reset)(struct virtio_dev *vd);
	void (*destroy)(struct virtio_dev *vd); /* frees */
	/* Device-specific state beside the common one; NULL: none. Paused. */
	const struct state_desc *state;
	int (*save)(struct virtio_dev *vd, void *st, struct err *err);
	int (*load)(struct virtio_dev *vd, const void *st, struct err *err);
};

struct virtio_transport_ops {
	void (*notify_queue)(struct virtio_dev *vd, struct virtq *q); /* any thread */
	void (*notify_config)(struct virtio_dev *vd);                  /* any thread */
};

/* Embedded by a device in its own structure. */
struct virtio_dev {
	const struct virtio_ops *ops;
	const struct virtio_transport_ops *transport;
	struct vm *vm;
	char name[64];              /* the device id, for logs */
	unsigned nqueues;
	struct virtq queue[VIRTIO_MAX_QUEUES];
	uint64_t offered, acked;    /* features */
	_Atomic uint8_t status;
	_Atomic uint8_t config_generation;
	uint16_t config_vector;
	_Atomic bool broken;
	bool paused, pausing, resetting;
	unsigned stopping;          /* queues whose virtq_stopped() is outstanding */
	struct device *dev;         /* the transport's device: device_paused() goes there */
	struct loop_work broken_work, stopped_work;
};

/* Before the transport is made. Offers VERSION_1, INDIRECT_DESC, EVENT_IDX, RING_RESET and
 * ops->features(). Every queue runs on `loop` (NULL: the control loop) unless moved with
 * virtio_queue_loop(); max_size is a power of two ≤ VIRTQ_MAX_SIZE. 0 or -errno (eventfd). */
int virtio_dev_init(struct virtio_dev *vd, struct vm *vm, const struct virtio_ops *ops,
		    const char *name, unsigned nqueues, uint16_t max_size, struct loop *loop);
void virtio_queue_loop(struct virtio_dev *vd, unsigned queue, struct loop *loop);
/* The size of one queue instead of max_size; the queue is at its defaults afterwards. */
void virtio_queue_size(struct virtio_dev *vd, unsigned queue, uint16_t size);
void virtio_offer_packed(struct virtio_dev *vd); /* VIRTIO_F_RING_PACKED, too */
void virtio_dev_fini(struct virtio_dev *vd); /* closes; every queue is stopped */

static inline bool virtio_has(const struct virtio_dev *vd, unsigned bit)
{
	return vd->acked >> bit & 1;
}
/* The guest broke its device: DEVICE_NEEDS_RESET, one line in the log, a configuration
 * interrupt. Queues take nothing more. Any thread. */
void virtio_broken(struct virtio_dev *vd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Configuration changed: next generation and an interrupt. Control loop. */
void virtio_config_changed(struct virtio_dev *vd);

/* --- for transports; control loop --- */
void virtio_set_status(struct virtio_dev *vd, uint8_t status); /* 0 resets, see above */
uint8_t virtio_get_status(struct virtio_dev *vd);
void virtio_queue_enable(struct virtq *q);
void virtio_queue_reset(struct virtq *q);      /* 2.6.1; enabled reads 0 when it is done */
bool virtio_queue_resetting(const struct virtq *q);
void virtio_set_features(struct virtio_dev *vd, uint64_t features);
/* Stops every running queue, then device_paused(vd->dev). */
void virtio_pause(struct virtio_dev *vd);
void virtio_resume(struct virtio_dev *vd);
void virtio_reset(struct virtio_dev *vd);      /* machine reset: queues are stopped (paused) */

/* The queue's MSI-X vector or VIRTIO_NO_VECTOR, which the driver may change while the queue runs.
 * set: control loop; get: any thread. */
static inline void virtio_queue_set_vector(struct virtq *q, uint16_t vector)
{
	__atomic_store_n(&q->vector, vector, __ATOMIC_RELAXED);
}
static inline uint16_t virtio_queue_vector(const struct virtq *q)
{
	return __atomic_load_n(&q->vector, __ATOMIC_RELAXED);
}

/* Common state; every queue is stopped. load checks sizes, alignment, ring addresses and
 * feature subset. */
struct virtio_state {
	uint64_t features;
	uint8_t status, config_generation;
	uint16_t config_vector;
	bool broken;
	uint32_t nqueues;
	struct virtq_state {
		uint16_t size, vector, last_avail, used_idx;
		bool enabled, avail_wrap, used_wrap;
		uint64_t desc, avail, used;
	} q[VIRTIO_MAX_QUEUES];
};
extern const struct state_desc virtio_state_desc;
void virtio_save(struct virtio_dev *vd, struct virtio_state *st);
int virtio_load(struct virtio_dev *vd, const struct virtio_state *st, struct err *err);

#endif
