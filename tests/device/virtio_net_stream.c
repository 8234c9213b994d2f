/*
 * virtio-net on a stream socket, on an iothread: the link that a peer makes, and peers that never
 * read, flood, lie and hang up. The card goes on, and what it costs the host is asserted in
 * numbers: memory, log lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
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
#include "device/virtio/net_int.h"
#include "net/frames.h"
#include "net/net_int.h"
#include "rig.h"

#define F(bit) (UINT64_C(1) << (bit))
#define ALL                                                                                    \
	(F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_NET_F_MRG_RXBUF) | F(VIRTIO_NET_F_STATUS) |          \
	 F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_GUEST_CSUM))
#define HDR sizeof(struct virtio_net_hdr_v1)
#define SEC UINT64_C(1000000000)
#define LEN 1000u /* of the frames here */

struct srig {
	struct rig r;
	struct loop *retry; /* where the port connects again, with a clock of its own */
	struct virtio_net *n;
	struct net_port *p;
	struct rights rights;
	int server, peer;
	char dir[64], path[96];
	int log; /* a file with what was logged */
	gpa_t buf;
};

static int connect_to(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return -1;
	}
	return fd;
}

static int again(void *arg, const char *path, struct err *err)
{
	int fd = connect_to(path);

	return fd < 0 ? err_set(err, ECONNREFUSED, "nobody") : fd;
}

static struct srig *rig_new(void)
{
	struct virtio_net_config c = {.mac_set = true,
				      .mac = {2},
				      .csum = true,
				      .gso = true,
				      .guest_csum = true,
				      .guest_tso = true,
				      .mrg_rxbuf = true};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct srig *t = calloc(1, sizeof(*t));
	struct err err = {.msg = ""};
	struct virtio_dev *vd;
	struct net_env env;
	struct opts o;
	char text[200];

	assert_non_null(t);
	strcpy(t->dir, "/tmp/nemu-nst-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->path, sizeof(t->path), "%s/log", t->dir);
	t->log = open(t->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	log_set_fd(t->log);
	unlink(t->path);
	snprintf(t->path, sizeof(t->path), "%s/s", t->dir);
	strcpy(sa.sun_path, t->path);
	t->server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(t->server, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(t->server, 5), 0);
	rig_init(&t->r, true, 0);
	t->rights = (struct rights){.connect = again, .arg = t};
	assert_int_equal(loop_new(&t->retry, "retry", LOOP_VIRTUAL), 0);
	env = (struct net_env){.loop = t->retry, .rights = &t->rights};
	snprintf(text, sizeof(text), "stream,id=n0,addr.type=unix,addr.path=%s,reconnect=1",
		 t->path);
	assert_int_equal(opts_parse(&o, "-netdev", text, "type", &err), 0);
	assert_int_equal(net_open(&o, &env, &t->p, &err), 0);
	opts_fini(&o);
	t->peer = accept4(t->server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(t->peer >= 0);
	c.loop = t->r.iothread;
	assert_int_equal(virtio_net_new(&t->r.fv->vm, t->p, &c, "net0", &vd, &err), 0);
	t->n = container_of(vd, struct virtio_net, vd);
	rig_add(&t->r, vd, "net0");
	vdrv_start(&t->r.d, ALL, 0);
	t->buf = vdrv_alloc(&t->r.d, 300 * 2048, 8);
	return t;
}

static void rig_free(struct srig *t)
{
	fake_vm_pause(t->r.fv);
	device_list_destroy(&t->r.fv->devices); /* before the port */
	t->p->ops->close(t->p);
	rig_fini(&t->r);
	loop_free(t->retry);
	if (t->peer >= 0) {
		close(t->peer);
	}
	close(t->server);
	unlink(t->path);
	assert_int_equal(rmdir(t->dir), 0);
	log_set_fd(2);
	close(t->log);
	free(t);
}

static unsigned log_lines(struct srig *t)
{
	char buf[65536];
	ssize_t n = pread(t->log, buf, sizeof(buf), 0);
	unsigned lines = 0;

	for (ssize_t i = 0; i < n; i++) {
		lines += buf[i] == '\n';
	}
	return lines;
}

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

struct link_wait {
	struct srig *t;
	unsigned want;
};

static bool link_is(void *arg)
{
	struct link_wait *w = arg;

	return vdrv_config(&w->t->r.d, 6, 2) == w->want;
}

static void link_expect(struct srig *t, unsigned want)
{
	struct link_wait w = {t, want};

	assert_true(rig_until(&t->r, link_is, &w));
}

static void reconnect(struct srig *t)
{
	/* The iothread says that the peer is lost; then the timer is on. */
	for (int i = 0; i < 1000 && t->peer < 0; i++) {
		loop_step(t->retry, 0);
		loop_clock_advance(t->retry, SEC + 1);
		fcntl(t->server, F_SETFL, O_NONBLOCK);
		t->peer = accept4(t->server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		usleep(t->peer < 0 ? 1000 : 0);
	}
	assert_true(t->peer >= 0);
	link_expect(t, VIRTIO_NET_S_LINK_UP);
}

static uint8_t byte_at(unsigned frame, size_t i)
{
	return (uint8_t)(frame * 31 + i);
}

static void tx(struct srig *t, unsigned nr)
{
	struct vdrv_queue *q = &t->r.d.q[NET_Q_TX];
	uint8_t *p = vdrv_ptr(&t->r.d, t->buf, HDR + LEN);
	uint16_t head;
	uint32_t len;

	memset(p, 0, HDR);
	for (size_t i = 0; i < LEN; i++) {
		p[HDR + i] = byte_at(nr, i);
	}
	assert_true(vdrv_add(q, (struct vdrv_seg[]){{t->buf, HDR + LEN}}, 1, 0, 0) >= 0);
	vdrv_kick(q);
	assert_true(vdrv_wait(q, &head, &len));
}

/* The next frame that the peer gets: exactly this one. */
static void peer_expect(struct srig *t, unsigned nr)
{
	uint8_t buf[4 + LEN];
	size_t got = 0;
	uint64_t since = now_ns();
	be32 prefix;

	while (got < sizeof(buf) && now_ns() - since < 10 * SEC) {
		ssize_t n = read(t->peer, buf + got, sizeof(buf) - got);

		got += n > 0 ? (size_t)n : 0;
		usleep(n > 0 ? 0 : 1000);
	}
	assert_int_equal(got, sizeof(buf));
	memcpy(&prefix, buf, 4);
	assert_int_equal(be32_get(prefix), LEN);
	for (size_t i = 0; i < LEN; i++) {
		if (buf[4 + i] != byte_at(nr, i)) {
			fail_msg("frame %u, byte %zu", nr, i);
		}
	}
}

static size_t wire_frame(uint8_t *buf, unsigned nr)
{
	be32 prefix = be32_of(LEN);

	memcpy(buf, &prefix, 4);
	for (size_t i = 0; i < LEN; i++) {
		buf[4 + i] = byte_at(nr, i);
	}
	return 4 + LEN;
}

static void rx_give(struct srig *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		gpa_t gpa = t->buf + 2048 * (1 + i);

		assert_true(vdrv_add(&t->r.d.q[NET_Q_RX], (struct vdrv_seg[]){{gpa, 2048}}, 0,
				     1, 0) >= 0);
	}
	vdrv_kick(&t->r.d.q[NET_Q_RX]);
}

static void rx_expect(struct srig *t, unsigned nr, gpa_t gpa)
{
	uint16_t head;
	uint32_t len;
	uint8_t *p;

	assert_true(vdrv_wait(&t->r.d.q[NET_Q_RX], &head, &len));
	assert_int_equal(len, HDR + LEN);
	p = vdrv_ptr(&t->r.d, gpa, len);
	for (size_t i = 0; i < LEN; i++) {
		if (p[HDR + i] != byte_at(nr, i)) {
			fail_msg("frame %u, byte %zu", nr, i);
		}
	}
}

static void both_ways(struct srig *t, unsigned nr)
{
	uint8_t wire[4 + LEN];

	tx(t, nr);
	peer_expect(t, nr);
	rx_give(t, 1);
	assert_int_equal(write(t->peer, wire, wire_frame(wire, nr + 1)), sizeof(wire));
	rx_expect(t, nr + 1, t->buf + 2048);
}

static void test_link(void **state)
{
	struct srig *t = rig_new();
	uint64_t irqs, f = vdrv_offered(&t->r.d);

	/* nothing that needs a header on the wire */
	assert_int_equal(f & (F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_GUEST_CSUM) |
			      F(VIRTIO_NET_F_HOST_TSO4) | F(VIRTIO_NET_F_HOST_TSO6) |
			      F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_TSO6)),
			 0);
	link_expect(t, VIRTIO_NET_S_LINK_UP);
	both_ways(t, 1);
	for (unsigned i = 0; i < 3; i++) {
		irqs = vdrv_irqs(&t->r.d, 0);
		close(t->peer);
		t->peer = -1;
		link_expect(t, 0);
		fake_vm_settle(t->r.fv);
		assert_int_equal(vdrv_irqs(&t->r.d, 0), irqs + 1);
		tx(t, 5); /* into the void, at once */
		reconnect(t);
		fake_vm_settle(t->r.fv);
		assert_int_equal(vdrv_irqs(&t->r.d, 0), irqs + 2);
		both_ways(t, 10 + i);
	}
	/* a reset of the card does not change the link */
	close(t->peer);
	t->peer = -1;
	link_expect(t, 0);
	vdrv_start(&t->r.d, ALL, 0);
	link_expect(t, 0);
	reconnect(t);
	both_ways(t, 20);
	rig_free(t);
	(void)state;
}

static void test_peer_never_reads(void **state)
{
	struct srig *t = rig_new();
	uint64_t since = now_ns();
	unsigned nr, got = 0;
	size_t before;

	tx(t, 0);
	before = heap();
	for (nr = 1; nr < 20000; nr++) {
		tx(t, nr);
	}
	/* It waited for the peer once, a second, not for each frame. */
	assert_in_range(now_ns() - since, SEC / 2, 60 * SEC);
	assert_int_equal(heap(), before);
	assert_in_range(log_lines(t), 1, 3);
	assert_int_equal(vdrv_status(&t->r.d) & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0);
	link_expect(t, VIRTIO_NET_S_LINK_UP);
	/* What it reads then are the first frames, whole; and the card works again. */
	for (uint64_t quiet = 0; quiet < SEC / 2;) {
		uint8_t b;
		ssize_t n = recv(t->peer, &b, 1, MSG_PEEK);

		if (n == 1) {
			peer_expect(t, got++);
			quiet = 0;
		} else {
			usleep(1000);
			quiet += 1000000;
		}
	}
	assert_in_range(got, 10, 19999);
	assert_int_equal(net_stream_dropped(t->p), 20000 - got);
	both_ways(t, 77);
	assert_in_range(log_lines(t), 2, 4);
	rig_free(t);
	(void)state;
}

static void test_peer_floods(void **state)
{
	static uint8_t wire[100 * (4 + LEN)];
	struct srig *t = rig_new();
	size_t sent = 0, before, at = 0;
	unsigned frames = 0;
	ssize_t n;

	for (unsigned i = 0; i < 100; i++) {
		wire_frame(wire + i * (4 + LEN), i);
	}
	/* no buffers: the flood stays in the socket, whose buffer is the peer's */
	before = heap();
	for (int idle = 0; idle < 100;) {
		n = write(t->peer, wire + at, sizeof(wire) - at);
		if (n > 0) {
			sent += (size_t)n;
			at = (at + (size_t)n) % sizeof(wire);
			idle = 0;
		} else {
			idle++;
			usleep(1000);
		}
		assert_true(sent < 4u << 20);
	}
	assert_int_equal(heap(), before);
	/* then as many as there are buffers for, in order; the peer goes on for ten thousand */
	while (frames < 10000) {
		uint16_t head;
		uint32_t len;

		rx_give(t, 50);
		for (unsigned i = 0; i < 50; i++) {
			n = write(t->peer, wire + at, sizeof(wire) - at);
			at = n > 0 ? (at + (size_t)n) % sizeof(wire) : at;
			assert_true(vdrv_wait(&t->r.d.q[NET_Q_RX], &head, &len));
			assert_int_equal(len, HDR + LEN);
			frames++;
		}
		tx(t, frames); /* the other direction is not stopped */
		peer_expect(t, frames);
	}
	assert_int_equal(heap(), before);
	assert_int_equal(log_lines(t), 0);
	rig_free(t);
	(void)state;
}

/* Lies, half frames and hang-ups, hundreds of them: the same memory, a few lines, a card that works. */
static void test_peer_lies(void **state)
{
	static const uint32_t lengths[] = {0, FRAMES_MAX + 1, 0x7fffffff, 0xffffffff, 500};
	struct srig *t = rig_new();
	size_t before = 0;

	for (unsigned i = 0; i < 200; i++) {
		be32 prefix = be32_of(lengths[i % ARRAY_SIZE(lengths)]);
		uint8_t junk[100];

		memset(junk, (int)i, sizeof(junk));
		assert_int_equal(write(t->peer, &prefix, 4), 4);
		if (write(t->peer, junk, sizeof(junk)) < 0) {
			assert_true(errno == EPIPE ||
				    errno == ECONNRESET); /* noticed already */
		}
		rx_give(t, i == 0); /* somebody has to look */
		close(t->peer);
		t->peer = -1;
		link_expect(t, 0);
		reconnect(t);
		before = i == 20 ? heap() : before;
	}
	assert_int_equal(heap(), before);
	assert_in_range(log_lines(t), 1, 20);
	tx(t, 3);
	peer_expect(t, 3);
	rig_free(t);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_link),
		cmocka_unit_test(test_peer_never_reads),
		cmocka_unit_test(test_peer_floods),
		cmocka_unit_test(test_peer_lies),
	};

	signal(SIGPIPE, SIG_IGN); /* as the program does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
