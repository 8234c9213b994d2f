/*
 * QMP commands to look inside: query-stats, query-stats-schemas, trace-event-get-state and
 * trace-event-set-state, with the names, arguments and answers of QEMU's schemas stats.json and
 * trace.json. Provider "kvm" has what KVM counts, "nemu" what the vCPUs of this program count.
 *
 * Threads: the control loop. Untrusted: clients; arrays of theirs are bounded by the size of a
 * message, and what they name is only compared.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "base/util.h"
#include "control/qmp_int.h"
#include "machine/stats.h"

/* --- statistics --- */

/* Entries of a list: each is compared with every statistic of every vCPU, while nobody else is
 * served. */
#define LIST_MAX 1024u

static const char *const providers[] = {
	[MACHINE_STATS_KVM] = "kvm",
	[MACHINE_STATS_NEMU] = "nemu",
};

static int provider_find(json_t *name, enum machine_stats *out, struct err *err)
{
	const char *text = json_string_value(name);

	for (unsigned i = 0; text && i < ARRAY_SIZE(providers); i++) {
		if (!strcmp(providers[i], text)) {
			*out = i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "Parameter 'provider' does not accept value '%.64s'",
		       text ? text : "(not a string)");
}

struct collector {
	json_t *list;
	json_t *names; /* array of strings; NULL: all */
};

static bool wanted(const struct collector *c, const char *name)
{
	json_t *v;
	size_t i;

	if (!c->names) {
		return true;
	}
	json_array_foreach(c->names, i, v) {
		if (!strcmp(json_string_value(v), name)) {
			return true;
		}
	}
	return false;
}

static json_t *stat_value(const struct stat_sample *s)
{
	json_t *list;

	if (s->unit == STAT_BOOLEAN) {
		return json_boolean(s->value[0]);
	}
	if (s->type != STAT_LINEAR_HISTOGRAM && s->type != STAT_LOG2_HISTOGRAM) {
		return json_integer((json_int_t)s->value[0]);
	}
	list = json_array();
	for (unsigned i = 0; i < s->count; i++) {
		json_array_append_new(list, json_integer((json_int_t)s->value[i]));
	}
	return list;
}

static void take_value(void *opaque, const struct stat_sample *s)
{
	struct collector *c = opaque;

	if (wanted(c, s->name)) {
		json_array_append_new(c->list, json_pack("{s:s,s:o}", "name", s->name, "value",
							 stat_value(s)));
	}
}

static void take_schema(void *opaque, const struct stat_sample *s)
{
	static const char *const types[] = {
		[STAT_CUMULATIVE] = "cumulative",
		[STAT_INSTANT] = "instant",
		[STAT_PEAK] = "peak",
		[STAT_LINEAR_HISTOGRAM] = "linear-histogram",
		[STAT_LOG2_HISTOGRAM] = "log2-histogram",
	};
	static const char *const units[] = {
		[STAT_BYTES] = "bytes",
		[STAT_SECONDS] = "seconds",
		[STAT_CYCLES] = "cycles",
		[STAT_BOOLEAN] = "boolean",
	};
	struct collector *c = opaque;
	json_t *v = json_pack("{s:s,s:s,s:i}", "name", s->name, "type", types[s->type],
			      "exponent", s->exponent);

	if (s->unit != STAT_NUMBER) {
		json_object_set_new(v, "unit", json_string(units[s->unit]));
	}
	if (s->exponent) {
		json_object_set_new(v, "base", json_integer(s->base));
	}
	if (s->type == STAT_LINEAR_HISTOGRAM) {
		json_object_set_new(v, "bucket-size", json_integer(s->bucket_size));
	}
	json_array_append_new(c->list, v);
}

static void vcpu_path(char *path, size_t size, unsigned i)
{
	snprintf(path, size, "/machine/unattached/device[%u]",
		 i); /* as query-cpus-fast has it */
}

/* Appends what one provider knows of one target (vcpu -1: the VM). */
static int add_result(struct qmp_server *s, enum machine_stats which, int vcpu, json_t *names,
		      json_t *out, struct err *err)
{
	struct collector c = {.list = json_array(), .names = names};
	json_t *entry;
	char path[64];
	int ret = machine_stats_each(s->m, which, vcpu, take_value, &c, err);

	if (ret || !json_array_size(c.list)) {
		json_decref(c.list);
		return ret;
	}
	entry = json_pack("{s:s}", "provider", providers[which]);
	if (vcpu >= 0) {
		vcpu_path(path, sizeof(path), (unsigned)vcpu);
		json_object_set_new(entry, "qom-path", json_string(path));
	}
	json_object_set_new(entry, "stats", c.list);
	json_array_append_new(out, entry);
	return 0;
}

/* Strings, and not too many, or no list at all. */
static bool all_strings(json_t *list)
{
	json_t *v;
	size_t i;

	json_array_foreach(list, i, v) {
		if (!json_is_string(v)) {
			return false;
		}
	}
	return !list || (json_is_array(list) && i <= LIST_MAX);
}

/* An entry of "providers": {"provider": …, "names": […]}. */
static int filter_read(json_t *f, enum machine_stats *which, json_t **names, struct err *err)
{
	const char *key;
	json_t *v;

	if (!json_is_object(f)) {
		return err_set(err, EINVAL,
			       "Invalid parameter type for 'providers', expected: object");
	}
	json_object_foreach(f, key, v) {
		if (strcmp(key, "provider") && strcmp(key, "names")) {
			return err_set(err, EINVAL, "Parameter '%.64s' is unexpected", key);
		}
	}
	*names = json_object_get(f, "names");
	if (!all_strings(*names)) {
		return err_set(err, EINVAL,
			       "Invalid parameter type for 'names', expected: array of at most "
			       "1024 strings");
	}
	return provider_find(json_object_get(f, "provider"), which, err);
}

static bool vcpu_wanted(json_t *vcpus, unsigned i)
{
	char path[64];
	json_t *v;
	size_t k;

	vcpu_path(path, sizeof(path), i);
	json_array_foreach(vcpus, k, v) {
		if (!strcmp(json_string_value(v), path)) {
			return true;
		}
	}
	return !vcpus;
}

static int add_target(struct qmp_server *s, bool vcpus, json_t *which_vcpus,
		      enum machine_stats which, json_t *names, json_t *out, struct err *err)
{
	int ret = 0;

	if (!vcpus) {
		return add_result(s, which, -1, names, out, err);
	}
	for (unsigned i = 0; !ret && i < machine_cpus(s->m); i++) {
		if (vcpu_wanted(which_vcpus, i)) {
			ret = add_result(s, which, (int)i, names, out, err);
		}
	}
	return ret;
}

int qmp_query_stats(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	const char *target = json_string_value(json_object_get(rq->args, "target"));
	json_t *filters = json_object_get(rq->args, "providers"), *f, *names = NULL;
	json_t *vcpus = json_object_get(rq->args, "vcpus");
	bool of_vcpus = !strcmp(target, "vcpu");
	json_t *out = json_array();
	enum machine_stats which;
	int r = 0;
	size_t i;

	if (!of_vcpus && strcmp(target, "vm")) {
		r = err_set(err, EINVAL, "Parameter 'target' does not accept value '%.64s'",
			    target);
	} else if (vcpus && !of_vcpus) {
		r = err_set(err, EINVAL, "Parameter 'vcpus' is unexpected");
	} else if (!all_strings(vcpus)) {
		r = err_set(err, EINVAL,
			    "Invalid parameter type for 'vcpus', expected: array of at most "
			    "1024 strings");
	}
	/* a provider twice would be answered twice, so a message could ask for any amount */
	if (!r && json_array_size(filters) > ARRAY_SIZE(providers)) {
		r = err_set(err, EINVAL,
			    "Parameter 'providers' names one twice; there are kvm and nemu");
	}
	for (i = 0; !r && !filters && i < ARRAY_SIZE(providers); i++) {
		r = add_target(s, of_vcpus, vcpus, i, NULL, out, err);
	}
	json_array_foreach(filters, i, f) {
		r = r ? r : filter_read(f, &which, &names, err);
		r = r ? r : add_target(s, of_vcpus, vcpus, which, names, out, err);
	}
	/* a client that asks for more than it may leave unread would be disconnected for it */
	if (!r && json_dumpb(out, NULL, 0, JSON_COMPACT) > QMP_OUT_MAX / 2) {
		r = err_set(
			err, E2BIG,
			"The answer has more than %u bytes; name vcpus, a provider and names",
			QMP_OUT_MAX / 2);
	}
	if (r) {
		json_decref(out);
		return r;
	}
	*ret = out;
	return 0;
}

static int add_schema(struct qmp_server *s, enum machine_stats which, bool vcpu, json_t *out,
		      struct err *err)
{
	struct collector c = {.list = json_array()};
	int ret = machine_stats_each(s->m, which, vcpu ? 0 : -1, take_schema, &c, err);

	if (ret || !json_array_size(c.list)) {
		json_decref(c.list);
		return ret;
	}
	json_array_append_new(out, json_pack("{s:s,s:s,s:o}", "provider", providers[which],
					     "target", vcpu ? "vcpu" : "vm", "stats", c.list));
	return 0;
}

int qmp_query_stats_schemas(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			    struct err *err)
{
	json_t *name = json_object_get(rq->args, "provider"), *out;
	enum machine_stats only = 0;
	int r = name ? provider_find(name, &only, err) : 0;

	if (r) {
		return r;
	}
	out = json_array();
	for (unsigned i = 0; i < ARRAY_SIZE(providers); i++) {
		for (int vcpu = 0; !r && vcpu < 2; vcpu++) {
			r = name && i != only ? 0 : add_schema(s, i, vcpu, out, err);
		}
	}
	if (r) {
		json_decref(out);
		return r;
	}
	*ret = out;
	return 0;
}

/* --- trace events --- */

/* No event of ours belongs to a vCPU in QEMU's sense; a name without * and ? has to exist. */
static int trace_check(struct qmp_request *rq, const char **pattern, struct err *err)
{
	const char *name = json_string_value(json_object_get(rq->args, "name"));
	bool known = strpbrk(name, "*?") != NULL;

	for (unsigned i = 0; !known && i < trace_nevents; i++) {
		known = !strcmp(trace_events[i].name, name);
	}
	if (!known) {
		return err_set(err, EINVAL, "unknown event \"%.64s\"", name);
	}
	if (json_object_get(rq->args, "vcpu")) {
		return err_set(err, EINVAL, "event \"%.64s\" is not vcpu-specific", name);
	}
	*pattern = name;
	return 0;
}

int qmp_trace_get(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	const char *pattern;
	int r = trace_check(rq, &pattern, err);

	if (r) {
		return r;
	}
	*ret = json_array();
	for (unsigned i = 0; i < trace_nevents; i++) {
		const struct trace_event *e = &trace_events[i];

		if (trace_match(pattern, e->name)) {
			json_array_append_new(
				*ret, json_pack("{s:s,s:s,s:b}", "name", e->name, "state",
						trace_logged(e->gate) ? "enabled" : "disabled",
						"vcpu", 0));
		}
	}
	return 0;
}

int qmp_trace_set(struct qmp_server *s, struct qmp_request *rq, json_t **ret, struct err *err)
{
	const char *pattern;
	int r = trace_check(rq, &pattern, err);

	if (!r) {
		trace_set(pattern, json_is_true(json_object_get(rq->args, "enable")));
	}
	return r;
}
