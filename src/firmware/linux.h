/*
 * A Linux kernel for firmware to start: -kernel, -initrd and -append as fw_cfg items.
 */
#ifndef FIRMWARE_LINUX_H
#define FIRMWARE_LINUX_H

#include "base/err.h"
#include "firmware/fw_cfg.h"

struct fw_linux_config {
	const char *kernel_name, *initrd_name; /* paths, for messages */
	int kernel_fd, initrd_fd;	       /* regular files; initrd_fd -1: none */
	const char *cmdline;		       /* NULL: empty */
};
/* Reads the files whole and gives them to fw. The kernel is a bzImage, on Arm an Image, also packed with gzip (-EINVAL with a sentence
 * otherwise); files become shorter meanwhile: -EIO; -EFBIG above 1 GiB (kernel) and 4 GiB less a
 * page (initrd). The descriptors stay the caller's. At start, control loop. */
int fw_linux_add(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err);

#endif
