/*
 * The broker: a small process that keeps the rights the VM process gives up, and uses them only
 * for what its policy names.
 *
 * The policy is a list of rules made from the command line before the fork; it never changes
 * afterwards. A request names a verb, one rule by its number and flags: it carries no path, no
 * length and no descriptor, so there is nothing in it to parse. The answer is a descriptor or
 * -errno and a sentence. The broker takes the VM process as hostile and serves one request at a
 * time, at a bounded rate, without allocating.
 *
 * Paths: a rule is looked up by the exact text that the command line has. Symbolic links in it
 * are resolved once, when the broker starts: the operator named that link, and it is followed
 * as any program would follow it. Later only the resolved path is opened, with no symbolic link
 * anywhere in it, and only while the text of the command line still leads to the same file;
 * if somebody has redirected a link since (or a disk's by-id link now means another disk), the
 * request is refused. The directory of a path has to exist when the broker starts.
 *
 * Clean-up: what the VM process made and told the broker with broker_created() is removed by
 * the broker when the VM process ends, however it ends (SIGKILL included), if it still is the
 * same inode. The broker ends with the VM process and ignores the terminal's signals, so an
 * interrupt reaches the VM process alone.
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
struct broker_policy;

/* What a created path has to be to be removed again. */
enum broker_kind { BROKER_SOCKET, BROKER_REGULAR };

/* --- the policy, before broker_start() --- */
struct broker_policy *broker_policy_new(void); /* NULL: no memory */
void broker_policy_free(struct broker_policy *p);
/* Each adds one rule; path is copied and may be relative to the current directory of now.
 * -EINVAL (empty path), -ENAMETOOLONG, -ENOSPC (more than 256 rules), -ENOMEM, with a sentence.
 * A rule that is there already is not added twice; writable widens it. */
int broker_policy_open(struct broker_policy *p, const char *path, bool writable,
		       struct err *err);
int broker_policy_connect(struct broker_policy *p, const char *path, struct err *err);
int broker_policy_create(struct broker_policy *p, const char *path, enum broker_kind kind,
			 struct err *err);

/*
 * Forks the broker. In the main thread, the only one, before guest memory is mapped and, best,
 * before anything but what the command line passes as descriptors is open: the broker closes
 * all it inherits but stderr and log_fd (-1: none other), and shares no memory that is written
 * later. The policy stays the caller's and may be freed afterwards. -EBUSY if there are other
 * threads; other -errno; with a sentence. When this returns 0 the broker has resolved its paths
 * and confined itself.
 */
int broker_start(struct broker **out, const struct broker_policy *p, int log_fd,
		 struct err *err);
/*
 * Ends the broker and waits for it: when this returns, the paths of broker_created() are gone
 * and so is the process. Harmless on NULL. Works after isolation.
 */
void broker_stop(struct broker *b);
/* The broker's process, and the connection: readable or hung up outside of a request means that
 * the broker has ended (nothing else works any more; the VM may go on without). */
pid_t broker_pid(const struct broker *b);
int broker_fd(const struct broker *b);

/* --- requests, any time after broker_start() --- */
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
/* The VM process has just made `path`: remember this inode, so that it can go away again. May
 * be repeated after broker_unlink(). -EACCES if the policy has no such rule, if it is of
 * another kind or is remembered already. */
int broker_created(struct broker *b, const char *path, struct err *err);
/* Removes what broker_created() named; 0 also when it is gone already or is another inode. */
int broker_unlink(struct broker *b, const char *path, struct err *err);

#endif
