/*
 * info: what an image is. No backing file is opened unless --backing-chain asks for it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "img.h"

const struct img_opt info_opts[] = {
	{'f', NULL, "FMT", "format of the image; otherwise it is found out"},
	{ARG_OUTPUT, "output", "human|json", "form of the output"},
	{ARG_BACKING_CHAIN, "backing-chain", NULL, "and the same for each backing file"},
	{ARG_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a list of options: driver=...,file.filename=..."},
	{'U', "force-share", NULL, "the image may be in use by a process that writes it"},
	{.code = 0},
};

struct about {
	struct blk_info info;
	char *file, *fmt, *full; /* its backing file */
	uint64_t disk;
	bool has_disk, dirty;
	json_t *specific;
	struct blk_snapshot *snap;
	size_t nsnap;
};

static int look(struct img *i, struct about *b, struct err *err)
{
	struct stat st;
	int r;

	blk_info(i->node, &b->info);
	if (!stat(blk_filename(i->node), &st)) {
		b->disk = (uint64_t)st.st_blocks * 512;
		b->has_disk = true;
	}
	b->dirty = blk_image_dirty(i->node);
	r = blk_image_backing(i->node, &b->file, &b->fmt, err);
	if (!r && b->file) {
		b->full = img_path_beside(i->filename, b->file);
		r = b->full ? 0 : err_set(err, ENOMEM, "out of memory");
	}
	if (!r) {
		r = blk_image_snapshots(i->node, &b->snap, &b->nsnap, err);
	}
	return r ? r : blk_image_specific(i->node, &b->specific, err);
}

static void about_fini(struct about *b)
{
	free(b->file);
	free(b->fmt);
	free(b->full);
	json_decref(b->specific);
	blk_image_snapshots_free(b->snap, b->nsnap);
}

static json_t *snapshots_json(const struct about *b)
{
	json_t *list = json_array();

	for (size_t i = 0; i < b->nsnap; i++) {
		const struct blk_snapshot *s = &b->snap[i];
		json_t *v = json_object();

		if (s->icount != UINT64_MAX) {
			json_object_set_new(v, "icount", json_integer((json_int_t)s->icount));
		}
		json_object_set_new(v, "vm-clock-nsec",
				    json_integer((json_int_t)(s->vm_clock_nsec % 1000000000)));
		json_object_set_new(v, "name", img_json_str(s->name));
		json_object_set_new(v, "date-sec", json_integer((json_int_t)s->date_sec));
		json_object_set_new(v, "date-nsec", json_integer(s->date_nsec));
		json_object_set_new(v, "vm-clock-sec",
				    json_integer((json_int_t)(s->vm_clock_nsec / 1000000000)));
		json_object_set_new(v, "id", img_json_str(s->id));
		json_object_set_new(v, "vm-state-size", json_integer((json_int_t)s->vm_state_size));
		json_array_append_new(list, v);
	}
	return list;
}

static json_t *about_json(const struct img *i, const struct about *b)
{
	json_t *v = json_object();

	if (b->nsnap) {
		json_object_set_new(v, "snapshots", snapshots_json(b));
	}
	if (b->fmt) {
		json_object_set_new(v, "backing-filename-format", img_json_str(b->fmt));
	}
	json_object_set_new(v, "virtual-size", json_integer((json_int_t)b->info.size));
	json_object_set_new(v, "filename", img_json_str(i->filename));
	if (b->info.cluster_size) {
		json_object_set_new(v, "cluster-size", json_integer(b->info.cluster_size));
	}
	json_object_set_new(v, "format", img_json_str(img_format(i)));
	if (b->has_disk) {
		json_object_set_new(v, "actual-size", json_integer((json_int_t)b->disk));
	}
	if (b->specific) {
		json_object_set(v, "format-specific", b->specific);
	}
	if (b->file) {
		json_object_set_new(v, "full-backing-filename", img_json_str(b->full));
		json_object_set_new(v, "backing-filename", img_json_str(b->file));
	}
	json_object_set_new(v, "dirty-flag", json_boolean(b->dirty));
	return v;
}

static void about_print(const struct img *i, const struct about *b)
{
	char size[32], disk[32];

	printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n",
	       i->filename, img_format(i), img_human(b->info.size, size),
	       (unsigned long long)b->info.size,
	       b->has_disk ? img_human(b->disk, disk) : "unavailable");
	if (b->info.cluster_size) {
		printf("cluster_size: %u\n", b->info.cluster_size);
	}
	if (b->dirty) {
		printf("cleanly shut down: no\n");
	}
	if (b->file) {
		printf("backing file: %s", b->file);
		if (strcmp(b->file, b->full)) {
			printf(" (actual path: %s)", b->full);
		}
		putchar('\n');
	}
	if (b->fmt) {
		printf("backing file format: %s\n", b->fmt);
	}
	if (b->nsnap) {
		printf("Snapshot list:\n");
		img_snapshots_print(b->snap, b->nsnap);
	}
	if (b->specific) {
		printf("Format specific information:\n");
		img_tree_print(json_object_get(b->specific, "data"), 1);
	}
}

/* One image; *next and *next_fmt: its backing file. */
static int one(const char *filename, const struct img_how *how, json_t *list, bool human,
	       char **next, char **next_fmt, struct err *err)
{
	struct about b = {.file = NULL};
	struct img i;
	int r = img_open(filename, how, NULL, &i, err);

	if (r) {
		return r;
	}
	r = look(&i, &b, err);
	if (!r && human) {
		about_print(&i, &b);
	} else if (!r) {
		json_array_append_new(list, about_json(&i, &b));
	}
	if (!r) {
		*next = b.full;
		*next_fmt = b.fmt;
		b.full = b.fmt = NULL;
	}
	about_fini(&b);
	img_close(&i);
	return r;
}

static int chain(struct img_args *a, json_t *list, bool human, struct err *err)
{
	struct img_how how = {
		.fmt = img_arg(a, 'f'),
		.image_opts = img_given(a, ARG_IMAGE_OPTS),
		.force_share = img_given(a, 'U'),
		.no_backing = true,
	};
	bool all = img_given(a, ARG_BACKING_CHAIN);
	char *name = strdup(a->operand[0]), *fmt = NULL;
	int r = name ? 0 : err_set(err, ENOMEM, "out of memory");

	for (unsigned depth = 0; name && !r; depth++) {
		char *next = NULL, *next_fmt = NULL;

		if (depth == IMG_LAYERS) {
			r = err_set(err, ELOOP, "more than %d backing files below '%s'; is there a "
				    "loop?", IMG_LAYERS, a->operand[0]);
			break;
		}
		if (depth && human) {
			putchar('\n');
		}
		r = one(name, &how, list, human, &next, &next_fmt, err);
		free(name);
		free(fmt);
		name = next;
		fmt = next_fmt;
		how.fmt = fmt;
		how.image_opts = false;
		if (!all) {
			break;
		}
	}
	free(name);
	free(fmt);
	return r;
}

int cmd_info(struct img_args *a)
{
	json_t *list = json_array();
	struct err err;
	bool json;
	int r;

	if (img_arg_json(a, &json) || img_operands(a, 1, "the name of the image")) {
		json_decref(list);
		return 1;
	}
	r = chain(a, list, !json, &err);
	if (r) {
		img_error("info: %s", err.msg);
	} else if (json && img_given(a, ARG_BACKING_CHAIN)) {
		img_json_print(json_incref(list));
	} else if (json) {
		img_json_print(json_incref(json_array_get(list, 0)));
	}
	json_decref(list);
	return r ? 1 : 0;
}
