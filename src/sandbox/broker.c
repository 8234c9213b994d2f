/*
 * The VM process's side of the broker: see broker.h.
 *
 * It keeps the text and the number of each rule. One request is under way at a
 * time; the first failure of the connection ends it for good (`lost`), so an answer that comes
 * too late is never taken for the answer to something else.
 *
 * Threads: main only. Trusted: the broker; its answers are checked for form all the same.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/sandbox_int.h"
#include "sandbox/trace.h"

#define ANSWER_WAIT_S 10

struct broker {
	pid_t pid;
	int sock;
	bool sealed, lost;
	unsigned count;
	struct {
		uint32_t verb, number;
		char *text;
	} rule[BROKER_RULES_MAX];
};

/* How long an answer may take. #syscalls(start): setsockopt */
static void broker_wait_max(int sock, int seconds)
{
	const struct timeval wait = {.tv_sec = seconds};

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
}

/* #syscalls(start): socketpair pidfd_open clone close */
int broker_start(struct broker **out, int log_fd, struct err *err)
{
	struct broker *b;
	int r, sock[2], self;

	if (!confine_single_threaded()) {
		return err_set(err, EBUSY, "broker: it has to be started before any thread");
	}
	b = calloc(1, sizeof(*b));
	if (!b) {
		return err_set(err, ENOMEM, "broker: no memory");
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0) {
		r = err_set(err, errno, "broker: no socket: %s", strerror(errno));
		goto free_broker;
	}
	broker_wait_max(sock[0], ANSWER_WAIT_S);
	/* Without it (before Linux 5.3) the end of the connection has to do. */
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	b->pid = fork();
	if (b->pid == 0) {
		close(sock[0]);
		broker_serve(sock[1], self, log_fd);
	}
	r = b->pid < 0 ? err_set(err, errno, "broker: cannot fork: %s", strerror(errno)) : 0;
	if (self >= 0) {
		close(self);
	}
	close(sock[1]);
	if (r < 0) {
		close(sock[0]);
		goto free_broker;
	}
	b->sock = sock[0];
	*out = b;
	return 0;
free_broker:
	free(b);
	return r;
}

/* The end of the connection tells the broker to clean up and end.
 * #syscalls(main): close wait4 */
void broker_stop(struct broker *b)
{
	if (!b) {
		return;
	}
	close(b->sock);
	while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	for (unsigned i = 0; i < b->count; i++) {
		free(b->rule[i].text);
	}
	free(b);
}

pid_t broker_pid(const struct broker *b)
{
	return b->pid;
}

int broker_fd(const struct broker *b)
{
	return b->sock;
}

/* --- one request, one answer --- */

static int broker_lose(struct broker *b, struct err *err)
{
	if (!b->lost) {
		b->lost = true;
		log_err("broker", "lost; nothing new can be opened from now on");
	}
	return err_set(err, EPIPE, "the broker has ended; restart the VM to open anything new");
}

/* The descriptor beside the answer, -1 if there is none. The buffer has room for one. */
static int broker_take_fd(struct msghdr *msg)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(fd))) {
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	}
	return fd;
}

/* The broker's result; with fd, a descriptor is wanted beside it.
 * #syscalls(main): sendmsg recvmsg close */
static int broker_ask(struct broker *b, void *request, size_t len, int *fd, struct err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct broker_reply reply;
	struct iovec iov = {request, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;
	int got;

	if (b->lost) {
		return broker_lose(b, err);
	}
	while ((n = sendmsg(b->sock, &msg, MSG_NOSIGNAL)) < 0 && errno == EINTR) {
	}
	if (n < 0) {
		return broker_lose(b, err);
	}
	iov = (struct iovec){&reply, sizeof(reply)};
	msg.msg_control = control.buf;
	msg.msg_controllen = sizeof(control.buf);
	while ((n = recvmsg(b->sock, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
	}
	if (n <= 0) {
		return broker_lose(b, err);
	}
	got = broker_take_fd(&msg);
	if (n != sizeof(reply) || reply.magic != BROKER_MAGIC ||
	    (got >= 0) != (fd && reply.result == 0)) {
		if (got >= 0) {
			close(got);
		}
		return broker_lose(b, err);
	}
	if (reply.result < 0) {
		reply.text[sizeof(reply.text) - 1] = '\0';
		return err_set(err, -reply.result, "%s", reply.text);
	}
	if (fd) {
		*fd = got;
	}
	return reply.result;
}

/* --- the policy --- */

/* #syscalls(start): getcwd */
static int broker_absolute(const char *path, char out[BROKER_PATH_MAX], struct err *err)
{
	char cwd[BROKER_PATH_MAX];
	int n;

	if (path[0] == '\0') {
		return err_set(err, EINVAL, "an empty path names no file");
	}
	if (path[0] == '/') {
		n = snprintf(out, BROKER_PATH_MAX, "%s", path);
	} else {
		if (!getcwd(cwd, sizeof(cwd))) {
			return err_set(err, errno, "%s: the current directory is not known: %s",
				       path, strerror(errno));
		}
		n = snprintf(out, BROKER_PATH_MAX, "%s/%s", cwd, path);
	}
	if (n >= BROKER_PATH_MAX) {
		return err_set(err, ENAMETOOLONG, "%.64s…: the path is too long", path);
	}
	return 0;
}

static int broker_find(const struct broker *b, uint32_t verb, const char *path)
{
	for (unsigned i = 0; i < b->count; i++) {
		if (b->rule[i].verb == verb && strcmp(b->rule[i].text, path) == 0) {
			return (int)i;
		}
	}
	return -ENOENT;
}

/* A text that is there already goes to the broker again: it may widen the rule or name a new
 * inode. Two texts may have the same number. */
static int broker_add(struct broker *b, uint32_t setup_verb, uint32_t verb, uint32_t arg,
		      const char *path, struct err *err)
{
	struct broker_setup m = {.magic = BROKER_MAGIC, .verb = setup_verb, .arg = arg};
	int i = broker_find(b, verb, path), r;

	if (b->sealed) {
		return err_set(err, EPERM, "%s: the broker's policy is sealed", path);
	}
	if (i < 0 && b->count == BROKER_RULES_MAX) {
		return err_set(err, ENOSPC, "%s: the broker has %d rules already", path,
			       BROKER_RULES_MAX);
	}
	r = broker_absolute(path, m.path, err);
	if (r < 0) {
		return r;
	}
	r = broker_ask(b, &m, sizeof(m), NULL, err);
	if (r < 0) {
		return r;
	}
	if (i < 0) {
		char *text = strdup(path);

		if (!text) {
			return err_set(err, ENOMEM, "%s: no memory for a rule of the broker", path);
		}
		i = (int)b->count++;
		b->rule[i].verb = verb;
		b->rule[i].text = text;
	}
	b->rule[i].number = (uint32_t)r;
	return 0;
}

int broker_allow_open(struct broker *b, const char *path, bool writable, struct err *err)
{
	return broker_add(b, BROKER_ALLOW_OPEN, BROKER_OPEN, writable, path, err);
}

int broker_allow_connect(struct broker *b, const char *path, struct err *err)
{
	return broker_add(b, BROKER_ALLOW_CONNECT, BROKER_CONNECT, 0, path, err);
}

int broker_created(struct broker *b, const char *path, enum broker_kind kind, struct err *err)
{
	return broker_add(b, BROKER_CREATED, BROKER_UNLINK, kind, path, err);
}

int broker_passt(struct broker *b, const char *const *args, struct err *err)
{
	struct broker_setup m = {.magic = BROKER_MAGIC, .verb = BROKER_PASST};
	int fd = -1, r;

	if (b->sealed) {
		return err_set(err, EPERM, "passt can only be started before the guest");
	}
	for (; *args; args++) {
		size_t n = strlen(*args) + 1;

		if (n > sizeof(m.path) - m.arg) {
			return err_set(err, E2BIG, "the arguments for passt are too long");
		}
		memcpy(m.path + m.arg, *args, n);
		m.arg += (uint32_t)n;
	}
	broker_wait_max(b->sock, PASST_START_S + ANSWER_WAIT_S);
	r = broker_ask(b, &m, sizeof(m), &fd, err);
	broker_wait_max(b->sock, ANSWER_WAIT_S);
	return r < 0 ? r : fd;
}

int broker_seal(struct broker *b, struct err *err)
{
	struct broker_setup m = {.magic = BROKER_MAGIC, .verb = BROKER_SEAL};
	int r;

	if (b->sealed) {
		return err_set(err, EPERM, "the broker's policy is sealed");
	}
	r = broker_ask(b, &m, sizeof(m), NULL, err);
	b->sealed = r == 0;
	return r;
}

/* --- requests --- */

static int broker_request(struct broker *b, uint32_t verb, const char *path, unsigned flags,
			  int *fd, struct err *err)
{
	int i = broker_find(b, verb, path), r;
	struct broker_request m = {.magic = BROKER_MAGIC, .verb = verb, .flags = flags};

	if (i < 0) {
		return err_set(err, EACCES, "%s: the policy of the start does not name it; name it "
			       "on the command line", path);
	}
	m.rule = b->rule[i].number;
	r = broker_ask(b, &m, sizeof(m), fd, err);
	trace_broker_request(m.verb, m.rule, r);
	return r;
}

int broker_open(struct broker *b, const char *path, unsigned flags, struct err *err)
{
	int fd = -1, r = broker_request(b, BROKER_OPEN, path, flags, &fd, err);

	return r < 0 ? r : fd;
}

int broker_connect(struct broker *b, const char *path, struct err *err)
{
	int fd = -1, r = broker_request(b, BROKER_CONNECT, path, 0, &fd, err);

	return r < 0 ? r : fd;
}

int broker_unlink(struct broker *b, const char *path, struct err *err)
{
	return broker_request(b, BROKER_UNLINK, path, 0, NULL, err);
}
