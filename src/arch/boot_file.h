/*
 * Files of a direct boot, on their way into guest memory. Control loop, at each reset.
 */
#ifndef ARCH_BOOT_FILE_H
#define ARCH_BOOT_FILE_H

#include <stdint.h>

#include "base/err.h"
#include "mem/mem.h"

/* The size of a file that is not empty, by seeking. -errno with a sentence. */
int boot_file_size(int fd, const char *option, const char *name, uint64_t *size,
		   struct err *err);
/* Reads size bytes from off straight into guest memory. -errno with a sentence. */
int boot_file_to_guest(struct mem *m, int fd, uint64_t off, gpa_t gpa, uint64_t size,
		       const char *option, const char *name, struct err *err);

#endif
