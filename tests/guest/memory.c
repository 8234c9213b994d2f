/*
 * The first and the last page of each range of RAM that the e820 map of fw_cfg has, however far
 * up: written with what only that address has, then all of them read again, so that two that are
 * the same show. Behind the last byte there is nothing.
 */
#include "guest.h"
#include "spec/fw_cfg.h"
#include "spec/platform_x86.h"

#define PAGE	   4096u
#define LARGE	   (UINT64_C(1) << 21)
#define WINDOW	   (UINT64_C(1) << 39) /* a virtual address: the second entry of the PML4 */
#define PML4	   ((volatile uint64_t *)0x1000) /* start.S */
#define TABLE	   0x63u
#define LARGE_PAGE 0xe3u
#define MAX_RANGES 16u
#define E820_RAM   1u

static volatile uint64_t pdpt[512] __attribute__((aligned(4096), section(".keep")));
static volatile uint64_t pd[512] __attribute__((aligned(4096), section(".keep")));

struct range {
	uint64_t base, size;
};

void guest_irq(unsigned vector)
{
}

/* --- fw_cfg --- */

static uint64_t get_le(unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++) {
		v |= (uint64_t)inb(PLAT_FW_CFG_PORT + 1) << 8 * i;
	}
	return v;
}

static uint32_t get_be(unsigned bytes)
{
	uint32_t v = 0;

	while (bytes--) {
		v = v << 8 | inb(PLAT_FW_CFG_PORT + 1);
	}
	return v;
}

/* Selects the file and returns its size. */
static uint32_t open_file(const char *want)
{
	uint32_t files, size = 0;
	uint16_t select = 0;

	outw(PLAT_FW_CFG_PORT, FW_CFG_FILE_DIR);
	files = get_be(4);
	while (files--) {
		uint32_t this_size = get_be(4);
		uint16_t this_select = (uint16_t)get_be(2);
		bool same = true;

		get_be(2);
		for (unsigned i = 0, end = 0; i < 56; i++) {
			char c = (char)inb(PLAT_FW_CFG_PORT + 1);

			same &= end || c == want[i];
			end |= !c;
		}
		if (same) {
			size = this_size;
			select = this_select;
		}
	}
	if (!size) {
		guest_fail("no e820 map");
	}
	outw(PLAT_FW_CFG_PORT, select);
	return size;
}

/* --- pages --- */

static volatile uint64_t *at(uint64_t gpa)
{
	pd[0] = (gpa & ~(LARGE - 1)) | LARGE_PAGE;
	__asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
	return (volatile uint64_t *)(WINDOW + (gpa & (LARGE - 1)));
}

static uint64_t mark(uint64_t gpa)
{
	return (gpa + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(uint64_t gpa)
{
	volatile uint64_t *p = at(gpa);

	for (unsigned i = 0; i < PAGE / 8; i++) {
		p[i] = mark(gpa + 8 * i);
	}
}

static void check(uint64_t gpa)
{
	volatile uint64_t *p = at(gpa);

	for (unsigned i = 0; i < PAGE / 8; i++) {
		if (p[i] != mark(gpa + 8 * i)) {
			put_num("at", gpa + 8 * i);
			guest_fail("memory has something else");
		}
	}
}

int main(void)
{
	struct range range[MAX_RANGES];
	unsigned n = 0;
	uint64_t bytes = 0, end = 0;

	pdpt[0] = (uintptr_t)pd | TABLE;
	PML4[1] = (uintptr_t)pdpt | TABLE;
	for (uint32_t left = open_file("etc/e820"); left >= 20; left -= 20) {
		struct range r;

		r.base = get_le(8);
		r.size = get_le(8);
		if (get_le(4) == E820_RAM && n < MAX_RANGES) {
			range[n++] = r;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		fill(range[i].base);
		fill(range[i].base + range[i].size - PAGE);
		bytes += range[i].size;
		end = range[i].base + range[i].size;
	}
	for (unsigned i = 0; i < n; i++) {
		check(range[i].base);
		check(range[i].base + range[i].size - PAGE);
	}
	at(end);
	if (mmio_read32(WINDOW + (end & (LARGE - 1))) != 0xffffffff) {
		guest_fail("there is memory behind its end");
	}
	put_num("ranges", n);
	put_num("bytes", bytes);
	put_num("end", end);
	put("PASS\n");
	guest_reset();
}
