/*
 * fw_cfg: how firmware learns about the machine. Numbered items and named files, read through
 * a selector and a data port or by DMA.
 *
 * Everything is for the control loop: guest accesses are executed there (the vCPU waits).
 * Items are added before the guest runs and stay until the device is destroyed.
 */
#ifndef FIRMWARE_FW_CFG_H
#define FIRMWARE_FW_CFG_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "core/vm.h"

struct fw_cfg;

enum fw_cfg_own {
	FW_CFG_BORROW, /* stays the caller's and must outlive the device */
	FW_CFG_COPY,   /* copied now */
	FW_CFG_TAKE,   /* malloc()ed; freed with the device, and when adding fails */
};

#define FW_CFG_MAX_FILES 64

/* Makes the device "fw-cfg" with its ports at `port` and registers it in vm->devices, which
 * destroys it. Holds the signature, the id and the (empty) directory. */
int fw_cfg_new(struct vm *vm, uint16_t port, struct fw_cfg **out, struct err *err);
/* The same at a memory address. */
int fw_cfg_new_mmio(struct vm *vm, uint64_t base, struct fw_cfg **out, struct err *err);

/* Content of a fixed key (spec/fw_cfg.h), replacing what was there. -ENOMEM. */
int fw_cfg_set_key(struct fw_cfg *fw, uint16_t key, const void *data, size_t len,
		   enum fw_cfg_own own, struct err *err);
int fw_cfg_set_u16(struct fw_cfg *fw, uint16_t key, uint16_t value, struct err *err);
int fw_cfg_set_u32(struct fw_cfg *fw, uint16_t key, uint32_t value, struct err *err);

/* A named file. -EEXIST, -EINVAL (name too long or empty, content above 4 GiB), -ENOSPC. */
int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
		    enum fw_cfg_own own, struct err *err);

/* A file whose content is made when the guest selects it or the directory: refresh() returns
 * the bytes, which stay valid until the next call, and their number; NULL and 0 if they cannot
 * be made. */
typedef const void *fw_cfg_refresh_fn(void *opaque, size_t *len);
int fw_cfg_add_file_refresh(struct fw_cfg *fw, const char *name, fw_cfg_refresh_fn *refresh,
			    void *opaque, struct err *err);

/* A file of fixed length that the guest may write by DMA; the content is the device's and
 * starts as `data` (copied; NULL: zeroes). written() is called after each write with the whole
 * content, and after a state was loaded; it judges the content, which is the guest's. */
typedef void fw_cfg_written_fn(void *opaque, const void *data, size_t len);
#define FW_CFG_MAX_WRITABLE 4096
int fw_cfg_add_file_writable(struct fw_cfg *fw, const char *name, const void *data, size_t len,
			     fw_cfg_written_fn *written, void *opaque, struct err *err);

#endif
