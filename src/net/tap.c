/*
 * A tap interface of the host kernel: frames with a 12-byte virtio-net header in front
 * (IFF_VNET_HDR), so that checksums and segmentation stay undone between guest and host.
 * Documentation/networking/tuntap.rst of the kernel, linux/if_tun.h.
 *
 * Opened before isolation; the interface is set up by the operator (ip(8)), never by a script of
 * ours. Owner: the loop given to attach(). Untrusted: frames from the network; their length is
 * bounded by the buffers given, and recv() never writes past them.
 * Invariant: the descriptor is non-blocking, so nothing here waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "net/net_int.h"

struct tap {
	struct net_port port;
	int fd;
	struct loop_fd watch;
	struct net_client client;
	bool rx_on, tx_on;
	unsigned can;
};

struct tap_options {
	char *id, *ifname, *fd, *script, *downscript, *br;
	bool vhost, vnet_hdr;
	uint64_t sndbuf;
	uint32_t queues;
};
#define O(f) offsetof(struct tap_options, f)
static const struct opt_desc descs[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"ifname", OPT_STR, O(ifname)},
	{"fd", OPT_STR, O(fd)},
	{"script", OPT_STR, O(script)},
	{"downscript", OPT_STR, O(downscript)},
	{"vhost", OPT_BOOL, O(vhost), .def = "off"},
	{"vnet_hdr", OPT_BOOL, O(vnet_hdr), .def = "on"},
	{"sndbuf", OPT_SIZE, O(sndbuf), .def = "0"},
	{"queues", OPT_U32, O(queues), 1, 1, .def = "1"},
	{NULL},
};
#undef O

static struct tap *tap_of(struct net_port *p)
{
	return container_of(p, struct tap, port);
}

static void tap_watch(struct tap *t)
{
	if (t->watch.loop) {
		loop_fd_mod(&t->watch, (t->rx_on ? EPOLLIN : 0u) | (t->tx_on ? EPOLLOUT : 0u));
	}
}

static void tap_ready(void *opaque, uint32_t events)
{
	struct tap *t = opaque;

	if (events & EPOLLOUT && t->tx_on) {
		t->client.tx_ready(t->client.opaque);
	}
	if (events & (EPOLLIN | EPOLLERR) && t->rx_on) {
		t->client.rx_ready(t->client.opaque);
	}
	if (events & EPOLLERR) {
		/* The interface was deleted, which is reported for ever and never mended. */
		log_warn(t->port.id, "the tap interface is gone; the network card is cut off");
		loop_fd_del(&t->watch);
	}
}

/* #syscalls(main io): writev */
static ssize_t tap_send(struct net_port *p, const struct iovec *iov, unsigned cnt)
{
	ssize_t n;

	do {
		n = writev(tap_of(p)->fd, iov, (int)cnt);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* A frame that is larger than the buffers is cut by the kernel; it tells nobody, so one byte more
 * than fits cannot be seen. The caller gives room for the largest frame (64 KiB and header).
 * #syscalls(main io): readv */
static ssize_t tap_recv(struct net_port *p, const struct iovec *iov, unsigned cnt)
{
	ssize_t n;

	do {
		n = readv(tap_of(p)->fd, iov, (int)cnt);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void tap_rx_enable(struct net_port *p, bool on)
{
	if (tap_of(p)->rx_on != on) {
		tap_of(p)->rx_on = on;
		tap_watch(tap_of(p));
	}
}

static void tap_tx_poll(struct net_port *p, bool on)
{
	if (tap_of(p)->tx_on != on) {
		tap_of(p)->tx_on = on;
		tap_watch(tap_of(p));
	}
}

static unsigned tap_offloads(struct net_port *p)
{
	return tap_of(p)->can;
}

static unsigned tun_flags(unsigned off)
{
	return (off & NET_OFF_CSUM ? TUN_F_CSUM : 0u) | (off & NET_OFF_TSO4 ? TUN_F_TSO4 : 0u) |
	       (off & NET_OFF_TSO6 ? TUN_F_TSO6 : 0u) | (off & NET_OFF_ECN ? TUN_F_TSO_ECN : 0u) |
	       (off & NET_OFF_UFO ? TUN_F_UFO : 0u);
}

/* #syscalls(main io): ioctl
 * #ioctls(main io): TUNSETOFFLOAD */
static int tap_set_offloads(struct net_port *p, unsigned rx)
{
	return ioctl(tap_of(p)->fd, TUNSETOFFLOAD, tun_flags(rx)) ? -errno : 0;
}

static int tap_attach(struct net_port *p, struct loop *l, const struct net_client *c)
{
	struct tap *t = tap_of(p);
	int ret;

	t->client = *c;
	ret = loop_fd_add(l, &t->watch, t->fd, 0, tap_ready, t);
	if (!ret) {
		tap_watch(t);
	}
	return ret;
}

static void tap_detach(struct net_port *p)
{
	loop_fd_del(&tap_of(p)->watch);
	tap_of(p)->rx_on = tap_of(p)->tx_on = false;
}

/* #syscalls(main): close */
static void tap_close(struct net_port *p)
{
	struct tap *t = tap_of(p);

	loop_fd_del(&t->watch);
	close(t->fd);
	free(t);
}

static const struct net_port_ops tap_ops = {
	.type = "tap",
	.send = tap_send,
	.recv = tap_recv,
	.rx_enable = tap_rx_enable,
	.tx_poll = tap_tx_poll,
	.offloads = tap_offloads,
	.set_offloads = tap_set_offloads,
	.attach = tap_attach,
	.detach = tap_detach,
	.close = tap_close,
};

static int check_options(const struct tap_options *o, struct err *err)
{
	if (!o->ifname == !o->fd) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: give either ifname=NAME or fd=N", o->id);
	}
	for (int i = 0; i < 2; i++) {
		const char *s = i ? o->downscript : o->script;

		if (s && strcmp(s, "no") && *s) {
			return err_set(err, EINVAL, "-netdev tap,id=%s: %s=%s cannot be had: no program is "
				       "run from here; set the interface up with ip(8) and say %s=no",
				       o->id, i ? "downscript" : "script", s,
				       i ? "downscript" : "script");
		}
	}
	if (o->vhost) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: vhost=on is not supported in this version; "
			       "say vhost=off", o->id);
	}
	if (!o->vnet_hdr) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: vnet_hdr=off cannot be had", o->id);
	}
	if (strlen(o->id) > 63) {
		return err_set(err, EINVAL, "-netdev tap: the id '%s' is longer than 63 characters", o->id);
	}
	return 0;
}

/* #syscalls(start): openat ioctl */
static int open_by_name(const struct tap_options *o, int *out, struct err *err)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd, e;

	if (strlen(o->ifname) >= sizeof(ifr.ifr_name)) {
		return err_set(err, ENAMETOOLONG, "-netdev tap,id=%s: ifname=%s is longer than %zu "
			       "characters", o->id, o->ifname, sizeof(ifr.ifr_name) - 1);
	}
	memcpy(ifr.ifr_name, o->ifname, strlen(o->ifname));
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		return err_set(err, errno, "-netdev tap,id=%s: cannot open /dev/net/tun: %s; load the tun "
			       "module or get the right to use it", o->id, strerror(errno));
	}
	if (ioctl(fd, TUNSETIFF, &ifr)) {
		e = errno;
		close(fd);
		return err_set(err, e, "-netdev tap,id=%s: cannot use interface %s: %s%s", o->id,
			       o->ifname, strerror(e),
			       e == EBUSY	? "; another process has it"
			       : e == EPERM	? "; it belongs to another user (ip tuntap add … user …)"
			       : e == EINVAL	? "; it is not a tap of one queue"
						: "");
	}
	*out = fd;
	return 0;
}

static int take_fd(const struct tap_options *o, int *out, struct err *err)
{
	struct ifreq ifr = {0};
	uint64_t n;
	int fd;

	if (parse_u64(o->fd, &n) || n > 1u << 20 || fcntl((int)n, F_GETFD) < 0) {
		return err_set(err, EBADF, "-netdev tap,id=%s: fd=%s is not an open descriptor", o->id,
			       o->fd);
	}
	if (ioctl((int)n, TUNGETIFF, &ifr)) {
		return err_set(err, errno, "-netdev tap,id=%s: fd=%s is not a tap", o->id, o->fd);
	}
	if ((ifr.ifr_flags & (IFF_TAP | IFF_VNET_HDR | IFF_NO_PI)) !=
	    (IFF_TAP | IFF_VNET_HDR | IFF_NO_PI)) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: fd=%s has to be opened with IFF_TAP, "
			       "IFF_NO_PI and IFF_VNET_HDR", o->id, o->fd);
	}
	fd = fcntl((int)n, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK)) {
		int e = errno;

		if (fd >= 0) {
			close(fd);
		}
		return err_set(err, e, "-netdev tap,id=%s: fd=%s: %s", o->id, o->fd, strerror(e));
	}
	*out = fd;
	return 0;
}

static int set_up(struct tap *t, const struct tap_options *o, struct err *err)
{
	static const unsigned sets[] = {
		NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_ECN,
		NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6, NET_OFF_CSUM, 0,
	};
	int hdr = NET_HDR_LEN, sndbuf = o->sndbuf ? (int)MIN(o->sndbuf, (uint64_t)INT32_MAX) : INT32_MAX;

	if (ioctl(t->fd, TUNSETVNETHDRSZ, &hdr)) {
		return err_set(err, errno, "-netdev tap,id=%s: the kernel refuses a %d-byte virtio-net "
			       "header: %s", o->id, hdr, strerror(errno));
	}
	ioctl(t->fd, TUNSETSNDBUF, &sndbuf); /* an old kernel keeps its own limit */
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		if (!ioctl(t->fd, TUNSETOFFLOAD, tun_flags(sets[i]))) {
			t->can = sets[i];
			break;
		}
	}
	/* Nothing is offered to the guest's side before it has agreed. */
	ioctl(t->fd, TUNSETOFFLOAD, 0);
	return 0;
}

int net_tap_open(struct opts *o, const struct net_env *env, struct net_port **out,
		 struct err *err)
{
	struct tap_options to = {0};
	struct tap *t = NULL;
	int fd = -1, ret;

	ret = opts_read(o, descs, &to, err);
	if (ret) {
		goto free_options;
	}
	ret = check_options(&to, err);
	if (!ret) {
		ret = to.fd ? take_fd(&to, &fd, err) : open_by_name(&to, &fd, err);
	}
	if (ret) {
		goto free_options;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		close(fd);
		ret = err_set(err, ENOMEM, "-netdev tap,id=%s: out of memory", to.id);
		goto free_options;
	}
	t->fd = fd;
	t->port.ops = &tap_ops;
	snprintf(t->port.id, sizeof(t->port.id), "%s", to.id);
	ret = set_up(t, &to, err);
	if (ret) {
		tap_close(&t->port);
		goto free_options;
	}
	*out = &t->port;
free_options:
	opts_free_struct(descs, &to);
	return ret;
}
