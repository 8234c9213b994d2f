/*
 * -check-host: the facts of machine/host_check.h as a table, or with --json as one object:
 *
 *   {"version": "…", "usable": true,
 *    "facts": {"kvm.device": {"state": "ok", "value": "/dev/kvm"}, …}}
 *
 * state is ok, missing, fatal or unknown; what is missing has its consequence and its remedy.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/cli_int.h"
#include "machine/host_check.h"

static const char *const state_names[] = {
	[HOST_OK] = "ok",
	[HOST_MISSING] = "missing",
	[HOST_FATAL] = "fatal",
	[HOST_UNKNOWN] = "unknown",
};

struct show {
	json_t *facts; /* NULL: as a table */
	unsigned fatal;
};

static void text_fact(const struct host_fact *f)
{
	printf("%-40s %-8s %s\n", f->key, state_names[f->state], f->value);
	if (f->consequence) {
		printf("    %s\n", f->consequence);
	}
	if (f->remedy) {
		printf("    remedy: %s\n", f->remedy);
	}
}

static void json_fact(json_t *facts, const struct host_fact *f)
{
	json_t *v = json_pack("{s:s,s:s}", "state", state_names[f->state], "value", f->value);

	if (f->consequence) {
		json_object_set_new(v, "consequence", json_string(f->consequence));
	}
	if (f->remedy) {
		json_object_set_new(v, "remedy", json_string(f->remedy));
	}
	json_object_set_new(facts, f->key, v);
}

static void take(void *opaque, const struct host_fact *f)
{
	struct show *s = opaque;

	s->fatal += f->state == HOST_FATAL;
	if (s->facts) {
		json_fact(s->facts, f);
	} else {
		text_fact(f);
	}
}

bool cli_check_host(bool json)
{
	struct show s = {.facts = json ? json_object() : NULL};
	json_t *all;

	machine_check_host(take, &s);
	if (json) {
		all = json_pack("{s:s,s:b,s:o}", "version", NEMU_VERSION, "usable", !s.fatal,
				"facts", s.facts);
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(all);
	} else if (s.fatal) {
		printf("\nNo guest can run here: see what is fatal above.\n");
	} else {
		printf("\nGuests can run here.\n");
	}
	return !s.fatal;
}

int cli_set_check_host(struct cli *c, const struct cli_option *o, const char *arg,
		       struct err *err)
{
	c->check_host = true;
	return 0;
}

int cli_set_json(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	c->json = true;
	return 0;
}
