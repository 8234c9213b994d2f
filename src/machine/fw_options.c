/*
 * What every machine tells its firmware as the command line says it, and the files of a direct
 * boot: see fw_options.h.
 */
#include "machine/fw_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/machine_int.h"
#include "spec/fw_cfg.h"

/* #syscalls(start): openat newfstatat lseek read */
static int fw_cfg_file(struct fw_cfg *fw, struct opts *o, struct err *err)
{
	const char *name = opts_get(o, "name"), *file = opts_get(o, "file");
	const char *text = opts_get(o, "string");
	struct stat st;
	char *data;
	int fd, ret;

	ret = opts_check_used(o, err);
	if (ret) {
		return ret;
	}
	if (!name || !file == !text) {
		return err_set(err, EINVAL,
			       "-fw_cfg: it has to be name=opt/…,file=FILE or "
			       "name=opt/…,string=TEXT");
	}
	if (strncmp(name, "opt/", 4)) {
		return err_set(err, EINVAL,
			       "-fw_cfg name=%s: names start with opt/, the others belong to "
			       "the machine",
			       name);
	}
	if (text) {
		return fw_cfg_add_file(fw, name, text, strlen(text), FW_CFG_COPY, err);
	}
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    st.st_size > (off_t)(64 * MiB)) {
		ret = err_set(
			err, fd < 0 ? errno : EINVAL, "-fw_cfg name=%s,file=%s: %s", name, file,
			fd < 0 ? strerror(errno) : "not a regular file of at most 64 MiB");
		if (fd >= 0) {
			close(fd);
		}
		return ret;
	}
	data = malloc((size_t)st.st_size + 1);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size) {
		free(data);
		close(fd);
		return err_set(err, EIO, "-fw_cfg name=%s,file=%s: cannot be read", name, file);
	}
	close(fd);
	return fw_cfg_add_file(fw, name, data, (size_t)st.st_size, FW_CFG_TAKE, err);
}

/* What firmware starts from, and whether it waits for somebody who wants its menu: it does if
 * the menu is on, as long as the file says. */
static int add_boot_options(struct machine *m, struct fw_cfg *fw, struct err *err)
{
	const struct vm_config *cfg = m->cfg;
	const le16 wait = le16_of(cfg->boot_wait_ms);
	char *order;
	int ret;

	ret = fw_cfg_set_u16(fw, FW_CFG_BOOT_MENU, cfg->boot_menu, err);
	if (!ret && (!cfg->boot_menu || cfg->boot_wait_set)) {
		ret = fw_cfg_add_file(fw, "etc/boot-menu-wait", &wait, sizeof(wait),
				      FW_CFG_COPY, err);
	}
	ret = ret ? ret : bootorder_text(&m->bootorder, m->root, cfg->boot_order, &order, err);
	if (ret || !order) {
		return ret;
	}
	return fw_cfg_add_file(fw, "bootorder", order, strlen(order) + 1, FW_CFG_TAKE, err);
}

int fw_options_add(struct machine *m, struct fw_cfg *fw, struct err *err)
{
	int ret = fw_cfg_set_u16(fw, FW_CFG_MAX_CPUS, (uint16_t)m->cfg->max_cpus, err);

	ret = ret ? ret : add_boot_options(m, fw, err);
	for (size_t i = 0; !ret && i < m->cfg->fw_cfgs.count; i++) {
		ret = fw_cfg_file(fw, &m->cfg->fw_cfgs.item[i].opts, err);
	}
	return ret;
}

/* #syscalls(start): openat newfstatat */
int boot_file_open(const char *option, const char *path, int *fd, struct err *err)
{
	struct stat st;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait at a pipe */
	if (*fd < 0) {
		return err_set(err, errno,
			       "%s %s: cannot open it: %s; give the path of a file that can be "
			       "read",
			       option, path, strerror(errno));
	}
	if (fstat(*fd, &st) || !S_ISREG(st.st_mode)) {
		return err_set(err, EINVAL, "%s %s: it is not a regular file; give one", option,
			       path);
	}
	return 0;
}
