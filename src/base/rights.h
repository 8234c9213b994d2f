/*
 * What a process can still ask for after it has given up its own rights: the broker's services,
 * as back ends see them (they know neither the broker nor the sandbox). Main thread.
 */
#ifndef BASE_RIGHTS_H
#define BASE_RIGHTS_H

#include "base/err.h"

struct rights {
	/* A connected, non-blocking, close-on-exec stream socket, or -errno with a sentence. Any
	 * time, for the paths that the command line named. */
	int (*connect)(void *arg, const char *path, struct err *err);
	/* Starts passt with these further arguments (NULL ends them) and returns the socket to it,
	 * likewise. Before isolation only. It ends with this process. */
	int (*passt)(void *arg, const char *const *args, struct err *err);
	void *arg;
};

#endif
