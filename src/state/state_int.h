/*
 * What the files of state/ share: the encoding, and the checks of a table.
 *
 * A stream, all integers little-endian, nothing aligned:
 *
 *   stream  = head section* end
 *   head    = "NEMUSTAT", le32 format = 1, le32 0
 *   section = struct state_wire_section, name, instance, payload
 *             payload: kind FIELDS a record, kind BLOB any bytes
 *   end     = struct state_wire_section with kind END, all else 0 but len = number of sections,
 *             then le32 CRC32C of every byte before it; nothing follows
 *   record  = le32 version of the desc, le16 number of fields, field*
 *   field   = struct state_wire_field, name, value of `len` bytes
 *   value   = U8..U64: 1, 2, 4, 8 bytes; BOOL: one byte, 0 or 1; BYTES, BUF: the bytes;
 *             STRUCT: a record; ARRAY: le32 count, then per element le32 len and a record
 *
 * Each structure has exactly one encoding (fields in the order of the table), so a stream that
 * decodes re-encodes to the same bytes. The decoder does not depend on the order.
 * The numbers of enum state_wire_type are on disk for ever; enum state_type may be reordered.
 */
#ifndef STATE_STATE_INT_H
#define STATE_STATE_INT_H

#include "base/wire.h"
#include "state/state.h"

#define STATE_MAGIC "NEMUSTAT"
enum {
	STATE_FORMAT = 1,
	STATE_NAME_MAX = 63,
	STATE_INSTANCE_MAX = 255,
	STATE_SECTIONS_MAX = 65536,
	STATE_FIELDS_MAX = 256, /* of one desc */
	STATE_CRC_SIZE = 4,
};

struct state_wire_head {
	char magic[8];
	le32 format;
	le32 zero;
} __attribute__((packed));

enum state_wire_kind { STATE_KIND_END = 0, STATE_KIND_FIELDS = 1, STATE_KIND_BLOB = 2 };
struct state_wire_section {
	uint8_t kind;
	uint8_t name_len;
	le16 instance_len;
	le32 zero;
	le64 len;
} __attribute__((packed));

enum state_wire_type {
	STATE_WIRE_U8 = 1,
	STATE_WIRE_U16 = 2,
	STATE_WIRE_U32 = 3,
	STATE_WIRE_U64 = 4,
	STATE_WIRE_BOOL = 5,
	STATE_WIRE_BYTES = 6,
	STATE_WIRE_BUF = 7,
	STATE_WIRE_STRUCT = 8,
	STATE_WIRE_ARRAY = 9,
};
struct state_wire_field {
	uint8_t type;
	uint8_t name_len;
	le16 zero;
	le32 len;
} __attribute__((packed));

struct state_wire_record {
	le32 version;
	le16 nfields;
} __attribute__((packed));

_Static_assert(sizeof(struct state_wire_head) == 16, "on disk");
_Static_assert(sizeof(struct state_wire_section) == 16, "on disk");
_Static_assert(sizeof(struct state_wire_field) == 8, "on disk");
_Static_assert(sizeof(struct state_wire_record) == 6, "on disk");

/* A growing buffer. After a failed append the length is unchanged. */
struct state_buf {
	uint8_t *data;
	size_t len, cap;
};
int state_buf_append(struct state_buf *b, const void *data, size_t len);

/* Asserts that the table is sound: fields inside the structure and of the size their type has,
 * names unique, counts not shared with a field, bounds in order. A bad table is our bug. */
void state_desc_check(const struct state_desc *d);
unsigned state_desc_fields(const struct state_desc *d);
uint8_t state_type_to_wire(enum state_type type);
/* The value of a scalar or bool of the structure at base. */
uint64_t state_scalar_read(const struct state_field *f, const uint8_t *base);
/* Elements or bytes used, as the structure says; the capacity if there is no counter. */
uint32_t state_count_read(const struct state_field *f, const uint8_t *base);
/* 0, or -EINVAL with a sentence if v is outside the bounds of the table. */
int state_scalar_check(const struct state_field *f, uint64_t v, struct err *err);
/* How many the buffer or array can hold. */
uint64_t state_field_capacity(const struct state_field *f);

/* Appends the record of the structure at base; -EINVAL with a sentence if it breaks its table. */
int state_record_encode(struct state_buf *b, const struct state_desc *d, const uint8_t *base,
			struct err *err);
/* Decodes all of data[len] into the zeroed structure at base and validates it. */
int state_record_decode(const uint8_t *data, size_t len, const struct state_desc *d,
			uint8_t *base, struct err *err);

/* Printable ASCII within the limits above? Names and instances go into messages. */
bool state_name_ok(const char *s, size_t len, size_t max);

/* CRC-32C (Castagnoli), reflected, as in RFC 3720 B.4. The tables are built by crc32c_init(). */
struct crc32c {
	uint32_t tab[8][256];
};
void crc32c_init(struct crc32c *c);
/* crc is 0 at first, then what the last call returned. */
uint32_t crc32c_update(const struct crc32c *c, uint32_t crc, const void *data, size_t len);

#endif
