/*
 * The broker process.
 *
 *   forked ── setup messages: the VM process is trusted ──▶ SEAL ── requests: it is hostile ──▶
 *   the VM process has ended: remove what it created, end
 *
 * Until the seal it holds the rights of the user who started nemu, less the descriptors. With the
 * seal it keeps the three capabilities that let root open and remove the user's files (if it
 * has them, and if there is a rule), a Landlock domain with the directories of the rules, and
 * a filter with openat2, connect and unlinkat.
 *
 * A zero-length message looks like the end of the connection and is treated as such: whoever
 * sends one loses the broker and its sockets, nothing else. So that its memory does not grow
 * and it never waits for its peer: fixed buffers; an answer that the peer has no room for is
 * dropped; requests beyond 64 at once are served at 100 a second.
 *
 * One thread. Untrusted: the VM process, after the seal.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "sandbox/sandbox_int.h"

#define RATE_BURST    64
#define RATE_EVERY_NS UINT64_C(10000000)
#define NOFILE        32

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

struct server {
	int sock, parent;
	struct policy policy;
	struct passts passts;
	struct sock_fprog filter;
	/* How many requests may be served at once, and since when it has been counted. */
	unsigned tokens;
	uint64_t tokens_ns;
};

union message {
	struct {
		uint32_t magic, verb;
	} head;
	struct broker_setup setup;
	struct broker_request request;
};

/* --- start --- */

/* Signals that a terminal or a service manager sends to the whole group are for the VM process,
 * which ends in order; the broker follows when the connection does.
 * #syscalls(start): rt_sigaction rt_sigprocmask */
static void server_signals(void)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++) {
		signal(sig, SIG_DFL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++) {
		signal(ignored[i], SIG_IGN);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Standard input and output belong to the VM process (a serial console); errors are for both. A
 * descriptor that cannot be replaced is not used either.
 * #syscalls(start): openat dup2 close chdir prlimit64 prctl */
static int server_descriptors(struct server *s, int log_fd)
{
	int keep[] = {s->sock, s->parent, log_fd};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	if (chdir("/") < 0) {
		return -errno;
	}
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	return confine_close_fds(keep, ARRAY_SIZE(keep));
}

/* --- the seal --- */

/* #syscalls(start): prlimit64 */
static int server_seal(struct server *s, struct err *err)
{
	struct landlock_path paths[BROKER_RULES_MAX];
	uint64_t caps = 0;
	int r;

	if (s->policy.sealed) {
		return err_set(err, EPERM, "the broker's policy is sealed");
	}
	if (s->policy.count > 0) {
		caps = CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH) |
		       CAP_BIT(CAP_FOWNER);
	}
	(void)setrlimit(RLIMIT_NOFILE, &(struct rlimit){NOFILE, NOFILE});
	r = landlock_enter(paths, policy_landlock(&s->policy, paths));
	if (r == 0 || r == -EOPNOTSUPP) {
		r = confine_caps(caps);
	}
	if (r == 0) {
		r = filter_load(&s->filter);
	}
	if (r < 0) {
		return err_set(err, -r, "the broker cannot give up its rights: %s", strerror(-r));
	}
	s->policy.sealed = true;
	sandbox_hook_narrowed(SANDBOX_BROKER);
	return 0;
}

/* --- messages --- */

/* #syscalls(broker): clock_nanosleep */
static void server_rate(struct server *s)
{
	uint64_t now = now_ns(), earned = (now - s->tokens_ns) / RATE_EVERY_NS;

	if (earned > 0) {
		s->tokens = (unsigned)MIN(s->tokens + earned, RATE_BURST);
		s->tokens_ns = now;
	}
	if (s->tokens > 0) {
		s->tokens--;
		return;
	}
	nanosleep(&(struct timespec){.tv_nsec = RATE_EVERY_NS}, NULL);
	/* What was earned meanwhile pays for this one. */
	s->tokens_ns = now_ns();
}

/* Anything but a well-formed message is -EINVAL. */
static int server_answer(struct server *s, const union message *m, size_t len, bool truncated,
			 int *fd, struct err *err)
{
	if (!truncated && len == sizeof(m->request) && m->head.magic == BROKER_MAGIC) {
		return policy_request(&s->policy, &m->request, fd, err);
	}
	if (!truncated && len == sizeof(m->setup) && m->head.magic == BROKER_MAGIC) {
		if (m->head.verb == BROKER_SEAL) {
			return server_seal(s, err);
		}
		if (m->head.verb == BROKER_PASST && !s->policy.sealed) {
			return passt_start(&s->passts, &m->setup, s->parent, fd, err);
		}
		return policy_setup(&s->policy, &m->setup, err);
	}
	return err_set(err, EINVAL, "the broker got a message that is none (%zu bytes)", len);
}

/* False when the peer has gone. #syscalls(broker): sendmsg */
static bool server_reply(struct server *s, struct broker_reply *reply, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {reply, sizeof(*reply)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	if (sendmsg(s->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
		return true;
	}
	/* Full: it asks without reading the answers. Otherwise too many descriptors are on
	 * their way. */
	return errno != EPIPE && errno != ECONNRESET;
}

/* One message. False when the VM process has ended. #syscalls(broker): recvmsg close */
static bool server_message(struct server *s)
{
	union message m;
	struct iovec iov = {&m, sizeof(m)};
	/* No room for descriptors: the kernel drops any that come. */
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct broker_reply reply = {.magic = BROKER_MAGIC};
	struct err err = {0};
	ssize_t n = recvmsg(s->sock, &msg, MSG_DONTWAIT);
	bool alive;
	int fd = -1;

	if (n < 0) {
		return errno == EAGAIN || errno == EINTR;
	}
	if (n == 0) {
		return false;
	}
	if (s->policy.sealed) {
		server_rate(s);
	}
	reply.result = server_answer(s, &m, (size_t)n, msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC),
				     &fd, &err);
	if (reply.result < 0) {
		memcpy(reply.text, err.msg, sizeof(reply.text));
		if (s->policy.sealed) {
			log_guest("broker", "refused: %s", err.msg);
		}
	}
	alive = server_reply(s, &reply, fd);
	if (fd >= 0) {
		close(fd);
	}
	return alive;
}

/* #syscalls(broker): ppoll exit_group */
_Noreturn void broker_serve(int sock, int parent, int log_fd)
{
	struct server *s = calloc(1, sizeof(*s));
	struct err err;

	if (!s) {
		log_err("broker", "no memory");
		_exit(1);
	}
	s->sock = sock;
	s->parent = parent;
	s->tokens = RATE_BURST;
	s->tokens_ns = now_ns();
	server_signals();
	prctl(PR_SET_NAME, "nemu-broker");
	/* The VM process has the same user: it must not be able to look in here. */
	prctl(PR_SET_DUMPABLE, 0);
	if (confine_no_new_privs() < 0 || server_descriptors(s, log_fd) < 0) {
		log_err("broker", "cannot close what it inherited: %s", strerror(errno));
		_exit(1);
	}
	if (filter_build(&s->filter, SANDBOX_BROKER, &err) < 0) {
		log_err("broker", "%s", err.msg);
		_exit(1);
	}
	for (bool alive = true; alive;) {
		/* The connection tells as well, unless somebody else holds an end of it. */
		struct pollfd p[] = {{sock, POLLIN, 0}, {parent, POLLIN, 0}};

		if (ppoll(p, ARRAY_SIZE(p), NULL, NULL) < 0) {
			continue;
		}
		alive = p[0].revents ? server_message(s) : !p[1].revents;
	}
	policy_cleanup(&s->policy);
	passt_end(&s->passts);
	_exit(0);
}
