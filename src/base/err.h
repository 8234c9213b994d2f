/*
 * Errors a person reads.
 *
 * A function that can fail because of what a user asked for takes a `struct err *` as its
 * last argument, returns -errno, and leaves one sentence that names the thing and says what
 * to do. The caller owns the struct (usually on its stack) and may pass NULL if it does not
 * want the text. Any thread; no allocation.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

/* The error classes of QMP; everything but GENERIC exists because clients test for it. */
enum err_class {
	ERR_GENERIC,
	ERR_COMMAND_NOT_FOUND,
	ERR_DEVICE_NOT_ACTIVE,
	ERR_DEVICE_NOT_FOUND,
	ERR_KVM_MISSING_CAP,
};

struct err {
	enum err_class cls;
	char msg[512];
};

/* Sets the text (truncated to fit) and returns -errnum, so that `return err_set(…)` reads well.
 * errnum is a positive errno value. */
int err_set(struct err *err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int err_set_class(struct err *err, enum err_class cls, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Puts "prefix: " before a text that is already there. */
void err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
