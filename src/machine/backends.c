/*
 * Back ends and objects that devices name: -chardev, -serial, -netdev, -object; disks are in
 * drives.c. Everything is opened here, before the process is isolated; a device finds its own by
 * id. Control loop.
 *
 * Order: objects first (an iothread has to exist before anything is bound to it), then back
 * ends, each in the order of the command line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/throttle.h"
#include "chardev/chr.h"
#include "machine/machine_int.h"
#include "net/net.h"

void *backends_grow(void *list, size_t *n, size_t size)
{
	char **l = list;
	char *p = realloc(*l, (*n + 1) * size);

	if (!p) {
		return NULL;
	}
	*l = p;
	p += *n * size;
	memset(p, 0, size);
	(*n)++;
	return p;
}

int backends_no_memory(struct err *err, const char *what)
{
	return err_set(err, ENOMEM, "%s: out of memory", what);
}

void backends_name_option(struct err *err, const char *option)
{
	if (strncmp(err->msg, option, strlen(option))) {
		err_prefix(err, "%s", option);
	}
}

/* --- objects --- */

static bool object_taken(struct machine *m, const char *id)
{
	return backends_io(&m->be, id) || backends_rng(&m->be, id) ||
	       memory_find(&m->memory, id) || blk_throttle_group_find(m->be.graph, id, NULL);
}

static int object_iothread(struct machine *m, struct opts *o, const char *id, struct err *err)
{
	struct backends *b = &m->be;
	struct named_loop *n;
	char comm[64];
	int ret;

	n = backends_grow(&b->io, &b->nio, sizeof(*n));
	if (!n) {
		return backends_no_memory(err, "-object iothread");
	}
	snprintf(comm, sizeof(comm), "IO %s", id);
	n->id = strdup(id);
	ret = n->id ? loop_new(&n->loop, comm, 0) : -ENOMEM;
	if (ret) {
		return err_set(err, -ret, "-object iothread,id=%s: %s", id, strerror(-ret));
	}
	return 0;
}

static int object_rng(struct machine *m, struct opts *o, const char *id, bool from_file,
		      struct err *err)
{
	struct named_rng *n = backends_grow(&m->be.rng, &m->be.nrng, sizeof(*n));
	const char *path = from_file ? opts_get(o, "filename") : NULL;

	if (n) {
		n->id = strdup(id);
	}
	if (!n || !n->id) {
		return backends_no_memory(err, "-object rng");
	}
	if (from_file) {
		n->path = strdup(path ? path : "/dev/urandom");
		if (!n->path) {
			return backends_no_memory(err, "-object rng-random");
		}
	}
	return 0;
}

static int object_open(struct machine *m, struct opts *o, struct err *err)
{
	const char *type = opts_get(o, "qom-type"), *id = opts_get(o, "id");
	enum mem_backend_kind kind;
	int ret;

	if (!type || !id || !*id) {
		return err_set(err, EINVAL, "-object: it has to be TYPE,id=NAME");
	}
	if (object_taken(m, id)) {
		return err_set(err, EEXIST, "-object %s,id=%s: the id is taken by another object", type,
			       id);
	}
	if (!strcmp(type, "iothread")) {
		ret = object_iothread(m, o, id, err);
	} else if (!strcmp(type, "rng-builtin")) {
		ret = object_rng(m, o, id, false, err);
	} else if (!strcmp(type, "rng-random")) {
		ret = object_rng(m, o, id, true, err);
	} else if (!strcmp(type, "throttle-group")) {
		ret = drives_throttle_group(m, o, id, err);
	} else if (mem_backend_kind_of(type, &kind)) {
		ret = memory_object(&m->memory, o, id, kind, err);
	} else {
		return err_set(err, EINVAL, "-object: unknown type '%s'; there are iothread, "
			       "rng-builtin, rng-random, throttle-group, memory-backend-ram, -memfd "
			       "and -file",
			       type);
	}
	return ret ? ret : opts_check_used(o, err);
}

/* --- character back ends --- */

static int chr_add(struct machine *m, struct chr *c, struct err *err)
{
	struct chr **slot;

	if (backends_chr(&m->be, chr_id(c))) {
		err_set(err, EEXIST, "-chardev id=%s: the id is taken by another one", chr_id(c));
		chr_close(c);
		return -EEXIST;
	}
	slot = backends_grow(&m->be.chr, &m->be.nchr, sizeof(*slot));
	if (!slot) {
		chr_close(c);
		return backends_no_memory(err, "-chardev");
	}
	*slot = c;
	chr_set_rights(c, m->env.rights);
	return 0;
}

static int serial_open(struct machine *m, struct err *err)
{
	const struct vm_config *cfg = m->cfg;
	const char *text = NULL;
	struct chr *c;
	int ret;

	for (size_t i = 0; i < cfg->nserial; i++) {
		if (!strcmp(cfg->serial[i], "none")) {
			continue;
		}
		if (text) {
			return err_set(err, EINVAL, "-serial: there is one serial port; '%s' cannot be "
				       "had beside '%s' (use virtio-serial-pci and virtconsole)",
				       cfg->serial[i], text);
		}
		text = cfg->serial[i];
	}
	if (!cfg->nserial && cfg->nographic && !cfg->nodefaults) {
		text = "stdio";
	}
	if (!text) {
		return 0;
	}
	if (!strncmp(text, "chardev:", 8)) {
		m->be.serial = backends_chr(&m->be, text + 8);
		return m->be.serial ? 0
				    : err_set(err, ENOENT, "-serial %s: there is no -chardev with "
					      "id=%s", text, text + 8);
	}
	ret = chr_open_legacy(m->vm.loop, "serial0", text, &c, err);
	if (ret) {
		backends_name_option(err, "-serial");
	}
	if (!ret) {
		ret = chr_add(m, c, err);
	}
	if (!ret) {
		m->be.serial = c;
	}
	return ret;
}

/* --- net --- */

static int netdev_open(struct machine *m, struct opts *o, struct err *err)
{
	const struct net_env env = {.loop = m->vm.loop, .rights = m->env.rights};
	struct net_port **slot, *p;
	int ret = net_open(o, &env, &p, err);

	if (ret) {
		return ret;
	}
	if (backends_net(&m->be, p->id)) {
		err_set(err, EEXIST, "-netdev id=%s: the id is taken by another one", p->id);
		p->ops->close(p);
		return -EEXIST;
	}
	slot = backends_grow(&m->be.net, &m->be.nnet, sizeof(*slot));
	if (!slot) {
		p->ops->close(p);
		return backends_no_memory(err, "-netdev");
	}
	*slot = p;
	return 0;
}

int backends_open(struct machine *m, struct err *err)
{
	const struct vm_config *cfg = m->cfg;
	struct chr *c;
	int ret = drives_init(m, err);

	for (size_t i = 0; !ret && i < cfg->objects.count; i++) {
		ret = object_open(m, &cfg->objects.item[i].opts, err);
	}
	for (size_t i = 0; !ret && i < cfg->chardevs.count; i++) {
		ret = chr_open(m->vm.loop, &cfg->chardevs.item[i].opts, &c, err);
		if (ret) {
			backends_name_option(err, "-chardev");
		}
		if (!ret) {
			ret = chr_add(m, c, err);
		}
	}
	if (!ret) {
		ret = serial_open(m, err);
	}
	for (size_t i = 0; !ret && i < cfg->blockdevs.count; i++) {
		ret = drives_blockdev(m, &cfg->blockdevs.item[i].opts, err);
	}
	for (size_t i = 0; !ret && i < cfg->drives.count; i++) {
		ret = drives_drive(m, &cfg->drives.item[i].opts, err);
	}
	for (size_t i = 0; !ret && i < cfg->netdevs.count; i++) {
		ret = netdev_open(m, &cfg->netdevs.item[i].opts, err);
	}
	return ret;
}

/* #syscalls(start): unlink */
void backends_unlink(struct machine *m)
{
	for (size_t i = 0; i < m->be.nchr; i++) {
		if (chr_socket_path(m->be.chr[i])) {
			unlink(chr_socket_path(m->be.chr[i]));
		}
	}
}

void backends_close(struct machine *m)
{
	struct backends *b = &m->be;

	for (size_t i = 0; i < b->nnet; i++) {
		b->net[i]->ops->close(b->net[i]);
	}
	drives_close(b);
	for (size_t i = 0; i < b->nchr; i++) {
		chr_close(b->chr[i]);
	}
	for (size_t i = 0; i < b->nio; i++) {
		loop_free(b->io[i].loop);
		free(b->io[i].id);
	}
	for (size_t i = 0; i < b->nrng; i++) {
		free(b->rng[i].id);
		free(b->rng[i].path);
	}
	free(b->flash[0].file);
	free(b->flash[1].file);
	free(b->net);
	free(b->chr);
	free(b->io);
	free(b->rng);
	memset(b, 0, sizeof(*b));
}

struct chr *backends_chr(struct backends *b, const char *id)
{
	for (size_t i = 0; i < b->nchr; i++) {
		if (!strcmp(chr_id(b->chr[i]), id)) {
			return b->chr[i];
		}
	}
	return NULL;
}

struct net_port *backends_net(struct backends *b, const char *id)
{
	for (size_t i = 0; i < b->nnet; i++) {
		if (!strcmp(b->net[i]->id, id)) {
			return b->net[i];
		}
	}
	return NULL;
}

struct loop *backends_io(struct backends *b, const char *id)
{
	for (size_t i = 0; i < b->nio; i++) {
		if (!strcmp(b->io[i].id, id)) {
			return b->io[i].loop;
		}
	}
	return NULL;
}

struct named_rng *backends_rng(struct backends *b, const char *id)
{
	for (size_t i = 0; i < b->nrng; i++) {
		if (!strcmp(b->rng[i].id, id)) {
			return &b->rng[i];
		}
	}
	return NULL;
}
