/*
 * Log lines: see log.h.
 *
 * Threads: any, without a lock. A line is built on the stack and leaves in one write(2).
 * Level and descriptor belong to the process, like the stderr they stand for; they are the
 * only mutable state at file scope here and are atomic.
 *
 * Untrusted: names and texts may come from a guest, an image or a peer. Control characters
 * are replaced, so nobody forges a line or drives the terminal that shows it.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define LOG_LINE_MAX	 1024
#define LOG_WINDOW_NS	 UINT64_C(60000000000)
#define LOG_WINDOW_LINES 10

static _Atomic int log_level = LOG_WARN;
static _Atomic int log_fd = STDERR_FILENO;

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

void log_set_fd(int fd)
{
	atomic_store_explicit(&log_fd, fd, memory_order_relaxed);
}

static bool log_wanted(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* What cannot be written is lost. SIGPIPE is ignored by the process. A descriptor that blocks
 * does hold up its writer, which is why guests only get here through log_limited().
 * #syscalls: write */
static void log_write(const char *line, size_t len)
{
	int fd = atomic_load_explicit(&log_fd, memory_order_relaxed);

	while (len > 0) {
		ssize_t n = write(fd, line, len);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return;
		}
		line += n;
		len -= (size_t)n;
	}
}

static void log_vline(const char *obj, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

static void log_vline(const char *obj, const char *fmt, va_list ap)
{
	char line[LOG_LINE_MAX];
	int saved_errno = errno;
	size_t n;

	/* One byte is kept free for the line end. */
	snprintf(line, sizeof(line) - 1, "nemu: %s: ", obj);
	n = strlen(line);
	vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	n = strlen(line);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)line[i];

		if (c < 0x20 || c == 0x7f) {
			line[i] = '?';
		}
	}
	line[n] = '\n';
	log_write(line, n + 1);
	errno = saved_errno;
}

void log_line(enum log_level level, const char *obj, const char *fmt, ...)
{
	va_list ap;

	if (!log_wanted(level)) {
		return;
	}
	va_start(ap, fmt);
	log_vline(obj, fmt, ap);
	va_end(ap);
}

/* The thread that moves the window forward reports what the last one swallowed. Two threads
 * at the turn of a window may let a line too many through, which does no harm. */
void log_limited(struct log_limit *lim, const char *obj, const char *fmt, ...)
{
	uint64_t now, start;
	va_list ap;

	if (!log_wanted(LOG_WARN)) {
		return;
	}
	now = now_ns();
	start = atomic_load_explicit(&lim->window_ns, memory_order_relaxed);
	if ((start == 0 || (now > start && now - start >= LOG_WINDOW_NS)) &&
	    atomic_compare_exchange_strong_explicit(
		    &lim->window_ns, &start, now, memory_order_relaxed, memory_order_relaxed)) {
		uint32_t count = atomic_exchange_explicit(&lim->count, 0, memory_order_relaxed);

		if (count > LOG_WINDOW_LINES) {
			log_line(LOG_WARN, obj, "%u messages like the next one were dropped",
				 count - LOG_WINDOW_LINES);
		}
	}
	/* The load keeps a guest that repeats itself for long from wrapping the count. */
	if (atomic_load_explicit(&lim->count, memory_order_relaxed) > UINT32_MAX / 2 ||
	    atomic_fetch_add_explicit(&lim->count, 1, memory_order_relaxed) >=
		    LOG_WINDOW_LINES) {
		return;
	}
	va_start(ap, fmt);
	log_vline(obj, fmt, ap);
	va_end(ap);
}
