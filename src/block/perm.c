/*
 * Users of nodes, and what they permit each other.
 *
 * A user has `perm`, what it does, and `shared`, what it suffers others to do. Two users of a
 * node agree if neither does what the other does not share. What all users of a node do and
 * share together is asked of its children (child_perm), and of the image locks at the end
 * (set_perm). A change is tried from top to bottom; where somebody disagrees, all is put back.
 *
 * What a node asks of a child:
 *   filter   what it is asked for itself
 *   format   of its file: to read, and if it is writable to write and resize; nobody else may
 *            write or resize. Of its backing file: to read; nobody may write to it, unless all
 *            of its own users share that
 *
 * Threads: control loop; `beyond` and `grow` are read on channels' loops, and change only while
 * a user comes or goes.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

static const char *perm_name(unsigned perm)
{
	if (perm & BLK_PERM_WRITE) {
		return "write";
	}
	if (perm & BLK_PERM_RESIZE) {
		return "resize";
	}
	return perm & BLK_PERM_WRITE_UNCHANGED ? "rewrite" : "consistent read";
}

/* May u have these beside the node's other users? */
static int agree(const struct blk_user *u, unsigned perm, unsigned shared, struct err *err)
{
	const struct blk_node *n = u->node;
	const struct list *pos;

	if (perm & BLK_PERM_WRITE && n->info.read_only) {
		return err_set(err, EROFS,
			       "disk '%s' is read-only; open it writable or make the device "
			       "read-only",
			       n->name);
	}
	list_for_each (pos, &n->users) {
		const struct blk_user *o = list_entry(pos, const struct blk_user, link);
		unsigned mine = perm & ~o->shared, theirs = o->perm & ~shared;

		if (o == u) {
			continue;
		}
		if (mine || theirs) {
			return err_set(err, EBUSY,
				       "disk '%s' is in use by %s, which %s '%s'; use another "
				       "disk, or share it (share-rw=on) in both",
				       n->name, o->who,
				       mine ? "does not share" : "has and cannot give up",
				       perm_name(mine ? mine : theirs));
		}
	}
	return 0;
}

/* Read-only nodes below ask for no more than reading. */
static void format_perm(struct blk_node *n, bool backing, unsigned perm, unsigned shared,
			unsigned *cp, unsigned *cs)
{
	*cp = BLK_PERM_CONSISTENT_READ;
	*cs = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
	if (backing) {
		if (shared & BLK_PERM_WRITE) {
			*cs |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
		}
		return;
	}
	if (!n->info.read_only) {
		*cp |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
	}
	(void)perm;
}

static void child_perm(struct blk_user *edge, unsigned *cp, unsigned *cs)
{
	struct blk_node *n = edge->parent;

	if (n->drv->child_perm) {
		n->drv->child_perm(n, edge->role, n->perm, n->shared, cp, cs);
	} else if (n->drv->format || !strcmp(edge->role, "backing")) {
		format_perm(n, !strcmp(edge->role, "backing"), n->perm, n->shared, cp, cs);
	} else {
		*cp = n->perm;
		*cs = n->shared;
	}
	if (edge->node->opt.force_share) {
		*cs = BLK_PERM_ALL;
	}
}

static int user_change(struct blk_user *u, unsigned perm, unsigned shared, struct err *err);

/* Puts the children and locks in line with n's users. On failure some have changed. */
static int node_apply(struct blk_node *n, struct err *err)
{
	unsigned perm = 0, shared = BLK_PERM_ALL;
	struct list *pos;
	bool beyond = false;
	int r = 0;

	list_for_each (pos, &n->users) {
		struct blk_user *u = list_entry(pos, struct blk_user, link);

		perm |= u->perm;
		shared &= u->shared;
		if (u->parent && (u->parent->drv->format || u->parent->beyond)) {
			beyond = true;
		}
	}
	n->perm = perm;
	n->shared = shared;
	/* Requests may be under way: nothing is written that stays as it is. */
	if (n->beyond != beyond) {
		n->beyond = beyond;
	}
	if (n->grow != (beyond && n->can_grow && perm & BLK_PERM_RESIZE)) {
		n->grow = !n->grow;
	}
	list_for_each (pos, &n->edges) {
		struct blk_user *e = list_entry(pos, struct blk_user, edge);
		unsigned cp, cs;

		child_perm(e, &cp, &cs);
		r = user_change(e, cp, cs, err);
		if (r) {
			return r;
		}
	}
	return n->drv->set_perm ? n->drv->set_perm(n, perm, shared, err) : 0;
}

static int user_change(struct blk_user *u, unsigned perm, unsigned shared, struct err *err)
{
	unsigned old_perm = u->perm, old_shared = u->shared;
	int r;

	if (u->node->opt.force_share) {
		shared = BLK_PERM_ALL;
	}
	r = agree(u, perm, shared, err);
	if (r) {
		return r;
	}
	u->perm = perm;
	u->shared = shared;
	r = node_apply(u->node, err);
	if (r) {
		u->perm = old_perm;
		u->shared = old_shared;
		(void)node_apply(u->node, NULL);
	}
	return r;
}

int blk_perm_refresh(struct blk_node *n, struct err *err)
{
	return node_apply(n, err);
}

static struct blk_user *user_new(struct blk_node *n, const char *who)
{
	struct blk_user *u = calloc(1, sizeof(*u));

	if (u) {
		u->node = n;
		snprintf(u->who, sizeof(u->who), "%s", who);
		u->shared = BLK_PERM_ALL;
		list_init(&u->edge);
		list_add_tail(&n->users, &u->link);
		blk_ref(n);
	}
	return u;
}

static void user_free(struct blk_user *u)
{
	struct blk_node *n = u->node;

	list_del(&u->link);
	free(u);
	(void)node_apply(n, NULL); /* less is always granted */
	blk_unref(n);
}

int blk_attach(struct blk_node *n, const char *who, unsigned perm, unsigned shared,
	       const struct blk_user_ops *ops, void *opaque, struct blk_user **out,
	       struct err *err)
{
	struct blk_user *u = user_new(n, who);
	int r;

	if (!u) {
		return err_set(err, ENOMEM, "disk '%s': out of memory", n->name);
	}
	u->ops = ops;
	u->opaque = opaque;
	r = user_change(u, perm, shared, err);
	if (r) {
		user_free(u);
		return r;
	}
	*out = u;
	return 0;
}

int blk_user_set_perm(struct blk_user *u, unsigned perm, unsigned shared, struct err *err)
{
	return user_change(u, perm, shared, err);
}

void blk_detach(struct blk_user *u)
{
	if (u) {
		assert(!u->parent);
		user_free(u);
	}
}

struct blk_node *blk_user_node(const struct blk_user *u)
{
	return u->node;
}

/* --- edges --- */

struct blk_node *blk_parent(const struct blk_node *n)
{
	struct list *pos;

	list_for_each (pos, &n->users) {
		const struct blk_user *u = list_entry(pos, const struct blk_user, link);

		if (u->parent) {
			return u->parent;
		}
	}
	return NULL;
}

int blk_edge_new(struct blk_node *parent, const char *role, struct blk_node *child,
		 struct err *err)
{
	char who[96];
	struct blk_user *e;
	unsigned cp, cs;
	int r;

	snprintf(who, sizeof(who), "node '%.60s' (its %.15s)", parent->name, role);
	e = user_new(child, who);
	if (!e) {
		return err_set(err, ENOMEM, "disk '%s': out of memory", parent->name);
	}
	e->parent = parent;
	snprintf(e->role, sizeof(e->role), "%s", role);
	list_add_tail(&parent->edges, &e->edge);
	child_perm(e, &cp, &cs);
	r = user_change(e, cp, cs, err);
	if (r) {
		list_del(&e->edge);
		user_free(e);
	}
	return r;
}

void blk_edge_free(struct blk_user *edge)
{
	list_del(&edge->edge);
	user_free(edge);
}

void blk_tell_resized(struct blk_node *n)
{
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, &n->users) {
		struct blk_user *u = list_entry(pos, struct blk_user, link);

		if (!u->parent) {
			if (u->ops && u->ops->resized) {
				u->ops->resized(u->opaque);
			}
		} else if (u->parent->drv->child_resized) {
			u->parent->drv->child_resized(u->parent, n);
		} else if (u->parent->follows == n) {
			blk_tell_resized(u->parent);
		}
	}
}
