/*
 * AML encoder. ACPI 6.5, section 20.2 (grammar) and 6.4 (resource data types); the names of the
 * opcodes are those of the specification. Nothing here is untrusted: callers give checked facts.
 * Pure functions on a buffer; any thread that owns it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "base/wire.h"
#include "firmware/acpi/aml.h"

enum {
	ZeroOp = 0x00,
	OneOp = 0x01,
	NameOp = 0x08,
	BytePrefix = 0x0a,
	WordPrefix = 0x0b,
	DWordPrefix = 0x0c,
	StringPrefix = 0x0d,
	QWordPrefix = 0x0e,
	ScopeOp = 0x10,
	BufferOp = 0x11,
	DualNamePrefix = 0x2e,
	MultiNamePrefix = 0x2f,
	ExtOpPrefix = 0x5b,
	DeviceOp = 0x82, /* after ExtOpPrefix */
};

/* Resource descriptors, 6.4 */
enum {
	IO_PORT_DESC = 0x47, /* small, 7 bytes follow */
	END_TAG = 0x79,
	DWORD_ADDRESS_DESC = 0x87,
	WORD_ADDRESS_DESC = 0x88,
	QWORD_ADDRESS_DESC = 0x8a,

	IO_DECODE16 = 0x01,

	ADDR_TYPE_MEM = 0,
	ADDR_TYPE_IO = 1,
	ADDR_TYPE_BUS = 2,
	ADDR_MIN_MAX_FIXED = 0x0c, /* _MIF, _MAF; producer, positive decoding */
	ADDR_CONSUMED = 0x01,
	ADDR_MEM_READ_WRITE =
		0x01, /* not cacheable, not prefetchable: BARs of both kinds fit */
	ADDR_IO_ENTIRE_RANGE = 0x03,
};

void aml_free(struct aml *a)
{
	free(a->data);
	*a = (struct aml){0};
}

/* Room for len more bytes, or NULL. */
static uint8_t *grow(struct aml *a, size_t len)
{
	uint8_t *p;

	if (a->failed) {
		return NULL;
	}
	if (a->cap - a->len < len) {
		size_t cap = MAX(a->cap * 2, a->len + len + 256);

		p = realloc(a->data, cap);
		if (!p) {
			a->failed = true;
			return NULL;
		}
		a->data = p;
		a->cap = cap;
	}
	p = a->data + a->len;
	a->len += len;
	return p;
}

void aml_bytes(struct aml *a, const void *src, size_t len)
{
	uint8_t *p = grow(a, len);

	if (p && len) {
		memcpy(p, src, len);
	}
}

void aml_zeros(struct aml *a, size_t len)
{
	uint8_t *p = grow(a, len);

	if (p && len) {
		memset(p, 0, len);
	}
}

void aml_u8(struct aml *a, uint8_t v)
{
	aml_bytes(a, &v, 1);
}

void aml_u16(struct aml *a, uint16_t v)
{
	le16 w = le16_of(v);

	aml_bytes(a, &w, sizeof(w));
}

void aml_u32(struct aml *a, uint32_t v)
{
	le32 w = le32_of(v);

	aml_bytes(a, &w, sizeof(w));
}

void aml_u64(struct aml *a, uint64_t v)
{
	le64 w = le64_of(v);

	aml_bytes(a, &w, sizeof(w));
}

/* --- names --- */

/* One NameSeg of path, which then points behind it (and behind the dot). */
static void name_seg(struct aml *a, const char **path)
{
	size_t n = strcspn(*path, ".");
	char seg[4] = "____";

	assert(n >= 1 && n <= sizeof(seg));
	memcpy(seg, *path, n);
	aml_bytes(a, seg, sizeof(seg));
	*path += n;
	if (**path == '.') {
		(*path)++;
	}
}

void aml_path(struct aml *a, const char *path)
{
	unsigned segs = 1;

	if (*path == '\\') {
		aml_u8(a, '\\');
		path++;
	}
	for (const char *p = path; *p; p++) {
		segs += *p == '.';
	}
	if (segs == 2) {
		aml_u8(a, DualNamePrefix);
	} else if (segs > 2) {
		aml_u8(a, MultiNamePrefix);
		aml_u8(a, (uint8_t)segs);
	}
	while (segs--) {
		name_seg(a, &path);
	}
	assert(!*path);
}

/* --- values --- */

void aml_int(struct aml *a, uint64_t v)
{
	if (v == 0) {
		aml_u8(a, ZeroOp);
	} else if (v == 1) {
		aml_u8(a, OneOp);
	} else if (v <= UINT8_MAX) {
		aml_u8(a, BytePrefix);
		aml_u8(a, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		aml_u8(a, WordPrefix);
		aml_u16(a, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		aml_u8(a, DWordPrefix);
		aml_u32(a, (uint32_t)v);
	} else {
		aml_u8(a, QWordPrefix);
		aml_u64(a, v);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_u8(a, StringPrefix);
	aml_bytes(a, s, strlen(s) + 1);
}

/* --- blocks --- */

/* PkgLength counts itself: puts it before what was written since mark. 20.2.4 */
void aml_end(struct aml *a, size_t mark)
{
	uint8_t pkg[4];
	unsigned n = 1;
	size_t len;

	if (a->failed) {
		return;
	}
	len = a->len - mark;
	if (len + 1 < 1u << 6) {
		pkg[0] = (uint8_t)(len + 1);
	} else {
		while (len + n + 1 >= 1u << (4 + 8 * n)) {
			n++;
		}
		assert(n <= 3);
		n++;
		len += n;
		pkg[0] = (uint8_t)((n - 1) << 6 | (len & 0x0f));
		for (unsigned i = 1; i < n; i++) {
			pkg[i] = (uint8_t)(len >> (4 + 8 * (i - 1)));
		}
	}
	if (!grow(a, n)) {
		return;
	}
	memmove(a->data + mark + n, a->data + mark, a->len - n - mark);
	memcpy(a->data + mark, pkg, n);
}

size_t aml_scope_begin(struct aml *a, const char *path)
{
	size_t mark;

	aml_u8(a, ScopeOp);
	mark = a->len;
	aml_path(a, path);
	return mark;
}

size_t aml_device_begin(struct aml *a, const char *name)
{
	size_t mark;

	aml_u8(a, ExtOpPrefix);
	aml_u8(a, DeviceOp);
	mark = a->len;
	aml_path(a, name);
	return mark;
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
	aml_u8(a, NameOp);
	aml_path(a, name);
	aml_int(a, v);
}

void aml_name_string(struct aml *a, const char *name, const char *s)
{
	aml_u8(a, NameOp);
	aml_path(a, name);
	aml_string(a, s);
}

void aml_name_crs(struct aml *a, const char *name, const struct aml *crs)
{
	size_t mark;

	a->failed |= crs->failed;
	aml_u8(a, NameOp);
	aml_path(a, name);
	aml_u8(a, BufferOp);
	mark = a->len;
	aml_int(a, crs->len + 2);
	aml_bytes(a, crs->data, crs->len);
	aml_u8(a, END_TAG);
	aml_u8(a, 0); /* checksum 0: not used */
	aml_end(a, mark);
}

/* --- resource descriptors --- */

void crs_io(struct aml *crs, uint16_t base, uint8_t len)
{
	aml_u8(crs, IO_PORT_DESC);
	aml_u8(crs, IO_DECODE16);
	aml_u16(crs, base);
	aml_u16(crs, base);
	aml_u8(crs, 1);
	aml_u8(crs, len);
}

static void word_window(struct aml *crs, uint8_t type, uint8_t flags, uint16_t first,
			uint16_t last)
{
	aml_u8(crs, WORD_ADDRESS_DESC);
	aml_u16(crs, 3 + 5 * 2);
	aml_u8(crs, type);
	aml_u8(crs, ADDR_MIN_MAX_FIXED);
	aml_u8(crs, flags);
	aml_u16(crs, 0); /* granularity */
	aml_u16(crs, first);
	aml_u16(crs, last);
	aml_u16(crs, 0); /* translation */
	aml_u16(crs, (uint16_t)(last - first + 1));
}

void crs_bus_window(struct aml *crs, uint16_t first, uint16_t last)
{
	word_window(crs, ADDR_TYPE_BUS, 0, first, last);
}

void crs_io_window(struct aml *crs, uint16_t first, uint16_t last)
{
	word_window(crs, ADDR_TYPE_IO, ADDR_IO_ENTIRE_RANGE, first, last);
}

void crs_mem32_window(struct aml *crs, uint32_t first, uint32_t last)
{
	aml_u8(crs, DWORD_ADDRESS_DESC);
	aml_u16(crs, 3 + 5 * 4);
	aml_u8(crs, ADDR_TYPE_MEM);
	aml_u8(crs, ADDR_MIN_MAX_FIXED);
	aml_u8(crs, ADDR_MEM_READ_WRITE);
	aml_u32(crs, 0);
	aml_u32(crs, first);
	aml_u32(crs, last);
	aml_u32(crs, 0);
	aml_u32(crs, last - first + 1);
}

static void mem64(struct aml *crs, uint8_t flags, uint64_t first, uint64_t last)
{
	aml_u8(crs, QWORD_ADDRESS_DESC);
	aml_u16(crs, 3 + 5 * 8);
	aml_u8(crs, ADDR_TYPE_MEM);
	aml_u8(crs, flags);
	aml_u8(crs, ADDR_MEM_READ_WRITE);
	aml_u64(crs, 0);
	aml_u64(crs, first);
	aml_u64(crs, last);
	aml_u64(crs, 0);
	aml_u64(crs, last - first + 1);
}

void crs_mem64(struct aml *crs, uint64_t first, uint64_t last)
{
	mem64(crs, ADDR_MIN_MAX_FIXED | ADDR_CONSUMED, first, last);
}

void crs_mem64_window(struct aml *crs, uint64_t first, uint64_t last)
{
	mem64(crs, ADDR_MIN_MAX_FIXED, first, last);
}
