/*
 * A hostile virtio driver: interprets fuzz input as a list of 16-byte operations on a device
 * behind the PCI transport: descriptors, rings, registers, the window in configuration space,
 * kicks, pauses, resets, state saved and loaded, well-formed requests in between. When the
 * list ends the device must come back with a reset and work.
 */
#ifndef FUZZ_VFUZZ_H
#define FUZZ_VFUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "device/rig.h"

#define VFUZZ_MAX_OPS 256
#define VFUZZ_DATA    65536u /* bytes of buffers, at w->data */

enum vfuzz_what {
	VFUZZ_DESC,	 /* descriptor `index` */
	VFUZZ_AVAIL,	 /* makes head `index` available */
	VFUZZ_AVAIL_IDX, /* the avail index itself */
	VFUZZ_KICK,
	VFUZZ_COMMON,	/* writes a register of the common configuration */
	VFUZZ_CONFIG,	/* … of the device configuration */
	VFUZZ_BAR,	/* any access to the BAR */
	VFUZZ_WINDOW,	/* an access through the PCI_CFG capability */
	VFUZZ_POKE,	/* eight bytes of the buffers */
	VFUZZ_STEP,	/* the loop */
	VFUZZ_DEVICE,	/* what the target has of its own */
	VFUZZ_PAUSE,	/* or resume */
	VFUZZ_START,	/* reset and the driver's usual start */
	VFUZZ_TABLE,	/* an entry of an indirect table in the buffers */
	VFUZZ_CHAIN,	/* a well-formed chain */
	VFUZZ_TRANSFER, /* state saved and loaded again */
	VFUZZ_WHATS,
};
struct vfuzz_op {
	uint8_t what, arg;
	uint16_t index;
	uint32_t value;
	uint64_t addr;
};
_Static_assert(sizeof(struct vfuzz_op) == 16, "struct vfuzz_op");

struct vfuzz;
struct vfuzz_target {
	bool packed; /* begins with packed rings; VFUZZ_START may choose either */
	uint64_t without; /* features that a driver must not take */
	/* What a driver takes that wants these: without what needs more. NULL: all is well. */
	uint64_t (*features)(uint64_t wanted);
	/* Makes the device; the rig is there. */
	struct virtio_dev *(*create)(struct vfuzz *w);
	void (*op)(struct vfuzz *w, const struct vfuzz_op *op);
	/* Bits 3 to 5 of arg choose among all queues; else bit 3 between the first and the last. */
	bool all_queues;
	/* Lets go what the device was told to keep. */
	void (*release)(struct vfuzz *w);
	/* One good request on a device that was just started; false if it fails. */
	bool (*works)(struct vfuzz *w);
	/* The end of a run, before the machine goes. May be NULL. */
	void (*finish)(struct vfuzz *w);
	void (*destroyed)(struct vfuzz *w); /* after the device; may be NULL */
};
struct vfuzz {
	const struct vfuzz_target *target;
	struct rig r;
	struct virtio_dev *vd;
	gpa_t data;
	bool paused;
	void *priv;
};

/* The echo device (vfuzz_echo.c), for the rings themselves, the transport and the life cycle. */
extern const struct vfuzz_target vfuzz_echo_split, vfuzz_echo_packed;

void vfuzz_run(const struct vfuzz_target *t, const uint8_t *data, size_t len);

#endif
