/*
 * The QMP server: listening sockets, clients, dispatch, events. Wire-compatible with QEMU's for
 * what it has: greeting, capabilities negotiation, ids, out-of-band, error classes, events with
 * timestamps.
 *
 * Threads: the control loop only. Untrusted: clients. Each has bounded memory: a message is at
 * most QMP_FRAME_MAX, at most 8 requests wait, and a client that does not read what it is sent
 * is not read from above 64 KiB and is disconnected above 1 MiB.
 */
#ifndef CONTROL_QMP_H
#define CONTROL_QMP_H

#include <stdbool.h>

#include "base/err.h"
#include "event/loop.h"
#include "machine/machine.h"

struct qmp_server;

#define QMP_MAX_CLIENTS 128

/* Listens or connects as the texts of cfg->qmp say: unix:PATH,server=on,wait=off,
 * tcp:HOST:PORT,…, stdio. Nobody is served before qmp_start(). A unix socket is made with mode
 * 0600; a stale one is replaced, one that somebody listens on is -EADDRINUSE. */
int qmp_new(struct loop *l, const struct vm_config *cfg, struct qmp_server **out,
	    struct err *err);
/* m is to outlive the server; its events go to the clients. */
void qmp_start(struct qmp_server *s, struct machine *m);
/* With wait=on: a socket that nobody has connected to yet. */
bool qmp_waits(const struct qmp_server *s);
/* Path of the i-th unix socket made here, NULL past the end: for the broker, which removes it. */
const char *qmp_socket_path(const struct qmp_server *s, unsigned i);
/* What is queued is written as far as the sockets take it, then all is closed. */
void qmp_free(struct qmp_server *s);

#endif
