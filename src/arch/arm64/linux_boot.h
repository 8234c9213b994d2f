/*
 * Direct boot of an Image, plain or packed with gzip (Documentation/arm64/booting.rst of the
 * kernel). Untrusted: the kernel and the initrd are whatever the user names; each size is checked
 * against RAM before anything is copied. Control loop, before the vCPUs run.
 */
#ifndef ARCH_ARM64_LINUX_BOOT_H
#define ARCH_ARM64_LINUX_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/mem.h"

/* What the header says, checked. */
struct arm64_linux_kernel {
	uint64_t text_offset; /* from a multiple of 2 MiB */
	uint64_t size;	      /* of memory, what is cleared included */
};
#define ARM64_LINUX_HEADER_SIZE 64
/* 0 or -EINVAL with a sentence. Pure. */
int arm64_linux_check(const uint8_t head[ARM64_LINUX_HEADER_SIZE], size_t len, const char *name,
		      struct arm64_linux_kernel *k, struct err *err);

struct arm64_linux_config {
	const char *kernel_name, *initrd_name; /* for messages; initrd_name NULL: none */
	int kernel_fd, initrd_fd;	       /* regular files */
	/* RAM for kernel and initrd; base is a multiple of 2 MiB. */
	uint64_t base, end;
};
struct arm64_linux_entry {
	uint64_t entry;
	uint64_t initrd_start, initrd_end; /* equal: none */
};
/* Loads both. 0 or -errno with a sentence naming the file. */
int arm64_linux_load(struct mem *m, const struct arm64_linux_config *cfg,
		     struct arm64_linux_entry *out, struct err *err);

#endif
