/*
 * The life of devices: the list of a machine, pause and drain, reset, save and load.
 *
 * Pausing: `pausing` counts devices whose device_paused() is outstanding, plus one while the
 * list is being walked, so that all_paused() is called exactly once, after the last device,
 * even if every device answers at once. A device that is paused already is left alone.
 *
 * Loading takes two passes: every section of every device is decoded and validated before the
 * first device takes anything over, so a bad stream leaves the devices as they were (unless a
 * device finds fault with a state that is valid in itself).
 *
 * Thread: the control loop.
 */
#include "core/device.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void device_list_init(struct device_list *l)
{
	*l = (struct device_list){0};
	list_init(&l->devices);
}

struct device *device_find(struct device_list *l, const char *id)
{
	struct list *n;

	list_for_each(n, &l->devices) {
		struct device *d = list_entry(n, struct device, node);

		if (strcmp(d->id, id) == 0) {
			return d;
		}
	}
	return NULL;
}

int device_add(struct device_list *l, struct device *d, const struct device_ops *ops,
	       const char *id, struct err *err)
{
	size_t len = strlen(id);

	if (len == 0 || len >= sizeof(d->id)) {
		return err_set(err, EINVAL, "device id '%.80s': use 1 to %zu characters", id,
			       sizeof(d->id) - 1);
	}
	if (device_find(l, id)) {
		return err_set(err, EEXIST, "there is a device '%s' already: choose another id",
			       id);
	}
	d->ops = ops;
	d->list = l;
	d->paused = false;
	memcpy(d->id, id, len + 1);
	list_add_tail(&l->devices, &d->node);
	return 0;
}

void device_remove(struct device *d)
{
	if (d->list) {
		list_del(&d->node);
		d->list = NULL;
	}
}

static void list_pause_done(struct device_list *l)
{
	void (*fn)(void *) = l->all_paused;

	assert(l->pausing > 0);
	if (--l->pausing == 0) {
		l->all_paused = NULL;
		fn(l->opaque);
	}
}

void device_paused(struct device *d)
{
	assert(!d->paused);
	d->paused = true;
	list_pause_done(d->list);
}

void device_list_pause(struct device_list *l, void (*all_paused)(void *), void *opaque)
{
	struct list *n;

	assert(l->pausing == 0);
	l->all_paused = all_paused;
	l->opaque = opaque;
	l->pausing = 1;
	list_for_each(n, &l->devices) {
		struct device *d = list_entry(n, struct device, node);

		if (d->paused) {
			continue;
		}
		l->pausing++;
		if (d->ops->pause) {
			d->ops->pause(d);
		} else {
			device_paused(d);
		}
	}
	list_pause_done(l);
}

void device_list_resume(struct device_list *l)
{
	struct list *n;

	assert(l->pausing == 0);
	list_for_each(n, &l->devices) {
		struct device *d = list_entry(n, struct device, node);

		if (!d->paused) {
			continue;
		}
		d->paused = false;
		if (d->ops->resume) {
			d->ops->resume(d);
		}
	}
}

void device_list_reset(struct device_list *l)
{
	struct list *n;

	list_for_each(n, &l->devices) {
		struct device *d = list_entry(n, struct device, node);

		if (d->ops->reset) {
			d->ops->reset(d);
		}
	}
}

void device_list_destroy(struct device_list *l)
{
	while (!list_empty(&l->devices)) {
		struct device *d = list_entry(l->devices.prev, struct device, node);

		device_remove(d);
		if (d->ops->destroy) {
			d->ops->destroy(d);
		}
	}
}

int device_list_save(struct device_list *l, struct state_out *o, struct err *err)
{
	struct list *n;

	list_for_each(n, &l->devices) {
		struct device *d = list_entry(n, struct device, node);
		const struct device_state_ops *const *s = d->ops->state;

		for (; s && *s; s++) {
			void *st = calloc(1, (*s)->desc->size);
			int rc = st ? (*s)->save(d, st, err)
				    : err_set(err, ENOMEM, "out of memory for the state");

			if (rc == 0) {
				rc = state_put(o, (*s)->desc, d->id, st);
				if (rc < 0) {
					err_set(err, -rc, "cannot encode the state: %s",
						strerror(-rc));
				}
			}
			free(st);
			if (rc < 0) {
				err_prefix(err, "%s", d->id);
				return rc;
			}
		}
	}
	return 0;
}

/* A decoded section that waits until all are decoded. */
struct loaded {
	struct device *d;
	const struct device_state_ops *ops;
	void *st;
	struct list node;
};

static int load_decode(struct device *d, const struct device_state_ops *ops,
		       struct state_in *in, struct list *done, struct err *err)
{
	struct loaded *ld = calloc(1, sizeof(*ld));
	int rc;

	if (!ld) {
		return err_set(err, ENOMEM, "out of memory for the state");
	}
	ld->d = d;
	ld->ops = ops;
	list_add_tail(done, &ld->node);
	ld->st = calloc(1, ops->desc->size);
	if (!ld->st) {
		return err_set(err, ENOMEM, "out of memory for the state");
	}
	rc = state_get(in, ops->desc, d->id, ld->st, err);
	if (rc == -ENOENT) {
		err_set(err, ENOENT,
			"the saved state has no section '%s': it is of another machine",
			ops->desc->name);
	}
	return rc;
}

int device_list_load(struct device_list *l, struct state_in *in, struct err *err)
{
	struct list decoded, *n, *tmp;
	int rc = 0;

	list_init(&decoded);
	list_for_each(n, &l->devices) {
		struct device *d = list_entry(n, struct device, node);
		const struct device_state_ops *const *s = d->ops->state;

		for (; s && *s; s++) {
			rc = load_decode(d, *s, in, &decoded, err);
			if (rc < 0) {
				err_prefix(err, "%s", d->id);
				goto free_decoded;
			}
		}
	}
	list_for_each(n, &decoded) {
		struct loaded *ld = list_entry(n, struct loaded, node);

		rc = ld->ops->load(ld->d, ld->st, err);
		if (rc < 0) {
			err_prefix(err, "%s", ld->d->id);
			goto free_decoded;
		}
	}

free_decoded:
	list_for_each_safe(n, tmp, &decoded) {
		struct loaded *ld = list_entry(n, struct loaded, node);

		free(ld->st);
		free(ld);
	}
	return rc;
}
