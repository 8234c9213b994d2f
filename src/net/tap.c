/*
 * A tap interface of the host kernel: frames with a 12-byte virtio-net header in front
 * (IFF_VNET_HDR), so that checksums and segmentation stay undone between guest and host.
 * Documentation/networking/tuntap.rst of the kernel, linux/if_tun.h.
 *
 * Opened before isolation; the interface is set up by the operator (ip(8)), never by a script of
 * ours. Owner: the loop given to attach(). Untrusted: frames from the network; their length is
 * bounded by the buffers given, and recv() never writes past them.
 * Invariant: the descriptor is non-blocking, so nothing here waits.
 *
 * An interface with several queues (IFF_MULTI_QUEUE) is a port with as many queues, each with a
 * descriptor and a loop of its own. The kernel deals frames out to the queues that are attached
 * (TUNSETQUEUE), so all but the first are detached until the driver uses them.
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
#include "net/trace.h"

struct tap {
	struct net_port port;
	int fd;
	struct loop_fd watch;
	struct net_client client;
	bool rx_on, tx_on;
	unsigned can;
};

#define QUEUES_MAX 64

struct tap_options {
	char *id, *ifname, *fd, *fds, *script, *downscript, *br;
	bool vhost, vnet_hdr;
	uint64_t sndbuf;
	uint32_t queues;
};
#define O(f) offsetof(struct tap_options, f)
static const struct opt_desc descs[] = {
	{"id", OPT_STR, O(id), .required = true},
	{"ifname", OPT_STR, O(ifname)},
	{"fd", OPT_STR, O(fd)},
	{"fds", OPT_STR, O(fds)},
	{"script", OPT_STR, O(script)},
	{"downscript", OPT_STR, O(downscript)},
	{"vhost", OPT_BOOL, O(vhost), .def = "off"},
	{"vnet_hdr", OPT_BOOL, O(vnet_hdr), .def = "on"},
	{"sndbuf", OPT_SIZE, O(sndbuf), .def = "0"},
	{"queues", OPT_U32, O(queues), 1, QUEUES_MAX},
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
	n = n < 0 ? -errno : n;
	trace_net_tx(p->id, (int)n);
	return n;
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
	n = n < 0 ? -errno : n;
	trace_net_rx(p->id, (int)n);
	return n;
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

	for (unsigned i = 0; i < p->nmore; i++) {
		tap_close(p->more[i]);
	}
	free(p->more);
	loop_fd_del(&t->watch);
	close(t->fd);
	free(t);
}

/* #syscalls(main): ioctl
 * #ioctls(main): TUNSETQUEUE */
static int tap_set_active(struct net_port *p, bool on)
{
	struct ifreq ifr = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	return ioctl(tap_of(p)->fd, TUNSETQUEUE, &ifr) ? -errno : 0;
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
	.set_active = tap_set_active,
};

static int check_options(const struct tap_options *o, struct err *err)
{
	if (!!o->ifname + !!o->fd + !!o->fds != 1) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: give one of ifname=NAME, fd=N and "
			       "fds=N:N:…", o->id);
	}
	if (o->queues && !o->ifname) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: queues=%u goes with ifname=; give each "
			       "queue's descriptor in fds=", o->id, o->queues);
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
	bool multi = o->queues > 1;
	struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
						 (multi ? IFF_MULTI_QUEUE : 0))};
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
			       : e == E2BIG	? "; it has no more queues"
			       : e == EINVAL && multi
				       ? "; it is not a tap of several queues (ip tuntap add … "
					 "multi_queue)"
			       : e == EINVAL	? "; it is not a tap of one queue"
						: "");
	}
	*out = fd;
	return 0;
}

/* name: of the interface that the other queues have, filled in by the first. */
static int take_fd(const char *id, const char *text, char name[IFNAMSIZ], int *out, struct err *err)
{
	struct ifreq ifr = {0};
	uint64_t n;
	int fd;

	if (parse_u64(text, &n) || n > 1u << 20 || fcntl((int)n, F_GETFD) < 0) {
		return err_set(err, EBADF, "-netdev tap,id=%s: fd=%s is not an open descriptor", id,
			       text);
	}
	if (ioctl((int)n, TUNGETIFF, &ifr)) {
		return err_set(err, errno, "-netdev tap,id=%s: fd=%s is not a tap", id, text);
	}
	if ((ifr.ifr_flags & (IFF_TAP | IFF_VNET_HDR | IFF_NO_PI)) !=
	    (IFF_TAP | IFF_VNET_HDR | IFF_NO_PI)) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: fd=%s has to be opened with IFF_TAP, "
			       "IFF_NO_PI and IFF_VNET_HDR", id, text);
	}
	if (*name && (strcmp(name, ifr.ifr_name) || !(ifr.ifr_flags & IFF_MULTI_QUEUE))) {
		return err_set(err, EINVAL, "-netdev tap,id=%s: fd=%s is not another queue of the same "
			       "interface, opened with IFF_MULTI_QUEUE", id, text);
	}
	memcpy(name, ifr.ifr_name, IFNAMSIZ);
	fd = fcntl((int)n, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK)) {
		int e = errno;

		if (fd >= 0) {
			close(fd);
		}
		return err_set(err, e, "-netdev tap,id=%s: fd=%s: %s", id, text, strerror(e));
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

/* One queue from its descriptor, which it takes. */
static int queue_new(int fd, const struct tap_options *o, struct net_port **out, struct err *err)
{
	struct tap *t = calloc(1, sizeof(*t));
	int ret;

	if (!t) {
		close(fd);
		return err_set(err, ENOMEM, "-netdev tap,id=%s: out of memory", o->id);
	}
	t->fd = fd;
	t->port.ops = &tap_ops;
	snprintf(t->port.id, sizeof(t->port.id), "%s", o->id);
	ret = set_up(t, o, err);
	if (ret) {
		tap_close(&t->port);
		return ret;
	}
	*out = &t->port;
	return 0;
}

/* The first port is the interface, the others are its further queues: detached for now. */
static int queue_add(struct net_port **first, struct net_port *p, const struct tap_options *o,
		     struct err *err)
{
	struct net_port **more;
	int ret;

	if (!*first) {
		*first = p;
		return 0;
	}
	ret = tap_set_active(p, false);
	more = ret ? NULL : realloc((*first)->more, ((*first)->nmore + 1) * sizeof(*more));
	if (!more) {
		tap_close(p);
		return err_set(err, ret ? -ret : ENOMEM, "-netdev tap,id=%s: cannot set a queue aside: "
			       "%s", o->id, strerror(ret ? -ret : ENOMEM));
	}
	(*first)->more = more;
	more[(*first)->nmore++] = p;
	return 0;
}

static int queue_open(const struct tap_options *o, const char *fd_text, char name[IFNAMSIZ],
		      struct net_port **first, struct err *err)
{
	struct net_port *p = NULL;
	int fd = -1, ret;

	ret = fd_text ? take_fd(o->id, fd_text, name, &fd, err) : open_by_name(o, &fd, err);
	if (!ret) {
		ret = queue_new(fd, o, &p, err);
	}
	return ret ? ret : queue_add(first, p, o, err);
}

static int queues_open(struct tap_options *o, struct net_port **first, struct err *err)
{
	char name[IFNAMSIZ] = "", *fds = o->fd ? o->fd : o->fds, *text;
	unsigned n = 0;
	int ret = 0;

	if (!fds) {
		for (unsigned i = 0; !ret && i < MAX(o->queues, 1u); i++) {
			ret = queue_open(o, NULL, name, first, err);
		}
		return ret;
	}
	while (!ret && (text = strsep(&fds, ":"))) {
		if (n++ == QUEUES_MAX) {
			return err_set(err, EINVAL, "-netdev tap,id=%s: fds= names more than %d "
				       "descriptors", o->id, QUEUES_MAX);
		}
		ret = queue_open(o, text, name, first, err);
	}
	return ret;
}

int net_tap_open(struct opts *o, const struct net_env *env, struct net_port **out,
		 struct err *err)
{
	struct tap_options to = {0};
	struct net_port *first = NULL;
	int ret;

	ret = opts_read(o, descs, &to, err);
	if (!ret) {
		ret = check_options(&to, err);
	}
	if (!ret) {
		ret = queues_open(&to, &first, err);
	}
	if (ret && first) {
		tap_close(first);
	} else {
		*out = first;
	}
	opts_free_struct(descs, &to);
	return ret;
}
