/*
 * The hostile driver's interpreter: see vfuzz.h. Everything is made anew for each input, so
 * that an input does the same wherever it runs.
 */
#include "fuzz/vfuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static void must_(bool ok, const char *what, int line)
{
	if (!ok) {
		fprintf(stderr, "vfuzz.c:%d: %s\n", line, what);
		abort();
	}
}
#define PACKED	(UINT64_C(1) << VIRTIO_F_RING_PACKED)
#define RESET	(UINT64_C(1) << VIRTIO_F_RING_RESET)
#define must(x) must_(x, #x, __LINE__)

/* Most addresses ought to be good ones. */
static uint64_t address(const struct vfuzz *w, const struct vfuzz_op *op)
{
	return op->arg & 0x80 ? op->addr : w->data + op->addr % VFUZZ_DATA;
}

static uint32_t length(const struct vfuzz_op *op)
{
	return op->arg & 0x40 ? op->value : op->value & 0xfff;
}

static struct vdrv_queue *queue(struct vfuzz *w, const struct vfuzz_op *op)
{
	if (w->target->all_queues) {
		return &w->r.d.q[(op->arg >> 3 & 7u) % w->r.d.nqueues];
	}
	return &w->r.d.q[op->arg >> 3 & 1 ? w->r.d.nqueues - 1 : 0];
}

static void chain(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct vdrv_seg seg[6];
	unsigned n_out = op->arg & 3, n_in = op->arg >> 4 & 3;
	uint64_t at = op->addr % (VFUZZ_DATA / 2);

	for (unsigned i = 0; i < n_out + n_in; i++) {
		uint32_t len = 1 + (op->value >> (5 * i) & 0x1f) * 32;

		/* headers have 16 bytes, statuses 1 */
		len = i == 0 && n_out ? 16 : i == n_out + n_in - 1 ? 1 : len - 1 + !(len - 1);
		seg[i] = (struct vdrv_seg){w->data + at, len};
		at += op->index % 2 ? 1024 : len;
	}
	if (n_out + n_in) {
		vdrv_add(queue(w, op), seg, n_out, n_in, 0);
	}
}

static void window(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct vdrv *d = &w->r.d;
	unsigned cap = d->pci_cfg_cap, len = 1u << (op->arg & 3) % 3;

	pci_cfg_write(d->root, 0, d->devfn, cap + 4, 1, op->arg & 4 ? 4 : op->arg >> 4);
	pci_cfg_write(d->root, 0, d->devfn, cap + 8, 4, op->index);
	pci_cfg_write(d->root, 0, d->devfn, cap + 12, 4,
		      op->arg & 8 ? (uint32_t)op->addr : len);
	if (op->arg & 0x80) {
		pci_cfg_write(d->root, 0, d->devfn, cap + 16, len, op->value);
	} else {
		pci_cfg_read(d->root, 0, d->devfn, cap + 16, len);
	}
}

static void pause_toggle(struct vfuzz *w)
{
	if (w->paused) {
		device_list_resume(&w->r.fv->devices);
	} else {
		w->target->release(w);
		fake_vm_pause(w->r.fv);
	}
	w->paused = !w->paused;
}

static void transfer(struct vfuzz *w)
{
	struct err err = {.msg = ""};

	if (!w->paused) {
		pause_toggle(w);
	}
	must(fake_vm_transfer(w->r.fv, w->r.fv, &err) == 0);
}

static void start(struct vfuzz *w, uint64_t features)
{
	if (w->paused) {
		pause_toggle(w);
	}
	w->target->release(w);
	if (w->target->features) {
		features = w->target->features(features);
	}
	vdrv_start(&w->r.d, features & ~w->target->without, 0);
}

static uint16_t packed_flags(const struct vfuzz_op *op)
{
	return (op->index >> 10 & 1 ? VIRTQ_DESC_F_AVAIL : 0) |
	       (op->index >> 11 & 1 ? VIRTQ_DESC_F_USED : 0);
}

static void run(struct vfuzz *w, const struct vfuzz_op *op)
{
	struct vdrv *d = &w->r.d;
	struct vdrv_queue *q = queue(w, op);
	unsigned len = 1u << (op->arg & 3);

	switch (op->what % VFUZZ_WHATS) {
	case VFUZZ_DESC:
		vdrv_desc_set(q, op->index & (q->size - 1), address(w, op), length(op),
			      (op->arg & 7) | (q->packed ? packed_flags(op) : 0), (uint16_t)(op->value >> 16 & (q->size * 2u - 1)));
		break;
	case VFUZZ_AVAIL:
		vdrv_avail_put(q, op->arg & 0x80 ? op->index : op->index & (q->size - 1));
		break;
	case VFUZZ_AVAIL_IDX:
		vdrv_avail_idx_set(q, op->index);
		break;
	case VFUZZ_KICK:
		vdrv_kick_always(q);
		fake_vm_settle(w->r.fv);
		break;
	case VFUZZ_COMMON:
		vdrv_common_set(d, op->index % 64, MIN(len, 4u), op->value);
		break;
	case VFUZZ_CONFIG:
		vdrv_config_set(d, op->index % 256, len, op->addr);
		break;
	case VFUZZ_BAR:
		if (op->arg & 0x80) {
			vdrv_write(d, d->bar + op->index % 0x8000, op->addr, len);
		} else {
			vdrv_read(d, d->bar + op->index % 0x8000, len);
		}
		break;
	case VFUZZ_WINDOW:
		window(w, op);
		break;
	case VFUZZ_POKE:
		memcpy(vdrv_ptr(d, w->data + op->value % (VFUZZ_DATA - 8), 8), &op->addr, 8);
		break;
	case VFUZZ_STEP:
		fake_vm_settle(w->r.fv);
		break;
	case VFUZZ_DEVICE:
		w->target->op(w, op);
		break;
	case VFUZZ_PAUSE:
		pause_toggle(w);
		break;
	case VFUZZ_START:
		start(w, op->addr);
		break;
	case VFUZZ_TABLE: {
		struct virtq_desc e = {
			le64_of(address(w, op)),
			le32_of(length(op)),
			le16_of(op->arg & 7),
			le16_of((uint16_t)(op->value >> 24)),
		};

		memcpy(vdrv_ptr(d, w->data + op->index % 1024 * 16u, 16), &e, 16);
		break;
	}
	case VFUZZ_CHAIN:
		chain(w, op);
		break;
	case VFUZZ_TRANSFER:
		transfer(w);
		break;
	default:
		break;
	}
}

/* What holds at any time, whatever the driver did. */
static void check(struct vfuzz *w)
{
	for (unsigned i = 0; i < w->vd->nqueues; i++) {
		const struct virtq *q = &w->vd->queue[i];

		must(is_pow2(q->size) || virtio_has(w->vd, VIRTIO_F_RING_PACKED));
		must(q->size && q->size <= q->max_size);
		must(q->inflight <= q->size);
		must(q->index == i);
	}
	must(w->vd->stopping <= w->vd->nqueues);
}

void vfuzz_run(const struct vfuzz_target *t, const uint8_t *data, size_t len)
{
	struct vfuzz *w = calloc(1, sizeof(*w));
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct vfuzz_op op;

	must(w && null >= 0);
	log_set_fd(null);
	w->target = t;
	rig_init(&w->r, false, 0);
	w->vd = t->create(w);
	virtio_offer_packed(w->vd);
	rig_add(&w->r, w->vd, "fuzz0");
	w->data = vdrv_alloc(&w->r.d, VFUZZ_DATA, 4096);
	start(w, ~(RESET | (t->packed ? 0 : PACKED)));
	for (unsigned i = 0; i < VFUZZ_MAX_OPS && len >= sizeof(op); i++) {
		memcpy(&op, data, sizeof(op));
		data += sizeof(op);
		len -= sizeof(op);
		run(w, &op);
		check(w);
	}
	for (int packed = 0; packed < 2; packed++) {
		start(w, packed ? UINT64_MAX : ~PACKED);
		must(vdrv_status(&w->r.d) == 0xf);
		must(t->works(w));
	}
	if (t->finish) {
		t->finish(w);
	}
	rig_fini(&w->r);
	if (t->destroyed) {
		t->destroyed(w);
	}
	log_set_fd(2);
	close(null);
	free(w);
}
