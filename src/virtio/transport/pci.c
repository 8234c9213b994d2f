/*
 * virtio over PCI. Virtio 1.2, section 4.1, without its legacy parts.
 *
 * BAR 4 (64-bit, prefetchable), one page for each thing so that a guest can map them apart:
 *
 *   0x0000 common configuration      control loop, reads too: they depend on the selectors
 *   0x1000 ISR status                any thread
 *   0x2000 device configuration      reads any thread, writes control loop
 *   0x3000 doorbells, 4 bytes each   any thread; normally an ioeventfd takes the write
 *   0x4000 MSI-X table
 *   0x5000 MSI-X pending bits
 *
 * Doorbells: while the BAR is mapped each queue's address is bound to the queue's eventfd.
 * Where that fails (no free slot in the kernel) the write arrives here on the vCPU's thread and
 * signals the same eventfd.
 *
 * No INTx: without MSI-X a driver polls. ISR bit 0 is then kept as the specification says.
 *
 * Untrusted: every offset, size and value. Accesses are whole fields (4.1.3.1); others read
 * what is there and write nothing.
 */
#include "virtio/transport/pci.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "core/doorbell.h"
#include "mem/mem.h"
#include "pci/msix.h"
#include "spec/virtio.h"
#include "spec/virtio_pci.h"

#define VIRTIO_BAR	  4
#define VIRTIO_BAR_SIZE	  0x8000
#define OFF_COMMON	  0x0000
#define OFF_ISR		  0x1000
#define OFF_DEVICE	  0x2000
#define OFF_NOTIFY	  0x3000
#define OFF_MSIX_TABLE	  0x4000
#define OFF_MSIX_PBA	  0x5000
#define AREA_SIZE	  0x1000
#define NOTIFY_MULTIPLIER 4
#define MAX_VECTORS	  256

_Static_assert(VIRTIO_MAX_QUEUES *NOTIFY_MULTIPLIER <= AREA_SIZE, "doorbells fit");

struct virtio_pci {
	struct device dev;
	struct pci_func func;
	struct virtio_dev *vd;
	unsigned nvec;
	unsigned pci_cfg_cap; /* offset of the PCI_CFG capability */

	/* control loop */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	uint64_t doorbell_addr; /* of queue 0, valid while one is bound */
	bool bound[VIRTIO_MAX_QUEUES];

	_Atomic uint8_t isr;

	/* The class tables of this type of device; constant after creation. */
	char class_name[48];
	struct device_ops class_ops;
	struct device_state_ops dev_state;
	const struct device_state_ops *class_state[5];
};

static struct virtio_pci *of_dev(struct device *d)
{
	return container_of(d, struct virtio_pci, dev);
}

static struct virtio_pci *of_vd(struct virtio_dev *vd)
{
	return of_dev(vd->dev);
}

static struct virtio_pci *of_func(struct pci_func *f)
{
	return container_of(f, struct virtio_pci, func);
}

/* --- notifications to the driver --- */

static void notify_vector(struct virtio_pci *p, uint16_t vector, uint8_t isr)
{
	if (!msix_enabled(&p->func)) {
		atomic_fetch_or(&p->isr, isr);
	} else if (vector != VIRTIO_NO_VECTOR) {
		msix_trigger(&p->func, vector);
	}
}

static void notify_queue(struct virtio_dev *vd, struct virtq *q)
{
	notify_vector(of_vd(vd), virtio_queue_vector(q), VIRTIO_PCI_ISR_QUEUE);
}

static void notify_config(struct virtio_dev *vd)
{
	uint16_t vector = __atomic_load_n(&vd->config_vector, __ATOMIC_RELAXED);

	notify_vector(of_vd(vd), vector, VIRTIO_PCI_ISR_CONFIG);
}

static const struct virtio_transport_ops transport_ops = {
	.notify_queue = notify_queue,
	.notify_config = notify_config,
};

/* --- common configuration --- */

static struct virtq *selected(struct virtio_pci *p)
{
	return p->queue_select < p->vd->nqueues ? &p->vd->queue[p->queue_select] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static void common_fill(struct virtio_pci *p, struct virtio_pci_common_cfg *c)
{
	struct virtio_dev *vd = p->vd;
	const struct virtq *q = selected(p);

	*c = (struct virtio_pci_common_cfg){
		.device_feature_select = le32_of(p->device_feature_select),
		.device_feature = le32_of(feature_word(vd->offered, p->device_feature_select)),
		.driver_feature_select = le32_of(p->driver_feature_select),
		.driver_feature =
			le32_of(feature_word(p->driver_features, p->driver_feature_select)),
		.config_msix_vector = le16_of(vd->config_vector),
		.num_queues = le16_of((uint16_t)vd->nqueues),
		.device_status = virtio_get_status(vd),
		.config_generation = atomic_load(&vd->config_generation),
		.queue_select = le16_of(p->queue_select),
		.queue_msix_vector = le16_of(VIRTIO_NO_VECTOR),
	};
	if (!q) {
		return; /* queue_size 0: there is no such queue */
	}
	c->queue_size = le16_of(q->size);
	c->queue_msix_vector = le16_of(virtio_queue_vector(q));
	c->queue_enable = le16_of(q->enabled);
	c->queue_notify_off = le16_of((uint16_t)q->index);
	c->queue_desc = le64_of(q->desc_gpa);
	c->queue_driver = le64_of(q->avail_gpa);
	c->queue_device = le64_of(q->used_gpa);
	c->queue_notify_data = le16_of((uint16_t)q->index);
	c->queue_reset = le16_of(virtio_queue_resetting(q));
}

static uint64_t common_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio_pci_common_cfg c;
	uint64_t v = 0;

	if (range_within(off, size, sizeof(c))) {
		common_fill(opaque, &c);
		memcpy(&v, (const char *)&c + off, size);
	}
	return v;
}

static void write_half(uint64_t *reg, bool high, uint32_t v)
{
	unsigned shift = high ? 32 : 0;

	*reg = (*reg & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)v << shift;
}

static uint16_t vector_checked(struct virtio_pci *p, uint16_t vector)
{
	return vector < p->nvec ? vector : VIRTIO_NO_VECTOR;
}

static void status_write(struct virtio_pci *p, uint8_t status)
{
	virtio_set_status(p->vd, status);
	if (status == 0) {
		p->device_feature_select = p->driver_feature_select = 0;
		p->driver_features = 0;
		p->queue_select = 0;
		atomic_store(&p->isr, 0);
	}
}

static void queue_size_write(struct virtio_pci *p, struct virtq *q, uint16_t size)
{
	bool any = virtio_has(p->vd, VIRTIO_F_RING_PACKED); /* 2.8.10.1: no power of two */

	if (!size || (!any && !is_pow2(size)) || size > q->max_size) {
		log_guest(p->vd->name, "queue %u: the driver asks for the impossible size %u",
			  q->index, size);
		return;
	}
	q->size = size;
}

/* A field that belongs to the selected queue. */
static void queue_write(struct virtio_pci *p, uint64_t off, uint32_t v)
{
	struct virtq *q = selected(p);

	if (!q || p->vd->resetting) {
		return;
	}
	switch (off) {
	case offsetof(struct virtio_pci_common_cfg, queue_msix_vector):
		virtio_queue_set_vector(q, vector_checked(p, (uint16_t)v));
		return;
	case offsetof(struct virtio_pci_common_cfg, queue_reset):
		if (v == 1) {
			virtio_queue_reset(q);
		}
		return;
	default:
		break;
	}
	if (q->enabled || virtio_queue_resetting(q)) {
		return; /* what follows is fixed while the queue is enabled (4.1.4.3.2) */
	}
	switch (off) {
	case offsetof(struct virtio_pci_common_cfg, queue_size):
		queue_size_write(p, q, (uint16_t)v);
		break;
	case offsetof(struct virtio_pci_common_cfg, queue_enable):
		if (v == 1) {
			virtio_queue_enable(q);
		}
		break;
	case offsetof(struct virtio_pci_common_cfg, queue_desc):
	case offsetof(struct virtio_pci_common_cfg, queue_desc) + 4:
		write_half(&q->desc_gpa, off & 4, v);
		break;
	case offsetof(struct virtio_pci_common_cfg, queue_driver):
	case offsetof(struct virtio_pci_common_cfg, queue_driver) + 4:
		write_half(&q->avail_gpa, off & 4, v);
		break;
	case offsetof(struct virtio_pci_common_cfg, queue_device):
	case offsetof(struct virtio_pci_common_cfg, queue_device) + 4:
		write_half(&q->used_gpa, off & 4, v);
		break;
	default:
		break;
	}
}

static unsigned field_size(uint64_t off)
{
	switch (off) {
	case offsetof(struct virtio_pci_common_cfg, device_status):
	case offsetof(struct virtio_pci_common_cfg, config_generation):
		return 1;
	default:
		break;
	}
	if (off < offsetof(struct virtio_pci_common_cfg, config_msix_vector) ||
	    (off >= offsetof(struct virtio_pci_common_cfg, queue_desc) &&
	     off < offsetof(struct virtio_pci_common_cfg, queue_notify_data))) {
		return 4;
	}
	return 2;
}

static void common_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct virtio_pci *p = opaque;
	uint32_t v = (uint32_t)value;

	if (size != field_size(off)) {
		log_guest(p->vd->name, "write of %u bytes to common configuration offset 0x%x",
			  size, (unsigned)off);
		return;
	}
	switch (off) {
	case offsetof(struct virtio_pci_common_cfg, device_feature_select):
		p->device_feature_select = v;
		break;
	case offsetof(struct virtio_pci_common_cfg, driver_feature_select):
		p->driver_feature_select = v;
		break;
	case offsetof(struct virtio_pci_common_cfg, driver_feature):
		if (p->driver_feature_select < 2) {
			write_half(&p->driver_features, p->driver_feature_select, v);
			virtio_set_features(p->vd, p->driver_features);
		}
		break;
	case offsetof(struct virtio_pci_common_cfg, config_msix_vector):
		__atomic_store_n(&p->vd->config_vector, vector_checked(p, (uint16_t)v),
				 __ATOMIC_RELAXED);
		break;
	case offsetof(struct virtio_pci_common_cfg, device_status):
		status_write(p, (uint8_t)v);
		break;
	case offsetof(struct virtio_pci_common_cfg, queue_select):
		p->queue_select = (uint16_t)v;
		break;
	default:
		queue_write(p, off, v);
		break;
	}
}

static const struct bus_ops common_ops = {
	.read = common_read,
	.write = common_write,
	.min_size = 1,
	.max_size = 4,
};

/* --- ISR, device configuration, doorbells --- */

static uint64_t isr_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio_pci *p = opaque;

	(void)size;
	return off == 0 ? atomic_exchange(&p->isr, 0) : 0;
}

static void isr_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	(void)opaque;
	(void)off;
	(void)value;
	(void)size;
}

static const struct bus_ops isr_ops = {
	.read = isr_read,
	.write = isr_write,
	.min_size = 1,
	.max_size = 4,
};

static uint64_t device_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio_pci *p = opaque;
	uint64_t v = 0;

	if (off < p->vd->ops->config_len) {
		unsigned len = MIN(size, p->vd->ops->config_len - (unsigned)off);

		p->vd->ops->config_read(p->vd, (unsigned)off, &v, len);
	}
	return v;
}

static void device_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct virtio_pci *p = opaque;

	if (range_within(off, size, p->vd->ops->config_len) && p->vd->ops->config_write) {
		p->vd->ops->config_write(p->vd, (unsigned)off, &value, size);
	}
}

static const struct bus_ops device_area_ops = {
	.read = device_read,
	.write = device_write,
	.min_size = 1,
	.max_size = 8,
};

static uint64_t notify_read(void *opaque, uint64_t off, unsigned size)
{
	(void)opaque;
	(void)off;
	(void)size;
	return 0;
}

static void notify_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct virtio_pci *p = opaque;
	uint64_t queue = off / NOTIFY_MULTIPLIER;

	(void)value;
	(void)size;
	if (off % NOTIFY_MULTIPLIER == 0 && queue < p->vd->nqueues) {
		virtq_kick_self(&p->vd->queue[queue]);
	}
}

static const struct bus_ops notify_ops = {
	.read = notify_read,
	.write = notify_write,
	.min_size = 1,
	.max_size = 4,
};

/* --- the window in configuration space [4.1.4.9] --- */

struct window {
	struct virtio_pci *p;
	bool write;
};

struct area {
	uint32_t base;
	const struct bus_ops *ops;
};
static const struct area areas[] = {
	{OFF_COMMON, &common_ops},
	{OFF_ISR, &isr_ops},
	{OFF_DEVICE, &device_area_ops},
	{OFF_NOTIFY, &notify_ops},
};

/* Control loop. The guest has filled in bar, offset and length as it liked. */
static void window_access(void *arg)
{
	struct window *w = arg;
	struct pci_func *f = &w->p->func;
	unsigned cap = w->p->pci_cfg_cap;
	unsigned data = cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
	uint32_t off = pci_get32(f, cap + offsetof(struct virtio_pci_cap, offset));
	uint32_t len = pci_get32(f, cap + offsetof(struct virtio_pci_cap, length));
	uint32_t value = pci_get32(f, data);

	if (pci_get16(f, cap + offsetof(struct virtio_pci_cap, bar)) % 256 != VIRTIO_BAR ||
	    (len != 1 && len != 2 && len != 4) || off % len) {
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		const struct area *a = &areas[i];

		if (off < a->base || off - a->base >= AREA_SIZE) {
			continue;
		}
		if (w->write) {
			value &= len == 4 ? UINT32_MAX : (1u << (8 * len)) - 1;
			a->ops->write(w->p, off - a->base, value, len);
		} else {
			pci_set32(f, data, (uint32_t)a->ops->read(w->p, off - a->base, len));
		}
	}
}

static bool touches_window(const struct virtio_pci *p, unsigned off, unsigned len)
{
	unsigned data = p->pci_cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

	return off < data + 4 && off + len > data;
}

static void cfg_written(struct pci_func *f, unsigned off, unsigned len)
{
	struct virtio_pci *p = of_func(f);

	if (touches_window(p, off, len)) {
		window_access(&(struct window){p, true});
	}
}

static void cfg_reading(struct pci_func *f, unsigned off, unsigned len)
{
	struct virtio_pci *p = of_func(f);

	if (touches_window(p, off, len)) {
		loop_call(f->vm->loop, window_access, &(struct window){p, false});
	}
}

/* --- doorbells --- */

static void doorbells_unbind(struct virtio_pci *p)
{
	struct doorbells *d = p->func.vm->doorbells;

	for (unsigned i = 0; i < p->vd->nqueues; i++) {
		if (p->bound[i]) {
			d->ops->del(d, p->doorbell_addr + i * NOTIFY_MULTIPLIER, 0,
				    p->vd->queue[i].kick_fd);
			p->bound[i] = false;
		}
	}
}

static void bar_changed(struct pci_func *f, unsigned bar, bool mapped, uint64_t addr)
{
	struct virtio_pci *p = of_func(f);
	struct doorbells *d = f->vm->doorbells;

	if (bar != VIRTIO_BAR) {
		return;
	}
	doorbells_unbind(p);
	if (!mapped || !d) {
		return;
	}
	p->doorbell_addr = addr + OFF_NOTIFY;
	for (unsigned i = 0; i < p->vd->nqueues; i++) {
		int r = d->ops->add(d, p->doorbell_addr + i * NOTIFY_MULTIPLIER, 0,
				    p->vd->queue[i].kick_fd);

		p->bound[i] = r == 0;
		if (r < 0) {
			log_guest(p->vd->name,
				  "queue %u: no kernel doorbell (%s), kicks are slow", i,
				  strerror(-r));
		}
	}
}

/* The guest resets the bus while queues may be at work: what is in flight ends by itself, and the
 * status reads non-zero until then. */
static void bus_reset(struct pci_func *f)
{
	status_write(of_func(f), 0);
	pci_func_reset(f);
}

static const struct pci_func_ops func_ops = {
	.cfg_written = cfg_written,
	.cfg_reading = cfg_reading,
	.bar_changed = bar_changed,
	.bus_reset = bus_reset,
};

/* --- state --- */

struct transport_state {
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	uint8_t isr;
};
static const struct state_field transport_fields[] = {
	STATE_F_U32(struct transport_state, device_feature_select),
	STATE_F_U32(struct transport_state, driver_feature_select),
	STATE_F_U64(struct transport_state, driver_features),
	STATE_F_U16(struct transport_state, queue_select),
	STATE_F_U8(struct transport_state, isr),
	STATE_F_END,
};
static const struct state_desc transport_desc = {
	.name = "virtio-pci",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct transport_state),
	.fields = transport_fields,
};

static int transport_save(struct device *d, void *st, struct err *err)
{
	const struct virtio_pci *p = of_dev(d);

	(void)err;
	*(struct transport_state *)st = (struct transport_state){
		.device_feature_select = p->device_feature_select,
		.driver_feature_select = p->driver_feature_select,
		.driver_features = p->driver_features,
		.queue_select = p->queue_select,
		.isr = atomic_load(&p->isr),
	};
	return 0;
}

static int transport_load(struct device *d, const void *st, struct err *err)
{
	const struct transport_state *s = st;
	struct virtio_pci *p = of_dev(d);

	(void)err;
	p->device_feature_select = s->device_feature_select;
	p->driver_feature_select = s->driver_feature_select;
	p->driver_features = s->driver_features;
	p->queue_select = s->queue_select;
	atomic_store(&p->isr, s->isr);
	return 0;
}

static int func_save(struct device *d, void *st, struct err *err)
{
	(void)err;
	pci_func_save(&of_dev(d)->func, st);
	return 0;
}

static int func_load(struct device *d, const void *st, struct err *err)
{
	return pci_func_load(&of_dev(d)->func, st, err);
}

static int common_save(struct device *d, void *st, struct err *err)
{
	(void)err;
	virtio_save(of_dev(d)->vd, st);
	return 0;
}

static int common_load(struct device *d, const void *st, struct err *err)
{
	const struct virtio_state *s = st;
	struct virtio_pci *p = of_dev(d);

	for (uint32_t i = 0; i < s->nqueues; i++) {
		if (s->q[i].vector != vector_checked(p, s->q[i].vector)) {
			return err_set(err, EINVAL, "%s: saved queue %u has no such vector",
				       d->id, i);
		}
	}
	if (s->config_vector != vector_checked(p, s->config_vector)) {
		return err_set(err, EINVAL, "%s: the saved configuration vector does not exist",
			       d->id);
	}
	return virtio_load(p->vd, s, err);
}

static int type_save(struct device *d, void *st, struct err *err)
{
	struct virtio_dev *vd = of_dev(d)->vd;

	return vd->ops->save(vd, st, err);
}

static int type_load(struct device *d, const void *st, struct err *err)
{
	struct virtio_dev *vd = of_dev(d)->vd;

	return vd->ops->load(vd, st, err);
}

static const struct device_state_ops func_state = {
	.desc = &pci_func_state_desc,
	.save = func_save,
	.load = func_load,
};
static const struct device_state_ops transport_state = {
	.desc = &transport_desc,
	.save = transport_save,
	.load = transport_load,
};
static const struct device_state_ops common_state = {
	.desc = &virtio_state_desc,
	.save = common_save,
	.load = common_load,
};

/* --- life --- */

static void dev_reset(struct device *d)
{
	struct virtio_pci *p = of_dev(d);

	virtio_reset(p->vd);
	status_write(p, 0);
	pci_func_reset(&p->func);
}

static void dev_pause(struct device *d)
{
	virtio_pause(of_dev(d)->vd);
}

static void dev_resume(struct device *d)
{
	virtio_resume(of_dev(d)->vd);
}

static void dev_destroy(struct device *d)
{
	struct virtio_pci *p = of_dev(d);

	doorbells_unbind(p);
	pci_func_remove(&p->func);
	msix_fini(&p->func);
	p->vd->ops->destroy(p->vd);
	free(p);
}

static unsigned cap_add(struct virtio_pci *p, uint8_t type, unsigned len, uint32_t off,
			uint32_t length)
{
	struct pci_func *f = &p->func;
	unsigned cap = pci_cap_add(f, VIRTIO_PCI_CAP_ID_VNDR, len);

	pci_set8(f, cap + offsetof(struct virtio_pci_cap, cap_len), (uint8_t)len);
	pci_set8(f, cap + offsetof(struct virtio_pci_cap, cfg_type), type);
	pci_set8(f, cap + offsetof(struct virtio_pci_cap, bar), VIRTIO_BAR);
	pci_set32(f, cap + offsetof(struct virtio_pci_cap, offset), off);
	pci_set32(f, cap + offsetof(struct virtio_pci_cap, length), length);
	return cap;
}

static void header_fill(struct virtio_pci *p)
{
	struct pci_func *f = &p->func;
	const struct virtio_ops *ops = p->vd->ops;
	const unsigned len = sizeof(struct virtio_pci_cap);
	unsigned cap;

	/* Subsystem ids from 0x40 on tell firmware that the device is a modern one. */
	pci_set_ids(f, VIRTIO_PCI_VENDOR_ID,
		    (uint16_t)(VIRTIO_PCI_DEVICE_ID_BASE + ops->device_id), ops->pci_class, 1,
		    VIRTIO_PCI_VENDOR_ID, 0x1100);
	/* On the root bus a conventional function: without a link there is nothing that Express and
	 * power management would tell, but Linux reads 45 registers more on the way, 19 of them at
	 * 0x100, where there are no extended capabilities. */
	if (f->bus->bridge) {
		pci_express_cap_add(f, 0, 0);
		pci_pm_cap_add(f);
	}
	cap_add(p, VIRTIO_PCI_CAP_COMMON_CFG, len, OFF_COMMON,
		sizeof(struct virtio_pci_common_cfg));
	cap_add(p, VIRTIO_PCI_CAP_ISR_CFG, len, OFF_ISR, 1);
	/* There even if the type has no configuration: firmware drivers ask for it. */
	cap_add(p, VIRTIO_PCI_CAP_DEVICE_CFG, len, OFF_DEVICE,
		(uint32_t)align_up(MAX(ops->config_len, 4u), 4));
	cap = cap_add(p, VIRTIO_PCI_CAP_NOTIFY_CFG, sizeof(struct virtio_pci_notify_cap),
		      OFF_NOTIFY, MAX(p->vd->nqueues, 1u) * NOTIFY_MULTIPLIER);
	pci_set32(f, cap + offsetof(struct virtio_pci_notify_cap, notify_off_multiplier),
		  NOTIFY_MULTIPLIER);
	cap = cap_add(p, VIRTIO_PCI_CAP_PCI_CFG, sizeof(struct virtio_pci_cfg_cap), 0, 0);
	pci_set8(f, cap + offsetof(struct virtio_pci_cap, bar), 0);
	f->wmask[cap + offsetof(struct virtio_pci_cap, bar)] = 0xff;
	memset(&f->wmask[cap + offsetof(struct virtio_pci_cap, offset)], 0xff, 12);
	p->pci_cfg_cap = cap;
}

static void bar_fill(struct virtio_pci *p)
{
	struct pci_func *f = &p->func;
	struct loop *ctl = f->vm->loop;

	pci_bar_init(f, VIRTIO_BAR, VIRTIO_BAR_SIZE, PCI_BAR_64 | PCI_BAR_PREFETCH);
	pci_bar_region(f, VIRTIO_BAR, OFF_COMMON, AREA_SIZE, "virtio-common", &common_ops, p,
		       ctl);
	f->bar[VIRTIO_BAR].region[0].owner_reads = true;
	pci_bar_region(f, VIRTIO_BAR, OFF_ISR, AREA_SIZE, "virtio-isr", &isr_ops, p, NULL);
	pci_bar_region(f, VIRTIO_BAR, OFF_DEVICE, AREA_SIZE, "virtio-device", &device_area_ops,
		       p, ctl);
	pci_bar_region(f, VIRTIO_BAR, OFF_NOTIFY, AREA_SIZE, "virtio-notify", &notify_ops, p,
		       NULL);
}

static void class_fill(struct virtio_pci *p)
{
	const struct virtio_ops *ops = p->vd->ops;
	unsigned n = 0;

	snprintf(p->class_name, sizeof(p->class_name), "%s-pci", ops->name);
	p->class_state[n++] = &func_state;
	p->class_state[n++] = &transport_state;
	p->class_state[n++] = &common_state;
	if (ops->state) {
		p->dev_state = (struct device_state_ops){
			.desc = ops->state,
			.save = type_save,
			.load = type_load,
		};
		p->class_state[n++] = &p->dev_state;
	}
	p->class_ops = (struct device_ops){
		.name = p->class_name,
		.reset = dev_reset,
		.pause = dev_pause,
		.resume = dev_resume,
		.destroy = dev_destroy,
		.state = p->class_state,
	};
}

int virtio_pci_new(struct vm *vm, struct virtio_dev *vd, const struct virtio_pci_config *cfg,
		   struct device **out, struct err *err)
{
	struct virtio_pci *p;
	int r;

	if (cfg->vectors > MAX_VECTORS) {
		r = err_set(err, EINVAL,
			    "%s: vectors=%u is more than the %u that MSI-X has here", cfg->id,
			    cfg->vectors, MAX_VECTORS);
		goto destroy_vd;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		r = err_set(err, ENOMEM, "%s: out of memory", cfg->id);
		goto destroy_vd;
	}
	p->vd = vd;
	p->nvec = cfg->vectors ? cfg->vectors : vd->nqueues + 1;
	p->func.vm = vm;
	p->func.multifunction = cfg->multifunction;
	class_fill(p);
	r = pci_func_add(&p->func, cfg->bus, cfg->devfn, cfg->id, &func_ops, err);
	if (r < 0) {
		goto free_p;
	}
	header_fill(p);
	bar_fill(p);
	r = msix_init(&p->func, p->nvec, VIRTIO_BAR, OFF_MSIX_TABLE, OFF_MSIX_PBA, err);
	if (r < 0) {
		goto remove_func;
	}
	r = device_add(vm->devices, &p->dev, &p->class_ops, cfg->id, err);
	if (r < 0) {
		goto fini_msix;
	}
	vd->transport = &transport_ops;
	vd->dev = &p->dev;
	*out = &p->dev;
	return 0;

fini_msix:
	msix_fini(&p->func);
remove_func:
	pci_func_remove(&p->func);
free_p:
	free(p);
destroy_vd:
	vd->ops->destroy(vd);
	return r;
}
