/*
 * An Arm kernel for firmware: an EFI program, plain or packed with gzip (which firmware cannot
 * unpack). Linux, Documentation/arm64/booting.rst. Untrusted: the file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/gunzip.h"
#include "base/util.h"
#include "firmware/linux_int.h"
#include "spec/fw_cfg.h"

#define CHUNK (4 * MiB)

static int read_kernel(const struct fw_linux_config *cfg, uint8_t **out, size_t *len,
		       struct err *err)
{
	struct gunzip *g;
	uint8_t *p = NULL, *grown;
	size_t done = 0;
	ssize_t n = gunzip_open(cfg->kernel_fd, &g);

	if (n < 0) {
		return err_set(err, (int)-n, "-kernel %s: cannot be read: %s", cfg->kernel_name,
			       strerror((int)-n));
	}
	do {
		grown = realloc(p, done + CHUNK);
		if (!grown || done > KERNEL_MAX) {
			n = grown ? -EFBIG : -ENOMEM;
			p = grown ? grown : p;
			break;
		}
		p = grown;
		n = gunzip_read(g, p + done, CHUNK);
		done += n > 0 ? (size_t)n : 0;
	} while (n == (ssize_t)CHUNK);
	gunzip_close(g);
	if (n < 0) {
		free(p);
		return err_set(err, (int)-n, "-kernel %s: cannot be read: %s", cfg->kernel_name,
			       n == -EINVAL ? "its gzip data is damaged" : strerror((int)-n));
	}
	*out = p;
	*len = done;
	return 0;
}

int fw_linux_kernel(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err)
{
	uint8_t *p = NULL;
	size_t len = 0;
	int ret = read_kernel(cfg, &p, &len, err);

	if (ret) {
		return ret;
	}
	if (len < 64 || memcmp(p, "MZ", 2) || memcmp(p + 56, "ARM\x64", 4)) {
		free(p);
		return err_set(err, EINVAL,
			       "-kernel %s: is no Arm kernel that firmware can start; give the "
			       "vmlinuz "
			       "of a distribution or arch/arm64/boot/Image with CONFIG_EFI",
			       cfg->kernel_name);
	}
	return fw_linux_pair(fw, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, p, len, err);
}
