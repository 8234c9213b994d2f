/*
 * nemu-img: disk images without a VM. What the subcommands share; each of them is a row of the table
 * in main.c, and a table of options of its own, from which -h and the manual page are made.
 *
 * Options, output and exit status are qemu-img's (7.2). Messages are our own sentences.
 *
 * Untrusted: the images. Only the command line decides which files are opened, and `info` opens
 * no backing file unless it is told to.
 *
 * Threads: everything runs on the main thread, but for ctl.c's, which waits for signals, and those
 * that compress (compress.c).
 */
#ifndef NEMU_IMG_IMG_H
#define NEMU_IMG_IMG_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/opts.h"
#include "base/util.h"
#include "block/block.h"
#include "block/image.h"
#include "block/io.h"

/* --- command line (args.c) --- */

enum { /* options without a letter */
	ARG_IMAGE_OPTS = 256,
	ARG_TARGET_IMAGE_OPTS,
	ARG_TARGET_IS_ZERO,
	ARG_OBJECT,
	ARG_OUTPUT,
	ARG_BACKING_CHAIN,
	ARG_SALVAGE,
	ARG_BITMAPS,
	ARG_SKIP_BROKEN_BITMAPS,
	ARG_PREALLOCATION,
	ARG_SHRINK,
	ARG_SIZE,
	ARG_START_OFFSET,
	ARG_MAX_LENGTH,
	ARG_PATTERN,
	ARG_FLUSH_INTERVAL,
	ARG_NO_DRAIN,
};

struct img_opt {
	int code;         /* the letter, or ARG_… */
	const char *name; /* of the long form, or NULL */
	const char *arg;  /* what it takes, or NULL */
	const char *doc;
};
struct img_args;
struct img_cmd {
	const char *name;
	const char *operands;
	const char *doc;
	const struct img_opt *opts; /* ends with code 0 */
	int (*run)(struct img_args *a); /* exit status */
	bool negative; /* the last operand may look like -5G */
};

#define ARGS_MAX 32
struct img_args {
	const struct img_cmd *cmd;
	char *value[ARGS_MAX]; /* by row of cmd->opts; NULL: not given */
	char **operand;
	int count;
	struct img_ctl *ctl;
};
/* 0; 1: what was asked for was printed; negative: refused, said. */
int img_args_parse(const struct img_cmd *cmd, int argc, char **argv, struct img_args *a);
void img_args_free(struct img_args *a);
/* The value, "" for one that takes none, NULL if it was not given. */
const char *img_arg(const struct img_args *a, int code);
static inline bool img_given(const struct img_args *a, int code)
{
	return img_arg(a, code) != NULL;
}
/* A size or a number, as it is written in a message; def if not given. 0 or -EINVAL, said. */
int img_arg_size(const struct img_args *a, int code, uint64_t min, uint64_t max, uint64_t def,
		 uint64_t *out);
/* --output: 0, or -EINVAL and said. */
int img_arg_json(const struct img_args *a, bool *json);
/* Exactly n operands, else -EINVAL, said. `what`: their names. */
int img_operands(const struct img_args *a, int n, const char *what);

/* --- messages and output (text.c) --- */

void img_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void img_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "1.5 MiB" in buf; returns buf. */
char *img_human(uint64_t bytes, char buf[32]);
/* json_string() for a text that may not be UTF-8. */
json_t *img_json_str(const char *text);
void img_json_print(json_t *v); /* takes the reference */
void img_snapshots_print(const struct blk_snapshot *s, size_t count);
/* A tree of values in indented lines, "-" in names as " ". */
void img_tree_print(json_t *v, int indent);
void img_usage(const struct img_cmd *cmd);

/* --- progress and signals (ctl.c) --- */

struct img_ctl;
/* From now on SIGINT and SIGTERM remove the unfinished file and end the process. */
int img_ctl_new(struct img_ctl **out, struct err *err);
void img_ctl_free(struct img_ctl *c);
void img_progress_start(struct img_ctl *c, bool shown);
/* done of total, on the main thread. */
void img_progress(struct img_ctl *c, uint64_t done, uint64_t total);
void img_progress_end(struct img_ctl *c, bool complete);
/* The file that is removed if we are interrupted; NULL: none any more. */
void img_ctl_unfinished(struct img_ctl *c, const char *path);
/* rename() in one piece with the above. 0 or -errno. */
int img_ctl_finish(struct img_ctl *c, const char *from, const char *to);

/* --- images (open.c) --- */

struct img_how {
	const char *fmt;   /* -f, or NULL: what is found there */
	const char *cache; /* -t, -T, or NULL: def_cache */
	bool image_opts, write, resize, force_share, no_backing, quiet, unmap, no_user,
		no_repair;
	const char *aio;   /* or NULL */
	const char *snapshot;
};
struct img {
	struct blk_graph *graph;
	struct blk_node *node;
	struct blk_user *user;
	struct blk_io *io;
	char *filename; /* as it was given, without file: */
	uint64_t size;
	bool probed_raw; /* nobody said that it is raw */
};
/* Opens the image (and what stands below it) and a channel; beside: on the loop of that io, or NULL. */
int img_open(const char *filename, const struct img_how *how, struct blk_io *beside,
	     struct img *out, struct err *err);
void img_close(struct img *i); /* also of one that is zeroed */
const char *img_format(const struct img *i);
/* 0, or -EINVAL with a sentence. */
int img_cache_check(const char *cache, const char *what, struct err *err);
/* The name of a format that has the file at path: never NULL, "raw" if it is none that is known. */
int img_probe(const char *path, const char **fmt, struct err *err);
/* The same, for an image file that we cannot open: -ENOTSUP with a sentence. */
int img_format_check(const char *fmt, struct err *err);
/* The path of an image file: filename without "file:"; refuses protocols that are not there. */
int img_path(const char *filename, const char **path, struct err *err);
/* The name or number in "snapshot.name=X", "snapshot.id=X" or "X". */
int img_snapshot_param(const char *text, const char **out, struct err *err);
/* A name in an image's header, seen from the directory of that image. Allocated. */
char *img_path_beside(const char *image, const char *name);

/* Where data comes from, layer by layer. */
#define IMG_LAYERS 200
struct img_layer {
	struct blk_node *node;
	struct blk_io *io;
	uint64_t size;
};
struct img_chain {
	struct img_layer layer[IMG_LAYERS];
	unsigned count;
};
/* The layers of an open image; those below the first get channels of their own. */
int img_chain_open(struct img *i, struct img_chain *c, struct err *err);
void img_chain_close(struct img_chain *c);
/* What is at off, found in the layers from..to-1: the first one that knows. *depth: which.
 * Unallocated in all of them: flags 0 and *depth is to - 1. The first layer reaches to off. */
int img_chain_status(struct img_chain *c, unsigned from, unsigned to, uint64_t off, uint64_t len,
		     struct blk_extent *e, unsigned *depth);

/* --- targets (target.c) --- */

struct img_create { /* what -o and its friends say */
	struct opts opts;
	const char *fmt;
	uint64_t size;
	bool has_size;
	char *backing, *backing_fmt;
};
struct img_target {
	struct img_ctl *ctl;
	char *path;  /* where it goes */
	char *temp;  /* where it is until it is complete; NULL: in place */
	struct blk_graph *graph;
	struct blk_node *old; /* locked until then */
	struct blk_user *old_user;
	bool made;
};
/* -o lists, joined; adds what other options said. */
int img_create_parse(struct img_create *c, const char *fmt, const char *list, struct err *err);
/* -b and -F, or NULL: they win over -o. */
int img_create_backing(struct img_create *c, const char *file, const char *fmt, struct err *err);
void img_create_fini(struct img_create *c);
void img_create_help(const char *fmt, bool protocol);
/* "Formatting 'x', fmt=…" */
void img_create_print(const struct img_create *c, const char *filename);
/* -o help */
bool img_wants_help(const char *list);

/* Makes an image under a temporary name beside filename. */
int img_target_make(struct img_target *t, struct img_ctl *ctl, const char *filename,
		    struct img_create *c, struct err *err);
/* Where it can be opened. */
const char *img_target_path(const struct img_target *t);
/* It is complete: gets its name. */
int img_target_done(struct img_target *t, struct err *err);
void img_target_free(struct img_target *t); /* if it is not complete it goes away */

/* --- data (data.c) --- */

bool img_is_zero(const void *buf, size_t len);
/* How many of the first bytes are the same kind (zeros or not) in units of `unit`. */
size_t img_zero_run(const uint8_t *buf, size_t len, size_t unit, bool *zero);

/* --- subcommands --- */

extern const struct img_opt bench_opts[], check_opts[], commit_opts[], compare_opts[],
	convert_opts[], create_opts[], dd_opts[], info_opts[], map_opts[], measure_opts[],
	rebase_opts[], resize_opts[], snapshot_opts[];
int cmd_bench(struct img_args *a);
int cmd_check(struct img_args *a);
int cmd_commit(struct img_args *a);
int cmd_compare(struct img_args *a);
int cmd_convert(struct img_args *a);
int cmd_create(struct img_args *a);
int cmd_dd(struct img_args *a);
int cmd_info(struct img_args *a);
int cmd_map(struct img_args *a);
int cmd_measure(struct img_args *a);
int cmd_rebase(struct img_args *a);
int cmd_resize(struct img_args *a);
int cmd_snapshot(struct img_args *a);

#endif
