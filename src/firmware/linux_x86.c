/*
 * A bzImage for firmware. Linux, Documentation/arch/x86/boot.rst.
 *
 * Firmware wants the kernel in two items: the setup part (boot sector and real-mode code, whose
 * length the header says) and the rest. OVMF puts them together again and starts the result as
 * an EFI program. Untrusted: the file. Only three fields of the kernel's header are looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/linux_int.h"
#include "spec/fw_cfg.h"

#define SECTOR	    512u
#define SETUP_SECTS 0x1f1 /* u8; 0 means 4 */
#define BOOT_FLAG   0x1fe /* 0xaa55 */
#define HEADER	    0x202 /* "HdrS" */
#define HEADER_END  0x206

/* The length of the setup part, or 0 if this is no bzImage. */
static size_t setup_len(const uint8_t *p, size_t len)
{
	size_t setup;

	if (len < HEADER_END || p[BOOT_FLAG] != 0x55 || p[BOOT_FLAG + 1] != 0xaa ||
	    memcmp(p + HEADER, "HdrS", 4) != 0) {
		return 0;
	}
	setup = ((p[SETUP_SECTS] ? p[SETUP_SECTS] : 4u) + 1) * SECTOR;
	return setup < len ? setup : 0;
}

int fw_linux_kernel(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err)
{
	uint8_t *p, *rest, *shrunk;
	size_t len, setup;
	int ret = fw_linux_read(cfg->kernel_fd, "-kernel", cfg->kernel_name, KERNEL_MAX, &p,
				&len, err);

	if (ret) {
		return ret;
	}
	setup = setup_len(p, len);
	if (!setup) {
		free(p);
		return err_set(err, EINVAL,
			       "-kernel %s: is no bzImage; give the vmlinuz of a "
			       "distribution or arch/x86/boot/bzImage of a kernel tree",
			       cfg->kernel_name);
	}
	rest = malloc(len - setup);
	if (!rest) {
		free(p);
		return err_set(err, ENOMEM, "-kernel %s: no memory for it", cfg->kernel_name);
	}
	memcpy(rest, p + setup, len - setup);
	shrunk = realloc(p, setup);
	p = shrunk ? shrunk : p;
	ret = fw_linux_pair(fw, FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, p, setup, err);
	if (ret) {
		free(rest);
		return ret;
	}
	return fw_linux_pair(fw, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, rest, len - setup,
			     err);
}
