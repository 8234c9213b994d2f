/*
 * New images: the options that make them, and how they get their name.
 *
 * A new image is made under a temporary name in the directory of its own and gets that name when
 * it is complete, so that no moment, no error and no signal leaves half of an image there, or
 * harms what was there before. An old file of that name is locked meanwhile, as if it were written. Owner and mode
 * of an old file stay. Devices, and files in a directory that we may not write, are written in place.
 *
 * With a name that is a symbolic link, what it points to is replaced.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "img.h"

/* --- options of a format; in the order of "Formatting …" --- */

enum kind { KIND_STR, KIND_BOOL, KIND_NUM, KIND_SIZE };
struct create_opt {
	const char *name;
	enum kind kind;
	const char *def; /* shown although it was not given */
	const char *doc;
	bool protocol;   /* of the file, not of the format */
};

static const struct create_opt qcow2_rows[] = {
	{"cluster_size", KIND_SIZE, "65536", "qcow2 cluster size"},
	{"extended_l2", KIND_BOOL, "off", "Extended L2 tables"},
	{"preallocation", KIND_STR, NULL,
	 "Preallocation mode (allowed values: off, metadata, falloc, full)"},
	{"compression_type", KIND_STR, "zlib",
	 "Compression method used for image cluster compression"},
	{"size", KIND_SIZE, NULL, "Virtual disk size"},
	{"compat", KIND_STR, NULL, "Compatibility level (v2 [0.10] or v3 [1.1])"},
	{"data_file", KIND_STR, NULL, "File name of an external data file"},
	{"data_file_raw", KIND_BOOL, NULL, "The external data file must stay valid as a raw image"},
	{"backing_file", KIND_STR, NULL, "File name of a base image"},
	{"backing_fmt", KIND_STR, NULL, "Image format of the base image"},
	{"lazy_refcounts", KIND_BOOL, "off", "Postpone refcount updates"},
	{"refcount_bits", KIND_NUM, "16", "Width of a reference count entry in bits"},
	{"nocow", KIND_BOOL, NULL, "Turn off copy-on-write (valid only on btrfs)", true},
	{.name = NULL},
};
static const struct create_opt raw_rows[] = {
	{"size", KIND_SIZE, NULL, "Virtual disk size"},
	{"preallocation", KIND_STR, NULL, "Preallocation mode (allowed values: off, falloc, full)",
	 true},
	{"nocow", KIND_BOOL, NULL, "Turn off copy-on-write (valid only on btrfs)", true},
	{.name = NULL},
};

static const struct create_opt *rows_of(const char *fmt)
{
	return !strcmp(fmt, "qcow2") ? qcow2_rows : !strcmp(fmt, "raw") ? raw_rows : NULL;
}

static const struct create_opt *row_of(const char *fmt, const char *name)
{
	const struct create_opt *c = rows_of(fmt);

	while (c->name && strcmp(c->name, name)) {
		c++;
	}
	return c->name ? c : NULL;
}

bool img_wants_help(const char *list)
{
	const char *p = list;

	while (p && *p) {
		size_t n = strcspn(p, ",");

		if ((n == 4 && !strncmp(p, "help", 4)) || (n == 1 && *p == '?')) {
			return true;
		}
		p += n + (p[n] == ',');
	}
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct create_opt *const *)a)->name,
		      (*(const struct create_opt *const *)b)->name);
}

void img_create_help(const char *fmt, bool protocol)
{
	static const char *const kinds[] = {"str", "bool (on/off)", "num", "size"};
	const struct create_opt *sorted[32];
	size_t n = 0;

	for (const struct create_opt *c = rows_of(fmt); c->name; c++) {
		if (!c->protocol || protocol) {
			sorted[n++] = c;
		}
	}
	qsort(sorted, n, sizeof(sorted[0]), by_name);
	if (protocol) {
		printf("Supported options:\n");
	} else {
		printf("Supported %s options:\n", fmt);
	}
	for (size_t i = 0; i < n; i++) {
		char left[64];

		snprintf(left, sizeof(left), "%s=<%s>", sorted[i]->name, kinds[sorted[i]->kind]);
		printf("  %-22s - %s\n", left, sorted[i]->doc);
	}
	if (!protocol) {
		printf("\nThe protocol level may support further options.\n"
		       "Specify the target filename to include those options.\n");
	}
}

static const char *peek(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			return o->opt[i].value;
		}
	}
	return NULL;
}

static int check_value(const struct img_create *c, const struct create_opt *row, const char *value,
		       struct err *err)
{
	uint64_t n;
	bool b;

	if (row->kind == KIND_SIZE && parse_size(value, 'b', &n)) {
		return err_set(err, EINVAL, "-o %s=%s is no size; give a number such as 64k or 10G",
			       row->name, value);
	}
	if (row->kind == KIND_NUM && parse_u64(value, &n)) {
		return err_set(err, EINVAL, "-o %s=%s is no number", row->name, value);
	}
	if (row->kind == KIND_BOOL && parse_bool(value, &b)) {
		return err_set(err, EINVAL, "-o %s=%s is not valid; give on or off", row->name,
			       value);
	}
	return 0;
}

/* The last of several equal keys counts. */
static int put(struct opts *o, const char *key, const char *value, struct err *err)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			char *copy = strdup(value);

			if (!copy) {
				return err_set(err, ENOMEM, "out of memory");
			}
			free(o->opt[i].value);
			o->opt[i].value = copy;
			return 0;
		}
	}
	return opts_add(o, key, value, err);
}

/* One "key=value" of the list, up to a single comma. */
static int parse_one(struct img_create *c, const char **list, struct err *err)
{
	char *text = malloc(strlen(*list) + 1), *value;
	const struct create_opt *row;
	const char *p = *list;
	size_t n = 0;
	int r = 0;

	if (!text) {
		return err_set(err, ENOMEM, "out of memory");
	}
	for (; *p && !(*p == ',' && p[1] != ','); p++) {
		p += *p == ',';
		text[n++] = *p;
	}
	text[n] = '\0';
	*list = *p ? p + 1 : p;
	value = strchr(text, '=');
	if (value) {
		*value++ = '\0';
	}
	row = row_of(c->fmt, text);
	if (n && !row) {
		r = err_set(err, EINVAL,
			    "-o %s: the format %s has no such option; '-o help' lists those it has",
			    text, c->fmt);
	} else if (n) {
		r = check_value(c, row, value ? value : "on", err);
		r = r ? r : put(&c->opts, text, value ? value : "on", err);
	}
	free(text);
	return r;
}

int img_create_parse(struct img_create *c, const char *fmt, const char *list, struct err *err)
{
	const char *size;
	int r;

	*c = (struct img_create){.fmt = fmt, .opts = {.what = "-o"}};
	r = img_format_check(fmt, err);
	if (!r && !rows_of(fmt)) {
		r = err_set(err, ENOTSUP, "no image can be made with the format '%s'; give raw or qcow2",
			    fmt);
	}
	while (!r && list && *list) {
		r = parse_one(c, &list, err);
	}
	if (r) {
		return r;
	}
	size = peek(&c->opts, "size");
	c->has_size = size != NULL;
	if (size) {
		(void)parse_size(size, 'b', &c->size);
	}
	if (peek(&c->opts, "backing_file")) {
		c->backing = strdup(peek(&c->opts, "backing_file"));
	}
	if (peek(&c->opts, "backing_fmt")) {
		c->backing_fmt = strdup(peek(&c->opts, "backing_fmt"));
	}
	return 0;
}

static int replace(char **where, const char *value, struct err *err)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy) {
		return err_set(err, ENOMEM, "out of memory");
	}
	if (copy) {
		free(*where);
		*where = copy;
	}
	return 0;
}

int img_create_backing(struct img_create *c, const char *file, const char *fmt, struct err *err)
{
	int r = replace(&c->backing, file, err);

	return r ? r : replace(&c->backing_fmt, fmt, err);
}

void img_create_fini(struct img_create *c)
{
	opts_fini(&c->opts);
	free(c->backing);
	free(c->backing_fmt);
}

/* The fields that are no pairs, as pairs. */
static int create_pairs(struct img_create *c, struct opts *out, struct err *err)
{
	char size[32];
	int r = 0;

	*out = (struct opts){.what = "-o"};
	for (size_t i = 0; i < c->opts.count && !r; i++) {
		const struct create_opt *row = row_of(c->fmt, c->opts.opt[i].key);

		if (!row->protocol || !strcmp(row->name, "preallocation")) {
			r = opts_add(out, row->name, c->opts.opt[i].value, err);
		}
	}
	/* a disk has whole sectors; a raw file may end anywhere */
	snprintf(size, sizeof(size), "%llu",
		 (unsigned long long)(strcmp(c->fmt, "raw") ? align_up(c->size, 512) : c->size));
	r = r ? r : put(out, "size", size, err);
	if (!r && c->backing) {
		r = put(out, "backing_file", c->backing, err);
	}
	if (!r && c->backing_fmt) {
		r = put(out, "backing_fmt", c->backing_fmt, err);
	}
	return r;
}

static void print_value(const char *value)
{
	for (; *value; value++) {
		putchar(*value);
		if (*value == ',') {
			putchar(',');
		}
	}
}

void img_create_print(const struct img_create *c, const char *filename)
{
	printf("Formatting '%s', fmt=%s", filename, c->fmt);
	for (const struct create_opt *row = rows_of(c->fmt); row->name; row++) {
		const char *value = peek(&c->opts, row->name);
		uint64_t n = c->size;
		bool b;

		if (!strcmp(row->name, "backing_file") && c->backing) {
			value = c->backing;
		} else if (!strcmp(row->name, "backing_fmt") && c->backing_fmt) {
			value = c->backing_fmt;
		}
		value = value ? value : row->def;
		if (row->kind == KIND_SIZE && (value || !strcmp(row->name, "size"))) {
			if (strcmp(row->name, "size")) {
				(void)parse_size(value, 'b', &n);
			}
			printf(" %s=%llu", row->name, (unsigned long long)n);
		} else if (value && row->kind == KIND_BOOL && !parse_bool(value, &b)) {
			printf(" %s=%s", row->name, b ? "on" : "off");
		} else if (value) {
			printf(" %s=", row->name);
			print_value(value);
		}
	}
	putchar('\n');
	fflush(stdout);
}

/* --- the file --- */

/* A user of the whole file, for as long as it is being made. */
static int hold(struct img_target *t, const char *path, struct blk_node **node,
		struct blk_user **user, struct err *err)
{
	struct opts o = {.what = "image"};
	int r = opts_add(&o, "driver", "file", err);

	r = r ? r : opts_add(&o, "filename", path, err);
	r = r ? r : blk_open(t->graph, &o, node, err);
	opts_fini(&o);
	if (r) {
		return r;
	}
	r = blk_attach(*node, "nemu-img", BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
		       0, NULL, NULL, user, err);
	if (r) {
		blk_unref(*node);
		*node = NULL;
	}
	return r;
}

/* An empty file beside path. */
static int make_temp(struct img_target *t, const struct stat *old, struct err *err)
{
	const char *slash = strrchr(t->path, '/');
	int dir = slash ? (int)(slash - t->path + 1) : 0;
	mode_t mask;
	int fd;

	if (asprintf(&t->temp, "%.*s.%.200s.XXXXXX", dir, t->path, t->path + dir) < 0) {
		t->temp = NULL;
		return err_set(err, ENOMEM, "out of memory");
	}
	fd = mkostemp(t->temp, O_CLOEXEC);
	if (fd < 0) {
		free(t->temp);
		t->temp = NULL;
		return -errno;
	}
	img_ctl_unfinished(t->ctl, t->temp);
	mask = umask(0);
	umask(mask);
	/* who may not give the file to its old owner keeps it */
	if (old && fchown(fd, old->st_uid, old->st_gid)) {
		errno = 0;
	}
	if (fchmod(fd, old ? old->st_mode & 07777 : 0644 & ~mask)) {
		errno = 0;
	}
	close(fd);
	return 0;
}

/* The file exists afterwards, at t->temp or t->path, and is empty unless it is a device. */
static int make_file(struct img_target *t, struct err *err)
{
	char *real = realpath(t->path, NULL);
	struct stat st;
	bool exists;
	int fd, r;

	if (real) {
		free(t->path);
		t->path = real;
	}
	exists = stat(t->path, &st) == 0;
	if (exists && S_ISBLK(st.st_mode)) {
		return 0;
	}
	if (exists && !S_ISREG(st.st_mode)) {
		return err_set(err, EINVAL, "'%s' is neither a file nor a block device", t->path);
	}
	if (exists) {
		r = hold(t, t->path, &t->old, &t->old_user, err);
		if (r) {
			return r;
		}
	}
	r = make_temp(t, exists ? &st : NULL, err);
	if (!r) {
		return 0;
	}
	if (r != -EACCES && r != -EROFS && r != -EPERM) {
		return err_set(err, -r, "'%s' cannot be made: %s", t->path, strerror(-r));
	}
	blk_detach(t->old_user);
	blk_unref(t->old);
	t->old_user = NULL;
	t->old = NULL;
	fd = open(t->path, O_RDWR | O_CREAT | O_CLOEXEC | O_TRUNC, 0644);
	if (fd < 0) {
		return err_set(err, errno, "'%s' cannot be made: %s", t->path, strerror(errno));
	}
	close(fd);
	return 0;
}

/* Only btrfs knows it; elsewhere it is without effect. */
static void no_cow(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), flags;

	if (fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		flags |= FS_NOCOW_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
	if (fd >= 0) {
		close(fd);
	}
}

const char *img_target_path(const struct img_target *t)
{
	return t->temp ? t->temp : t->path;
}

/* Messages of the block layer name the temporary file. */
static void name_as_asked(const struct img_target *t, const char *filename, struct err *err)
{
	char text[sizeof(err->msg)], *at = t->temp ? strstr(err->msg, t->temp) : NULL;

	if (at) {
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - err->msg), err->msg, filename,
			 at + strlen(t->temp));
		err_set(err, EIO, "%s", text);
	}
}

int img_target_make(struct img_target *t, struct img_ctl *ctl, const char *filename,
		    struct img_create *c, struct err *err)
{
	const char *path, *nocow = peek(&c->opts, "nocow");
	struct blk_node *file = NULL;
	struct blk_user *user = NULL;
	struct opts o = {.what = "-o"};
	bool on;
	int r;

	*t = (struct img_target){.ctl = ctl};
	if (!strncmp(filename, "json:", 5)) {
		return err_set(err, EINVAL, "an image cannot be made at 'json:…'; give a path");
	}
	r = img_path(filename, &path, err);
	if (r) {
		return r;
	}
	t->path = strdup(path);
	if (!t->path || blk_graph_new(&t->graph)) {
		return err_set(err, ENOMEM, "out of memory");
	}
	r = make_file(t, err);
	if (!r && nocow && !parse_bool(nocow, &on) && on) {
		no_cow(img_target_path(t));
	}
	if (!r) {
		r = create_pairs(c, &o, err);
	}
	if (!r) {
		r = hold(t, img_target_path(t), &file, &user, err);
	}
	if (!r) {
		r = blk_image_create(t->graph, c->fmt, file, &o, err);
	}
	blk_detach(user);
	blk_unref(file);
	opts_fini(&o);
	if (r) {
		name_as_asked(t, filename, err);
	}
	return r;
}

int img_target_done(struct img_target *t, struct err *err)
{
	int r = t->temp ? img_ctl_finish(t->ctl, t->temp, t->path) : 0;

	if (r) {
		return err_set(err, -r, "'%s' cannot be renamed to '%s': %s", t->temp, t->path,
			       strerror(-r));
	}
	free(t->temp);
	t->temp = NULL;
	t->made = true;
	return 0;
}

void img_target_free(struct img_target *t)
{
	if (t->temp) {
		unlink(t->temp);
		img_ctl_unfinished(t->ctl, NULL);
	}
	blk_detach(t->old_user);
	blk_unref(t->old);
	blk_graph_free(t->graph);
	free(t->temp);
	free(t->path);
	*t = (struct img_target){.path = NULL};
}
