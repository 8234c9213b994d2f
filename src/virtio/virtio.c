/*
 * A virtio device's life: status, features, queues. Virtio 1.2, chapters 2 and 3.
 *
 * A queue's states (q->run):
 *
 *          queue_run()               queue_stop()                virtq_stopped()
 *   STOPPED ─────────────▶ RUNNING ──────────────────▶ STOPPING ─────────────────▶ STOPPED
 *
 * The first two steps are taken by the control loop, which calls over to the queue's loop; the
 * last one happens on the queue's loop, at once or when the last request in flight is done, and
 * is then posted back. stop_check() on the control loop acts on it: it ends a queue reset, and
 * when no queue is left, a device reset or a pause. No loop ever waits for I/O.
 *
 * Invariants:
 * 1. a queue runs only while DRIVER_OK is set, it is enabled, and the device is neither paused
 *    nor resetting;
 * 2. vd->stopping counts the queues with `awaited` set; device_paused() is called once for
 *    each virtio_pause(), after that count is zero;
 * 3. status bits are only ever added by the driver; only a reset clears them.
 *
 * Threads: the control loop, except virtio_broken(), virtio_get_status() and virtq_stopped().
 * Untrusted: every value the driver writes through the transport.
 */
#include "virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "spec/virtio.h"
#include "virtio/trace.h"

#define STATUS_DRIVER_BITS                                                                     \
	(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |        \
	 VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FAILED)

#define FEATURE(bit) (UINT64_C(1) << (bit))

uint8_t virtio_get_status(struct virtio_dev *vd)
{
	return atomic_load(&vd->status);
}

static bool is_broken(struct virtio_dev *vd)
{
	return atomic_load(&vd->broken);
}

/* --- a queue on its loop --- */

/* #syscalls(main, io): read */
static void queue_kicked(void *opaque, uint32_t events)
{
	struct virtq *q = opaque;
	uint64_t n;

	(void)events;
	/* Only resets the counter; nothing to read means that it was not signalled. */
	if (read(q->kick_fd, &n, sizeof(n)) < 0) {
		return;
	}
	if (virtq_running(q)) {
		trace_virtq_kick(q->vd->name, q->index);
		q->vd->ops->queue_kick(q);
	}
}

static void queue_run_on_loop(void *arg)
{
	struct virtq *q = arg;
	int r = loop_fd_add(q->loop, &q->kick_watch, q->kick_fd, EPOLLIN, queue_kicked, q);

	if (r < 0) {
		virtio_broken(q->vd, "queue %u: cannot watch the doorbell (%s)", q->index,
			      strerror(-r));
		return;
	}
	atomic_store(&q->run, VIRTQ_RUNNING);
	virtq_kicks_on(q);
	if (q->vd->ops->queue_start) {
		q->vd->ops->queue_start(q);
	}
	/* What the driver made available before, or while the device was paused. */
	q->vd->ops->queue_kick(q);
}

static void queue_stop_on_loop(void *arg)
{
	struct virtq *q = arg;

	loop_fd_del(&q->kick_watch);
	atomic_store(&q->run, VIRTQ_STOPPING);
	q->in_stop = true;
	if (q->vd->ops->queue_stop) {
		q->vd->ops->queue_stop(q);
	} else {
		virtq_stopped(q);
	}
	q->in_stop = false;
}

void virtq_stopped(struct virtq *q)
{
	bool posted = !q->in_stop;
	struct virtio_dev *vd = q->vd;

	assert(atomic_load(&q->run) == VIRTQ_STOPPING && q->inflight == 0);
	atomic_store(&q->run, VIRTQ_STOPPED);
	/* Inside queue_stop() the control loop is waiting and looks by itself. */
	if (posted) {
		loop_post(vd->vm->loop, &vd->stopped_work);
	}
}

/* --- a queue as the control loop sees it --- */

static void queue_run(struct virtq *q)
{
	struct virtio_dev *vd = q->vd;

	if (!q->enabled || q->resetting || vd->paused || vd->resetting || is_broken(vd) ||
	    !(virtio_get_status(vd) & VIRTIO_STATUS_DRIVER_OK) ||
	    atomic_load(&q->run) != VIRTQ_STOPPED) {
		return;
	}
	if (virtq_map(q) < 0) {
		virtio_broken(vd, "queue %u: its rings have an impossible size or are not in guest memory",
			      q->index);
		return;
	}
	loop_call(q->loop, queue_run_on_loop, q);
}

static void queue_stop(struct virtq *q)
{
	if (atomic_load(&q->run) != VIRTQ_RUNNING) {
		return;
	}
	q->awaited = true;
	q->vd->stopping++;
	loop_call(q->loop, queue_stop_on_loop, q);
}

static void reset_finish(struct virtio_dev *vd)
{
	for (unsigned i = 0; i < vd->nqueues; i++) {
		virtq_defaults(&vd->queue[i]);
	}
	vd->acked = 0;
	if (vd->ops->features_set) {
		vd->ops->features_set(vd, 0);
	}
	/* another thread may be about to send a configuration interrupt */
	__atomic_store_n(&vd->config_vector, VIRTIO_NO_VECTOR, __ATOMIC_RELAXED);
	vd->resetting = false;
	if (vd->ops->reset) {
		vd->ops->reset(vd);
	}
	atomic_store(&vd->broken, false);
	atomic_store(&vd->status, 0);
}

/* Acts on queues that have stopped. */
static void stop_check(void *arg)
{
	struct virtio_dev *vd = arg;

	for (unsigned i = 0; i < vd->nqueues; i++) {
		struct virtq *q = &vd->queue[i];

		if (q->awaited && atomic_load(&q->run) == VIRTQ_STOPPED) {
			q->awaited = false;
			vd->stopping--;
		}
		if (q->resetting && !q->awaited) {
			virtq_defaults(q);
		}
	}
	if (vd->stopping) {
		return;
	}
	if (vd->resetting) {
		reset_finish(vd);
	}
	if (vd->pausing) {
		vd->pausing = false;
		device_paused(vd->dev);
	}
}

static void stop_all(struct virtio_dev *vd)
{
	for (unsigned i = 0; i < vd->nqueues; i++) {
		queue_stop(&vd->queue[i]);
	}
	stop_check(vd);
}

static void run_all(struct virtio_dev *vd)
{
	for (unsigned i = 0; i < vd->nqueues; i++) {
		queue_run(&vd->queue[i]);
	}
}

/* --- broken devices --- */

static void broken_on_control(void *arg)
{
	struct virtio_dev *vd = arg;
	uint8_t old;

	if (!is_broken(vd)) {
		return; /* reset meanwhile */
	}
	old = atomic_fetch_or(&vd->status, VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	if (!(old & VIRTIO_STATUS_DEVICE_NEEDS_RESET) && (old & VIRTIO_STATUS_DRIVER_OK)) {
		virtio_config_changed(vd);
	}
}

void virtio_broken(struct virtio_dev *vd, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	if (atomic_exchange(&vd->broken, true)) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_guest(vd->name, "%s; the device stands still until its driver resets it", text);
	loop_post(vd->vm->loop, &vd->broken_work);
}

void virtio_config_changed(struct virtio_dev *vd)
{
	atomic_fetch_add(&vd->config_generation, 1);
	if (vd->transport && (virtio_get_status(vd) & VIRTIO_STATUS_DRIVER_OK)) {
		vd->transport->notify_config(vd);
	}
}

/* --- what the transport asks --- */

static bool features_fit(struct virtio_dev *vd)
{
	if (vd->acked & ~vd->offered) {
		return false;
	}
	/* 6.1: modern devices only; every transport here is. */
	if (!(vd->acked & FEATURE(VIRTIO_F_VERSION_1))) {
		return false;
	}
	return !vd->ops->features_ok || vd->ops->features_ok(vd, vd->acked);
}

void virtio_set_features(struct virtio_dev *vd, uint64_t features)
{
	if (vd->resetting || (virtio_get_status(vd) & VIRTIO_STATUS_FEATURES_OK)) {
		return; /* settled (3.1.1) */
	}
	if ((vd->acked ^ features) & FEATURE(VIRTIO_F_RING_PACKED)) {
		for (unsigned i = 0; i < vd->nqueues; i++) {
			/* one that was chosen for the other kind may be impossible now */
			vd->queue[i].size = vd->queue[i].max_size;
		}
	}
	vd->acked = features;
}

void virtio_set_status(struct virtio_dev *vd, uint8_t status)
{
	uint8_t old = virtio_get_status(vd);

	trace_virtio_set_status(vd->name, status);
	if (status == 0) {
		if (!vd->resetting) {
			vd->resetting = true;
			stop_all(vd);
		}
		return;
	}
	if (vd->resetting) {
		log_guest(vd->name, "the driver does not wait for the end of its reset");
		return;
	}
	status = (status & STATUS_DRIVER_BITS) | old;
	if ((status & ~old & VIRTIO_STATUS_FEATURES_OK) && !features_fit(vd)) {
		status &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
	}
	if ((status & ~old & VIRTIO_STATUS_FEATURES_OK) && vd->ops->features_set) {
		vd->ops->features_set(vd, vd->acked);
	}
	if ((status & ~old & VIRTIO_STATUS_DRIVER_OK) &&
	    !(status & VIRTIO_STATUS_FEATURES_OK)) {
		status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
		virtio_broken(vd, "DRIVER_OK before FEATURES_OK");
	}
	atomic_store(&vd->status, status);
	if (status & ~old & VIRTIO_STATUS_DRIVER_OK) {
		run_all(vd);
	}
}

void virtio_queue_enable(struct virtq *q)
{
	if (q->enabled || q->resetting || q->vd->resetting) {
		return;
	}
	q->enabled = true;
	queue_run(q);
}

void virtio_queue_reset(struct virtq *q)
{
	struct virtio_dev *vd = q->vd;

	if (!virtio_has(vd, VIRTIO_F_RING_RESET) || q->resetting || vd->resetting) {
		return;
	}
	q->resetting = true;
	queue_stop(q);
	stop_check(vd);
}

bool virtio_queue_resetting(const struct virtq *q)
{
	return q->resetting;
}

void virtio_pause(struct virtio_dev *vd)
{
	assert(!vd->paused);
	vd->paused = true;
	vd->pausing = true;
	stop_all(vd);
}

void virtio_resume(struct virtio_dev *vd)
{
	assert(vd->paused && !vd->pausing);
	vd->paused = false;
	run_all(vd);
}

void virtio_reset(struct virtio_dev *vd)
{
	assert(vd->stopping == 0);
	reset_finish(vd);
}

/* --- making and freeing --- */

/* #syscalls(main): eventfd2 close */
int virtio_dev_init(struct virtio_dev *vd, struct vm *vm, const struct virtio_ops *ops,
		    const char *name, unsigned nqueues, uint16_t max_size, struct loop *loop)
{
	int r;

	assert(nqueues <= VIRTIO_MAX_QUEUES && is_pow2(max_size) && max_size <= VIRTQ_MAX_SIZE);
	vd->ops = ops;
	vd->vm = vm;
	snprintf(vd->name, sizeof(vd->name), "%s", name);
	vd->nqueues = 0;
	vd->stopped_work = (struct loop_work){.fn = stop_check, .arg = vd};
	vd->broken_work = (struct loop_work){.fn = broken_on_control, .arg = vd};
	for (unsigned i = 0; i < nqueues; i++) {
		struct virtq *q = &vd->queue[i];

		q->vd = vd;
		q->index = i;
		q->loop = loop ? loop : vm->loop;
		q->max_size = max_size;
		virtq_defaults(q);
		q->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (q->kick_fd < 0) {
			r = -errno;
			goto close_fds;
		}
		vd->nqueues++;
	}
	vd->config_vector = VIRTIO_NO_VECTOR;
	vd->offered = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_INDIRECT_DESC) |
		      FEATURE(VIRTIO_F_EVENT_IDX) | FEATURE(VIRTIO_F_RING_RESET) |
		      ops->features(vd);
	return 0;

close_fds:
	virtio_dev_fini(vd);
	return r;
}

void virtio_queue_loop(struct virtio_dev *vd, unsigned queue, struct loop *loop)
{
	assert(queue < vd->nqueues && atomic_load(&vd->queue[queue].run) == VIRTQ_STOPPED);
	vd->queue[queue].loop = loop ? loop : vd->vm->loop;
}

void virtio_queue_size(struct virtio_dev *vd, unsigned queue, uint16_t size)
{
	assert(queue < vd->nqueues && atomic_load(&vd->queue[queue].run) == VIRTQ_STOPPED);
	assert(is_pow2(size) && size <= VIRTQ_MAX_SIZE);
	vd->queue[queue].max_size = size;
	virtq_defaults(&vd->queue[queue]);
}

void virtio_offer_packed(struct virtio_dev *vd)
{
	vd->offered |= FEATURE(VIRTIO_F_RING_PACKED);
}

static void queue_left(void *arg)
{
	(void)arg;
}

/* #syscalls(main): close */
void virtio_dev_fini(struct virtio_dev *vd)
{
	for (unsigned i = 0; i < vd->nqueues; i++) {
		assert(atomic_load(&vd->queue[i].run) == VIRTQ_STOPPED);
		/* Its loop may still be in the last line of virtq_stopped(). */
		loop_call(vd->queue[i].loop, queue_left, NULL);
		close(vd->queue[i].kick_fd);
	}
	vd->nqueues = 0;
	loop_work_cancel(vd->vm->loop, &vd->stopped_work);
	loop_work_cancel(vd->vm->loop, &vd->broken_work);
}
