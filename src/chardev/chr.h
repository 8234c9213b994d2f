/*
 * Character back ends, as devices see them: a two-way byte stream.
 *
 * Kinds: stdio (with mux off; the terminal is put in raw mode and restored), pty, file, null,
 * socket (unix and tcp, server or client, wait=off; one peer at a time; a client of a unix socket
 * may connect again, reconnect=SECONDS). Owned by the control loop; chr_write() may be called on another thread only through loop_post().
 * A peer that never reads does not block the guest: chr_write() takes what fits and reports it;
 * what a device does not get rid of it keeps (virtio-console) or drops (UART), and the device is
 * told when there is room again.
 */
#ifndef CHARDEV_CHR_H
#define CHARDEV_CHR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/opts.h"
#include "base/rights.h"
#include "event/loop.h"

struct chr;
enum chr_event { CHR_OPENED, CHR_CLOSED, CHR_BREAK };
struct chr_client {
	/* How many bytes the device can take now; 0 pauses reading until chr_rx_room(). */
	size_t (*rx_room)(void *opaque);
	void (*rx)(void *opaque, const uint8_t *buf, size_t len); /* len ≤ what rx_room said */
	void (*tx_ready)(void *opaque); /* room again after a short chr_write() */
	void (*event)(void *opaque, enum chr_event ev); /* may be NULL */
	void *opaque;
};

/* -chardev stdio|pty|file|null|socket,id=…,…; -serial's short forms (stdio, null, file:PATH,
 * unix:PATH,server=on,wait=off, chardev:ID is resolved by the caller) go through
 * chr_open_legacy(). A socket that was made here has to be removed by
 * the caller (chr_socket_path()): an isolated process cannot. */
int chr_open(struct loop *l, struct opts *o, struct chr **out, struct err *err);
int chr_open_legacy(struct loop *l, const char *id, const char *text, struct chr **out,
		    struct err *err);
void chr_close(struct chr *c);
const char *chr_id(const struct chr *c);
/* The unix socket that was made here, for the broker to remove; NULL if there is none. */
const char *chr_socket_path(const struct chr *c);
/* The unix socket that is to be connected to again (reconnect=), for the broker; NULL: none. */
const char *chr_peer_path(const struct chr *c);
/* Who connects again; until it is known a peer that has gone stays away. */
void chr_set_rights(struct chr *c, const struct rights *rights);
/* For query-chardev: "pty:/dev/pts/3", "stdio", "disconnected:unix:…". */
void chr_describe(const struct chr *c, char *buf, size_t len);
bool chr_connected(const struct chr *c);
/* -EBUSY if it has a client already. client is copied. */
int chr_attach(struct chr *c, const struct chr_client *client, struct err *err);
void chr_detach(struct chr *c);
/* Bytes taken (0..len); less than len: tx_ready follows. Not connected: everything is taken and
 * dropped. */
size_t chr_write(struct chr *c, const uint8_t *buf, size_t len);
void chr_rx_room(struct chr *c); /* the device can take bytes again */

#endif
