/*
 * Kernel, initrd and command line for firmware. Linux, Documentation/arch/x86/boot.rst; keys in
 * spec/fw_cfg.h.
 *
 * Firmware wants the kernel in two items: the setup part (boot sector and real-mode code, whose
 * length the header says) and the rest. OVMF puts them together again and starts the result as
 * an EFI program, with the initrd and the command line beside it.
 *
 * Files are read, not mapped: one that is truncated meanwhile must not kill the process.
 * Untrusted: the files. Only three fields of the kernel's header are looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "base/wire.h"
#include "firmware/linux.h"
#include "spec/fw_cfg.h"

#define KERNEL_MAX  (1 * GiB)
#define INITRD_MAX  (4 * GiB - 4096)
#define SECTOR	    512u
#define SETUP_SECTS 0x1f1 /* u8; 0 means 4 */
#define BOOT_FLAG   0x1fe /* 0xaa55 */
#define HEADER	    0x202 /* "HdrS" */
#define HEADER_END  0x206

/* The whole file, malloc()ed. #syscalls(start): newfstatat pread64 */
static int read_all(int fd, const char *option, const char *name, uint64_t max, uint8_t **out,
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
static int add_pair(struct fw_cfg *fw, uint16_t size_key, uint16_t data_key, void *data,
		    size_t len, struct err *err)
{
	int ret = fw_cfg_set_u32(fw, size_key, (uint32_t)len, err);

	if (ret) {
		free(data);
		return ret;
	}
	return fw_cfg_set_key(fw, data_key, data, len, FW_CFG_TAKE, err);
}

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

static int add_kernel(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err)
{
	uint8_t *p, *rest, *shrunk;
	size_t len, setup;
	int ret = read_all(cfg->kernel_fd, "-kernel", cfg->kernel_name, KERNEL_MAX, &p, &len,
			   err);

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
	ret = add_pair(fw, FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, p, setup, err);
	if (ret) {
		free(rest);
		return ret;
	}
	return add_pair(fw, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, rest, len - setup, err);
}

int fw_linux_add(struct fw_cfg *fw, const struct fw_linux_config *cfg, struct err *err)
{
	const char *text = cfg->cmdline ? cfg->cmdline : "";
	char *cmdline;
	int ret = add_kernel(fw, cfg, err);

	if (ret) {
		return ret;
	}
	if (cfg->initrd_fd >= 0) {
		uint8_t *p;
		size_t len;

		ret = read_all(cfg->initrd_fd, "-initrd", cfg->initrd_name, INITRD_MAX, &p,
			       &len, err);
		ret = ret ? ret
			  : add_pair(fw, FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA, p, len, err);
		if (ret) {
			return ret;
		}
	}
	cmdline = strdup(text);
	if (!cmdline) {
		return err_set(err, ENOMEM, "-append: no memory");
	}
	return add_pair(fw, FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA, cmdline, strlen(text) + 1,
			err);
}
