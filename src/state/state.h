/*
 * Device state, declared (design: the same table serves migration, snapshot and live upgrade).
 *
 * A class describes a plain structure of scalars and bounded buffers, its *state structure*,
 * which is separate from the live one: save() fills it from the device, load() takes it over.
 * The encoding is self-describing (field names, types and lengths), little-endian, versioned.
 * Decoding treats the input as hostile: every length and range is checked, into a scratch
 * structure, validate() has the last word, and only then load() is called.
 * Any thread that owns the object.
 */
#ifndef STATE_STATE_H
#define STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum state_type {
	STATE_U8, STATE_U16, STATE_U32, STATE_U64, /* min/max are checked */
	STATE_BOOL,
	STATE_BYTES,  /* uint8_t[size], all of it */
	STATE_BUF,    /* uint8_t[size], of which the u32 at count_offset says how many are used */
	STATE_STRUCT, /* nested desc */
	STATE_ARRAY,  /* nested desc, at most `max` elements; count_offset: a u32, or -1: exactly max */
};

struct state_desc;
struct state_field {
	const char *name;
	enum state_type type;
	size_t offset;
	size_t size;          /* of the buffer, or of one array element */
	uint64_t min, max;    /* scalars: bounds, max 0 = the type's; arrays: capacity */
	long count_offset;    /* -1: none */
	const struct state_desc *nested;
	unsigned since;       /* version of the desc that added it; absent in older streams: zero */
};
struct state_desc {
	const char *name;
	unsigned version;     /* what save writes */
	unsigned min_version; /* oldest that load takes */
	size_t size;          /* of the state structure */
	const struct state_field *fields; /* ends with name NULL */
	/* Cross-field checks on a decoded structure; 0 or -EINVAL with a sentence. May be NULL. */
	int (*validate)(const void *st, struct err *err);
};

#define STATE_SCALAR_(T, st, f, lo, hi) \
	{ .name = #f, .type = T, .offset = offsetof(st, f), .size = sizeof(((st *)0)->f), \
	  .min = lo, .max = hi, .count_offset = -1 }
#define STATE_F_U8(st, f)            STATE_SCALAR_(STATE_U8, st, f, 0, 0)
#define STATE_F_U16(st, f)           STATE_SCALAR_(STATE_U16, st, f, 0, 0)
#define STATE_F_U32(st, f)           STATE_SCALAR_(STATE_U32, st, f, 0, 0)
#define STATE_F_U64(st, f)           STATE_SCALAR_(STATE_U64, st, f, 0, 0)
#define STATE_F_BOOL(st, f)          STATE_SCALAR_(STATE_BOOL, st, f, 0, 0)
#define STATE_F_RANGE(T, st, f, lo, hi) STATE_SCALAR_(T, st, f, lo, hi)
#define STATE_F_BYTES(st, f) \
	{ .name = #f, .type = STATE_BYTES, .offset = offsetof(st, f), \
	  .size = sizeof(((st *)0)->f), .count_offset = -1 }
#define STATE_F_BUF(st, f, cnt) \
	{ .name = #f, .type = STATE_BUF, .offset = offsetof(st, f), \
	  .size = sizeof(((st *)0)->f), .count_offset = offsetof(st, cnt) }
#define STATE_F_STRUCT(st, f, d) \
	{ .name = #f, .type = STATE_STRUCT, .offset = offsetof(st, f), \
	  .size = sizeof(((st *)0)->f), .count_offset = -1, .nested = d }
/* a fixed array of nested structures */
#define STATE_F_ARRAY(st, f, d) \
	{ .name = #f, .type = STATE_ARRAY, .offset = offsetof(st, f), \
	  .size = sizeof(((st *)0)->f[0]), .max = sizeof(((st *)0)->f) / sizeof(((st *)0)->f[0]), \
	  .count_offset = -1, .nested = d }
/* the same with a u32 that counts the used elements */
#define STATE_F_VARRAY(st, f, d, cnt) \
	{ .name = #f, .type = STATE_ARRAY, .offset = offsetof(st, f), \
	  .size = sizeof(((st *)0)->f[0]), .max = sizeof(((st *)0)->f) / sizeof(((st *)0)->f[0]), \
	  .count_offset = offsetof(st, cnt), .nested = d }
#define STATE_F_END { .name = NULL }

/* --- streams --- */
struct state_out;  /* growing buffer */
struct state_in;   /* a view of a whole buffer */

/* One stream = header, sections, end mark with CRC32C. Sections carry (desc name, instance id). */
int state_out_new(struct state_out **out);
void state_out_free(struct state_out *o); /* NULL is fine */
/* Validates as loading would, so that what is saved can be loaded. -EINVAL if the structure
 * breaks its table (logged with the field), -EEXIST if (d->name, instance) is there already,
 * -ENOMEM, -E2BIG. On error the stream is as before. An unsound table is our bug: assert.
 * instance: at most 255 characters of printable ASCII. */
int state_put(struct state_out *o, const struct state_desc *d, const char *instance,
	      const void *st);
/* A section of raw bytes (guest RAM pages in the stop-save-load test); name and instance as above. */
int state_put_blob(struct state_out *o, const char *name, const char *instance,
		   const void *data, uint64_t len);
/* Finishes (nothing may be put afterwards); the buffer stays owned by o. 0 or -ENOMEM. */
int state_out_finish(struct state_out *o, const void **data, size_t *len);

/* Checks the header, the framing of every section and the CRC before anything is used. data
 * stays the caller's and in place until state_in_free(). -EINVAL or -ENOMEM with a sentence. */
int state_in_open(struct state_in **out, const void *data, size_t len, struct err *err);
void state_in_free(struct state_in *in);
/* Decodes the section (d->name, instance) into st (d->size bytes, zeroed first), validates.
 * -ENOENT if there is none, -EINVAL if it is bad, -EEXIST if taken before, each with a sentence;
 * st is all zero then. */
int state_get(struct state_in *in, const struct state_desc *d, const char *instance, void *st,
	      struct err *err);
/* The same for bytes; *data points into the stream. */
int state_get_blob(struct state_in *in, const char *name, const char *instance,
		   const void **data, uint64_t *len, struct err *err);
/* -EINVAL naming the first section nobody took: nothing is silently ignored. */
int state_in_check_used(struct state_in *in, struct err *err);

#endif
