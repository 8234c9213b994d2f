/*
 * Frames over a stream socket: both ways in any pieces, a peer that never reads, floods, lies
 * about lengths, goes and comes back; refusals.
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
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "base/wire.h"
#include "net/frames.h"
#include "net/net_int.h"

#define HDR NET_HDR_LEN
#define SEC UINT64_C(1000000000)

struct rig {
	struct loop *l;
	struct net_port *p;
	char dir[64], path[96];
	int server, peer;
	struct rights rights;
	unsigned connects, rx_ready, tx_ready, up, down;
	/* what a device has received */
	uint8_t *in;
	size_t in_len[4096];
	unsigned count, burst;
	uint8_t last[FRAMES_MAX + HDR + 1];
	bool take; /* on rx_ready */
};

static void listen_at(struct rig *r)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	strcpy(sa.sun_path, r->path);
	r->server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(r->server, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(r->server, 5), 0);
}

static int again(void *arg, const char *path, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct rig *r = arg;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	r->connects++;
	assert_string_equal(path, r->path);
	strcpy(sa.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return err_set(err, ECONNREFUSED, "nobody there");
	}
	return fd;
}

static void on_rx(void *opaque)
{
	struct rig *r = opaque;

	r->rx_ready++;
	for (unsigned i = 0; r->take && i < r->burst; i++) {
		struct iovec iov[] = {{r->last, HDR}, {r->last + HDR, sizeof(r->last) - HDR}};
		ssize_t n = r->p->ops->recv(r->p, iov, 2);

		if (n == -EAGAIN) {
			return;
		}
		assert_true(n > (ssize_t)HDR);
		r->in_len[r->count++ % 4096] = (size_t)n - HDR;
	}
}

static void on_tx(void *opaque)
{
	struct rig *r = opaque;

	r->tx_ready++;
	r->p->ops->tx_poll(r->p, false);
}

static void on_link(void *opaque, bool up)
{
	struct rig *r = opaque;

	r->up += up;
	r->down += !up;
}

static int try_open(struct rig *r, const char *options, struct err *err)
{
	struct net_env env = {.loop = r->l, .rights = &r->rights};
	struct opts o;
	int ret = opts_parse_lists(&o, "-netdev", options, "type", net_list_keys, err);

	assert_int_equal(ret, 0);
	ret = net_open(&o, &env, &r->p, err);
	opts_fini(&o);
	return ret;
}

static struct rig *rig_bare(void)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->server = r->peer = -1;
	r->take = true;
	r->burst = 64;
	r->rights = (struct rights){.connect = again, .arg = r};
	assert_int_equal(loop_new(&r->l, "t", LOOP_VIRTUAL), 0);
	strcpy(r->dir, "/tmp/nemu-stream-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/s", r->dir);
	return r;
}

static void peer_accept(struct rig *r)
{
	r->peer = accept4(r->server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(r->peer >= 0);
}

static void attach(struct rig *r)
{
	const struct net_client c = {
		.rx_ready = on_rx, .tx_ready = on_tx, .opaque = r, .link = on_link};

	assert_int_equal(r->p->ops->attach(r->p, r->l, &c), 0);
	r->p->ops->rx_enable(r->p, true);
}

static struct rig *rig_new(const char *more)
{
	struct rig *r = rig_bare();
	struct err err = {.msg = ""};
	char options[256];

	listen_at(r);
	snprintf(options, sizeof(options), "stream,id=n0,addr.type=unix,addr.path=%s%s",
		 r->path, more);
	if (try_open(r, options, &err)) {
		fail_msg("%s", err.msg);
	}
	peer_accept(r);
	attach(r);
	assert_int_equal(r->down, 0);
	return r;
}

static void rig_free(struct rig *r)
{
	if (r->p) {
		r->p->ops->detach(r->p);
		r->p->ops->close(r->p);
	}
	loop_step(r->l, 0);
	if (r->peer >= 0) {
		close(r->peer);
	}
	if (r->server >= 0) {
		close(r->server);
	}
	unlink(r->path);
	assert_int_equal(rmdir(r->dir), 0);
	loop_free(r->l);
	free(r);
}

static void run(struct rig *r)
{
	for (int i = 0; i < 200; i++) {
		loop_step(r->l, 0);
	}
}

static size_t frame_put(uint8_t *to, size_t len, uint8_t seed)
{
	be32 prefix = be32_of((uint32_t)len);

	memcpy(to, &prefix, 4);
	for (size_t i = 0; i < len; i++) {
		to[4 + i] = (uint8_t)(seed + i * 7);
	}
	return 4 + len;
}

static void check_frame(const uint8_t *f, size_t len, uint8_t seed)
{
	for (size_t i = 0; i < len; i++) {
		if (f[i] != (uint8_t)(seed + i * 7)) {
			fail_msg("byte %zu of %zu", i, len);
		}
	}
}

static ssize_t send_frame(struct rig *r, size_t len, uint8_t seed)
{
	static uint8_t buf[HDR + 4 + FRAMES_MAX + 1];
	struct iovec iov[3] = {{buf, HDR}};

	frame_put(buf + HDR - 4, len, seed); /* its prefix is where the header's end is */
	memset(buf, 0, HDR);
	iov[1] = (struct iovec){buf + HDR, len / 3};
	iov[2] = (struct iovec){buf + HDR + len / 3, len - len / 3};
	return r->p->ops->send(r->p, iov, 3);
}

/* --- */

static void test_both_ways(void **state)
{
	static const size_t sizes[] = {14, 60, 1514, 9000, FRAMES_MAX};
	static uint8_t wire[4 * 5 + 14 + 60 + 1514 + 9000 + FRAMES_MAX], back[sizeof(wire)];
	struct rig *r = rig_new("");
	size_t all = 0, got = 0;
	ssize_t n;

	assert_string_equal(r->p->ops->type, "stream");
	assert_int_equal(r->p->ops->offloads(r->p), 0);
	assert_int_equal(r->p->ops->set_offloads(r->p, 0), 0);
	assert_int_equal(r->p->ops->set_offloads(r->p, NET_OFF_CSUM), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		all += frame_put(wire + all, sizes[i], (uint8_t)i);
	}
	/* in one piece, and byte by byte around the prefixes */
	for (int round = 0; round < 2; round++) {
		r->count = 0;
		for (size_t at = 0; at < all;) {
			size_t piece = round && (at < 2000 || all - at < 40) ? 1 : all - at;

			n = write(r->peer, wire + at, piece);
			assert_true(n > 0 || errno == EAGAIN);
			at += n > 0 ? (size_t)n : 0;
			run(r);
		}
		assert_int_equal(r->count, ARRAY_SIZE(sizes));
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			assert_int_equal(r->in_len[i], sizes[i]);
		}
		check_frame(r->last + HDR, FRAMES_MAX, 4);
		for (unsigned i = 0; i < HDR; i++) {
			assert_int_equal(r->last[i], 0); /* no offload without being asked */
		}
	}
	/* the other way */
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(send_frame(r, sizes[i], (uint8_t)i), HDR + sizes[i]);
		run(r);
		while ((n = read(r->peer, back + got, sizeof(back) - got)) > 0) {
			got += (size_t)n;
			run(r);
		}
	}
	assert_int_equal(got, all);
	assert_memory_equal(back, wire, all);
	assert_int_equal(send_frame(r, FRAMES_MAX + 1, 0), -EMSGSIZE);
	assert_int_equal(send_frame(r, 0, 0), -EMSGSIZE);
	assert_int_equal(net_stream_dropped(r->p), 0);
	rig_free(r);
	(void)state;
}

/* Whoever takes some frames and comes back gets the others, without more from the peer. */
static void test_bursts_and_silence(void **state)
{
	static uint8_t wire[1000 * 64];
	struct rig *r = rig_new("");
	unsigned before;

	for (int i = 0; i < 1000; i++) {
		frame_put(wire + i * 64, 60, (uint8_t)i);
	}
	assert_int_equal(write(r->peer, wire, sizeof(wire)), sizeof(wire));
	run(r);
	assert_int_equal(r->count, 1000);
	check_frame(r->last + HDR, 60, (uint8_t)999);
	/* a device without buffers is left alone, and told when it wants to be */
	r->take = false;
	r->burst = 10;
	assert_int_equal(write(r->peer, wire, sizeof(wire)), sizeof(wire));
	r->take = true;
	loop_step(r->l, 0);
	r->p->ops->rx_enable(r->p, false);
	run(r);
	before = r->rx_ready;
	assert_in_range(r->count, 1010, 1999);
	run(r);
	assert_int_equal(r->rx_ready, before);
	r->p->ops->rx_enable(r->p, true);
	run(r);
	assert_int_equal(r->count, 2000);
	/* a frame larger than the buffers is dropped, the next one is whole */
	frame_put(wire, 3000, 1);
	frame_put(wire + 3004, 60, 2);
	r->take = false;
	assert_int_equal(write(r->peer, wire, 3068), 3068);
	loop_step(r->l, 0);
	assert_int_equal(r->p->ops->recv(r->p, (struct iovec[]){{r->last, 100}}, 1), -EMSGSIZE);
	assert_int_equal(r->p->ops->recv(r->p, (struct iovec[]){{r->last, 100}}, 1), HDR + 60);
	check_frame(r->last + HDR, 60, 2);
	rig_free(r);
	(void)state;
}

/* The peer gets whole frames only, in order; what it missed is counted. */
static void test_never_reads(void **state)
{
	struct frames f;
	struct rig *r = rig_new("");
	unsigned sent = 0, taken = 0, last = 0, gap = 0;
	const uint8_t *frame;
	size_t len, room;
	ssize_t n;
	int ret;

	while ((n = send_frame(r, 1514, (uint8_t)sent)) > 0) {
		sent++;
		assert_true(sent < 10000);
	}
	assert_int_equal(n, -EAGAIN);
	r->p->ops->tx_poll(r->p, true);
	run(r);
	assert_int_equal(r->tx_ready, 0);
	assert_int_equal(net_stream_dropped(r->p), 0);
	/* A second without progress: from then on frames are dropped, at once. */
	loop_clock_advance(r->l, SEC + 1);
	assert_int_equal(r->tx_ready, 1);
	for (unsigned i = 0; i < 100000; i++) {
		assert_int_equal(send_frame(r, 1514, 0xee), HDR + 1514);
	}
	assert_int_equal(net_stream_dropped(r->p), 100000);
	run(r);
	/* It reads again. */
	assert_int_equal(frames_init(&f), 0);
	for (int i = 0; i < 2000; i++) {
		void *to = frames_space(&f, &room);

		n = read(r->peer, to, room);
		if (n > 0) {
			frames_filled(&f, (size_t)n);
		}
		while ((ret = frames_next(&f, &frame, &len)) == 1) {
			assert_int_equal(len, 1514);
			check_frame(frame, len, (uint8_t)taken);
			taken++;
		}
		assert_int_equal(ret, 0);
		loop_step(r->l, 0);
	}
	assert_int_equal(taken, sent);
	assert_int_equal(send_frame(r, 100, 42), HDR + 100);
	n = read(r->peer, r->last, sizeof(r->last));
	assert_int_equal(n, 104);
	check_frame(r->last + 4, 100, 42);
	assert_int_equal(net_stream_dropped(r->p), 100000);
	/* A slow peer, one that makes progress, loses nothing. */
	while (send_frame(r, 60000, 1) > 0) {
	}
	for (int i = 0; i < 5; i++) {
		loop_clock_advance(r->l, SEC * 9 / 10);
		while (read(r->peer, r->last, sizeof(r->last)) > 0) {
		}
		run(r);
		while (send_frame(r, 60000, 1) > 0) {
		}
	}
	assert_int_equal(net_stream_dropped(r->p), 100000);
	/* gone in mid-frame with a frame waiting: whoever waits is told, and nothing waits after that */
	r->p->ops->tx_poll(r->p, true);
	last = r->tx_ready;
	close(r->peer);
	r->peer = -1;
	run(r);
	assert_int_equal(r->down, 1);
	assert_int_equal(r->tx_ready, last + 1);
	assert_int_equal(send_frame(r, 100, 0), HDR + 100);
	assert_int_equal(net_stream_dropped(r->p), 100001);
	frames_fini(&f);
	rig_free(r);
	(void)gap;
	(void)state;
}

/* A flood is read as fast as it is taken: what waits is in the socket, and that is bounded. */
static void test_flood(void **state)
{
	static uint8_t wire[1000 * 64];
	struct rig *r = rig_new("");
	size_t sent = 0;
	unsigned quiet;
	ssize_t n;

	for (int i = 0; i < 1000; i++) {
		frame_put(wire + i * 64, 60, (uint8_t)i);
	}
	r->p->ops->rx_enable(r->p, false);
	while ((n = write(r->peer, wire, sizeof(wire))) > 0) {
		sent += (size_t)n;
		run(r);
		assert_true(sent < 8u << 20);
	}
	quiet = r->rx_ready;
	run(r);
	assert_int_equal(r->rx_ready, quiet);
	assert_int_equal(r->count, 0);
	r->p->ops->rx_enable(r->p, true);
	run(r);
	assert_int_equal(r->count, sent / 64);
	rig_free(r);
	(void)state;
}

static void bad_length(uint32_t len)
{
	struct rig *r = rig_new(",reconnect=2");
	be32 prefix = be32_of(len);
	uint8_t good[64];

	frame_put(good, 60, 9);
	assert_int_equal(write(r->peer, good, 64), 64);
	assert_int_equal(write(r->peer, &prefix, 4), 4);
	assert_int_equal(write(r->peer, good, 64), 64);
	run(r);
	assert_int_equal(r->count, 1); /* what came before counts */
	assert_int_equal(r->down, 1);
	assert_true(recv(r->peer, good, 64, 0) <= 0);
	close(r->peer);
	r->peer = -1;
	assert_int_equal(r->connects, 0);
	loop_clock_advance(r->l, 2 * SEC + 1);
	run(r);
	assert_int_equal(r->connects, 1);
	assert_int_equal(r->up, 1);
	peer_accept(r);
	frame_put(good, 60, 9);
	assert_int_equal(write(r->peer, good, 64), 64);
	run(r);
	assert_int_equal(r->count, 2);
	check_frame(r->last + HDR, 60, 9);
	rig_free(r);
}

static void test_malformed_lengths(void **state)
{
	bad_length(0);
	bad_length(FRAMES_MAX + 1);
	bad_length(0x80000000);
	bad_length(0xffffffff);
	(void)state;
}

static void test_reconnect(void **state)
{
	struct rig *r = rig_bare();
	struct err err = {.msg = ""};
	char options[200];

	/* nobody there at the start */
	snprintf(options, sizeof(options), "stream,id=n0,addr.type=unix,addr.path=%s", r->path);
	assert_int_equal(try_open(r, options, &err), -ENOENT);
	assert_non_null(strstr(err.msg, r->path));
	strcat(options, ",reconnect=1");
	assert_int_equal(try_open(r, options, &err), 0);
	attach(r);
	assert_int_equal(r->down, 1);
	assert_int_equal(send_frame(r, 60, 0), HDR + 60);
	for (int i = 1; i <= 3; i++) {
		loop_clock_advance(r->l, SEC + 1);
		assert_int_equal(r->connects, i);
	}
	listen_at(r);
	for (unsigned i = 1; i <= 3; i++) {
		loop_clock_advance(r->l, SEC + 1);
		run(r);
		assert_int_equal(r->up, i);
		peer_accept(r);
		assert_int_equal(send_frame(r, 60, 5), HDR + 60);
		assert_int_equal(read(r->peer, r->last, sizeof(r->last)), 64);
		check_frame(r->last + 4, 60, 5);
		/* gone with half a frame: the next stream starts afresh */
		assert_int_equal(write(r->peer, r->last, 30), 30);
		run(r);
		close(r->peer);
		r->peer = -1;
		run(r);
		assert_int_equal(r->down, i + 1);
	}
	assert_int_equal(r->count, 0);
	/* found, and taken away before it is used */
	loop_clock_advance(r->l, SEC + 1);
	rig_free(r);
	(void)state;
}

/* --- what passt is given --- */

struct told {
	char text[2048];
	int fd;
};

static int passt(void *arg, const char *const *args, struct err *err)
{
	struct told *t = arg;

	t->text[0] = '\0';
	for (; *args; args++) {
		strcat(t->text, *args);
		strcat(t->text, "|");
	}
	return t->fd >= 0 ? dup(t->fd) : err_set(err, ENOENT, "there is no passt");
}

static void test_user(void **state)
{
	static const struct {
		const char *options, *args;
	} good[] = {
		{"user,id=n0", "-t|none|-u|none|"},
		{"user,id=n0,ipv6=off", "-4|-t|none|-u|none|"},
		{"user,id=n0,ipv4=off,restrict=off", "-6|-t|none|-u|none|"},
		{"user,id=n0,hostfwd=tcp::2222-:22", "-t|2222:22|-u|none|"},
		{"user,id=n0,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-:5353,hostfwd=:0.0."
		 "0.0:80-:8080",
		 "-t|127.0.0.1/2222:22|-u|53:5353|-t|80:8080|"},
		{"user,id=n0,hostfwd.0.str=tcp::1-:2", "-t|1:2|-u|none|"}, /* as JSON has it */
		{"user,id=n0,net=10.1.2.0/24",
		 "-a|10.1.2.15|-n|24|-g|10.1.2.2|-t|none|-u|none|"},
		{"user,id=n0,net=10.1.2.9,dhcpstart=10.1.2.77,hostfwd=tcp::1-10.1.2.77:2",
		 "-a|10.1.2.77|-n|24|-g|10.1.2.2|-t|1:2|-u|none|"},
		{"user,id=n0,net=192.168.0.0/29",
		 "-a|192.168.0.1|-n|29|-g|192.168.0.2|-t|none|-u|none|"},
		{"user,id=n0,net=192.168.0.0/28",
		 "-a|192.168.0.14|-n|28|-g|192.168.0.2|-t|none|-u|none|"},
		{"user,id=n0,host=10.0.2.1,dns=10.0.2.3",
		 "-a|10.0.2.15|-n|24|-g|10.0.2.1|--dns-forward|10.0.2.3|-t|none|-u|none|"},
		{"user,id=n0,dnssearch=example.org,dnssearch=lan",
		 "-S|example.org|-S|lan|-t|none|-u|none|"},
	};
	static const struct {
		const char *options, *names;
	} bad[] = {
		{"user", "id"},
		{"user,id=n0,colour=red", "colour"},
		{"user,id=n0,hostname=x", "hostname"},
		{"user,id=n0,guestfwd=tcp:1.2.3.4:5-chardev:x", "guestfwd"},
		{"user,id=n0,tftp=/tmp", "tftp"},
		{"user,id=n0,restrict=on", "restrict"},
		{"user,id=n0,ipv4=off,ipv6=off", "ipv4=off"},
		{"user,id=n0,hostfwd=tcp::2222", "hostfwd=tcp::2222"},
		{"user,id=n0,hostfwd=sctp::1-:2", "hostfwd"},
		{"user,id=n0,hostfwd=tcp::0-:2", "hostfwd"},
		{"user,id=n0,hostfwd=tcp::1-:65536", "hostfwd"},
		{"user,id=n0,hostfwd=tcp::1-:2x", "hostfwd"},
		{"user,id=n0,hostfwd=tcp::-1-:2", "hostfwd"},
		{"user,id=n0,hostfwd=tcp:1.2.3:1-:2", "hostfwd"},
		{"user,id=n0,hostfwd=tcp::1-10.0.2.15:2", "own address"},
		{"user,id=n0,hostfwd=", "hostfwd"},
		{"user,id=n0,hostfwd.1=tcp::1-:2", "hostfwd.1"},
		{"user,id=n0,hostfwd.0.x=tcp::1-:2", "hostfwd.0.x"},
		{"user,id=n0,net=10.0.0.0/31", "net="},
		{"user,id=n0,net=10.0.0.0/7", "net="},
		{"user,id=n0,net=ten", "net="},
		{"user,id=n0,net=10.0.0.0000000000000000", "net="},
		{"user,id=n0,host=10.9.9.9", "host="},
		{"user,id=n0,host=10.0.2.15", "host="},
		{"user,id=n0,dhcpstart=0.0.0.0", "dhcpstart"},
		{"user,id=n0,dns=none", "dns"},
		{"user,id=n0,dnssearch=--runas", "dnssearch"},
		{"user,id=n0,dnssearch=a b", "dnssearch"},
		{"user,id=0123456789012345678901234567890123456789012345678901234567890123",
		 "longer"},
		{"dgram,id=n0", "'dgram'"},
		{"stream,id=n0", "addr.type"},
		{"stream,id=n0,addr.type=inet,addr.host=h,addr.port=1", "addr.type=inet"},
		{"stream,id=n0,addr.type=unix", "addr.path"},
		{"stream,id=n0,addr.type=unix,addr.path=/nonexistent/x", "/nonexistent/x"},
		{"stream,id=n0,addr.type=unix,addr.path=/tmp/x,server=on", "server=on"},
		{"stream,id=n0,addr.type=unix,addr.path=/tmp/x,addr.abstract=on",
		 "addr.abstract"},
		{"stream,id=n0,addr.type=unix,addr.path=/tmp/"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		 "longer"},
	};
	struct rig *r = rig_bare();
	struct told told = {.fd = -1};
	struct err err;
	int pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	r->rights = (struct rights){.passt = passt, .arg = &told};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err.msg[0] = 0;
		assert_true(try_open(r, bad[i].options, &err) < 0);
		if (!strstr(err.msg, bad[i].names)) {
			fail_msg("%s: '%s'", bad[i].options, err.msg);
		}
	}
	assert_int_equal(try_open(r, "user,id=n0", &err), -ENOENT);
	assert_string_equal(err.msg, "-netdev user,id=n0: there is no passt");
	told.fd = pair[0];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (try_open(r, good[i].options, &err)) {
			fail_msg("%s: %s", good[i].options, err.msg);
		}
		assert_string_equal(told.text, good[i].args);
		assert_string_equal(r->p->ops->type, "user");
		r->p->ops->close(r->p);
	}
	/* the port works, and says who has gone */
	assert_int_equal(try_open(r, "user,id=n0", &err), 0);
	attach(r);
	close(pair[0]);
	assert_int_equal(send_frame(r, 60, 5), HDR + 60);
	assert_int_equal(read(pair[1], r->last, 100), 64);
	close(pair[1]);
	run(r);
	assert_int_equal(r->down, 1);
	rig_free(r);
	(void)state;
}

/* However many lists are too many: an error, not an overflow. */
static void test_user_too_many(void **state)
{
	struct net_env env;
	struct rig *r = rig_bare();
	struct told told = {.fd = -1};
	struct opts o = {.what = "-netdev"};
	struct err err = {.msg = ""};
	char name[260];

	r->rights = (struct rights){.passt = passt, .arg = &told};
	env = (struct net_env){.loop = r->l, .rights = &r->rights};
	assert_int_equal(opts_add(&o, "type", "user", &err), 0);
	assert_int_equal(opts_add(&o, "id", "n0", &err), 0);
	memset(name, 'a', sizeof(name));
	name[253] = 0;
	for (int i = 0; i < 60; i++) {
		char key[32];

		snprintf(key, sizeof(key), "dnssearch.%d", i);
		assert_int_equal(opts_add(&o, key, name, &err), 0);
	}
	assert_int_equal(net_open(&o, &env, &r->p, &err), -E2BIG);
	opts_fini(&o);
	r->p = NULL;
	rig_free(r);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_bursts_and_silence),
		cmocka_unit_test(test_never_reads),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_malformed_lengths),
		cmocka_unit_test(test_reconnect),
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_user_too_many),
	};

	signal(SIGPIPE, SIG_IGN); /* as the program does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
