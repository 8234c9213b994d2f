/*
 * Start and end of a struct vm_config, and what it names outside of the process; what the fields
 * mean is in config.h.
 */
#include "machine/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void vm_config_init(struct vm_config *c)
{
	memset(c, 0, sizeof(*c));
}

static void list_fini(struct config_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		opts_fini(&l->item[i].opts);
	}
	free(l->item);
}

static void texts_fini(char **t, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(t[i]);
	}
	free(t);
}

void vm_config_fini(struct vm_config *c)
{
	free(c->machine_name);
	free(c->name);
	free(c->cpu);
	free(c->kernel);
	free(c->initrd);
	free(c->append);
	free(c->bios);
	free(c->pidfile);
	free(c->memory_backend);
	free(c->mem_path);
	list_fini(&c->drives);
	list_fini(&c->blockdevs);
	list_fini(&c->devices);
	list_fini(&c->netdevs);
	list_fini(&c->chardevs);
	list_fini(&c->objects);
	list_fini(&c->fw_cfgs);
	list_fini(&c->numas);
	list_fini(&c->smbios);
	texts_fini(c->serial, c->nserial);
	texts_fini(c->trace, c->ntrace);
	texts_fini(c->qmp, c->nqmp);
	memset(c, 0, sizeof(*c));
}

/* Without marking the key as used, which is for who acts on it. */
static const char *peek(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			return o->opt[i].value;
		}
	}
	return NULL;
}

static bool is_on(const struct opts *o, const char *key)
{
	const char *v = peek(o, key);
	bool on = false;

	return v && !parse_bool(v, &on) && on;
}

static int one_path(const struct opts *o, const char *const *keys, const char *ro,
		    int (*fn)(void *arg, bool writable, const char *path, struct err *err), void *arg,
		    struct err *err)
{
	for (; *keys; keys++) {
		const char *path = peek(o, *keys);

		if (path) {
			return fn(arg, !is_on(o, ro), path, err);
		}
	}
	return 0;
}

int vm_config_paths(const struct vm_config *c,
		    int (*fn)(void *arg, bool writable, const char *path, struct err *err), void *arg,
		    struct err *err)
{
	static const char *const drive_keys[] = {"file", NULL};
	static const char *const blockdev_keys[] = {"filename", "file.filename", NULL};
	int ret = 0;

	for (size_t i = 0; !ret && i < c->drives.count; i++) {
		ret = one_path(&c->drives.item[i].opts, drive_keys, "readonly", fn, arg, err);
	}
	for (size_t i = 0; !ret && i < c->blockdevs.count; i++) {
		ret = one_path(&c->blockdevs.item[i].opts, blockdev_keys, "read-only", fn, arg, err);
	}
	return ret;
}

/* "3" or "3:4:5"; what is no number is refused later, by who opens it. */
static void fds_add(const char *list, int fds[CONFIG_MAX_FDS], size_t *n)
{
	while (list && *n < CONFIG_MAX_FDS) {
		char *end;
		unsigned long fd = strtoul(list, &end, 0);

		if (end != list && (!*end || *end == ':') && fd < 1u << 20) {
			fds[(*n)++] = (int)fd;
		}
		list = strchr(list, ':');
		list = list ? list + 1 : NULL;
	}
}

int vm_config_sockets(const struct vm_config *c,
		      int (*fn)(void *arg, const char *path, struct err *err), void *arg,
		      struct err *err)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < c->netdevs.count; i++) {
		const struct opts *o = &c->netdevs.item[i].opts;
		const char *path = peek(o, "addr.path"), *again = peek(o, "reconnect");
		uint64_t seconds;

		if (path && again && !parse_u64(again, &seconds) && seconds) {
			ret = fn(arg, path, err);
		}
	}
	return ret;
}

bool vm_config_needs_broker(const struct vm_config *c)
{
	static const char *const alone[] = {"none", "null", "stdio", "pty"};
	bool needs = c->nqmp || c->netdevs.count || c->chardevs.count || c->pidfile;

	for (size_t i = 0; i < c->nserial && !needs; i++) {
		needs = true;
		for (size_t k = 0; k < ARRAY_SIZE(alone); k++) {
			needs &= strcmp(c->serial[i], alone[k]) != 0;
		}
	}
	return needs;
}

size_t vm_config_fds(const struct vm_config *c, int fds[CONFIG_MAX_FDS])
{
	size_t n = 0;

	for (size_t i = 0; i < c->netdevs.count; i++) {
		fds_add(peek(&c->netdevs.item[i].opts, "fd"), fds, &n);
		fds_add(peek(&c->netdevs.item[i].opts, "fds"), fds, &n);
	}
	return n;
}
