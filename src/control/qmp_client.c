/*
 * One QMP client: reads, cuts, checks, runs, answers.
 *
 * States: connected (greeting sent) → negotiated (after qmp_capabilities) → dead (hung up, or
 * too slow); a dead client is freed by the server's reaper, never inside its own handler.
 * Invariants: at most one in-band request runs; answers come in the order of the requests;
 * memory is bounded as qmp.h says.
 * QMP: QEMU's documentation, "QMP protocol specification".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/qmp_int.h"

static void client_kill(struct qmp_client *c)
{
	if (c->dead) {
		return;
	}
	c->dead = true;
	loop_fd_del(&c->watch);
	loop_fd_del(&c->wwatch);
	loop_post(c->server->loop, &c->server->reap);
}

static void client_io(void *opaque, uint32_t events);

/* Reading stops while the client owes us reading or has enough requests queued. */
static void client_watch(struct qmp_client *c)
{
	bool rd = !c->eof && c->out_len < QMP_OUT_PAUSE && c->nqueue < QMP_MAX_PENDING;
	bool wr = c->out_len > 0;

	if (c->dead) {
		return;
	}
	if (c->rfd == c->wfd) {
		loop_fd_mod(&c->watch, (rd ? EPOLLIN : 0u) | (wr ? EPOLLOUT : 0u));
	} else {
		loop_fd_mod(&c->watch, rd ? EPOLLIN : 0u);
		loop_fd_mod(&c->wwatch, wr ? EPOLLOUT : 0u);
	}
}

/* #syscalls(main): write sendto */
void qmp_client_flush(struct qmp_client *c)
{
	size_t done = 0;

	while (!c->dead && done < c->out_len) {
		ssize_t n = c->rfd == c->wfd ? send(c->wfd, c->out + done, c->out_len - done,
						    MSG_NOSIGNAL | MSG_DONTWAIT)
					     : write(c->wfd, c->out + done, c->out_len - done);

		if (n > 0) {
			done += (size_t)n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else if (n < 0 && errno == EAGAIN) {
			break;
		} else {
			client_kill(c);
			return;
		}
	}
	memmove(c->out, c->out + done, c->out_len - done);
	c->out_len -= done;
	if (!c->out_len && c->out_cap > QMP_OUT_PAUSE) {
		free(c->out);
		c->out = NULL;
		c->out_cap = 0;
	}
	if (c->eof && !c->out_len && !c->running && !c->nqueue) {
		client_kill(c);
	}
}

static void client_put(struct qmp_client *c, const char *text, size_t len)
{
	size_t need = c->out_len + len;

	if (c->dead) {
		return;
	}
	if (need > QMP_OUT_MAX) {
		log_guest("qmp", "a client does not read what it is sent; it is disconnected");
		client_kill(c);
		return;
	}
	if (need > c->out_cap) {
		size_t cap = MAX(need, c->out_cap * 2);
		char *n = realloc(c->out, cap);

		if (!n) {
			client_kill(c);
			return;
		}
		c->out = n;
		c->out_cap = cap;
	}
	memcpy(c->out + c->out_len, text, len);
	c->out_len += len;
}

void qmp_client_send(struct qmp_client *c, json_t *msg)
{
	char *text = msg ? json_dumps(msg, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;

	json_decref(msg);
	if (!text) {
		client_kill(c);
		return;
	}
	client_put(c, text, strlen(text));
	client_put(c, "\r\n", 2);
	free(text);
	qmp_client_flush(c);
	client_watch(c);
}

/* --- answers --- */

static const char *class_name(enum err_class cls)
{
	static const char *const names[] = {
		[ERR_GENERIC] = "GenericError",
		[ERR_COMMAND_NOT_FOUND] = "CommandNotFound",
		[ERR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
		[ERR_DEVICE_NOT_FOUND] = "DeviceNotFound",
		[ERR_KVM_MISSING_CAP] = "KVMMissingCap",
	};

	return names[cls];
}

static void send_error(struct qmp_client *c, json_t *id, const struct err *err)
{
	json_t *desc = json_string(err->msg), *msg;

	if (!desc) { /* the text repeats a client's bytes that are no UTF-8 */
		desc = json_string("the request is not valid");
	}
	msg = json_pack("{s:{s:s,s:o}}", "error", "class", class_name(err->cls), "desc", desc);
	if (msg && id) {
		json_object_set(msg, "id", id);
	}
	qmp_client_send(c, msg);
}

static void request_free(struct qmp_request *rq)
{
	json_decref(rq->id);
	json_decref(rq->args);
	free(rq);
}

static void answer(struct qmp_request *rq, json_t *ret, const struct err *err)
{
	struct qmp_client *c = rq->client;

	if (!c || c->dead) {
		json_decref(ret);
	} else if (err) {
		json_decref(ret);
		send_error(c, rq->id, err);
	} else {
		json_t *msg = json_object();

		json_object_set_new(msg, "return", ret ? ret : json_object());
		if (rq->id) {
			json_object_set(msg, "id", rq->id);
		}
		qmp_client_send(c, msg);
	}
	request_free(rq);
}

static void run_queue(struct qmp_client *c);

void qmp_reply(struct qmp_request *rq, json_t *ret, const struct err *err)
{
	struct qmp_client *c = rq->client;
	bool in_band = c && c->running == rq;

	if (in_band) {
		c->running = NULL;
	}
	answer(rq, ret, err);
	if (in_band && !c->busy) {
		run_queue(c);
	}
}

/* --- requests --- */

static int check_args(const struct qmp_command *cmd, json_t *args, struct err *err)
{
	static const char *const type_names[] = {
		[QMP_STRING] = "string", [QMP_INT] = "integer", [QMP_BOOL] = "boolean",
		[QMP_OBJECT] = "object", [QMP_ARRAY] = "array",
	};
	const char *key;
	json_t *v;

	json_object_foreach(args, key, v) {
		const struct qmp_arg *a = cmd->args;

		while (a && a->name && strcmp(a->name, key)) {
			a++;
		}
		if (!a || !a->name) {
			return err_set(err, EINVAL, "Parameter '%.64s' is unexpected", key);
		}
		if (!(a->type == QMP_STRING   ? json_is_string(v)
		      : a->type == QMP_INT    ? json_is_integer(v)
		      : a->type == QMP_BOOL   ? json_is_boolean(v)
		      : a->type == QMP_OBJECT ? json_is_object(v)
					      : json_is_array(v))) {
			return err_set(err, EINVAL,
				       "Invalid parameter type for '%s', expected: %s", a->name,
				       type_names[a->type]);
		}
	}
	for (const struct qmp_arg *a = cmd->args; a && a->name; a++) {
		if (!a->optional && !json_object_get(args, a->name)) {
			return err_set(err, EINVAL, "Parameter '%s' is missing", a->name);
		}
	}
	return 0;
}

static void run_one(struct qmp_client *c, struct qmp_request *rq)
{
	struct err err = {0};
	json_t *ret = NULL;
	int r;

	r = check_args(rq->cmd, rq->args, &err);
	if (!r) {
		r = rq->cmd->fn(c->server, rq, &ret, &err);
	}
	if (r != QMP_LATER) {
		qmp_reply(rq, ret, r ? &err : NULL);
	}
}

static void run_queue(struct qmp_client *c)
{
	c->busy = true;
	while (!c->dead && !c->running && c->nqueue) {
		struct qmp_request *rq = c->queue[0];

		memmove(c->queue, c->queue + 1, --c->nqueue * sizeof(c->queue[0]));
		c->running = rq;
		run_one(c, rq);
	}
	c->busy = false;
	client_watch(c);
}

static const struct qmp_command *find_command(const char *name)
{
	for (unsigned i = 0; i < qmp_ncommands; i++) {
		if (!strcmp(qmp_commands[i].name, name)) {
			return &qmp_commands[i];
		}
	}
	return NULL;
}

/* The frame of a request; 0 and *out, or an error that is answered with the id. */
static int take_request(struct qmp_client *c, json_t *v, struct qmp_request **out, bool *oob,
			struct err *err)
{
	const char *key, *name = NULL;
	json_t *m, *args = NULL;
	struct qmp_request *rq;

	if (!json_is_object(v)) {
		return err_set(err, EINVAL, "QMP input must be a JSON object");
	}
	json_object_foreach(v, key, m) {
		if (!strcmp(key, "execute") || !strcmp(key, "exec-oob")) {
			if (name) {
				return err_set(err, EINVAL, "QMP input has both 'execute' and 'exec-oob'");
			}
			name = json_string_value(m);
			if (!name) {
				return err_set(err, EINVAL, "QMP input member '%s' must be a string", key);
			}
			*oob = !strcmp(key, "exec-oob");
		} else if (!strcmp(key, "arguments")) {
			if (!json_is_object(m)) {
				return err_set(err, EINVAL,
					       "QMP input member 'arguments' must be an object");
			}
			args = m;
		} else if (strcmp(key, "id")) {
			return err_set(err, EINVAL, "QMP input member '%.64s' is unexpected", key);
		}
	}
	if (!name) {
		return err_set(err, EINVAL, "QMP input lacks member 'execute'");
	}
	rq = calloc(1, sizeof(*rq));
	if (!rq) {
		return err_set(err, ENOMEM, "out of memory");
	}
	rq->cmd = find_command(name);
	if (!c->negotiated && (!rq->cmd || !(rq->cmd->flags & QMP_BEFORE_CAPABILITIES))) {
		free(rq);
		return err_set_class(err, ERR_COMMAND_NOT_FOUND, EINVAL,
				     "Expecting capabilities negotiation with 'qmp_capabilities'");
	}
	if (!rq->cmd || (c->negotiated && rq->cmd->flags & QMP_BEFORE_CAPABILITIES)) {
		bool late = rq->cmd != NULL;

		free(rq);
		return late ? err_set_class(err, ERR_COMMAND_NOT_FOUND, EINVAL,
					    "Capabilities negotiation is already complete, command "
					    "ignored")
			    : err_set_class(err, ERR_COMMAND_NOT_FOUND, EINVAL,
					    "The command %.64s has not been found", name);
	}
	if (*oob && !c->oob) {
		free(rq);
		return err_set(err, EINVAL, "Out-of-band capability has not been enabled");
	}
	if (*oob && !(rq->cmd->flags & QMP_ALLOW_OOB)) {
		free(rq);
		return err_set(err, EINVAL, "The command %.64s does not support OOB", name);
	}
	rq->client = c;
	rq->args = args ? json_incref(args) : json_object();
	rq->id = json_incref(json_object_get(v, "id"));
	*out = rq;
	return 0;
}

static void handle_value(struct qmp_client *c)
{
	struct qmp_request *rq = NULL;
	struct err err = {0};
	bool oob = false;
	json_error_t je;
	json_t *v;

	v = json_loadb(c->frame.buf, c->frame.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
	if (!v) {
		err_set(&err, EINVAL, "JSON parse error, %s", je.text);
		send_error(c, NULL, &err);
		return;
	}
	if (take_request(c, v, &rq, &oob, &err)) {
		send_error(c, json_is_object(v) ? json_object_get(v, "id") : NULL, &err);
	} else if (oob) {
		run_one(c, rq);
	} else {
		c->queue[c->nqueue++] = rq;
		if (!c->running) {
			run_queue(c);
		}
	}
	json_decref(v);
}

static void client_input(struct qmp_client *c, const char *buf, size_t n)
{
	struct err err = {0};

	while (n && !c->dead) {
		size_t used = 0;
		enum qmp_frame_result r = qmp_frame_feed(&c->frame, buf, n, &used);

		buf += used;
		n -= used;
		switch (r) {
		case QMP_FRAME_MORE:
			return;
		case QMP_FRAME_VALUE:
			if (c->nqueue == QMP_MAX_PENDING) {
				/* Within one read(); the watch stops further ones. */
				err_set(&err, EBUSY, "too many requests are waiting (%u)",
					QMP_MAX_PENDING);
				send_error(c, NULL, &err);
				break;
			}
			handle_value(c);
			break;
		case QMP_FRAME_TOO_BIG:
			err_set(&err, EINVAL, "JSON parse error, a request is larger than %u bytes or "
				"nested deeper than %u", QMP_FRAME_MAX, QMP_FRAME_DEPTH);
			send_error(c, NULL, &err);
			break;
		case QMP_FRAME_GARBAGE:
			err_set(&err, EINVAL, "JSON parse error, expecting value");
			send_error(c, NULL, &err);
			break;
		case QMP_FRAME_NO_MEMORY:
			client_kill(c);
			break;
		}
	}
}

/* #syscalls(main): read */
static void client_io(void *opaque, uint32_t events)
{
	struct qmp_client *c = opaque;
	char buf[4096];
	ssize_t n;

	if (events & EPOLLOUT) {
		qmp_client_flush(c);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->dead) {
		n = read(c->rfd, buf, sizeof(buf));
		if (n > 0) {
			client_input(c, buf, (size_t)n);
		} else if (n == 0) {
			/* It may still read the answers to what it has sent. */
			c->eof = true;
			if (events & EPOLLHUP || (!c->running && !c->nqueue && !c->out_len)) {
				client_kill(c);
			}
		} else if (errno != EAGAIN && errno != EINTR) {
			client_kill(c);
		}
	}
	client_watch(c);
}

/* --- life --- */

static json_t *greeting(void)
{
	return json_pack("{s:{s:{s:{s:i,s:i,s:i},s:s},s:[s]}}", "QMP", "version", "qemu", "major",
			 7, "minor", 2, "micro", 0, "package", "NEMU " NEMU_VERSION,
			 "capabilities", "oob");
}

struct qmp_client *qmp_client_new(struct qmp_server *s, struct qmp_listener *from, int rfd,
				  int wfd)
{
	struct qmp_client *c = calloc(1, sizeof(*c));

	if (!c) {
		return NULL;
	}
	c->server = s;
	c->from = from;
	c->rfd = rfd;
	c->wfd = wfd;
	if (loop_fd_add(s->loop, &c->watch, rfd, EPOLLIN, client_io, c)) {
		free(c);
		return NULL;
	}
	if (rfd != wfd && loop_fd_add(s->loop, &c->wwatch, wfd, 0, client_io, c)) {
		loop_fd_del(&c->watch);
		free(c);
		return NULL;
	}
	list_add_tail(&s->clients, &c->node);
	s->nclients++;
	qmp_client_send(c, greeting());
	return c;
}

/* #syscalls(main): close */
void qmp_client_free(struct qmp_client *c)
{
	loop_fd_del(&c->watch);
	loop_fd_del(&c->wwatch);
	for (unsigned i = 0; i < c->nqueue; i++) {
		request_free(c->queue[i]);
	}
	if (c->running) {
		c->running->client = NULL; /* its answer finds nobody and frees it */
	}
	list_del(&c->node);
	c->server->nclients--;
	qmp_frame_fini(&c->frame);
	free(c->out);
	close(c->rfd);
	if (c->wfd != c->rfd) {
		close(c->wfd);
	}
	free(c);
}
