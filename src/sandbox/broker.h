/*
 * The broker: a small process that keeps the rights the VM process gives up, and uses them only
 * for what its policy names.
 *
 * The policy is a list of rules. broker_start() forks while the process is small; until
 * broker_seal() (sandbox_isolate() calls it) the broker trusts the VM process, which adds rules
 * while it opens what the command line names. Sealing confines the broker to them and they never
 * change afterwards. From then on a request names a verb, one rule by its number and flags: it
 * carries no path, no length and no descriptor, so there is nothing in it to parse. The answer
 * is a descriptor, or -errno and a sentence. The broker takes the VM process as hostile and
 * serves one request at a time, at a bounded rate, without allocating.
 *
 * Paths: a rule is looked up by the text that it was added with. Symbolic links in it are
 * resolved once, when the rule is added: the operator named that link, and it is followed as any
 * program would follow it. Later only the resolved path is opened, with no symbolic link
 * anywhere in it, and only while the text still leads to the same file; if somebody has
 * redirected a link since (or a disk's by-id link now means another disk), the request is
 * refused. The directory of a path has to exist when the rule is added.
 *
 * Clean-up: what broker_created() named is removed by the broker when the VM process ends,
 * however it ends (SIGKILL included), if it still is the same inode. The broker ends with the
 * VM process and ignores the terminal's signals, so an interrupt reaches the VM process alone.
 *
 * Threads: everything here is for the main thread (the control loop). A request blocks it for
 * the time of an open(2), at most 10 seconds; then the broker counts as lost.
 */
#ifndef SANDBOX_BROKER_H
#define SANDBOX_BROKER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct broker;

/*
 * Forks the broker. In the main thread, the only one, before guest memory is mapped and, best,
 * before anything but what the command line passes as descriptors is open: the broker closes
 * all it inherits but stderr and log_fd (-1: none other), and shares no memory that is written
 * later. In the process that stays: after -daemonize has forked, because the broker ends with
 * the process that called this. -EBUSY if there are other threads; other -errno; with a sentence.
 */
int broker_start(struct broker **out, int log_fd, struct err *err);

/* --- the policy: before broker_seal(), -EPERM after it --- */
/* What a created path is. */
enum broker_kind { BROKER_SOCKET, BROKER_REGULAR };

/* Each adds one rule. path may be relative to the current directory. 0; -EINVAL (empty path),
 * -ENAMETOOLONG, -ENOSPC (more than 256 rules), -ENOENT (its directory does not exist), other
 * -errno; with a sentence. A rule that is there already is not added twice. */
int broker_allow_open(struct broker *b, const char *path, bool writable, struct err *err);
int broker_allow_connect(struct broker *b, const char *path, struct err *err);
/* The VM process has just made `path`, which is of this kind and belongs to its user: the broker
 * removes it at the end, if it still is the same inode. */
int broker_created(struct broker *b, const char *path, enum broker_kind kind, struct err *err);
/* Starts passt with these further arguments (NULL ends them) on one end of a socket pair and
 * returns the other: non-blocking, close-on-exec. It has ended when broker_stop() returns, and
 * soon after the VM process has, however that ends; what it says goes to the log, at a limited
 * rate. Waits up to 8 seconds until it serves. */
int broker_passt(struct broker *b, const char *const *args, struct err *err);
/* The broker drops what its rules do not need and takes no more of them. */
int broker_seal(struct broker *b, struct err *err);

/*
 * Ends the broker and waits for it: when this returns, the paths of broker_created() are gone
 * and so is the process. Harmless on NULL. Works after isolation.
 */
void broker_stop(struct broker *b);
/* The broker's process, and the connection: readable or hung up outside of a request means that
 * the broker has ended (nothing else works any more; the VM may go on without). */
pid_t broker_pid(const struct broker *b);
int broker_fd(const struct broker *b);

/* --- requests, any time --- */
enum broker_open_flags {
	BROKER_RDONLY = 0,
	BROKER_RDWR = 1,   /* -EACCES unless the rule is writable */
	BROKER_DIRECT = 2, /* O_DIRECT */
};
/*
 * A new descriptor (close-on-exec; regular file, block or character device), or -errno with a
 * sentence: -EACCES if the policy does not name the path, or not that way, or the path now
 * leads elsewhere; what open(2) said; -EPIPE if the broker is gone.
 */
int broker_open(struct broker *b, const char *path, unsigned flags, struct err *err);
/* A connected, non-blocking, close-on-exec stream socket, or -errno likewise. */
int broker_connect(struct broker *b, const char *path, struct err *err);
/* Removes now what broker_created() named (a socket whose server is closed); 0 also when it is
 * gone already or has become another inode. */
int broker_unlink(struct broker *b, const char *path, struct err *err);

#endif
