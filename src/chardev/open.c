/*
 * Opening character back ends, before the process is isolated: -chardev and -serial.
 *
 * A unix socket is made with mode 0600; one that a killed process left is replaced, one that
 * somebody listens on is refused. Removing it at the end is the broker's work
 * (chr_socket_path()). The operator is trusted, the text is checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "chardev/chr_int.h"

struct chr_options {
	char *id, *path, *host, *port;
	bool server, wait, append, signal, ipv4, ipv6, nodelay, mux;
	uint32_t reconnect;
};
#define O(f) offsetof(struct chr_options, f)
static const struct opt_desc descs_common[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"mux", OPT_BOOL, O(mux), .def = "off"},
	{NULL},
};
static const struct opt_desc descs_stdio[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"mux", OPT_BOOL, O(mux), .def = "off"},
	{"signal", OPT_BOOL, O(signal), .def = "on"},
	{NULL},
};
static const struct opt_desc descs_file[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"mux", OPT_BOOL, O(mux), .def = "off"},
	{"path", OPT_STR, O(path), .required = true},
	{"append", OPT_BOOL, O(append), .def = "off"},
	{NULL},
};
static const struct opt_desc descs_socket[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"mux", OPT_BOOL, O(mux), .def = "off"},
	{"path", OPT_STR, O(path)},
	{"host", OPT_STR, O(host)},
	{"port", OPT_STR, O(port)},
	{"server", OPT_BOOL, O(server), .def = "off"},
	{"wait", OPT_BOOL, O(wait), .def = "on"},
	{"nodelay", OPT_BOOL, O(nodelay), .def = "off"},
	{"reconnect", OPT_U32, O(reconnect), 0, 86400, .def = "0"},
	{NULL},
};
#undef O

static int fail(struct err *err, int e, const struct chr *c, const char *what)
{
	return err_set(err, e, "chardev '%s' (%s): %s: %s", c->id, c->where, what, strerror(e));
}

/* #syscalls(start): ioctl fcntl */
static int open_stdio(struct chr *c, const struct chr_options *o, struct err *err)
{
	int ret;

	snprintf(c->where, sizeof(c->where), "stdio");
	/* Both first: a terminal is usually one open file, so setting one sets the other. */
	for (int fd = 0; fd < 2; fd++) {
		c->saved_flags[fd] = fcntl(fd, F_GETFL);
	}
	for (int fd = 0; fd < 2; fd++) {
		if (c->saved_flags[fd] >= 0) {
			fcntl(fd, F_SETFL, c->saved_flags[fd] | O_NONBLOCK);
		}
	}
	if (isatty(0) && !tcgetattr(0, &c->saved)) {
		struct termios raw = c->saved;

		raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR |
					   ICRNL | IXON);
		raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
		if (!o->signal) {
			raw.c_lflag &= ~(tcflag_t)ISIG;
		}
		raw.c_cc[VMIN] = 1;
		raw.c_cc[VTIME] = 0;
		if (tcsetattr(0, TCSANOW, &raw)) {
			return fail(err, errno, c, "cannot set up the terminal");
		}
		c->tty = true;
	}
	ret = chr_connect(c, 0, 1);
	return ret ? fail(err, -ret, c, "cannot use standard input and output") : 0;
}

static int open_file(struct chr *c, const struct chr_options *o, struct err *err)
{
	int fd, ret;

	snprintf(c->where, sizeof(c->where), "file:%s", o->path);
	/* O_NONBLOCK: a FIFO or terminal must not stop the machine. */
	fd = open(o->path,
		  O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
			  (o->append ? O_APPEND : O_TRUNC),
		  0600);
	if (fd < 0) {
		return fail(err, errno, c, "cannot open the file");
	}
	ret = chr_connect(c, -1, fd);
	if (ret) {
		close(fd);
		return fail(err, -ret, c, "cannot use the file");
	}
	return 0;
}

static int open_pty(struct chr *c, struct err *err)
{
	char name[64];
	struct termios t;
	int fd, slave;

	snprintf(c->where, sizeof(c->where), "pty");
	fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || grantpt(fd) || unlockpt(fd) || ptsname_r(fd, name, sizeof(name))) {
		int e = errno;

		if (fd >= 0) {
			close(fd);
		}
		return fail(err, e, c, "cannot make a pseudo terminal");
	}
	/* Raw, whoever opens it: bytes are the guest's business. */
	slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave >= 0) {
		if (!tcgetattr(slave, &t)) {
			cfmakeraw(&t);
			tcsetattr(slave, TCSANOW, &t);
		}
		close(slave);
	}
	snprintf(c->where, sizeof(c->where), "pty:%s", name);
	fprintf(stderr, "nemu: %s: char device redirected to %s\n", c->id, name);
	chr_pty_start(c, fd);
	return 0;
}

static int unix_socket(struct chr *c, const struct chr_options *o, int *out, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct stat st;
	mode_t old;
	int fd, e = 0;

	if (strlen(o->path) >= sizeof(sa.sun_path)) {
		return fail(err, ENAMETOOLONG, c, "the path is too long for a socket");
	}
	memcpy(sa.sun_path, o->path, strlen(o->path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return fail(err, errno, c, "cannot make a socket");
	}
	*out = fd;
	if (!o->server) {
		return connect(fd, (struct sockaddr *)&sa, sizeof(sa))
			       ? fail(err, errno, c, "cannot connect")
			       : 0;
	}
	if (!lstat(o->path, &st)) {
		int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (!S_ISSOCK(st.st_mode)) {
			e = EEXIST;
		} else if (!connect(probe, (struct sockaddr *)&sa, sizeof(sa)) ||
			   errno != ECONNREFUSED) {
			e = EADDRINUSE;
		} else {
			unlink(o->path);
		}
		close(probe);
	}
	old = umask(0177);
	if (!e && bind(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		e = errno;
	}
	umask(old);
	if (e) {
		return fail(err, e, c, "cannot listen");
	}
	c->path = strdup(o->path);
	return c->path ? 0 : fail(err, ENOMEM, c, "out of memory");
}

/* One address: the socket or -errno. */
static int tcp_try(const struct chr_options *o, const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, e;

	if (fd < 0) {
		return -errno;
	}
	if (o->nodelay) { /* accepted sockets inherit it */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	if (o->server) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		e = bind(fd, ai->ai_addr, ai->ai_addrlen) ? errno : 0;
	} else {
		e = connect(fd, ai->ai_addr, ai->ai_addrlen) ? errno : 0;
	}
	if (e) {
		close(fd);
		return -e;
	}
	return fd;
}

static int tcp_socket(struct chr *c, const struct chr_options *o, int *out, struct err *err)
{
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM,
				.ai_flags = o->server ? AI_PASSIVE : 0}, *list, *ai;
	int fd = -EADDRNOTAVAIL, ret;

	ret = getaddrinfo(o->host && *o->host ? o->host : NULL, o->port, &hint, &list);
	if (ret) {
		return err_set(err, EINVAL, "chardev '%s' (%s): %s", c->id, c->where,
			       gai_strerror(ret));
	}
	for (ai = list; ai && fd < 0; ai = ai->ai_next) {
		fd = tcp_try(o, ai);
	}
	freeaddrinfo(list);
	if (fd < 0) {
		return fail(err, -fd, c, o->server ? "cannot listen" : "cannot connect");
	}
	*out = fd;
	return 0;
}

/* A client that connects again: not being able to at the start is no error. fd: the connection,
 * or -1; raw is closed then. */
static int stay_connected(struct chr *c, const struct chr_options *o, int fd, int raw,
			  struct err *err)
{
	c->peer_path = strdup(o->path);
	c->retry_ns = o->reconnect * UINT64_C(1000000000);
	if (fd >= 0) {
		fcntl(fd, F_SETFL, O_NONBLOCK);
		if (c->peer_path && !chr_connect(c, fd, fd)) {
			return 0;
		}
	}
	if (raw >= 0) {
		close(raw);
	}
	loop_timer_arm(&c->retry, loop_now_ns(c->loop) + c->retry_ns);
	return c->peer_path ? 0 : fail(err, ENOMEM, c, "out of memory");
}

/* #syscalls(start): socket connect bind listen accept4 unlink newfstatat fcntl setsockopt */
static int open_socket(struct chr *c, const struct chr_options *o, struct err *err)
{
	int fd = -1, peer, ret;

	if (!o->path == !o->port) {
		return err_set(err, EINVAL, "-chardev socket,id=%s: give either path=PATH or "
			       "host=HOST,port=PORT", c->id);
	}
	if (o->path && (o->host || o->nodelay)) {
		return err_set(err, EINVAL, "-chardev socket,id=%s: %s is for host=HOST,port=PORT, not "
			       "for path=%s", c->id, o->host ? "host" : "nodelay", o->path);
	}
	if (o->reconnect && (o->server || !o->path)) {
		return err_set(err, EINVAL, "-chardev socket,id=%s: reconnect=%u is for a client of a "
			       "unix socket (path=PATH,server=off); leave it out", c->id, o->reconnect);
	}
	if (o->path) {
		snprintf(c->where, sizeof(c->where), "unix:%s%s", o->path,
			 o->server ? ",server=on" : "");
		ret = unix_socket(c, o, &fd, err);
		if (o->reconnect) {
			return stay_connected(c, o, ret ? -1 : fd, fd, err);
		}
	} else {
		snprintf(c->where, sizeof(c->where), "tcp:%s:%s%s", o->host ? o->host : "", o->port,
			 o->server ? ",server=on" : "");
		ret = tcp_socket(c, o, &fd, err);
	}
	if (ret) {
		goto close_fd;
	}
	if (!o->server) {
		fcntl(fd, F_SETFL, O_NONBLOCK);
		ret = chr_connect(c, fd, fd);
		if (ret) {
			ret = fail(err, -ret, c, "cannot use the connection");
			goto close_fd;
		}
		return 0;
	}
	if (listen(fd, 1)) {
		ret = fail(err, errno, c, "cannot listen");
		goto close_fd;
	}
	if (o->wait) {
		fprintf(stderr, "nemu: %s: waiting for connection on %s\n", c->id, c->where);
		peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (peer < 0 || chr_connect(c, peer, peer)) {
			ret = fail(err, peer < 0 ? errno : EIO, c, "cannot accept the connection");
			if (peer >= 0) {
				close(peer);
			}
			goto close_fd;
		}
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ret = chr_listen(c, fd);
	if (ret) {
		ret = fail(err, -ret, c, "cannot listen");
		goto close_fd;
	}
	return 0;
close_fd:
	if (fd >= 0) {
		close(fd);
	}
	if (c->path) {
		unlink(c->path);
	}
	return ret;
}

int chr_open(struct loop *l, struct opts *o, struct chr **out, struct err *err)
{
	static const struct {
		const char *name;
		enum chr_kind kind;
		const struct opt_desc *descs;
	} kinds[] = {
		{"null", CHR_NULL, descs_common},	{"stdio", CHR_STDIO, descs_stdio},
		{"pty", CHR_PTY, descs_common},		{"file", CHR_FILE, descs_file},
		{"socket", CHR_SOCKET, descs_socket},
	};
	struct chr_options co = {0};
	const char *backend = opts_get(o, "backend");
	const struct opt_desc *descs = NULL;
	enum chr_kind kind = CHR_NULL;
	struct chr *c;
	int ret;

	for (size_t i = 0; backend && i < ARRAY_SIZE(kinds); i++) {
		if (!strcmp(kinds[i].name, backend)) {
			kind = kinds[i].kind;
			descs = kinds[i].descs;
		}
	}
	if (!descs) {
		return err_set(err, EINVAL, "-chardev: unknown back end '%s'; there are stdio, pty, "
			       "file, null and socket", backend ? backend : "");
	}
	ret = opts_read(o, descs, &co, err);
	if (!ret && co.mux) {
		ret = err_set(err, EINVAL, "-chardev %s,id=%s: mux=on cannot be had; give each device a "
			      "chardev of its own", backend, co.id);
	}
	if (!ret && strlen(co.id) > 63) {
		ret = err_set(err, EINVAL, "-chardev: the id '%s' is longer than 63 characters", co.id);
	}
	if (ret) {
		goto free_options;
	}
	ret = chr_new(l, co.id, kind, &c, err);
	if (ret) {
		goto free_options;
	}
	switch (kind) {
	case CHR_NULL:
		snprintf(c->where, sizeof(c->where), "null");
		c->connected = true; /* with no descriptor: all is taken */
		break;
	case CHR_STDIO:
		ret = open_stdio(c, &co, err);
		break;
	case CHR_PTY:
		ret = open_pty(c, err);
		break;
	case CHR_FILE:
		ret = open_file(c, &co, err);
		break;
	case CHR_SOCKET:
		ret = open_socket(c, &co, err);
		break;
	}
	if (ret) {
		chr_close(c);
		goto free_options;
	}
	*out = c;
free_options:
	opts_free_struct(descs, &co);
	return ret;
}

int chr_open_legacy(struct loop *l, const char *id, const char *text, struct chr **out,
		    struct err *err)
{
	static const struct {
		const char *prefix, *backend, *first;
	} forms[] = {
		{"stdio", "stdio", NULL}, {"null", "null", NULL},	  {"pty", "pty", NULL},
		{"file:", "file", "path"}, {"unix:", "socket", "path"}, {"tcp:", "socket", "addr"},
	};
	struct opts o;
	const char *v, *colon;
	char host[256];
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		size_t n = strlen(forms[i].prefix);

		if (strncmp(text, forms[i].prefix, n) || (!forms[i].first && text[n])) {
			continue;
		}
		ret = opts_parse(&o, "-serial", text + n, forms[i].first, err);
		if (!ret) {
			ret = opts_add(&o, "backend", forms[i].backend, err);
		}
		if (!ret) {
			ret = opts_add(&o, "id", id, err);
		}
		v = ret ? NULL : opts_get(&o, "addr");
		if (v) {
			colon = strrchr(v, ':');
			if (!colon || (size_t)(colon - v) >= sizeof(host)) {
				ret = err_set(err, EINVAL, "-serial tcp:%s: it has to be HOST:PORT", v);
			} else {
				snprintf(host, sizeof(host), "%.*s", (int)(colon - v), v);
				ret = opts_add(&o, "host", host, err);
			}
			if (!ret) {
				ret = opts_add(&o, "port", colon + 1, err);
			}
		}
		if (!ret) {
			ret = chr_open(l, &o, out, err);
		}
		opts_fini(&o);
		return ret;
	}
	return err_set(err, EINVAL, "-serial %s: unknown; there are stdio, pty, null, none, file:PATH, "
		       "unix:PATH,server=on,wait=off, tcp:HOST:PORT,… and chardev:ID", text);
}
