/*
 * -machine and -accel: what is merged from several options.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli_int.h"

static int machine_type_set(struct vm_config *cfg, const char *name, struct err *err)
{
	bool known = !strcmp(name, "none");

	cfg->type = known ? MACHINE_NONE : MACHINE_VIRT;
	for (size_t i = 0; cli_machine_names[i]; i++) {
		known = known || !strcmp(cli_machine_names[i], name);
	}
	if (!known) {
		return err_set(err, EINVAL,
			       "-machine: unknown machine '%s'; this program has %s and none",
			       name, cli_machine_known);
	}
	free(cfg->machine_name);
	cfg->machine_name = cli_strdup(name);
	return 0;
}

static void machine_help(void)
{
	printf("Supported machines are:\n");
	for (size_t i = 0; cli_machine_names[i]; i++) {
		printf("  %-16s  %s\n", cli_machine_names[i],
		       i ? "the same" : "the machine of NEMU (default)");
	}
	printf("  %-16s  no machine: only to ask over QMP what this program has\n", "none");
}

/* accel=kvm:tcg is a list of what may be used; KVM has to be in it. */
static int accel_check(const char *option, const char *list, struct err *err)
{
	const char *p = list;

	while (*p) {
		size_t n = strcspn(p, ":");

		if (n == 3 && !strncmp(p, "kvm", 3)) {
			return 0;
		}
		p += n + (p[n] == ':');
	}
	return err_set(err, EINVAL, "%s: '%s' does not name kvm, the only accelerator here",
		       option, list);
}

/* Keys of -machine that only confirm what this machine is; the other value is refused. Those of
 * the architecture: cli_machine_fixed. */
static const struct cli_fixed machine_fixed[] = {
	{"usb", "off", "there is no USB"},
	{"acpi", "on", "ACPI is always there"},
	{"graphics", "off", "there is no graphic console"},
	{"dump-guest-core", "off", "guest memory is never part of a core file"},
	{"mem-merge", "off", "guest memory is never merged"},
	{NULL, NULL, NULL},
};

static int check_fixed(struct opts *opts, const struct cli_fixed *f, struct err *err)
{
	for (; f->key; f++) {
		const char *v = opts_get(opts, f->key);
		bool have, want;

		if (!v || !strcmp(v, f->value)) {
			continue;
		}
		if (parse_bool(v, &have) == 0 && parse_bool(f->value, &want) == 0 &&
		    have == want) {
			continue;
		}
		return err_set(err, EINVAL,
			       "-machine: %s=%s cannot be had: %s; leave it out or say %s=%s",
			       f->key, v, f->why, f->key, f->value);
	}
	return 0;
}

int cli_set_machine(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	int ret;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		machine_help();
		c->done = true;
		return 0;
	}
	ret = opts_parse(&opts, "-machine", arg, "type", err);
	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "type");
	if (v) {
		ret = machine_type_set(c->cfg, v, err);
	}
	v = opts_get(&opts, "accel");
	if (!ret && v) {
		ret = accel_check("-machine accel", v, err);
	}
	ret = ret ? ret : cli_machine_memory(c, &opts, err);
	ret = ret ? ret : check_fixed(&opts, machine_fixed, err);
	ret = ret ? ret : check_fixed(&opts, cli_machine_fixed, err);
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	return ret;
}

int cli_set_accel(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return accel_check("-accel", arg, err);
}

int cli_set_kvm(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return 0; /* -enable-kvm: there is nothing else */
}
