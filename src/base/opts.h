/*
 * "name[,key=value…]" in the syntax of QEMU's command line: a doubled comma stands for a
 * comma; "key" alone means key=on; a first word without "=" takes the key the caller names.
 * Values are then read into a structure by a table, so that each option is one row.
 */
#ifndef BASE_OPTS_H
#define BASE_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct opt {
	char *key, *value;
	bool used;
};
struct opts {
	const char *what; /* for messages: "-drive", "-device virtio-blk-pci"; not owned */
	struct opt *opt;
	size_t count;
};

/* Parses text; first_key may be NULL (then a first bare word is a boolean like any other).
 * At most 256 keys, a key given twice is an error (-EINVAL). opts_fini() frees. */
int opts_parse(struct opts *o, const char *what, const char *text, const char *first_key,
	       struct err *err);
/* The same, with keys (lists, NULL at the end) that may be given several times: they become
 * KEY.0, KEY.1, …, which is also the form that a JSON array has. */
int opts_parse_lists(struct opts *o, const char *what, const char *text, const char *first_key,
		     const char *const *lists, struct err *err);
/* Adds a pair, copies both (JSON objects become opts this way). The list starts as
 * (struct opts){.what = …}. -EINVAL as above, -ENOMEM; what was there before stays. */
int opts_add(struct opts *o, const char *key, const char *value, struct err *err);
/* Adds the pairs of a JSON object; null: a null is an empty value, else it is refused. -EINVAL with a
 * sentence; some pairs may have been added then. */
int opts_add_json(struct opts *o, const char *json, bool null, struct err *err);
void opts_fini(struct opts *o);
/* NULL if absent; marks it used. The string lives as long as o. */
const char *opts_get(struct opts *o, const char *key);
/* The i-th value of a list, NULL past its end; marks it used. */
const char *opts_get_item(struct opts *o, const char *list, unsigned i);
/* -EINVAL naming the first key that nothing asked for. */
int opts_check_used(const struct opts *o, struct err *err);

enum opt_type {
	OPT_STR,  /* char * (strdup'ed) */
	OPT_BOOL, /* bool; on/off, yes/no, true/false, y/n */
	OPT_U16,
	OPT_U32,
	OPT_U64,
	OPT_SIZE, /* uint64_t, with suffix b k M G T P E, default unit bytes */
	OPT_ENUM, /* int; names[] ends with NULL */
};
struct opt_desc {
	const char *key;
	enum opt_type type;
	size_t offset;	   /* into the structure */
	uint64_t min, max; /* for numbers; max 0 means no limit */
	const char *const *names;
	const char *def; /* default as text; NULL leaves the field as it is */
	const char *doc;
	bool required;
};
/* Reads every row of descs (ends with key NULL) into obj, then opts_check_used(): keys that are
 * not rows are taken with opts_get() before. String fields of obj are NULL or allocated when
 * this is called (a value replaces and frees them). On error obj may be partly filled; opts_free_struct() frees the strings of it in either case. */
int opts_read(struct opts *o, const struct opt_desc *descs, void *obj, struct err *err);
void opts_free_struct(const struct opt_desc *descs, void *obj);

/* One value, as opts_read() takes it; `def_unit` is 'b', 'k', 'M', 'G'. 0 or -EINVAL. Numbers
 * are as in C (0x: hexadecimal, 0: octal); sizes are decimal, "1.5G" too, or hexadecimal
 * without a suffix; a fraction of a byte is cut off. No sign, no blanks, no overflow. */
int parse_size(const char *text, char def_unit, uint64_t *out);
int parse_u64(const char *text, uint64_t *out);
int parse_bool(const char *text, bool *out);
/* "3" or "3-5", both ends inclusive and at most max. 0 or -EINVAL. */
int parse_range(const char *text, uint64_t max, uint64_t *first, uint64_t *last);
/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", into bytes in the order of the text. */
int parse_uuid(const char *text, uint8_t out[16]);

#endif
