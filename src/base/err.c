/*
 * Errors a person reads: see err.h. The text is built in a buffer of our own first, so that a
 * caller may put the old text into the new one (err_set(err, e, "…: %s", err->msg)).
 */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

/* Copies what fits. A character cut in two would make the text invalid UTF-8, and with it the
 * JSON it travels in, so the cut moves back to the start of a character. */
static void err_fit(struct err *err, const char *text)
{
	size_t n = strnlen(text, sizeof(err->msg));

	if (n == sizeof(err->msg)) {
		n--;
		while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) {
			n--;
		}
	}
	memcpy(err->msg, text, n);
	err->msg[n] = '\0';
}

static void err_store(struct err *err, enum err_class cls, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static void err_store(struct err *err, enum err_class cls, const char *fmt, va_list ap)
{
	char text[sizeof(err->msg) + 1];

	vsnprintf(text, sizeof(text), fmt, ap);
	err->cls = cls;
	err_fit(err, text);
}

int err_set(struct err *err, int errnum, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		err_store(err, ERR_GENERIC, fmt, ap);
		va_end(ap);
	}
	return -errnum;
}

int err_set_class(struct err *err, enum err_class cls, int errnum, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		err_store(err, cls, fmt, ap);
		va_end(ap);
	}
	return -errnum;
}

void err_prefix(struct err *err, const char *fmt, ...)
{
	char text[2 * sizeof(err->msg) + 2];
	va_list ap;
	size_t n;

	if (!err) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(text);
	snprintf(text + n, sizeof(text) - n, ": %s", err->msg);
	err_fit(err, text);
}
