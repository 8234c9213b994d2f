/*
 * Character back ends: one stream core for all kinds.
 *
 * States: not connected (nobody at the other end: what is written is dropped, as a serial line
 * without a cable does) ⇄ connected. A server socket goes back to listening when its peer
 * leaves, a client with reconnect= connects again, a pty asks every half second whether somebody
 * has opened it.
 *
 * Invariants: (1) a read is never larger than what the client said it has room for; (2) no call
 * here blocks: descriptors are non-blocking, files excepted; (3) tx_ready follows every short
 * write while connected. Owner: the control loop. Untrusted: the peer, which may flood (we read
 * only what the device takes) or never read (the device keeps or drops what is not taken).
 */
#include "chardev/chr_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define RETRY_NS (500u * 1000 * 1000)

static void event(struct chr *c, enum chr_event ev)
{
	if (c->attached && c->client.event) {
		c->client.event(c->client.opaque, ev);
	}
}

/* Brings what we wait for in line with what is wanted. */
static void watch_update(struct chr *c)
{
	bool rd = c->want_read && !c->eof && c->rfd >= 0;
	bool wr = c->want_write && c->wfd >= 0;

	if (!c->connected) {
		return; /* if it is watched at all, then by pty_probed() */
	}
	if (c->rwatch.loop && c->rfd == c->wfd) {
		loop_fd_mod(&c->rwatch, (rd ? EPOLLIN : 0u) | (wr ? EPOLLOUT : 0u));
		return;
	}
	if (c->rwatch.loop) {
		loop_fd_mod(&c->rwatch, rd ? EPOLLIN : 0u);
	}
	if (c->wwatch.loop) {
		loop_fd_mod(&c->wwatch, wr ? EPOLLOUT : 0u);
	}
	if ((rd && !c->rd_poll) || (wr && !c->wr_poll)) {
		loop_post(c->loop, &c->work);
	}
}

/* One read of at most what the client takes. #syscalls(main): read */
static void read_some(struct chr *c)
{
	uint8_t buf[4096];
	size_t room = c->attached ? c->client.rx_room(c->client.opaque) : 0;
	ssize_t n;

	if (!room) {
		c->want_read = false;
		watch_update(c);
		return;
	}
	n = read(c->rfd, buf, MIN(room, sizeof(buf)));
	if (n > 0) {
		c->client.rx(c->client.opaque, buf, (size_t)n);
	} else if (n == 0) {
		if (c->kind == CHR_SOCKET) {
			chr_disconnect(c);
		} else {
			c->eof = true; /* standard input has ended; output goes on */
			watch_update(c);
		}
	} else if (errno == EIO && c->kind == CHR_PTY) {
		chr_disconnect(c);
	} else if (errno != EAGAIN && errno != EINTR) {
		if (c->kind == CHR_SOCKET) {
			chr_disconnect(c);
		} else {
			log_warn(c->id, "reading failed, input has ended: %s", strerror(errno));
			c->eof = true;
			watch_update(c);
		}
	}
}

static void write_ready(struct chr *c)
{
	c->want_write = false;
	watch_update(c);
	if (c->attached && c->client.tx_ready) {
		c->client.tx_ready(c->client.opaque);
	}
}

/* The reading side, and the writing one if they are one descriptor. */
static void ready(void *opaque, uint32_t events)
{
	struct chr *c = opaque;

	if (events & EPOLLOUT && c->want_write) {
		write_ready(c);
	}
	if (!c->connected) {
		return;
	}
	if (events & EPOLLIN && c->want_read) {
		read_some(c);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		if (c->kind == CHR_STDIO) {
			/* The pipe's writer is gone, which is reported for ever: what is left in
			 * the pipe is read without waiting, as from a file. */
			loop_fd_del(&c->rwatch);
			c->rd_poll = false;
			watch_update(c);
		} else {
			chr_disconnect(c);
		}
	}
}

/* The writing side, if it is a descriptor of its own. */
static void write_side_ready(void *opaque, uint32_t events)
{
	struct chr *c = opaque;

	if (events & (EPOLLHUP | EPOLLERR)) {
		/* Nobody reads the pipe any more: output is for nobody, input goes on. */
		loop_fd_del(&c->wwatch);
		c->wfd_gone = true;
	}
	if (c->want_write) {
		write_ready(c);
	}
}

/* Descriptors that epoll does not take: files, /dev/null. They are always ready. */
static void unpolled(void *opaque)
{
	struct chr *c = opaque;

	if (!c->connected) {
		return;
	}
	if (c->want_write && !c->wr_poll) {
		write_ready(c);
	}
	if (c->want_read && !c->eof && !c->rd_poll && c->rfd >= 0) {
		read_some(c);
		watch_update(c);
	}
}

static int add_watch(struct chr *c, struct loop_fd *w, int fd, bool *poll_ok)
{
	int ret = loop_fd_add(c->loop, w, fd, 0, w == &c->wwatch ? write_side_ready : ready, c);

	*poll_ok = ret == 0;
	return ret == -EPERM ? 0 : ret;
}

int chr_connect(struct chr *c, int rfd, int wfd)
{
	int ret = 0;

	c->rfd = rfd;
	c->wfd = wfd;
	c->eof = c->wfd_gone = false;
	c->rd_poll = c->wr_poll = true;
	if (rfd >= 0) {
		ret = add_watch(c, &c->rwatch, rfd, &c->rd_poll);
		c->wr_poll = c->rd_poll;
	}
	if (!ret && wfd >= 0 && wfd != rfd) {
		ret = add_watch(c, &c->wwatch, wfd, &c->wr_poll);
	}
	if (ret) {
		loop_fd_del(&c->rwatch);
		return ret;
	}
	c->connected = true;
	c->want_read = c->attached;
	watch_update(c);
	event(c, CHR_OPENED);
	return 0;
}

/* #syscalls(main): close */
void chr_disconnect(struct chr *c)
{
	if (!c->connected) {
		return;
	}
	c->connected = false;
	loop_fd_del(&c->rwatch);
	loop_fd_del(&c->wwatch);
	if (c->kind == CHR_SOCKET) {
		close(c->rfd);
		c->rfd = c->wfd = -1;
		if (c->listen_fd >= 0) {
			loop_fd_mod(&c->lwatch, EPOLLIN);
		} else if (c->peer_path) {
			loop_timer_arm(&c->retry, loop_now_ns(c->loop) + c->retry_ns);
		}
	} else if (c->kind == CHR_PTY) {
		loop_timer_arm(&c->retry, loop_now_ns(c->loop) + RETRY_NS);
	}
	event(c, CHR_CLOSED);
	/* What the device keeps is for nobody now: let it get rid of it. */
	if (c->want_write) {
		write_ready(c);
	}
}

int chr_attach(struct chr *c, const struct chr_client *client, struct err *err)
{
	if (c->attached) {
		return err_set(err, EBUSY, "chardev '%s' is used by another device already", c->id);
	}
	c->client = *client;
	c->attached = true;
	c->want_read = true;
	watch_update(c);
	if (c->connected) {
		event(c, CHR_OPENED);
	}
	return 0;
}

void chr_detach(struct chr *c)
{
	c->attached = false;
	c->want_read = c->want_write = false;
	watch_update(c);
}

/* #syscalls(main): write */
size_t chr_write(struct chr *c, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	if (!c->connected || c->wfd < 0 || c->wfd_gone) {
		return len;
	}
	while (done < len) {
		/* Sockets are non-blocking, and SIGPIPE is ignored in the whole process. */
		ssize_t n = write(c->wfd, buf + done, len - done);

		if (n > 0) {
			done += (size_t)n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else if (n < 0 && errno == EAGAIN) {
			c->want_write = true;
			watch_update(c);
			return done;
		} else {
			int e = n < 0 ? errno : EIO;

			/* a client that has just gone is no failure */
			if (c->kind != CHR_SOCKET || (e != EPIPE && e != ECONNRESET)) {
				log_guest(c->id, "writing failed, output is dropped: %s", strerror(e));
			}
			if (c->kind == CHR_SOCKET) {
				chr_disconnect(c);
			}
			return len;
		}
	}
	return done;
}

void chr_rx_room(struct chr *c)
{
	if (!c->want_read) {
		c->want_read = true;
		watch_update(c);
	}
}

const char *chr_id(const struct chr *c)
{
	return c->id;
}

bool chr_connected(const struct chr *c)
{
	return c->connected;
}

void chr_describe(const struct chr *c, char *buf, size_t len)
{
	snprintf(buf, len, "%s%s", c->connected || c->kind != CHR_SOCKET ? "" : "disconnected:",
		 c->where);
}

/* --- the parts of the kinds that happen while the machine runs --- */

/* #syscalls(main): accept4 */
static void incoming(void *opaque, uint32_t events)
{
	struct chr *c = opaque;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
			/* Out of descriptors: it would be reported at once, for ever. */
			log_guest(c->id, "cannot accept a connection: %s", strerror(errno));
			loop_fd_mod(&c->lwatch, 0);
			loop_timer_arm(&c->retry, loop_now_ns(c->loop) + RETRY_NS);
		}
		return;
	}
	loop_fd_mod(&c->lwatch, 0); /* one peer at a time; the next waits in the backlog */
	if (chr_connect(c, fd, fd)) {
		close(fd);
		loop_fd_mod(&c->lwatch, EPOLLIN);
	}
}

/* #syscalls(main): close */
static void connect_again(struct chr *c)
{
	struct err err = {.msg = "nobody may"};
	int fd = c->rights ? c->rights->connect(c->rights->arg, c->peer_path, &err) : -EPERM;

	if (fd >= 0 && !chr_connect(c, fd, fd)) {
		return;
	}
	if (fd >= 0) {
		close(fd);
	}
	log_debug(c->id, "cannot connect again: %s", err.msg);
	loop_timer_arm(&c->retry, loop_now_ns(c->loop) + c->retry_ns);
}

/* The loop's word on whether somebody has the other side of the pty open: asking poll() would
 * be one more system call to permit. */
static void pty_probed(void *opaque, uint32_t events)
{
	struct chr *c = opaque;

	loop_fd_del(&c->rwatch);
	if (events & EPOLLHUP || chr_connect(c, c->wfd, c->wfd)) {
		loop_timer_arm(&c->retry, loop_now_ns(c->loop) + RETRY_NS);
	}
}

static void retry(void *opaque)
{
	struct chr *c = opaque;

	if (c->kind == CHR_SOCKET) {
		if (!c->connected && c->listen_fd >= 0) {
			loop_fd_mod(&c->lwatch, EPOLLIN);
		} else if (!c->connected && c->peer_path) {
			connect_again(c);
		}
		return;
	}
	if (loop_fd_add(c->loop, &c->rwatch, c->wfd, EPOLLOUT, pty_probed, c)) {
		loop_timer_arm(&c->retry, loop_now_ns(c->loop) + RETRY_NS);
	}
}

int chr_new(struct loop *l, const char *id, enum chr_kind kind, struct chr **out,
	    struct err *err)
{
	struct chr *c = calloc(1, sizeof(*c));

	if (!c) {
		return err_set(err, ENOMEM, "chardev '%s': out of memory", id);
	}
	c->kind = kind;
	c->loop = l;
	c->rfd = c->wfd = c->listen_fd = -1;
	c->work = (struct loop_work){.fn = unpolled, .arg = c};
	snprintf(c->id, sizeof(c->id), "%s", id);
	loop_timer_init(l, &c->retry, retry, c);
	*out = c;
	return 0;
}

int chr_listen(struct chr *c, int fd)
{
	int ret = loop_fd_add(c->loop, &c->lwatch, fd, c->connected ? 0u : EPOLLIN, incoming, c);

	if (!ret) {
		c->listen_fd = fd;
	}
	return ret;
}

void chr_pty_start(struct chr *c, int fd)
{
	c->rfd = c->wfd = fd;
	loop_timer_arm(&c->retry, loop_now_ns(c->loop));
}

/* #syscalls(main): close ioctl fcntl
 * #ioctls(main): TCSETS TCGETS (the second by libc, to see what has become of it) */
void chr_close(struct chr *c)
{
	if (!c) {
		return;
	}
	c->attached = false;
	loop_timer_disarm(&c->retry);
	loop_work_cancel(c->loop, &c->work);
	loop_fd_del(&c->rwatch);
	loop_fd_del(&c->wwatch);
	loop_fd_del(&c->lwatch);
	if (c->tty) {
		tcsetattr(0, TCSANOW, &c->saved);
	}
	if (c->kind == CHR_STDIO) {
		for (int fd = 0; fd < 2; fd++) {
			if (c->saved_flags[fd] >= 0) {
				fcntl(fd, F_SETFL, c->saved_flags[fd]);
			}
		}
	} else if (c->wfd >= 0) {
		close(c->wfd);
	}
	if (c->listen_fd >= 0) {
		close(c->listen_fd);
	}
	free(c->path);
	free(c->peer_path);
	free(c);
}

const char *chr_socket_path(const struct chr *c)
{
	return c->path;
}

const char *chr_peer_path(const struct chr *c)
{
	return c->peer_path;
}

void chr_set_rights(struct chr *c, const struct rights *rights)
{
	c->rights = rights;
}
