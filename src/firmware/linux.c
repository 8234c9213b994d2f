/*
 * Kernel, initrd and command line for firmware: files to fw_cfg items (keys in spec/fw_cfg.h). What
 * a kernel looks like differs: linux_x86.c, linux_arm64.c.
 *
 * Files are read, not mapped: one that is truncated meanwhile must not kill the process.
 * Untrusted: the files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "base/wire.h"
#include "firmware/linux_int.h"
#include "spec/fw_cfg.h"

#define INITRD_MAX (4 * GiB - 4096)

/* The whole file, malloc()ed. #syscalls(start): newfstatat pread64 */
int fw_linux_read(int fd, const char *option, const char *name, uint64_t max, uint8_t **out,
		  size_t *len, struct err *err)
{
	struct stat st;
	uint8_t *p;
	size_t done = 0;
	int ret;

	if (fstat(fd, &st) < 0) {
		return err_set(err, errno, "%s %s: cannot be read: %s", option, name,
			       strerror(errno));
	}
	if ((uint64_t)st.st_size > max) {
		return err_set(err, EFBIG, "%s %s: has more than %llu MiB; give a smaller file",
			       option, name, (unsigned long long)(max / MiB));
	}
	p = malloc((size_t)st.st_size + 1);
	if (!p) {
		return err_set(err, ENOMEM, "%s %s: no memory for its %lld bytes", option, name,
			       (long long)st.st_size);
	}
	while (done < (size_t)st.st_size) {
		ssize_t n = pread(fd, p + done, (size_t)st.st_size - done, (off_t)done);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			ret = n ? errno : EIO;
			free(p);
			return err_set(err, ret, "%s %s: cannot be read: %s", option, name,
				       n ? strerror(ret) : "it became shorter meanwhile");
		}
		done += (size_t)n;
	}
	*out = p;
	*len = done;
	return 0;
}

/* A size and its data. Takes data. */
int fw_linux_pair(struct fw_cfg *fw, uint16_t size_key, uint16_t data_key, void *data,
		  size_t len, struct err *err)
{
	int ret = fw_cfg_set_u32(fw, size_key, (uint32_t)len, err);

	if (ret) {
		free(data);
		return ret;
	}
	return fw_cfg_set_key(fw, data_key, data, len, FW_CFG_TAKE, err);
}

int fw_linux_add(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err)
{
	const char *text = cfg->cmdline ? cfg->cmdline : "";
	char *cmdline;
	int ret = fw_linux_kernel(fw, cfg, err);

	if (ret) {
		return ret;
	}
	if (cfg->initrd_fd >= 0) {
		uint8_t *p;
		size_t len;

		ret = fw_linux_read(cfg->initrd_fd, "-initrd", cfg->initrd_name, INITRD_MAX, &p,
				    &len, err);
		ret = ret ? ret
			  : fw_linux_pair(fw, FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA, p, len,
					  err);
		if (ret) {
			return ret;
		}
	}
	cmdline = strdup(text);
	if (!cmdline) {
		return err_set(err, ENOMEM, "-append: no memory");
	}
	return fw_linux_pair(fw, FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA, cmdline,
			     strlen(text) + 1, err);
}
