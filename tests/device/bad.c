/*
 * The table of malformed chains and rings: see bad.h.
 */
#include "bad.h"

#include <assert.h>
#include <stddef.h>

#define NEXT	 VIRTQ_DESC_F_NEXT
#define WRITE	 VIRTQ_DESC_F_WRITE
#define INDIRECT VIRTQ_DESC_F_INDIRECT

/* --- in the queue's own table --- */

static void loop(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 8, NEXT, 1);
	vdrv_desc_set(q, 1, m->data, 8, NEXT, 0);
	vdrv_avail_put(q, 0);
}

static void loop_self(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 2, m->data, 8, NEXT | WRITE, 2);
	vdrv_avail_put(q, 2);
}

static void loop_late(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 16, NEXT, 1);
	vdrv_desc_set(q, 1, m->data, 8, NEXT | WRITE, 2);
	vdrv_desc_set(q, 2, m->data, 8, NEXT | WRITE, 1);
	vdrv_avail_put(q, 0);
}

static void head_size(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	vdrv_avail_put(q, q->size);
}

static void head_max(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	vdrv_avail_put(q, 0xffff);
}

static void next_outside(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 8, NEXT, q->size);
	vdrv_avail_put(q, 0);
}

static void next_max(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 8, NEXT | WRITE, 0xffff);
	vdrv_avail_put(q, 0);
}

static void one(struct vdrv_queue *q, uint64_t addr, uint32_t len, uint16_t flags)
{
	vdrv_desc_set(q, 0, addr, len, flags, 0);
	vdrv_avail_put(q, 0);
}

static void address_outside(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, 0x3fffffff000, 8, 0);
}

static void address_mmio(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, q->d->bar, 64, WRITE);
}

static void address_firmware(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, BAD_FIRMWARE, 64, 0);
}

static void address_firmware_write(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, BAD_FIRMWARE, 64, WRITE);
}

static void address_wraps(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, UINT64_MAX - 3, 8, WRITE);
}

static void address_max(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, UINT64_MAX, UINT32_MAX, 0);
}

static void over_the_end(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, mem_region_size(q->d->fv->ram) - 4, 8, 0);
}

static void length_max(struct vdrv_queue *q, const struct bad_mem *m)
{
	one(q, m->data, UINT32_MAX, WRITE);
}

static void length_zero(struct vdrv_queue *q, const struct bad_mem *m)
{
	one(q, m->data, 0, 0);
}

static void length_zero_late(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 16, NEXT, 1);
	vdrv_desc_set(q, 1, m->data, 0, NEXT | WRITE, 2);
	vdrv_desc_set(q, 2, m->data, 1, WRITE, 0);
	vdrv_avail_put(q, 0);
}

static void second_outside(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 16, NEXT, 1);
	vdrv_desc_set(q, 1, mem_region_size(q->d->fv->ram), 512, WRITE, 0);
	vdrv_avail_put(q, 0);
}

static void write_before_read(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 8, NEXT | WRITE, 1);
	vdrv_desc_set(q, 1, m->data, 8, 0, 0);
	vdrv_avail_put(q, 0);
}

static void write_between_reads(struct vdrv_queue *q, const struct bad_mem *m)
{
	vdrv_desc_set(q, 0, m->data, 16, NEXT, 1);
	vdrv_desc_set(q, 1, m->data, 512, NEXT | WRITE, 2);
	vdrv_desc_set(q, 2, m->data, 512, NEXT, 3);
	vdrv_desc_set(q, 3, m->data, 1, WRITE, 0);
	vdrv_avail_put(q, 0);
}

static void index_jumps(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	vdrv_avail_idx_set(q, (uint16_t)(q->avail_idx + q->size + 1));
}

static void index_half(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	vdrv_avail_idx_set(q, (uint16_t)(q->avail_idx + 0x8000));
}

static void index_back(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	vdrv_avail_idx_set(q, (uint16_t)(q->avail_idx - 1));
}

/* --- indirect tables --- */

static void entry(struct vdrv_queue *q, const struct bad_mem *m, unsigned i, uint64_t addr,
		  uint32_t len, uint16_t flags, uint16_t next)
{
	struct virtq_desc *d = vdrv_ptr(q->d, m->table, BAD_TABLE * sizeof(*d));

	d[i] = (struct virtq_desc){le64_of(addr), le32_of(len), le16_of(flags), le16_of(next)};
}

static void indirect_nested(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->table, 16, INDIRECT, 0);
	one(q, m->table, 16, INDIRECT);
}

static void indirect_nested_late(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, NEXT, 1);
	entry(q, m, 1, m->table, 32, INDIRECT | WRITE, 0);
	vdrv_desc_set(q, 0, m->data, 8, NEXT, 1);
	vdrv_desc_set(q, 1, m->table, 32, INDIRECT, 0);
	vdrv_avail_put(q, 0);
}

static void indirect_next(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, 0, 0);
	vdrv_desc_set(q, 0, m->table, 16, INDIRECT | NEXT, 1);
	vdrv_avail_put(q, 0);
}

static void flags_all(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, 0, 0);
	vdrv_desc_set(q, 0, m->table, 16, 0xffff, 0);
	vdrv_avail_put(q, 0);
}

static void indirect_24(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, 0, 0);
	one(q, m->table, 24, INDIRECT);
}

static void indirect_15(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, 0, 0);
	one(q, m->table, 15, INDIRECT);
}

static void indirect_0(struct vdrv_queue *q, const struct bad_mem *m)
{
	one(q, m->table, 0, INDIRECT);
}

static void indirect_end(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, mem_region_size(q->d->fv->ram) - 16, 32, INDIRECT);
	/* the entry that is in RAM leads to the one that is not */
	*(struct virtq_desc *)vdrv_ptr(q->d, mem_region_size(q->d->fv->ram) - 16, 16) =
		(struct virtq_desc){le64_of(m->data), le32_of(8), le16_of(NEXT), le16_of(1)};
}

static void indirect_outside(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, 0x3fffffff000, 32, INDIRECT);
}

static void indirect_huge(struct vdrv_queue *q, const struct bad_mem *m)
{
	(void)m;
	one(q, 0xfffffffffffffff0, 0xfffffff0, INDIRECT);
}

static void indirect_loop(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, NEXT, 1);
	entry(q, m, 1, m->data, 8, NEXT, 0);
	one(q, m->table, 32, INDIRECT);
}

static void indirect_index(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, NEXT, 2);
	one(q, m->table, 32, INDIRECT);
}

static void indirect_direction(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, m->data, 8, NEXT | WRITE, 1);
	entry(q, m, 1, m->data, 8, 0, 0);
	one(q, m->table, 32, INDIRECT);
}

static void indirect_firmware(struct vdrv_queue *q, const struct bad_mem *m)
{
	entry(q, m, 0, BAD_FIRMWARE + 16, 8, WRITE, 0);
	one(q, m->table, 16, INDIRECT);
}

/* One more than any device takes. */
static void indirect_long(struct vdrv_queue *q, const struct bad_mem *m)
{
	for (unsigned i = 0; i < BAD_TABLE; i++) {
		entry(q, m, i, m->data, 1, i + 1 < BAD_TABLE ? NEXT : 0, (uint16_t)(i + 1));
	}
	one(q, m->table, BAD_TABLE * 16, INDIRECT);
}

/* More bytes than the used ring can say, every one of them in RAM. */
static void indirect_4gib(struct vdrv_queue *q, const struct bad_mem *m)
{
	uint32_t len = (uint32_t)mem_region_size(q->d->fv->ram);
	unsigned n = (unsigned)(4 * GiB / len) + 1;

	for (unsigned i = 0; i < n; i++) {
		entry(q, m, i, 0, len, i + 1 < n ? NEXT : 0, (uint16_t)(i + 1));
	}
	one(q, m->table, n * 16, INDIRECT);
}

const struct bad_kind bad_kinds[] = {
	{"loop", loop},
	{"loop on itself", loop_self},
	{"loop that leaves out the head", loop_late},
	{"head = size", head_size},
	{"head 65535", head_max},
	{"next out of range", next_outside},
	{"next 65535", next_max},
	{"address outside", address_outside},
	{"address in a BAR", address_mmio},
	{"address in firmware, to be read", address_firmware},
	{"address in firmware, to be written", address_firmware_write},
	{"address wraps", address_wraps},
	{"address and length all-ones", address_max},
	{"over the end of RAM", over_the_end},
	{"length all-ones", length_max},
	{"zero length", length_zero},
	{"zero length in the middle", length_zero_late},
	{"second descriptor outside", second_outside},
	{"readable after writable", write_before_read},
	{"writable between readable", write_between_reads},
	{"avail index jumps", index_jumps},
	{"avail index jumps by half", index_half},
	{"avail index goes back", index_back},
	{"indirect in indirect", indirect_nested},
	{"direct, then indirect in indirect", indirect_nested_late},
	{"indirect with next", indirect_next},
	{"all flags", flags_all},
	{"indirect of 24 bytes", indirect_24},
	{"indirect of 15 bytes", indirect_15},
	{"indirect of 0 bytes", indirect_0},
	{"indirect over the end of RAM", indirect_end},
	{"indirect outside", indirect_outside},
	{"indirect, huge", indirect_huge},
	{"loop in indirect", indirect_loop},
	{"index in indirect", indirect_index},
	{"direction in indirect", indirect_direction},
	{"firmware in indirect", indirect_firmware},
	{"indirect too long", indirect_long},
	{"4 GiB", indirect_4gib},
};
const unsigned bad_nkinds = ARRAY_SIZE(bad_kinds);

/* --- rings --- */

#define REG(field) offsetof(struct virtio_pci_common_cfg, field)
const struct bad_ring bad_rings[] = {
	{"descriptors misaligned", REG(queue_desc), 0x101008},
	{"avail misaligned", REG(queue_driver), 0x101001},
	{"used misaligned", REG(queue_device), 0x101002},
	{"descriptors over the end of RAM", REG(queue_desc), 32 * MiB - 16},
	{"avail over the end of RAM", REG(queue_driver), 32 * MiB - 2},
	{"used over the end of RAM", REG(queue_device), 32 * MiB - 4},
	{"descriptors at the end of the world", REG(queue_desc), UINT64_MAX - 15},
	{"avail at the end of the world", REG(queue_driver), UINT64_MAX - 1},
	{"used at the end of the world", REG(queue_device), UINT64_MAX - 3},
	{"used in a BAR", REG(queue_device), 0xe000000000},
	{"descriptors in firmware", REG(queue_desc), BAD_FIRMWARE},
	{"avail in firmware", REG(queue_driver), BAD_FIRMWARE},
	{"used in firmware", REG(queue_device), BAD_FIRMWARE},
};
const unsigned bad_nrings = ARRAY_SIZE(bad_rings);

void bad_ring_set(struct vdrv *d, const struct bad_ring *b)
{
	vdrv_common_set(d, b->reg, 4, (uint32_t)b->addr);
	vdrv_common_set(d, b->reg + 4, 4, (uint32_t)(b->addr >> 32));
}

void bad_mem_init(struct bad_mem *m, struct vdrv *d)
{
	struct mem_region *rom;
	int rc = mem_region_add(d->fv->vm.mem, "rom", BAD_FIRMWARE, 64 * KiB, MEM_FIRMWARE,
				MEM_READONLY, &rom, NULL);

	assert(rc == 0);
	m->data = vdrv_alloc(d, 4096, 4096);
	m->table = vdrv_alloc(d, BAD_TABLE * sizeof(struct virtq_desc), 4096);
}
