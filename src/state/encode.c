/*
 * Structure to record (state_int.h has the format).
 *
 * The structure was filled by a device, whose values a guest may have influenced, so a value
 * that breaks its own table is an error here and not an assert: better no stream than one that
 * cannot be loaded. Pure functions over the buffer, any thread.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "state/state_int.h"

enum { STATE_BUF_FIRST = 4096 };

int state_buf_append(struct state_buf *b, const void *data, size_t len)
{
	if (len > b->cap - b->len) {
		size_t need, cap = b->cap ? b->cap : STATE_BUF_FIRST;
		uint8_t *grown;

		if (__builtin_add_overflow(b->len, len, &need) || need > SIZE_MAX / 4) {
			return -ENOMEM;
		}
		while (cap < need) {
			cap *= 2;
		}
		grown = realloc(b->data, cap);
		if (!grown) {
			return -ENOMEM;
		}
		b->data = grown;
		b->cap = cap;
	}
	if (len) {
		memcpy(b->data + b->len, data, len);
		b->len += len;
	}
	return 0;
}

/* Reserves a length that is known only when what it measures has been written. */
static int state_len_begin(struct state_buf *b, size_t *at)
{
	le32 zero = le32_of(0);

	*at = b->len;
	return state_buf_append(b, &zero, sizeof(zero));
}

static int state_len_end(struct state_buf *b, size_t at, size_t start)
{
	size_t len = b->len - start;
	le32 wire;

	if (len > UINT32_MAX) {
		return -E2BIG;
	}
	wire = le32_of((uint32_t)len);
	memcpy(b->data + at, &wire, sizeof(wire));
	return 0;
}

static int state_array_encode(struct state_buf *b, const struct state_field *f,
			      const uint8_t *base, struct err *err)
{
	uint32_t count = state_count_read(f, base);
	le32 wire = le32_of(count);
	int rc = state_buf_append(b, &wire, sizeof(wire));

	for (uint32_t i = 0; i < count && !rc; i++) {
		size_t at;

		rc = state_len_begin(b, &at);
		if (rc) {
			break;
		}
		rc = state_record_encode(b, f->nested, base + f->offset + i * f->size, err);
		if (rc) {
			err_prefix(err, "%s[%u]", f->name, i);
			break;
		}
		rc = state_len_end(b, at, at + sizeof(wire));
	}
	return rc;
}

static int state_value_encode(struct state_buf *b, const struct state_field *f,
			      const uint8_t *base, struct err *err)
{
	uint32_t count;
	int rc;

	switch (f->type) {
	case STATE_U8:
	case STATE_U16:
	case STATE_U32:
	case STATE_U64:
	case STATE_BOOL:
		rc = state_scalar_check(f, state_scalar_read(f, base), err);
		return rc ? rc : state_buf_append(b, base + f->offset, f->size);
	case STATE_BYTES:
		return state_buf_append(b, base + f->offset, f->size);
	case STATE_STRUCT:
		rc = state_record_encode(b, f->nested, base + f->offset, err);
		if (rc) {
			err_prefix(err, "%s", f->name);
		}
		return rc;
	case STATE_BUF:
	case STATE_ARRAY:
		count = state_count_read(f, base);
		if (count > state_field_capacity(f)) {
			return err_set(err, EINVAL,
				       "%s: %u are used, but there is room for %llu", f->name,
				       count, (unsigned long long)state_field_capacity(f));
		}
		return f->type == STATE_BUF ? state_buf_append(b, base + f->offset, count)
					    : state_array_encode(b, f, base, err);
	}
	assert(!"a type that state_desc_check() lets through");
	return -EINVAL;
}

static int state_field_encode(struct state_buf *b, const struct state_field *f,
			      const uint8_t *base, struct err *err)
{
	struct state_wire_field head = {
		.type = state_type_to_wire(f->type),
		.name_len = (uint8_t)strlen(f->name),
	};
	size_t at = b->len + offsetof(struct state_wire_field, len), start;
	int rc;

	rc = state_buf_append(b, &head, sizeof(head));
	if (rc) {
		return rc;
	}
	rc = state_buf_append(b, f->name, head.name_len);
	if (rc) {
		return rc;
	}
	start = b->len;
	rc = state_value_encode(b, f, base, err);
	return rc ? rc : state_len_end(b, at, start);
}

int state_record_encode(struct state_buf *b, const struct state_desc *d, const uint8_t *base,
			struct err *err)
{
	struct state_wire_record head = {
		.version = le32_of(d->version),
		.nfields = le16_of((uint16_t)state_desc_fields(d)),
	};
	int rc = state_buf_append(b, &head, sizeof(head));

	for (const struct state_field *f = d->fields; f->name && !rc; f++) {
		rc = state_field_encode(b, f, base, err);
	}
	if (!rc && d->validate) {
		rc = d->validate(base, err);
	}
	return rc;
}
