/*
 * The tap back end on a real interface in a network namespace of its own: frames both ways with
 * their headers, readiness, offloads, an interface that is deleted, refusals.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/net.h"
#include "spec/virtio_net.h"

#define FRAME_TYPE 0x88b5 /* for experiments: nobody else sends it */

struct rig {
	struct loop *l;
	struct net_port *p;
	int raw; /* the host's end */
	int ifindex;
	unsigned rx_ready, tx_ready;
	uint8_t frame[2000];
	ssize_t got;
	struct virtio_net_hdr_v1 hdr;
	bool drain;
};

static const char *unavailable;

static void namespace_enter(void)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		unavailable = "/dev/net/tun cannot be opened";
		return;
	}
	close(fd);
	if (unshare(CLONE_NEWNET)) {
		unavailable = "no right to make a network namespace";
	}
}

#define NEEDS_TAP()                                                                            \
	do {                                                                                   \
		if (unavailable) {                                                             \
			print_message("SKIP: %s\n", unavailable);                              \
			skip();                                                                \
		}                                                                              \
	} while (0)

static int tap_open(const char *options, struct net_port **p, struct err *err)
{
	const struct net_env env = {0};
	struct opts o;
	int ret;

	assert_int_equal(opts_parse(&o, "-netdev", options, "type", err), 0);
	ret = net_open(&o, &env, p, err);
	opts_fini(&o);
	return ret;
}

static void frame_take(struct rig *r)
{
	struct iovec iov[] = {{&r->hdr, sizeof(r->hdr)}, {r->frame, sizeof(r->frame)}};
	ssize_t n = r->p->ops->recv(r->p, iov, 2);

	if (n > 0) {
		const struct ether_header *e = (const void *)r->frame;

		r->got = ntohs(e->ether_type) == FRAME_TYPE ? n
							    : r->got; /* not the kernel's own */
	} else if (n != -EAGAIN) {
		r->p->ops->rx_enable(r->p, false);
	}
}

static void on_rx(void *opaque)
{
	struct rig *r = opaque;

	r->rx_ready++;
	if (r->drain) {
		frame_take(r);
	}
}

static void on_tx(void *opaque)
{
	struct rig *r = opaque;

	r->tx_ready++;
	r->p->ops->tx_poll(r->p, false);
}

static void if_up(const char *name, int *index)
{
	struct ifreq ifr = {0};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(ifr.ifr_name, name);
	assert_int_equal(ioctl(s, SIOCGIFINDEX, &ifr), 0);
	*index = ifr.ifr_ifindex;
	assert_int_equal(ioctl(s, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags |= IFF_UP;
	assert_int_equal(ioctl(s, SIOCSIFFLAGS, &ifr), 0);
	close(s);
}

static void rig_init(struct rig *r, const char *options)
{
	const struct net_client client = {on_rx, on_tx, r};
	struct sockaddr_ll sa = {.sll_family = AF_PACKET, .sll_protocol = htons(FRAME_TYPE)};
	struct err err = {.msg = ""};

	memset(r, 0, sizeof(*r));
	r->drain = true;
	assert_int_equal(loop_new(&r->l, "t", 0), 0);
	if (tap_open(options, &r->p, &err)) {
		fail_msg("%s", err.msg);
	}
	if_up("nt0", &r->ifindex);
	r->raw = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(FRAME_TYPE));
	sa.sll_ifindex = r->ifindex;
	assert_int_equal(bind(r->raw, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(r->p->ops->attach(r->p, r->l, &client), 0);
}

static void rig_fini(struct rig *r)
{
	r->p->ops->detach(r->p);
	r->p->ops->close(r->p);
	close(r->raw);
	loop_free(r->l);
}

static void frame_make(uint8_t *f, size_t len)
{
	memset(f, 0xff, 6);
	memcpy(f + 6, "\x02\x00\x00\x00\x00\x01", 6);
	f[12] = FRAME_TYPE >> 8;
	f[13] = FRAME_TYPE & 255;
	for (size_t i = 14; i < len; i++) {
		f[i] = (uint8_t)i;
	}
}

static void run(struct rig *r)
{
	for (int i = 0; i < 50 && !r->got; i++) {
		loop_step(r->l, 10);
	}
}

static void test_both_ways(void **state)
{
	struct virtio_net_hdr_v1 h = {0};
	uint8_t f[1514], back[2000];
	struct iovec iov[] = {{&h, sizeof(h)}, {f, 100}, {f + 100, sizeof(f) - 100}};
	ssize_t n = -1;
	struct rig r;

	NEEDS_TAP();
	rig_init(&r, "tap,id=n0,ifname=nt0,script=no,downscript=no,vhost=off");
	assert_string_equal(r.p->id, "n0");
	frame_make(f, sizeof(f));
	/* to the host */
	assert_int_equal(r.p->ops->send(r.p, iov, 3), sizeof(f) + sizeof(h));
	for (int i = 0; i < 200 && n < 0; i++) {
		n = recv(r.raw, back, sizeof(back), 0);
		usleep(n < 0 ? 1000 : 0);
	}
	assert_int_equal(n, sizeof(f));
	assert_memory_equal(back, f, sizeof(f));
	/* from the host: only when wanted, and it waits until then */
	assert_int_equal(send(r.raw, f, sizeof(f), 0), sizeof(f));
	loop_step(r.l, 10);
	assert_int_equal(r.rx_ready, 0);
	r.p->ops->rx_enable(r.p, true);
	run(&r);
	assert_int_equal(r.got, sizeof(f) + sizeof(h));
	assert_memory_equal(r.frame, f, sizeof(f));
	assert_int_equal(r.hdr.gso_type, 0);
	/* room to send is told when asked for */
	assert_int_equal(r.tx_ready, 0);
	r.p->ops->tx_poll(r.p, true);
	for (int i = 0; i < 10 && !r.tx_ready; i++) {
		loop_step(r.l, 10);
	}
	assert_int_equal(r.tx_ready, 1);
	/* a frame the kernel does not take is an error, not a wait */
	iov[1].iov_len = 5;
	assert_true(r.p->ops->send(r.p, iov, 2) < 0 && r.p->ops->send(r.p, iov, 2) != -EAGAIN);
	rig_fini(&r);
	(void)state;
}

static void test_offloads(void **state)
{
	struct rig r;
	unsigned can;

	NEEDS_TAP();
	rig_init(&r, "tap,id=n0,ifname=nt0");
	can = r.p->ops->offloads(r.p);
	assert_int_equal(can, NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN);
	assert_int_equal(r.p->ops->set_offloads(r.p, can), 0);
	assert_int_equal(r.p->ops->set_offloads(r.p, NET_OFF_CSUM), 0);
	assert_int_equal(r.p->ops->set_offloads(r.p, NET_OFF_TSO4), -EINVAL); /* without CSUM */
	assert_int_equal(r.p->ops->set_offloads(r.p, 0), 0);
	rig_fini(&r);
	(void)state;
}

/* The interface is deleted under us: an error, and no busy loop. */
static void test_interface_deleted(void **state)
{
	struct {
		struct {
			uint32_t len;
			uint16_t type, flags;
			uint32_t seq, pid;
		} h;
		struct {
			uint8_t family, pad;
			uint16_t type;
			int index;
			uint32_t flags, change;
		} i;
	} del = {.h = {sizeof(del), 17 /* RTM_DELLINK */, 5, 1, 0}};
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	char answer[256];
	unsigned before;
	uint64_t since;
	struct rig r;

	NEEDS_TAP();
	rig_init(&r, "tap,id=n0,ifname=nt0");
	r.p->ops->rx_enable(r.p, true);
	del.i.index = r.ifindex;
	assert_int_equal(send(nl, &del, sizeof(del), 0), sizeof(del));
	assert_true(recv(nl, answer, sizeof(answer), 0) > 0);
	close(nl);
	for (int i = 0; i < 20; i++) {
		loop_step(r.l, 5);
	}
	before = r.rx_ready;
	since = now_ns();
	loop_step(r.l, 100);
	assert_int_equal(r.rx_ready, before);
	assert_true(now_ns() - since >= UINT64_C(90000000)); /* it slept */
	rig_fini(&r);
	(void)state;
}

static void test_descriptor(void **state)
{
	struct ifreq ifr = {.ifr_name = "nt0", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct net_port *p;
	struct err err = {.msg = ""};
	char options[64];
	struct rig r;
	int fd;

	NEEDS_TAP();
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	snprintf(options, sizeof(options), "tap,id=n0,fd=%d", fd);
	assert_true(tap_open(options, &p, &err) < 0); /* not attached to anything */
	assert_non_null(strstr(err.msg, "fd="));
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	rig_init(&r, options);
	close(fd);
	/* the name is taken while it lives */
	assert_int_equal(tap_open("tap,id=n1,ifname=nt0", &p, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "nt0"));
	rig_fini(&r);
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	snprintf(options, sizeof(options), "tap,id=n0,fd=%d", fd);
	assert_int_equal(tap_open(options, &p, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "IFF_VNET_HDR"));
	close(fd);
	(void)state;
}

static int tun_open(const char *name, int flags)
{
	struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags)};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	strcpy(ifr.ifr_name, name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	return fd;
}

/* Queues of one interface: one is attached, the others when they are asked for. */
static void queues_use(struct rig *r)
{
	struct virtio_net_hdr_v1 h = {0};
	uint8_t f[200], back[300];
	struct iovec iov[] = {{&h, sizeof(h)}, {f, sizeof(f)}};
	struct net_port *p = r->p;

	assert_int_equal(p->nmore, 2);
	frame_make(f, sizeof(f));
	for (unsigned i = 1; i < 3; i++) {
		struct net_port *q = net_port_queue(p, i);
		ssize_t n = -1;

		assert_string_equal(q->id, "n0");
		assert_int_equal(q->ops->set_active(q, false), -EINVAL); /* it is not */
		assert_int_equal(q->ops->set_active(q, true), 0);
		assert_int_equal(q->ops->set_active(q, true), -EINVAL);
		assert_int_equal(q->ops->send(q, iov, 2), sizeof(f) + sizeof(h));
		for (int k = 0; k < 200 && n < 0; k++) {
			n = recv(r->raw, back, sizeof(back), 0);
			usleep(n < 0 ? 1000 : 0);
		}
		assert_int_equal(n, sizeof(f));
		assert_int_equal(q->ops->set_active(q, false), 0);
	}
	/* what comes from the host is for the one that is left, whatever it is */
	p->ops->rx_enable(p, true);
	for (unsigned i = 0; i < 8; i++) {
		r->got = 0;
		f[11] = (uint8_t)i;
		assert_int_equal(send(r->raw, f, sizeof(f), 0), sizeof(f));
		run(r);
		assert_int_equal(r->got, sizeof(f) + sizeof(h));
	}
}

static void test_queues(void **state)
{
	struct err err = {.msg = ""};
	struct net_port *p;
	char options[64];
	int fd[3], one;
	struct rig r;

	NEEDS_TAP();
	rig_init(&r, "tap,id=n0,ifname=nt0,queues=3");
	queues_use(&r);
	assert_int_equal(tap_open("tap,id=n1,ifname=nt0", &p, &err), -EINVAL);
	rig_fini(&r);
	for (unsigned i = 0; i < 3; i++) {
		fd[i] = tun_open("nt0", IFF_MULTI_QUEUE);
	}
	snprintf(options, sizeof(options), "tap,id=n0,fds=%d:%d:%d", fd[0], fd[1], fd[2]);
	rig_init(&r, options);
	for (unsigned i = 0; i < 3; i++) {
		close(fd[i]);
	}
	queues_use(&r);
	rig_fini(&r);
	/* two interfaces */
	fd[0] = tun_open("nt0", IFF_MULTI_QUEUE);
	fd[1] = tun_open("nt1", IFF_MULTI_QUEUE);
	snprintf(options, sizeof(options), "tap,id=n0,fds=%d:%d", fd[0], fd[1]);
	assert_int_equal(tap_open(options, &p, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "same interface"));
	/* one of one queue, by name and as a descriptor */
	one = tun_open("nt2", 0);
	assert_int_equal(tap_open("tap,id=n0,ifname=nt2,queues=2", &p, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "multi_queue"));
	snprintf(options, sizeof(options), "tap,id=n0,fds=%d:%d", one, one);
	assert_int_equal(tap_open(options, &p, &err), -EINVAL);
	close(fd[0]);
	close(fd[1]);
	close(one);
	(void)state;
}

static void test_refusals(void **state)
{
	static const struct {
		const char *options, *names;
	} bad[] = {
		{"dgram,id=n0", "'dgram'"},
		{"id=n0", "''"},
		{"tap,ifname=x", "id"},
		{"tap,id=n0", "ifname"},
		{"tap,id=n0,ifname=x,fd=3", "one of"},
		{"tap,id=n0,fd=3,fds=4:5", "one of"},
		{"tap,id=n0,fds=4:5,queues=2", "queues=2"},
		{"tap,id=n0,fds=998:999", "fd=998"},
		{"tap,id=n0,fds=", "fd="},
		{"tap,id=n0,ifname=x,script=/etc/up", "script=/etc/up"},
		{"tap,id=n0,ifname=x,downscript=/etc/down", "downscript=/etc/down"},
		{"tap,id=n0,ifname=x,vhost=on", "vhost"},
		{"tap,id=n0,ifname=x,vnet_hdr=off", "vnet_hdr"},
		{"tap,id=n0,ifname=x,queues=0", "queues"},
		{"tap,id=n0,ifname=x,queues=65", "queues"},
		{"tap,id=n0,ifname=x,colour=red", "colour"},
		{"tap,id=n0,ifname=sixteencharacters", "sixteencharacters"},
		{"tap,id=n0,fd=999", "fd=999"},
		{"tap,id=n0,fd=-1", "fd=-1"},
		{"tap,id=n0,fd=0x100000000", "fd="},
	};
	struct err err;
	struct net_port *p;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err.msg[0] = 0;
		assert_true(tap_open(bad[i].options, &p, &err) < 0);
		if (!strstr(err.msg, bad[i].names)) {
			fail_msg("%s: '%s'", bad[i].options, err.msg);
		}
	}
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),   cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_offloads),   cmocka_unit_test(test_interface_deleted),
		cmocka_unit_test(test_descriptor), cmocka_unit_test(test_queues),
	};

	namespace_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
