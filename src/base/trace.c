/*
 * Trace events: switching them, and the lines of the log. See trace.h.
 *
 * The gates and the descriptor of the log belong to the process, as those of log.c do: the
 * kernel counts in the gates, by their place in the program's file, for every tool that
 * attaches.
 *
 * Untrusted: what a guest or a peer causes is traced, so texts may be theirs; control
 * characters are replaced. The log is not limited: it is off unless the operator asks for it,
 * and then it is to be complete.
 */
#include "base/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define TRACE_LINE_MAX 512

static _Atomic int trace_fd = STDERR_FILENO;

/* A star takes as much as it has to: only the last one is ever tried again, so the time is
 * bounded by the product of the lengths. */
bool trace_match(const char *pattern, const char *name)
{
	const char *star = NULL, *again = NULL;

	while (*name) {
		if (*pattern == '*') {
			star = ++pattern;
			again = name;
		} else if (*pattern == '?' || *pattern == *name) {
			pattern++;
			name++;
		} else if (star) {
			pattern = star;
			name = ++again;
		} else {
			return false;
		}
	}
	while (*pattern == '*') {
		pattern++;
	}
	return !*pattern;
}

unsigned trace_set(const char *pattern, bool on)
{
	unsigned n = 0;

	for (unsigned i = 0; i < trace_nevents; i++) {
		if (!trace_match(pattern, trace_events[i].name)) {
			continue;
		}
		n++;
		/* the kernel counts in the other half at any time */
		if (on) {
			__atomic_fetch_or(trace_events[i].gate, TRACE_LOG, __ATOMIC_RELAXED);
		} else {
			__atomic_fetch_and(trace_events[i].gate, ~TRACE_LOG, __ATOMIC_RELAXED);
		}
	}
	return n;
}

/* #syscalls(start): openat close */
int trace_open(const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOCTTY,
		      0600),
	    old;

	if (fd < 0) {
		return err_set(err, errno, "-trace file=%s: cannot be written: %s", path,
			       strerror(errno));
	}
	old = atomic_exchange(&trace_fd, fd);
	if (old != STDERR_FILENO) {
		close(old);
	}
	return 0;
}

/* What cannot be written is lost. #syscalls: write clock_gettime gettid */
void trace_line(const char *fmt, ...)
{
	char line[TRACE_LINE_MAX];
	int saved_errno = errno, fd = atomic_load_explicit(&trace_fd, memory_order_relaxed);
	struct timespec ts;
	size_t n;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &ts);
	/* one byte is kept free for the line end */
	snprintf(line, sizeof(line) - 1, "%d@%jd.%06ld:", (int)gettid(), (intmax_t)ts.tv_sec,
		 ts.tv_nsec / 1000);
	n = strlen(line);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	va_end(ap);
	n = strlen(line);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)line[i];

		if (c < 0x20 || c == 0x7f) {
			line[i] = '?';
		}
	}
	line[n++] = '\n';
	while (write(fd, line, n) < 0 && errno == EINTR) {
	}
	errno = saved_errno;
}
