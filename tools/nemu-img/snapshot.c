/*
 * snapshot: the snapshots within an image.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "img.h"

const struct img_opt snapshot_opts[] = {
	{'l', NULL, NULL, "list them"},
	{'c', NULL, "NAME", "make one"},
	{'a', NULL, "NAME", "go back to one, by name or number: what was written since is lost"},
	{'d', NULL, "NAME", "delete one, by name"},
	{'q', NULL, NULL, "print nothing"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "with -l: the image may be in use by a process that writes it"},
	{.code = 0},
};

/* By name alone: numbers are used again, and what is deleted is gone. */
static int drop(struct img *i, const char *name, struct err *err)
{
	struct blk_snapshot *s;
	size_t count, at = 0;
	int r = blk_image_snapshots(i->node, &s, &count, err);

	if (r) {
		return r;
	}
	while (at < count && strcmp(s[at].name, name)) {
		at++;
	}
	r = at < count ? blk_image_snapshot_delete(i->node, name, err)
		       : err_set(err, ENOENT, "'%s' has no snapshot of the name '%s'", i->filename,
				 name);
	blk_image_snapshots_free(s, count);
	return r;
}

static int act(struct img_args *a, struct img *i, struct err *err)
{
	struct blk_snapshot *s;
	size_t count;
	int r;

	if (img_given(a, 'c')) {
		return blk_image_snapshot_create(i->node, img_arg(a, 'c'), err);
	}
	if (img_given(a, 'a')) {
		return blk_image_snapshot_apply(i->node, img_arg(a, 'a'), err);
	}
	if (img_given(a, 'd')) {
		return drop(i, img_arg(a, 'd'), err);
	}
	if (!img_given(a, 'l')) {
		return 0;
	}
	r = blk_image_snapshots(i->node, &s, &count, err);
	if (!r && count) {
		printf("Snapshot list:\n");
		img_snapshots_print(s, count);
	}
	if (!r) {
		blk_image_snapshots_free(s, count);
	}
	return r;
}

int cmd_snapshot(struct img_args *a)
{
	struct img_how how = {
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.force_share = img_given(a, 'U'),
		.write = img_given(a, 'c') || img_given(a, 'a') || img_given(a, 'd'),
		.quiet = img_given(a, 'q'),
		.no_backing = true,
	};
	int actions = img_given(a, 'l') + img_given(a, 'c') + img_given(a, 'a') +
		      img_given(a, 'd');
	struct img i;
	struct err err;
	int r;

	if (actions > 1) {
		img_error("snapshot: give one of -l, -c, -a and -d");
		return 1;
	}
	if (img_operands(a, 1, "the name of the image")) {
		return 1;
	}
	how.resize = how.write;
	r = img_open(a->operand[0], &how, NULL, &i, &err);
	if (!r) {
		r = act(a, &i, &err);
		img_close(&i);
	}
	if (r) {
		img_error("snapshot: %s", err.msg);
	}
	return r ? 1 : 0;
}
