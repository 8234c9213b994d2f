/*
 * Which iothread each queue of a device is on: iothread-vq-mapping of -device, in QEMU's JSON
 *
 *	"iothread-vq-mapping": [{"iothread": "io0", "vqs": [0, 2]}, {"iothread": "io1", "vqs": [1]}]
 *
 * or flat: iothread-vq-mapping.0.iothread=io0,iothread-vq-mapping.0.vqs.0=0,… Without vqs the
 * queues are dealt out in turn. The operator is trusted; what is wrong is refused by name.
 */
#ifndef MACHINE_VQ_MAP_H
#define MACHINE_VQ_MAP_H

#include "base/opts.h"
#include "virtio/virtio.h"

struct backends;
struct vq_map {
	unsigned count; /* 0: not given */
	struct {
		const char *iothread; /* lives as long as the options */
		uint64_t vqs;	      /* bit n: queue n; 0: not said */
	} entry[VIRTIO_MAX_QUEUES];
};

/* Takes the keys of the mapping out of the options. */
int vq_map_take(struct vq_map *map, struct opts *o, struct err *err);
/* Fills loops[n] if there is a mapping. pairs: n is the number of queue pairs of a network card, which
 * are only ever dealt out in turn. */
int vq_map_loops(const struct vq_map *map, struct backends *be, unsigned n, bool pairs,
		 struct loop **loops, struct err *err);

#endif
