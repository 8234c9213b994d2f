/*
 * The same requests without io_uring, for hosts that forbid it: threads of the loop's own that
 * make one call each at a time.
 *
 * The loop's owner pushes to `todo`, a thread takes one, makes the call, and puts it on `done`,
 * whose first entry posts to the loop. Requests keep no order, as in a ring. A request that
 * io_uring would end at once costs two changes of thread here.
 *
 * Threads: `todo` and `done` are under `lock`. Started by the owner before isolation; each
 * first calls `init`, in which it narrows itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "event/loop_int.h"
#include "event/uring_int.h"

#define THREADS 8

struct uring_threads {
	struct loop *loop;
	struct uring *uring;
	uring_finish_fn *finish;
	loop_work_fn *init;
	void *init_arg;
	pthread_t thread[THREADS];
	unsigned count;
	int fd[URING_FILES];

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t more, ready;
	struct uring_queue todo, done;
	unsigned entered;
	bool stop;

	struct loop_work work;
};

static int result_of(ssize_t n)
{
	return n < 0 ? -errno : (int)n;
}

/* #syscalls(io): preadv pwritev2 fdatasync fallocate */
static int call(const struct uring_threads *t, const struct uring_req *r)
{
	int fd = t->fd[r->slot], n = (int)r->niov;

	switch (r->op) {
	case IORING_OP_READV:
		return result_of(preadv(fd, r->iov, n, (off_t)r->off));
	case IORING_OP_WRITEV:
		return result_of(pwritev2(fd, r->iov, n, (off_t)r->off, r->arg));
	case IORING_OP_FSYNC:
		return result_of(fdatasync(fd));
	default:
		return result_of(fallocate(fd, r->arg, (off_t)r->off, (off_t)r->len));
	}
}

static void *worker(void *arg)
{
	struct uring_threads *t = arg;

	if (t->init) {
		t->init(t->init_arg);
	}
	pthread_mutex_lock(&t->lock);
	t->entered++;
	pthread_cond_signal(&t->ready);
	for (;;) {
		struct uring_req *r;
		bool first;
		int res;

		while (!t->todo.head && !t->stop) {
			pthread_cond_wait(&t->more, &t->lock);
		}
		if (!t->todo.head) {
			break;
		}
		r = uring_queue_pop(&t->todo);
		pthread_mutex_unlock(&t->lock);
		res = call(t, r);
		pthread_mutex_lock(&t->lock);
		r->result = res;
		first = !t->done.head;
		uring_queue_push(&t->done, r);
		if (first) {
			loop_post(t->loop, &t->work);
		}
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* On the loop. */
static void finish_all(void *arg)
{
	struct uring_threads *t = arg;
	struct uring_queue done;

	pthread_mutex_lock(&t->lock);
	done = t->done;
	if (!done.head) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	uring_queue_init(&t->done);
	pthread_mutex_unlock(&t->lock);
	while (done.head) {
		struct uring_req *r = done.head;

		done.head = r->next; /* r may be gone or queued again below */
		t->finish(t->uring, r, r->result);
	}
}

void uring_threads_push(struct uring_threads *t, struct uring_req *r)
{
	pthread_mutex_lock(&t->lock);
	uring_queue_push(&t->todo, r);
	pthread_cond_signal(&t->more);
	pthread_mutex_unlock(&t->lock);
}

void uring_threads_file(struct uring_threads *t, int slot, int fd)
{
	t->fd[slot] = fd;
}

void uring_threads_free(struct uring_threads *t)
{
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->more);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->count; i++) {
		pthread_join(t->thread[i], NULL);
	}
	loop_work_cancel(t->loop, &t->work);
	pthread_cond_destroy(&t->more);
	pthread_cond_destroy(&t->ready);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* #syscalls(start): clone3 mmap mprotect rt_sigprocmask */
int uring_threads_new(struct loop *l, loop_work_fn *init, void *arg, struct uring *u,
		      uring_finish_fn *finish, struct uring_threads **out)
{
	struct uring_threads *t = calloc(1, sizeof(*t));
	int r = 0;

	if (!t) {
		return -ENOMEM;
	}
	t->loop = l;
	t->uring = u;
	t->finish = finish;
	t->init = init;
	t->init_arg = arg;
	t->work = (struct loop_work){.fn = finish_all, .arg = t};
	uring_queue_init(&t->todo);
	uring_queue_init(&t->done);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->more, NULL);
	pthread_cond_init(&t->ready, NULL);
	while (t->count < THREADS && !r) {
		r = loop_thread_create(&t->thread[t->count], worker, t);
		t->count += r == 0;
	}
	if (!t->count) {
		uring_threads_free(t);
		return r;
	}
	pthread_mutex_lock(&t->lock);
	while (t->entered < t->count) {
		pthread_cond_wait(&t->ready, &t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	*out = t;
	return 0;
}
