/*
 * The hostile guest (hostile.c) at I/O ports, at addresses where nothing or a platform device is, at
 * fw_cfg's DMA and at the flash.
 */
#include "hostile.h"
#include "spec/cfi_flash.h"
#include "spec/fw_cfg.h"
#include "spec/pci.h"
#include "spec/platform_x86.h"
#include "spec/uart16550.h"

#define PD_LARGE 0x9bu	 /* present, writable, 2 MiB, PWT and PCD */
#define PDPT	 0x2000u /* start.S */

/* one 2 MiB window for each processor at 4 GiB */
static uint64_t window_pd[512] __attribute__((aligned(4096)));

/* --- ports --- */

/* Any of its bytes, less what ends the machine. */
static uint32_t harmless(uint32_t port, unsigned len, uint32_t v)
{
	for (unsigned i = 0; i < len; i++) {
		uint32_t p = port + i;
		uint8_t byte = (uint8_t)(v >> 8 * i), was = byte;

		if (p == PLAT_RESET_PORT) {
			byte &= 0xfb;
		} else if (p == PLAT_KBC_PORT && byte == PLAT_KBC_RESET) {
			byte = 0;
		} else if (p >= PLAT_PM1_CNT_PORT && p <= PLAT_SLEEP_CTL_PORT) {
			byte &= 0xdf;
		}
		v ^= (uint32_t)(was ^ byte) << 8 * i;
	}
	return v;
}

void port_touch(struct cpu *c, uint16_t port)
{
	inb(port);
	inw(port);
	inl(port);
	outb(port, (uint8_t)harmless(port, 1, (uint32_t)value(c)));
	outw(port, (uint16_t)harmless(port, 2, (uint32_t)value(c)));
	outl(port, harmless(port, 4, (uint32_t)value(c)));
}

/* Many accesses in one instruction. */
static void port_strings(uint16_t port, uintptr_t at, unsigned n)
{
	uintptr_t from = at, to = at;
	uint64_t count = n;

	__asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
	count = n;
	__asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
	count = n / 4;
	to = at;
	__asm__ volatile("rep insl" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

/* Where something is, and around it. */
uint16_t port_of_device(struct cpu *c)
{
	static const uint16_t base[] = {
		PLAT_KBC_PORT - 2, PLAT_RTC_PORT, PLAT_UART_PORT, PLAT_FW_CFG_PORT,
		PLAT_PM_PORT,	   0xcf8,	  0xcfc};

	return (uint16_t)(base[noise(c) % 7] + noise(c) % 12);
}

/* The UART speaks again: 115200 baud, 8 bits, no loopback, no interrupts. */
void uart_back(void)
{
	outb(PLAT_UART_PORT + UART_LCR, 0x83);
	outb(PLAT_UART_PORT, 1);
	outb(PLAT_UART_PORT + 1, 0);
	outb(PLAT_UART_PORT + UART_LCR, 0x03);
	outb(PLAT_UART_PORT + 1, 0);
	outb(PLAT_UART_PORT + UART_MCR, 0x03);
	outb(PLAT_UART_PORT + 2, 0x07);
}

void ports(struct cpu *c)
{
	for (uint32_t p = 0; p < 0x10000; p += full || p < 0xd00 ? 1 : 0x101) {
		port_touch(c, (uint16_t)p);
	}
	memset((void *)c->arena, 0x55, 4096);
	for (unsigned i = 0; i < 8; i++) {
		uint16_t port = port_of_device(c);

		/* 0x55 has neither the reset bit nor the sleep bit, and is no 0xfe */
		if (port != PLAT_RESET_PORT) {
			port_strings(port, c->arena, 100);
		}
	}
	uart_back();
}

/* --- memory that is not there, or a device --- */

void touch(struct cpu *c, uintptr_t a)
{
	unsigned off = noise(c) % 0xff8;

	/* the local APIC is KVM's; beside it are pages of KVM's own on some hosts */
	if (a >= PLAT_LAPIC_BASE && a < PLAT_TSS + 0x3000) {
		return;
	}
	peek(a, 4);
	peek(a + off, 1u << noise(c) % 4);
	/* an MSI that carries INIT or SMI would be our own doing */
	if (a < PLAT_IOAPIC_BASE || a >= PLAT_IOAPIC_BASE + PLAT_IOAPIC_SIZE) {
		poke(a + off, value(c), 1u << noise(c) % 4);
	}
}

void ioapic(struct cpu *c)
{
	unsigned i = noise(c) % 0x48;

	poke(PLAT_IOAPIC_BASE, noise(c) % 4 ? i : noise(c), 4);
	/* delivery modes fixed and lowest priority */
	poke(PLAT_IOAPIC_BASE + 0x10, value(c) & ~UINT64_C(0x600), 4);
	peek(PLAT_IOAPIC_BASE + 0x10, 4);
	poke(PLAT_IOAPIC_BASE + (noise(c) % 0xffc & ~0x10u), value(c) & ~UINT64_C(0x600), 4);
	peek(PLAT_IOAPIC_BASE + noise(c) % 0xff8, 1u << noise(c) % 4);
	peek(PLAT_GED_BASE + noise(c) % 8, 1u << noise(c) % 3);
	poke(PLAT_GED_BASE + noise(c) % 8, value(c), 1u << noise(c) % 4);
}

/* The pages of the windows; the tables are start.S's. */
void windows_init(void)
{
	((volatile uint64_t *)PDPT)[4] = (uintptr_t)window_pd | 3;
}

/* This processor's window shows another 2 MiB. */
static uintptr_t map(struct cpu *c, uint64_t at)
{
	uintptr_t va = 0x100000000u + 0x200000u * (uintptr_t)c->index;

	window_pd[c->index] = (at & ~UINT64_C(0x1fffff)) | PD_LARGE;
	__asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
	return va + (at & 0x1ff000);
}

void high(struct cpu *c)
{
	unsigned bits = cpuid(0x80000008).eax & 0xff;
	uint64_t at = noise64(c) >> (64 - bits);

	if (noise(c) % 4 == 0) {
		at |= ~UINT64_C(0) << (bits - 3); /* the top eighth, for BARs */
		at &= (UINT64_C(1) << bits) - 1;
	}
	if (at < PLAT_HIGH_RAM_BASE) {
		return;
	}
	touch(c, map(c, at));
}

void memory(struct cpu *c)
{
	/* functions that are not there, on buses that are not there */
	for (uint32_t bdf = 0; bdf < 0x10000; bdf += full ? 1 : 0x1f5) {
		touch(c, ecam(bdf, 0));
	}
	for (uintptr_t a = PLAT_MMIO32_BASE; a < 0xffffffff; a += full ? 0x1000 : 0x17d000) {
		touch(c, a);
	}
	for (uintptr_t a = PLAT_IOAPIC_BASE; a < PLAT_TPM_BASE + 0x5000;
	     a += full ? 0x1000 : 0x7000) {
		touch(c, a);
	}
	for (unsigned i = 0; i < (full ? 20000 : 200); i++) {
		high(c);
	}
	for (unsigned i = 0; i < 50; i++) {
		ioapic(c);
	}
}

/* --- fw_cfg by DMA --- */

void dma(struct cpu *c)
{
	volatile struct {
		uint32_t control, length;
		uint64_t address;
	} *d = (void *)(c->arena + (noise(c) % 0x1000 & ~3u));
	uint64_t at = noise(c) % 4 ? (uintptr_t)d : address(c);
	uint32_t length = noise(c) % 3 ? noise(c) % 0x3000 : (uint32_t)value(c);
	uint32_t key = noise(c) % 2 ? noise(c) % 0x50 : noise(c);

	d->control = __builtin_bswap32(key << 16 | (noise(c) % 4 ? noise(c) & 0x1f : noise(c)));
	d->length = __builtin_bswap32(length);
	d->address = __builtin_bswap64(address(c));
	outl(PLAT_FW_CFG_PORT + FW_CFG_DMA_HI_OFF, __builtin_bswap32((uint32_t)(at >> 32)));
	outl(PLAT_FW_CFG_PORT + FW_CFG_DMA_LO_OFF, __builtin_bswap32((uint32_t)at));
	if (noise(c) % 8 == 0) {
		outw(PLAT_FW_CFG_PORT + FW_CFG_DMA_LO_OFF + noise(c) % 3, (uint16_t)noise(c));
	}
}

/* --- flash: unit 1 is below the ROM, which has 32 KiB --- */

void flash(struct cpu *c)
{
	static const uint8_t command[] = {CFI_CMD_PROGRAM,
					  CFI_CMD_PROGRAM_ALT,
					  CFI_CMD_ERASE,
					  CFI_CMD_CLEAR_STATUS,
					  CFI_CMD_READ_STATUS,
					  CFI_CMD_READ_ID,
					  CFI_CMD_QUERY,
					  CFI_CMD_CONFIRM,
					  CFI_CMD_READ_ARRAY,
					  0xe8,
					  0x60,
					  0x01};
	uintptr_t base = 0xffff8000u - 0x20000;

	for (unsigned i = 0; i < 6; i++) {
		uintptr_t a = base + noise(c) % 0x20000;

		poke(a & ~7ull, command[noise(c) % sizeof(command)], 1u << noise(c) % 3);
		poke(a, value(c), 1u << noise(c) % 4);
		peek(a & ~7ull, 1u << noise(c) % 4);
	}
}

void flash_works(void)
{
	uintptr_t at = 0xffff8000u - 0x20000 + 0x3000;

	mmio_write8(at, CFI_CMD_CONFIRM); /* ends whatever waits for its second byte */
	mmio_write8(at, CFI_CMD_READ_ARRAY);
	mmio_write8(at, CFI_CMD_ERASE);
	mmio_write8(at, CFI_CMD_CONFIRM);
	mmio_write8(at, CFI_CMD_PROGRAM);
	mmio_write8(at, 0x5a);
	mmio_write8(at, CFI_CMD_READ_ARRAY);
	if (mmio_read16(at) != 0xff5a) {
		guest_fail("the flash does not work any more");
	}
	put("works flash\n");
}
