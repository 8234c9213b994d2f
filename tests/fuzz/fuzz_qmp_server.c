/*
 * QMP clients of a server, up to the commands: whole conversations of three clients, who send, read
 * slowly or never, hang up, and get answers late. The machine is a stand-in of this file.
 *
 * Whatever came: queues and buffers keep their limits, all that a client is sent is JSON with one
 * value a line, and a new client gets the answer to its question.
 *
 * Input: a byte that says what and who, for a text its length in two more, the text; and so on.
 *
 * #covers: src/control/qmp_client.c src/control/qmp_commands.c src/control/qmp_text.c
 * #covers: src/control/qmp_frame.c
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "control/qmp_int.h"

#define CLIENTS 3
#define LATER	16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	signal(SIGPIPE, SIG_IGN); /* as in the program */
	return 0;
}

/* --- a machine: what QMP calls of machine.h (linked before the library's) --- */

struct machine {
	enum run_state state;
	struct vm_config cfg;
	struct machine_listener *listener;
	struct {
		machine_done_fn *fn;
		void *opaque;
	} later[LATER];
	unsigned nlater;
};

static void tell(struct machine *m, enum machine_event ev)
{
	m->listener->event(m->listener->opaque, ev, false, "host-qmp-quit");
}

static void later(struct machine *m, machine_done_fn *fn, void *opaque)
{
	if (m->nlater == LATER) {
		fn(opaque);
		return;
	}
	m->later[m->nlater].fn = fn;
	m->later[m->nlater++].opaque = opaque;
}

static void now(struct machine *m)
{
	while (m->nlater) {
		m->nlater--;
		m->later[m->nlater].fn(m->later[m->nlater].opaque);
	}
}

enum run_state machine_state(const struct machine *m)
{
	return m->state;
}

const char *run_state_name(enum run_state s)
{
	return s == RUN_RUNNING ? "running" : "paused";
}

void machine_listen(struct machine *m, struct machine_listener *l)
{
	m->listener = l;
}

void machine_unlisten(struct machine_listener *l)
{
}

void machine_stop(struct machine *m, machine_done_fn *done, void *opaque)
{
	m->state = RUN_PAUSED;
	tell(m, MACHINE_STOP);
	later(m, done, opaque);
}

int machine_cont(struct machine *m, struct err *err)
{
	if (m->nlater) {
		return err_set(err, EINVAL, "not now");
	}
	m->state = RUN_RUNNING;
	tell(m, MACHINE_RESUME);
	return 0;
}

void machine_reset(struct machine *m, machine_done_fn *done, void *opaque)
{
	tell(m, MACHINE_RESET);
	later(m, done, opaque);
}

void machine_powerdown(struct machine *m)
{
	tell(m, MACHINE_POWERDOWN);
}

void machine_quit(struct machine *m, const char *reason)
{
	tell(m, MACHINE_SHUTDOWN);
}

const struct vm_config *machine_config(const struct machine *m)
{
	return &m->cfg;
}

unsigned machine_cpus(const struct machine *m)
{
	return m->cfg.cpus;
}

pid_t machine_cpu_tid(const struct machine *m, unsigned cpu)
{
	return (pid_t)cpu + 1;
}

const char *machine_iothread(const struct machine *m, unsigned i, pid_t *tid)
{
	*tid = 7;
	return i ? NULL : "io0";
}

const char *machine_device_class(unsigned i, const char **doc)
{
	return NULL;
}

struct chr *machine_chardev(const struct machine *m, unsigned i)
{
	return NULL;
}

/* --- clients --- */

struct far { /* the far end of one */
	int fd;
	struct qmp_frame frame;
};
struct world {
	struct loop *loop;
	struct qmp_server *s;
	struct machine m;
	struct far far[CLIENTS];
};

static void settle(struct world *w)
{
	for (unsigned i = 0; i < 8; i++) {
		loop_step(w->loop, 0);
	}
}

static void arrive(struct world *w, struct far *f)
{
	int sv[2], rc;

	if (f->fd >= 0) {
		return;
	}
	rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv);
	assert(rc == 0);
	rc = qmp_client_new(w->s, NULL, sv[0], sv[0]);
	assert(rc == 0);
	f->fd = sv[1];
}

static void leave(struct far *f)
{
	if (f->fd >= 0) {
		close(f->fd);
		f->fd = -1;
	}
	qmp_frame_fini(&f->frame);
	f->frame = (struct qmp_frame){0};
}

static void say(struct far *f, const void *text, size_t len)
{
	if (f->fd >= 0 && send(f->fd, text, len, MSG_NOSIGNAL) < 0) {
		assert(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
	}
}

/* All there is; the number of values, the last answer in *last if that is wanted. */
static unsigned hear(struct far *f, json_t **last)
{
	unsigned values = 0;
	char buf[4096];
	ssize_t n;

	while (f->fd >= 0 && (n = read(f->fd, buf, sizeof(buf))) > 0) {
		size_t at = 0;

		while (at < (size_t)n) {
			size_t used = 0;
			enum qmp_frame_result r =
				qmp_frame_feed(&f->frame, buf + at, (size_t)n - at, &used);

			at += used;
			if (r == QMP_FRAME_VALUE) {
				json_error_t je;
				/* an id comes back as it was written, with any number of digits */
				json_t *v = json_loadb(f->frame.buf, f->frame.len,
						       JSON_DECODE_INT_AS_REAL, &je);

				assert(json_is_object(v));
				/* an event may follow it: of a stop that another client asked for */
				if (last && !json_object_get(v, "event")) {
					json_decref(*last);
					*last = json_incref(v);
				}
				json_decref(v);
				values++;
			} else {
				assert(r == QMP_FRAME_MORE);
			}
		}
	}
	return values;
}

static void check(struct world *w)
{
	struct list *p;

	assert(w->s->nclients <= CLIENTS + 1);
	list_for_each (p, &w->s->clients) {
		struct qmp_client *c = list_entry(p, struct qmp_client, node);

		assert(c->nqueue <= QMP_MAX_PENDING && c->out_len <= QMP_OUT_MAX);
		assert(c->in_pos <= c->in_len && c->in_len <= QMP_IN_SIZE);
		assert(c->frame.len <= QMP_FRAME_MAX);
	}
}

static void final_check(struct world *w)
{
	static const char ask[] = "{\"execute\":\"qmp_capabilities\"}"
				  "{\"execute\":\"query-status\",\"id\":[1]}";
	struct far f = {.fd = -1};
	json_t *last = NULL;
	unsigned values;

	arrive(w, &f);
	say(&f, ask, sizeof(ask) - 1);
	settle(w);
	values = hear(&f, &last);
	assert(values >= 3); /* greeting, two answers, perhaps events */
	assert(json_is_object(json_object_get(last, "return")));
	assert(json_array_size(json_object_get(last, "id")) == 1);
	json_decref(last);
	leave(&f);
}

static size_t one(struct world *w, const uint8_t *data, size_t size)
{
	struct far *f = &w->far[data[0] % CLIENTS];
	size_t n;

	switch (data[0] / CLIENTS % 8) {
	case 0:
		leave(f);
		break;
	case 1:
		hear(f, NULL);
		break;
	case 2:
		now(&w->m);
		break;
	case 3:
		if (f->fd >= 0) {
			shutdown(f->fd, SHUT_WR);
		}
		break;
	case 4:
		tell(&w->m, (enum machine_event)(data[0] % 6));
		break;
	default:
		arrive(w, f);
		n = size > 2 ? data[1] | (size_t)(data[2] & 0x0f) << 8 : 0;
		n = MIN(n, size > 3 ? size - 3 : 0);
		say(f, data + MIN(size, 3u), n);
		settle(w);
		return MIN(size, n + 3);
	}
	settle(w);
	return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct err err;
	int ret;

	w = (struct world){.m.state = RUN_RUNNING};
	w.m.cfg = (struct vm_config){
		.cpus = 3, .max_cpus = 3, .sockets = 3, .dies = 1, .cores = 1, .threads = 1};
	log_set_level(LOG_ERR);
	ret = loop_new(&w.loop, "fuzz", LOOP_VIRTUAL);
	assert(ret == 0);
	ret = qmp_new(w.loop, &w.m.cfg, &w.s, &err);
	assert(ret == 0);
	qmp_start(w.s, &w.m);
	for (unsigned i = 0; i < CLIENTS; i++) {
		w.far[i].fd = -1;
	}
	while (size) {
		size_t n = one(&w, data, size);

		data += n;
		size -= n;
		check(&w);
	}
	now(&w.m);
	settle(&w);
	for (unsigned i = 0; i < CLIENTS; i++) {
		hear(&w.far[i], NULL);
	}
	final_check(&w);
	for (unsigned i = 0; i < CLIENTS; i++) {
		leave(&w.far[i]);
	}
	settle(&w);
	qmp_free(w.s);
	now(&w.m); /* answers to clients that have gone */
	loop_free(w.loop);
	return 0;
}
