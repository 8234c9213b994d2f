/*
 * Looking at data: is it zeros, and where does that change.
 */
#include <string.h>

#include "img.h"

/* 64 bytes at a time: compilers make vector instructions of it. */
bool img_is_zero(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	while (len >= 64) {
		uint64_t v[8], any = 0;

		memcpy(v, p, sizeof(v));
		for (int i = 0; i < 8; i++) {
			any |= v[i];
		}
		if (any) {
			return false;
		}
		p += 64;
		len -= 64;
	}
	while (len--) {
		if (*p++) {
			return false;
		}
	}
	return true;
}

size_t img_zero_run(const uint8_t *buf, size_t len, size_t unit, bool *zero)
{
	size_t n = MIN(unit, len);

	*zero = img_is_zero(buf, n);
	while (n < len) {
		size_t next = MIN(unit, len - n);

		if (img_is_zero(buf + n, next) != *zero) {
			break;
		}
		n += next;
	}
	return n;
}
