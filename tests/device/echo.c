/*
 * The echo device: see echo.h.
 */
#include "echo.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"

static uint64_t echo_features(struct virtio_dev *vd)
{
	(void)vd;
	return UINT64_C(1) << ECHO_F_REFUSED | UINT64_C(1) << 3;
}

static bool echo_features_ok(struct virtio_dev *vd, uint64_t features)
{
	(void)vd;
	return !(features >> ECHO_F_REFUSED & 1);
}

static void echo_config_read(struct virtio_dev *vd, unsigned off, void *buf, unsigned len)
{
	struct echo *e = echo_of(vd);

	assert(off + len <= ECHO_CONFIG);
	for (unsigned i = 0; i < len; i++) {
		((uint8_t *)buf)[i] = atomic_load(&e->config[off + i]);
	}
}

static void echo_config_write(struct virtio_dev *vd, unsigned off, const void *buf,
			      unsigned len)
{
	struct echo *e = echo_of(vd);

	assert(off + len <= ECHO_CONFIG);
	for (unsigned i = 0; i < len; i++) {
		atomic_store(&e->config[off + i], ((const uint8_t *)buf)[i]);
	}
	virtio_config_changed(vd);
}

static void req_finish(struct echo *e, struct virtq *q, struct echo_req *r)
{
	struct iov_cur in = iov_cur_init(r->c.iov + r->c.n_out, r->c.n_in);
	size_t done = 0;

	for (unsigned i = 0; i < r->c.n_out; i++) {
		done += iov_cur_write(&in, r->c.iov[i].iov_base, r->c.iov[i].iov_len);
	}
	virtq_push(q, &r->c, (uint32_t)done);
	atomic_fetch_add(&e->served, 1);
}

static void queue_release(void *arg)
{
	struct virtq *q = arg;
	struct echo *e = echo_of(q->vd);
	unsigned n = e->q[q->index].n;

	if (atomic_load(&e->hold) || !n) {
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		req_finish(e, q, &e->q[q->index].req[i]);
	}
	e->q[q->index].n = 0;
	atomic_fetch_sub(&e->held, n);
	virtq_notify(q);
	if (!virtq_running(q)) {
		virtq_stopped(q);
	}
}

static void echo_kick(struct virtq *q)
{
	struct echo *e = echo_of(q->vd);
	unsigned *n = &e->q[q->index].n;

	do {
		virtq_kicks_off(q);
		for (;;) {
			struct echo_req *r = &e->q[q->index].req[*n];

			if (*n == ECHO_QUEUE_SIZE ||
			    virtq_pop(q, &r->c, r->iov, ECHO_SEGS) <= 0) {
				break;
			}
			if (atomic_load(&e->hold)) {
				(*n)++;
				atomic_fetch_add(&e->held, 1);
			} else {
				req_finish(e, q, r);
			}
		}
		virtq_notify(q);
	} while (virtq_kicks_on(q) && *n < ECHO_QUEUE_SIZE);
}

static void echo_start(struct virtq *q)
{
	atomic_fetch_add(&echo_of(q->vd)->starts, 1);
}

static void echo_stop(struct virtq *q)
{
	struct echo *e = echo_of(q->vd);

	atomic_fetch_add(&e->stops, 1);
	if (!e->q[q->index].n) {
		virtq_stopped(q);
	}
}

static void echo_reset(struct virtio_dev *vd)
{
	struct echo *e = echo_of(vd);

	atomic_fetch_add(&e->resets, 1);
	for (unsigned i = 0; i < ECHO_QUEUES; i++) {
		assert(e->q[i].n == 0);
	}
}

static void echo_destroy(struct virtio_dev *vd)
{
	struct echo *e = echo_of(vd);

	if (e->destroyed) {
		*e->destroyed = true;
	}
	virtio_dev_fini(vd);
	for (unsigned i = 0; i < ECHO_QUEUES; i++) {
		loop_work_cancel(vd->vm->loop, &e->release_work[i]);
	}
	free(e);
}

struct echo_state {
	uint8_t config[ECHO_CONFIG];
};
static const struct state_field echo_fields[] = {
	STATE_F_BYTES(struct echo_state, config),
	STATE_F_END,
};
static const struct state_desc echo_state_desc = {
	.name = "virtio-echo",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct echo_state),
	.fields = echo_fields,
};

static int echo_save(struct virtio_dev *vd, void *st, struct err *err)
{
	struct echo_state *s = st;

	(void)err;
	echo_config_read(vd, 0, s->config, ECHO_CONFIG);
	return 0;
}

static int echo_load(struct virtio_dev *vd, const void *st, struct err *err)
{
	const struct echo_state *s = st;
	struct echo *e = echo_of(vd);

	(void)err;
	for (unsigned i = 0; i < ECHO_CONFIG; i++) {
		atomic_store(&e->config[i], s->config[i]);
	}
	return 0;
}

static const struct virtio_ops echo_ops = {
	.name = "virtio-echo",
	.device_id = 42,
	.pci_class = 0x00ff00,
	.config_len = ECHO_CONFIG,
	.features = echo_features,
	.features_ok = echo_features_ok,
	.config_read = echo_config_read,
	.config_write = echo_config_write,
	.queue_start = echo_start,
	.queue_kick = echo_kick,
	.queue_stop = echo_stop,
	.reset = echo_reset,
	.destroy = echo_destroy,
	.state = &echo_state_desc,
	.save = echo_save,
	.load = echo_load,
};

struct echo *echo_new(struct vm *vm, const char *id, struct loop *loop)
{
	struct echo *e = calloc(1, sizeof(*e));
	int r;

	assert(e);
	r = virtio_dev_init(&e->vd, vm, &echo_ops, id, ECHO_QUEUES, ECHO_QUEUE_SIZE, loop);
	assert(r == 0);
	for (unsigned i = 0; i < ECHO_QUEUES; i++) {
		e->release_work[i] =
			(struct loop_work){.fn = queue_release, .arg = &e->vd.queue[i]};
	}
	return e;
}

void echo_release(struct echo *e)
{
	atomic_store(&e->hold, false);
	for (unsigned i = 0; i < ECHO_QUEUES; i++) {
		loop_post(e->vd.queue[i].loop, &e->release_work[i]);
	}
}

/* --- the rig --- */

void echo_rig_init_io(struct echo_rig *f, bool iothread, unsigned ram_high_mib)
{
	rig_init(&f->r, iothread, ram_high_mib);
	f->e = echo_new(&f->r.fv->vm, "echo0", f->r.iothread);
	rig_add(&f->r, &f->e->vd, "echo0");
	f->out = vdrv_alloc(&f->r.d, 4096, 4096);
	f->in = vdrv_alloc(&f->r.d, 4096, 4096);
}

void echo_rig_init(struct echo_rig *f)
{
	echo_rig_init_io(f, false, 0);
}

void echo_rig_fini(struct echo_rig *f)
{
	echo_release(f->e);
	rig_fini(&f->r);
}

bool echo_request(struct echo_rig *f, unsigned i, unsigned flags)
{
	struct vdrv *d = &f->r.d;
	struct vdrv_seg seg[2] = {{f->out, ECHO_DATA}, {f->in, ECHO_DATA}};
	uint8_t *out = vdrv_ptr(d, f->out, ECHO_DATA), *in = vdrv_ptr(d, f->in, ECHO_DATA);
	uint16_t head;
	uint32_t len;
	int h;

	for (unsigned k = 0; k < ECHO_DATA; k++) {
		out[k]++;
		in[k] = 0;
	}
	h = vdrv_add(&d->q[i], seg, 1, 1, flags);
	if (h < 0) {
		return false;
	}
	vdrv_kick(&d->q[i]);
	return vdrv_wait(&d->q[i], &head, &len) && head == (uint16_t)h && len == ECHO_DATA &&
	       memcmp(in, out, ECHO_DATA) == 0;
}
