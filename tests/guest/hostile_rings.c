/*
 * Virtio devices in the hands of the hostile guest (hostile.c): drivers that do the life cycle of
 * VIRTIO 1.2, 3.1 with nonsense in every step, and one that does it well (2.7, 4.1, 5.1 to 5.4), to
 * see that the device is still good for something.
 */
#include "hostile.h"
#include "spec/pci.h"
#include "spec/virtio.h"
#include "spec/virtio_blk.h"
#include "spec/virtio_net.h"
#include "spec/virtio_pci.h"

#define SIZE	   8u
#define WAIT_NS	   UINT64_C(60000000000) /* a host may be slow */
#define QUEUES	   4u			 /* of a device that a storm uses */
#define RINGS	   0x8000u		 /* bytes of the arena for each of them */
#define REG(field) (f->common + offsetof(struct virtio_pci_common_cfg, field))

/* --- a storm --- */

static void write64(uintptr_t at, uint64_t v)
{
	mmio_write32(at, (uint32_t)v);
	mmio_write32(at + 4, (uint32_t)(v >> 32));
}

static bool reset(const struct fn *f, uint64_t wait_ns)
{
	uint64_t end = clock_ns() + wait_ns;

	mmio_write8(REG(device_status), 0);
	while (mmio_read8(REG(device_status))) {
		if (clock_ns() > end) {
			return false;
		}
		pause();
	}
	return true;
}

/* Descriptors: anything; or short chains that are nearly right. */
static void descriptors(struct cpu *c, volatile struct virtq_desc *d, unsigned n)
{
	bool good = noise(c) % 2;

	for (unsigned i = 0; i < n; i++) {
		uint64_t at = good ? victim + noise(c) % (uint32_t)(ram_end - victim - 0x10000)
				   : address(c);
		uint32_t len = noise(c) % 4 ? noise(c) % 0x1000 : noise(c) % 64;
		uint16_t flags = (uint16_t)(noise(c) & 7), next = (uint16_t)(i + 1);

		if (good) {
			flags &= 3; /* header, data, status */
			flags = (uint16_t)(i % 3 == 0 ? 1 : i % 3 == 1 ? flags | 1 : 2);
			len = i % 3 == 0 ? 16 : i % 3 == 2 ? 1 : len;
			memset((void *)at, 0, 16);
			*(volatile uint32_t *)at = noise(c) % 16;
			*(volatile uint32_t *)(at + 8) = noise(c) % 0x2000;
		} else if (noise(c) % 4 == 0) {
			len = (uint32_t)value(c);
			next = (uint16_t)noise(c);
		}
		if (noise(c) % 32 == 0) {
			flags = (uint16_t)noise(c);
			next = (uint16_t)(noise(c) % n);
		}
		d[i].addr = le64_of(at);
		d[i].len = le32_of(len);
		d[i].flags = le16_of(flags);
		d[i].next = le16_of(next);
	}
}

static void queue(struct cpu *c, const struct fn *f, unsigned q)
{
	uintptr_t desc = c->arena + q * RINGS, avail = desc + 0x4000, used = desc + 0x5000;
	uint16_t size = (uint16_t)(noise(c) % 8 ? 1u << noise(c) % 9 : noise(c));
	unsigned n = size && size <= 256 ? size : 256;
	volatile uint16_t *a = (void *)avail;

	descriptors(c, (void *)desc, n);
	for (unsigned i = 0; i < n; i++) {
		a[2 + i] = (uint16_t)(noise(c) % 16 ? i / 3 * 3 % n : noise(c));
	}
	a[0] = (uint16_t)noise(c) & 1;
	a[1] = (uint16_t)(noise(c) % 8 ? n / 3 : noise(c));
	mmio_write16(REG(queue_select), (uint16_t)(noise(c) % 16 ? q : noise(c)));
	mmio_write16(REG(queue_size), size);
	mmio_write16(REG(queue_msix_vector), (uint16_t)(noise(c) % 4 ? q + 1 : noise(c)));
	write64(REG(queue_desc), noise(c) % 16 ? desc : address(c));
	write64(REG(queue_driver), noise(c) % 16 ? avail : address(c));
	write64(REG(queue_device), noise(c) % 16 ? used : address(c));
	mmio_write16(REG(queue_enable), 1);
}

/* While the device looks at it. */
static void change(struct cpu *c)
{
	for (unsigned i = 0; i < 2000; i++) {
		uint32_t at = noise(c) % (QUEUES * RINGS);

		if (i % 4 == 0) { /* an available index */
			*(volatile uint16_t *)(c->arena + at / RINGS * RINGS + 0x4002) += 1;
		} else {
			*(volatile uint64_t *)(c->arena + (at & ~7u)) = noise64(c);
		}
	}
}

void storm(struct cpu *c, const struct fn *f)
{
	unsigned queues = QUEUES;

	if (!f->virtio) {
		return;
	}
	if (noise(c) % 4) {
		reset(f, 100000000);
	}
	if (noise(c) % 2 && f->virtio == VIRTIO_ID_CONSOLE) {
		queues = 4;
	}
	mmio_write8(REG(device_status), (uint8_t)(noise(c) % 8 ? 3 : noise(c) | 1));
	for (uint32_t half = 0; half < 2; half++) {
		uint32_t offered;

		mmio_write32(REG(device_feature_select), half);
		offered = mmio_read32(REG(device_feature));
		mmio_write32(REG(driver_feature_select), half);
		mmio_write32(REG(driver_feature),
			     noise(c) % 8 ? offered & (noise(c) | half) : noise(c));
	}
	mmio_write8(REG(device_status), (uint8_t)(noise(c) % 8 ? 0xb : noise(c) | 1));
	for (unsigned q = 0; q < queues; q++) {
		if (noise(c) % 8) {
			queue(c, f, q);
		}
	}
	mmio_write8(REG(device_status), 0xf);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned q = 0; q < queues; q++) {
			mmio_write16(f->notify + f->notify_mult * q, (uint16_t)q);
		}
		change(c);
	}
	if (noise(c) % 4 == 0) {
		mmio_write16(REG(queue_select), (uint16_t)(noise(c) % QUEUES));
		mmio_write16(REG(queue_reset), 1);
		mmio_read16(REG(queue_reset));
	}
	if (noise(c) % 4 == 0) { /* MSI-X off, masked, on */
		pci_write16(f->bdf, f->msix + PCI_MSIX_CONTROL, (uint16_t)noise(c));
	}
	mmio_read8(f->isr);
}

/* --- a driver that keeps to the rules, without interrupts --- */

static struct ring {
	struct virtq_desc desc[SIZE];
	struct {
		uint16_t flags, idx, ring[SIZE], used_event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct virtq_used_elem ring[SIZE];
		uint16_t avail_event;
	} used __attribute__((aligned(64)));
} rings[QUEUES] __attribute__((aligned(64)));
static uint8_t buffer[4096] __attribute__((aligned(64)));

static void ring_start(const struct fn *f, unsigned q)
{
	memset(&rings[q], 0, sizeof(rings[q]));
	mmio_write16(REG(queue_select), (uint16_t)q);
	if (mmio_read16(REG(queue_size)) < SIZE) {
		guest_fail("a queue is too small after a reset");
	}
	mmio_write16(REG(queue_size), SIZE);
	mmio_write16(REG(queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
	write64(REG(queue_desc), (uintptr_t)rings[q].desc);
	write64(REG(queue_driver), (uintptr_t)&rings[q].avail);
	write64(REG(queue_device), (uintptr_t)&rings[q].used);
	mmio_write16(REG(queue_enable), 1);
}

static void start(const struct fn *f, unsigned queues)
{
	if (!reset(f, WAIT_NS)) {
		guest_fail("a device does not come back from its reset");
	}
	mmio_write8(REG(device_status), 3);
	mmio_write32(REG(driver_feature_select), 0);
	mmio_write32(REG(driver_feature), 0);
	mmio_write32(REG(driver_feature_select), 1);
	mmio_write32(REG(driver_feature), 1); /* VERSION_1 */
	mmio_write8(REG(device_status), 0xb);
	if (mmio_read8(REG(device_status)) != 0xb) {
		guest_fail("a device refuses its features after a reset");
	}
	for (unsigned q = 0; q < queues; q++) {
		ring_start(f, q);
	}
	mmio_write8(REG(device_status), 0xf);
}

struct piece {
	const volatile void *at;
	uint32_t len;
	bool write;
};

/* One chain and its answer: how many bytes the device says it has written. */
static uint32_t request(const struct fn *f, unsigned q, const struct piece *p, unsigned n)
{
	struct ring *r = &rings[q];
	volatile uint16_t *used = &r->used.idx, *avail = &r->avail.idx;
	uint16_t was = *used;
	uint64_t end = clock_ns() + WAIT_NS;

	for (unsigned i = 0; i < n; i++) {
		r->desc[i] = (struct virtq_desc){
			.addr = le64_of((uintptr_t)p[i].at),
			.len = le32_of(p[i].len),
			.flags = le16_of((uint16_t)((p[i].write ? VIRTQ_DESC_F_WRITE : 0) |
						    (i + 1 < n ? VIRTQ_DESC_F_NEXT : 0))),
			.next = le16_of((uint16_t)(i + 1)),
		};
	}
	r->avail.ring[*avail % SIZE] = 0;
	__sync_synchronize();
	*avail += 1;
	__sync_synchronize();
	mmio_write16(f->notify + f->notify_mult * q, (uint16_t)q);
	while (*used == was) {
		if (clock_ns() > end) {
			put_num("status", mmio_read8(REG(device_status)));
			guest_fail("a device does not answer after a reset");
		}
		pause();
	}
	return le32_get(r->used.ring[was % SIZE].len);
}

static void disk(const struct fn *f, uint32_t type)
{
	static struct virtio_blk_req_hdr hdr;
	static volatile uint8_t status;
	bool in = type == VIRTIO_BLK_T_IN;

	hdr = (struct virtio_blk_req_hdr){.type = le32_of(type), .sector = le64_of(5)};
	status = 0xff;
	request(f, 0,
		(struct piece[]){
			{&hdr, sizeof(hdr), false}, {buffer, 512, in}, {&status, 1, true}},
		3);
	if (status != VIRTIO_BLK_S_OK) {
		guest_fail("a disk reports an error after a reset");
	}
}

static void disk_works(struct cpu *c, const struct fn *f)
{
	uint64_t want = noise64(c), *at = (uint64_t *)(void *)buffer;

	start(f, 1);
	memset(buffer, 0, 512);
	*at = want;
	disk(f, VIRTIO_BLK_T_OUT);
	memset(buffer, 0x77, 512);
	disk(f, VIRTIO_BLK_T_IN);
	if (*at != want || buffer[511]) {
		guest_fail("a disk reads something else than was written");
	}
}

static void entropy_works(const struct fn *f)
{
	uint32_t len, zeroes = 0;

	start(f, 1);
	memset(buffer, 0, 64);
	len = request(f, 0, (struct piece[]){{buffer, 64, true}}, 1);
	for (unsigned i = 0; i < 64; i++) {
		zeroes += !buffer[i];
	}
	if (len != 64 || zeroes > 8) { /* 2^-50 */
		guest_fail("the random numbers are none");
	}
}

/* Without MULTIPORT queue 1 is the console's; the host sees the text. */
static void console_works(const struct fn *f)
{
	static const char text[] = "the console works\n";

	start(f, 2);
	request(f, 1, (struct piece[]){{text, sizeof(text) - 1, false}}, 1);
}

/* A frame of an experimental EtherType, which the host sees. */
static void net_works(const struct fn *f)
{
	static const uint8_t frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,  0,
					  0,	1,    0x88, 0xb5, 'w',	'o',  'r',  'k',  's'};
	static const struct virtio_net_hdr_v1 hdr;

	start(f, 2);
	request(f, 1,
		(struct piece[]){{&hdr, sizeof(hdr), false}, {frame, sizeof(frame), false}}, 2);
}

void works(struct cpu *c, const struct fn *f)
{
	switch (f->virtio) {
	case VIRTIO_ID_BLOCK:
		disk_works(c, f);
		break;
	case VIRTIO_ID_ENTROPY:
		entropy_works(f);
		break;
	case VIRTIO_ID_CONSOLE:
		console_works(f);
		break;
	case VIRTIO_ID_NET:
		net_works(f);
		break;
	default:
		guest_fail("a device of a kind that this guest does not know");
	}
	if (!reset(f, WAIT_NS)) {
		guest_fail("a device that worked does not reset");
	}
	put_num("works", f->virtio);
	put_num("bdf", f->bdf);
	put("\n");
}
