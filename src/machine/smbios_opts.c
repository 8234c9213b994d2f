/*
 * -smbios type=N,key=value…, with QEMU's keys. A row for each key; type 11, whose keys may stand
 * several times, on its own. Several options of one type add up; one key said twice in different
 * ways is refused. type=1,uuid= is taken by control/, being the same as -uuid.
 *
 * The operator is trusted; files that path= names are read once, whole, at start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "machine/smbios_opts.h"

static const struct {
	unsigned type;
	const char *key;
	enum smbios_text text;
} texts[] = {
	{0, "vendor", SMBIOS_FW_VENDOR},
	{0, "version", SMBIOS_FW_VERSION},
	{0, "date", SMBIOS_FW_DATE},
	{1, "manufacturer", SMBIOS_SYS_MANUFACTURER},
	{1, "product", SMBIOS_SYS_PRODUCT},
	{1, "version", SMBIOS_SYS_VERSION},
	{1, "serial", SMBIOS_SYS_SERIAL},
	{1, "sku", SMBIOS_SYS_SKU},
	{1, "family", SMBIOS_SYS_FAMILY},
	{2, "manufacturer", SMBIOS_BOARD_MANUFACTURER},
	{2, "product", SMBIOS_BOARD_PRODUCT},
	{2, "version", SMBIOS_BOARD_VERSION},
	{2, "serial", SMBIOS_BOARD_SERIAL},
	{2, "asset", SMBIOS_BOARD_ASSET},
	{2, "location", SMBIOS_BOARD_LOCATION},
	{3, "manufacturer", SMBIOS_CHASSIS_MANUFACTURER},
	{3, "version", SMBIOS_CHASSIS_VERSION},
	{3, "serial", SMBIOS_CHASSIS_SERIAL},
	{3, "asset", SMBIOS_CHASSIS_ASSET},
	{3, "sku", SMBIOS_CHASSIS_SKU},
	{4, "sock_pfx", SMBIOS_CPU_SOCKET},
	{4, "manufacturer", SMBIOS_CPU_MANUFACTURER},
	{4, "version", SMBIOS_CPU_VERSION},
	{4, "serial", SMBIOS_CPU_SERIAL},
	{4, "asset", SMBIOS_CPU_ASSET},
	{4, "part", SMBIOS_CPU_PART},
	{17, "loc_pfx", SMBIOS_DIMM_LOCATOR},
	{17, "bank", SMBIOS_DIMM_BANK},
	{17, "manufacturer", SMBIOS_DIMM_MANUFACTURER},
	{17, "serial", SMBIOS_DIMM_SERIAL},
	{17, "asset", SMBIOS_DIMM_ASSET},
	{17, "part", SMBIOS_DIMM_PART},
};
static const struct {
	unsigned type;
	const char *key;
	enum smbios_number number;
} numbers[] = {
	{4, "max-speed", SMBIOS_CPU_MAX_SPEED},
	{4, "current-speed", SMBIOS_CPU_SPEED},
	{17, "speed", SMBIOS_DIMM_SPEED},
};

static int twice(uint64_t type, const char *key, struct err *err)
{
	return err_set(err, EINVAL, "-smbios type=%ju: %s is given twice; give it once",
		       (uintmax_t)type, key);
}

static int take_texts(struct smbios_facts *f, struct opts *o, uint64_t type, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *v = texts[i].type == type ? opts_get(o, texts[i].key) : NULL;
		const char **t = &f->text[texts[i].text];

		if (v && *t && strcmp(*t, v)) {
			return twice(type, texts[i].key, err);
		}
		*t = v ? v : *t;
	}
	return 0;
}

static int take_numbers(struct smbios_facts *f, struct opts *o, uint64_t type, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const char *v = numbers[i].type == type ? opts_get(o, numbers[i].key) : NULL;
		uint16_t *have = &f->number[numbers[i].number];
		uint64_t n;

		if (!v) {
			continue;
		}
		if (parse_u64(v, &n) || !n || n > UINT16_MAX) {
			return err_set(err, EINVAL,
				       "-smbios type=%ju: %s=%s is not a number from 1 to 65535",
				       (uintmax_t)type, numbers[i].key, v);
		}
		if (*have && *have != n) {
			return twice(type, numbers[i].key, err);
		}
		*have = (uint16_t)n;
	}
	return 0;
}

static int take_firmware(struct smbios_facts *f, struct opts *o, struct err *err)
{
	const char *v = opts_get(o, "release");
	unsigned major, minor;
	bool uefi = true;
	int end = 0;

	if (v) {
		if (sscanf(v, "%3u.%3u%n", &major, &minor, &end) != 2 || v[end] ||
		    major > 255 || minor > 255) {
			return err_set(err, EINVAL,
				       "-smbios type=0: release=%s is not of the form "
				       "MAJOR.MINOR, with numbers up to 255",
				       v);
		}
		f->release[0] = (uint8_t)major;
		f->release[1] = (uint8_t)minor;
		f->has_release = true;
	}
	v = opts_get(o, "uefi");
	if (v && parse_bool(v, &uefi)) {
		return err_set(err, EINVAL, "-smbios type=0: uefi=%s is neither on nor off", v);
	}
	f->not_uefi |= !uefi;
	return 0;
}

/* --- type 11 --- */

/* Takes text; NULL: there was no memory for it. */
static int push_oem(struct smbios_facts *f, char *text, struct err *err)
{
	char **l;

	if (f->noem == SMBIOS_MAX_OEM) {
		free(text);
		return err_set(err, E2BIG, "-smbios type=11: more than %d strings; give fewer",
			       SMBIOS_MAX_OEM);
	}
	l = text ? realloc(f->oem, (f->noem + 1) * sizeof(*l)) : NULL;
	if (!l) {
		free(text);
		return err_set(err, ENOMEM, "-smbios type=11: out of memory");
	}
	f->oem = l;
	l[f->noem++] = text;
	return 0;
}

/* #syscalls(start): openat newfstatat read */
static int oem_file(struct smbios_facts *f, const char *path, struct err *err)
{
	char *text = calloc(1, SMBIOS_MAX_TEXTS + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait at a pipe */
	struct stat st;
	ssize_t n;
	int ret;

	if (fd < 0 || !text) {
		ret = err_set(err, fd < 0 ? errno : ENOMEM,
			      "-smbios type=11: path=%s: %s; name a "
			      "file that can be read",
			      path, strerror(fd < 0 ? errno : ENOMEM));
		goto close_fd;
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > SMBIOS_MAX_TEXTS) {
		ret = err_set(err, EINVAL,
			      "-smbios type=11: path=%s: it is not a regular file of "
			      "at most %d KiB",
			      path, SMBIOS_MAX_TEXTS / 1024);
		goto close_fd;
	}
	n = read(fd, text, (size_t)st.st_size);
	if (n != st.st_size || !n || memchr(text, 0, (size_t)n)) {
		ret = err_set(err, n < 0 ? errno : EINVAL, "-smbios type=11: path=%s: %s", path,
			      n < 0 ? strerror(errno) : "a text without NUL is expected there");
		goto close_fd;
	}
	ret = push_oem(f, text, err);
	text = NULL;
close_fd:
	if (fd >= 0) {
		close(fd);
	}
	free(text);
	return ret;
}

const char *const smbios_list_keys[] = {"value", "path", NULL};

/* In the order of the command line, which the guest sees. */
static int take_oem(struct smbios_facts *f, struct opts *o, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < o->count; i++) {
		struct opt *opt = &o->opt[i];

		if (!strncmp(opt->key, "value.", 6) && !*opt->value) {
			ret = err_set(err, EINVAL, "-smbios type=11: value= is empty");
		} else if (!strncmp(opt->key, "value.", 6)) {
			ret = push_oem(f, strdup(opt->value), err);
		} else if (!strncmp(opt->key, "path.", 5)) {
			ret = oem_file(f, opt->value, err);
		} else {
			continue;
		}
		opt->used = true;
	}
	return ret;
}

static int take(struct smbios_facts *f, struct opts *o, struct err *err)
{
	const char *v = opts_get(o, "file");
	uint64_t type;
	int ret;

	if (v) {
		return err_set(err, EINVAL,
			       "-smbios file=%s: ready-made structures are not taken; "
			       "say what they are to contain with type=N,key=value",
			       v);
	}
	v = opts_get(o, "type");
	if (!v || parse_u64(v, &type)) {
		return err_set(err, EINVAL,
			       "-smbios: type=N is missing, the number of a structure");
	}
	if (type > 4 && type != 11 && type != 17) {
		return err_set(err, EINVAL,
			       "-smbios type=%s: nothing can be said of structures of "
			       "this type; of 0, 1, 2, 3, 4, 11 and 17 it can",
			       v);
	}
	ret = take_texts(f, o, type, err);
	ret = ret ? ret : take_numbers(f, o, type, err);
	if (!ret && type == 0) {
		ret = take_firmware(f, o, err);
	}
	if (!ret && type == 1) {
		opts_get(o, "uuid");
	}
	if (!ret && type == 11) {
		ret = take_oem(f, o, err);
	}
	return ret ? ret : opts_check_used(o, err);
}

int smbios_facts_init(struct smbios_facts *f, const struct vm_config *cfg, struct err *err)
{
	int ret = 0;

	*f = (struct smbios_facts){
		.product = "virt-1.0",
		.name = cfg->name,
		.has_uuid = cfg->uuid_set,
		.sockets = cfg->sockets,
		.cores = cfg->dies * cfg->cores,
		.threads = cfg->dies * cfg->cores * cfg->threads,
	};
	memcpy(f->uuid, cfg->uuid, sizeof(f->uuid));
	for (size_t i = 0; !ret && i < cfg->smbios.count; i++) {
		ret = take(f, &cfg->smbios.item[i].opts, err);
	}
	return ret;
}

void smbios_facts_fini(struct smbios_facts *f)
{
	for (unsigned i = 0; i < f->noem; i++) {
		free(f->oem[i]);
	}
	free(f->oem);
	*f = (struct smbios_facts){0};
}
