/*
 * The table of a class: what encoder and decoder both read from it, and the check that it is
 * sound. Everything here judges our own tables, nothing reads a stream; so assert is right.
 * Pure functions, any thread.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "state/state_int.h"

static const struct {
	uint8_t wire;
	uint8_t size; /* 0: any */
} state_types[] = {
	[STATE_U8] = {STATE_WIRE_U8, 1},
	[STATE_U16] = {STATE_WIRE_U16, 2},
	[STATE_U32] = {STATE_WIRE_U32, 4},
	[STATE_U64] = {STATE_WIRE_U64, 8},
	[STATE_BOOL] = {STATE_WIRE_BOOL, 1},
	[STATE_BYTES] = {STATE_WIRE_BYTES, 0},
	[STATE_BUF] = {STATE_WIRE_BUF, 0},
	[STATE_STRUCT] = {STATE_WIRE_STRUCT, 0},
	[STATE_ARRAY] = {STATE_WIRE_ARRAY, 0},
};

uint8_t state_type_to_wire(enum state_type type)
{
	assert((unsigned)type < ARRAY_SIZE(state_types));
	return state_types[type].wire;
}

bool state_name_ok(const char *s, size_t len, size_t max)
{
	if (len > max) {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if (s[i] < 0x20 || s[i] > 0x7e) {
			return false;
		}
	}
	return true;
}

unsigned state_desc_fields(const struct state_desc *d)
{
	unsigned n = 0;

	while (d->fields[n].name) {
		n++;
	}
	return n;
}

uint64_t state_field_capacity(const struct state_field *f)
{
	return f->type == STATE_ARRAY ? f->max : f->size;
}

/* Bytes of the structure that the field's value takes, its counter not included. */
static uint64_t state_field_extent(const struct state_field *f)
{
	uint64_t bytes = f->size;

	if (f->type == STATE_ARRAY) {
		assert(!u64_mul(f->size, f->max, &bytes));
	}
	return bytes;
}

static bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

static void state_field_check(const struct state_desc *d, const struct state_field *f)
{
	bool counts = f->type == STATE_BUF || f->type == STATE_ARRAY;
	bool nests = f->type == STATE_STRUCT || f->type == STATE_ARRAY;
	size_t name_len = strlen(f->name);

	assert((unsigned)f->type < ARRAY_SIZE(state_types));
	assert(name_len && state_name_ok(f->name, name_len, STATE_NAME_MAX));
	assert(!state_types[f->type].size || state_types[f->type].size == f->size);
	assert(f->size && state_field_capacity(f) && state_field_capacity(f) <= UINT32_MAX);
	assert(range_within(f->offset, state_field_extent(f), d->size));
	assert(f->since <= d->version);
	assert(counts ? f->type == STATE_ARRAY || f->count_offset >= 0 : f->count_offset == -1);
	if (f->count_offset != -1) {
		assert(f->count_offset >= 0);
		assert(range_within((uint64_t)f->count_offset, 4, d->size));
	}
	assert(nests == !!f->nested);
	if (nests) {
		assert(f->nested != d && f->nested->size == f->size);
		state_desc_check(f->nested);
	}
	if (state_types[f->type].size && f->max) {
		assert(f->type != STATE_BOOL && f->min <= f->max);
		assert(f->size == 8 || f->max >> (8 * f->size) == 0);
	}
	/* A counter that is a field as well would be set twice, the second time unchecked. */
	for (const struct state_field *o = d->fields; o->name; o++) {
		assert(o == f || strcmp(o->name, f->name) != 0);
		assert(f->count_offset == -1 ||
		       !ranges_overlap((uint64_t)f->count_offset, 4, o->offset,
				       state_field_extent(o)));
		assert(o == f || !ranges_overlap(f->offset, state_field_extent(f), o->offset,
						 state_field_extent(o)));
	}
}

void state_desc_check(const struct state_desc *d)
{
	size_t name_len = strlen(d->name);

	assert(name_len && state_name_ok(d->name, name_len, STATE_NAME_MAX));
	assert(d->min_version <= d->version);
	assert(state_desc_fields(d) <= STATE_FIELDS_MAX);
	for (const struct state_field *f = d->fields; f->name; f++) {
		state_field_check(d, f);
	}
}

uint64_t state_scalar_read(const struct state_field *f, const uint8_t *base)
{
	uint64_t v = 0;

	memcpy(&v, base + f->offset, f->size); /* little-endian: the low bytes */
	return v;
}

uint32_t state_count_read(const struct state_field *f, const uint8_t *base)
{
	uint32_t count;

	if (f->count_offset == -1) {
		return (uint32_t)state_field_capacity(f);
	}
	memcpy(&count, base + f->count_offset, sizeof(count));
	return count;
}

int state_scalar_check(const struct state_field *f, uint64_t v, struct err *err)
{
	if (f->type == STATE_BOOL && v > 1) {
		return err_set(err, EINVAL, "%s: %llu is neither 0 nor 1", f->name,
			       (unsigned long long)v);
	}
	if (v < f->min || (f->max && v > f->max)) {
		return err_set(err, EINVAL, "%s: %llu is outside %llu to %llu", f->name,
			       (unsigned long long)v, (unsigned long long)f->min,
			       (unsigned long long)(f->max ? f->max : UINT64_MAX));
	}
	return 0;
}
