/*
 * The life of a device: one table row per class, one struct device per instance.
 *
 * Pause and drain is one protocol, used by stop, save, reset and (later) unplug:
 *   vCPUs are paused first, then every device gets pause(): it takes no new request from its
 *   queues, lets what is in flight finish, and calls device_paused() when nothing is left.
 *   resume() picks the queues up again (whatever was kicked meanwhile included).
 * All functions here run on the control loop. State is saved and loaded while paused.
 */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/opts.h"
#include "base/util.h"
#include "state/state.h"

struct device;

struct device_state_ops {
	const struct state_desc *desc;
	/* st is desc->size bytes, zeroed (save) or decoded and validated (load). */
	int (*save)(struct device *d, void *st, struct err *err);
	int (*load)(struct device *d, const void *st, struct err *err);
};

struct device_ops {
	const char *name; /* class: "virtio-blk-pci" */
	void (*reset)(struct device *d);
	/* NULL pause: nothing in flight, ever. Must end in exactly one device_paused(), which
	 * may happen before pause() returns. */
	void (*pause)(struct device *d);
	void (*resume)(struct device *d);
	void (*destroy)(struct device *d); /* frees; paused or never started */
	const struct device_state_ops *const *state; /* NULL-terminated; NULL: stateless */
};

struct device_list;
struct device {
	const struct device_ops *ops;
	char id[64]; /* unique in the machine: user's id= or "class#n"; the state instance */
	struct device_list *list;
	bool paused;
	struct list node;
};

/* Every device of a machine, in order of creation. */
struct device_list {
	struct list devices;
	unsigned pausing; /* devices whose device_paused() is outstanding */
	void (*all_paused)(void *opaque);
	void *opaque;
};

void device_list_init(struct device_list *l);
/* -EEXIST with a sentence if the id is taken. */
int device_add(struct device_list *l, struct device *d, const struct device_ops *ops,
	       const char *id, struct err *err);
void device_remove(struct device *d); /* unlinks only */
struct device *device_find(struct device_list *l, const char *id);
/* Pauses all; all_paused(opaque) is called once, possibly before this returns. */
void device_list_pause(struct device_list *l, void (*all_paused)(void *), void *opaque);
void device_list_resume(struct device_list *l);
void device_list_reset(struct device_list *l);
void device_paused(struct device *d); /* by the device, once per pause(), control loop */
void device_list_destroy(struct device_list *l); /* in reverse order */
int device_list_save(struct device_list *l, struct state_out *o, struct err *err);
int device_list_load(struct device_list *l, struct state_in *in, struct err *err);

#endif
