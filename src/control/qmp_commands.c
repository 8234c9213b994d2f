/*
 * The QMP commands: one row each, names, arguments and answers as in QEMU's QAPI schema.
 * Handlers run on the control loop and call the machine's public functions only.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "chardev/chr.h"
#include "control/qmp_int.h"

static int cmd_capabilities(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			    struct err *err)
{
	json_t *list = json_object_get(rq->args, "enable"), *v;
	bool oob = false;
	size_t i;

	json_array_foreach(list, i, v) {
		const char *name = json_string_value(v);

		if (!name || strcmp(name, "oob") || json_string_length(v) != 3) {
			return err_set(err, EINVAL, "Parameter 'enable' does not accept value '%.64s'",
				       name ? name : "(not a string)");
		}
		oob = true;
	}
	rq->client->negotiated = true;
	rq->client->oob = oob;
	return 0;
}

static int cmd_query_version(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			     struct err *err)
{
	/* The QEMU release whose commands these are; clients decide by it what they may use. */
	*ret = json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "major", 7, "minor", 2, "micro", 0,
			 "package", "NEMU " NEMU_VERSION);
	return 0;
}

static int cmd_query_status(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			    struct err *err)
{
	enum run_state st = machine_state(s->m);

	*ret = json_pack("{s:s,s:b,s:b}", "status", run_state_name(st), "singlestep", 0, "running",
			 st == RUN_RUNNING);
	return 0;
}

static int cmd_query_commands(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			      struct err *err)
{
	*ret = json_array();
	for (unsigned i = 0; i < qmp_ncommands; i++) {
		json_array_append_new(*ret, json_pack("{s:s}", "name", qmp_commands[i].name));
	}
	return 0;
}

static int cmd_query_kvm(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			 struct err *err)
{
	bool on = machine_cpus(s->m) > 0;

	*ret = json_pack("{s:b,s:b}", "enabled", on, "present", on);
	return 0;
}

static int cmd_query_name(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			  struct err *err)
{
	const char *name = machine_config(s->m)->name;

	*ret = json_object();
	if (name) {
		json_object_set_new(*ret, "name", json_string(name));
	}
	return 0;
}

static int cmd_query_uuid(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			  struct err *err)
{
	const uint8_t *u = machine_config(s->m)->uuid;
	char text[40];

	snprintf(text, sizeof(text),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		 u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
		 u[15]);
	*ret = json_pack("{s:s}", "UUID", text);
	return 0;
}

static int cmd_query_iothreads(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			       struct err *err)
{
	const char *id;
	pid_t tid;

	*ret = json_array();
	for (unsigned i = 0; (id = machine_iothread(s->m, i, &tid)); i++) {
		json_array_append_new(*ret, json_pack("{s:s,s:i,s:i,s:i,s:i,s:i}", "id", id,
						      "thread-id", (int)tid, "poll-max-ns", 0,
						      "poll-grow", 0, "poll-shrink", 0,
						      "aio-max-batch", 0));
	}
	return 0;
}

static int cmd_query_chardev(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			     struct err *err)
{
	char text[256];
	struct chr *c;

	*ret = json_array();
	for (unsigned i = 0; (c = machine_chardev(s->m, i)); i++) {
		chr_describe(c, text, sizeof(text));
		json_array_append_new(*ret, json_pack("{s:s,s:s,s:b}", "label", chr_id(c), "filename",
						      text, "frontend-open", 1));
	}
	return 0;
}

static void reply_done(void *opaque)
{
	qmp_reply(opaque, NULL, NULL);
}

static int cmd_stop(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	machine_stop(s->m, reply_done, rq);
	return QMP_LATER;
}

static int cmd_cont(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	return machine_cont(s->m, err);
}

static int cmd_system_reset(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			    struct err *err)
{
	machine_reset(s->m, reply_done, rq);
	return QMP_LATER;
}

static int cmd_system_powerdown(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
				struct err *err)
{
	machine_powerdown(s->m);
	return 0;
}

static int cmd_quit(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	machine_quit(s->m, "host-qmp-quit");
	return 0;
}

static const struct qmp_arg args_block_resize[] = {
	{"device", QMP_STRING, true},
	{"node-name", QMP_STRING, true},
	{"size", QMP_INT, false},
	{NULL},
};
static const struct qmp_arg args_block_throttle[] = {
	{"device", QMP_STRING, true},
	{"bps", QMP_INT, false}, {"bps_rd", QMP_INT, false}, {"bps_wr", QMP_INT, false},
	{"iops", QMP_INT, false}, {"iops_rd", QMP_INT, false}, {"iops_wr", QMP_INT, false},
	{"bps_max", QMP_INT, true}, {"bps_rd_max", QMP_INT, true}, {"bps_wr_max", QMP_INT, true},
	{"iops_max", QMP_INT, true}, {"iops_rd_max", QMP_INT, true}, {"iops_wr_max", QMP_INT, true},
	{"bps_max_length", QMP_INT, true}, {"bps_rd_max_length", QMP_INT, true},
	{"bps_wr_max_length", QMP_INT, true}, {"iops_max_length", QMP_INT, true},
	{"iops_rd_max_length", QMP_INT, true}, {"iops_wr_max_length", QMP_INT, true},
	{"iops_size", QMP_INT, true},
	{NULL},
};
static const struct qmp_arg args_blockdev_reopen[] = {{"options", QMP_ARRAY, false}, {NULL}};
static const struct qmp_arg args_capabilities[] = {{"enable", QMP_ARRAY, true}, {NULL}};
static const struct qmp_arg args_stats[] = {
	{"target", QMP_STRING, false},
	{"providers", QMP_ARRAY, true},
	{"vcpus", QMP_ARRAY, true},
	{NULL},
};
static const struct qmp_arg args_stats_schemas[] = {{"provider", QMP_STRING, true}, {NULL}};
static const struct qmp_arg args_trace_get[] = {
	{"name", QMP_STRING, false}, {"vcpu", QMP_INT, true}, {NULL},
};
static const struct qmp_arg args_trace_set[] = {
	{"name", QMP_STRING, false}, {"enable", QMP_BOOL, false},
	{"ignore-unavailable", QMP_BOOL, true}, {"vcpu", QMP_INT, true}, {NULL},
};

const struct qmp_command qmp_commands[] = {
	{"qmp_capabilities", cmd_capabilities, args_capabilities, QMP_BEFORE_CAPABILITIES},
	{"block_resize", qmp_block_resize, args_block_resize, 0},
	{"block_set_io_throttle", qmp_block_set_io_throttle, args_block_throttle, 0},
	{"blockdev-reopen", qmp_blockdev_reopen, args_blockdev_reopen, 0},
	{"cont", cmd_cont, NULL, 0},
	{"query-chardev", cmd_query_chardev, NULL, 0},
	{"query-commands", cmd_query_commands, NULL, 0},
	{"query-cpu-definitions", qmp_query_cpu_definitions, NULL, 0},
	{"query-cpus-fast", qmp_query_cpus_fast, NULL, 0},
	{"query-hotpluggable-cpus", qmp_query_hotpluggable_cpus, NULL, 0},
	{"query-iothreads", cmd_query_iothreads, NULL, 0},
	{"query-kvm", cmd_query_kvm, NULL, 0},
	{"query-name", cmd_query_name, NULL, 0},
	{"query-stats", qmp_query_stats, args_stats, 0},
	{"query-stats-schemas", qmp_query_stats_schemas, args_stats_schemas, 0},
	{"query-status", cmd_query_status, NULL, 0},
	{"query-uuid", cmd_query_uuid, NULL, 0},
	{"query-version", cmd_query_version, NULL, 0},
	{"quit", cmd_quit, NULL, 0},
	{"stop", cmd_stop, NULL, 0},
	{"system_powerdown", cmd_system_powerdown, NULL, 0},
	{"system_reset", cmd_system_reset, NULL, 0},
	{"trace-event-get-state", qmp_trace_get, args_trace_get, 0},
	{"trace-event-set-state", qmp_trace_set, args_trace_set, 0},
};
const unsigned qmp_ncommands = ARRAY_SIZE(qmp_commands);
