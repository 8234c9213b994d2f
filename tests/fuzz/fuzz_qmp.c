/*
 * The cut of QMP's stream: the input in pieces of any size gives what it gives at once, and
 * nothing that the parser refuses to look at gets out of bounds.
 *
 * #covers: src/control/qmp_frame.c
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/qmp_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool good)
{
	if (!good) {
		abort();
	}
}

/* A number that stands for all that came out, in order. */
static uint64_t feed(const char *in, size_t n, size_t step, bool parse)
{
	struct qmp_frame f = {0};
	uint64_t h = 1469598103934665603u;
	size_t at = 0;

	while (at < n) {
		size_t part = step < n - at ? step : n - at, used = 0;
		enum qmp_frame_result r = qmp_frame_feed(&f, in + at, part, &used);

		require(used <= part && (used > 0 || r == QMP_FRAME_GARBAGE));
		require(r != QMP_FRAME_MORE || used == part);
		require(f.len <= QMP_FRAME_MAX && f.len <= f.cap);
		at += used;
		if (r == QMP_FRAME_MORE) {
			continue;
		}
		require(f.depth == 0 && !f.quote);
		h = (h ^ (unsigned)r) * 1099511628211u;
		if (r == QMP_FRAME_VALUE) {
			json_error_t je;
			json_t *v;

			require(f.buf[f.len] == 0);
			for (size_t i = 0; i < f.len; i++) {
				h = (h ^ (uint8_t)f.buf[i]) * 1099511628211u;
			}
			v = parse ? json_loadb(f.buf, f.len, 0, &je) : NULL;
			json_decref(v);
		}
	}
	qmp_frame_fini(&f);
	return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t step = len ? 1 + data[0] % 16 : 1;
	uint64_t whole;

	if (!len) {
		return 0;
	}
	whole = feed((const char *)data + 1, len - 1, SIZE_MAX, true);
	require(feed((const char *)data + 1, len - 1, step, false) == whole);
	return 0;
}
