/* Between the files of the QMP server. */
#ifndef CONTROL_QMP_INT_H
#define CONTROL_QMP_INT_H

#include <jansson.h>

#include "control/qmp.h"
#include "control/qmp_frame.h"

#define QMP_MAX_PENDING 8u
#define QMP_OUT_PAUSE   (64u << 10)
#define QMP_OUT_MAX     (1u << 20)
#define QMP_IN_SIZE     4096u
#define QMP_ID_MAX      4096u

struct qmp_client;
struct qmp_request {
	struct qmp_client *client; /* NULL: it has gone */
	char *id;                  /* its JSON text, as the client wrote it; NULL: none */
	json_t *args;              /* object that fits cmd->args */
	const struct qmp_command *cmd;
	struct err *fail;          /* refused already: this is the answer when its turn comes */
};

enum qmp_arg_type { QMP_STRING, QMP_INT, QMP_BOOL, QMP_OBJECT, QMP_ARRAY };
struct qmp_arg {
	const char *name; /* NULL ends the table */
	enum qmp_arg_type type;
	bool optional;
};
enum { QMP_ALLOW_OOB = 1, QMP_BEFORE_CAPABILITIES = 2 };
/* 0: *ret is the answer (NULL means {}); QMP_LATER: qmp_reply() follows; else -errno and *err. */
#define QMP_LATER 1
typedef int qmp_handler(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			struct err *err);
struct qmp_command {
	const char *name;
	qmp_handler *fn;
	const struct qmp_arg *args;
	unsigned flags;
};
/* qmp_observe.c */
qmp_handler qmp_query_stats, qmp_query_stats_schemas, qmp_trace_get, qmp_trace_set;
/* qmp_block.c */
qmp_handler qmp_block_resize, qmp_block_set_io_throttle, qmp_blockdev_reopen;
extern const struct qmp_command qmp_commands[];
extern const unsigned qmp_ncommands;
/* qmp_cpu.c */
qmp_handler qmp_query_cpus_fast, qmp_query_hotpluggable_cpus, qmp_query_cpu_definitions;

struct qmp_listener {
	struct qmp_server *server;
	int fd; /* listening, or -1 */
	char *path;
	bool wait, connected_once;
	struct loop_fd watch;
};
struct qmp_client {
	struct qmp_server *server;
	struct qmp_listener *from;
	int rfd, wfd;
	bool negotiated, oob, busy, dead, eof;
	bool out_is_file; /* a regular file always takes what is written, epoll has none */
	struct qmp_frame frame;
	struct loop_fd watch, wwatch;
	char in[QMP_IN_SIZE]; /* read, and from in_pos on not looked at yet */
	size_t in_pos, in_len;
	char *out;
	size_t out_len, out_cap;
	struct qmp_request *queue[QMP_MAX_PENDING];
	unsigned nqueue;
	struct qmp_request *running;
	struct list node;
};
struct qmp_server {
	struct loop *loop;
	struct machine *m;
	struct qmp_listener *listener;
	unsigned nlisteners, nclients;
	struct list clients;
	struct machine_listener events;
	struct loop_work reap; /* frees dead clients outside of their own handlers */
	bool started;
};

/* Ends a request that answered QMP_LATER. err NULL: success. Takes ret over. */
void qmp_reply(struct qmp_request *rq, json_t *ret, const struct err *err);
void qmp_event(struct qmp_server *s, const char *name, json_t *data);
/* qmp_client.c */
/* 0 or -errno; -EPERM: rfd is a file that cannot be waited for. Closes
 * the descriptors in the end, not on an error. */
int qmp_client_new(struct qmp_server *s, struct qmp_listener *from, int rfd, int wfd);
void qmp_client_free(struct qmp_client *c);
/* What it waits for has changed: sets what the loop watches. */
void qmp_client_watch(struct qmp_client *c);
void qmp_client_flush(struct qmp_client *c);
void qmp_client_send(struct qmp_client *c, json_t *msg); /* takes msg over */
/* qmp_text.c: pure functions over text that is one valid JSON value, or nearly so */
/* The value of the outermost object's member "id" without white space, malloc'ed; NULL: there is
 * none (or its name is written with escapes), or no memory. */
char *qmp_text_id(const char *text, size_t len);
/* A malloc'ed copy in which integers that do not fit 64 bits are written as reals; *len is
 * updated. NULL: no memory. */
char *qmp_text_widen(const char *text, size_t *len);

#endif
