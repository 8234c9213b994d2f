/*
 * The stages in which the VM process gives up its rights (design: "Security").
 *
 *   1. parse the command line         opens nothing
 *   2. sandbox_early()                before anything is opened
 *   3. broker_start()                 one thread, and before guest memory is mapped
 *      (sandbox/broker.h)
 *   4. sandbox_new()                  then open what the command line names, build the machine,
 *      tell the broker what was made and what it shall be able to open
 *   5. sandbox_isolate()              from here on the main thread can open nothing
 *   6. run
 *
 * Capabilities, Landlock and seccomp belong to a thread, not to the process, and a new thread
 * inherits them. Every thread but main calls sandbox_thread_enter() first of all:
 *   - one that is started before stage 5 gives up everything there, on its own; main's stage 5
 *     waits until all threads have done so, and fails if one does not;
 *   - one that is started after stage 5 (a plugged CPU, object-add iothread) has inherited
 *     main's restrictions before its first instruction and narrows itself there. Filters stack,
 *     so main's list contains the lists of the other kinds.
 * Only the main thread starts threads.
 *
 * The lists of permitted system calls are generated from the `#syscalls` comments in src/ (see
 * tools/gen-syscalls). No kind has open, socket, exec, ptrace or executable mappings; ioctl is
 * permitted by request number only. A forbidden call kills the process with SIGSYS (and the
 * kernel's audit line names call and thread); in a build with -Dtest_hooks=true it fails with
 * EPERM instead, so that a test can try all of them.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum sandbox_thread {
	SANDBOX_MAIN, /* the control loop */
	SANDBOX_VCPU,
	SANDBOX_IO, /* an iothread */
	SANDBOX_THREADS
};

struct broker;
struct sandbox;

/*
 * Stage 2. Before the first file is opened: no new privileges (for good, even with -sandbox
 * off), umask 077, descriptors 0-2 are open (missing ones become /dev/null, so that no image
 * file can end up as stderr), every other inherited descriptor is closed except keep[0..n),
 * the soft limit on open files is raised to the hard one (at most 65536), and malloc keeps to
 * one arena (further ones make libc open files in /proc at any later time).
 * keep: what the command line names (add-fd, fd=…), in any order, at most 253 numbers.
 * Core dumps stay as the operator set them: a failed assertion has to leave one; mem/ keeps
 * guest memory out of it.
 * 0; -EBADF with the number that is not open; other -errno with a sentence. Main thread.
 */
int sandbox_early(const int *keep, size_t n, struct err *err);

/*
 * Compiles the filters; opens and closes a memfd. In the process that will use them (they name
 * its pid, so after -daemonize has forked). With enabled false (-sandbox off) the stages below
 * do nothing, so callers need not know; sandbox_new() then prints sandbox_disabled_warning().
 * 0 or -errno with a sentence.
 */
int sandbox_new(struct sandbox **out, bool enabled, struct err *err);
void sandbox_free(struct sandbox *sb); /* harmless on NULL; threads have ended */
void sandbox_disabled_warning(void);

/*
 * Stage 5, in the main thread, when everything that the command line names is open and before
 * the first guest instruction: seals the broker's policy (broker may be NULL), makes libraries
 * open now what they would open later, drops all capabilities (bounding and ambient set
 * included), enters a Landlock domain without any rule (a kernel that has none is logged once
 * and accepted), then loads the main thread's filter. Cannot be undone. -EBUSY naming a thread
 * that has not entered the sandbox within 5 seconds, -ENOSYS without seccomp, other -errno; all
 * with a sentence. After an error the process must end.
 */
int sandbox_isolate(struct sandbox *sb, struct broker *broker, struct err *err);

/*
 * The first thing a new thread does: narrows it to its kind. Any thread but main, once each.
 * 0 or -errno; a thread that could not be narrowed must not go on.
 */
int sandbox_thread_enter(struct sandbox *sb, enum sandbox_thread kind);
/* The same, shaped as a thread's first function (loop_thread_start() and its like): arg is the
 * struct sandbox; ends the process with a log line if it fails. */
void sandbox_vcpu_enter(void *sandbox);
void sandbox_io_enter(void *sandbox);

#endif
