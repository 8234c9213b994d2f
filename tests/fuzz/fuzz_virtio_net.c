/*
 * virtio-net with a back end that has frames, has no room, fails, as the input says.
 *
 * #covers: src/device/virtio/net.c src/device/virtio/net_rx.c src/device/virtio/net_tx.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/netport.h"
#include "device/virtio/net_int.h"
#include "fuzz/vfuzz.h"

#define HDR sizeof(struct virtio_net_hdr_v1)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct priv {
	struct netport port;
	uint8_t frame[NET_FRAME_MAX + 64];
};

static struct virtio_dev *create(struct vfuzz *w)
{
	struct priv *p = calloc(1, sizeof(*p));
	struct virtio_net_config c = {
		.mac_set = true,
		.mac = {2},
		.rx_queue_size = 64,
		.tx_queue_size = 64,
		.csum = true,
		.gso = true,
		.guest_csum = true,
		.guest_tso = true,
		.mrg_rxbuf = true,
	};
	struct virtio_dev *vd;
	struct err err;
	int rc;

	assert(p);
	netport_init(&p->port, NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
	w->priv = p;
	rc = virtio_net_new(&w->r.fv->vm, &p->port.port, &c, "fuzz0", &vd, &err);
	assert(rc == 0);
	return vd;
}

#define F(bit) (UINT64_C(1) << (bit))

/* The device refuses features without those that they need (5.1.3.1). */
static uint64_t features(uint64_t f)
{
	const uint64_t host = F(VIRTIO_NET_F_HOST_TSO4) | F(VIRTIO_NET_F_HOST_TSO6),
		       guest = F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_TSO6);

	f &= f & F(VIRTIO_NET_F_CSUM) ? ~UINT64_C(0) : ~host;
	f &= f & F(VIRTIO_NET_F_GUEST_CSUM) ? ~UINT64_C(0) : ~guest;
	f &= f & host ? ~UINT64_C(0) : ~F(VIRTIO_NET_F_HOST_ECN);
	f &= f & guest ? ~UINT64_C(0) : ~F(VIRTIO_NET_F_GUEST_ECN);
	if (!(f & F(VIRTIO_NET_F_CTRL_VQ))) {
		f &= ~(F(VIRTIO_NET_F_CTRL_MAC_ADDR) | F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
	}
	return f;
}

static void release(struct vfuzz *w)
{
	(void)w; /* nothing of it waits for the port */
}

/* Headers and buffers as good drivers make them. */
static void frame_send(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct virtio_net_hdr_v1 h;
	uint32_t at = op->index % 4096u, len = op->value % 40000u;
	struct vdrv_seg seg[] = {{w->data + at, HDR}, {w->data + at + HDR, len + 1}};

	memcpy(&h, &op->addr, sizeof(op->addr));
	h.csum_offset = le16_of((uint16_t)(op->value >> 16));
	h.num_buffers = le16_of(0);
	memcpy(vdrv_ptr(&w->r.d, w->data + at, HDR), &h, HDR);
	vdrv_add(&w->r.d.q[NET_Q_TX], seg, 2, 0, op->arg >> 7);
}

static void frame_put(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct priv *p = w->priv;
	struct virtio_net_hdr_v1 h = {0};

	if (netport_waiting(&p->port) < 64) {
		memcpy(&h, &op->addr, sizeof(op->addr));
		netport_put(&p->port, op->arg & 8 ? &h : NULL, p->frame,
			    op->value % sizeof(p->frame));
	}
}

static void device_op(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct priv *p = w->priv;
	struct vdrv_seg seg[4];

	switch (op->arg & 7) {
	case 0:
		frame_put(w, op);
		break;
	case 1:
		netport_full(&p->port, op->value & 1);
		break;
	case 2:
		loop_clock_advance(w->r.fv->vm.loop, op->value % 100000000);
		break;
	case 3:
		frame_send(w, op);
		break;
	case 4:
		p->port.recv_error = op->value % 7 == 1	  ? -EIO
				     : op->value % 7 == 2 ? -EMSGSIZE
							  : 0;
		break;
	case 5:
		for (unsigned i = 0; i < 4; i++) {
			seg[i] = (struct vdrv_seg){w->data + op->addr % 16384 + i * 8192,
						   1 + (op->value >> (8 * i) & 0xff) * 32};
		}
		vdrv_add(&w->r.d.q[NET_Q_RX], seg, 0, 1 + op->index % 4u, op->arg >> 7);
		break;
	default: {
		uint8_t *c = vdrv_ptr(&w->r.d, w->data + 65000, 32);

		c[0] = (uint8_t)op->index;
		c[1] = (uint8_t)(op->index >> 8);
		memcpy(c + 2, &op->addr, 8);
		seg[0] = (struct vdrv_seg){w->data + 65000, 2 + op->value % 10};
		seg[1] = (struct vdrv_seg){w->data + 65030, 1};
		vdrv_add(&w->r.d.q[NET_Q_CTRL], seg, 1, 1, 0);
		break;
	}
	}
}

static bool works(struct vfuzz *w)
{
	struct vdrv_queue *rx = &w->r.d.q[NET_Q_RX], *tx = &w->r.d.q[NET_Q_TX];
	struct priv *p = w->priv;
	uint16_t head;
	uint32_t len;

	p->port.recv_error = 0;
	netport_full(&p->port, false);
	while (netport_waiting(&p->port)) {
		free(p->port.in[p->port.in_head++ % NETPORT_FRAMES].data);
	}
	netport_forget(&p->port);
	memset(vdrv_ptr(&w->r.d, w->data, 100), 0, 100);
	vdrv_add(tx, (struct vdrv_seg[]){{w->data, 100}}, 1, 0, 0);
	vdrv_kick(tx);
	if (!vdrv_wait(tx, &head, &len) || netport_sent(&p->port) != 1 ||
	    p->port.out[0].len != 88) {
		return false;
	}
	netport_put(&p->port, NULL, p->frame, 60);
	vdrv_add(rx, (struct vdrv_seg[]){{w->data, 100}}, 0, 1, 0);
	vdrv_kick(rx);
	return vdrv_wait(rx, &head, &len) && len == 72;
}

static void destroyed(struct vfuzz *w)
{
	struct priv *p = w->priv;

	netport_fini(&p->port);
	free(p);
}

static const struct vfuzz_target target = {
	.features = features,
	.create = create,
	.op = device_op,
	.all_queues = true,
	.release = release,
	.works = works,
	.destroyed = destroyed,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	vfuzz_run(&target, data, len);
	return 0;
}
