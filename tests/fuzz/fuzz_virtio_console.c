/*
 * virtio-console with two ports on socket pairs, whose far ends read, write, stop and leave as the
 * input says.
 *
 * #covers: src/device/virtio/console.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chardev/chr_int.h"
#include "device/virtio/console.h"
#include "fuzz/vfuzz.h"
#include "spec/virtio_console.h"

#define PORTS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct priv {
	struct chr *chr[PORTS];
	int peer[PORTS];
};

static void peer_connect(struct priv *p, unsigned i)
{
	int sv[2], rc;

	if (p->peer[i] >= 0 || chr_connected(p->chr[i])) {
		return;
	}
	rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv);
	assert(rc == 0);
	rc = chr_connect(p->chr[i], sv[0], sv[0]);
	assert(rc == 0);
	p->peer[i] = sv[1];
}

static void peer_leave(struct vfuzz *w, unsigned i)
{
	struct priv *p = w->priv;

	if (p->peer[i] >= 0) {
		close(p->peer[i]);
		p->peer[i] = -1;
		fake_vm_settle(w->r.fv);
	}
}

static struct virtio_dev *create(struct vfuzz *w)
{
	struct virtio_serial_config c = {.max_ports = 3};
	struct priv *p = calloc(1, sizeof(*p));
	struct virtio_dev *vd;
	struct err err;
	int rc = virtio_serial_new(&w->r.fv->vm, &c, "fuzz0", &vd, &err);

	assert(p && rc == 0);
	w->priv = p;
	for (unsigned i = 0; i < PORTS; i++) {
		struct virtio_port_config pc = {
			.console = i == 0, .name = "org.example", .nr = UINT32_MAX};

		rc = chr_new(w->r.fv->vm.loop, i ? "c1" : "c0", CHR_SOCKET, &p->chr[i], &err);
		assert(rc == 0);
		p->peer[i] = -1;
		peer_connect(p, i);
		pc.chr = p->chr[i];
		rc = virtio_serial_add_port(vd, &pc, &err);
		assert(rc == 0);
	}
	return vd;
}

static void release(struct vfuzz *w)
{
	(void)w; /* a chain that waits for its peer goes back into the ring */
}

static void control(struct vfuzz *w, uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control m = {le32_of(id), le16_of(event), le16_of(value)};
	struct vdrv_queue *q = &w->r.d.q[VIRTIO_CONSOLE_Q_CTRL_TX];

	memcpy(vdrv_ptr(&w->r.d, w->data + 65000, sizeof(m)), &m, sizeof(m));
	vdrv_add(q, (struct vdrv_seg[]){{w->data + 65000, sizeof(m)}}, 1, 0, 0);
	vdrv_kick(q);
	fake_vm_settle(w->r.fv);
}

static void device_op(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct priv *p = w->priv;
	unsigned i = op->arg >> 3 & 1, n = op->value % 60000u;
	char buf[4096];

	switch (op->arg & 7) {
	case 0:
		memset(buf, 'p', sizeof(buf));
		if (p->peer[i] >= 0 &&
		    send(p->peer[i], buf, n % sizeof(buf), MSG_NOSIGNAL) < 0) {
			break; /* full */
		}
		fake_vm_settle(w->r.fv);
		break;
	case 1:
		for (unsigned k = 0; p->peer[i] >= 0 && k < op->index % 64u; k++) {
			if (read(p->peer[i], buf, sizeof(buf)) <= 0) {
				break;
			}
		}
		fake_vm_settle(w->r.fv);
		break;
	case 2:
		peer_leave(w, i);
		break;
	case 3:
		peer_connect(p, i);
		break;
	case 4:
		control(w, op->value, op->index & 7, op->arg >> 7);
		break;
	case 5:
		vdrv_add(&w->r.d.q[i ? 5 : 1],
			 (struct vdrv_seg[]){{w->data, 1 + n}, {w->data, 7}},
			 1 + (op->arg >> 7), 0, 0);
		break;
	case 6:
		vdrv_add(&w->r.d.q[i ? 4 : 0], (struct vdrv_seg[]){{w->data, 1 + n}}, 0, 1, 0);
		break;
	default:
		vdrv_add(&w->r.d.q[VIRTIO_CONSOLE_Q_CTRL_RX],
			 (struct vdrv_seg[]){{w->data, 8 + n % 64}}, 0, 1, 0);
		break;
	}
}

static bool works(struct vfuzz *w)
{
	struct priv *p = w->priv;
	struct vdrv *d = &w->r.d;
	uint16_t head;
	uint32_t len;
	char buf[8];

	for (unsigned i = 0; i < PORTS; i++) {
		peer_leave(w, i);
		peer_connect(p, i);
	}
	control(w, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	vdrv_add(&d->q[VIRTIO_CONSOLE_Q_CTRL_RX], (struct vdrv_seg[]){{w->data, 64}}, 0, 1, 0);
	vdrv_kick(&d->q[VIRTIO_CONSOLE_Q_CTRL_RX]);
	if (!vdrv_wait(&d->q[VIRTIO_CONSOLE_Q_CTRL_RX], &head, &len) || len != 8) {
		return false;
	}
	memcpy(vdrv_ptr(d, w->data, 5), "hello", 5);
	vdrv_add(&d->q[1], (struct vdrv_seg[]){{w->data, 5}}, 1, 0, 0);
	vdrv_kick(&d->q[1]);
	if (!vdrv_wait(&d->q[1], &head, &len) || read(p->peer[0], buf, 8) != 5) {
		return false;
	}
	control(w, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	vdrv_add(&d->q[4], (struct vdrv_seg[]){{w->data, 64}}, 0, 1, 0);
	vdrv_kick(&d->q[4]);
	return write(p->peer[1], "guest", 5) == 5 && vdrv_wait(&d->q[4], &head, &len) &&
	       len == 5;
}

/* The back ends have to go before the loop does, and the device before them. */
static void finish(struct vfuzz *w)
{
	struct priv *p = w->priv;

	fake_vm_pause(w->r.fv);
	device_list_destroy(&w->r.fv->devices);
	for (unsigned i = 0; i < PORTS; i++) {
		chr_close(p->chr[i]);
		close(p->peer[i]);
	}
	free(p);
}

static const struct vfuzz_target target = {
	.create = create,
	.op = device_op,
	.all_queues = true,
	.release = release,
	.works = works,
	.finish = finish,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	signal(SIGPIPE, SIG_IGN); /* as the program does */
	vfuzz_run(&target, data, len);
	return 0;
}
