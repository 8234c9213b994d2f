/*
 * Chains and rings that no driver may make (virtio 1.2, 2.7), one by one: each breaks any device
 * as soon as it looks at the queue.
 */
#ifndef DEVICE_BAD_H
#define DEVICE_BAD_H

#include "vdrv.h"

/* Memory for them: a page for data, and an indirect table of BAD_TABLE entries. */
#define BAD_TABLE (VIRTQ_MAX_SEGS + 1)
struct bad_mem {
	gpa_t data, table;
};
void bad_mem_init(struct bad_mem *m, struct vdrv *d);

struct bad_kind {
	const char *name;
	/* Made available in a queue of four entries or more; not kicked. */
	void (*make)(struct vdrv_queue *q, const struct bad_mem *m);
};
extern const struct bad_kind bad_kinds[];
extern const unsigned bad_nkinds;

/* The queue's rings where they must not be: misaligned, outside, in firmware, over the end of RAM.
 * Between vdrv_queue_setup() and vdrv_queue_enable(). */
#define BAD_FIRMWARE 0xfff00000u /* a region of this kind is made there by bad_mem_init() */
struct bad_ring {
	const char *name;
	unsigned reg; /* of struct virtio_pci_common_cfg */
	uint64_t addr;
};
extern const struct bad_ring bad_rings[];
extern const unsigned bad_nrings;
void bad_ring_set(struct vdrv *d, const struct bad_ring *b);

#endif
