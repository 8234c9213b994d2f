/*
 * Setters of the option table: the generic ones (a flag, a string, an item of a list) and single
 * options that belong to no larger subject.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli_int.h"
#include "machine/machine.h"
#include "net/net.h"

char *cli_strdup(const char *s)
{
	char *d = strdup(s);

	if (!d) {
		abort(); /* at start, a few bytes: nothing sensible can follow */
	}
	return d;
}

int cli_list_push(struct config_list *l, struct opts *o, const char *what, struct err *err)
{
	struct config_item *n = realloc(l->item, (l->count + 1) * sizeof(*n));

	if (!n) {
		opts_fini(o);
		return err_set(err, ENOMEM, "%s: out of memory", what);
	}
	l->item = n;
	l->item[l->count++].opts = *o;
	return 0;
}

int cli_set_flag(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	*(bool *)((char *)c->cfg + o->offset) = true;
	return 0;
}

/* A string that may stand once: a second, different one contradicts. */
int cli_set_string(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	char **s = (char **)((char *)c->cfg + o->offset);

	if (!*arg) {
		return err_set(err, EINVAL, "-%s: the argument is empty", o->name);
	}
	if (*s && strcmp(*s, arg)) {
		return err_set(err, EINVAL, "-%s is given twice, with '%s' and '%s'; keep one",
			       o->name, *s, arg);
	}
	free(*s);
	*s = cli_strdup(arg);
	return 0;
}

static const char *const no_lists[] = {NULL};
static const char *const object_lists[] = {"host-nodes", NULL};
static const char *const numa_lists[] = {"cpus", NULL};
/* What a first word without "=" stands for, and the keys that may be given several times. */
static const struct item_keys {
	const char *option, *first;
	const char *const *lists;
} item_keys[] = {
	{"device", "driver", no_lists},	   {"netdev", "type", net_list_keys},
	{"chardev", "backend", no_lists},  {"object", "qom-type", object_lists},
	{"drive", NULL, no_lists},	   {"blockdev", NULL, no_lists},
	{"fw_cfg", "name", no_lists},	   {"numa", "type", numa_lists},
};

static const struct item_keys *keys_of(const char *name)
{
	static const struct item_keys none = {.lists = no_lists};

	for (size_t i = 0; i < ARRAY_SIZE(item_keys); i++) {
		if (!strcmp(item_keys[i].option, name)) {
			return &item_keys[i];
		}
	}
	return &none;
}

int cli_set_item(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	static const char *const what[] = {"-device", "-netdev", "-chardev", "-object",
					   "-drive", "-blockdev", "-fw_cfg", "-numa"};
	struct config_list *l = (struct config_list *)((char *)c->cfg + o->offset);
	const char *w = "";
	struct opts opts;
	const char *name, *doc;
	int ret;

	if (!strcmp(o->name, "device") && (!strcmp(arg, "help") || !strcmp(arg, "?"))) {
		for (unsigned i = 0; (name = machine_device_class(i, &doc)); i++) {
			printf("name \"%s\", desc \"%s\"\n", name, doc);
		}
		c->done = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(what); i++) {
		if (!strcmp(what[i] + 1, o->name)) {
			w = what[i];
		}
	}
	if (*arg == '{') {
		ret = cli_json_to_opts(w, arg, &opts, err);
	} else {
		const struct item_keys *k = keys_of(o->name);

		ret = opts_parse_lists(&opts, w, arg, k->first, k->lists, err);
	}
	if (ret) {
		return ret;
	}
	return cli_list_push(l, &opts, w, err);
}

int cli_push_text(char ***list, size_t *n, const char *arg, const char *name, struct err *err)
{
	char **l = realloc(*list, (*n + 1) * sizeof(*l));

	if (!l) {
		return err_set(err, ENOMEM, "-%s: out of memory", name);
	}
	*list = l;
	l[(*n)++] = cli_strdup(arg);
	return 0;
}

int cli_set_serial(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return cli_push_text(&c->cfg->serial, &c->cfg->nserial, arg, o->name, err);
}

int cli_set_qmp(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return cli_push_text(&c->cfg->qmp, &c->cfg->nqmp, arg, o->name, err);
}

int cli_set_name(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	int ret = opts_parse(&opts, "-name", arg, "guest", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "guest");
	if (v) {
		free(c->cfg->name);
		c->cfg->name = cli_strdup(v);
	}
	opts_get(&opts, "debug-threads"); /* threads are always named */
	ret = opts_check_used(&opts, err);
	opts_fini(&opts);
	return ret;
}

int cli_set_sandbox(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	static const char *const confirm[] = {"obsolete", "elevateprivileges", "spawn",
					      "resourcecontrol"};
	struct opts opts;
	bool on = true;
	const char *v;
	int ret = opts_parse(&opts, "-sandbox", arg, "enable", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "enable");
	if (v && parse_bool(v, &on)) {
		ret = err_set(err, EINVAL, "-sandbox: '%s' is neither on nor off", v);
	}
	for (size_t i = 0; !ret && i < ARRAY_SIZE(confirm); i++) {
		v = opts_get(&opts, confirm[i]);
		if (v && strcmp(v, "deny")) {
			ret = err_set(err, EINVAL, "-sandbox: %s=%s cannot be had: the filter always "
				      "denies it", confirm[i], v);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	c->cfg->sandbox_off = !on;
	return ret;
}

int cli_set_rtc(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	int ret = opts_parse(&opts, "-rtc", arg, "base", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "base");
	if (v && strcmp(v, "utc")) {
		ret = err_set(err, EINVAL, "-rtc: base=%s cannot be had; the clock runs in UTC "
			      "(base=utc)", v);
	}
	v = opts_get(&opts, "clock");
	if (!ret && v && strcmp(v, "host")) {
		ret = err_set(err, EINVAL, "-rtc: clock=%s cannot be had; only clock=host", v);
	}
	v = opts_get(&opts, "driftfix");
	if (!ret && v && strcmp(v, "none")) {
		ret = err_set(err, EINVAL, "-rtc: driftfix=%s cannot be had; only none: the clock has "
			      "no interrupt", v);
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	return ret;
}

/* Options of which only one value exists here. */
int cli_set_only(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	static const struct {
		const char *option, *value, *why;
	} only[] = {
		{"display", "none", "there is no graphic console"},
		{"vga", "none", "there is no graphic console"},
		{"parallel", "none", "there is no parallel port"},
		{"monitor", "none", "there is no human monitor; use -qmp"},
		{"net", "none", "use -netdev and -device virtio-net-pci"},
		{"nic", "none", "use -netdev and -device virtio-net-pci"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(only); i++) {
		if (!strcmp(only[i].option, o->name)) {
			if (!strcmp(only[i].value, arg)) {
				return 0;
			}
			return err_set(err, EINVAL, "-%s %s cannot be had: %s", o->name, arg,
				       only[i].why);
		}
	}
	return err_set(err, EINVAL, "-%s: unknown", o->name);
}

int cli_set_no_user_config(struct cli *c, const struct cli_option *o, const char *arg,
			   struct err *err)
{
	c->no_user_config = true; /* there are no configuration files that are read unasked */
	return 0;
}
