/*
 * Starting passt (-netdev user) in the broker, before the seal, and its end.
 *
 *   broker ── fork, exec ──▶ passt ── socket pair ── VM process
 *      └──── fork ──▶ minder: kills passt when the VM process has ended
 *
 * passt ends by itself when the VM process's end of the socket is closed, however that ends. The
 * minder is there for a passt that does not: after the seal the broker has not the right to
 * kill it (passt changes its user, and a Landlock domain does not signal outside of itself). It
 * keeps that one right, takes nothing from the VM process but its end, and passes on what
 * passt says, at a limited rate. When the broker alone is killed both go on.
 *
 * passt counts as started when it has loaded its seccomp filter, which is the last thing it does
 * before it serves. Until then what it says is the reason of a failure.
 *
 * Trusted: who asks, because the VM process has not run a guest yet. Untrusted: what passt says
 * later. One thread in each process.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "sandbox/sandbox_int.h"

#define ARGS_MAX      300
#define SOCKET_FD     3
#define START_STEP_MS 5
#define KILL_WAIT_MS  5000
#define END_WAIT_MS   (KILL_WAIT_MS + 1000)

/* --- what passt says, line by line --- */

struct said {
	char line[256];
	size_t len;
	char last[256]; /* the last whole line that means something */
	bool tell;
};

static void said_line(struct said *s)
{
	/* Where there is no syslog it complains about that for each line. */
	if (s->len && strncmp(s->line, "Failed to send ", 15)) {
		memcpy(s->last, s->line, sizeof(s->last));
		if (s->tell) {
			log_guest("passt", "%s", s->line);
		}
	}
	s->len = 0;
}

/* False at the end. */
static bool said_read(struct said *s, int fd)
{
	char buf[512];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n <= 0) {
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n') {
			said_line(s);
		} else if (s->len < sizeof(s->line) - 1 && buf[i] >= ' ' && buf[i] <= '~') {
			s->line[s->len++] = buf[i];
			s->line[s->len] = '\0';
		}
	}
	return true;
}

/* --- the minder --- */

/* The broker's word, which it leaves there for the others; its end alone has none. */
static bool told_to_end(int life)
{
	char word;

	return recv(life, &word, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

/* #syscalls(start): pidfd_send_signal poll recvfrom prctl exit_group */
static _Noreturn void mind(int vm, int life, int child, int errs)
{
	int keep[] = {vm, life, child, errs};
	struct pollfd p[] = {
		{vm, POLLIN, 0}, {life, POLLIN, 0}, {child, POLLIN, 0}, {errs, POLLIN, 0}};
	struct said said = {.tell = true};

	if (confine_close_fds(keep, ARRAY_SIZE(keep)) < 0 ||
	    confine_caps(UINT64_C(1) << CAP_KILL) < 0) {
		_exit(1); /* passt still ends with the socket */
	}
	prctl(PR_SET_NAME, "nemu-passt"); /* who sees the name sees it confined */
	for (;;) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0) {
			continue;
		}
		if (p[3].revents && !said_read(&said, errs)) {
			p[3].fd = -1;
		}
		if (p[2].revents) {
			_exit(0);
		}
		if (p[0].revents || (p[1].revents && told_to_end(life))) {
			break;
		}
		if (p[1].revents) {
			p[1].fd = -1; /* the broker was killed; the VM goes on */
		}
	}
	syscall(SYS_pidfd_send_signal, child, SIGKILL, NULL, 0);
	poll(p + 2, 1, KILL_WAIT_MS);
	_exit(0);
}

/* --- the start --- */

/* How many seccomp filters a process has; -1: it cannot be seen. */
static long filters_of(pid_t pid)
{
	char path[64], line[128];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f) {
		return -1;
	}
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Seccomp_filters: %ld", &n) == 1) {
			break;
		}
	}
	fclose(f);
	return n;
}

/* Not in the session of a terminal, whose signals are for the VM process.
 * #syscalls(start): setsid dup2 execve prlimit64 rt_sigaction */
static _Noreturn void become_passt(char **argv, int sock, int errs)
{
	struct rlimit lim;

	for (int sig = 1; sig < NSIG; sig++) {
		signal(sig, SIG_DFL);
	}
	setsid();
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	/* The copy has another number than SOCKET_FD, so that it loses close-on-exec there. */
	sock = fcntl(sock, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
	if (dup2(errs, STDERR_FILENO) < 0 || dup2(sock, SOCKET_FD) < 0) {
		_exit(1);
	}
	execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "%s%s\n", strerror(errno),
		errno == ENOENT ? "; install passt (Debian package passt)" : "");
	_exit(1);
}

/* 0 when it serves; the reason is in *said. */
static int wait_ready(pid_t pid, int child, int errs, struct said *said)
{
	struct pollfd p[] = {{errs, POLLIN, 0}, {child, POLLIN, 0}};
	uint64_t until = now_ns() + PASST_START_S * UINT64_C(1000000000);
	long ours = filters_of(getpid());

	while (now_ns() < until) {
		long n;

		poll(p, ARRAY_SIZE(p), START_STEP_MS);
		if (p[0].revents && !said_read(said, errs)) {
			p[0].fd = -1;
		}
		n = filters_of(pid);
		if (!p[1].revents && n >= 0 && n <= ours) {
			continue;
		}
		/* Looked at last: a process that has ended cannot be seen either. */
		poll(p + 1, 1, 0);
		if (!p[1].revents) {
			return 0;
		}
		while (p[0].fd >= 0 && said_read(said, errs)) {
		}
		return -ECHILD;
	}
	return -ETIMEDOUT;
}

static int fill_argv(const struct broker_setup *m, char *text, char **argv, struct err *err)
{
	static const char *const own[] = {"passt", "--foreground", "--quiet", "--fd", "3"};
	size_t n = 0;

	for (; n < ARRAY_SIZE(own); n++) {
		argv[n] = (char *)own[n];
	}
	if (m->arg > sizeof(m->path) || (m->arg && m->path[m->arg - 1])) {
		return err_set(err, EINVAL,
			       "the broker does not understand the arguments for passt");
	}
	memcpy(text, m->path, sizeof(m->path));
	for (char *p = text; p < text + m->arg; p += strlen(p) + 1) {
		if (n == ARGS_MAX) {
			return err_set(err, E2BIG, "too many arguments for passt");
		}
		argv[n++] = p;
	}
	argv[n] = NULL;
	return 0;
}

/* Everything is open; the VM process's end goes to *fd. Closes errs[0] and child. */
static int start(struct passts *s, char **argv, int sock[2], int errs[2], int vm, int *fd,
		 struct err *err)
{
	struct said said = {.last = "it says nothing"};
	pid_t pid = fork(), minder;
	int child, r;

	if (pid == 0) {
		become_passt(argv, sock[1], errs[1]);
	}
	close(errs[1]);
	errs[1] = -1;
	child = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	signal(SIGCHLD, SIG_IGN); /* from now on the kernel collects */
	if (child < 0) {
		return err_set(err, errno, "passt cannot be started: %s", strerror(errno));
	}
	r = wait_ready(pid, child, errs[0], &said);
	if (r < 0) {
		syscall(SYS_pidfd_send_signal, child, SIGKILL, NULL, 0);
		waitpid(pid, NULL, 0);
		r = r == -ETIMEDOUT
			    ? err_set(err, -r,
				      "passt is not ready after %d s; its last word: %s",
				      PASST_START_S, said.last)
			    : err_set(err, -r, "passt does not start: %s", said.last);
		goto close_child;
	}
	minder = fork();
	if (minder == 0) {
		mind(vm, s->life[1], child, errs[0]);
	}
	if (minder < 0) {
		r = err_set(err, errno, "passt cannot be minded: %s", strerror(errno));
		syscall(SYS_pidfd_send_signal, child, SIGKILL, NULL, 0);
		goto close_child;
	}
	*fd = sock[0];
	sock[0] = -1;
close_child:
	close(child);
	return r;
}

static void close_pair(int p[2])
{
	for (int i = 0; i < 2; i++) {
		if (p[i] >= 0) {
			close(p[i]);
		}
	}
}

/* #syscalls(start): socketpair pipe2 fcntl clone pidfd_open wait4 kill read openat close */
int passt_start(struct passts *s, const struct broker_setup *m, int vm, int *fd,
		struct err *err)
{
	int sock[2] = {-1, -1}, errs[2] = {-1, -1}, r;
	char text[BROKER_PATH_MAX], *argv[ARGS_MAX + 1];

	r = fill_argv(m, text, argv, err);
	if (r < 0) {
		return r;
	}
	if ((!s->started && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s->life) < 0) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0 ||
	    fcntl(sock[0], F_SETFL, O_NONBLOCK) < 0 ||
	    pipe2(errs, O_CLOEXEC | O_NONBLOCK) < 0) {
		r = err_set(err, errno, "passt cannot be started: %s", strerror(errno));
	} else {
		s->started = true;
		/* Not collected before it has a pidfd, however soon it ends. */
		signal(SIGCHLD, SIG_DFL);
		r = start(s, argv, sock, errs, vm, fd, err);
	}
	close_pair(sock);
	close_pair(errs);
	return r;
}

/* A minder ends when its passt has, and its end of the connection closes a moment before it is
 * gone. #syscalls(broker): write ppoll close wait4 clock_nanosleep */
void passt_end(struct passts *s)
{
	struct pollfd p = {0};

	if (!s->started) {
		return;
	}
	if (write(s->life[0], "x", 1) != 1) {
		return;
	}
	close(s->life[1]);
	p.fd = s->life[0];
	if (ppoll(&p, 1, &(struct timespec){.tv_sec = END_WAIT_MS / 1000}, NULL) <= 0) {
		log_warn("broker", "passt does not end");
		return;
	}
	for (int i = 0; i < 100 && waitpid(-1, NULL, WNOHANG) >= 0; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}
