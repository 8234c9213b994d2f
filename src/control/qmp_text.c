/*
 * Two things that the JSON library does not do, on the text itself.
 *
 * An id is any JSON value and goes back as it came: its text is kept, so that a number of 20 digits
 * keeps them all. And integers above 2^63, which the library refuses, are numbers nevertheless:
 * they are written as reals, and where an integer is wanted their type is wrong.
 * Pure: no I/O. Untrusted: every byte; the text may be invalid where the library has not seen it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/qmp_int.h"

/* Index after the string that starts at text[i], a quote. */
static size_t string_end(const char *text, size_t len, size_t i)
{
	for (i++; i < len && text[i] != '"'; i++) {
		i += text[i] == '\\';
	}
	return i < len ? i + 1 : len;
}

/* The value at text[i] up to the comma or bracket that ends it, without white space; *end is
 * where that stands. */
static char *value_copy(const char *text, size_t len, size_t i, size_t *end)
{
	char *out = malloc(len - i + 1);
	unsigned depth = 0;
	size_t n = 0;

	while (out && i < len) {
		size_t next = text[i] == '"' ? string_end(text, len, i) : i + 1;

		if (!depth && (text[i] == ',' || text[i] == '}' || text[i] == ']')) {
			break;
		}
		depth += text[i] == '{' || text[i] == '[';
		depth -= text[i] == '}' || text[i] == ']';
		if (!strchr(" \t\r\n", text[i])) {
			memcpy(out + n, text + i, next - i);
			n += next - i;
		}
		i = next;
	}
	if (out) {
		out[n] = 0;
	}
	*end = i;
	return out;
}

char *qmp_text_id(const char *text, size_t len)
{
	size_t i = 0, end;
	bool key = false;

	while (i < len && text[i] != '{') {
		i++;
	}
	for (i++; i < len; i = end) {
		char *value;

		end = text[i] == '"' ? string_end(text, len, i) : i + 1;
		if (text[i] == '"') {
			key = end - i == 4 && !memcmp(text + i, "\"id\"", 4);
		} else if (text[i] == ':') {
			value = value_copy(text, len, i + 1, &end);
			if (key || !value) {
				return value;
			}
			free(value);
		}
	}
	return NULL;
}

/* Is text[0..n), an integer, out of the range of 64 bits? */
static bool too_wide(const char *text, size_t n)
{
	char buf[24];

	if (n < 19) {
		return false;
	}
	if (n >= sizeof(buf)) {
		return true;
	}
	memcpy(buf, text, n);
	buf[n] = 0;
	errno = 0;
	(void)strtoll(buf, NULL, 10);
	return errno == ERANGE;
}

char *qmp_text_widen(const char *text, size_t *len)
{
	/* "e0" goes behind at least 19 digits each time */
	char *out = malloc(*len + *len / 8 + 3);
	size_t n = 0;

	for (size_t i = 0, end; out && i < *len; i = end) {
		size_t digits;

		end = text[i] == '"' ? string_end(text, *len, i) : i + 1;
		if (text[i] == '-' || isdigit((unsigned char)text[i])) {
			while (end < *len && isdigit((unsigned char)text[end])) {
				end++;
			}
			digits = end;
			while (end < *len && text[end] && strchr("0123456789.eE+-", text[end])) {
				end++;
			}
			memcpy(out + n, text + i, end - i);
			n += end - i;
			if (digits == end && too_wide(text + i, end - i)) {
				memcpy(out + n, "e0", 2);
				n += 2;
			}
			continue;
		}
		memcpy(out + n, text + i, end - i);
		n += end - i;
	}
	*len = n;
	return out;
}
