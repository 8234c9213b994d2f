/*
 * Threads that make compressed clusters, so that it does not take the time of one processor.
 *
 * Jobs are taken in the order in which they came; each is done by one thread, and its done() is
 * called on the loop. What a thread works on belongs to it until then.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"

#define MAX_THREADS 16

struct compress_pool;
struct worker {
	struct compress_pool *pool;
	struct blk_packer *packer;
	pthread_t thread;
};
struct compress_pool {
	struct loop *loop;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t some;
	struct compress_job *first, **last;
	bool stop;
	struct worker worker[MAX_THREADS];
	unsigned threads;
};

static void finished(void *arg)
{
	struct compress_job *j = arg;

	j->done(j->opaque);
}

static void work(struct blk_packer *p, struct compress_job *j)
{
	size_t i = 0;

	for (size_t off = 0; off < j->len; off += j->cluster, i++) {
		size_t n = MIN(j->cluster, j->len - off);

		if (j->sparse && img_is_zero(j->in + off, n)) {
			j->out_len[i] = SIZE_MAX;
		} else if (n < j->cluster) {
			j->out_len[i] = 0; /* the image ends within the cluster */
		} else {
			j->out_len[i] = p->pack(p, j->in + off, n, j->out + off, n - 1);
		}
	}
}

static void *compress_thread(void *arg)
{
	const struct worker *w = arg;
	struct compress_pool *p = w->pool;
	struct compress_job *j;

	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		j = p->first;
		if (!j) {
			pthread_cond_wait(&p->some, &p->lock);
			continue;
		}
		p->first = j->next;
		if (!p->first) {
			p->last = &p->first;
		}
		pthread_mutex_unlock(&p->lock);
		work(w->packer, j);
		loop_post(p->loop, &j->work);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int worker_start(struct compress_pool *p, struct blk_node *node)
{
	struct worker *w = &p->worker[p->threads];
	int r;

	w->pool = p;
	w->packer = blk_image_packer(node);
	if (!w->packer) {
		return ENOMEM;
	}
	r = pthread_create(&w->thread, NULL, compress_thread, w);
	if (r) {
		w->packer->free(w->packer);
		return r;
	}
	p->threads++;
	return 0;
}

int compress_pool_new(struct compress_pool **out, struct loop *loop, struct blk_node *node,
		      unsigned threads, struct err *err)
{
	struct compress_pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p) {
		return err_set(err, ENOMEM, "out of memory");
	}
	p->loop = loop;
	p->last = &p->first;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->some, NULL);
	while (p->threads < MIN(threads, MAX_THREADS)) {
		r = worker_start(p, node);
		if (r) {
			compress_pool_free(p);
			return err_set(err, r, "a thread cannot be started: %s", strerror(r));
		}
	}
	*out = p;
	return 0;
}

void compress_pool_free(struct compress_pool *p)
{
	if (!p) {
		return;
	}
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->some);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++) {
		pthread_join(p->worker[i].thread, NULL);
		p->worker[i].packer->free(p->worker[i].packer);
	}
	pthread_cond_destroy(&p->some);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void compress_pool_add(struct compress_pool *p, struct compress_job *j)
{
	j->work = (struct loop_work){.fn = finished, .arg = j};
	j->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->last = j;
	p->last = &j->next;
	pthread_cond_signal(&p->some);
	pthread_mutex_unlock(&p->lock);
}
