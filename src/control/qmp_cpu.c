/*
 * The QMP commands about processors: which there are, on which threads they run (for pinning),
 * and which models -cpu knows. Answers as in QEMU's QAPI schema.
 */
#include <stdio.h>
#include <string.h>

#include "control/qmp_int.h"

#define TARGET NEMU_TARGET /* as QEMU calls the architecture; from the build */

static json_t *cpu_props(const struct vm_config *c, unsigned i)
{
	unsigned core = i / c->threads, die = core / c->cores;

	return json_pack("{s:i,s:i,s:i,s:i}", "socket-id", (int)(die / c->dies), "die-id",
			 (int)(die % c->dies), "core-id", (int)(core % c->cores), "thread-id",
			 (int)(i % c->threads));
}

static json_t *cpu_path(unsigned i)
{
	return json_sprintf("/machine/unattached/device[%u]", i);
}

int qmp_query_cpus_fast(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			struct err *err)
{
	const struct vm_config *c = machine_config(s->m);

	*ret = json_array();
	for (unsigned i = 0; i < machine_cpus(s->m); i++) {
		json_array_append_new(*ret,
				      json_pack("{s:i,s:o,s:i,s:s,s:o}", "cpu-index", (int)i,
						"qom-path", cpu_path(i), "thread-id",
						(int)machine_cpu_tid(s->m, i), "target", TARGET,
						"props", cpu_props(c, i)));
	}
	return 0;
}

/* Every place that a processor can be in; one that is taken has a path. */
int qmp_query_hotpluggable_cpus(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
				struct err *err)
{
	const struct vm_config *c = machine_config(s->m);
	const char *model = c->cpu ? c->cpu : "host";
	int len = (int)strcspn(model, ",");
	unsigned cpus = machine_cpus(s->m);

	*ret = json_array();
	for (unsigned i = cpus ? c->max_cpus : 0; i-- > 0;) {
		json_t *place =
			json_pack("{s:o,s:i,s:o}", "props", cpu_props(c, i), "vcpus-count", 1,
				  "type", json_sprintf("%.*s-" TARGET "-cpu", len, model));

		if (i < cpus) {
			json_object_set_new(place, "qom-path", cpu_path(i));
		}
		json_array_append_new(*ret, place);
	}
	return 0;
}

/* unavailable-features is there where the host is known, which it is not to machine none. */
int qmp_query_cpu_definitions(struct qmp_server *s, struct qmp_request *rq, json_t **ret,
			      struct err *err)
{
	const char *name, *doc, *feature;

	*ret = json_array();
	for (unsigned i = 0; (name = machine_cpu_model(i, &doc)); i++) {
		bool host = !strcmp(name, "host") || !strcmp(name, "max");
		json_t *model =
			json_pack("{s:s,s:o,s:b,s:b,s:b}", "name", name, "typename",
				  json_sprintf("%s-" TARGET "-cpu", name), "migration-safe",
				  !host, "static", 0, "deprecated", 0);

		if (machine_cpus(s->m)) {
			json_t *missing = json_array();

			for (unsigned j = 0; (feature = machine_cpu_missing(s->m, i, j)); j++) {
				json_array_append_new(missing, json_string(feature));
			}
			json_object_set_new(model, "unavailable-features", missing);
		}
		json_array_append_new(*ret, model);
	}
	return 0;
}
