/*
 * A guest that touches everything it can reach: I/O ports, the address space outside RAM and far
 * above it, every configuration register, every BAR, fw_cfg's DMA, flash commands, and all that
 * virtio devices have (hostile_rings.c); first in order and alone, then at random from every
 * processor at once. Then it enumerates its devices anew, resets each one, and each has to work.
 *
 * What it does depends on the seed that it prints, and on what the other processors do meanwhile.
 * fw_cfg files in decimal: opt/test/seed; opt/test/rounds, of the storm on each processor (80);
 * opt/test/full, 1: every port and page, not a sample (minutes where exits are slow).
 *
 * It is made to be flash unit 0, with a unit 1 of 128 KiB below it.
 *
 * What would end the machine on purpose is left out: the reset and sleep bits (harmless()), and
 * MSIs that carry INIT or SMI. A disk, its flash and the memory from the middle on are fair game.
 */
#include "hostile.h"
#include "spec/fw_cfg.h"
#include "spec/platform_x86.h"
#include "spec/x86.h"

#define AP_START 0x8000u
#define ICR_INIT 0x000c4500u /* all but self, assert */
#define ICR_SIPI (0x000c4600u | AP_START >> 12)
#define LIMIT_NS UINT64_C(100000000000)

extern const char ap_code[], ap_code_end[];
extern volatile uint32_t cpus_started;

uintptr_t victim, ram_end;
bool full;

static struct cpu cpus[MAX_CPUS];
static uint64_t rounds, seed;
static volatile uint32_t go, done;

void guest_irq(unsigned vector)
{
}

/* --- numbers --- */

uint64_t noise64(struct cpu *c)
{
	c->state ^= c->state << 13;
	c->state ^= c->state >> 7;
	c->state ^= c->state << 17;
	return c->state * UINT64_C(0x2545F4914F6CDD1D);
}

uint32_t noise(struct cpu *c)
{
	return (uint32_t)(noise64(c) >> 32);
}

uint64_t value(struct cpu *c)
{
	uint32_t kind = noise(c) % 8;
	uint64_t v;

	if (kind < 2) {
		return kind ? UINT64_MAX : 0;
	}
	v = kind == 2 ? UINT64_C(1) << noise(c) % 64 : noise64(c);
	if ((v >> 20 & 0xfff) == 0xfee || (v >> 52 & 0xfff) == 0xfee) {
		v ^= UINT64_C(0x8000000080000000);
	}
	return v;
}

uint64_t address(struct cpu *c)
{
	switch (noise(c) % 16) {
	case 0:
		return ram_end - noise(c) % 64;
	case 1:
		return ram_end + noise(c) % 0x2000;
	case 2:
		return PLAT_ECAM_BASE + noise(c) % 0x4f000000u;
	case 3:
		return 0xfffff000u | noise(c);
	case 4:
		return UINT64_MAX - noise(c) % 0x2000;
	case 5:
		return noise64(c) | UINT64_C(1) << 40;
	case 6:
		return c->arena + noise(c) % ARENA; /* the rings themselves, perhaps */
	default:
		return victim + noise(c) % (uint32_t)(ram_end - victim);
	}
}

void poke(uintptr_t at, uint64_t v, unsigned len)
{
	switch (len) {
	case 1:
		mmio_write8(at, (uint8_t)v);
		break;
	case 2:
		mmio_write16(at, (uint16_t)v);
		break;
	case 4:
		mmio_write32(at, (uint32_t)v);
		break;
	default:
		__asm__ volatile("movq %0, (%1)" : : "r"(v), "r"(at) : "memory");
		break;
	}
}

void peek(uintptr_t at, unsigned len)
{
	uint64_t v;

	switch (len) {
	case 1:
		mmio_read8(at);
		break;
	case 2:
		mmio_read16(at);
		break;
	case 4:
		mmio_read32(at);
		break;
	default:
		__asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(at) : "memory");
		break;
	}
}

/* --- options --- */

static void fw_select(uint16_t key)
{
	outw(PLAT_FW_CFG_PORT, key);
}

static uint8_t fw_byte(void)
{
	return inb(PLAT_FW_CFG_PORT + FW_CFG_DATA_OFF);
}

static uint32_t fw_be(unsigned n)
{
	uint32_t v = 0;

	while (n--) {
		v = v << 8 | fw_byte();
	}
	return v;
}

/* Selects the file; its size, 0 if there is none. */
static uint32_t fw_open(const char *name)
{
	uint32_t files;

	fw_select(FW_CFG_FILE_DIR);
	files = fw_be(4);
	for (uint32_t i = 0; i < files && i < 64; i++) {
		uint32_t size = fw_be(4);
		uint16_t key = (uint16_t)fw_be(2);
		bool same = true, over = false;

		fw_be(2);
		for (unsigned k = 0; k < FW_CFG_MAX_FILE_PATH; k++) {
			char is = (char)fw_byte(), want = over ? '\0' : name[k];

			same &= over || is == want;
			over |= !want;
		}
		if (same) {
			fw_select(key);
			return size;
		}
	}
	return 0;
}

static uint64_t option(const char *name, uint64_t otherwise)
{
	uint32_t size = fw_open(name);
	uint64_t v = 0;

	if (!size) {
		return otherwise;
	}
	while (size--) {
		v = v * 10 + (fw_byte() - '0');
	}
	return v;
}

/* Where the RAM that begins at 0 ends. */
static uintptr_t ram(void)
{
	uint64_t v[2] = {0};

	for (uint32_t left = fw_open("etc/e820"); left >= 20; left -= 20) {
		for (unsigned i = 0; i < 16; i++) {
			v[i / 8] = v[i / 8] >> 8 | (uint64_t)fw_byte() << 56;
		}
		if (fw_byte() == 1 && !v[0]) {
			return (uintptr_t)v[1];
		}
		fw_be(3);
	}
	guest_fail("no RAM in etc/e820");
}

/* fw_cfg is there and answers, whatever was done to it. */
static void fw_check(void)
{
	fw_select(FW_CFG_SIGNATURE);
	if (fw_be(4) != 0x51454d55) {
		guest_fail("fw_cfg does not answer any more");
	}
}

/* --- from every processor --- */

static void chaos(struct cpu *c)
{
	for (uint64_t i = 0; i < rounds; i++) {
		const struct fn *f = &fns[noise(c) % nfns];

		switch (noise(c) % 12) {
		case 0:
			bar_random(c, f);
			break;
		case 1:
			config_random(c, f);
			break;
		case 2:
			dma(c);
			break;
		case 3:
			port_touch(c, port_of_device(c));
			break;
		case 4:
			ioapic(c);
			break;
		case 5:
			bar_move(c, f);
			break;
		case 6:
			high(c);
			touch(c, PLAT_MMIO32_BASE + (noise(c) % 0x3c000000 & ~0xfffu));
			break;
		case 7:
			flash(c);
			break;
		default:
			storm(c, f);
			break;
		}
	}
}

void ap_main(uint32_t index);

void ap_main(uint32_t index)
{
	while (!go) {
		pause();
	}
	if (index - 1 < MAX_CPUS) {
		chaos(&cpus[index - 1]);
	}
	__sync_fetch_and_add(&done, 1);
}

static void start_others(void)
{
	uint32_t want;
	uint64_t end = clock_ns() + LIMIT_NS;

	fw_select(FW_CFG_NB_CPUS);
	want = fw_byte();
	want |= (uint32_t)fw_byte() << 8;
	memcpy((void *)(uintptr_t)AP_START, ap_code, (size_t)(ap_code_end - ap_code));
	lapic_icr(0, ICR_INIT);
	lapic_icr(0, ICR_SIPI);
	while (cpus_started < want) {
		if (clock_ns() > end) {
			guest_fail("a processor has not started");
		}
		pause();
	}
	put_num("processors", want);
}

static void setup(void)
{
	irq_init();
	clock_init();
	ram_end = ram();
	victim = ram_end / 2;
	seed = option("opt/test/seed", rdtsc());
	rounds = option("opt/test/rounds", 80);
	full = option("opt/test/full", 0);
	for (unsigned i = 0; i < MAX_CPUS; i++) {
		cpus[i].index = i;
		cpus[i].state = (seed + i) * UINT64_C(0x9E3779B97F4A7C15) | 1;
		cpus[i].arena = victim + ARENA * i;
	}
	windows_init();
	put_num("seed", seed);
	put_num("rounds", rounds);
	memset((void *)victim, 0x5a, (size_t)(ram_end - victim)); /* what grows is not this */
}

/* Everything alone and in order, then a reset of every device that has one. */
static void in_order(struct cpu *c)
{
	put("ports\n");
	ports(c);
	put("config\n");
	for (unsigned i = 0; i < nfns; i++) {
		config(c, fns[i].bdf);
	}
	place();
	put("bars\n");
	for (unsigned i = 0; i < nfns; i++) {
		vectors(&fns[i]);
		bar(c, &fns[i]);
		bar_move(c, &fns[i]);
	}
	put("mmio\n");
	memory(c);
	place();
	put("rings\n");
	for (unsigned i = 0; i < nfns; i++) {
		storm(c, &fns[i]);
	}
	put("fw_cfg\n");
	for (unsigned i = 0; i < 200; i++) {
		dma(c);
	}
	fw_check();
	put("flash\n");
	for (unsigned i = 0; i < 20; i++) {
		flash(c);
	}
}

static void all_work(struct cpu *c)
{
	uart_back();
	place();
	fw_check();
	flash_works();
	for (unsigned i = 0; i < nfns; i++) {
		if (fns[i].virtio) {
			works(c, &fns[i]);
		}
	}
}

int main(void)
{
	struct cpu *c = &cpus[0];
	uint64_t end;
	uint32_t others;

	setup();
	start_others();
	others = cpus_started - 1;
	place();
	put_num("functions", nfns);
	put("\n");
	in_order(c);
	all_work(c);
	put("\nSTORM\n");
	go = 1;
	chaos(c);
	end = clock_ns() + LIMIT_NS;
	while (done < others) {
		if (clock_ns() > end) {
			guest_fail("a processor does not come back");
		}
		pause();
	}
	all_work(c);
	put("\nPASS\n");
	guest_reset();
}
