/*
 * The hostile walk: reads and writes every page where a device of the platform is and a sample of
 * those where nothing is, with each width, aligned and not, and with pairs of registers; then
 * configuration space, fw_cfg's DMA with wrong descriptors, and all kinds of flash commands. Prints
 * "hostile: done" if it gets that far, and resets. Every access may abort (start.S counts).
 */
#include "guest.h"

#include "spec/fw_cfg.h"
#include "spec/primecell.h"
#include "spec/platform_arm64.h"

static uint64_t seed = 88172645463325252u;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static void pair(uint64_t a)
{
	uint64_t x, y;

	__asm__ volatile("ldp %0, %1, [%2]" : "=r"(x), "=r"(y) : "r"(a) : "memory");
	__asm__ volatile("stp xzr, xzr, [%0]" : : "r"(a) : "memory");
}

static void access(uint64_t a, int write)
{
	uint64_t v = next();

	read8(a);
	read16(a & ~1ull);
	read32(a & ~3ull);
	read64(a & ~7ull);
	if (write) {
		write8(a, (uint8_t)v);
		write16(a & ~1ull, (uint16_t)v);
		write32(a & ~3ull, (uint32_t)v);
		write64(a & ~7ull, v);
	}
}

/* Registers that end the machine's life are PSCI's, not in memory. The UART says what we say. */
static void walk(uint64_t base, uint64_t size, uint64_t step, int write)
{
	for (uint64_t a = base; a < base + size; a += step) {
		access(a + next() % step, write);
	}
	pair(base);
}

static void devices(void)
{
	walk(PLAT_RTC_BASE, PLAT_DEVICE_SIZE, 4, 1);
	walk(PLAT_FW_CFG_BASE, FW_CFG_MMIO_SIZE, 1, 1);
	walk(PLAT_GPIO_BASE, PLAT_DEVICE_SIZE, 4, 1);
	walk(PLAT_GED_BASE, 64, 1, 1);
	walk(PLAT_UART_BASE + 0x18, PLAT_DEVICE_SIZE - 0x18, 4, 1);
	write32(PLAT_UART_BASE + PL011_IMSC, 0);
	write32(PLAT_UART_BASE + PL011_CR, PL011_CR_UARTEN | PL011_CR_TXE | PL011_CR_RXE);
	walk(PLAT_GICD_BASE, PLAT_GICD_SIZE, 64, 1);
	walk(PLAT_GICR_BASE, 4 * PLAT_GICR_CPU, 64, 1);
	walk(PLAT_ITS_BASE, PLAT_ITS_SIZE, 64, 1);
	put("hostile: devices\n");
}

static void nothing(void)
{
	walk(PLAT_MMIO32_BASE, PLAT_MMIO32_END - PLAT_MMIO32_BASE, 1 << 20, 1);
	walk(PLAT_MMIO64_BASE, PLAT_MMIO64_END - PLAT_MMIO64_BASE, 1ull << 32, 1);
	walk(0x0a000000, 0x02000000, 1 << 16, 1);
	walk(PLAT_FLASH_BASE + 0x10000, PLAT_FLASH_BANK - 0x10000, 1 << 18, 1);
	put("hostile: nothing\n");
}

static void pci(void)
{
	for (uint64_t f = 0; f < 0x10000; f += f < 256 ? 1 : 997) {
		int there = read32(PLAT_ECAM_BASE + (f << 12)) != 0xffffffff;

		for (uint64_t reg = 0; reg < 0x1000; reg += there ? 4 : 2048) {
			access(PLAT_ECAM_BASE + (f << 12) + reg, 1);
		}
	}
	pair(PLAT_ECAM_BASE);
	put("hostile: pci\n");
}

static void dma(void)
{
	static struct {
		uint32_t control, length;
		uint64_t address;
	} d;

	for (int i = 0; i < 300; i++) {
		d.control = (uint32_t)next() & 0x1f003f00;
		d.length = (uint32_t)next();
		d.address = i & 1 ? next() : __builtin_bswap64(0x40500000 + (next() & 0xffff));
		write64(PLAT_FW_CFG_BASE + FW_CFG_MMIO_DMA, __builtin_bswap64((uint64_t)&d));
		write64(PLAT_FW_CFG_BASE + FW_CFG_MMIO_DMA, next());
	}
	put("hostile: dma\n");
}

static void flash(void)
{
	const uint64_t bank = PLAT_FLASH_BASE + PLAT_FLASH_BANK;

	for (int cmd = 0; cmd < 256; cmd++) {
		for (int i = 0; i < 3; i++) {
			write32(bank + (next() & 0xbfffc), (uint32_t)cmd * 0x10001);
			access(bank + next() % 0xc0000, i == 2);
		}
	}
	for (int i = 0; i < 2000; i++) {
		write32(bank + (next() & 0xbfffc), (uint32_t)next());
	}
	write32(bank, 0xff);
	put("hostile: flash\n");
}

void guest_main(uint64_t cpu)
{
	uint8_t text[8] = {0};
	size_t n = fw_cfg_file("opt/test/seed", text, sizeof(text));

	for (size_t i = 0; i < n && i < sizeof(text); i++) {
		seed = seed * 31 + text[i];
	}
	put("hostile: seed ");
	put_hex(seed);
	put("\n");
	devices();
	nothing();
	pci();
	dma();
	flash();
	put("hostile: done, ");
	put_number(guest_exceptions);
	put(" aborts\n");
	psci(PSCI_SYSTEM_RESET, 0, 0, 0);
}
