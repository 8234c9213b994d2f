/*
 * Record to structure (state_int.h has the format).
 *
 * The bytes are hostile. Every length is compared with what is left before it is used; nothing
 * is allocated; recursion follows our tables, never the input; loops end with the bytes, because
 * each element takes at least four. The structure at base is the scratch copy: on error its
 * contents mean nothing and the caller throws it away.
 *
 * Invariants after success: every field with since <= version was there exactly once, every
 * scalar is within its bounds, every counter within its capacity, validate() agreed at every
 * level, not a byte is left over. Pure functions, any thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "state/state_int.h"

struct reader {
	const uint8_t *p;
	size_t left;
};

/* A view of the next len bytes, or NULL if there are fewer. */
static const uint8_t *reader_take(struct reader *r, size_t len)
{
	const uint8_t *p = r->p;

	if (len > r->left) {
		return NULL;
	}
	r->p += len;
	r->left -= len;
	return p;
}

static bool reader_copy(struct reader *r, void *out, size_t len)
{
	const uint8_t *p = reader_take(r, len);

	if (!p) {
		return false;
	}
	memcpy(out, p, len);
	return true;
}

static int err_truncated(struct err *err, const char *what)
{
	return err_set(err, EINVAL, "%s: the data ends too early", what);
}

static int err_length(struct err *err, const struct state_field *f, size_t len, uint64_t want)
{
	return err_set(err, EINVAL, "%s: %zu bytes, %llu expected", f->name, len,
		       (unsigned long long)want);
}

static int state_scalar_decode(const struct state_field *f, const uint8_t *data, size_t len,
			       uint8_t *base, struct err *err)
{
	uint64_t v = 0;
	int rc;

	if (len != f->size) {
		return err_length(err, f, len, f->size);
	}
	memcpy(&v, data, len);
	rc = state_scalar_check(f, v, err);
	if (rc) {
		return rc;
	}
	memcpy(base + f->offset, &v, len);
	return 0;
}

static int state_count_set(const struct state_field *f, uint64_t count, uint8_t *base,
			   struct err *err)
{
	uint64_t capacity = state_field_capacity(f);
	uint32_t wire;

	if (count > capacity) {
		return err_set(err, EINVAL, "%s: %llu given, but there is room for %llu",
			       f->name, (unsigned long long)count,
			       (unsigned long long)capacity);
	}
	if (f->count_offset == -1) {
		return count == capacity ? 0
					 : err_set(err, EINVAL, "%s: %llu given, %llu expected",
						   f->name, (unsigned long long)count,
						   (unsigned long long)capacity);
	}
	wire = (uint32_t)count;
	memcpy(base + f->count_offset, &wire, sizeof(wire));
	return 0;
}

static int state_array_decode(const struct state_field *f, const uint8_t *data, size_t len,
			      uint8_t *base, struct err *err)
{
	struct reader r = {data, len};
	uint32_t count;
	le32 wire;
	int rc;

	if (!reader_copy(&r, &wire, sizeof(wire))) {
		return err_truncated(err, f->name);
	}
	count = le32_get(wire);
	rc = state_count_set(f, count, base, err);
	if (rc) {
		return rc;
	}
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *element = NULL;

		if (reader_copy(&r, &wire, sizeof(wire))) {
			element = reader_take(&r, le32_get(wire));
		}
		if (!element) {
			return err_truncated(err, f->name);
		}
		rc = state_record_decode(element, le32_get(wire), f->nested,
					 base + f->offset + i * f->size, err);
		if (rc) {
			err_prefix(err, "%s[%u]", f->name, i);
			return rc;
		}
	}
	if (r.left) {
		return err_set(err, EINVAL, "%s: %zu bytes too many", f->name, r.left);
	}
	return 0;
}

static int state_value_decode(const struct state_field *f, const uint8_t *data, size_t len,
			      uint8_t *base, struct err *err)
{
	int rc;

	switch (f->type) {
	case STATE_U8:
	case STATE_U16:
	case STATE_U32:
	case STATE_U64:
	case STATE_BOOL:
		return state_scalar_decode(f, data, len, base, err);
	case STATE_BYTES:
		if (len != f->size) {
			return err_length(err, f, len, f->size);
		}
		memcpy(base + f->offset, data, len);
		return 0;
	case STATE_BUF:
		rc = state_count_set(f, len, base, err);
		if (rc) {
			return rc;
		}
		memcpy(base + f->offset, data, len);
		return 0;
	case STATE_STRUCT:
		rc = state_record_decode(data, len, f->nested, base + f->offset, err);
		if (rc) {
			err_prefix(err, "%s", f->name);
		}
		return rc;
	case STATE_ARRAY:
		return state_array_decode(f, data, len, base, err);
	}
	assert(!"a type that state_desc_check() lets through");
	return -EINVAL;
}

/* The index of the named field, or -1. Streams keep the table's order, so `hint` mostly hits. */
static int state_field_find(const struct state_desc *d, unsigned nfields, unsigned hint,
			    const uint8_t *name, size_t len)
{
	for (unsigned i = 0; i < nfields; i++) {
		unsigned at = (hint + i) % nfields;

		if (strlen(d->fields[at].name) == len &&
		    memcmp(d->fields[at].name, name, len) == 0) {
			return (int)at;
		}
	}
	return -1;
}

static int state_field_decode(struct reader *r, const struct state_desc *d, unsigned nfields,
			      uint32_t version, unsigned hint, uint64_t *seen, uint8_t *base,
			      struct err *err)
{
	struct state_wire_field head;
	const struct state_field *f;
	const uint8_t *name, *value;
	int at;

	if (!reader_copy(r, &head, sizeof(head))) {
		return err_truncated(err, d->name);
	}
	name = reader_take(r, head.name_len);
	value = name ? reader_take(r, le32_get(head.len)) : NULL;
	if (!value) {
		return err_truncated(err, d->name);
	}
	if (!head.name_len ||
	    !state_name_ok((const char *)name, head.name_len, STATE_NAME_MAX) ||
	    le16_get(head.zero)) {
		return err_set(err, EINVAL, "%s: field %u has a bad header", d->name, hint);
	}
	at = state_field_find(d, nfields, hint, name, head.name_len);
	if (at < 0) {
		return err_set(err, EINVAL, "%s has no field '%.*s'", d->name, head.name_len,
			       (const char *)name);
	}
	f = &d->fields[at];
	if (seen[at / 64] >> (at % 64) & 1) {
		return err_set(err, EINVAL, "%s: given twice", f->name);
	}
	seen[at / 64] |= UINT64_C(1) << (at % 64);
	if (f->since > version) {
		return err_set(err, EINVAL, "%s: not in version %u of %s", f->name, version,
			       d->name);
	}
	if (head.type != state_type_to_wire(f->type)) {
		return err_set(err, EINVAL, "%s: type %u, %u expected", f->name, head.type,
			       state_type_to_wire(f->type));
	}
	return state_value_decode(f, value, le32_get(head.len), base, err);
}

int state_record_decode(const uint8_t *data, size_t len, const struct state_desc *d,
			uint8_t *base, struct err *err)
{
	uint64_t seen[STATE_FIELDS_MAX / 64] = {0};
	struct reader r = {data, len};
	unsigned nfields = state_desc_fields(d);
	struct state_wire_record head;
	uint32_t version;
	int rc;

	if (!reader_copy(&r, &head, sizeof(head))) {
		return err_truncated(err, d->name);
	}
	version = le32_get(head.version);
	if (version < d->min_version || version > d->version) {
		return err_set(err, EINVAL, "%s: version %u, this program reads %u to %u",
			       d->name, version, d->min_version, d->version);
	}
	if (le16_get(head.nfields) > nfields) {
		return err_set(err, EINVAL, "%s: %u fields, there are %u", d->name,
			       le16_get(head.nfields), nfields);
	}
	for (unsigned i = 0; i < le16_get(head.nfields); i++) {
		rc = state_field_decode(&r, d, nfields, version, i, seen, base, err);
		if (rc) {
			return rc;
		}
	}
	if (r.left) {
		return err_set(err, EINVAL, "%s: %zu bytes too many", d->name, r.left);
	}
	for (unsigned i = 0; i < nfields; i++) {
		if (!(seen[i / 64] >> (i % 64) & 1) && d->fields[i].since <= version) {
			return err_set(err, EINVAL, "%s: missing", d->fields[i].name);
		}
	}
	return d->validate ? d->validate(base, err) : 0;
}
