/* See qmp_frame.h. */
#include "control/qmp_frame.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static bool put(struct qmp_frame *f, char c)
{
	if (f->overflow) {
		return true;
	}
	if (f->len >= QMP_FRAME_MAX) {
		f->overflow = true;
		return true;
	}
	if (f->len + 1 >= f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 512;
		char *n = realloc(f->buf, cap);

		if (!n) {
			return false;
		}
		f->buf = n;
		f->cap = cap;
	}
	f->buf[f->len++] = c;
	return true;
}

/* A character inside a string. */
static bool in_string(struct qmp_frame *f, char c)
{
	if (f->escape) {
		f->escape = false;
		if (c == '\'') {
			return put(f, c); /* \' is not JSON: the quote alone is meant */
		}
		return put(f, '\\') && put(f, c);
	}
	if (c == '\\') {
		f->escape = true; /* written when we know what follows */
		return true;
	}
	if (c == f->quote) {
		f->quote = 0;
		return put(f, '"');
	}
	if (c == '"') {
		return put(f, '\\') && put(f, c);
	}
	return put(f, c);
}

static bool in_value(struct qmp_frame *f, char c, bool *done)
{
	switch (c) {
	case '"':
	case '\'':
		f->quote = c;
		return put(f, '"');
	case '{':
	case '[':
		if (++f->depth > QMP_FRAME_DEPTH) {
			f->overflow = true;
		}
		return put(f, c);
	case ',':
		if (++f->values >= QMP_FRAME_VALUES) {
			f->overflow = true;
		}
		return put(f, c);
	case '}':
	case ']':
		*done = --f->depth == 0;
		return put(f, c);
	default:
		return put(f, c);
	}
}

/* What no JSON text contains: a client sends it to get us out of a message that it cannot end. */
static bool breaks_off(const struct qmp_frame *f, unsigned char c)
{
	if (c == '\t' || c == '\r' || c == '\n') {
		return f->quote;
	}
	return c < 0x20 || c >= 0xfe;
}

static void start_over(struct qmp_frame *f)
{
	f->depth = 0;
	f->values = 0;
	f->len = 0;
	f->quote = 0;
	f->escape = f->overflow = f->garbage = false;
}

enum qmp_frame_result qmp_frame_feed(struct qmp_frame *f, const char *in, size_t n, size_t *used)
{
	if (!f->depth) {
		f->len = 0;
		f->values = 0;
		if (f->cap > 64 * KiB) { /* do not keep what one large value needed */
			free(f->buf);
			f->buf = NULL;
			f->cap = 0;
		}
	}
	for (size_t i = 0; i < n; i++) {
		bool done = false, ok = true;
		char c = in[i];

		*used = i + 1;
		if (breaks_off(f, (unsigned char)c)) {
			start_over(f);
			return QMP_FRAME_GARBAGE;
		}
		if (f->quote) {
			ok = in_string(f, c);
		} else if (f->depth) {
			ok = in_value(f, c, &done);
		} else if (c == '{' || c == '[') {
			if (f->garbage) {
				f->garbage = false;
				*used = i;
				return QMP_FRAME_GARBAGE;
			}
			ok = in_value(f, c, &done);
		} else if (c == '\n' && f->garbage) {
			f->garbage = false;
			return QMP_FRAME_GARBAGE;
		} else if (!strchr(" \t\r\n", c)) {
			f->garbage = true;
		}
		if (!ok) {
			return QMP_FRAME_NO_MEMORY;
		}
		if (done) {
			bool big = f->overflow;

			f->overflow = false;
			if (big) {
				return QMP_FRAME_TOO_BIG;
			}
			f->buf[f->len] = 0; /* put() keeps one byte free */
			return QMP_FRAME_VALUE;
		}
	}
	*used = n;
	return QMP_FRAME_MORE;
}

void qmp_frame_fini(struct qmp_frame *f)
{
	free(f->buf);
	memset(f, 0, sizeof(*f));
}
