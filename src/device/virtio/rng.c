/*
 * virtio-rng. Virtio 1.2, section 5.4.
 *
 * One queue; each chain is filled from getrandom(2), or from a character device that is read
 * without blocking. A driver gets at most CHUNK bytes for one request, and at most max_bytes in
 * a period; what is asked beyond waits in its ring until the period ends. After a number of
 * requests the loop gets to its other work, so that no driver keeps it for itself.
 *
 * States of the queue: idle (waits for a kick), spent (waits for the timer), dry (waits for the
 * source to be readable). Nothing is ever in flight between two calls.
 *
 * Threads: the queue's loop. Untrusted: the driver.
 */
#include "device/virtio/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/log.h"
#include "spec/virtio.h"

#define QUEUE_SIZE 8
#define MAX_SEGS   16
#define CHUNK	   4096u
#define BURST	   64 /* requests in one go */
#define NS_PER_MS  UINT64_C(1000000)

struct virtio_rng {
	struct virtio_dev vd;
	int fd; /* -1: getrandom(2) */
	uint64_t max_bytes, period_ns;
	uint64_t left; /* of max_bytes in this period */
	struct loop_timer period;
	struct loop_fd readable;
};

static struct virtio_rng *of_vd(struct virtio_dev *vd)
{
	return container_of(vd, struct virtio_rng, vd);
}

static uint64_t rng_features(struct virtio_dev *vd)
{
	(void)vd;
	return 0;
}

/* Bytes got, 0 if the source has none now, -errno. #syscalls(main, io): getrandom read */
static ssize_t source_read(struct virtio_rng *g, void *buf, size_t len)
{
	ssize_t n = g->fd < 0 ? getrandom(buf, len, 0) : read(g->fd, buf, len);

	if (n >= 0) {
		return n > 0 || g->fd < 0 ? n : -ENODATA;
	}
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static void rng_serve(struct virtio_rng *g);

static void period_over(void *opaque)
{
	struct virtio_rng *g = opaque;

	g->left = g->max_bytes;
	rng_serve(g);
}

static void source_ready(void *opaque, uint32_t events)
{
	struct virtio_rng *g = opaque;

	(void)events;
	loop_fd_del(&g->readable);
	rng_serve(g);
}

/* Nothing to be had now: come back when there is. */
static void rng_dry(struct virtio_rng *g, struct virtq *q)
{
	int r;

	if (g->fd < 0) {
		virtq_kick_self(q); /* interrupted by a signal */
		return;
	}
	r = loop_fd_add(q->loop, &g->readable, g->fd, EPOLLIN, source_ready, g);
	if (r < 0) {
		log_guest(g->vd.name, "cannot wait for the random source: %s", strerror(-r));
	}
}

/* Serves one request; false if it has to wait. */
static bool rng_one(struct virtio_rng *g, struct virtq *q, const struct virtq_chain *c)
{
	struct iov_cur cur = iov_cur_init(c->iov + c->n_out, c->n_in);
	uint8_t buf[CHUNK];
	size_t want = MIN(c->in_len, CHUNK);
	ssize_t n;

	if (g->max_bytes) {
		want = MIN(want, g->left);
	}
	n = source_read(g, buf, want);
	if (n <= 0) {
		virtq_unpop(q, c);
		if (n == 0) {
			rng_dry(g, q);
		} else {
			log_guest(g->vd.name, "the random source fails: %s", strerror((int)-n));
		}
		return false;
	}
	iov_cur_write(&cur, buf, (size_t)n);
	virtq_push(q, c, (uint32_t)n);
	if (g->max_bytes) {
		g->left -= (uint64_t)n;
	}
	return true;
}

/* True if the period's bytes are used up; then the timer runs. */
static bool rng_spent(struct virtio_rng *g)
{
	if (!g->max_bytes) {
		return false;
	}
	if (!g->period.armed) {
		g->left = g->max_bytes;
		loop_timer_arm(&g->period, loop_now_ns(g->period.loop) + g->period_ns);
	}
	return g->left == 0;
}

static void rng_serve(struct virtio_rng *g)
{
	struct virtq *q = &g->vd.queue[0];
	struct iovec iov[MAX_SEGS];
	struct virtq_chain c;
	unsigned served = 0;

	if (!virtq_running(q) || g->readable.loop) {
		return;
	}
	do {
		while (!virtq_empty(q) && !rng_spent(g) && served < BURST) {
			if (virtq_pop(q, &c, iov, MAX_SEGS) <= 0) {
				break;
			}
			if (c.out_len || !c.in_len) {
				virtio_broken(&g->vd, "request that is not a buffer to fill");
				virtq_unpop(q, &c);
				break;
			}
			served++;
			if (!rng_one(g, q, &c)) {
				virtq_notify(q);
				return;
			}
		}
		virtq_notify(q);
		if (served == BURST) {
			virtq_kick_self(q);
			return;
		}
	} while (virtq_kicks_on(q) && !rng_spent(g));
}

static void rng_kick(struct virtq *q)
{
	rng_serve(of_vd(q->vd));
}

static void rng_queue_start(struct virtq *q)
{
	struct virtio_rng *g = of_vd(q->vd);

	g->left = g->max_bytes;
	loop_timer_init(q->loop, &g->period, period_over, g);
}

static void rng_queue_stop(struct virtq *q)
{
	struct virtio_rng *g = of_vd(q->vd);

	loop_timer_disarm(&g->period);
	loop_fd_del(&g->readable);
	virtq_stopped(q);
}

/* #syscalls(main): close */
static void rng_destroy(struct virtio_dev *vd)
{
	struct virtio_rng *g = of_vd(vd);

	virtio_dev_fini(vd);
	if (g->fd >= 0) {
		close(g->fd);
	}
	free(g);
}

static const struct virtio_ops rng_ops = {
	.name = "virtio-rng",
	.device_id = VIRTIO_ID_ENTROPY,
	.pci_class = 0x00ff00, /* unclassified */
	.features = rng_features,
	.queue_start = rng_queue_start,
	.queue_kick = rng_kick,
	.queue_stop = rng_queue_stop,
	.destroy = rng_destroy,
};

/* #syscalls(start): openat fstat close */
static int source_open(const char *filename, const char *id, struct err *err)
{
	struct stat st;
	int fd = open(filename, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	if (fd < 0) {
		return err_set(err, errno, "%s: random source '%s' cannot be opened: %s", id,
			       filename, strerror(errno));
	}
	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode)) {
		close(fd);
		return err_set(
			err, EINVAL,
			"%s: random source '%s' is no character device; use /dev/urandom, "
			"or rng-builtin",
			id, filename);
	}
	return fd;
}

int virtio_rng_new(struct vm *vm, const struct virtio_rng_config *cfg, const char *id,
		   struct virtio_dev **out, struct err *err)
{
	struct virtio_rng *g = calloc(1, sizeof(*g));
	int r;

	if (!g) {
		return err_set(err, ENOMEM, "%s: out of memory", id);
	}
	g->fd = -1;
	if (cfg->max_bytes && cfg->period_ms) {
		g->max_bytes = cfg->max_bytes;
		g->period_ns = cfg->period_ms * NS_PER_MS;
	}
	if (cfg->filename) {
		g->fd = source_open(cfg->filename, id, err);
		if (g->fd < 0) {
			r = g->fd;
			free(g);
			return r;
		}
	}
	r = virtio_dev_init(&g->vd, vm, &rng_ops, id, 1, QUEUE_SIZE, cfg->loop);
	if (r < 0) {
		err_set(err, -r, "%s: no eventfd (%s)", id, strerror(-r));
		rng_destroy(&g->vd);
		return r;
	}
	*out = &g->vd;
	return 0;
}
