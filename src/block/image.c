/*
 * Images as tools see them: asks the driver, and says what it has not. See image.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/block_int.h"

static int none(const struct blk_node *n, const char *what, struct err *err)
{
	return err_set(err, ENOTSUP, "an image of format '%s' has no %s", n->drv->name, what);
}

static int driver_of(const char *name, const struct blk_driver **out, struct err *err)
{
	*out = blk_driver_find(name);
	return *out ? 0 : err_set(err, ENOTSUP, "there is no image format '%s'", name);
}

int blk_image_create(struct blk_graph *g, const char *driver, struct blk_node *file,
		     struct opts *o, struct err *err)
{
	const struct blk_driver *d;
	int r = driver_of(driver, &d, err);

	if (r) {
		return r;
	}
	return d->create ? d->create(g, file, o, err)
			 : err_set(err, ENOTSUP, "no image of format '%s' can be made", driver);
}

int blk_image_measure(const char *driver, struct opts *o, struct blk_node *content,
		      struct blk_measure *out, struct err *err)
{
	const struct blk_driver *d;
	int r = driver_of(driver, &d, err);

	if (r) {
		return r;
	}
	return d->measure ? d->measure(o, content, out, err)
			  : err_set(err, ENOTSUP,
				    "how large images of format '%s' get is not known", driver);
}

int blk_image_backing(struct blk_node *n, char **file, char **fmt, struct err *err)
{
	*file = *fmt = NULL;
	return n->drv->backing_name ? n->drv->backing_name(n, file, fmt, err) : 0;
}

int blk_image_set_backing(struct blk_node *n, const char *file, const char *fmt, struct err *err)
{
	return n->drv->set_backing ? n->drv->set_backing(n, file, fmt, err)
				   : none(n, "backing file", err);
}

int blk_image_empty(struct blk_node *n, struct err *err)
{
	return n->drv->make_empty ? n->drv->make_empty(n, err) : none(n, "backing file", err);
}

int blk_image_specific(struct blk_node *n, json_t **out, struct err *err)
{
	*out = NULL;
	return n->drv->specific_info ? n->drv->specific_info(n, out, err) : 0;
}

bool blk_image_dirty(struct blk_node *n)
{
	return n->drv->dirty && n->drv->dirty(n);
}

bool blk_image_can_check(const struct blk_node *n)
{
	return n->drv->check != NULL;
}

int blk_image_check(struct blk_node *n, struct blk_check *out, unsigned fix, struct err *err)
{
	return n->drv->check ? n->drv->check(n, out, fix, err) : none(n, "check", err);
}

int blk_image_snapshots(struct blk_node *n, struct blk_snapshot **out, size_t *count,
			struct err *err)
{
	*out = NULL;
	*count = 0;
	return n->drv->snapshot_list ? n->drv->snapshot_list(n, out, count, err) : 0;
}

void blk_image_snapshots_free(struct blk_snapshot *s, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(s[i].id);
		free(s[i].name);
	}
	free(s);
}

int blk_image_snapshot_create(struct blk_node *n, const char *name, struct err *err)
{
	return n->drv->snapshot_create ? n->drv->snapshot_create(n, name, err)
				       : none(n, "snapshots", err);
}

int blk_image_snapshot_apply(struct blk_node *n, const char *id_or_name, struct err *err)
{
	return n->drv->snapshot_apply ? n->drv->snapshot_apply(n, id_or_name, err)
				      : none(n, "snapshots", err);
}

int blk_image_snapshot_delete(struct blk_node *n, const char *id_or_name, struct err *err)
{
	return n->drv->snapshot_delete ? n->drv->snapshot_delete(n, id_or_name, err)
				       : none(n, "snapshots", err);
}

int blk_image_snapshot_load(struct blk_node *n, const char *id_or_name, struct err *err)
{
	return n->drv->snapshot_load ? n->drv->snapshot_load(n, id_or_name, err)
				     : none(n, "snapshots", err);
}

struct blk_packer *blk_image_packer(struct blk_node *n)
{
	return n->drv->packer(n);
}

bool blk_image_can_compress(const struct blk_node *n)
{
	return n->drv->packer && n->drv->write_compressed;
}

int blk_image_write_compressed(struct blk_node *n, const struct blk_packed *p, unsigned count)
{
	return n->drv->write_compressed(n, p, count);
}
