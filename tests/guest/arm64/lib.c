/*
 * C runtime of the bare-metal Arm guests: see guest.h.
 */
#include "guest.h"

#include "spec/fw_cfg.h"
#include "spec/primecell.h"
#include "spec/platform_arm64.h"

volatile uint32_t guest_exceptions;

int64_t psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c)
{
	register uint64_t x0 __asm__("x0") = function, x1 __asm__("x1") = a;
	register uint64_t x2 __asm__("x2") = b, x3 __asm__("x3") = c;

	__asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "memory");
	return (int64_t)x0;
}

void put(const char *s)
{
	for (; *s; s++) {
		while (read32(PLAT_UART_BASE + PL011_FR) & PL011_FR_TXFF) {
		}
		write32(PLAT_UART_BASE + PL011_DR, (uint8_t)*s);
	}
}

void put_number(uint64_t v)
{
	char text[21];
	char *p = text + sizeof(text);

	*--p = 0;
	do {
		*--p = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	put(p);
}

void put_hex(uint64_t v)
{
	char digit[2] = "0";

	for (int shift = 60; shift >= 0; shift -= 4) {
		digit[0] = "0123456789abcdef"[v >> shift & 15];
		put(digit);
	}
}

static void select(uint16_t key)
{
	write16(PLAT_FW_CFG_BASE + FW_CFG_MMIO_SELECTOR, __builtin_bswap16(key));
}

uint16_t fw_cfg_u16(uint16_t key)
{
	uint16_t v;

	select(key);
	v = read8(PLAT_FW_CFG_BASE);
	return (uint16_t)(v | read8(PLAT_FW_CFG_BASE) << 8);
}

static uint32_t be(unsigned bytes)
{
	uint32_t v = 0;

	while (bytes--) {
		v = v << 8 | read8(PLAT_FW_CFG_BASE);
	}
	return v;
}

size_t fw_cfg_file(const char *name, void *buf, size_t len)
{
	uint32_t n;

	select(FW_CFG_FILE_DIR);
	n = be(4);
	while (n--) {
		uint32_t size = be(4), key = be(2);
		int same = 1, ended = 0;

		be(2);
		for (unsigned i = 0; i < FW_CFG_MAX_FILE_PATH; i++) {
			char c = (char)read8(PLAT_FW_CFG_BASE);

			same = same && (ended || c == name[i]);
			ended = ended || !c;
		}
		if (same) {
			select((uint16_t)key);
			for (size_t i = 0; i < size && i < len; i++) {
				((uint8_t *)buf)[i] = read8(PLAT_FW_CFG_BASE);
			}
			return size;
		}
	}
	return 0;
}
