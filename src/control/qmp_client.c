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
#include "control/trace.h"

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

/* May more of what it sent be looked at? Not while it owes us reading, has enough requests
 * waiting, or others are waited for before the machine starts (wait=on). */
static bool client_may_ask(const struct qmp_client *c)
{
	return !c->dead && c->out_len < QMP_OUT_PAUSE && c->nqueue < QMP_MAX_PENDING &&
	       !qmp_waits(c->server);
}

void qmp_client_watch(struct qmp_client *c)
{
	bool rd = !c->eof && c->in_pos == c->in_len && client_may_ask(c);
	bool wr = c->out_len > 0;

	if (c->dead) {
		return;
	}
	if (c->rfd == c->wfd) {
		loop_fd_mod(&c->watch, (rd ? EPOLLIN : 0u) | (wr ? EPOLLOUT : 0u));
		return;
	}
	if (c->watch.loop) {
		loop_fd_mod(&c->watch, rd ? EPOLLIN : 0u);
	} else if (rd && loop_fd_add(c->server->loop, &c->watch, c->rfd, EPOLLIN, client_io, c)) {
		client_kill(c);
		return;
	}
	if (!c->out_is_file) {
		loop_fd_mod(&c->wwatch, wr ? EPOLLOUT : 0u);
	}
}

/* It has sent its last and has all answers. */
static void client_check_end(struct qmp_client *c)
{
	if (c->eof && c->in_pos == c->in_len && !c->out_len && !c->running && !c->nqueue) {
		client_kill(c);
	}
}

/* #syscalls(main): write */
void qmp_client_flush(struct qmp_client *c)
{
	size_t done = 0;

	while (!c->dead && done < c->out_len) {
		ssize_t n = write(c->wfd, c->out + done, c->out_len - done);

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

/* Takes msg over; id (JSON text, may be NULL) becomes its last member. */
static void client_send(struct qmp_client *c, json_t *msg, const char *id)
{
	char *text = msg ? json_dumps(msg, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(msg);
	if (!text) {
		client_kill(c);
		return;
	}
	if (id) {
		client_put(c, text, len - 1); /* up to the closing brace */
		client_put(c, ",\"id\":", 6);
		client_put(c, id, strlen(id));
		client_put(c, "}", 1);
	} else {
		client_put(c, text, len);
	}
	client_put(c, "\r\n", 2);
	free(text);
	qmp_client_flush(c);
	qmp_client_watch(c);
}

void qmp_client_send(struct qmp_client *c, json_t *msg)
{
	client_send(c, msg, NULL);
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

static json_t *error_message(const struct err *err)
{
	json_t *desc = json_string(err->msg);

	if (!desc) { /* the text repeats a client's bytes that are no UTF-8 */
		desc = json_string("JSON parse error, the text is not valid UTF-8");
	}
	return json_pack("{s:{s:s,s:o}}", "error", "class", class_name(err->cls), "desc", desc);
}

static void request_free(struct qmp_request *rq)
{
	if (rq) {
		free(rq->id);
		json_decref(rq->args);
		free(rq->fail);
		free(rq);
	}
}

static void answer(struct qmp_request *rq, json_t *ret, const struct err *err)
{
	struct qmp_client *c = rq->client;

	if (!c || c->dead) {
		json_decref(ret);
	} else if (err) {
		json_decref(ret);
		client_send(c, error_message(err), rq->id);
	} else {
		client_send(c, json_pack("{s:o}", "return", ret ? ret : json_object()), rq->id);
	}
	request_free(rq);
}

static void client_pump(struct qmp_client *c);

void qmp_reply(struct qmp_request *rq, json_t *ret, const struct err *err)
{
	struct qmp_client *c = rq->client;
	bool in_band = c && c->running == rq;

	trace_qmp_answer(rq->cmd ? rq->cmd->name : "", err != NULL);
	if (in_band) {
		c->running = NULL;
	}
	answer(rq, ret, err);
	if (in_band) {
		client_pump(c);
	}
}

/* --- requests --- */

/* The text of a string without a NUL inside, which would end it early; NULL: it is none. */
static const char *text_of(const json_t *v)
{
	const char *text = json_string_value(v);

	return text && strlen(text) == json_string_length(v) ? text : NULL;
}

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
		if (!(a->type == QMP_STRING   ? text_of(v) != NULL
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

	if (rq->fail) {
		qmp_reply(rq, NULL, rq->fail);
		return;
	}
	trace_qmp_command(rq->cmd->name, c->running != rq);
	r = rq->cmd->fn(c->server, rq, &ret, &err);
	if (r != QMP_LATER) {
		qmp_reply(rq, ret, r ? &err : NULL);
	}
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

/* What a request names and brings; 0 or an error that is its answer. */
static int take_request(struct qmp_client *c, json_t *v, struct qmp_request *rq, bool *oob,
			struct err *err)
{
	const char *key, *name = NULL;
	json_t *m;

	if (!json_is_object(v)) {
		return err_set(err, EINVAL, "QMP input must be a JSON object");
	}
	json_object_foreach(v, key, m) {
		if (!strcmp(key, "execute") || !strcmp(key, "exec-oob")) {
			if (name) {
				return err_set(err, EINVAL, "QMP input has both 'execute' and 'exec-oob'");
			}
			if (!json_is_string(m)) {
				return err_set(err, EINVAL, "QMP input member '%s' must be a string", key);
			}
			name = text_of(m) ? json_string_value(m) : "(with \\u0000)";
			*oob = !strcmp(key, "exec-oob");
		} else if (!strcmp(key, "arguments")) {
			if (!json_is_object(m)) {
				return err_set(err, EINVAL,
					       "QMP input member 'arguments' must be an object");
			}
			json_decref(rq->args);
			rq->args = json_incref(m);
		} else if (strcmp(key, "id")) {
			return err_set(err, EINVAL, "QMP input member '%.64s' is unexpected", key);
		}
	}
	if (!name) {
		return err_set(err, EINVAL, "QMP input lacks member 'execute'");
	}
	rq->cmd = find_command(name);
	if (!c->negotiated && (!rq->cmd || !(rq->cmd->flags & QMP_BEFORE_CAPABILITIES))) {
		return err_set_class(err, ERR_COMMAND_NOT_FOUND, EINVAL,
				     "Expecting capabilities negotiation with 'qmp_capabilities'");
	}
	if (!rq->cmd) {
		return err_set_class(err, ERR_COMMAND_NOT_FOUND, EINVAL,
				     "The command %.64s has not been found", name);
	}
	if (c->negotiated && rq->cmd->flags & QMP_BEFORE_CAPABILITIES) {
		return err_set_class(err, ERR_COMMAND_NOT_FOUND, EINVAL,
				     "Capabilities negotiation is already complete, command ignored");
	}
	if (*oob && !c->oob) {
		return err_set(err, EINVAL, "Out-of-band capability has not been enabled");
	}
	if (*oob && !(rq->cmd->flags & QMP_ALLOW_OOB)) {
		return err_set(err, EINVAL, "The command %.64s does not support OOB", name);
	}
	return check_args(rq->cmd, rq->args, err);
}

/* The id, so that even a refusal bears it. */
static int take_id(struct qmp_client *c, json_t *v, struct qmp_request *rq, struct err *err)
{
	json_t *id = json_object_get(v, "id");

	if (!id) {
		return 0;
	}
	rq->id = qmp_text_id(c->frame.buf, c->frame.len);
	if (!rq->id) {
		rq->id = json_dumps(id, JSON_COMPACT | JSON_ENCODE_ANY);
	}
	if (!rq->id || strlen(rq->id) > QMP_ID_MAX) {
		free(rq->id);
		rq->id = NULL;
		return err_set(err, EINVAL, "QMP input member 'id' is longer than %u bytes", QMP_ID_MAX);
	}
	return 0;
}

static json_t *parse(struct qmp_client *c, struct err *err)
{
	const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
	size_t len = c->frame.len;
	json_error_t je;
	json_t *v = json_loadb(c->frame.buf, len, flags, &je);
	char *wide;

	if (!v && json_error_code(&je) == json_error_numeric_overflow) {
		wide = qmp_text_widen(c->frame.buf, &len);
		v = wide ? json_loadb(wide, len, flags, &je) : NULL;
		free(wide);
	}
	if (!v) {
		err_set(err, EINVAL, "JSON parse error, %s", je.text);
	}
	return v;
}

/* A whole value, or what is said instead of one: either waits for its turn, so that answers
 * come in the order of what they answer. */
static void take(struct qmp_client *c, const struct err *instead)
{
	struct qmp_request *rq = calloc(1, sizeof(*rq));
	struct err err = {0};
	bool oob = false;
	json_t *v = NULL;
	int ret = -EINVAL;

	if (!rq || !(rq->args = json_object())) {
		request_free(rq);
		client_kill(c);
		return;
	}
	rq->client = c;
	if (instead) {
		err = *instead;
	} else if ((v = parse(c, &err))) {
		ret = take_id(c, v, rq, &err);
		ret = ret ? ret : take_request(c, v, rq, &oob, &err);
	}
	json_decref(v);
	if (ret) {
		json_decref(rq->args);
		rq->args = NULL;
		rq->fail = malloc(sizeof(err));
		if (!rq->fail) {
			request_free(rq);
			client_kill(c);
			return;
		}
		*rq->fail = err;
	}
	if (oob && !ret) {
		run_one(c, rq);
	} else {
		c->queue[c->nqueue++] = rq;
	}
}

static void take_input(struct qmp_client *c)
{
	struct err err = {0};
	size_t used = 0;
	enum qmp_frame_result r = qmp_frame_feed(&c->frame, c->in + c->in_pos,
						 c->in_len - c->in_pos, &used);

	c->in_pos += used;
	switch (r) {
	case QMP_FRAME_MORE:
		break;
	case QMP_FRAME_VALUE:
		take(c, NULL);
		break;
	case QMP_FRAME_TOO_BIG:
		err_set(&err, EINVAL, "JSON parse error, a request is larger than %u bytes, nested "
			"deeper than %u or has more than %u values", QMP_FRAME_MAX, QMP_FRAME_DEPTH,
			QMP_FRAME_VALUES);
		take(c, &err);
		break;
	case QMP_FRAME_GARBAGE:
		err_set(&err, EINVAL, "JSON parse error, expecting value");
		take(c, &err);
		break;
	case QMP_FRAME_NO_MEMORY:
		client_kill(c);
		break;
	}
}

/* Runs and takes requests as far as that goes now. */
static void client_pump(struct qmp_client *c)
{
	if (c->busy) {
		return; /* a command that answered at once: the loop below goes on */
	}
	c->busy = true;
	while (!c->dead) {
		if (!c->running && c->nqueue) {
			struct qmp_request *rq = c->queue[0];

			memmove(c->queue, c->queue + 1, --c->nqueue * sizeof(c->queue[0]));
			c->running = rq;
			run_one(c, rq);
		} else if (c->in_pos < c->in_len && client_may_ask(c)) {
			take_input(c);
		} else {
			break;
		}
	}
	c->busy = false;
	client_check_end(c);
	qmp_client_watch(c);
}

/* Hung up on both ways, or by the writer of a pipe, while we do not want to read. */
static void client_hangup(struct qmp_client *c)
{
	if (c->rfd == c->wfd) {
		client_kill(c); /* nobody is there to read an answer */
	} else {
		loop_fd_del(&c->watch); /* until we want to read */
	}
}

/* #syscalls(main): read */
static void client_io(void *opaque, uint32_t events)
{
	struct qmp_client *c = opaque;
	ssize_t n;

	if (events & EPOLLOUT) {
		qmp_client_flush(c);
	}
	if (c->eof || c->in_pos < c->in_len || !client_may_ask(c)) {
		if (events & (EPOLLHUP | EPOLLERR)) {
			client_hangup(c);
		}
	} else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = read(c->rfd, c->in, sizeof(c->in));
		if (n > 0) {
			c->in_pos = 0;
			c->in_len = (size_t)n;
		} else if (n == 0) {
			c->eof = true; /* it may still read the answers to what it has sent */
			if (events & EPOLLHUP) {
				client_hangup(c);
			}
		} else if (errno != EAGAIN && errno != EINTR) {
			client_kill(c);
		}
	}
	client_pump(c);
}

/* Standard output, when it is not the descriptor that is read. */
static void client_out(void *opaque, uint32_t events)
{
	struct qmp_client *c = opaque;

	if (events & (EPOLLERR | EPOLLHUP)) {
		client_kill(c);
		return;
	}
	qmp_client_flush(c);
	client_pump(c);
}

/* --- life --- */

static json_t *greeting(void)
{
	return json_pack("{s:{s:{s:{s:i,s:i,s:i},s:s},s:[s]}}", "QMP", "version", "qemu", "major",
			 7, "minor", 2, "micro", 0, "package", "NEMU " NEMU_VERSION,
			 "capabilities", "oob");
}

int qmp_client_new(struct qmp_server *s, struct qmp_listener *from, int rfd, int wfd)
{
	struct qmp_client *c = calloc(1, sizeof(*c));
	int ret;

	if (!c) {
		return -ENOMEM;
	}
	c->server = s;
	c->from = from;
	c->rfd = rfd;
	c->wfd = wfd;
	ret = loop_fd_add(s->loop, &c->watch, rfd, EPOLLIN, client_io, c);
	if (!ret && rfd != wfd) {
		ret = loop_fd_add(s->loop, &c->wwatch, wfd, 0, client_out, c);
		c->out_is_file = ret == -EPERM;
		ret = c->out_is_file ? 0 : ret;
	}
	if (ret) {
		loop_fd_del(&c->watch);
		free(c);
		return ret;
	}
	list_add_tail(&s->clients, &c->node);
	s->nclients++;
	qmp_client_send(c, greeting());
	return 0;
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
