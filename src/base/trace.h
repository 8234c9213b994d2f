/*
 * Trace events: what happens inside, for whoever looks for it.
 *
 * A folder declares its events in the file trace-events, one line each; tools/gen-trace makes
 * of it the folder's trace.h with a function trace_NAME() for each event, and the table of all.
 * An event is a USDT probe (nemu:NAME, for perf, bpftrace, systemtap) and a line of the log
 * that -trace and trace-event-set-state switch on.
 *
 * Each event has a word, its gate: the low 16 bits are the probe's semaphore, which the kernel
 * counts up and down in our memory while a tool is attached; TRACE_LOG is ours. A gate of 0
 * means that nobody looks, and costs a load and a branch. The gates belong to the process
 * because a probe does: the kernel knows them by their place in the file. ARCHITECTURE.md,
 * "Tracing".
 *
 * Threads: events any thread, without a lock; one write(2) a line. Switching: the control loop.
 */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define TRACE_LOG UINT32_C(0x10000)

struct trace_event {
	const char *name;
	uint32_t *gate;
};
extern const struct trace_event trace_events[]; /* sorted by name */
extern const unsigned trace_nevents;

static inline bool trace_watched(const uint32_t *gate)
{
	return __builtin_expect(__atomic_load_n(gate, __ATOMIC_RELAXED) != 0, 0);
}
static inline bool trace_logged(const uint32_t *gate)
{
	return __atomic_load_n(gate, __ATOMIC_RELAXED) & TRACE_LOG;
}

/* Switches the lines of all events whose name fits the pattern (* and ?); how many do. */
unsigned trace_set(const char *pattern, bool on);
bool trace_match(const char *pattern, const char *name);

/* Lines go to path from now on, instead of standard error; it is made or emptied. Before
 * isolation. 0 or -errno with a sentence. */
int trace_open(const char *path, struct err *err);

/* For the generated code: "THREAD@SECONDS.MICROSECONDS:" and the text. */
void trace_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
