/*
 * Frames over a stream socket to another process: -netdev stream (passt, another QEMU or NEMU)
 * and, with a passt of our own behind it, -netdev user. A 32-bit big-endian length before each
 * frame (net/frames.h); no virtio-net header, so there are no offloads.
 *
 *          peer gone, malformed length                 reconnect= (control loop)
 *   up ───────────────────────────────▶ down ────────────────────────────────────▶ up
 *
 * Down: the card's link is down, what the guest sends is lost as without a cable.
 *
 * A peer that does not read: a frame that was written in part is finished first, the next ones
 * stay in the guest's ring (-EAGAIN). After STALL_NS without progress the peer counts as stalled
 * and the guest's frames are dropped and counted until there is room again. A peer that floods:
 * bytes are read only while the device takes frames; the rest waits in the socket, whose
 * buffer is the peer's own.
 *
 * Invariants:
 * 1. memory is one buffer for each direction, allocated at the start;
 * 2. fd is owned by the loop that the port is attached to while it is up; while it is down,
 *    new_fd is the control loop's until `found` is posted;
 * 3. at most one frame is in tx: the rest of one that was begun. Only whole frames are dropped.
 *
 * Threads: opened, reconnected and closed on the control loop; the data path is the loop's that
 * was given to attach(). Untrusted: the peer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/log.h"
#include "base/util.h"
#include "base/wire.h"
#include "net/frames.h"
#include "net/net_int.h"

#define STALL_NS UINT64_C(1000000000)
#define VECS_MAX 1024u /* IOV_MAX; the prefix takes the header's place */

struct stream {
	struct net_port port;
	const char *lost_text;
	int fd;		   /* -1: down */
	struct loop *loop; /* NULL: not attached */
	struct loop_fd watch;
	struct net_client client;
	bool rx_on, tx_on;

	struct frames rx;
	bool readable;	       /* the last read did not empty the socket */
	struct loop_work more; /* frames are left in rx */

	uint8_t *tx;
	size_t tx_at, tx_len; /* what is left: tx[tx_at..tx_len) */
	bool stalled;
	_Atomic uint64_t dropped; /* frames, in all; any thread reads it */
	uint64_t dropped_before;  /* this stall */
	struct loop_timer stall;

	struct loop *main;
	const struct rights *rights;
	char *path;
	uint64_t retry_ns; /* 0: a peer that has gone does not come back */
	struct loop_timer retry;
	struct loop_work lost, found;
	int new_fd;
};

static struct stream *of_port(struct net_port *p)
{
	return container_of(p, struct stream, port);
}

static void watch_update(struct stream *t)
{
	bool wr = t->tx_on || t->tx_len || t->stalled;

	if (t->watch.loop) {
		loop_fd_mod(&t->watch, (t->rx_on ? EPOLLIN : 0u) | (wr ? EPOLLOUT : 0u));
	}
}

/* --- up and down --- */

static void tx_room(struct stream *t)
{
	if (t->tx_on) {
		t->client.tx_ready(t->client.opaque);
	}
}

static void stall_end(struct stream *t)
{
	loop_timer_disarm(&t->stall);
	if (t->stalled) {
		t->stalled = false;
		log_guest(t->port.id, "the peer reads again; %llu frames were dropped",
			  (unsigned long long)(t->dropped - t->dropped_before));
	}
}

/* #syscalls(main, io): close */
static void stream_down(struct stream *t, const char *why)
{
	if (t->fd < 0) {
		return;
	}
	loop_fd_del(&t->watch);
	close(t->fd);
	t->fd = -1;
	frames_reset(&t->rx);
	t->readable = false;
	t->tx_at = t->tx_len = 0;
	t->stalled = false;
	loop_timer_disarm(&t->stall);
	log_guest(t->port.id, "%s; the link is down%s", why,
		  t->retry_ns ? " until the peer is there again" : "");
	if (t->retry_ns) {
		loop_post(t->main, &t->lost);
	}
	if (t->client.link) {
		t->client.link(t->client.opaque, false);
	}
	tx_room(t); /* what the guest has waiting is for nobody now */
}

static void stream_ready(void *opaque, uint32_t events);

/* On the loop. */
static void stream_found(void *arg)
{
	struct stream *t = arg;
	int r = loop_fd_add(t->loop, &t->watch, t->new_fd, 0, stream_ready, t);

	t->fd = t->new_fd;
	t->new_fd = -1;
	if (r < 0) {
		stream_down(t, strerror(-r));
		return;
	}
	watch_update(t);
	if (t->client.link) {
		t->client.link(t->client.opaque, true);
	}
}

/* On the control loop. */
static void retry_arm(void *arg)
{
	struct stream *t = arg;

	loop_timer_arm(&t->retry, loop_now_ns(t->main) + t->retry_ns);
}

static void stream_retry(void *opaque)
{
	struct stream *t = opaque;
	struct err err = {.msg = "no card is attached"};
	int fd = t->loop ? t->rights->connect(t->rights->arg, t->path, &err) : -ENOTCONN;

	if (fd < 0) {
		log_debug(t->port.id, "no peer yet: %s", err.msg);
		retry_arm(t);
		return;
	}
	t->new_fd = fd;
	log_guest(t->port.id, "connected to %s", t->path);
	loop_post(t->loop, &t->found);
}

static const char *why_lost(const struct stream *t, int errnum)
{
	return errnum == 0 || errnum == EPIPE || errnum == ECONNRESET ? t->lost_text
								      : strerror(errnum);
}

/* --- receive --- */

/* False: nothing more for now. #syscalls(main, io): readv */
static bool fill(struct stream *t)
{
	struct iovec iov;
	ssize_t n;

	if (!t->readable) {
		return false;
	}
	iov.iov_base = frames_space(&t->rx, &iov.iov_len);
	do {
		n = readv(t->fd, &iov, 1);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		t->readable = (size_t)n == iov.iov_len;
		frames_filled(&t->rx, (size_t)n);
		return true;
	}
	t->readable = false;
	if (n == 0 || errno != EAGAIN) {
		stream_down(t, why_lost(t, n ? errno : 0));
	}
	return false;
}

/* One copy, out of a buffer that one read has filled with many frames. */
static ssize_t stream_recv(struct net_port *p, const struct iovec *iov, unsigned cnt)
{
	struct stream *t = of_port(p);
	struct iov_cur cur = iov_cur_init(iov, cnt);
	const uint8_t *frame;
	size_t len;
	int r;

	if (t->fd < 0) {
		return -EAGAIN;
	}
	while ((r = frames_next(&t->rx, &frame, &len)) == 0) {
		if (!fill(t)) {
			return -EAGAIN;
		}
	}
	if (r < 0) {
		stream_down(t, "the peer sent a length that no frame has");
		return -EAGAIN;
	}
	iov_cur_zero(&cur, NET_HDR_LEN);
	if (iov_cur_write(&cur, frame, len) < len) {
		return -EMSGSIZE;
	}
	return (ssize_t)(NET_HDR_LEN + len);
}

/* Frames that are in the buffer already are told by nobody else. */
static void rx_tell(struct stream *t)
{
	if (t->fd >= 0 && t->rx_on) {
		t->client.rx_ready(t->client.opaque);
	}
	if (t->fd >= 0 && t->rx_on && frames_waiting(&t->rx)) {
		loop_post(t->loop, &t->more);
	}
}

static void stream_more(void *arg)
{
	rx_tell(arg);
}

static void stream_rx_enable(struct net_port *p, bool on)
{
	struct stream *t = of_port(p);

	if (t->rx_on != on) {
		t->rx_on = on;
		watch_update(t);
		if (on && frames_waiting(&t->rx)) {
			loop_post(t->loop, &t->more);
		}
	}
}

/* --- send --- */

static void stall_arm(struct stream *t)
{
	if (!t->stall.armed && !t->stalled) {
		loop_timer_arm(&t->stall, loop_now_ns(t->loop) + STALL_NS);
	}
}

static void stall_begins(void *opaque)
{
	struct stream *t = opaque;

	if (!t->tx_on && !t->tx_len) {
		return; /* who waited has gone: a reset of the card */
	}
	t->stalled = true;
	t->dropped_before = t->dropped;
	watch_update(t);
	log_guest(t->port.id, "the peer does not read; the guest's frames are dropped");
	tx_room(t);
}

/* There is no room for a frame. */
static ssize_t no_room(struct stream *t, size_t len)
{
	if (t->stalled) {
		t->dropped++;
		return (ssize_t)len;
	}
	stall_arm(t);
	return -EAGAIN;
}

/* 0 when nothing is left. #syscalls(main, io): writev */
static int flush(struct stream *t)
{
	while (t->tx_at < t->tx_len) {
		struct iovec iov = {t->tx + t->tx_at, t->tx_len - t->tx_at};
		ssize_t n = writev(t->fd, &iov, 1);

		if (n > 0) {
			t->tx_at += (size_t)n;
			loop_timer_disarm(&t->stall);
		} else if (n == 0 || errno == EAGAIN) {
			stall_arm(t);
			return -EAGAIN;
		} else if (errno != EINTR) {
			stream_down(t, why_lost(t, errno));
			return -EPIPE;
		}
	}
	t->tx_at = t->tx_len = 0;
	return 0;
}

/* The port's contract: the header is in front, here always empty, because nothing is offered. */
static ssize_t stream_send(struct net_port *p, const struct iovec *iov, unsigned cnt)
{
	struct stream *t = of_port(p);
	struct iovec vec[VECS_MAX];
	struct iov_cur cur = iov_cur_init(iov, cnt);
	size_t all = iov_len(iov, cnt), len = all - NET_HDR_LEN;
	be32 prefix = be32_of((uint32_t)len);
	ssize_t n;
	int taken;

	iov_cur_skip(&cur, NET_HDR_LEN);
	if (all <= NET_HDR_LEN || len > FRAMES_MAX ||
	    (taken = iov_cur_take(&cur, len, vec + 1, VECS_MAX - 1)) < 0) {
		return -EMSGSIZE;
	}
	if (t->fd < 0) {
		t->dropped++;
		return (ssize_t)all;
	}
	if (t->tx_len || t->stalled) {
		return no_room(t, all);
	}
	vec[0] = (struct iovec){&prefix, sizeof(prefix)};
	do {
		n = writev(t->fd, vec, taken + 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN) {
		return no_room(t, all);
	}
	if (n < 0) {
		stream_down(t, why_lost(t, errno));
		return (ssize_t)all;
	}
	if ((size_t)n < FRAMES_PREFIX + len) {
		/* Begun: the rest is kept, whatever becomes of the guest's memory. */
		cur = iov_cur_init(vec, (size_t)taken + 1);
		iov_cur_skip(&cur, (size_t)n);
		t->tx_len = iov_cur_read(&cur, t->tx, FRAMES_PREFIX + len - (size_t)n);
		t->tx_at = 0;
		stall_arm(t);
		watch_update(t);
	}
	return (ssize_t)all;
}

static void stream_tx_poll(struct net_port *p, bool on)
{
	struct stream *t = of_port(p);

	if (t->tx_on != on) {
		t->tx_on = on;
		watch_update(t);
	}
}

static void stream_ready(void *opaque, uint32_t events)
{
	struct stream *t = opaque;

	if (events & EPOLLOUT && !flush(t)) {
		stall_end(t);
		tx_room(t);
		watch_update(t);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && t->fd >= 0) {
		t->readable = true;
		rx_tell(t);
	}
	/* Hung up, with a device that takes nothing: what is left to be read is for nobody. */
	if (events & (EPOLLHUP | EPOLLERR) && t->fd >= 0 && !t->rx_on) {
		stream_down(t, t->lost_text);
	}
}

/* --- the port --- */

static unsigned stream_offloads(struct net_port *p)
{
	return 0;
}

static int stream_set_offloads(struct net_port *p, unsigned rx)
{
	return rx ? -EINVAL : 0;
}

static int stream_attach(struct net_port *p, struct loop *l, const struct net_client *c)
{
	struct stream *t = of_port(p);

	t->client = *c;
	t->loop = l;
	loop_timer_init(l, &t->stall, stall_begins, t);
	if (t->fd >= 0) {
		int r = loop_fd_add(l, &t->watch, t->fd, 0, stream_ready, t);

		if (r < 0) {
			t->loop = NULL;
			return r;
		}
	} else if (c->link) {
		c->link(c->opaque, false);
	}
	return 0;
}

static void stream_detach(struct net_port *p)
{
	struct stream *t = of_port(p);

	loop_fd_del(&t->watch);
	loop_timer_disarm(&t->stall);
	loop_work_cancel(t->loop, &t->more);
	loop_work_cancel(t->loop, &t->found);
	t->rx_on = t->tx_on = false;
	t->client = (struct net_client){0};
	t->loop = NULL;
}

/* #syscalls(main): close */
static void stream_close(struct net_port *p)
{
	struct stream *t = of_port(p);

	loop_work_cancel(t->main, &t->lost);
	loop_timer_disarm(&t->retry);
	if (t->fd >= 0) {
		close(t->fd);
	}
	if (t->new_fd >= 0) {
		close(t->new_fd);
	}
	frames_fini(&t->rx);
	free(t->tx);
	free(t->path);
	free(t);
}

uint64_t net_stream_dropped(const struct net_port *p)
{
	return container_of(p, const struct stream, port)->dropped;
}

static const struct net_port_ops stream_ops = {
	.type = "stream",
	.send = stream_send,
	.recv = stream_recv,
	.rx_enable = stream_rx_enable,
	.tx_poll = stream_tx_poll,
	.offloads = stream_offloads,
	.set_offloads = stream_set_offloads,
	.attach = stream_attach,
	.detach = stream_detach,
	.close = stream_close,
};
static const struct net_port_ops user_ops = {
	.type = "user",
	.send = stream_send,
	.recv = stream_recv,
	.rx_enable = stream_rx_enable,
	.tx_poll = stream_tx_poll,
	.offloads = stream_offloads,
	.set_offloads = stream_set_offloads,
	.attach = stream_attach,
	.detach = stream_detach,
	.close = stream_close,
};

/* Takes fd over, also when it fails; -1: down. */
static int stream_new(const struct net_env *env, const char *id, int fd, struct stream **out)
{
	struct stream *t = calloc(1, sizeof(*t));

	if (t) {
		t->fd = fd;
		t->new_fd = -1;
		t->main = env->loop;
		t->rights = env->rights;
		t->port.ops = &stream_ops;
		t->lost_text = "the peer has closed the connection";
		t->more = (struct loop_work){.fn = stream_more, .arg = t};
		t->lost = (struct loop_work){.fn = retry_arm, .arg = t};
		t->found = (struct loop_work){.fn = stream_found, .arg = t};
		snprintf(t->port.id, sizeof(t->port.id), "%s", id);
		loop_timer_init(env->loop, &t->retry, stream_retry, t);
		t->tx = malloc(FRAMES_PREFIX + FRAMES_MAX);
		*out = t;
		if (!frames_init(&t->rx) && t->tx) {
			return 0;
		}
		stream_close(&t->port);
	} else if (fd >= 0) {
		close(fd);
	}
	return -ENOMEM;
}

int net_stream_user(const struct net_env *env, const char *id, int fd, struct net_port **out,
		    struct err *err)
{
	struct stream *t;

	if (stream_new(env, id, fd, &t) < 0) {
		return err_set(err, ENOMEM, "-netdev user,id=%s: out of memory", id);
	}
	t->port.ops = &user_ops;
	t->lost_text = "passt has ended";
	*out = &t->port;
	return 0;
}

/* --- -netdev stream --- */

struct stream_options {
	char *id, *addr_type, *path;
	bool server;
	uint32_t reconnect;
};
#define O(f) offsetof(struct stream_options, f)
static const struct opt_desc descs[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"addr.type", OPT_STR, O(addr_type), .required = true},
	{"addr.path", OPT_STR, O(path)},
	{"server", OPT_BOOL, O(server), .def = "off"},
	{"reconnect", OPT_U32, O(reconnect), 0, 86400, .def = "0"},
	{NULL},
};
#undef O

static int check_options(const struct stream_options *o, const struct net_env *env,
			 struct err *err)
{
	struct sockaddr_un sa;

	if (strlen(o->id) > 63) {
		return err_set(err, EINVAL,
			       "-netdev stream: the id '%s' is longer than 63 characters",
			       o->id);
	}
	if (!o->path || !*o->path) {
		return err_set(err, EINVAL, "-netdev stream,id=%s: addr.path=PATH is missing",
			       o->id);
	}
	if (strlen(o->path) >= sizeof(sa.sun_path)) {
		return err_set(err, ENAMETOOLONG,
			       "-netdev stream,id=%s: addr.path=%s is longer than "
			       "%zu characters",
			       o->id, o->path, sizeof(sa.sun_path) - 1);
	}
	if (o->server) {
		return err_set(err, EINVAL,
			       "-netdev stream,id=%s: server=on is not supported; let the "
			       "peer listen and say server=off",
			       o->id);
	}
	if (o->reconnect && !env->rights) {
		return err_set(err, EINVAL,
			       "-netdev stream,id=%s: reconnect=%u cannot be had here; "
			       "nobody could connect again",
			       o->id, o->reconnect);
	}
	return 0;
}

/* The socket or -errno. #syscalls(start): socket connect fcntl close */
static int connect_now(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), e;

	if (fd < 0) {
		return -errno;
	}
	memcpy(sa.sun_path, path, strlen(path));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) || fcntl(fd, F_SETFL, O_NONBLOCK)) {
		e = errno;
		close(fd);
		return -e;
	}
	return fd;
}

int net_stream_open(struct opts *o, const struct net_env *env, struct net_port **out,
		    struct err *err)
{
	struct stream_options so = {0};
	const char *type = opts_get(o, "addr.type");
	struct stream *t;
	int fd, ret;

	/* First, because the other keys depend on it. */
	if (type && strcmp(type, "unix")) {
		return err_set(err, EINVAL,
			       "-netdev stream: addr.type=%s is not supported; there is "
			       "unix",
			       type);
	}
	ret = opts_read(o, descs, &so, err);
	ret = ret ? ret : check_options(&so, env, err);
	if (ret) {
		goto free_options;
	}
	fd = connect_now(so.path);
	if (fd < 0 && !so.reconnect) {
		ret = err_set(err, -fd,
			      "-netdev stream,id=%s: cannot connect to %s: %s; start the peer "
			      "first, or say reconnect=SECONDS",
			      so.id, so.path, strerror(-fd));
		goto free_options;
	}
	ret = stream_new(env, so.id, MAX(fd, -1), &t);
	if (ret) {
		err_set(err, ENOMEM, "-netdev stream,id=%s: out of memory", so.id);
		goto free_options;
	}
	t->path = so.path;
	so.path = NULL;
	t->retry_ns = so.reconnect * UINT64_C(1000000000);
	if (fd < 0) {
		log_info(t->port.id, "no peer at %s yet: %s", t->path, strerror(-fd));
		retry_arm(t);
	}
	*out = &t->port;
free_options:
	opts_free_struct(descs, &so);
	return ret;
}
