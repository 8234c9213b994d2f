/* See fake_chr.h. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fake_chr.h"

void fake_chr_init(struct chr *c)
{
	*c = (struct chr){.room = SIZE_MAX};
}

void fake_chr_fini(struct chr *c)
{
	assert(!c->attached);
	free(c->sent);
}

int chr_attach(struct chr *c, const struct chr_client *client, struct err *err)
{
	if (c->attached) {
		return err_set(err, EBUSY, "the back end has a client already");
	}
	c->client = *client;
	c->attached = true;
	return 0;
}

void chr_detach(struct chr *c)
{
	assert(c->attached);
	c->attached = false;
}

const char *chr_id(const struct chr *c)
{
	return "fake";
}

bool chr_connected(const struct chr *c)
{
	return true;
}

size_t chr_write(struct chr *c, const uint8_t *buf, size_t len)
{
	size_t n = MIN(len, c->room);

	assert(c->attached);
	if (c->sent_cap - c->sent_len < n) {
		c->sent_cap = c->sent_cap * 2 + n + 4096;
		c->sent = realloc(c->sent, c->sent_cap);
		assert(c->sent);
	}
	if (n) {
		memcpy(c->sent + c->sent_len, buf, n);
	}
	c->sent_len += n;
	c->writes++;
	if (c->room != SIZE_MAX) {
		c->room -= n;
	}
	c->full |= n < len;
	return n;
}

void fake_chr_room(struct chr *c, size_t room)
{
	c->room = room;
	if (c->full && room) {
		c->full = false;
		c->client.tx_ready(c->client.opaque);
	}
}

void chr_rx_room(struct chr *c)
{
	while (c->in_len) {
		uint8_t piece[256];
		size_t room = c->client.rx_room(c->client.opaque);
		size_t n = MIN(MIN(room, c->in_len), sizeof(piece));

		if (!n) {
			return;
		}
		memcpy(piece, c->in, n);
		memmove(c->in, c->in + n, c->in_len - n);
		c->in_len -= n;
		c->client.rx(c->client.opaque, piece, n);
	}
}

void fake_chr_feed(struct chr *c, const void *buf, size_t len)
{
	assert(len <= sizeof(c->in) - c->in_len);
	memcpy(c->in + c->in_len, buf, len);
	c->in_len += len;
	chr_rx_room(c);
}
