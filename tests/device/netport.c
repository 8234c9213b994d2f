/*
 * A network back end for tests: see netport.h.
 */
#include "netport.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/iov.h"

static struct netport *of_port(struct net_port *p)
{
	return container_of(p, struct netport, port);
}

/* Brings what is watched in line with what is to be told. On the loop. */
static void update(void *arg)
{
	struct netport *p = arg;
	uint32_t events;

	pthread_mutex_lock(&p->lock);
	events = (p->rx_on && (p->in_head != p->in_tail || p->recv_error) ? EPOLLIN : 0u) |
		 (p->tx_on && !p->full ? EPOLLOUT : 0u);
	pthread_mutex_unlock(&p->lock);
	if (p->watch.loop) {
		loop_fd_mod(&p->watch, events);
	}
}

static void changed(struct netport *p)
{
	if (!p->loop) {
		return;
	}
	if (loop_is_current(p->loop)) {
		update(p);
	} else {
		loop_post(p->loop, &p->work);
	}
}

static void ready(void *opaque, uint32_t events)
{
	struct netport *p = opaque;

	if (events & EPOLLOUT) {
		p->client.tx_ready(p->client.opaque);
	}
	if (events & EPOLLIN && p->rx_on) {
		p->client.rx_ready(p->client.opaque);
	}
	update(p);
}

static void put_locked(struct netport *p, const struct virtio_net_hdr_v1 *h, const void *data,
		       size_t len)
{
	struct netport_frame *f = &p->in[p->in_tail % NETPORT_FRAMES];

	assert(p->in_tail - p->in_head < NETPORT_FRAMES);
	f->hdr = h ? *h : (struct virtio_net_hdr_v1){0};
	f->len = len;
	f->data = malloc(len + 1);
	assert(f->data != NULL);
	memcpy(f->data, data, len);
	p->in_tail++;
}

static ssize_t port_send(struct net_port *np, const struct iovec *iov, unsigned cnt)
{
	struct netport *p = of_port(np);
	struct iov_cur cur = iov_cur_init(iov, cnt);
	struct netport_frame f;

	assert(cnt <= 1024);
	pthread_mutex_lock(&p->lock);
	if (p->full) {
		pthread_mutex_unlock(&p->lock);
		return -EAGAIN;
	}
	f.len = iov_len(iov, cnt);
	assert(f.len > sizeof(f.hdr));
	iov_cur_read(&cur, &f.hdr, sizeof(f.hdr));
	f.len -= sizeof(f.hdr);
	f.data = malloc(f.len);
	assert(f.data != NULL);
	iov_cur_read(&cur, f.data, f.len);
	if (p->echo && p->in_tail - p->in_head < NETPORT_FRAMES) {
		put_locked(p, NULL, f.data, f.len);
	}
	if (p->nout < NETPORT_FRAMES) {
		p->out[p->nout] = f;
	} else {
		free(f.data);
	}
	p->nout++;
	pthread_mutex_unlock(&p->lock);
	update(p);
	return (ssize_t)(f.len + sizeof(f.hdr));
}

static ssize_t port_recv(struct net_port *np, const struct iovec *iov, unsigned cnt)
{
	struct netport *p = of_port(np);
	struct iov_cur cur = iov_cur_init(iov, cnt);
	struct netport_frame f;
	ssize_t n;

	assert(cnt <= 1024 && p->rx_on);
	pthread_mutex_lock(&p->lock);
	p->recvs++;
	if (p->recv_error || p->in_head == p->in_tail) {
		n = p->recv_error ? p->recv_error : -EAGAIN;
		pthread_mutex_unlock(&p->lock);
		return n;
	}
	f = p->in[p->in_head++ % NETPORT_FRAMES];
	pthread_mutex_unlock(&p->lock);
	/* Cut where the room ends, as readv(2) of a tap does. */
	n = (ssize_t)iov_cur_write(&cur, &f.hdr, sizeof(f.hdr));
	n += (ssize_t)iov_cur_write(&cur, f.data, f.len);
	free(f.data);
	return n;
}

static void port_rx_enable(struct net_port *np, bool on)
{
	of_port(np)->rx_on = on;
	update(of_port(np));
}

static void port_tx_poll(struct net_port *np, bool on)
{
	of_port(np)->tx_on = on;
	update(of_port(np));
}

static unsigned port_offloads(struct net_port *np)
{
	return of_port(np)->can;
}

static int port_set_offloads(struct net_port *np, unsigned rx)
{
	struct netport *p = of_port(np);

	if (rx & ~p->can) {
		return -EINVAL;
	}
	p->taken = rx;
	return 0;
}

static int port_attach(struct net_port *np, struct loop *l, const struct net_client *c)
{
	struct netport *p = of_port(np);

	assert(loop_is_current(l));
	p->client = *c;
	p->loop = l;
	p->attached++;
	return loop_fd_add(l, &p->watch, p->fd, 0, ready, p);
}

static void port_detach(struct net_port *np)
{
	struct netport *p = of_port(np);

	loop_fd_del(&p->watch);
	loop_work_cancel(p->loop, &p->work);
	p->rx_on = p->tx_on = false;
	p->loop = NULL;
	p->attached--;
}

static void port_close(struct net_port *np)
{
	netport_fini(of_port(np));
}

static const struct net_port_ops ops = {
	.type = "test",
	.send = port_send,
	.recv = port_recv,
	.rx_enable = port_rx_enable,
	.tx_poll = port_tx_poll,
	.offloads = port_offloads,
	.set_offloads = port_set_offloads,
	.attach = port_attach,
	.detach = port_detach,
	.close = port_close,
};

void netport_init(struct netport *p, unsigned can)
{
	memset(p, 0, sizeof(*p));
	p->port.ops = &ops;
	strcpy(p->port.id, "n0");
	p->work = (struct loop_work){.fn = update, .arg = p};
	p->fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	assert(p->fd >= 0);
	pthread_mutex_init(&p->lock, NULL);
	p->can = can;
}

void netport_forget(struct netport *p)
{
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->nout && i < NETPORT_FRAMES; i++) {
		free(p->out[i].data);
	}
	p->nout = 0;
	pthread_mutex_unlock(&p->lock);
}

void netport_fini(struct netport *p)
{
	assert(!p->attached && !p->port.claimed);
	netport_forget(p);
	while (p->in_head != p->in_tail) {
		free(p->in[p->in_head++ % NETPORT_FRAMES].data);
	}
	close(p->fd);
	pthread_mutex_destroy(&p->lock);
}

void netport_put(struct netport *p, const struct virtio_net_hdr_v1 *h, const void *data,
		 size_t len)
{
	pthread_mutex_lock(&p->lock);
	put_locked(p, h, data, len);
	pthread_mutex_unlock(&p->lock);
	changed(p);
}

void netport_full(struct netport *p, bool full)
{
	pthread_mutex_lock(&p->lock);
	p->full = full;
	pthread_mutex_unlock(&p->lock);
	changed(p);
}

unsigned netport_sent(struct netport *p)
{
	unsigned n;

	pthread_mutex_lock(&p->lock);
	n = p->nout;
	pthread_mutex_unlock(&p->lock);
	return n;
}

unsigned netport_waiting(struct netport *p)
{
	unsigned n;

	pthread_mutex_lock(&p->lock);
	n = p->in_tail - p->in_head;
	pthread_mutex_unlock(&p->lock);
	return n;
}
