/*
 * Between linux.c and the architecture's part of it.
 */
#ifndef FIRMWARE_LINUX_INT_H
#define FIRMWARE_LINUX_INT_H

#include "firmware/linux.h"

#define KERNEL_MAX (1 * GiB)

/* The whole file, malloc()ed. */
int fw_linux_read(int fd, const char *option, const char *name, uint64_t max, uint8_t **out,
		  size_t *len, struct err *err);
/* A size and its data. Takes data. */
int fw_linux_pair(struct fw_cfg *fw, uint16_t size_key, uint16_t data_key, void *data, size_t len,
		  struct err *err);
/* linux_x86.c, linux_arm64.c: reads, checks and adds the kernel. */
int fw_linux_kernel(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err);

#endif
