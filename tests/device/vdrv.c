/*
 * A virtio driver for tests: see vdrv.h. What is checked here with must() is what a driver that
 * follows the specification relies on, so a test that uses it checks that too.
 */
#include "vdrv.h"

#include <stddef.h>
#include <string.h>
#include <time.h>

#include "vdrv_int.h"

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* --- registers --- */

uint64_t vdrv_read(struct vdrv *d, uint64_t addr, unsigned len)
{
	return d->cpu ? fake_cpu_mmio_read(d->cpu, addr, len)
		      : fake_mmio_read(d->fv, addr, len);
}

void vdrv_write(struct vdrv *d, uint64_t addr, uint64_t value, unsigned len)
{
	if (d->cpu) {
		fake_cpu_mmio_write(d->cpu, addr, value, len);
	} else {
		fake_mmio_write(d->fv, addr, value, len);
	}
}

uint32_t vdrv_common(struct vdrv *d, unsigned off, unsigned len)
{
	return (uint32_t)vdrv_read(d, d->common + off, len);
}

void vdrv_common_set(struct vdrv *d, unsigned off, unsigned len, uint32_t value)
{
	vdrv_write(d, d->common + off, value, len);
}

uint8_t vdrv_status(struct vdrv *d)
{
	return (uint8_t)VDRV_COMMON(d, device_status);
}

void vdrv_status_set(struct vdrv *d, uint8_t status)
{
	VDRV_COMMON_SET(d, device_status, status);
}

uint64_t vdrv_config(struct vdrv *d, unsigned off, unsigned len)
{
	return vdrv_read(d, d->device + off, len);
}

void vdrv_config_set(struct vdrv *d, unsigned off, unsigned len, uint64_t value)
{
	vdrv_write(d, d->device + off, value, len);
}

static void common_set64(struct vdrv *d, unsigned off, uint64_t v)
{
	vdrv_common_set(d, off, 4, (uint32_t)v);
	vdrv_common_set(d, off + 4, 4, (uint32_t)(v >> 32));
}

/* --- configuration space; control loop --- */

static uint32_t cfg_read(struct vdrv *d, unsigned off, unsigned len)
{
	return pci_cfg_read(d->root, 0, d->devfn, off, len);
}

static void cfg_write(struct vdrv *d, unsigned off, unsigned len, uint32_t v)
{
	pci_cfg_write(d->root, 0, d->devfn, off, len, v);
}

static void bar_write(struct vdrv *d, unsigned bar, uint64_t addr)
{
	cfg_write(d, 0x10 + 4 * bar, 4, (uint32_t)addr);
	cfg_write(d, 0x14 + 4 * bar, 4, (uint32_t)(addr >> 32));
}

static void cap_use(struct vdrv *d, unsigned cap)
{
	unsigned type = cfg_read(d, cap + offsetof(struct virtio_pci_cap, cfg_type), 1);
	unsigned bar = cfg_read(d, cap + offsetof(struct virtio_pci_cap, bar), 1);
	unsigned len = cfg_read(d, cap + offsetof(struct virtio_pci_cap, cap_len), 1);
	uint32_t off = cfg_read(d, cap + offsetof(struct virtio_pci_cap, offset), 4);
	uint32_t length = cfg_read(d, cap + offsetof(struct virtio_pci_cap, length), 4);

	must(len >= sizeof(struct virtio_pci_cap));
	if (type == VIRTIO_PCI_CAP_PCI_CFG) {
		must(len >= sizeof(struct virtio_pci_cfg_cap));
		d->pci_cfg_cap = cap;
		return;
	}
	must(bar == 4);
	switch (type) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		must(length >= 56 && off % 4 == 0);
		d->common = d->bar + off;
		break;
	case VIRTIO_PCI_CAP_ISR_CFG:
		must(length >= 1);
		d->isr = d->bar + off;
		break;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		must(length >= 4 && off % 4 == 0);
		d->device = d->bar + off;
		d->device_len = length;
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		must(len >= sizeof(struct virtio_pci_notify_cap) && off % 2 == 0);
		d->notify = d->bar + off;
		d->notify_multiplier = cfg_read(
			d, cap + offsetof(struct virtio_pci_notify_cap, notify_off_multiplier),
			4);
		must(length >= 2);
		break;
	default:
		break;
	}
}

static void caps_walk(struct vdrv *d)
{
	unsigned cap = cfg_read(d, 0x34, 1);

	d->common = d->isr = d->device = d->notify = 0;
	d->pci_cfg_cap = d->msix_cap = 0;
	for (int n = 0; cap && n < 48; n++) {
		unsigned id = cfg_read(d, cap, 1);

		must(cap % 4 == 0 && cap >= 0x40);
		if (id == VIRTIO_PCI_CAP_ID_VNDR) {
			cap_use(d, cap);
		} else if (id == 0x11) {
			uint32_t table = cfg_read(d, cap + 4, 4);

			must((table & 7) == 4);
			d->msix_cap = cap;
			d->msix_table = d->bar + (table & ~7u);
			d->nvectors = (cfg_read(d, cap + 2, 2) & 0x7ff) + 1;
		}
		cap = cfg_read(d, cap + 1, 1);
	}
	must(d->common && d->isr && d->device && d->notify && d->pci_cfg_cap && d->msix_cap);
}

static void msix_setup(struct vdrv *d)
{
	for (unsigned i = 0; i < d->nvectors; i++) {
		uint64_t e = d->msix_table + 16ull * i;

		vdrv_write(d, e, VDRV_MSI_ADDR, 4);
		vdrv_write(d, e + 4, 0, 4);
		vdrv_write(d, e + 8, VDRV_MSI_DATA + i + 256u * d->devfn, 4);
		vdrv_write(d, e + 12, 0, 4);
	}
	cfg_write(d, d->msix_cap + 2, 2, 0x8000);
}

void vdrv_init(struct vdrv *d, struct fake_vm *fv, struct pci_bus *root, uint8_t devfn,
	       uint64_t bar)
{
	memset(d, 0, sizeof(*d));
	d->fv = fv;
	d->root = root;
	d->devfn = devfn;
	d->bar = bar;
	d->mem_next = VDRV_MEM_BASE + 0x100000ull * (devfn >> 3);
	must(cfg_read(d, 0, 2) == VIRTIO_PCI_VENDOR_ID);
	must(cfg_read(d, 2, 2) > VIRTIO_PCI_DEVICE_ID_BASE);
	must(cfg_read(d, 8, 1) >= 1);	    /* revision */
	must(cfg_read(d, 0x2e, 2) >= 0x40); /* subsystem */
	must(cfg_read(d, 0x3d, 1) == 0);    /* no INTx */
	must((cfg_read(d, 0x20, 4) & 7) == 4);
	bar_write(d, 4, bar);
	cfg_write(d, 4, 2, 6);
	caps_walk(d);
	must(VDRV_COMMON(d, num_queues) <= VIRTIO_MAX_QUEUES);
	d->nqueues = MIN(VDRV_COMMON(d, num_queues), VDRV_QUEUES);
	msix_setup(d);
}

void vdrv_bar_move(struct vdrv *d, uint64_t bar)
{
	uint64_t delta = bar - d->bar;

	bar_write(d, 4, bar);
	d->bar = bar;
	d->common += delta;
	d->isr += delta;
	d->device += delta;
	d->notify += delta;
	d->msix_table += delta;
	for (unsigned i = 0; i < d->nqueues; i++) {
		d->q[i].notify += delta;
	}
}

static void rings_map(struct vdrv_queue *q)
{
	if (q->size) {
		q->desc = vdrv_ptr(q->d, q->desc_gpa, 16ull * q->size);
		q->avail = vdrv_ptr(q->d, q->avail_gpa, 6 + 2ull * q->size);
		q->used = vdrv_ptr(q->d, q->used_gpa, 6 + 8ull * q->size);
	}
}

void vdrv_adopt(struct vdrv *d, const struct vdrv *old, struct fake_vm *fv,
		struct pci_bus *root)
{
	*d = *old;
	d->fv = fv;
	d->root = root;
	d->cpu = NULL;
	for (unsigned i = 0; i < d->nqueues; i++) {
		d->q[i].d = d;
		rings_map(&d->q[i]);
	}
}

/* --- life --- */

uint64_t vdrv_offered(struct vdrv *d)
{
	uint64_t f;

	VDRV_COMMON_SET(d, device_feature_select, 0);
	f = VDRV_COMMON(d, device_feature);
	VDRV_COMMON_SET(d, device_feature_select, 1);
	return f | (uint64_t)VDRV_COMMON(d, device_feature) << 32;
}

void vdrv_settle(struct vdrv *d)
{
	if (loop_is_current(d->fv->vm.loop)) {
		loop_step(d->fv->vm.loop, 1);
	} else {
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
}

static bool expired(uint64_t since)
{
	return now_ns() - since > UINT64_C(10000000000);
}

bool vdrv_reset(struct vdrv *d)
{
	uint64_t since = now_ns();

	vdrv_status_set(d, 0);
	while (vdrv_status(d)) {
		if (expired(since)) {
			return false;
		}
		vdrv_settle(d);
	}
	d->features = 0;
	return true;
}

bool vdrv_negotiate(struct vdrv *d, uint64_t wanted)
{
	uint64_t f = vdrv_offered(d) & (wanted | d->always | FEATURE(VIRTIO_F_VERSION_1));

	vdrv_status_set(d, VIRTIO_STATUS_ACKNOWLEDGE);
	vdrv_status_set(d, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	VDRV_COMMON_SET(d, driver_feature_select, 0);
	VDRV_COMMON_SET(d, driver_feature, (uint32_t)f);
	VDRV_COMMON_SET(d, driver_feature_select, 1);
	VDRV_COMMON_SET(d, driver_feature, (uint32_t)(f >> 32));
	vdrv_status_set(d, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
				   VIRTIO_STATUS_FEATURES_OK);
	d->features = f;
	return vdrv_status(d) & VIRTIO_STATUS_FEATURES_OK;
}

static void rings_new(struct vdrv_queue *q)
{
	struct vdrv *d = q->d;

	if (!q->desc || q->size > VIRTQ_MAX_SIZE) {
		q->desc_gpa = vdrv_alloc(d, 16ull * VIRTQ_MAX_SIZE, 16);
		q->avail_gpa = vdrv_alloc(d, 6 + 2ull * VIRTQ_MAX_SIZE, 4);
		q->used_gpa = vdrv_alloc(d, 6 + 8ull * VIRTQ_MAX_SIZE, 4);
	}
	rings_map(q);
	q->pending = 0;
	q->packed = d->features >> VIRTIO_F_RING_PACKED & 1;
	if (q->packed) {
		packed_new(q);
		return;
	}
	memset(q->desc, 0, 16ull * q->size);
	memset(q->avail, 0, 6 + 2ull * q->size);
	memset(q->used, 0, 6 + 8ull * q->size);
	q->avail_idx = q->kicked_idx = q->last_used = 0;
	q->nfree = q->size;
	q->free_head = 0;
	for (uint16_t i = 0; i < q->size; i++) {
		vdrv_desc_set(q, i, 0, 0, 0, (uint16_t)(i + 1));
	}
}

void vdrv_queue_setup(struct vdrv *d, unsigned i, uint16_t size)
{
	struct vdrv_queue *q = &d->q[i];
	uint16_t offered;

	VDRV_COMMON_SET(d, queue_select, i);
	must(VDRV_COMMON(d, queue_select) == i);
	must(!VDRV_COMMON(d, queue_enable));
	offered = (uint16_t)VDRV_COMMON(d, queue_size);
	must(offered && !(offered & (offered - 1)) && offered <= VIRTQ_MAX_SIZE);
	q->d = d;
	q->index = i;
	q->size = size ? size : offered;
	if (size) {
		VDRV_COMMON_SET(d, queue_size, size);
		must(VDRV_COMMON(d, queue_size) == size);
	}
	q->notify =
		d->notify + (uint64_t)VDRV_COMMON(d, queue_notify_off) * d->notify_multiplier;
	rings_new(q);
	VDRV_COMMON_SET(d, queue_msix_vector, i + 1);
	must(VDRV_COMMON(d, queue_msix_vector) == i + 1);
	common_set64(d, offsetof(struct virtio_pci_common_cfg, queue_desc), q->desc_gpa);
	common_set64(d, offsetof(struct virtio_pci_common_cfg, queue_driver), q->avail_gpa);
	common_set64(d, offsetof(struct virtio_pci_common_cfg, queue_device), q->used_gpa);
}

void vdrv_queue_enable(struct vdrv *d, unsigned i)
{
	VDRV_COMMON_SET(d, queue_select, i);
	VDRV_COMMON_SET(d, queue_enable, 1);
	must(VDRV_COMMON(d, queue_enable) == 1);
}

bool vdrv_queue_reset(struct vdrv *d, unsigned i)
{
	uint64_t since = now_ns();

	VDRV_COMMON_SET(d, queue_select, i);
	VDRV_COMMON_SET(d, queue_reset, 1);
	while (VDRV_COMMON(d, queue_reset) || VDRV_COMMON(d, queue_enable)) {
		if (expired(since)) {
			return false;
		}
		vdrv_settle(d);
		VDRV_COMMON_SET(d, queue_select, i);
	}
	return true;
}

void vdrv_start(struct vdrv *d, uint64_t wanted, uint16_t size)
{
	must(vdrv_reset(d));
	must(vdrv_negotiate(d, wanted));
	VDRV_COMMON_SET(d, config_msix_vector, 0);
	must(VDRV_COMMON(d, config_msix_vector) == 0);
	for (unsigned i = 0; i < d->nqueues; i++) {
		vdrv_queue_setup(d, i, size);
		vdrv_queue_enable(d, i);
	}
	vdrv_status_set(d, vdrv_status(d) | VIRTIO_STATUS_DRIVER_OK);
	must(vdrv_status(d) & VIRTIO_STATUS_DRIVER_OK);
}

/* --- memory --- */

gpa_t vdrv_alloc(struct vdrv *d, uint64_t len, uint64_t align)
{
	gpa_t a = align_up(d->mem_next, align);

	d->mem_next = a + len;
	must(mem_ptr(d->fv->vm.mem, a, len, true) != NULL);
	return a;
}

void *vdrv_ptr(struct vdrv *d, gpa_t gpa, uint64_t len)
{
	void *p = mem_ptr(d->fv->vm.mem, gpa, len, true);

	must(p != NULL);
	return p;
}

/* --- rings --- */

static uint16_t ring_get(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void ring_set(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}

static void desc_write(struct virtq_desc *t, uint16_t i, uint64_t addr, uint32_t len,
		       uint16_t flags, uint16_t next)
{
	uint64_t *p = (uint64_t *)(void *)&t[i];

	__atomic_store_n(p, addr, __ATOMIC_RELAXED);
	__atomic_store_n(p + 1, len | (uint64_t)flags << 32 | (uint64_t)next << 48,
			 __ATOMIC_RELAXED);
}

void vdrv_desc_set(struct vdrv_queue *q, uint16_t i, uint64_t addr, uint32_t len,
		   uint16_t flags, uint16_t next)
{
	if (q->packed) {
		packed_desc_set(q, i, addr, len, flags, next);
	} else {
		desc_write(q->desc, i, addr, len, flags, next);
	}
}

static uint16_t desc_next(const struct vdrv_queue *q, uint16_t i)
{
	const uint64_t *p = (const uint64_t *)(const void *)&q->desc[i];

	return (uint16_t)(__atomic_load_n(p + 1, __ATOMIC_RELAXED) >> 48);
}

void vdrv_avail_put(struct vdrv_queue *q, uint16_t head)
{
	if (q->packed) {
		packed_avail_put(q, head);
		return;
	}
	ring_set(&q->avail[2 + (q->avail_idx & (q->size - 1))], head);
	vdrv_avail_idx_set(q, (uint16_t)(q->avail_idx + 1));
}

void vdrv_avail_idx_set(struct vdrv_queue *q, uint16_t idx)
{
	if (q->packed) {
		packed_avail_idx_set(q, idx);
		return;
	}
	q->avail_idx = idx;
	ring_set(&q->avail[1], idx);
}

struct virtq_desc *table_for(struct vdrv_queue *q, uint16_t i, unsigned n)
{
	if (q->table_len[i] < n) {
		q->table[i] = vdrv_alloc(q->d, 16ull * n, 16);
		q->table_len[i] = (uint16_t)n;
	}
	return vdrv_ptr(q->d, q->table[i], 16ull * n);
}

static int add_indirect(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out,
			unsigned n)
{
	uint16_t head = q->free_head;
	struct virtq_desc *t;

	if (!q->nfree) {
		return -1;
	}
	q->free_head = desc_next(q, head);
	q->nfree--;
	q->chain_len[head] = 1;
	t = table_for(q, head, n);
	for (unsigned i = 0; i < n; i++) {
		desc_write(t, (uint16_t)i, seg[i].addr, seg[i].len, seg_flags(i, n_out, n),
			   (uint16_t)(i + 1));
	}
	vdrv_desc_set(q, head, q->table[head], 16 * n, VIRTQ_DESC_F_INDIRECT, 0);
	vdrv_avail_put(q, head);
	return head;
}

static int add_direct(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out,
		      unsigned n)
{
	uint16_t head = q->free_head, i = head;

	if (n > q->nfree) {
		return -1;
	}
	for (unsigned k = 0; k < n; k++) {
		uint16_t next = desc_next(q, i);

		vdrv_desc_set(q, i, seg[k].addr, seg[k].len, seg_flags(k, n_out, n), next);
		i = next;
	}
	q->free_head = i;
	q->nfree = (uint16_t)(q->nfree - n);
	q->chain_len[head] = (uint16_t)n;
	vdrv_avail_put(q, head);
	return head;
}

int vdrv_add(struct vdrv_queue *q, const struct vdrv_seg *seg, unsigned n_out, unsigned n_in,
	     unsigned flags)
{
	unsigned n = n_out + n_in;
	int head = q->packed		   ? packed_add(q, seg, n_out, n, flags & VDRV_INDIRECT)
		   : flags & VDRV_INDIRECT ? add_indirect(q, seg, n_out, n)
					   : add_direct(q, seg, n_out, n);

	q->pending += head >= 0;
	return head;
}

bool vdrv_kick_wanted(struct vdrv_queue *q)
{
	if (q->packed) {
		return packed_kick_wanted(q);
	}
	if (q->d->features & FEATURE(VIRTIO_F_EVENT_IDX)) {
		uint16_t event = ring_get(&q->used[2 + 4 * q->size]);

		return (uint16_t)(q->avail_idx - event - 1) <
		       (uint16_t)(q->avail_idx - q->kicked_idx);
	}
	return !(ring_get(&q->used[0]) & VIRTQ_USED_F_NO_NOTIFY);
}

void vdrv_kick_always(struct vdrv_queue *q)
{
	q->kicked_idx = q->avail_idx;
	q->unkicked = 0;
	vdrv_write(q->d, q->notify, q->index, 2);
}

void vdrv_kick(struct vdrv_queue *q)
{
	bool wanted = vdrv_kick_wanted(q);

	q->kicked_idx = q->avail_idx;
	q->unkicked = 0;
	if (wanted) {
		vdrv_kick_always(q);
	}
}

static bool split_used(struct vdrv_queue *q, uint16_t *head, uint32_t *len)
{
	uint16_t slot = q->last_used & (q->size - 1);
	const uint32_t *e = (const uint32_t *)(const void *)&q->used[2 + 4 * slot];
	uint32_t id;
	uint16_t last;

	if (__atomic_load_n(&q->used[1], __ATOMIC_ACQUIRE) == q->last_used) {
		return false;
	}
	id = __atomic_load_n(e, __ATOMIC_RELAXED);
	*head = (uint16_t)id;
	*len = __atomic_load_n(e + 1, __ATOMIC_RELAXED);
	must(id < q->size && q->chain_len[id]);
	q->last_used++;
	last = (uint16_t)id;
	for (unsigned k = 1; k < q->chain_len[id]; k++) {
		last = desc_next(q, last);
	}
	vdrv_desc_set(q, last, 0, 0, 0, q->free_head);
	q->free_head = (uint16_t)id;
	q->nfree = (uint16_t)(q->nfree + q->chain_len[id]);
	q->chain_len[id] = 0;
	return true;
}

bool vdrv_used(struct vdrv_queue *q, uint16_t *head, uint32_t *len)
{
	bool got = q->packed ? packed_used(q, head, len) : split_used(q, head, len);

	q->pending -= got && q->pending;
	return got;
}

unsigned vdrv_used_total(struct vdrv_queue *q)
{
	return q->packed ? packed_used_total(q) : ring_get(&q->used[1]);
}

bool vdrv_wait(struct vdrv_queue *q, uint16_t *head, uint32_t *len)
{
	uint64_t since = now_ns();

	while (!vdrv_used(q, head, len)) {
		if (expired(since)) {
			return false;
		}
		vdrv_settle(q->d);
	}
	return true;
}

void vdrv_irq_on(struct vdrv_queue *q)
{
	if (q->packed) {
		packed_irq_on(q);
		return;
	}
	ring_set(&q->avail[0], 0);
	ring_set(&q->avail[2 + q->size], q->last_used);
}

void vdrv_irq_off(struct vdrv_queue *q)
{
	if (q->packed) {
		packed_irq_off(q);
		return;
	}
	ring_set(&q->avail[0], VIRTQ_AVAIL_F_NO_INTERRUPT);
	ring_set(&q->avail[2 + q->size], (uint16_t)(q->last_used - 1));
}

uint64_t vdrv_irqs(struct vdrv *d, unsigned vector)
{
	return fake_irq_data_count(&d->fv->irq, VDRV_MSI_DATA + vector + 256u * d->devfn);
}
