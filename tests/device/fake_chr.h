/*
 * A character back end for tests of its clients: takes as much as it is told to, gives what it
 * is given. Linked in place of chardev/ (it defines the functions of chr.h that devices call),
 * so a test that uses it opens no real back end.
 */
#ifndef DEVICE_FAKE_CHR_H
#define DEVICE_FAKE_CHR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chardev/chr.h"

struct chr {
	struct chr_client client;
	bool attached;
	size_t room;   /* bytes that it takes before it is full; SIZE_MAX: all */
	bool full;     /* a write was short: tx_ready is due */
	uint8_t *sent; /* everything taken */
	size_t sent_len, sent_cap;
	unsigned writes;
	uint8_t in[65536]; /* waits for room in the client */
	size_t in_len;
};

void fake_chr_init(struct chr *c);
void fake_chr_fini(struct chr *c);
/* More room; calls tx_ready if that was due. */
void fake_chr_room(struct chr *c, size_t room);
/* Gives bytes as far as there is room, keeps the rest until chr_rx_room(). */
void fake_chr_feed(struct chr *c, const void *buf, size_t len);

#endif
