/*
 * Frames in a byte stream: a 32-bit big-endian length before each, as QEMU's stream sockets and
 * passt have it. The receiving side: bytes go in as they come, whole frames come out.
 *
 * One buffer, allocated once; what is in it is [start, end). Nothing else is kept, so a peer can
 * make it neither grow nor wait. Pure; one owner. Untrusted: the bytes.
 */
#ifndef NET_FRAMES_H
#define NET_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#define FRAMES_PREFIX 4u
/* The largest frame there is: 64 KiB of IP, an Ethernet header, two VLAN tags. */
#define FRAMES_MAX (65535u + 14 + 8)

struct frames {
	uint8_t *buf;
	size_t size, start, end;
};

/* 0 or -ENOMEM. */
int frames_init(struct frames *f);
void frames_fini(struct frames *f);
void frames_reset(struct frames *f); /* another stream begins */
/* Where the next bytes of the stream go; *room > 0 unless a whole frame is waiting. What
 * frames_next() gave before is not valid any more. */
void *frames_space(struct frames *f, size_t *room);
void frames_filled(struct frames *f, size_t n);
/* 1: the next frame, taken out; 0: it is not whole yet; -EPROTO: a length that no frame has (none,
 * or more than FRAMES_MAX): the stream is of no use from there on, and so it is told again. */
int frames_next(struct frames *f, const uint8_t **frame, size_t *len);
/* Would frames_next() return something other than 0? */
int frames_waiting(const struct frames *f);

#endif
