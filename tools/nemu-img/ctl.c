/*
 * Progress, and what happens when somebody interrupts.
 *
 * SIGINT, SIGTERM, SIGHUP and SIGUSR1 are blocked in every thread; one thread waits for them. It prints the
 * progress, or removes the unfinished file and lets the signal end the process as if nobody had
 * waited for it. That works at any moment, whatever the main thread does or waits for.
 *
 * Images that are changed in place (rebase, commit, resize, snapshot, check -r) need nothing of
 * that: whenever they stop they are consistent, see docs/qcow2.md.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "img.h"

struct img_ctl {
	pthread_t thread;
	sigset_t signals;
	pthread_mutex_t lock; /* of what follows */
	char *unfinished;
	_Atomic unsigned percent; /* times 100 */
	/* main thread */
	bool shown;
	unsigned printed; /* percent times 100, the last that was printed */
};

static void *signal_thread(void *arg)
{
	struct img_ctl *c = arg;

	for (;;) {
		sigset_t one;
		unsigned p;
		int sig;

		if (sigwait(&c->signals, &sig)) {
			continue;
		}
		if (sig == SIGUSR2) { /* from img_ctl_free() */
			return NULL;
		}
		if (sig == SIGUSR1) {
			p = atomic_load(&c->percent);
			fprintf(stderr, "    (%u.%02u/100%%)\n", p / 100, p % 100);
			continue;
		}
		pthread_mutex_lock(&c->lock);
		if (c->unfinished) {
			unlink(c->unfinished);
		}
		signal(sig, SIG_DFL);
		sigemptyset(&one);
		sigaddset(&one, sig);
		pthread_sigmask(SIG_UNBLOCK, &one, NULL);
		raise(sig);
		_exit(128 + sig);
	}
}

int img_ctl_new(struct img_ctl **out, struct err *err)
{
	struct img_ctl *c = calloc(1, sizeof(*c));
	static const int sigs[] = {SIGINT, SIGTERM, SIGHUP};
	int r;

	if (!c) {
		return err_set(err, ENOMEM, "out of memory");
	}
	pthread_mutex_init(&c->lock, NULL);
	sigemptyset(&c->signals);
	sigaddset(&c->signals, SIGUSR1);
	sigaddset(&c->signals, SIGUSR2);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++) {
		struct sigaction old;

		/* what was ignored stays so: nohup */
		if (!sigaction(sigs[i], NULL, &old) && old.sa_handler != SIG_IGN) {
			sigaddset(&c->signals, sigs[i]);
		}
	}
	pthread_sigmask(SIG_BLOCK, &c->signals, NULL);
	r = pthread_create(&c->thread, NULL, signal_thread, c);
	if (r) {
		free(c);
		return err_set(err, r, "a thread cannot be started: %s", strerror(r));
	}
	*out = c;
	return 0;
}

void img_ctl_free(struct img_ctl *c)
{
	pthread_kill(c->thread, SIGUSR2);
	pthread_join(c->thread, NULL);
	pthread_mutex_destroy(&c->lock);
	free(c->unfinished);
	free(c);
}

void img_ctl_unfinished(struct img_ctl *c, const char *path)
{
	pthread_mutex_lock(&c->lock);
	free(c->unfinished);
	c->unfinished = path ? strdup(path) : NULL;
	pthread_mutex_unlock(&c->lock);
}

int img_ctl_finish(struct img_ctl *c, const char *from, const char *to)
{
	int r;

	pthread_mutex_lock(&c->lock);
	r = rename(from, to) < 0 ? -errno : 0;
	if (!r) {
		free(c->unfinished);
		c->unfinished = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* --- progress --- */

static void progress_print(struct img_ctl *c, unsigned percent)
{
	printf("    (%u.%02u/100%%)\r", percent / 100, percent % 100);
	fflush(stdout);
	c->printed = percent;
}

void img_progress_start(struct img_ctl *c, bool shown)
{
	c->shown = shown;
	if (shown) {
		progress_print(c, 0);
	}
}

/* A line for each percent is enough. */
void img_progress(struct img_ctl *c, uint64_t done, uint64_t total)
{
	unsigned p = total ? (unsigned)((unsigned __int128)done * 10000 / total) : 10000;

	p = MIN(p, 10000);
	atomic_store(&c->percent, p);
	if (c->shown && p >= c->printed + 100) {
		progress_print(c, p);
	}
}

void img_progress_end(struct img_ctl *c, bool complete)
{
	if (!c->shown) {
		return;
	}
	if (complete) {
		progress_print(c, 10000);
	}
	putchar('\n');
	fflush(stdout);
	c->shown = false;
}
