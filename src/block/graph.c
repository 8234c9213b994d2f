/*
 * The graph: which nodes there are, their names, references and edges.
 *
 * Invariants:
 *  1. a name is that of one node of a graph;
 *  2. a node that is being opened has no name that can be found, so a graph has no cycles;
 *  3. an edge holds a reference to the child; a node is closed when its last reference goes.
 *
 * Threads: control loop, but for sizes.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

struct blk_graph {
	struct list nodes, groups;
	unsigned serial;
	bool sealed;
	loop_work_fn *thread_init;
	void *thread_arg;
};

int blk_graph_new(struct blk_graph **out)
{
	struct blk_graph *g = calloc(1, sizeof(*g));

	if (!g) {
		return -ENOMEM;
	}
	list_init(&g->nodes);
	list_init(&g->groups);
	*out = g;
	return 0;
}

void blk_graph_free(struct blk_graph *g)
{
	if (!g) {
		return;
	}
	assert(list_empty(&g->nodes));
	blk_throttle_groups_free(&g->groups);
	free(g);
}

void blk_graph_thread_init(struct blk_graph *g, loop_work_fn *fn, void *arg)
{
	g->thread_init = fn;
	g->thread_arg = arg;
}

void blk_graph_seal(struct blk_graph *g)
{
	g->sealed = true;
}

bool blk_graph_sealed(const struct blk_graph *g)
{
	return g && g->sealed;
}

int blk_thread_start(struct blk_graph *g, struct loop *l)
{
	return loop_thread_start(l, g ? g->thread_init : NULL, g ? g->thread_arg : NULL);
}

int blk_threads_get(struct blk_graph *g, struct loop *l, struct uring **out, struct err *err)
{
	return uring_get_threads(l, g ? g->thread_init : NULL, g ? g->thread_arg : NULL, out,
				 err);
}

struct list *blk_graph_groups(struct blk_graph *g)
{
	return &g->groups;
}

unsigned blk_graph_serial(struct blk_graph *g)
{
	return ++g->serial;
}

struct blk_node *blk_find(struct blk_graph *g, const char *node_name)
{
	struct list *pos;

	if (!g) {
		return NULL;
	}
	list_for_each (pos, &g->nodes) {
		struct blk_node *n = list_entry(pos, struct blk_node, link);

		if (!strcmp(n->name, node_name)) {
			return n;
		}
	}
	return NULL;
}

void blk_graph_each(struct blk_graph *g, void (*fn)(struct blk_node *n, void *opaque),
		    void *opaque)
{
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, &g->nodes) {
		fn(list_entry(pos, struct blk_node, link), opaque);
	}
}

int blk_graph_add(struct blk_graph *g, struct blk_node *n, struct err *err)
{
	if (blk_find(g, n->name)) {
		return err_set(err, EEXIST,
			       "node-name=%s is taken by another node; choose another name",
			       n->name);
	}
	n->graph = g;
	list_add_tail(&g->nodes, &n->link);
	return 0;
}

/* --- nodes --- */

void blk_node_init(struct blk_node *n, const struct blk_driver *drv, const char *name,
		   unsigned tag)
{
	n->drv = drv;
	if (name && *name) {
		snprintf(n->name, sizeof(n->name), "%s", name);
	} else {
		snprintf(n->name, sizeof(n->name), "#block%u", tag);
	}
	n->refs = 1;
	n->shared = BLK_PERM_ALL;
	list_init(&n->link);
	list_init(&n->edges);
	list_init(&n->users);
	list_init(&n->chans);
	list_init(&n->drains);
	list_init(&n->partial);
	pthread_mutex_init(&n->lock, NULL);
}

void blk_ref(struct blk_node *n)
{
	n->refs++;
}

void blk_unref(struct blk_node *n)
{
	if (!n || --n->refs > 0) {
		return;
	}
	assert(list_empty(&n->users) && list_empty(&n->chans));
	list_del(&n->link);
	n->drv->close(n);
	while (!list_empty(&n->edges)) {
		blk_edge_free(list_entry(n->edges.prev, struct blk_user, edge));
	}
	pthread_mutex_destroy(&n->lock);
	if (n->drv->node_size) {
		free(n);
	}
}

int blk_add_child(struct blk_node *n, const char *role, struct blk_node *child, struct err *err)
{
	int r = blk_edge_new(n, role, child, err);

	if (!r && !strcmp(role, "file")) {
		n->file = child;
	} else if (!r && !strcmp(role, "backing")) {
		n->backing = child;
	}
	blk_unref(child); /* the edge has a reference of its own */
	return r;
}

void blk_remove_child(struct blk_node *n, struct blk_node *child)
{
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, &n->edges) {
		struct blk_user *e = list_entry(pos, struct blk_user, edge);

		if (e->node == child) {
			n->file = n->file == child ? NULL : n->file;
			n->backing = n->backing == child ? NULL : n->backing;
			blk_edge_free(e);
			return;
		}
	}
}

const char *blk_name(const struct blk_node *n)
{
	return n->name;
}

const char *blk_driver_name(const struct blk_node *n)
{
	return n->drv->name;
}

const char *blk_filename(const struct blk_node *n)
{
	while (n->file) {
		n = n->file;
	}
	return n->filename ? n->filename : "";
}

struct blk_node *blk_child(const struct blk_node *n, const char *role)
{
	const struct list *pos;

	list_for_each (pos, &n->edges) {
		const struct blk_user *e = list_entry(pos, const struct blk_user, edge);

		if (!strcmp(e->role, role)) {
			return e->node;
		}
	}
	return NULL;
}

/* --- sizes --- */

uint64_t blk_size(const struct blk_node *n)
{
	while (n->follows) {
		n = n->follows;
	}
	return __atomic_load_n(&n->info.size, __ATOMIC_RELAXED);
}

void blk_info(const struct blk_node *n, struct blk_info *out)
{
	*out = n->info;
	out->size = blk_size(n);
}

void blk_grown(struct blk_node *n, uint64_t end)
{
	uint64_t size = __atomic_load_n(&n->info.size, __ATOMIC_RELAXED);

	while (size < end && !__atomic_compare_exchange_n(&n->info.size, &size, end, false,
							  __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
}

void blk_set_size(struct blk_node *n, uint64_t size)
{
	__atomic_store_n(&n->info.size, size, __ATOMIC_RELAXED);
}

void blk_info_from(struct blk_node *n, const struct blk_node *child)
{
	blk_info(child, &n->info);
	n->info.read_only |= n->opt.read_only;
	if (n->info.read_only) {
		n->info.can_discard = n->info.can_zero = false;
	}
}
