/*
 * The process among others: -daemonize, -pidfile and signals. A client (libvirt) runs the program, waits until it exits with 0,
 * reads the pid file and connects to the socket: so the parent ends only when all of that is
 * there, and the child lets go of standard error. Main thread, before any other exists.
 */
#ifndef CONTROL_DAEMON_H
#define CONTROL_DAEMON_H

#include <stdbool.h>

#include "base/err.h"
#include "event/loop.h"

struct machine;

struct daemon {
	bool on;
	int fd;      /* tells the parent that we are ready; -1: not daemonized */
	struct loop_fd signals;
	struct machine *machine;
	int null_fd; /* /dev/null, to replace the standard descriptors with */
	int stderr_fd; /* the real one, while it is hidden */
};

/* Forks if `on`; the parent does not return: it exits with the child's success. fd and null_fd are to
 * be kept open by whoever closes the others. */
int daemon_start(struct daemon *d, bool on, struct err *err);
void daemon_ready(struct daemon *d);
/* Around what forks a process that lives on: when daemonized, it gets /dev/null as its standard
 * error, since a caller that reads ours until its end waits for every copy. */
void daemon_hide_stderr(struct daemon *d, bool hide);
/* SIGTERM, SIGINT and SIGHUP end the machine as QMP's quit does, from here on. Blocks them in this
 * thread and in those that it starts. */
int daemon_signals(struct daemon *d, struct loop *l, struct machine *m, struct err *err);
void daemon_end(struct daemon *d); /* before the loop is freed */
/* Writes the process id and takes a lock on the file; path NULL: nothing. -EAGAIN with a sentence
 * if a living process has it. */
int daemon_pidfile(const char *path, struct err *err);

#endif
