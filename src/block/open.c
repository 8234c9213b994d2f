/*
 * From -blockdev's pairs to a node: driver, common options, children.
 *
 * A child is described by pairs with its role in front (file.driver=…), by a node's name
 * (file=NAME), or, for the file of a node that stands on one, by filename= alone. Children
 * described that way inherit what they do not say themselves. The content of an image is never
 * probed: driver= says what it is.
 *
 * Untrusted: pairs may come from a QMP client or, for a backing file, from an image; their
 * number is bounded by struct opts, and MAX_DEPTH bounds how deep nodes are nested.
 */
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

#define MAX_DEPTH   200
#define MAX_NAME    31
#define JSON_PREFIX "json:"

static int open_node(struct blk_graph *g, struct opts *o, unsigned depth, struct blk_node **out,
		     struct err *err);

int blk_json_opts(struct opts *o, const char *json, struct err *err)
{
	bool name = !strncmp(json, JSON_PREFIX, strlen(JSON_PREFIX));

	return opts_add_json(o, name ? json + strlen(JSON_PREFIX) : json, true, err);
}

/* --- pairs of a child --- */

static bool has(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			return true;
		}
	}
	return false;
}

/* Takes the pairs that begin with "role." out of o, without that. */
static int opts_below(struct opts *o, const char *role, struct opts *out, struct err *err)
{
	size_t len = strlen(role);

	for (size_t i = 0; i < o->count; i++) {
		struct opt *p = &o->opt[i];
		int r;

		if (strncmp(p->key, role, len) || p->key[len] != '.') {
			continue;
		}
		p->used = true;
		r = opts_add(out, p->key + len + 1, p->value, err);
		if (r) {
			return r;
		}
	}
	return 0;
}

static int inherit(struct opts *o, const char *key, const char *value, struct err *err)
{
	return has(o, key) ? 0 : opts_add(o, key, value, err);
}

static int inherit_all(struct opts *o, const struct blk_node *above, bool backing,
		       struct err *err)
{
	const struct blk_node_opt *a = &above->opt;
	int r = inherit(o, "read-only", a->read_only || backing ? "on" : "off", err);

	if (!r && a->auto_read_only) {
		r = inherit(o, "auto-read-only", "on", err);
	}
	if (!r && a->direct) {
		r = inherit(o, "cache.direct", "on", err);
	}
	if (!r && a->no_flush) {
		r = inherit(o, "cache.no-flush", "on", err);
	}
	if (!r && a->force_share) {
		r = inherit(o, "force-share", "on", err);
	}
	if (!r && a->unmap) {
		r = inherit(o, "discard", "unmap", err);
	}
	return r;
}

/* filename= beside a driver that stands on a file, with what is said there of that file. */
static const char *const file_keys[] = {"filename", "aio", "locking", NULL};

static int file_shorthand(struct opts *o, struct opts *below, struct err *err)
{
	int r = 0;

	for (size_t i = 0; file_keys[i] && !r; i++) {
		const char *v = opts_get(o, file_keys[i]);

		if (v && has(below, file_keys[i])) {
			return err_set(err, EINVAL,
				       "%s: %s and file.%s are both given; keep one", o->what,
				       file_keys[i], file_keys[i]);
		}
		r = v ? opts_add(below, file_keys[i], v, err) : 0;
	}
	return r;
}

void blk_child_keys(struct opts *o, const char *role)
{
	size_t len = strlen(role);

	opts_get(o, role);
	for (size_t i = 0; i < o->count; i++) {
		if (!strncmp(o->opt[i].key, role, len) && o->opt[i].key[len] == '.') {
			o->opt[i].used = true;
		}
	}
	for (size_t i = 0; file_keys[i] && !strcmp(role, "file"); i++) {
		opts_get(o, file_keys[i]);
	}
}

static int child_new(struct blk_node *n, struct opts *o, const char *role, struct opts *below,
		     struct blk_node **out, struct err *err)
{
	int r;

	below->what = o->what;
	if (!has(below, "driver") && !strcmp(role, "file")) {
		/* file or host_device, as it is; open_node() knows */
		r = opts_add(below, "driver", "", err);
		if (r) {
			return r;
		}
	}
	r = inherit_all(below, n, !strcmp(role, "backing"), err);
	return r ? r : open_node(n->graph, below, n->depth + 1, out, err);
}

int blk_open_child(struct blk_node *n, struct opts *o, const char *role, bool required,
		   struct blk_node **out, struct err *err)
{
	const char *name = opts_get(o, role);
	struct opts below = {.what = o->what};
	struct blk_node *child = NULL;
	int r = opts_below(o, role, &below, err);

	*out = NULL;
	if (!r && !strcmp(role, "file")) {
		r = file_shorthand(o, &below, err);
	}
	if (r) {
		goto free_below;
	}
	if (name && *name && below.count) {
		r = err_set(err, EINVAL, "%s: %s=%s names a node, so leave %s.%s away", o->what,
			    role, name, role, below.opt[0].key);
	} else if (name && *name) {
		child = blk_find(n->graph, name);
		if (child) {
			blk_ref(child);
		} else {
			r = err_set(err, ENOENT,
				    "%s: there is no node '%s' for %s=; open it first", o->what,
				    name, role);
		}
	} else if (below.count) {
		r = child_new(n, o, role, &below, &child, err);
	} else if (required && !strcmp(role, "file")) {
		r = err_set(err, EINVAL,
			    "%s: driver=%s stands on a file and filename is missing; add "
			    "file.filename=FILE",
			    o->what, n->drv->name);
	} else if (required) {
		r = err_set(err, EINVAL, "%s: driver=%s needs %s=NODE", o->what, n->drv->name,
			    role);
	}
	if (!r && child) {
		r = blk_add_child(n, role, child, err);
		*out = r ? NULL : child;
	}
free_below:
	opts_fini(&below);
	return r;
}

/* --- a node --- */

struct common {
	char *node_name;
	struct blk_node_opt opt;
	int discard, detect;
};
static const char *const discard_names[] = {"ignore", "unmap", NULL};
static const char *const detect_names[] = {"off", "on", "unmap", NULL};

#define ROW(k, t, f, d)                                                                        \
	{                                                                                      \
		.key = k, .type = t, .offset = offsetof(struct common, f), .def = d            \
	}
static const struct opt_desc common_rows[] = {
	ROW("node-name", OPT_STR, node_name, NULL),
	ROW("read-only", OPT_BOOL, opt.read_only, NULL),
	ROW("auto-read-only", OPT_BOOL, opt.auto_read_only, NULL),
	ROW("force-share", OPT_BOOL, opt.force_share, NULL),
	ROW("cache.direct", OPT_BOOL, opt.direct, NULL),
	ROW("cache.no-flush", OPT_BOOL, opt.no_flush, NULL),
	{"discard", OPT_ENUM, offsetof(struct common, discard), .names = discard_names},
	{"detect-zeroes", OPT_ENUM, offsetof(struct common, detect), .names = detect_names},
	{.key = NULL},
};

/* The common options of o over those in c. */
static int common_read(struct opts *o, struct common *c, struct err *err)
{
	struct opts own = {.what = o->what};
	int r = 0;

	for (const struct opt_desc *d = common_rows; d->key && !r; d++) {
		const char *v = opts_get(o, d->key);

		if (v && !strcmp(d->key, "discard")) {
			v = !strcmp(v, "on") ? "unmap" : !strcmp(v, "off") ? "ignore" : v;
		}
		r = v ? opts_add(&own, d->key, v, err) : 0;
	}
	if (!r) {
		c->discard = c->opt.unmap;
		c->detect = (int)c->opt.detect_zeroes;
		r = opts_read(&own, common_rows, c, err);
		c->opt.unmap = c->discard == 1;
		c->opt.detect_zeroes = (enum blk_detect_zeroes)c->detect;
	}
	opts_fini(&own);
	if (!r && c->opt.detect_zeroes == BLK_DETECT_UNMAP && !c->opt.unmap) {
		r = err_set(err, EINVAL,
			    "%s: detect-zeroes=unmap needs discard=unmap; add it, or say "
			    "detect-zeroes=on",
			    o->what);
	}
	if (!r && c->opt.force_share && !c->opt.read_only) {
		r = err_set(err, EINVAL, "%s: force-share=on needs read-only=on; add it",
			    o->what);
	}
	return r;
}

static int name_check(const struct opts *o, const char *name, struct err *err)
{
	size_t len =
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			     "-._");

	if (!isalpha((unsigned char)name[0]) || name[len] || len > MAX_NAME) {
		return err_set(
			err, EINVAL,
			"%s: node-name=%.40s is no name: a letter, then letters, digits, "
			"'-', '.' and '_', at most %d characters",
			o->what, name, MAX_NAME);
	}
	return 0;
}

static int driver_of(struct opts *o, const struct blk_driver **out, struct err *err)
{
	const char *name = opts_get(o, "driver"), *file = NULL;
	char list[256];
	size_t n = 0;

	if (!name) {
		name = "raw";
	}
	if (!*name) {
		for (size_t i = 0; i < o->count; i++) {
			file = !strcmp(o->opt[i].key, "filename") ? o->opt[i].value : file;
		}
		name = file && blk_is_device(file) ? "host_device" : "file";
	}
	*out = blk_driver_find(name);
	if (*out) {
		return 0;
	}
	list[0] = '\0';
	for (unsigned i = 0; blk_driver_nth(i) && n < sizeof(list); i++) {
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
				      blk_driver_nth(i)->name);
	}
	return err_set(err, EINVAL, "%s: driver=%s is not valid; give one of %s", o->what, name,
		       list);
}

static struct blk_node *node_new(struct blk_graph *g, const struct blk_driver *drv,
				 const struct common *c, unsigned depth)
{
	struct blk_node *n = calloc(1, drv->node_size);

	if (n) {
		blk_node_init(n, drv, c->node_name, g ? blk_graph_serial(g) : 0);
		n->graph = g;
		n->depth = depth;
		n->opt = c->opt;
		n->info.read_only = c->opt.read_only;
	}
	return n;
}

/* As blk_unref(), for a node whose open() failed. */
static void node_abort(struct blk_node *n)
{
	while (!list_empty(&n->edges)) {
		blk_edge_free(list_entry(n->edges.prev, struct blk_user, edge));
	}
	pthread_mutex_destroy(&n->lock);
	free(n);
}

static int node_open(struct blk_graph *g, struct opts *o, const struct common *c,
		     unsigned depth, struct blk_node **out, struct err *err)
{
	const struct blk_driver *drv;
	struct blk_node *n;
	int r;

	if (c->node_name) {
		r = name_check(o, c->node_name, err);
		if (!r && blk_find(g, c->node_name)) {
			r = err_set(err, EEXIST,
				    "%s: node-name=%s is taken by another node; choose another "
				    "name",
				    o->what, c->node_name);
		}
		if (r) {
			return r;
		}
	}
	r = driver_of(o, &drv, err);
	if (r) {
		return r;
	}
	n = node_new(g, drv, c, depth);
	if (!n) {
		return err_set(err, ENOMEM, "%s: out of memory", o->what);
	}
	r = drv->open(n, o, err);
	if (r) {
		node_abort(n);
		return r;
	}
	r = g ? blk_graph_add(g, n, err) : 0;
	if (r) {
		blk_unref(n);
		return r;
	}
	*out = n;
	return 0;
}

/* A file name that is a JSON object: its pairs, and those beside it, which count more. */
static int json_expand(struct opts *o, struct opts *out, struct err *err)
{
	const char *json = opts_get(o, "filename");
	struct opts inner = {.what = o->what};
	int r = blk_json_opts(&inner, json, err);

	*out = (struct opts){.what = o->what};
	for (size_t i = 0; i < o->count && !r; i++) {
		const struct opt *p = &o->opt[i];

		if (strcmp(p->key, "filename") && !(!strcmp(p->key, "driver") && !*p->value)) {
			r = opts_add(out, p->key, p->value, err);
		}
	}
	for (size_t i = 0; i < inner.count && !r; i++) {
		r = inherit(out, inner.opt[i].key, inner.opt[i].value, err);
	}
	opts_fini(&inner);
	for (size_t i = 0; i < o->count; i++) {
		o->opt[i].used = true;
	}
	return r;
}

static int open_node(struct blk_graph *g, struct opts *o, unsigned depth, struct blk_node **out,
		     struct err *err)
{
	struct common c = {.node_name = NULL};
	struct opts expanded;
	int r;

	if (depth > MAX_DEPTH) {
		return err_set(err, EINVAL,
			       "%s: more than %d images stand on each other; is there a loop?",
			       o->what, MAX_DEPTH);
	}
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, "filename") &&
		    !strncmp(o->opt[i].value, JSON_PREFIX, strlen(JSON_PREFIX))) {
			r = json_expand(o, &expanded, err);
			if (!r) {
				r = open_node(g, &expanded, depth + 1, out, err);
			}
			opts_fini(&expanded);
			return r;
		}
	}
	r = common_read(o, &c, err);
	if (!r) {
		r = node_open(g, o, &c, depth, out, err);
	}
	opts_free_struct(common_rows, &c);
	return r;
}

int blk_open(struct blk_graph *g, struct opts *o, struct blk_node **out, struct err *err)
{
	return open_node(g, o, 0, out, err);
}

int blk_common_reopen(struct opts *o, struct blk_node_opt *opt, struct err *err)
{
	struct common c = {.opt = *opt};
	int r = common_read(o, &c, err);

	if (!r && c.node_name) {
		r = err_set(err, EINVAL, "%s: node-name cannot be changed; leave it away",
			    o->what);
	}
	if (!r) {
		*opt = c.opt;
	}
	opts_free_struct(common_rows, &c);
	return r;
}
