/*
 * Cutting a byte stream into JSON values, before any parser sees them.
 *
 * A value ends where its outermost bracket closes, whether or not a line end follows. Strings in
 * single quotes, which QEMU's clients use by hand, are turned into double quotes on the way. A
 * value above QMP_FRAME_MAX bytes, QMP_FRAME_DEPTH levels or QMP_FRAME_VALUES values inside is counted through to its end
 * without being kept, so the stream stays in step. What is no value is skipped up to the next
 * line end or bracket. A control character, a byte 0xFE or 0xFF, or a line end inside a string ends
 * whatever was begun: that is how a client gets back into step (QMP specification, "Forcing the
 * JSON parser into known-good state"). Pure: no I/O. Untrusted: every byte.
 */
#ifndef CONTROL_QMP_FRAME_H
#define CONTROL_QMP_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#define QMP_FRAME_MAX   (1u << 20)
#define QMP_FRAME_DEPTH 128u
#define QMP_FRAME_VALUES 16384u /* the library takes some 130 bytes for each */

enum qmp_frame_result {
	QMP_FRAME_MORE,    /* all input is used, no value yet */
	QMP_FRAME_VALUE,   /* buf[0..len) is one whole value, NUL-terminated */
	QMP_FRAME_TOO_BIG, /* a value was too long, too deep or too rich; it is gone */
	QMP_FRAME_GARBAGE, /* something that is no value was skipped */
	QMP_FRAME_NO_MEMORY,
};
struct qmp_frame {
	char *buf;
	size_t len, cap;
	unsigned depth, values;
	char quote;    /* inside a string: its quote character */
	bool escape;   /* after a backslash */
	bool overflow, garbage;
};

/* Consumes from in[0..n), *used says how much; call again with the rest. After VALUE the buffer
 * stays valid until the next call. */
enum qmp_frame_result qmp_frame_feed(struct qmp_frame *f, const char *in, size_t n, size_t *used);
void qmp_frame_fini(struct qmp_frame *f);

#endif
