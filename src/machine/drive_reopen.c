/*
 * A disk with other options while the machine runs (blockdev-reopen): its node is drained,
 * changes with the files below it, and goes on. The guest waits for that, and sees nothing else. What is
 * below has no requests but the node's own then, and those it needs: a format writes its metadata first.
 *
 * Options have QEMU's meaning: those that every node has are at their defaults if they are not named.
 * What stands below cannot be replaced, and no file is opened: the process has no right to any more.
 *
 * One at a time. Control loop. Untrusted: a QMP client's words, which the nodes check.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"
#include "machine/machine_int.h"

struct drive_reopen {
	struct machine *m;
	struct opts opts; /* owned */
	struct blk_node *node;
	struct blk_drain drain;
	machine_result_fn *done;
	void *opaque;
};

static void reopen_free(struct drive_reopen *r)
{
	if (r->node) {
		blk_drain_end(&r->drain);
		blk_unref(r->node);
	}
	opts_fini(&r->opts);
	free(r);
}

void drives_reopen_cancel(struct backends *b)
{
	if (b->reopen) {
		reopen_free(b->reopen);
		b->reopen = NULL;
	}
}

static void drained(void *opaque)
{
	struct drive_reopen *r = opaque;
	machine_result_fn *done = r->done;
	void *arg = r->opaque;
	struct err err = {.msg = ""};
	int ret;

	ret = blk_reopen(r->node, &r->opts, &err);
	drives_reopen_cancel(&r->m->be);
	done(arg, ret ? &err : NULL);
}

/* Names that have to be what they are. */
static int same_check(struct blk_node *n, struct opts *o, struct err *err)
{
	static const char *const roles[] = {"file", "backing", "data-file"};
	const char *driver = opts_get(o, "driver");

	if (driver && strcmp(driver, blk_driver_name(n))) {
		return err_set(err, EINVAL,
			       "Cannot change the driver of node '%s' from '%s' to '%.32s'",
			       blk_name(n), blk_driver_name(n), driver);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(roles); i++) {
		const char *name = opts_get(o, roles[i]);
		const struct blk_node *child = blk_child(n, roles[i]);

		if (name && strcmp(name, child ? blk_name(child) : "")) {
			return err_set(err, EINVAL,
				       "Cannot replace the node '%s' has as '%s'; give "
				       "the name of the one that is there, or leave it away",
				       blk_name(n), roles[i]);
		}
	}
	return 0;
}

/* The rest, and defaults for what every node has. */
static int options_fill(struct opts *o, struct opts *out, struct err *err)
{
	static const char *const defaults[][2] = {
		{"read-only", "off"},	   {"force-share", "off"}, {"cache.direct", "off"},
		{"cache.no-flush", "off"}, {"discard", "ignore"},  {"detect-zeroes", "off"},
	};
	int ret = 0;

	for (size_t i = 0; i < o->count && !ret; i++) {
		if (!o->opt[i].used) {
			ret = opts_add(out, o->opt[i].key, o->opt[i].value, err);
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(defaults) && !ret; i++) {
		if (!opts_get(o, defaults[i][0])) {
			ret = opts_add(out, defaults[i][0], defaults[i][1], err);
		}
	}
	return ret;
}

int machine_block_reopen(struct machine *m, struct opts *o, machine_result_fn *done,
			 void *opaque, struct err *err)
{
	const char *name = opts_get(o, "node-name");
	struct blk_node *n = name ? blk_find(m->be.graph, name) : NULL;
	struct drive_reopen *r;
	int ret;

	if (!name) {
		return err_set(err, EINVAL, "Parameter 'node-name' is missing");
	}
	if (!n) {
		return err_set_class(err, ERR_DEVICE_NOT_FOUND, ENOENT,
				     "Cannot find node '%.64s'", name);
	}
	if (blk_parent(n)) {
		/* a format uses its file when nobody asks it to, and cannot be held back by the file */
		return err_set(err, EBUSY,
			       "node '%s' is below node '%s'; reopen that one, which changes both",
			       blk_name(n), blk_name(blk_parent(n)));
	}
	if (m->be.reopen) {
		return err_set(err, EBUSY, "another node is being reopened; try again");
	}
	ret = same_check(n, o, err);
	if (ret) {
		return ret;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		return err_set(err, ENOMEM, "out of memory");
	}
	r->m = m;
	r->done = done;
	r->opaque = opaque;
	r->opts.what = "blockdev-reopen";
	ret = options_fill(o, &r->opts, err);
	if (ret) {
		reopen_free(r);
		return ret;
	}
	blk_ref(n);
	r->node = n;
	m->be.reopen = r;
	r->drain = (struct blk_drain){.loop = m->vm.loop, .drained = drained, .opaque = r};
	blk_drain_begin(n, &r->drain);
	return 0;
}
