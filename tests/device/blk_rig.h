/*
 * A machine with a virtio-blk device on a disk in memory, or on a file, and its driver.
 *
 * Below the device: a spy that notes the last request and counts, a fault node that can fail and
 * hold requests, and the disk.
 */
#ifndef DEVICE_BLK_RIG_H
#define DEVICE_BLK_RIG_H

#include <errno.h>

#include "block/block_int.h"
#include "device/virtio/blk.h"
#include "rig.h"
#include "spec/virtio_blk.h"

#define F(bit)	      (UINT64_C(1) << (bit))
#define BLK_RIG_SIZE  (1 * MiB)
#define BLK_RIG_DATA  65536u
#define BLK_RIG_SLOTS 64 /* of headers, statuses and data for blk_rig_add() */

#define CONFIG(d, field)                                                                       \
	vdrv_config(d, offsetof(struct virtio_blk_config_layout, field),                       \
		    sizeof(((struct virtio_blk_config_layout *)0)->field))

struct blk_spy {
	struct blk_node node;
	struct blk_node *below;
	/* of the last request; written by the loop of the channel */
	enum blk_op op;
	unsigned flags;
	uint64_t off, len;
	_Atomic unsigned requests;
};
struct blk_rig {
	struct rig r;
	struct blk_spy spy;
	struct blk_node *fault, *disk_node;
	struct blk_user *fault_user;
	uint8_t *disk; /* content, if it is in memory */
	gpa_t hdr, status, data;
	uint32_t used_len; /* of the last request of blk_rig_do() and its like */
};

/* cfg NULL: the defaults. Its loop is ignored. */
void blk_rig_init(struct blk_rig *b, const struct virtio_blk_config *cfg);
/* node: the disk, which the rig then owns (NULL: in memory). */
void blk_rig_init_io(struct blk_rig *b, const struct virtio_blk_config *cfg, bool iothread,
		     struct blk_node *node);
void blk_rig_fini(struct blk_rig *b);
void blk_rig_hold(struct blk_rig *b, bool on);

/* Adds a request with `len` bytes of data (direction by type) in slot's part of the buffers; its
 * head. Does not kick. */
int blk_rig_add(struct blk_rig *b, unsigned slot, uint32_t type, uint64_t sector, uint32_t len);
int blk_rig_add_indirect(struct blk_rig *b, unsigned slot, uint32_t type, uint64_t sector,
			 uint32_t len);
/* One request with data at b->data and back: its status, 0xff if it did not come back. */
uint8_t blk_rig_do(struct blk_rig *b, uint32_t type, uint64_t sector, uint32_t len);
uint8_t blk_rig_erase(struct blk_rig *b, uint32_t type, uint64_t sector, uint32_t count,
		      uint32_t flags);
/* A request in pieces: lengths of the readable and writable descriptors, up to 8 or the first 0.
 * out: the data behind the header (may be NULL); in: gets all that is writable, the status last. */
uint8_t blk_rig_raw(struct blk_rig *b, uint32_t type, uint64_t sector,
		    const unsigned out_len[8], const unsigned in_len[8], const void *out,
		    void *in, unsigned flags);

#endif
