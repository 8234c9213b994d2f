/*
 * Options for firmware (-fw_cfg, -boot), and the files of -kernel and -initrd. At start, control
 * loop.
 */
#ifndef MACHINE_FW_OPTIONS_H
#define MACHINE_FW_OPTIONS_H

#include "base/err.h"
#include "firmware/fw_cfg.h"

struct machine;
/* The boot menu, the boot order, the number of processors and the files of -fw_cfg. */
int fw_options_add(struct machine *m, struct fw_cfg *fw, struct err *err);
/* A regular file to be read; a sentence that names the option otherwise. */
int boot_file_open(const char *option, const char *path, int *fd, struct err *err);

#endif
