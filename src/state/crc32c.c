/*
 * CRC-32C (polynomial 0x1EDC6F41, reflected 0x82F63B78; RFC 3720 appendix B.4), eight bytes a
 * step: guest memory can be part of a stream. The tables belong to the caller, so there is no
 * global to initialise. Any thread.
 */
#include <string.h>

#include "state/state_int.h"

enum { CRC32C_POLY_REFLECTED = 0x82F63B78 };

void crc32c_init(struct crc32c *c)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t v = i;

		for (int bit = 0; bit < 8; bit++) {
			v = v & 1 ? (v >> 1) ^ (uint32_t)CRC32C_POLY_REFLECTED : v >> 1;
		}
		c->tab[0][i] = v;
	}
	for (uint32_t i = 0; i < 256; i++) {
		for (int k = 1; k < 8; k++) {
			uint32_t prev = c->tab[k - 1][i];

			c->tab[k][i] = (prev >> 8) ^ c->tab[0][prev & 0xff];
		}
	}
}

uint32_t crc32c_update(const struct crc32c *c, uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	crc = ~crc;
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		v ^= crc;
		crc = c->tab[7][v & 0xff] ^ c->tab[6][v >> 8 & 0xff] ^
		      c->tab[5][v >> 16 & 0xff] ^ c->tab[4][v >> 24 & 0xff] ^
		      c->tab[3][v >> 32 & 0xff] ^ c->tab[2][v >> 40 & 0xff] ^
		      c->tab[1][v >> 48 & 0xff] ^ c->tab[0][v >> 56];
	}
	for (; len; p++, len--) {
		crc = (crc >> 8) ^ c->tab[0][(crc ^ *p) & 0xff];
	}
	return ~crc;
}
