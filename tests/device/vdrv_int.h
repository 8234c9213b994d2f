/* Between vdrv.c, which has the split ring, and vdrv_packed.c. */
#ifndef DEVICE_VDRV_INT_H
#define DEVICE_VDRV_INT_H

#include <stdio.h>
#include <stdlib.h>

#include "vdrv.h"

static inline void must_(bool ok, const char *what, const char *file, int line)
{
	if (!ok) {
		fprintf(stderr, "%s:%d: %s\n", file, line, what);
		abort();
	}
}
#define must(x) must_(x, #x, __FILE__, __LINE__)

static inline uint16_t seg_flags(unsigned i, unsigned n_out, unsigned n)
{
	return (uint16_t)((i >= n_out ? VIRTQ_DESC_F_WRITE : 0) |
			  (i + 1 < n ? VIRTQ_DESC_F_NEXT : 0));
}

/* The memory of the indirect table that chain i has, for n descriptors. */
struct virtq_desc *table_for(struct vdrv_queue *q, uint16_t i, unsigned n);

/* As the functions of vdrv.h that have the same names. */
void packed_new(struct vdrv_queue *q);
void packed_desc_set(struct vdrv_queue *q, uint16_t i, uint64_t addr, uint32_t len,
		     uint16_t flags, uint16_t id);
int packed_add(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out, unsigned n,
	       bool indirect);
void packed_avail_put(struct vdrv_queue *q, uint16_t id);
void packed_avail_idx_set(struct vdrv_queue *q, uint16_t idx);
bool packed_kick_wanted(struct vdrv_queue *q);
bool packed_used(struct vdrv_queue *q, uint16_t *head, uint32_t *len);
unsigned packed_used_total(struct vdrv_queue *q);
void packed_irq_on(struct vdrv_queue *q);
void packed_irq_off(struct vdrv_queue *q);

#endif
