/*
 * Errors of disks on their way from the loop of a queue to the listeners on the control loop.
 *
 * A disk that fails does so for every request. What is not delivered yet is bounded, and an
 * error like the last one is counted with it; so a guest that goes on asking cannot make more
 * of them than listeners take.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"
#include "device/virtio/blk.h"
#include "machine/machine_int.h"

#define MAX_PENDING 32

struct disk_errors {
	struct machine *m;
	pthread_mutex_t lock; /* what follows */
	struct machine_block_error pending[MAX_PENDING];
	unsigned count;
	struct loop_work work;
};

static void drive_name(const struct machine *m, struct machine_block_error *e)
{
	for (size_t i = 0; i < m->be.nblk; i++) {
		const struct named_blk *b = &m->be.blk[i];

		if (b->drive && !strcmp(blk_name(b->node), e->node)) {
			snprintf(e->drive, sizeof(e->drive), "%s", b->id);
		}
	}
}

/* On the control loop. */
static void deliver(void *arg)
{
	struct disk_errors *d = arg;
	struct machine_block_error now[MAX_PENDING];
	struct list *pos, *tmp;
	unsigned n;

	pthread_mutex_lock(&d->lock);
	n = d->count;
	memcpy(now, d->pending, n * sizeof(now[0]));
	d->count = 0;
	pthread_mutex_unlock(&d->lock);
	for (unsigned i = 0; i < n; i++) {
		drive_name(d->m, &now[i]);
		list_for_each_safe (pos, tmp, &d->m->listeners) {
			struct machine_listener *l = list_entry(pos, struct machine_listener, node);

			if (l->block_error) {
				l->block_error(l->opaque, &now[i]);
			}
		}
	}
}

static bool same(const struct machine_block_error *a, const struct machine_block_error *b)
{
	return !strcmp(a->device, b->device) && a->read == b->read && a->error == b->error &&
	       a->action == b->action;
}

void disk_errors_add(void *opaque, const struct virtio_blk_error *e)
{
	static const char *const actions[] = {
		[VIRTIO_BLK_REPORT] = "report",
		[VIRTIO_BLK_IGNORE] = "ignore",
		[VIRTIO_BLK_STOP] = "stop",
	};
	struct disk_errors *d = opaque;
	struct machine_block_error one = {
		.read = e->read, .error = -e->error, .action = actions[e->action]};

	snprintf(one.device, sizeof(one.device), "%s", e->device);
	snprintf(one.node, sizeof(one.node), "%s", blk_name(e->node));
	pthread_mutex_lock(&d->lock);
	if (d->count < MAX_PENDING && !(d->count && same(&d->pending[d->count - 1], &one))) {
		d->pending[d->count++] = one;
	}
	pthread_mutex_unlock(&d->lock);
	loop_post(d->m->vm.loop, &d->work);
}

int disk_errors_new(struct machine *m, struct disk_errors **out)
{
	struct disk_errors *d = calloc(1, sizeof(*d));

	if (!d) {
		return -ENOMEM;
	}
	d->m = m;
	d->work = (struct loop_work){.fn = deliver, .arg = d};
	pthread_mutex_init(&d->lock, NULL);
	*out = d;
	return 0;
}

void disk_errors_free(struct disk_errors *d)
{
	if (d) {
		loop_work_cancel(d->m->vm.loop, &d->work);
		pthread_mutex_destroy(&d->lock);
		free(d);
	}
}
