/*
 * The QMP server: where clients come from, and the events that all of them get.
 * Addresses as in QEMU's -qmp: unix:PATH, tcp:HOST:PORT, each with server=on|off and wait=on|off,
 * and stdio.
 */
#include "control/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/opts.h"
#include "control/qmp_int.h"

/* --- events --- */

/* #syscalls(main): clock_gettime */
void qmp_event(struct qmp_server *s, const char *name, json_t *data)
{
	struct timespec ts;
	struct list *p, *tmp;
	json_t *ev;

	clock_gettime(CLOCK_REALTIME, &ts);
	ev = json_pack("{s:{s:I,s:I},s:s}", "timestamp", "seconds", (json_int_t)ts.tv_sec,
		       "microseconds", (json_int_t)(ts.tv_nsec / 1000), "event", name);
	if (ev && data) {
		json_object_set_new(ev, "data", data);
	} else {
		json_decref(data);
	}
	list_for_each_safe(p, tmp, &s->clients) {
		struct qmp_client *c = list_entry(p, struct qmp_client, node);

		if (c->negotiated && !c->dead) {
			qmp_client_send(c, json_incref(ev));
		}
	}
	json_decref(ev);
}

static void block_error(void *opaque, const struct machine_block_error *e)
{
	json_t *data = json_pack("{s:s,s:s,s:s,s:s,s:b,s:s}", "device", e->drive, "node-name",
				 e->node, "operation",
				 e->read ? "read" : "write", "action", e->action, "nospace",
				 e->error == ENOSPC, "reason", strerror(e->error));

	if (data) {
		json_object_set_new(data, "qom-path",
				    json_sprintf("/machine/peripheral/%s", e->device));
	}
	qmp_event(opaque, "BLOCK_IO_ERROR", data);
}

static void machine_event(void *opaque, enum machine_event ev, bool guest, const char *reason)
{
	struct qmp_server *s = opaque;
	json_t *why = NULL;

	if (ev == MACHINE_RESET || ev == MACHINE_SHUTDOWN) {
		why = json_pack("{s:b,s:s}", "guest", guest, "reason", reason ? reason : "none");
	}
	switch (ev) {
	case MACHINE_STOP:
		qmp_event(s, "STOP", NULL);
		break;
	case MACHINE_RESUME:
		qmp_event(s, "RESUME", NULL);
		break;
	case MACHINE_RESET:
		qmp_event(s, "RESET", why);
		break;
	case MACHINE_POWERDOWN:
		qmp_event(s, "POWERDOWN", NULL);
		break;
	case MACHINE_SHUTDOWN:
		qmp_event(s, "SHUTDOWN", why);
		break;
	case MACHINE_PANIC:
		break; /* the STOP that follows and query-status tell it, as in QEMU */
	}
}

/* --- clients come and go --- */

static void reap(void *arg)
{
	struct qmp_server *s = arg;
	struct list *p, *tmp;

	list_for_each_safe(p, tmp, &s->clients) {
		struct qmp_client *c = list_entry(p, struct qmp_client, node);

		if (c->dead) {
			qmp_client_free(c);
		}
	}
	for (unsigned i = 0; i < s->nlisteners; i++) {
		struct qmp_listener *l = &s->listener[i];

		if (l->fd >= 0 && l->watch.loop) {
			loop_fd_mod(&l->watch, EPOLLIN); /* there is room again */
		}
	}
}

/* #syscalls(main): accept4 close */
static void incoming(void *opaque, uint32_t events)
{
	struct qmp_listener *l = opaque;
	struct list *p, *tmp;
	int fd;

	if (l->server->nclients >= QMP_MAX_CLIENTS) {
		loop_fd_mod(&l->watch, 0); /* they wait in the backlog until one leaves */
		return;
	}
	fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE) {
			log_guest("qmp", "no descriptor for another client: %s", strerror(errno));
			loop_fd_mod(&l->watch, 0);
		}
		return;
	}
	if (qmp_client_new(l->server, l, fd, fd)) {
		close(fd);
		return;
	}
	l->connected_once = true;
	list_for_each_safe(p, tmp, &l->server->clients) {
		/* with wait=on nobody is heard until the last one is there */
		qmp_client_watch(list_entry(p, struct qmp_client, node));
	}
}

/* --- addresses --- */

struct qmp_addr {
	bool stdio, tcp, server, wait;
	char path[108];
	char host[256], port[32];
};

static int addr_parse(const char *text, struct qmp_addr *a, struct err *err)
{
	struct opts o;
	const char *v, *body;
	int ret;

	memset(a, 0, sizeof(*a));
	a->wait = true;
	if (!strcmp(text, "stdio")) {
		a->stdio = true;
		return 0;
	}
	if (!strncmp(text, "unix:", 5)) {
		body = text + 5;
	} else if (!strncmp(text, "tcp:", 4)) {
		body = text + 4;
		a->tcp = true;
	} else {
		return err_set(err, EINVAL, "-qmp %s: it has to be unix:PATH,server=on,wait=off, "
			       "tcp:HOST:PORT,server=on,wait=off or stdio", text);
	}
	ret = opts_parse(&o, "-qmp", body, "addr", err);
	if (ret) {
		return ret;
	}
	v = opts_get(&o, "server");
	if (v && parse_bool(v, &a->server)) {
		ret = err_set(err, EINVAL, "-qmp: server=%s is neither on nor off", v);
	}
	v = opts_get(&o, "wait");
	if (!ret && v && parse_bool(v, &a->wait)) {
		ret = err_set(err, EINVAL, "-qmp: wait=%s is neither on nor off", v);
	}
	v = opts_get(&o, "nowait");
	if (!ret && v) {
		a->wait = false;
	}
	v = opts_get(&o, "addr");
	if (!ret && (!v || !*v)) {
		ret = err_set(err, EINVAL, "-qmp %s: the address is missing", text);
	}
	if (!ret && !a->tcp) {
		if (strlen(v) >= sizeof(a->path)) {
			ret = err_set(err, ENAMETOOLONG, "-qmp unix:%s: the path is longer than %zu "
				      "characters", v, sizeof(a->path) - 1);
		} else {
			snprintf(a->path, sizeof(a->path), "%s", v);
		}
	} else if (!ret) {
		const char *colon = strrchr(v, ':');
		size_t n = colon ? (size_t)(colon - v) : 0;

		if (!colon || n >= sizeof(a->host) || strlen(colon + 1) >= sizeof(a->port) ||
		    !colon[1]) {
			ret = err_set(err, EINVAL, "-qmp tcp:%s: it has to be HOST:PORT", v);
		} else {
			if (n > 2 && v[0] == '[' && v[n - 1] == ']') { /* IPv6 */
				v++;
				n -= 2;
			}
			snprintf(a->host, sizeof(a->host), "%.*s", (int)n, v);
			snprintf(a->port, sizeof(a->port), "%s", colon + 1);
		}
	}
	if (!ret) {
		ret = opts_check_used(&o, err);
	}
	opts_fini(&o);
	return ret;
}

/* A socket nobody listens on any more is left from a process that was killed. */
static int stale_remove(const struct sockaddr_un *sa, struct err *err)
{
	struct stat st;
	int fd, ret;

	if (lstat(sa->sun_path, &st)) {
		return 0;
	}
	if (!S_ISSOCK(st.st_mode)) {
		return err_set(err, EEXIST, "-qmp unix:%s: that path is there and is not a socket; name "
			       "another one or remove it", sa->sun_path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return -errno;
	}
	ret = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) ? errno : 0;
	close(fd);
	if (ret != ECONNREFUSED) {
		return err_set(err, EADDRINUSE, "-qmp unix:%s: another process listens there",
			       sa->sun_path);
	}
	return unlink(sa->sun_path) ? -errno : 0;
}

/* #syscalls(start): socket connect bind listen unlink fchmod chmod */
static int unix_open(const struct qmp_addr *a, int *out, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	const char *verb = a->server ? "listen on" : "connect to";
	int fd, ret = 0;

	memcpy(sa.sun_path, a->path, sizeof(sa.sun_path));
	if (a->server) {
		ret = stale_remove(&sa, err);
		if (ret) {
			return ret;
		}
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return err_set(err, errno, "-qmp unix:%s: cannot make a socket: %s", a->path,
			       strerror(errno));
	}
	if (a->server) {
		mode_t old = umask(0177);

		ret = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
		umask(old);
		if (!ret && listen(fd, QMP_MAX_CLIENTS)) {
			ret = -errno;
			unlink(a->path);
		}
	} else if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		ret = -errno;
	}
	if (ret) {
		close(fd);
		return err_set(err, -ret, "-qmp unix:%s: cannot %s it: %s", a->path, verb,
			       strerror(-ret));
	}
	*out = fd;
	return 0;
}

static int tcp_open(const struct qmp_addr *a, int *out, struct err *err)
{
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM,
				.ai_flags = a->server ? AI_PASSIVE : 0},
			*ai;
	const char *verb = a->server ? "listen" : "connect";
	int fd, one = 1, ret;
	uint64_t port;

	if (!parse_u64(a->port, &port) && port > 65535) { /* which the resolver cuts to 16 bits */
		return err_set(err, EINVAL, "-qmp tcp:%s:%s: a port is at most 65535", a->host, a->port);
	}
	ret = getaddrinfo(*a->host ? a->host : NULL, a->port, &hint, &ai);
	if (ret) {
		return err_set(err, EINVAL, "-qmp tcp:%s:%s: %s", a->host, a->port,
			       gai_strerror(ret));
	}
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret = fd < 0 ? -errno : 0;
	if (!ret && a->server) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, QMP_MAX_CLIENTS)) {
			ret = -errno;
		}
	} else if (!ret && connect(fd, ai->ai_addr, ai->ai_addrlen)) {
		ret = -errno;
	}
	freeaddrinfo(ai);
	if (!ret && fcntl(fd, F_SETFL, O_NONBLOCK)) {
		ret = -errno;
	}
	if (ret) {
		if (fd >= 0) {
			close(fd);
		}
		return err_set(err, -ret, "-qmp tcp:%s:%s: cannot %s: %s", a->host, a->port, verb,
			       strerror(-ret));
	}
	*out = fd;
	return 0;
}

/* --- life --- */

static int listener_open(struct qmp_server *s, struct qmp_listener *l, const char *text,
			 struct err *err)
{
	struct qmp_addr a;
	int fd = -1, ret = addr_parse(text, &a, err);

	*l = (struct qmp_listener){.server = s, .fd = -1};
	if (ret) {
		return ret;
	}
	if (a.stdio) {
		/* Duplicates, so that closing them leaves 0 and 1 in place. */
		int in = fcntl(0, F_DUPFD_CLOEXEC, 3), outfd = fcntl(1, F_DUPFD_CLOEXEC, 3);

		ret = in < 0 || outfd < 0 ? -EBADF : qmp_client_new(s, l, in, outfd);
		if (ret) {
			close(in);
			close(outfd);
			return ret == -EPERM
				       ? err_set(err, EPERM, "-qmp stdio: standard input is a file or "
						 "/dev/null; give it a terminal, a pipe or a socket")
				       : err_set(err, -ret, "-qmp stdio: standard input or output cannot "
						 "be used: %s", strerror(-ret));
		}
		l->connected_once = true;
		return 0;
	}
	ret = a.tcp ? tcp_open(&a, &fd, err) : unix_open(&a, &fd, err);
	if (ret) {
		return ret;
	}
	if (!a.server) {
		l->connected_once = true;
		ret = qmp_client_new(s, l, fd, fd);
		if (ret) {
			close(fd);
			return err_set(err, -ret, "-qmp %s: %s", text, strerror(-ret));
		}
		return 0;
	}
	l->fd = fd;
	l->wait = a.wait;
	if (!a.tcp) {
		l->path = strdup(a.path);
		if (!l->path) {
			return err_set(err, ENOMEM, "-qmp %s: out of memory", text);
		}
	}
	return 0;
}

int qmp_new(struct loop *loop, const struct vm_config *cfg, struct qmp_server **out,
	    struct err *err)
{
	struct qmp_server *s = calloc(1, sizeof(*s));
	int ret = 0;

	if (!s) {
		return err_set(err, ENOMEM, "-qmp: out of memory");
	}
	s->loop = loop;
	list_init(&s->clients);
	s->reap = (struct loop_work){.fn = reap, .arg = s};
	s->listener = calloc(cfg->nqmp ? cfg->nqmp : 1, sizeof(*s->listener));
	if (!s->listener) {
		ret = err_set(err, ENOMEM, "-qmp: out of memory");
	}
	for (size_t i = 0; !ret && i < cfg->nqmp; i++) {
		s->nlisteners++;
		ret = listener_open(s, &s->listener[i], cfg->qmp[i], err);
	}
	if (ret) {
		for (unsigned i = 0; i < s->nlisteners; i++) {
			if (s->listener[i].path) {
				unlink(s->listener[i].path); /* not isolated yet, nothing stays behind */
			}
		}
		qmp_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

void qmp_start(struct qmp_server *s, struct machine *m)
{
	s->m = m;
	s->events = (struct machine_listener){.event = machine_event, .block_error = block_error, .opaque = s};
	machine_listen(m, &s->events);
	s->started = true;
	for (unsigned i = 0; i < s->nlisteners; i++) {
		struct qmp_listener *l = &s->listener[i];

		if (l->fd >= 0) {
			loop_fd_add(s->loop, &l->watch, l->fd, EPOLLIN, incoming, l);
		}
	}
}

bool qmp_waits(const struct qmp_server *s)
{
	for (unsigned i = 0; i < s->nlisteners; i++) {
		if (s->listener[i].wait && !s->listener[i].connected_once) {
			return true;
		}
	}
	return false;
}

const char *qmp_socket_path(const struct qmp_server *s, unsigned i)
{
	for (unsigned k = 0; k < s->nlisteners; k++) {
		if (s->listener[k].path && !i--) {
			return s->listener[k].path;
		}
	}
	return NULL;
}

void qmp_free(struct qmp_server *s)
{
	struct list *p, *tmp;

	if (!s) {
		return;
	}
	if (s->started) {
		machine_unlisten(&s->events);
	}
	list_for_each_safe(p, tmp, &s->clients) {
		struct qmp_client *c = list_entry(p, struct qmp_client, node);

		qmp_client_flush(c);
		qmp_client_free(c);
	}
	for (unsigned i = 0; i < s->nlisteners; i++) {
		struct qmp_listener *l = &s->listener[i];

		loop_fd_del(&l->watch);
		if (l->fd >= 0) {
			close(l->fd);
		}
		free(l->path);
	}
	free(s->listener);
	free(s);
}
