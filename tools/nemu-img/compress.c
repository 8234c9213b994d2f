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

struct compress_pool {
	struct loop *loop;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t some;
	struct compress_job *first, **last;
	bool stop;
	pthread_t thread[MAX_THREADS];
	unsigned threads;
};

static void finished(void *arg)
{
	struct compress_job *j = arg;

	j->done(j->opaque);
}

static void work(struct compress_job *j)
{
	size_t i = 0;

	for (size_t off = 0; off < j->len; off += j->cluster, i++) {
		size_t n = MIN(j->cluster, j->len - off);

		if (j->sparse && img_is_zero(j->in + off, n)) {
			j->out_len[i] = SIZE_MAX;
		} else if (n < j->cluster) {
			j->out_len[i] = 0; /* the image ends within the cluster */
		} else {
			j->out_len[i] = blk_image_compress(j->node, j->in + off, n, j->out + off,
							   n - 1);
		}
	}
}

static void *compress_thread(void *arg)
{
	struct compress_pool *p = arg;
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
		work(j);
		loop_post(p->loop, &j->work);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int compress_pool_new(struct compress_pool **out, struct loop *loop, unsigned threads,
		      struct err *err)
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
	for (; p->threads < MIN(threads, MAX_THREADS); p->threads++) {
		r = pthread_create(&p->thread[p->threads], NULL, compress_thread, p);
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
		pthread_join(p->thread[i], NULL);
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
