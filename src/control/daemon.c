/* See daemon.h. */
#include "control/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/machine.h"

/* #syscalls(start): pipe2 clone read wait4 setsid openat */
int daemon_start(struct daemon *d, bool on, struct err *err)
{
	int p[2], status = 0;
	pid_t pid;
	char ok;

	d->on = on;
	d->fd = d->null_fd = d->stderr_fd = -1;
	if (!on) {
		return 0;
	}
	if (pipe2(p, O_CLOEXEC)) {
		return err_set(err, errno, "-daemonize: cannot make a pipe: %s", strerror(errno));
	}
	pid = fork();
	if (pid < 0) {
		return err_set(err, errno, "-daemonize: cannot fork: %s", strerror(errno));
	}
	if (pid > 0) {
		close(p[1]);
		if (read(p[0], &ok, 1) == 1) {
			_exit(0);
		}
		waitpid(pid, &status, 0); /* it has said why on standard error */
		_exit(1);
	}
	close(p[0]);
	d->fd = p[1];
	setsid();
	d->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return d->null_fd < 0 ? err_set(err, errno, "-daemonize: cannot open /dev/null: %s",
					strerror(errno))
			      : 0;
}

/* #syscalls(start): fcntl dup3 close */
void daemon_hide_stderr(struct daemon *d, bool hide)
{
	if (!d->on) {
		return;
	}
	if (hide) {
		d->stderr_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
		dup3(d->null_fd, 2, 0);
	} else if (d->stderr_fd >= 0) {
		dup3(d->stderr_fd, 2, 0);
		close(d->stderr_fd);
		d->stderr_fd = -1;
	}
}

/* The parent's exit tells the caller that the socket listens, so the descriptors that the caller
 * may be reading until their end are closed before. #syscalls(main): write dup3 close */
void daemon_ready(struct daemon *d)
{
	char ok = 1;

	if (!d->on || d->fd < 0) {
		return;
	}
	for (int fd = 0; fd < 3; fd++) {
		dup3(d->null_fd, fd, 0);
	}
	if (write(d->fd, &ok, 1) != 1) {
		return; /* the parent was killed; there is nobody to tell */
	}
	close(d->fd);
	close(d->null_fd);
	d->fd = -1;
}

/* #syscalls(start): openat flock ftruncate write */
int daemon_pidfile(const char *path, struct err *err)
{
	char text[32];
	int fd, n;

	if (!path) {
		return 0;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		return err_set(err, errno, "-pidfile %s: cannot open it: %s", path, strerror(errno));
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int e = errno;

		close(fd);
		return e == EWOULDBLOCK
			       ? err_set(err, EAGAIN, "-pidfile %s: another process that is running has "
					 "it; name another file", path)
			       : err_set(err, e, "-pidfile %s: cannot lock it: %s", path, strerror(e));
	}
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) || write(fd, text, (size_t)n) != n) {
		int e = errno;

		close(fd);
		return err_set(err, e, "-pidfile %s: cannot write it: %s", path, strerror(e));
	}
	return 0; /* stays open: the lock says that we live */
}

/* #syscalls(main): read */
static void on_signal(void *opaque, uint32_t events)
{
	struct daemon *d = opaque;
	struct signalfd_siginfo si;

	if (read(d->signals.fd, &si, sizeof(si)) == sizeof(si)) {
		log_info("nemu", "terminating on signal %u", si.ssi_signo);
		machine_quit(d->machine, "host-signal");
	}
}

/* #syscalls(start): signalfd4 rt_sigprocmask rt_sigaction */
int daemon_signals(struct daemon *d, struct loop *l, struct machine *m, struct err *err)
{
	sigset_t set;
	int fd, ret;

	d->machine = m;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ret = fd < 0 ? -errno : loop_fd_add(l, &d->signals, fd, EPOLLIN, on_signal, d);
	return ret ? err_set(err, -ret, "cannot watch for signals: %s", strerror(-ret)) : 0;
}

/* #syscalls(main): close */
void daemon_end(struct daemon *d)
{
	if (d->signals.loop) {
		int fd = d->signals.fd;

		loop_fd_del(&d->signals);
		close(fd);
	}
}
