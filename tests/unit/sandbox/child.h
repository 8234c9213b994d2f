/*
 * Each case of these tests runs in a process of its own, because what it does to the process
 * cannot be undone.
 */
#ifndef TESTS_SANDBOX_CHILD_H
#define TESTS_SANDBOX_CHILD_H

#include <sys/types.h>

/* fn's result, or one of these, is how the child ended. */
enum {
	CHILD_SIGNAL = 1000, /* + the signal's number */
};
typedef int child_fn(void *arg);

/* Forks, runs fn(arg) there, and returns its result (0 to 255) or how it ended. Core dumps are
 * off in the child. */
int child_run(child_fn *fn, void *arg);

/* A check inside a child: says where it failed and ends the child with 1. */
#define CHILD_CHECK(cond)                               \
	do {                                            \
		if (!(cond)) {                          \
			child_failed(__FILE__, __LINE__, #cond); \
		}                                       \
	} while (0)
_Noreturn void child_failed(const char *file, int line, const char *what);

/* "CapEff" of /proc/PID/status as a number of the given base; dies if it is not there. */
unsigned long long child_status(pid_t pid, const char *key, int base);

#endif
