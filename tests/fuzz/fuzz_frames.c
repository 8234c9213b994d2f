/*
 * Frames in a byte stream: in whatever pieces the bytes come, the same frames come out as from
 * the whole, there is room as long as no frame waits, and a bad length stays bad.
 * The first two bytes of the input say how large the pieces are; the rest is the stream.
 *
 * #covers: src/net/frames.c
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "net/frames.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Takes out what is whole, and compares it with what follows at *at. False: a bad length. */
static int take(struct frames *f, const uint8_t *stream, size_t *at)
{
	const uint8_t *frame;
	size_t n;
	int r, waiting;

	do {
		waiting = frames_waiting(f);
		r = frames_next(f, &frame, &n);
		assert(r == waiting);
		if (r == 1) {
			uint32_t want = (uint32_t)stream[*at] << 24 | stream[*at + 1] << 16 |
					stream[*at + 2] << 8 | stream[*at + 3];

			assert(n == want && n > 0 && n <= FRAMES_MAX);
			assert(memcmp(frame, stream + *at + 4, n) == 0);
			*at += 4 + n;
		}
	} while (r == 1);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t fed = 0, at = 0, room;
	struct frames f;
	uint32_t seed;
	int r = 0;

	if (len < 2) {
		return 0;
	}
	seed = data[1];
	assert(frames_init(&f) == 0);
	while (fed < len - 2 && r == 0) {
		void *to = frames_space(&f, &room);
		size_t n;

		assert(room > 0);
		seed = seed * 1103515245 + 12345;
		n = MIN(1 + (seed >> 16) % (1 + data[0] * 257u), MIN(room, len - 2 - fed));
		memcpy(to, data + 2 + fed, n);
		frames_filled(&f, n);
		fed += n;
		r = take(&f, data + 2, &at);
	}
	if (r == 0) { /* what is left is less than a frame */
		assert(fed - at == f.end - f.start && f.end - f.start < 4 + FRAMES_MAX);
	} else {
		assert(r == -EPROTO && take(&f, data + 2, &at) == -EPROTO);
		frames_reset(&f);
		assert(frames_waiting(&f) == 0);
	}
	frames_fini(&f);
	return 0;
}
