/* Frames in a byte stream: see frames.h. */
#include "net/frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/wire.h"

/* Room for the largest frame behind what is left of the one before. */
#define SIZE (128u * 1024)

_Static_assert(SIZE >= FRAMES_PREFIX + FRAMES_MAX, "one frame has to fit");

int frames_init(struct frames *f)
{
	*f = (struct frames){.buf = malloc(SIZE), .size = SIZE};
	return f->buf ? 0 : -ENOMEM;
}

void frames_fini(struct frames *f)
{
	free(f->buf);
	*f = (struct frames){0};
}

void frames_reset(struct frames *f)
{
	f->start = f->end = 0;
}

void *frames_space(struct frames *f, size_t *room)
{
	/* Moved only when the frame that has begun might not fit behind itself: at most once for
	 * each SIZE - FRAMES_MAX bytes, and less than a frame. */
	if (f->start == f->end || f->size - f->start < FRAMES_PREFIX + FRAMES_MAX) {
		memmove(f->buf, f->buf + f->start, f->end - f->start);
		f->end -= f->start;
		f->start = 0;
	}
	*room = f->size - f->end;
	return f->buf + f->end;
}

void frames_filled(struct frames *f, size_t n)
{
	f->end += n;
}

/* The length that the next frame has, 0 if its prefix is not there yet, or -EPROTO. */
static long frame_length(const struct frames *f)
{
	be32 prefix;
	uint32_t len;

	if (f->end - f->start < FRAMES_PREFIX) {
		return 0;
	}
	memcpy(&prefix, f->buf + f->start, sizeof(prefix));
	len = be32_get(prefix);
	return len && len <= FRAMES_MAX ? (long)len : -EPROTO;
}

int frames_waiting(const struct frames *f)
{
	long len = frame_length(f);

	if (len <= 0) {
		return (int)len;
	}
	return f->end - f->start >= FRAMES_PREFIX + (size_t)len;
}

int frames_next(struct frames *f, const uint8_t **frame, size_t *len)
{
	int r = frames_waiting(f);

	if (r == 1) {
		*len = (size_t)frame_length(f);
		*frame = f->buf + f->start + FRAMES_PREFIX;
		f->start += FRAMES_PREFIX + *len;
	}
	return r;
}
