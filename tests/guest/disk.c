/*
 * A driver for one virtio-blk disk: VIRTIO 1.2, sections 3.1 (initialisation), 2.7 (split
 * virtqueue), 4.1 (PCI), 5.2 (block device). Each request has a slot with three descriptors, so
 * that several can be on their way; completion by MSI-X.
 */
#include "guest.h"
#include "spec/pci.h"
#include "spec/virtio.h"
#include "spec/virtio_blk.h"
#include "spec/virtio_pci.h"

#define SIZE	64u
#define DESCS	3u		      /* of a slot */
#define WAIT_NS UINT64_C(20000000000) /* a host may be slow */

#define COMMON(field) (disk.common + offsetof(struct virtio_pci_common_cfg, field))

static struct {
	uint32_t bdf;
	uintptr_t common, notify, device;
	uint16_t avail_idx, used_idx;
	uint64_t features;
	volatile bool signalled;
	unsigned busy; /* slots whose request is not done */
	struct {
		struct virtio_blk_req_hdr hdr;
		struct virtio_blk_discard_write_zeroes range;
		volatile uint8_t status;
		bool busy;
	} slot[DISK_SLOTS];
} disk;
_Static_assert(DISK_SLOTS *DESCS <= SIZE, "descriptors");

static struct {
	struct virtq_desc desc[SIZE];
	struct {
		uint16_t flags, idx, ring[SIZE], used_event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct virtq_used_elem ring[SIZE];
		uint16_t avail_event;
	} used __attribute__((aligned(64)));
} vq __attribute__((aligned(64)));

static uintptr_t structure(unsigned cfg_type, unsigned *cap)
{
	unsigned at = 0;

	while ((at = pci_cap(disk.bdf, PCI_CAP_VENDOR, at))) {
		if (pci_read8(disk.bdf, at + offsetof(struct virtio_pci_cap, cfg_type)) ==
		    cfg_type) {
			*cap = at;
			return pci_bar(disk.bdf,
				       pci_read8(disk.bdf,
						 at + offsetof(struct virtio_pci_cap, bar))) +
			       pci_read32(disk.bdf,
					  at + offsetof(struct virtio_pci_cap, offset));
		}
	}
	guest_fail("a virtio structure is missing");
}

static uint64_t features(void)
{
	uint64_t f;

	mmio_write32(COMMON(device_feature_select), 1);
	f = (uint64_t)mmio_read32(COMMON(device_feature)) << 32;
	mmio_write32(COMMON(device_feature_select), 0);
	return f | mmio_read32(COMMON(device_feature));
}

static void set_features(uint64_t f)
{
	mmio_write32(COMMON(driver_feature_select), 0);
	mmio_write32(COMMON(driver_feature), (uint32_t)f);
	mmio_write32(COMMON(driver_feature_select), 1);
	mmio_write32(COMMON(driver_feature), (uint32_t)(f >> 32));
}

static void queue_start(void)
{
	unsigned cap;
	uint32_t mult;

	mmio_write16(COMMON(queue_select), 0);
	if (mmio_read16(COMMON(queue_size)) < SIZE) {
		guest_fail("the disk's queue is too small");
	}
	mmio_write16(COMMON(queue_size), SIZE);
	mmio_write32(COMMON(queue_desc), (uint32_t)(uintptr_t)vq.desc);
	mmio_write32(COMMON(queue_desc) + 4, 0);
	mmio_write32(COMMON(queue_driver), (uint32_t)(uintptr_t)&vq.avail);
	mmio_write32(COMMON(queue_driver) + 4, 0);
	mmio_write32(COMMON(queue_device), (uint32_t)(uintptr_t)&vq.used);
	mmio_write32(COMMON(queue_device) + 4, 0);
	pci_msix(disk.bdf, 0, lapic_id(), IRQ_DISK);
	mmio_write16(COMMON(config_msix_vector), VIRTIO_MSI_NO_VECTOR);
	mmio_write16(COMMON(queue_msix_vector), 0);
	if (mmio_read16(COMMON(queue_msix_vector)) != 0) {
		guest_fail("the disk takes no MSI-X vector");
	}
	disk.notify = structure(VIRTIO_PCI_CAP_NOTIFY_CFG, &cap);
	mult = pci_read32(disk.bdf,
			  cap + offsetof(struct virtio_pci_notify_cap, notify_off_multiplier));
	disk.notify += mult * mmio_read16(COMMON(queue_notify_off));
	mmio_write16(COMMON(queue_enable), 1);
}

void disk_init(void)
{
	const uint64_t want = UINT64_C(1) << VIRTIO_F_VERSION_1 | 1u << VIRTIO_BLK_F_FLUSH;
	const uint64_t like = 1u << VIRTIO_BLK_F_DISCARD | 1u << VIRTIO_BLK_F_WRITE_ZEROES;
	unsigned cap;

	disk.bdf = pci_find(VIRTIO_PCI_VENDOR_ID, VIRTIO_PCI_DEVICE_ID_BASE + VIRTIO_ID_BLOCK);
	if (disk.bdf == PCI_NONE) {
		guest_fail("no virtio-blk disk");
	}
	pci_enable(disk.bdf);
	disk.common = structure(VIRTIO_PCI_CAP_COMMON_CFG, &cap);
	disk.device = structure(VIRTIO_PCI_CAP_DEVICE_CFG, &cap);
	mmio_write8(COMMON(device_status), 0);
	while (mmio_read8(COMMON(device_status))) {
		pause();
	}
	mmio_write8(COMMON(device_status), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	disk.features = features() & (want | like);
	if ((disk.features & want) != want) {
		guest_fail("the disk lacks VERSION_1 or FLUSH");
	}
	set_features(disk.features);
	mmio_write8(COMMON(device_status), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
						   VIRTIO_STATUS_FEATURES_OK);
	if (!(mmio_read8(COMMON(device_status)) & VIRTIO_STATUS_FEATURES_OK)) {
		guest_fail("the disk refuses the features");
	}
	queue_start();
	mmio_write8(COMMON(device_status), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
						   VIRTIO_STATUS_FEATURES_OK |
						   VIRTIO_STATUS_DRIVER_OK);
}

void disk_irq_to(uint32_t apic_id)
{
	pci_msix(disk.bdf, 0, apic_id, IRQ_DISK);
}

uint64_t disk_sectors(void)
{
	return (uint64_t)mmio_read32(disk.device + 4) << 32 | mmio_read32(disk.device);
}

void disk_irq(void)
{
	disk.signalled = true;
}

static unsigned desc(unsigned i, const volatile void *at, size_t len, unsigned flags)
{
	vq.desc[i] = (struct virtq_desc){
		.addr = le64_of((uintptr_t)at),
		.len = le32_of((uint32_t)len),
		.flags = le16_of((uint16_t)flags),
		.next = le16_of((uint16_t)(i + 1)),
	};
	return i + 1;
}

static void submit(unsigned slot, uint32_t type, uint64_t sector, const void *data, size_t len)
{
	volatile uint16_t *avail = &vq.avail.idx;
	unsigned first = slot * DESCS, n = first;

	if (disk.slot[slot].busy) {
		guest_fail("the slot is in use");
	}
	disk.slot[slot].hdr =
		(struct virtio_blk_req_hdr){.type = le32_of(type), .sector = le64_of(sector)};
	disk.slot[slot].status = 0xff;
	disk.slot[slot].busy = true;
	disk.busy++;
	n = desc(n, &disk.slot[slot].hdr, sizeof(disk.slot[slot].hdr), VIRTQ_DESC_F_NEXT);
	if (len) {
		n = desc(n, data, len,
			 VIRTQ_DESC_F_NEXT |
				 (type == VIRTIO_BLK_T_IN ? VIRTQ_DESC_F_WRITE : 0));
	}
	desc(n, &disk.slot[slot].status, 1, VIRTQ_DESC_F_WRITE);
	vq.avail.ring[disk.avail_idx % SIZE] = (uint16_t)first;
	disk.signalled = false;
	__asm__ volatile("" : : : "memory");
	*avail = ++disk.avail_idx;
	__sync_synchronize();
	mmio_write16(disk.notify, 0);
}

static void done(void)
{
	uint32_t id = le32_get(vq.used.ring[disk.used_idx++ % SIZE].id);

	if (id % DESCS || id / DESCS >= DISK_SLOTS || !disk.slot[id / DESCS].busy) {
		guest_fail("the disk answers another request");
	}
	if (disk.slot[id / DESCS].status != VIRTIO_BLK_S_OK) {
		guest_fail("the disk reports an error");
	}
	disk.slot[id / DESCS].busy = false;
	disk.busy--;
}

void disk_wait(void)
{
	volatile uint16_t *used = &vq.used.idx;
	uint64_t end = clock_ns() + WAIT_NS;

	while (disk.busy) {
		irq_off();
		while (!disk.signalled) {
			irq_wait(); /* the timer wakes, too */
			if (clock_ns() > end) {
				guest_fail("the disk does not answer");
			}
		}
		disk.signalled = false;
		irq_on();
		/* none, if those of this interrupt were seen with the last one */
		while (*used != disk.used_idx) {
			done();
		}
	}
}

void disk_write_start(unsigned slot, uint64_t sector, const void *data, uint32_t len)
{
	submit(slot, VIRTIO_BLK_T_OUT, sector, data, len);
}

bool disk_erase_start(unsigned slot, bool zero, uint64_t sector, uint32_t sectors)
{
	unsigned feature = zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD;

	if (!(disk.features >> feature & 1)) {
		return false;
	}
	disk.slot[slot].range = (struct virtio_blk_discard_write_zeroes){
		.sector = le64_of(sector),
		.num_sectors = le32_of(sectors),
		.flags = le32_of(zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0),
	};
	submit(slot, zero ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD, 0,
	       &disk.slot[slot].range, sizeof(disk.slot[slot].range));
	return true;
}

void disk_read(uint64_t sector, void *data, uint32_t len)
{
	submit(0, VIRTIO_BLK_T_IN, sector, data, len);
	disk_wait();
}

void disk_write(uint64_t sector, const void *data, uint32_t len)
{
	submit(0, VIRTIO_BLK_T_OUT, sector, data, len);
	disk_wait();
}

void disk_flush(void)
{
	submit(0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
	disk_wait();
}
