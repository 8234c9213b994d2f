/*
 * Options in QEMU's command-line syntax, and their tables: see opts.h.
 *
 * Grammar:  text  = [first] *( "," [item] )
 *           first = a value for first_key, if no "=" stands before the first ","
 *           item  = key "=" value / key          (key alone is key=on)
 * In a value ",," stands for ","; keys have no escapes. A comma at the end is harmless.
 *
 * Numbers: parse_u64() takes what QEMU takes, so 0x1f is hexadecimal and 017 octal. Sizes are
 * decimal with an optional fraction ("1.5G"), or hexadecimal without a suffix.
 *
 * Untrusted: with opts_add() the pairs may come from a QMP client. The number of keys is
 * capped; lengths are capped by whoever read the text.
 */
#include "base/opts.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define OPTS_MAX 256

/* ---- numbers ---- */

int parse_u64(const char *text, uint64_t *out)
{
	unsigned long long v;
	char *end;

	/* strtoull() would skip blanks and take a sign. */
	if (text[0] < '0' || text[0] > '9') {
		return -EINVAL;
	}
	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end != '\0') {
		return -EINVAL;
	}
	*out = v;
	return 0;
}

int parse_range(const char *text, uint64_t max, uint64_t *first, uint64_t *last)
{
	const char *dash = strchr(text, '-');
	char head[24];

	size_t n = dash ? (size_t)(dash - text) : strlen(text);

	if (n >= sizeof(head)) {
		return -EINVAL;
	}
	memcpy(head, text, n);
	head[n] = '\0';
	if (parse_u64(head, first) || parse_u64(dash ? dash + 1 : head, last)) {
		return -EINVAL;
	}
	return *first > *last || *last > max ? -EINVAL : 0;
}

int parse_bool(const char *text, bool *out)
{
	static const char *const words[][2] = {
		{"on", "off"},
		{"yes", "no"},
		{"true", "false"},
		{"y", "n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		for (size_t j = 0; j < 2; j++) {
			if (!strcmp(text, words[i][j])) {
				*out = j == 0;
				return 0;
			}
		}
	}
	return -EINVAL;
}

int parse_uuid(const char *text, uint8_t out[16])
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	size_t n = 0;

	if (strlen(text) != sizeof(form) - 1) {
		return -EINVAL;
	}
	for (size_t i = 0; form[i]; i++) {
		if (form[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char)text[i])) {
			return -EINVAL;
		}
	}
	for (size_t i = 0; form[i]; i += 2) {
		char pair[3] = {text[i], text[i + 1], 0};

		if (form[i] == '-') {
			i--; /* the dash alone */
			continue;
		}
		out[n++] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return 0;
}

/* The power of two of a unit letter, or -EINVAL. */
static int size_unit_shift(char unit)
{
	switch (unit) {
	case 'b':
	case 'B':
		return 0;
	case 'k':
	case 'K':
		return 10;
	case 'm':
	case 'M':
		return 20;
	case 'g':
	case 'G':
		return 30;
	case 't':
	case 'T':
		return 40;
	case 'p':
	case 'P':
		return 50;
	case 'e':
	case 'E':
		return 60;
	default:
		return -EINVAL;
	}
}

int parse_size(const char *text, char def_unit, uint64_t *out)
{
	uint64_t whole = 0, frac = 0, scale = 1;
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *p = text;
	int shift = size_unit_shift(def_unit);

	assert(shift >= 0);
	if (hex) {
		if (parse_u64(text, &whole)) {
			return -EINVAL;
		}
		return u64_mul(whole, UINT64_C(1) << shift, out) ? -EINVAL : 0;
	}
	if (*p < '0' || *p > '9') {
		return -EINVAL;
	}
	for (; *p >= '0' && *p <= '9'; p++) {
		if (u64_mul(whole, 10, &whole) ||
		    u64_add(whole, (uint64_t)(*p - '0'), &whole)) {
			return -EINVAL;
		}
	}
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9') {
			return -EINVAL;
		}
		/* More than 18 digits are less than a byte of any unit: they are dropped. */
		for (; *p >= '0' && *p <= '9'; p++) {
			if (scale < UINT64_C(1000000000000000000)) {
				frac = frac * 10 + (uint64_t)(*p - '0');
				scale *= 10;
			}
		}
	}
	if (*p != '\0') {
		shift = size_unit_shift(*p++);
		if (shift < 0 || *p != '\0') {
			return -EINVAL;
		}
	}
	if (frac != 0 && shift == 0) {
		return -EINVAL;
	}
	if (u64_mul(whole, UINT64_C(1) << shift, &whole)) {
		return -EINVAL;
	}
	frac = (uint64_t)(((unsigned __int128)frac << shift) / scale);
	return u64_add(whole, frac, out) ? -EINVAL : 0;
}

/* ---- the list of pairs ---- */

static struct opt *opts_find(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!strcmp(o->opt[i].key, key)) {
			return &o->opt[i];
		}
	}
	return NULL;
}

/* Takes over both strings, also when it fails; either may be NULL after a failed strdup(). */
static int opts_take(struct opts *o, char *key, char *value, struct err *err)
{
	struct opt *opt;
	int r;

	if (!key || !value) {
		r = err_set(err, ENOMEM, "%s: out of memory", o->what);
		goto free_pair;
	}
	if (key[0] == '\0') {
		r = err_set(err, EINVAL,
			    "%s: a key is missing; write key=value, and ',,' for a comma "
			    "within a value",
			    o->what);
		goto free_pair;
	}
	if (opts_find(o, key)) {
		r = err_set(err, EINVAL, "%s: '%s' is given twice; give it once", o->what, key);
		goto free_pair;
	}
	if (o->count == OPTS_MAX) {
		r = err_set(err, EINVAL, "%s: more than %d keys; remove some from '%s' on",
			    o->what, OPTS_MAX, key);
		goto free_pair;
	}
	opt = reallocarray(o->opt, o->count + 1, sizeof(*opt));
	if (!opt) {
		r = err_set(err, ENOMEM, "%s: out of memory", o->what);
		goto free_pair;
	}
	o->opt = opt;
	o->opt[o->count++] = (struct opt){.key = key, .value = value};
	return 0;

free_pair:
	free(key);
	free(value);
	return r;
}

int opts_add(struct opts *o, const char *key, const char *value, struct err *err)
{
	return opts_take(o, strdup(key), strdup(value), err);
}

/* A value up to a single comma or the end, unescaped and allocated; *text moves behind it. */
static char *opts_value(const char **text)
{
	const char *p = *text;
	char *value = malloc(strlen(p) + 1);
	size_t n = 0;

	if (!value) {
		return NULL;
	}
	for (; *p; p++) {
		if (*p == ',') {
			if (p[1] != ',') {
				break;
			}
			p++;
		}
		value[n++] = *p;
	}
	value[n] = '\0';
	*text = *p ? p + 1 : p;
	return value;
}

/* The key of the next element if key is a list's, which is freed then. */
static char *opts_number(const struct opts *o, char *key, const char *const *lists)
{
	unsigned n = 0;
	char *numbered;

	while (key && *lists && strcmp(*lists, key)) {
		lists++;
	}
	if (!key || !*lists) {
		return key;
	}
	for (size_t i = 0, len = strlen(key); i < o->count; i++) {
		n += !strncmp(o->opt[i].key, key, len) && o->opt[i].key[len] == '.';
	}
	if (asprintf(&numbered, "%s.%u", key, n) < 0) {
		numbered = NULL;
	}
	free(key);
	return numbered;
}

int opts_parse(struct opts *o, const char *what, const char *text, const char *first_key,
	       struct err *err)
{
	return opts_parse_lists(o, what, text, first_key, (const char *const[]){NULL}, err);
}

int opts_parse_lists(struct opts *o, const char *what, const char *text, const char *first_key,
		     const char *const *lists, struct err *err)
{
	const char *p = text;
	int r;

	*o = (struct opts){.what = what};
	while (*p) {
		size_t n = strcspn(p, "=,");
		char *key, *value;

		if (p[n] == '=') {
			key = strndup(p, n);
			p += n + 1;
			value = opts_value(&p);
		} else if (p == text && first_key) {
			key = strdup(first_key);
			value = opts_value(&p);
		} else {
			key = strndup(p, n);
			value = strdup("on");
			p += p[n] ? n + 1 : n;
		}
		r = opts_take(o, opts_number(o, key, lists), value, err);
		if (r) {
			opts_fini(o);
			return r;
		}
	}
	return 0;
}

void opts_fini(struct opts *o)
{
	for (size_t i = 0; i < o->count; i++) {
		free(o->opt[i].key);
		free(o->opt[i].value);
	}
	free(o->opt);
	o->opt = NULL;
	o->count = 0;
}

const char *opts_get(struct opts *o, const char *key)
{
	struct opt *opt = opts_find(o, key);

	if (!opt) {
		return NULL;
	}
	opt->used = true;
	return opt->value;
}

const char *opts_get_item(struct opts *o, const char *list, unsigned i)
{
	char key[64];

	snprintf(key, sizeof(key), "%s.%u", list, i);
	return opts_get(o, key);
}

static const struct opt *opts_first_unused(const struct opts *o)
{
	for (size_t i = 0; i < o->count; i++) {
		if (!o->opt[i].used) {
			return &o->opt[i];
		}
	}
	return NULL;
}

int opts_check_used(const struct opts *o, struct err *err)
{
	const struct opt *opt = opts_first_unused(o);

	if (!opt) {
		return 0;
	}
	return err_set(err, EINVAL, "%s: there is no key '%s'; remove it or correct its name",
		       o->what, opt->key);
}

/* ---- tables ---- */

/* "a, b, c", cut at the end of buf. */
static void names_join(char *buf, size_t size, const char *const *names)
{
	size_t n = 0;

	buf[0] = '\0';
	for (; *names && n < size; names++) {
		n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? ", " : "", *names);
	}
}

static int opt_bad(const struct opts *o, const struct opt_desc *d, const char *value,
		   const char *want, struct err *err)
{
	return err_set(err, EINVAL, "%s: %s=%s is not valid; %s", o->what, d->key, value, want);
}

/* The largest value of a row: what it says, and what the field holds. */
static uint64_t opt_max(const struct opt_desc *d)
{
	uint64_t max = d->max ? d->max : UINT64_MAX;

	switch (d->type) {
	case OPT_U16:
		return MIN(max, UINT16_MAX);
	case OPT_U32:
		return MIN(max, UINT32_MAX);
	default:
		return max;
	}
}

static int opt_number(const struct opts *o, const struct opt_desc *d, const char *value,
		      uint64_t *out, struct err *err)
{
	bool size = d->type == OPT_SIZE;
	uint64_t max = opt_max(d);
	char want[128];

	if (size ? parse_size(value, 'b', out) : parse_u64(value, out)) {
		return opt_bad(o, d, value,
			       size ? "give a size such as 512M or 4G" : "give a number", err);
	}
	if (*out >= d->min && *out <= max) {
		return 0;
	}
	if (max == UINT64_MAX) {
		snprintf(want, sizeof(want), "the least is %llu", (unsigned long long)d->min);
	} else {
		snprintf(want, sizeof(want), "give %llu to %llu", (unsigned long long)d->min,
			 (unsigned long long)max);
	}
	return opt_bad(o, d, value, want, err);
}

static int opt_enum(const struct opts *o, const struct opt_desc *d, const char *value, int *out,
		    struct err *err)
{
	char list[256], want[sizeof(list) + 16];

	for (int i = 0; d->names[i]; i++) {
		if (!strcmp(d->names[i], value)) {
			*out = i;
			return 0;
		}
	}
	names_join(list, sizeof(list), d->names);
	snprintf(want, sizeof(want), "give one of %s", list);
	return opt_bad(o, d, value, want, err);
}

static int opt_store(const struct opts *o, const struct opt_desc *d, const char *value,
		     void *field, struct err *err)
{
	uint64_t number = 0;
	char *copy;
	int r;

	switch (d->type) {
	case OPT_STR:
		copy = strdup(value);
		if (!copy) {
			return err_set(err, ENOMEM, "%s: out of memory", o->what);
		}
		free(*(char **)field);
		*(char **)field = copy;
		return 0;
	case OPT_BOOL:
		r = parse_bool(value, field);
		return r ? opt_bad(o, d, value, "give on or off", err) : 0;
	case OPT_ENUM:
		return opt_enum(o, d, value, field, err);
	case OPT_U16:
		r = opt_number(o, d, value, &number, err);
		if (!r) {
			*(uint16_t *)field = (uint16_t)number;
		}
		return r;
	case OPT_U32:
		r = opt_number(o, d, value, &number, err);
		if (!r) {
			*(uint32_t *)field = (uint32_t)number;
		}
		return r;
	case OPT_U64:
	case OPT_SIZE:
		r = opt_number(o, d, value, &number, err);
		if (!r) {
			*(uint64_t *)field = number;
		}
		return r;
	}
	assert(!"unknown option type");
	return -EINVAL;
}

/* As opts_check_used(), but with the rows at hand it can say what there is. */
static int opts_check_known(const struct opts *o, const struct opt_desc *descs, struct err *err)
{
	const struct opt *opt = opts_first_unused(o);
	const char *names[OPTS_MAX + 1];
	char list[320];
	size_t n = 0;

	if (!opt) {
		return 0;
	}
	for (; descs[n].key && n < OPTS_MAX; n++) {
		names[n] = descs[n].key;
	}
	names[n] = NULL;
	if (n == 0) {
		return opts_check_used(o, err);
	}
	names_join(list, sizeof(list), names);
	return err_set(err, EINVAL, "%s: there is no key '%s'; there are %s", o->what, opt->key,
		       list);
}

int opts_read(struct opts *o, const struct opt_desc *descs, void *obj, struct err *err)
{
	int r;

	for (const struct opt_desc *d = descs; d->key; d++) {
		const char *value = opts_get(o, d->key);

		if (!value && d->required) {
			return err_set(err, EINVAL, "%s: '%s' is missing; add %s=…", o->what,
				       d->key, d->key);
		}
		if (!value) {
			value = d->def;
		}
		if (!value) {
			continue;
		}
		r = opt_store(o, d, value, (char *)obj + d->offset, err);
		if (r) {
			return r;
		}
	}
	return opts_check_known(o, descs, err);
}

void opts_free_struct(const struct opt_desc *descs, void *obj)
{
	for (const struct opt_desc *d = descs; d->key; d++) {
		if (d->type == OPT_STR) {
			char **field = (char **)((char *)obj + d->offset);

			free(*field);
			*field = NULL;
		}
	}
}
