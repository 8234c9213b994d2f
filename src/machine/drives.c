/*
 * Disks: -blockdev and -drive, what `drive=` of a device finds, and what changes while the
 * machine runs.
 *
 * -drive is -blockdev with older names: what it has of its own (if=, id=, cache=, werror=, …)
 * is taken here, everything else goes to the node as it is.
 *
 * Threads: control loop.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/throttle.h"
#include "device/virtio/blk.h"
#include "machine/machine_int.h"

int drives_init(struct machine *m, struct err *err)
{
	if (blk_graph_new(&m->be.graph) || disk_errors_new(m, &m->be.disk_errors)) {
		return backends_no_memory(err, "-blockdev");
	}
	blk_graph_thread_init(m->be.graph, machine_io_thread_init, m);
	return 0;
}

void drives_close(struct backends *b)
{
	drives_reopen_cancel(b);
	for (size_t i = 0; i < b->nblk; i++) {
		blk_unref(b->blk[i].node);
		free(b->blk[i].id);
		free(b->blk[i].serial);
		free(b->blk[i].throttle_group);
	}
	free(b->blk);
	disk_errors_free(b->disk_errors);
	blk_graph_free(b->graph);
}

struct named_blk *drives_find(struct backends *b, const char *id)
{
	for (size_t i = 0; i < b->nblk; i++) {
		if (b->blk[i].id && !strcmp(b->blk[i].id, id)) {
			return &b->blk[i];
		}
	}
	return NULL;
}

static int blk_add(struct machine *m, const char *what, const char *id, struct opts *o,
		   struct named_blk **out, struct err *err)
{
	struct named_blk *n;
	int ret;

	if (id && drives_find(&m->be, id)) {
		return err_set(err, EEXIST, "%s: the name '%s' is taken by another disk", what, id);
	}
	n = backends_grow(&m->be.blk, &m->be.nblk, sizeof(*n));
	if (!n) {
		return backends_no_memory(err, what);
	}
	n->werror = n->rerror = n->index = -1;
	ret = blk_open(m->be.graph, o, &n->node, err);
	if (ret) {
		backends_name_option(err, what);
		return ret;
	}
	n->id = strdup(id ? id : blk_name(n->node));
	*out = n;
	return n->id ? 0 : backends_no_memory(err, what);
}

int drives_blockdev(struct machine *m, struct opts *o, struct err *err)
{
	const char *name = opts_get(o, "node-name");
	struct named_blk *n;

	if (!name) {
		return err_set(err, EINVAL, "-blockdev: node-name=NAME is missing");
	}
	return blk_add(m, "-blockdev", name, o, &n, err);
}

/* --- -drive --- */

static int drive_flash(struct machine *m, struct opts *o, struct err *err)
{
	const char *file = opts_get(o, "file"), *format = opts_get(o, "format");
	const char *unit = opts_get(o, "unit"), *ro = opts_get(o, "readonly");
	struct flash_drive *f = NULL;
	bool read_only = false;
	uint64_t n;

	if (!unit) {
		unit = opts_get(o, "index");
	}
	opts_get(o, "id");
	if (!file) {
		return err_set(err, EINVAL, "-drive if=pflash: file=FILE is missing");
	}
	if (format && strcmp(format, "raw")) {
		return err_set(err, EINVAL, "-drive if=pflash,file=%s: format=%s cannot be had; a flash "
			       "is a raw file", file, format);
	}
	if (ro && parse_bool(ro, &read_only)) {
		return err_set(err, EINVAL, "-drive if=pflash,file=%s: readonly=%s is neither on nor off",
			       file, ro);
	}
	if (unit) {
		if (parse_u64(unit, &n) || n > 1) {
			return err_set(err, EINVAL, "-drive if=pflash,file=%s: unit=%s is not 0 (code) "
				       "or 1 (variables)", file, unit);
		}
		f = &m->be.flash[n];
	} else {
		f = m->be.flash[0].file ? &m->be.flash[1] : &m->be.flash[0];
	}
	if (f->file) {
		return err_set(err, EEXIST, "-drive if=pflash,file=%s: that unit is taken by %s", file,
			       f->file);
	}
	if (m->cfg->bios) {
		return err_set(err, EINVAL, "-bios %s and -drive if=pflash,file=%s: both are firmware; "
			       "keep one", m->cfg->bios, file);
	}
	f->file = strdup(file);
	f->read_only = read_only;
	return f->file ? opts_check_used(o, err) : backends_no_memory(err, "-drive");
}

/* cache= as the three switches that it stands for. */
static int cache_mode(const char *mode, struct opts *o, struct named_blk *set, struct err *err)
{
	static const struct {
		const char *name, *direct, *no_flush;
		bool write_through;
	} modes[] = {
		{"writeback", "off", "off", false}, {"none", "on", "off", false},
		{"unsafe", "off", "on", false},     {"writethrough", "off", "off", true},
		{"directsync", "on", "off", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (!strcmp(modes[i].name, mode)) {
			int ret = opts_add(o, "cache.direct", modes[i].direct, err);

			set->write_through = modes[i].write_through;
			return ret ? ret : opts_add(o, "cache.no-flush", modes[i].no_flush, err);
		}
	}
	return err_set(err, EINVAL, "-drive: cache=%s cannot be had; there are writeback, none, "
		       "writethrough, directsync and unsafe", mode);
}

int drives_policy(const char *text, bool read)
{
	static const char *const names[] = {
		[VIRTIO_BLK_REPORT] = "report",
		[VIRTIO_BLK_IGNORE] = "ignore",
		[VIRTIO_BLK_STOP] = "stop",
		[VIRTIO_BLK_ENOSPC] = "enospc",
	};

	for (int i = 0; i < (int)ARRAY_SIZE(names) - read; i++) {
		if (!strcmp(text, names[i])) {
			return i;
		}
	}
	return -1;
}

static int drive_policy(struct opts *o, const char *key, bool read, int *out, struct err *err)
{
	const char *v = opts_get(o, key);

	*out = -1;
	if (v) {
		*out = drives_policy(v, read);
	}
	return v && *out < 0 ? err_set(err, EINVAL, "-drive: %s=%s cannot be had; there are report, "
				       "ignore%s stop%s", key, v, read ? " and" : ",",
				       read ? "" : " and enospc")
			     : 0;
}

/* What QEMU's -drive has and this one has not, unless it is switched off. */
static int drive_refuse(struct opts *o, struct err *err)
{
	static const struct {
		const char *key, *remedy;
	} no[] = {
		{"snapshot", "make an overlay with nemu-img create -b"},
		{"copy-on-read", "leave it away"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		const char *v = opts_get(o, no[i].key);
		bool on = true;

		if (v && (parse_bool(v, &on) || on)) {
			return err_set(err, EINVAL, "-drive: %s=%s is not supported; %s", no[i].key, v,
				       no[i].remedy);
		}
	}
	return 0;
}

static int drive_media(struct opts *o, struct opts *node, struct err *err)
{
	const char *media = opts_get(o, "media"), *ro = opts_get(o, "read-only");

	if (!ro) {
		ro = opts_get(o, "readonly");
	} else if (opts_get(o, "readonly")) {
		return err_set(err, EINVAL, "-drive: readonly and read-only are both given; keep one");
	}
	if (media && !strcmp(media, "cdrom")) {
		ro = "on";
	} else if (media && strcmp(media, "disk")) {
		return err_set(err, EINVAL, "-drive: media=%s cannot be had; there are disk and cdrom "
			       "(a read-only disk)", media);
	}
	return ro ? opts_add(node, "read-only", ro, err) : 0;
}

/* index=N: the order of disks that -drive makes itself. */
static int drive_index(struct machine *m, struct opts *o, int *index, struct err *err)
{
	const char *v = opts_get(o, "index");
	uint64_t n;

	*index = -1;
	if (!v) {
		return 0;
	}
	if (parse_u64(v, &n) || n > 1023) {
		return err_set(err, EINVAL, "-drive: index=%s is no number from 0 to 1023", v);
	}
	for (size_t i = 0; i < m->be.nblk; i++) {
		if (m->be.blk[i].index == (int)n) {
			return err_set(err, EEXIST, "-drive: index=%s is taken by another one", v);
		}
	}
	*index = (int)n;
	return 0;
}

static int drive_format(struct opts *o, struct opts *node, struct err *err)
{
	const char *format = opts_get(o, "format"), *driver = opts_get(o, "driver");
	const char *file = opts_get(o, "file");

	if (format && driver) {
		return err_set(err, EINVAL, "-drive: format and driver are both given; keep one");
	}
	format = format ? format : driver;
	if (!format && !(file && !strncmp(file, "json:", 5))) {
		return err_set(err, EINVAL, "-drive: format= is missing; say format=raw (an image is "
			       "never probed, because its content is the guest's)");
	}
	if (format && opts_add(node, "driver", format, err)) {
		return -EINVAL;
	}
	return file ? opts_add(node, "filename", file, err) : 0;
}

/* Everything that is not -drive's own is the node's. */
static int drive_rest(struct opts *o, struct opts *node, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < o->count && !ret; i++) {
		if (!o->opt[i].used) {
			o->opt[i].used = true;
			ret = opts_add(node, o->opt[i].key, o->opt[i].value, err);
		}
	}
	return ret;
}

static int drive_cache(struct opts *o, struct opts *node, struct named_blk *set, struct err *err)
{
	const char *mode = opts_get(o, "cache"), *wb = opts_get(o, "cache.writeback");
	bool on;

	if (mode && wb) {
		return err_set(err, EINVAL, "-drive: cache and cache.writeback are both given; keep one");
	}
	if (wb) {
		if (parse_bool(wb, &on)) {
			return err_set(err, EINVAL, "-drive: cache.writeback=%s is neither on nor off",
				       wb);
		}
		set->write_through = !on;
	}
	return mode ? cache_mode(mode, node, set, err) : 0;
}

/* The node of n behind a throttle node. */
static int throttle_above(struct machine *m, struct named_blk *n, struct err *err)
{
	struct opts o = {.what = "-drive"};
	struct blk_node *above;
	int ret = opts_add(&o, "driver", "throttle", err);

	ret = ret ? ret : opts_add(&o, "throttle-group", n->throttle_group, err);
	ret = ret ? ret : opts_add(&o, "file", blk_name(n->node), err);
	ret = ret ? ret : blk_open(m->be.graph, &o, &above, err);
	opts_fini(&o);
	if (!ret) {
		blk_unref(n->node); /* the new one has it */
		n->node = above;
	}
	return ret;
}

/* throttling.* are the limits of a group: of the name given, or of this drive alone. */
static int drive_throttle(struct machine *m, struct opts *o, struct named_blk *set,
			  const char *id, struct err *err)
{
	const char *group = opts_get(o, "throttling.group");
	struct blk_limits l = {0};
	bool any, there = group && blk_throttle_group_find(m->be.graph, group, &l);
	int ret = blk_limits_read(o, "throttling.", &l, &any, err);
	char name[64];

	if (ret || (!any && !group)) {
		return ret;
	}
	if (!group) {
		snprintf(name, sizeof(name), "%.60s", id ? id : "");
		group = name;
	}
	if (!*group) {
		return err_set(err, EINVAL, "-drive: throttling needs id= or throttling.group=");
	}
	set->throttle_group = strdup(group);
	if (!set->throttle_group) {
		return backends_no_memory(err, "-drive");
	}
	if (!there) {
		return blk_throttle_group_new(m->be.graph, group, &l, err);
	}
	return any ? blk_throttle_group_set(m->be.graph, group, &l, err) : 0;
}

int drives_throttle_group(struct machine *m, struct opts *o, const char *id, struct err *err)
{
	struct blk_limits l = {0};
	bool any;
	int ret = blk_limits_read(o, "limits.", &l, &any, err); /* the form that JSON has */

	ret = ret ? ret : blk_limits_read(o, "x-", &l, &any, err);
	return ret ? ret : blk_throttle_group_new(m->be.graph, id, &l, err);
}

static int drive_disk(struct machine *m, struct opts *o, bool implicit, struct err *err)
{
	const char *id = opts_get(o, "id"), *serial = opts_get(o, "serial");
	struct opts node = {.what = "-drive"};
	struct named_blk set = {.id = NULL}, *n = NULL;
	int ret = drive_format(o, &node, err);

	ret = ret ? ret : drive_refuse(o, err);
	ret = ret ? ret : drive_media(o, &node, err);
	ret = ret ? ret : drive_index(m, o, &set.index, err);
	ret = ret ? ret : drive_cache(o, &node, &set, err);
	ret = ret ? ret : drive_policy(o, "werror", false, &set.werror, err);
	ret = ret ? ret : drive_policy(o, "rerror", true, &set.rerror, err);
	ret = ret ? ret : drive_throttle(m, o, &set, id, err);
	ret = ret ? ret : drive_rest(o, &node, err);
	ret = ret ? ret : blk_add(m, "-drive", id, &node, &n, err);
	opts_fini(&node);
	if (ret) {
		free(set.throttle_group);
		return ret;
	}
	n->drive = true;
	n->throttle_group = set.throttle_group;
	if (n->throttle_group) {
		ret = throttle_above(m, n, err);
		if (ret) {
			return ret;
		}
	}
	n->write_through = set.write_through;
	n->werror = set.werror;
	n->rerror = set.rerror;
	n->index = set.index;
	if (serial) {
		n->serial = strdup(serial);
		if (!n->serial) {
			return backends_no_memory(err, "-drive");
		}
	}
	n->implicit = implicit ? o : NULL;
	return 0;
}

int drives_drive(struct machine *m, struct opts *o, struct err *err)
{
	const char *kind = opts_get(o, "if");

	if (kind && !strcmp(kind, "pflash")) {
		return drive_flash(m, o, err);
	}
	if (kind && !strcmp(kind, "none")) {
		return drive_disk(m, o, false, err);
	}
	if (!kind || !strcmp(kind, "virtio")) {
		return drive_disk(m, o, true, err);
	}
	return err_set(err, EINVAL, "-drive: if=%s cannot be had; there are virtio, none and pflash",
		       kind);
}

/* --- while the machine runs --- */

int machine_block_resize(struct machine *m, const char *device, const char *node_name,
			 uint64_t size, struct err *err)
{
	struct named_blk *b = device ? drives_find(&m->be, device) : NULL;
	struct blk_node *n = node_name ? blk_find(m->be.graph, node_name) : b ? b->node : NULL;
	struct blk_user *u;
	int ret;

	if (!device == !node_name) {
		return err_set(err, EINVAL, "give either 'device' or 'node-name'");
	}
	if (!n) {
		return err_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT, "Cannot find %s=%.64s",
				     device ? "device" : "node-name", device ? device : node_name);
	}
	if (size % 512 || size > INT64_MAX || !size) {
		return err_set(err, EINVAL, "'size' has to be a multiple of 512, and not 0");
	}
	ret = blk_attach(n, "block_resize", BLK_PERM_RESIZE, BLK_PERM_ALL, NULL, NULL, &u, err);
	if (!ret) {
		ret = blk_truncate(n, size, BLK_PREALLOC_OFF, err);
		blk_detach(u);
	}
	return ret;
}

int machine_block_throttle(struct machine *m, const char *drive, const struct blk_limits *l,
			   struct err *err)
{
	struct named_blk *b = drives_find(&m->be, drive);

	if (!b || !b->drive) {
		return err_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT, "Device '%.64s' not found",
				     drive);
	}
	if (!b->throttle_group) {
		return err_set(err, ENOTSUP, "drive '%.64s' has no limits that could change; start it "
			       "with throttling.group=NAME", drive);
	}
	return blk_throttle_group_set(m->be.graph, b->throttle_group, l, err);
}
