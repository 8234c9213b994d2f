/*
 * virtio-rng: the host's random numbers. Virtio 1.2, section 5.4.
 */
#ifndef DEVICE_VIRTIO_RNG_H
#define DEVICE_VIRTIO_RNG_H

#include "base/err.h"
#include "core/vm.h"
#include "virtio/virtio.h"

struct virtio_rng_config {
	const char *filename; /* a character device (rng-random); NULL: getrandom(2) (rng-builtin) */
	struct loop *loop;    /* NULL: the control loop */
	uint64_t max_bytes;   /* at most so many bytes in … */
	uint32_t period_ms;   /* … so many milliseconds; either 0: no limit */
};
/* Control loop, before isolation if filename is given. The result goes to virtio_pci_new(), which
 * takes it. -EINVAL, -ENOENT, … with a sentence. */
int virtio_rng_new(struct vm *vm, const struct virtio_rng_config *cfg, const char *id,
		   struct virtio_dev **out, struct err *err);

#endif
