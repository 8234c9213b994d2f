/*
 * For the files of sandbox/ and their tests: the generated tables, filters, confinement steps
 * and the broker's wire format.
 */
#ifndef SANDBOX_SANDBOX_INT_H
#define SANDBOX_SANDBOX_INT_H

#include <linux/filter.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/broker.h"
#include "sandbox/sandbox.h"

/* --- generated tables (tools/gen-syscalls) --- */
enum { SANDBOX_BROKER = SANDBOX_THREADS, SANDBOX_TABLES };

struct sandbox_call {
	const char *name;
	int nr; /* negative: this architecture does not have it */
};
struct sandbox_ioctl {
	const char *name;
	unsigned long request;
};
struct sandbox_table {
	const char *name; /* "main", "vcpu", "io", "broker" */
	const struct sandbox_call *call;
	size_t ncall;
	const struct sandbox_ioctl *ioctl;
	size_t nioctl;
};
extern const struct sandbox_table sandbox_tables[SANDBOX_TABLES];

/* --- compiled tables (gen_filters.c) --- */
struct sandbox_filter {
	const struct sock_filter *code;
	size_t len;
};
extern const struct sandbox_filter sandbox_filters[SANDBOX_TABLES];
/* Stands for the process's own number in them: no process can have it (PID_MAX_LIMIT is 2^22), and
 * nothing else that is compared is that number. */
#define SANDBOX_OWN_PID 0x6e656d75u

/* --- filter.c --- */
/* A compiled table for this process; owned, filter_fini() frees. */
int filter_build(struct sock_fprog *out, unsigned table, struct err *err);
void filter_fini(struct sock_fprog *f);
/* Puts it on the calling thread, for good. -errno. */
int filter_load(const struct sock_fprog *f);

/* --- action_kill.c or action_errno.c, chosen at link time --- */
uint32_t sandbox_forbidden_action(void);

/* --- hooks_none.c or hooks_probe.c, chosen at link time --- */
/* Called on a thread that has just been narrowed. */
void sandbox_hook_narrowed(unsigned table);

/* --- probe.c, only in test builds and unit tests --- */
struct sandbox_probe {
	const char *name;
	/* Attempts a call that no thread may make; 0 if it was carried out, else -errno. */
	int (*attempt)(void);
	bool broker_has; /* it is what the broker is for */
};
extern const struct sandbox_probe sandbox_probes[];
extern const size_t sandbox_nprobes;

/* --- confine.c: what a thread gives up, for good --- */
int confine_no_new_privs(void);
/* Drops all capabilities but those of the mask keep (bit n is capability n). */
int confine_caps(uint64_t keep);
/* Closes every descriptor above 2 but keep[0..n), which it sorts. */
int confine_close_fds(int *keep, size_t n);
/* True if the process has no other thread; kernel workers do not count where /proc tells. */
bool confine_single_threaded(void);

/* --- landlock.c --- */
struct landlock_path {
	const char *path;
	uint64_t access; /* LANDLOCK_ACCESS_FS_* */
};
/* Denies the calling thread every file access, TCP, abstract sockets and signals to others,
 * except `access` beneath each path. -EOPNOTSUPP if the kernel has no Landlock. */
int landlock_enter(const struct landlock_path *paths, size_t n);

/* --- the broker's messages: SOCK_SEQPACKET, one message is one request or reply --- */
#define BROKER_MAGIC     0x4b52424eU /* "NBRK" */
#define BROKER_RULES_MAX 256
#define BROKER_PATH_MAX  4096

enum broker_verb {
	/* struct broker_setup, before the seal */
	BROKER_ALLOW_OPEN = 1, /* arg: 1 if writable */
	BROKER_ALLOW_CONNECT,
	BROKER_CREATED, /* arg: enum broker_kind */
	BROKER_PASST, /* arg: bytes of path, which has the further arguments, each with its NUL */
	BROKER_SEAL,
	/* struct broker_request */
	BROKER_OPEN = 16, /* flags: enum broker_open_flags */
	BROKER_CONNECT,
	BROKER_UNLINK,
};
struct broker_setup {
	uint32_t magic, verb, arg, zero;
	char path[BROKER_PATH_MAX];
};
struct broker_request {
	uint32_t magic, verb, rule, flags;
};
struct broker_reply {
	uint32_t magic;
	int32_t result; /* a rule's number, 0, or -errno; a descriptor comes beside it */
	char text[sizeof(((struct err *)0)->msg)]; /* a sentence if result < 0 */
};

/* --- policy.c, in the broker --- */
struct broker_rule {
	uint32_t verb; /* BROKER_OPEN, BROKER_CONNECT, BROKER_UNLINK */
	bool writable;
	enum broker_kind kind;
	bool present; /* BROKER_UNLINK: not removed yet */
	dev_t dev;    /* BROKER_UNLINK: the inode that was made */
	ino_t ino;
	char *text; /* as named, made absolute */
	char *dir;  /* resolved */
	char *real; /* dir "/" last component, resolved unless BROKER_UNLINK */
	const char *base; /* the last component, in real */
};
struct policy {
	struct broker_rule rule[BROKER_RULES_MAX];
	unsigned count;
	bool sealed;
};
/* Each answers a message: the number of the rule, 0 or -errno, a sentence, perhaps a
 * descriptor in *fd that the caller sends and closes. */
int policy_setup(struct policy *p, const struct broker_setup *m, struct err *err);
int policy_request(struct policy *p, const struct broker_request *m, int *fd, struct err *err);
/* Landlock rules for the broker, one for each rule; paths borrow from p. */
size_t policy_landlock(const struct policy *p, struct landlock_path *out);
/* Removes what was created and is still there. */
void policy_cleanup(struct policy *p);

/* --- passt.c, in the broker --- */
#define PASST_START_S 30 /* a busy machine may need many seconds until it serves */
struct passts {
	bool started;
	int life[2]; /* the broker's end; the minders' */
};
/* Before the seal. vm is a pidfd of the VM process, or -1. */
int passt_start(struct passts *s, const struct broker_setup *m, int vm, int *fd, struct err *err);
/* Ends them all, and waits for it a few seconds. */
void passt_end(struct passts *s);

/* --- server.c: the broker process --- */
/* Serves until the VM process ends; parent is a pidfd of it, or -1. Never returns. */
_Noreturn void broker_serve(int sock, int parent, int log_fd);

#endif
