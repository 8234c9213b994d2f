/*
 * Between uring.c and uring_threads.c.
 */
#ifndef EVENT_URING_INT_H
#define EVENT_URING_INT_H

#include "event/uring.h"

#define URING_FILES 64

/* First in, first out, by req->next. */
struct uring_queue {
	struct uring_req *head, **end;
};

static inline void uring_queue_init(struct uring_queue *q)
{
	q->head = NULL;
	q->end = &q->head;
}

static inline void uring_queue_push(struct uring_queue *q, struct uring_req *r)
{
	r->next = NULL;
	*q->end = r;
	q->end = &r->next;
}

static inline struct uring_req *uring_queue_pop(struct uring_queue *q)
{
	struct uring_req *r = q->head;

	q->head = r->next;
	if (!q->head) {
		q->end = &q->head;
	}
	return r;
}

/* uring_threads.c: threads that make the calls. Owner of the loop; finish(u, req, res) is
 * called there for each request, from the loop. */
struct uring_threads;
typedef void uring_finish_fn(struct uring *u, struct uring_req *r, int res);
int uring_threads_new(struct loop *l, loop_work_fn *init, void *arg, struct uring *u,
		      uring_finish_fn *finish, struct uring_threads **out);
void uring_threads_free(struct uring_threads *t); /* nothing in flight */
void uring_threads_push(struct uring_threads *t, struct uring_req *r);
void uring_threads_file(struct uring_threads *t, int slot, int fd);

#endif
