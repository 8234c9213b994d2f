/*
 * A virtio driver for tests: what a guest's driver does, from the PCI capabilities to the used
 * ring, against the real transport on a fake machine (fakes/fakes.h). Every device test and
 * fuzz target uses it.
 *
 *	struct vdrv d;
 *	vdrv_init(&d, fv, root, devfn, 0xe0000000);   finds the capabilities, maps BARs, MSI-X on
 *	vdrv_start(&d, features, 0);                  status, features, all queues, DRIVER_OK
 *	vdrv_add(&d.q[0], segs, n_out, n_in, 0);      a chain
 *	vdrv_kick(&d.q[0]);                           if the device wants to hear of it
 *	vdrv_wait(&d.q[0], &id, &len);                polls the used ring, running the loop
 *
 * The rings are accessed with atomics, as a guest's CPU would, so that thread sanitizers see the
 * same ordering as the device. A struct vdrv belongs to one thread; vdrv_init() and everything
 * that says so is for the thread of the control loop.
 */
#ifndef DEVICE_VDRV_H
#define DEVICE_VDRV_H

#include <stdbool.h>
#include <stdint.h>

#include "fakes/fakes.h"
#include "pci/pci.h"
#include "spec/virtio.h"
#include "spec/virtio_pci.h"
#include "virtio/virtio.h"

/* Where the driver has its memory: rings and buffers are given out from here. */
#define VDRV_MEM_BASE 0x100000
#define VDRV_MSI_ADDR 0xfee00000u
#define VDRV_MSI_DATA 0x40u /* vector n sends VDRV_MSI_DATA + n + 256 * devfn */

#define VDRV_QUEUES 16 /* that a driver uses at most */

struct vdrv;
struct vdrv_seg {
	gpa_t addr;
	uint32_t len;
};
enum {
	VDRV_INDIRECT = 1, /* the chain goes into an indirect table */
};

struct vdrv_queue {
	struct vdrv *d;
	unsigned index;
	uint16_t size;
	uint64_t notify; /* address of the doorbell */
	bool packed;
	gpa_t desc_gpa, avail_gpa, used_gpa; /* packed: ring, driver's and device's event area */
	struct virtq_desc *desc;
	uint16_t *avail, *used; /* as arrays of 16-bit words */
	uint16_t avail_idx, kicked_idx, last_used;
	bool avail_wrap, used_wrap;	  /* packed */
	unsigned unkicked, taken;	  /* packed: entries since the last kick, used chains */
	uint16_t id_next[VIRTQ_MAX_SIZE]; /* packed: free ids */
	uint16_t free_head, nfree;
	unsigned pending;		    /* chains that were added and did not come back yet */
	uint16_t chain_len[VIRTQ_MAX_SIZE]; /* by head */
	gpa_t table[VIRTQ_MAX_SIZE];	    /* of an indirect chain, made on first use */
	uint16_t table_len[VIRTQ_MAX_SIZE];
};

struct vdrv {
	struct fake_vm *fv;
	struct fake_cpu *cpu; /* NULL: the test's own thread */
	struct pci_bus *root;
	uint8_t devfn;
	uint64_t bar; /* where BAR 4 is */
	uint64_t common, isr, device, notify;
	uint32_t notify_multiplier, device_len;
	unsigned pci_cfg_cap, msix_cap;
	uint64_t msix_table;
	uint64_t features, always; /* negotiated; wanted whatever the test asks for */
	unsigned nqueues, nvectors;
	gpa_t mem_next;
	struct vdrv_queue q[VDRV_QUEUES];
};

/* Walks the capabilities of root's function devfn, maps its BARs at `bar` (BAR 4 first), turns
 * memory decoding, bus mastering and MSI-X on, one message for each vector. Asserts (aborts) on
 * anything that a driver would refuse. Control loop. */
void vdrv_init(struct vdrv *d, struct fake_vm *fv, struct pci_bus *root, uint8_t devfn,
	       uint64_t bar);
/* Control loop: moves BAR 4. */
void vdrv_bar_move(struct vdrv *d, uint64_t bar);
/* A driver that finds the device as another one left it (after a state transfer): same rings,
 * same indices, another machine. Control loop. */
void vdrv_adopt(struct vdrv *d, const struct vdrv *old, struct fake_vm *fv,
		struct pci_bus *root);

/* --- registers --- */
uint64_t vdrv_read(struct vdrv *d, uint64_t addr, unsigned len);
void vdrv_write(struct vdrv *d, uint64_t addr, uint64_t value, unsigned len);
uint32_t vdrv_common(struct vdrv *d, unsigned off, unsigned len);
void vdrv_common_set(struct vdrv *d, unsigned off, unsigned len, uint32_t value);
uint8_t vdrv_status(struct vdrv *d);
void vdrv_status_set(struct vdrv *d, uint8_t status); /* writes it as it is */
uint64_t vdrv_config(struct vdrv *d, unsigned off, unsigned len);
void vdrv_config_set(struct vdrv *d, unsigned off, unsigned len, uint64_t value);
uint64_t vdrv_offered(struct vdrv *d);
#define VDRV_COMMON(d, field)                                                                  \
	vdrv_common(d, offsetof(struct virtio_pci_common_cfg, field),                          \
		    sizeof(((struct virtio_pci_common_cfg *)0)->field))
#define VDRV_COMMON_SET(d, field, v)                                                           \
	vdrv_common_set(d, offsetof(struct virtio_pci_common_cfg, field),                      \
			sizeof(((struct virtio_pci_common_cfg *)0)->field), v)

/* --- life --- */
/* Writes 0 and runs the loop until the status reads 0; false if it does not within 10 s. */
bool vdrv_reset(struct vdrv *d);
/* ACKNOWLEDGE, DRIVER, the wanted features as far as they are offered, FEATURES_OK; false if the
 * device refused. VERSION_1 is always wanted. */
bool vdrv_negotiate(struct vdrv *d, uint64_t wanted);
/* New rings for queue i (size 0: the device's) and vector i + 1, enabled. */
void vdrv_queue_setup(struct vdrv *d, unsigned i, uint16_t size);
void vdrv_queue_enable(struct vdrv *d, unsigned i);
/* queue_reset and the wait for its end; false if there is none within 10 s. */
bool vdrv_queue_reset(struct vdrv *d, unsigned i);
/* All of it: reset, negotiate, every queue, DRIVER_OK. Aborts if something fails. */
void vdrv_start(struct vdrv *d, uint64_t wanted, uint16_t size);

/* --- memory: never given back --- */
gpa_t vdrv_alloc(struct vdrv *d, uint64_t len, uint64_t align);
void *vdrv_ptr(struct vdrv *d, gpa_t gpa, uint64_t len); /* aborts outside RAM */

/* --- rings --- */
/* Adds a chain of n_out readable and n_in writable segments and makes it available; its head,
 * or -1 if there are too few descriptors. Does not kick. */
int vdrv_add(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out, unsigned n_in,
	     unsigned flags);
/* Raw access, for chains that no driver would make. On a packed ring `next` is the buffer id and
 * flags are as they are; vdrv_avail_put() makes the next entry of the ring available with the
 * id `head`, and vdrv_avail_idx_set() moves the driver there (bit 15: wrap counter). */
void vdrv_desc_set(struct vdrv_queue *q, uint16_t i, uint64_t addr, uint32_t len,
		   uint16_t flags, uint16_t next);
void vdrv_avail_put(struct vdrv_queue *q, uint16_t head); /* an entry, and the index */
void vdrv_avail_idx_set(struct vdrv_queue *q, uint16_t idx);
void vdrv_kick(struct vdrv_queue *q); /* if the device asked for it (2.7.10, 2.7.13.4) */
bool vdrv_kick_wanted(struct vdrv_queue *q);
void vdrv_kick_always(struct vdrv_queue *q);
unsigned vdrv_used_total(struct vdrv_queue *q); /* chains used since the queue was set up */
/* One used entry, if there is one; its descriptors are free again. */
bool vdrv_used(struct vdrv_queue *q, uint16_t *head, uint32_t *len);
/* Runs the loop (when on its thread) until there is one; false after 10 s. */
bool vdrv_wait(struct vdrv_queue *q, uint16_t *head, uint32_t *len);
/* Runs the loop, or sleeps a moment if this is not its thread. */
void vdrv_settle(struct vdrv *d);
/* Asks for an interrupt at the next used entry / for none. */
void vdrv_irq_on(struct vdrv_queue *q);
void vdrv_irq_off(struct vdrv_queue *q);
/* Interrupts of a queue's vector, or the configuration's (vector 0), since the start. */
uint64_t vdrv_irqs(struct vdrv *d, unsigned vector);

#endif
