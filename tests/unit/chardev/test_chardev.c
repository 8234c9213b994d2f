/*
 * Every kind of character back end: data both ways, peers that come, go, flood and never read,
 * input that is a file or nothing, sockets that were left behind, refusals.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "chardev/chr.h"

struct dev {
	struct loop *l;
	struct chr *c;
	char dir[64], path[96];
	uint8_t got[1 << 16];
	size_t ngot, room;
	unsigned opened, closed, tx_ready, room_asked;
};

static size_t dev_room(void *opaque)
{
	struct dev *d = opaque;

	d->room_asked++;
	return MIN(d->room, sizeof(d->got) - d->ngot);
}

static void dev_rx(void *opaque, const uint8_t *buf, size_t len)
{
	struct dev *d = opaque;

	assert_true(len > 0 && len <= d->room);
	memcpy(d->got + d->ngot, buf, len);
	d->ngot += len;
	d->room -= len;
}

static void dev_tx_ready(void *opaque)
{
	((struct dev *)opaque)->tx_ready++;
}

static void dev_event(void *opaque, enum chr_event ev)
{
	struct dev *d = opaque;

	d->opened += ev == CHR_OPENED;
	d->closed += ev == CHR_CLOSED;
}

static void dev_attach(struct dev *d)
{
	struct err err = {.msg = ""};
	struct chr_client client = {
		.rx_room = dev_room,
		.rx = dev_rx,
		.tx_ready = dev_tx_ready,
		.event = dev_event,
		.opaque = d,
	};

	assert_int_equal(chr_attach(d->c, &client, &err), 0);
	assert_int_equal(chr_attach(d->c, &client, &err), -EBUSY);
	assert_non_null(strstr(err.msg, chr_id(d->c)));
}

static int dev_try(struct dev *d, const char *options, struct err *err)
{
	struct opts o;
	int ret;

	assert_int_equal(opts_parse(&o, "-chardev", options, "backend", err), 0);
	ret = chr_open(d->l, &o, &d->c, err);
	opts_fini(&o);
	return ret;
}

static struct dev *dev_bare(void)
{
	struct dev *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	assert_int_equal(loop_new(&d->l, "t", LOOP_VIRTUAL), 0);
	strcpy(d->dir, "/tmp/nemu-chr-XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->path, sizeof(d->path), "%s/s", d->dir);
	d->room = sizeof(d->got);
	return d;
}

/* %s in the options is the path of a file in a directory of our own. */
static struct dev *dev_new(const char *format)
{
	struct dev *d = dev_bare();
	struct err err = {.msg = ""};
	const char *mark = strstr(format, "%s");
	char options[256];

	snprintf(options, sizeof(options), "%.*s%s%s", mark ? (int)(mark - format) : 200,
		 format, mark ? d->path : "", mark ? mark + 2 : "");
	assert_int_equal(dev_try(d, options, &err), 0);
	dev_attach(d);
	return d;
}

static void dev_free(struct dev *d)
{
	chr_close(d->c);
	loop_step(d->l, 0); /* nothing of it may be left there */
	unlink(d->path);
	assert_int_equal(rmdir(d->dir), 0);
	loop_free(d->l);
	free(d);
}

static void run(struct dev *d)
{
	for (int i = 0; i < 20; i++) {
		loop_step(d->l, 0);
	}
}

static int peer(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* A terminal's bytes take their time. */
static void run_until_got(struct dev *d, size_t n)
{
	for (int i = 0; i < 5000 && d->ngot < n; i++) {
		run(d);
		usleep(d->ngot < n ? 1000 : 0);
	}
	run(d);
}

static void check_got(struct dev *d, const char *text)
{
	run_until_got(d, strlen(text));
	assert_int_equal(d->ngot, strlen(text));
	assert_memory_equal(d->got, text, d->ngot);
	d->ngot = 0;
}

static void check_read(int fd, const char *text)
{
	char buf[256];
	ssize_t n = -1;

	for (int i = 0; i < 5000 && n < 0; i++) {
		n = read(fd, buf, sizeof(buf));
		usleep(n < 0 ? 1000 : 0);
	}
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, strlen(text));
}

static size_t put(struct dev *d, const char *text)
{
	return chr_write(d->c, (const uint8_t *)text, strlen(text));
}

/* --- sockets --- */

static void test_socket_server(void **state)
{
	struct dev *d = dev_new("socket,id=c0,path=%s,server=on,wait=off");
	char text[256];
	struct stat st;
	int fd, next;

	assert_int_equal(stat(d->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_string_equal(chr_socket_path(d->c), d->path);
	assert_false(chr_connected(d->c));
	chr_describe(d->c, text, sizeof(text));
	assert_non_null(strstr(text, "disconnected:unix:"));
	assert_int_equal(put(d, "nobody"), 6);
	for (int i = 0; i < 3; i++) {
		fd = peer(d->path);
		run(d);
		assert_true(chr_connected(d->c));
		assert_int_equal(d->opened, i + 1);
		assert_int_equal(write(fd, "in", 2), 2);
		check_got(d, "in");
		assert_int_equal(put(d, "out"), 3);
		check_read(fd, "out");
		/* one at a time: the next one waits */
		next = peer(d->path);
		assert_int_equal(write(next, "me too", 6), 6);
		run(d);
		assert_int_equal(d->ngot, 0);
		assert_int_equal(write(fd, "bye", 3), 3);
		close(fd);
		run(d);
		assert_memory_equal(d->got, "byeme too", 9);
		assert_int_equal(d->closed, 2 * i + 1);
		d->ngot = 0;
		close(next);
		run(d);
		assert_false(chr_connected(d->c));
		d->opened = i + 1;
		d->closed = 2 * i + 2;
	}
	dev_free(d);
	(void)state;
}

static void test_socket_flood_and_room(void **state)
{
	struct dev *d = dev_new("socket,id=c0,path=%s,server=on,wait=off");
	static char big[200000];
	int fd = peer(d->path);
	ssize_t sent = 0, n;
	unsigned asked;

	d->room = 10;
	run(d);
	memset(big, 'x', sizeof(big));
	while ((n = write(fd, big, sizeof(big))) > 0) {
		sent += n;
	}
	run(d);
	assert_int_equal(d->ngot, 10); /* no more than there is room for */
	asked = d->room_asked;
	run(d);
	assert_int_equal(d->room_asked, asked); /* and no busy waiting */
	d->room = 5000;
	chr_rx_room(d->c);
	run(d);
	assert_int_equal(d->ngot, 5010);
	assert_true(sent > 5010);
	/* the peer goes with the room full: gone, and the next one gets in */
	close(fd);
	run(d);
	assert_false(chr_connected(d->c));
	d->ngot = 0;
	d->room = 100;
	fd = peer(d->path);
	assert_int_equal(write(fd, "next", 4), 4);
	check_got(d, "next");
	close(fd);
	dev_free(d);
	(void)state;
}

static void test_socket_never_reads(void **state)
{
	struct dev *d = dev_new("socket,id=c0,path=%s,server=on,wait=off");
	static uint8_t chunk[65536], back[65536];
	int fd = peer(d->path);
	size_t taken = 0, n, got = 0;
	ssize_t r;

	run(d);
	for (size_t i = 0; i < sizeof(chunk); i++) {
		chunk[i] = (uint8_t)i;
	}
	do {
		n = chr_write(d->c, chunk + taken % 65536, 65536 - taken % 65536);
		taken += n;
		assert_true(taken < 100u << 20);
	} while (taken % 65536 == 0);
	run(d);
	assert_int_equal(d->tx_ready, 0);
	while ((r = read(fd, back, sizeof(back))) > 0) {
		for (ssize_t i = 0; i < r; i++) {
			assert_int_equal(back[i], (uint8_t)(got + (size_t)i));
		}
		got += (size_t)r;
	}
	assert_int_equal(got, taken);
	run(d);
	assert_int_equal(d->tx_ready, 1);
	run(d);
	assert_int_equal(d->tx_ready, 1);
	/* it goes while we wait for it: told, and everything is taken from then on */
	while (chr_write(d->c, chunk, sizeof(chunk)) == sizeof(chunk)) {
	}
	close(fd);
	run(d);
	assert_int_equal(d->tx_ready, 2);
	assert_int_equal(chr_write(d->c, chunk, sizeof(chunk)), sizeof(chunk));
	dev_free(d);
	(void)state;
}

static void test_socket_left_behind(void **state)
{
	struct dev *d = dev_new("socket,id=c0,path=%s,server=on,wait=off"), *e = dev_bare();
	struct err err = {.msg = ""};
	char options[256];
	int fd, fds[3];

	/* somebody listens */
	snprintf(options, sizeof(options), "socket,id=c1,path=%s,server=on,wait=off", d->path);
	assert_int_equal(dev_try(e, options, &err), -EADDRINUSE);
	assert_int_equal(access(d->path, F_OK), 0);
	/* even if it is too busy to answer */
	for (int i = 0; i < 3; i++) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};

		strcpy(sa.sun_path, d->path);
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fds[i], (struct sockaddr *)&sa, sizeof(sa));
	}
	assert_int_equal(dev_try(e, options, &err), -EADDRINUSE);
	for (int i = 0; i < 3; i++) {
		close(fds[i]);
	}
	/* nobody any more */
	chr_close(d->c);
	d->c = NULL;
	assert_int_equal(access(d->path, F_OK), 0);
	assert_int_equal(dev_try(e, options, &err), 0);
	dev_attach(e);
	fd = peer(d->path);
	run(e);
	assert_true(chr_connected(e->c));
	close(fd);
	chr_close(e->c);
	e->c = NULL;
	unlink(d->path);
	/* a file is not removed */
	fd = open(d->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(dev_try(e, options, &err), -EEXIST);
	assert_int_equal(access(d->path, F_OK), 0);
	dev_free(e);
	dev_free(d);
	(void)state;
}

static void test_socket_client(void **state)
{
	struct dev *server = dev_new("socket,id=c0,path=%s,server=on,wait=off"),
		   *d = dev_bare();
	struct err err = {.msg = ""};
	char options[256];

	snprintf(options, sizeof(options), "socket,id=c0,path=%s", server->path);
	assert_int_equal(dev_try(d, options, &err), 0);
	dev_attach(d);
	assert_true(chr_connected(d->c));
	assert_null(chr_socket_path(d->c));
	run(server);
	put(server, "there");
	check_got(d, "there");
	put(d, "here");
	check_got(server, "here");
	chr_close(server->c);
	server->c = NULL;
	run(d);
	assert_int_equal(d->closed, 1);
	assert_int_equal(put(d, "nobody"), 6);
	chr_close(d->c);
	d->c = NULL;
	assert_int_equal(dev_try(d, options, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.msg, server->path));
	dev_free(server);
	dev_free(d);
	(void)state;
}

static int connect_again(void *arg, const char *path, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	++*(unsigned *)arg;
	strcpy(sa.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return err_set(err, ECONNREFUSED, "nobody");
	}
	return fd;
}

/* A client with reconnect=: no peer at the start is fine, and every peer that goes may come back. */
static void test_socket_reconnect(void **state)
{
	struct dev *d = dev_bare(), *server;
	unsigned tried = 0;
	struct rights rights = {.connect = connect_again, .arg = &tried};
	struct err err = {.msg = ""};
	char options[256];

	snprintf(options, sizeof(options), "socket,id=c0,path=%s,reconnect=3", d->path);
	assert_int_equal(dev_try(d, options, &err), 0);
	dev_attach(d);
	assert_string_equal(chr_peer_path(d->c), d->path);
	assert_null(chr_socket_path(d->c));
	assert_false(chr_connected(d->c));
	assert_int_equal(put(d, "nobody"), 6);
	/* nobody who could */
	loop_clock_advance(d->l, 4000 * UINT64_C(1000000));
	assert_false(chr_connected(d->c));
	chr_set_rights(d->c, &rights);
	loop_clock_advance(d->l, 4000 * UINT64_C(1000000));
	assert_int_equal(tried, 1);
	for (unsigned i = 1; i <= 3; i++) {
		server = dev_bare();
		snprintf(options, sizeof(options), "socket,id=s,path=%s,server=on,wait=off", d->path);
		assert_int_equal(dev_try(server, options, &err), 0);
		dev_attach(server);
		loop_clock_advance(d->l, 4000 * UINT64_C(1000000));
		run(d);
		assert_true(chr_connected(d->c));
		assert_int_equal(d->opened, i);
		run(server);
		put(server, "in");
		check_got(d, "in");
		put(d, "out");
		check_got(server, "out");
		dev_free(server);
		run(d);
		assert_false(chr_connected(d->c));
		assert_int_equal(d->closed, i);
	}
	assert_int_equal(tried, 4);
	dev_free(d);
	/* there at the start */
	server = dev_new("socket,id=c0,path=%s,server=on,wait=off");
	d = dev_bare();
	snprintf(options, sizeof(options), "socket,id=c0,path=%s,reconnect=1", server->path);
	assert_int_equal(dev_try(d, options, &err), 0);
	assert_true(chr_connected(d->c));
	dev_free(d);
	dev_free(server);
	(void)state;
}

static void test_tcp(void **state)
{
	struct dev *server = dev_bare(), *client = dev_bare();
	struct err err = {.msg = ""};
	char options[128];
	int port = 0;

	for (int i = 0; i < 50 && !port; i++) {
		int p = 20000 + (int)((unsigned)getpid() * 7 + (unsigned)i * 131) % 20000;

		snprintf(options, sizeof(options),
			 "socket,id=c0,host=localhost,port=%d,server=on,wait=off,nodelay=on",
			 p);
		port = dev_try(server, options, &err) ? 0 : p;
	}
	assert_int_not_equal(port, 0);
	dev_attach(server);
	snprintf(options, sizeof(options), "tcp:localhost:%d,nodelay=on", port);
	assert_int_equal(chr_open_legacy(client->l, "c0", options, &client->c, &err), 0);
	dev_attach(client);
	run(server);
	put(client, "ping");
	check_got(server, "ping");
	put(server, "pong");
	check_got(client, "pong");
	dev_free(client);
	dev_free(server);
	(void)state;
}

/* --- pty, file, null --- */

static void test_pty_reconnect(void **state)
{
	struct dev *d = dev_new("pty,id=c0");
	char text[256];
	struct termios t;
	int fd;

	chr_describe(d->c, text, sizeof(text));
	assert_memory_equal(text, "pty:/dev/pts/", 13);
	for (int i = 0; i < 3; i++) {
		loop_clock_advance(d->l, 600 * UINT64_C(1000000));
		run(d);
		assert_false(chr_connected(d->c));
		assert_int_equal(put(d, "lost"), 4);
		fd = open(text + 4, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
		assert_true(fd >= 0);
		loop_clock_advance(d->l, 600 * UINT64_C(1000000));
		run(d);
		assert_true(chr_connected(d->c));
		assert_int_equal(d->opened, i + 1);
		assert_int_equal(tcgetattr(fd, &t), 0);
		assert_int_equal(t.c_lflag & (tcflag_t)(ECHO | ICANON | ISIG), 0);
		assert_int_equal(write(fd, "a\rb\003", 4), 4);
		check_got(d, "a\rb\003");
		put(d, "x\ny");
		check_read(fd, "x\ny");
		close(fd);
		run(d);
		assert_int_equal(d->closed, i + 1);
	}
	dev_free(d);
	(void)state;
}

static void test_file(void **state)
{
	struct dev *d = dev_new("file,id=c0,path=%s");
	struct err err = {.msg = ""};
	char options[256], buf[64];
	struct stat st;
	int fd;

	assert_true(chr_connected(d->c));
	assert_int_equal(put(d, "one\n"), 4);
	chr_close(d->c);
	assert_int_equal(stat(d->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	snprintf(options, sizeof(options), "file,id=c0,path=%s,append=on", d->path);
	assert_int_equal(dev_try(d, options, &err), 0);
	dev_attach(d);
	put(d, "two\n");
	run(d);
	fd = open(d->path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, buf, sizeof(buf)), 8);
	assert_memory_equal(buf, "one\ntwo\n", 8);
	close(fd);
	chr_close(d->c);
	/* a FIFO without a reader does not stop us, and one that is full neither */
	unlink(d->path);
	assert_int_equal(mkfifo(d->path, 0600), 0);
	assert_int_equal(dev_try(d, options, &err), -ENXIO);
	fd = open(d->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_int_equal(dev_try(d, options, &err), 0);
	dev_attach(d);
	while (chr_write(d->c, d->got, 4096) == 4096) {
	}
	run(d);
	assert_int_equal(d->tx_ready, 0);
	assert_int_equal(read(fd, d->got, 32768), 32768);
	run(d);
	assert_int_equal(d->tx_ready, 1);
	close(fd);
	dev_free(d);
	(void)state;
}

static void test_null(void **state)
{
	struct dev *d = dev_new("null,id=c0");

	assert_int_equal(d->opened, 1);
	assert_int_equal(put(d, "anything"), 8);
	chr_rx_room(d->c);
	run(d);
	assert_int_equal(d->ngot, 0);
	dev_free(d);
	(void)state;
}

/* --- standard input and output --- */

struct stdio_case {
	int in, out; /* become 0 and 1 for a while */
	int saved[2];
};

static void stdio_swap(struct stdio_case *s)
{
	fflush(stdout);
	s->saved[0] = dup(0);
	s->saved[1] = dup(1);
	dup2(s->in, 0);
	dup2(s->out, 1);
}

static void stdio_back(struct stdio_case *s)
{
	dup2(s->saved[0], 0);
	dup2(s->saved[1], 1);
	close(s->saved[0]);
	close(s->saved[1]);
}

static void test_stdio_pipes(void **state)
{
	struct stdio_case s;
	struct dev *d;
	int in[2], out[2];
	uint8_t got[64];
	size_t ngot, tx;

	assert_int_equal(pipe(in) | pipe(out), 0);
	s = (struct stdio_case){.in = in[0], .out = out[1]};
	stdio_swap(&s);
	d = dev_new("stdio,id=c0");
	/* all is written and the writer gone before the device has any room */
	d->room = 0;
	run(d);
	if (write(in[1], "login\nuname\n", 12) < 0) {
		d->room = 1;
	}
	close(in[1]);
	run(d);
	for (int i = 0; i < 12; i++) {
		d->room = 1;
		chr_rx_room(d->c);
		run(d);
	}
	ngot = d->ngot;
	memcpy(got, d->got, sizeof(got));
	/* output goes on after the end of input, and after its own end */
	tx = put(d, "still");
	close(out[1]);
	dev_free(d);
	stdio_back(&s);
	check_read(out[0], "still");
	assert_int_equal(ngot, 12);
	assert_memory_equal(got, "login\nuname\n", 12);
	assert_int_equal(tx, 5);
	close(in[0]);
	close(out[0]);
	(void)state;
}

/* The reader of our output goes: no signal, no busy loop, input still works. */
static void test_stdio_reader_gone(void **state)
{
	struct stdio_case s;
	struct dev *d;
	int in[2], out[2];
	size_t tx, ngot;

	assert_int_equal(pipe(in) | pipe(out), 0);
	s = (struct stdio_case){.in = in[0], .out = out[1]};
	stdio_swap(&s);
	close(out[1]);
	d = dev_new("stdio,id=c0");
	run(d);
	close(out[0]);
	run(d);
	tx = put(d, "to nobody");
	if (write(in[1], "in", 2) == 2) {
		run(d);
	}
	ngot = d->ngot;
	dev_free(d);
	stdio_back(&s);
	assert_int_equal(tx, 9);
	assert_int_equal(ngot, 2);
	close(in[0]);
	close(in[1]);
	(void)state;
}

static void stdio_from(const char *path, const char *expect)
{
	struct stdio_case s = {.in = open(path, O_RDONLY | O_CLOEXEC),
			       .out = open("/dev/null", O_WRONLY | O_CLOEXEC)};
	struct dev *d;
	uint8_t got[64];
	size_t ngot, tx;
	unsigned asked, later;
	int flags = fcntl(s.in, F_GETFL);

	assert_true(s.in >= 0);
	stdio_swap(&s);
	d = dev_new("stdio,id=c0");
	d->room = 3;
	run(d);
	d->room = 1000;
	chr_rx_room(d->c);
	run(d);
	ngot = d->ngot;
	memcpy(got, d->got, sizeof(got));
	asked = d->room_asked;
	run(d);
	later = d->room_asked;
	tx = put(d, "out");
	dev_free(d);
	stdio_back(&s);
	assert_int_equal(ngot, strlen(expect));
	assert_memory_equal(got, expect, ngot);
	assert_int_equal(asked, later); /* the end is the end */
	assert_int_equal(tx, 3);
	assert_int_equal(fcntl(s.in, F_GETFL), flags);
	close(s.in);
	close(s.out);
}

static void test_stdio_file_and_null(void **state)
{
	char path[] = "/tmp/nemu-chr-in-XXXXXX";
	int fd = mkstemp(path);

	assert_int_equal(write(fd, "from a file", 11), 11);
	close(fd);
	stdio_from(path, "from a file");
	unlink(path);
	stdio_from("/dev/null", "");
	(void)state;
}

/* A terminal is raw while we have it and as before afterwards. */
static void test_stdio_terminal(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;
	struct termios before, during, after;
	struct stdio_case s;
	struct dev *d;
	size_t ngot;
	char name[64];

	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	assert_int_equal(ptsname_r(master, name, sizeof(name)), 0);
	slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_int_equal(tcgetattr(slave, &before), 0);
	s = (struct stdio_case){.in = slave, .out = slave};
	stdio_swap(&s);
	d = dev_new("stdio,id=c0,signal=off");
	tcgetattr(slave, &during);
	if (write(master, "k", 1) == 1) {
		run_until_got(d, 1);
	}
	ngot = d->ngot;
	put(d, "tty");
	dev_free(d);
	stdio_back(&s);
	tcgetattr(slave, &after);
	assert_int_equal(during.c_lflag & (tcflag_t)(ECHO | ICANON | ISIG), 0);
	assert_true(during.c_oflag == before.c_oflag);
	assert_int_equal(ngot, 1);
	check_read(master, "tty");
	assert_int_equal(after.c_lflag, before.c_lflag);
	assert_int_equal(after.c_iflag, before.c_iflag);
	assert_int_equal(fcntl(slave, F_GETFL) & O_NONBLOCK, 0);
	close(slave);
	close(master);
	(void)state;
}

/* --- refusals and forms --- */

static void test_refusals(void **state)
{
	static const struct {
		const char *options, *names;
	} bad[] = {
		{"spice,id=c0", "'spice'"},
		{"null", "id"},
		{"null,id=c0,colour=red", "colour"},
		{"null,id=c0,mux=on", "mux"},
		{"file,id=c0", "path"},
		{"file,id=c0,path=/nonexistent/x", "/nonexistent/x"},
		{"socket,id=c0", "path"},
		{"socket,id=c0,path=/tmp/x,port=1", "path"},
		{"socket,id=c0,path=/tmp/x,host=h", "host"},
		{"socket,id=c0,path=/tmp/x,nodelay=on", "nodelay"},
		{"socket,id=c0,path=/tmp/x,server=on,reconnect=1", "reconnect=1"},
		{"socket,id=c0,host=localhost,port=1,reconnect=1", "reconnect=1"},
		{"socket,id=c0,path=/tmp/x,reconnect=-1", "reconnect"},
		{"ringbuf,id=c0", "'ringbuf'"},
		{"mux,id=c0", "'mux'"},
		{"socket,id=c0,path=/nonexistent/x", "/nonexistent/x"},
		{"socket,id=c0,path=/nonexistent/x,server=on,wait=off", "/nonexistent/x"},
		{"socket,id=c0,host=localhost,port=notaport", "notaport"},
		{"socket,id=c0,host=localhost,port=1", "localhost"},
		{"socket,id=c0,path="
		 "/tmp/"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		 "aaaa"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		 "too long"},
		{"pty,id="
		 "0123456789012345678901234567890123456789012345678901234567890123456789",
		 "longer"},
	};
	struct dev *d = dev_bare();
	struct err err = {.msg = ""};
	struct chr *c;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err.msg[0] = 0;
		assert_true(dev_try(d, bad[i].options, &err) < 0);
		if (!strstr(err.msg, bad[i].names)) {
			fail_msg("%s: '%s'", bad[i].options, err.msg);
		}
	}
	d->c = NULL;
	for (const char *const *t = (const char *const[]){"vc", "nulll", "tcp:5", "telnet:h:1",
							  "", "unix:", NULL};
	     *t; t++) {
		err.msg[0] = 0;
		assert_true(chr_open_legacy(d->l, "serial0", *t, &c, &err) < 0);
		assert_non_null(strstr(err.msg, "-"));
	}
	dev_free(d);
	(void)state;
}

static void test_legacy_forms(void **state)
{
	struct dev *d = dev_bare();
	struct err err = {.msg = ""};
	char text[160], shown[256];
	int fd;

	snprintf(text, sizeof(text), "file:%s", d->path);
	assert_int_equal(chr_open_legacy(d->l, "serial0", text, &d->c, &err), 0);
	assert_string_equal(chr_id(d->c), "serial0");
	chr_describe(d->c, shown, sizeof(shown));
	assert_string_equal(shown, text);
	chr_close(d->c);
	unlink(d->path);
	snprintf(text, sizeof(text), "unix:%s,server=on,wait=off", d->path);
	assert_int_equal(chr_open_legacy(d->l, "serial0", text, &d->c, &err), 0);
	fd = peer(d->path);
	run(d);
	assert_true(chr_connected(d->c));
	close(fd);
	chr_close(d->c);
	assert_int_equal(chr_open_legacy(d->l, "serial0", "pty", &d->c, &err), 0);
	chr_close(d->c);
	assert_int_equal(chr_open_legacy(d->l, "serial0", "null", &d->c, &err), 0);
	dev_free(d);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_socket_server),
		cmocka_unit_test(test_socket_flood_and_room),
		cmocka_unit_test(test_socket_never_reads),
		cmocka_unit_test(test_socket_left_behind),
		cmocka_unit_test(test_socket_client),
		cmocka_unit_test(test_socket_reconnect),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_pty_reconnect),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_stdio_pipes),
		cmocka_unit_test(test_stdio_reader_gone),
		cmocka_unit_test(test_stdio_file_and_null),
		cmocka_unit_test(test_stdio_terminal),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_legacy_forms),
	};

	signal(SIGPIPE, SIG_IGN); /* as the program does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
