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
	static const struct {
		const char *name;
		enum machine_type type;
	} names[] = {
		{"virt", MACHINE_VIRT},	      {"virt-1.0", MACHINE_VIRT},
		{"q35", MACHINE_VIRT},	      {"pc-q35-nemu-1.0", MACHINE_VIRT},
		{"none", MACHINE_NONE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(names[i].name, name)) {
			cfg->type = names[i].type;
			free(cfg->machine_name);
			cfg->machine_name = cli_strdup(name);
			return 0;
		}
	}
	return err_set(err, EINVAL,
		       "-machine: unknown machine '%s'; this program has virt (virt-1.0, also "
		       "known as q35 and pc-q35-nemu-1.0) and none", name);
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

/* Keys of -machine that only confirm what this machine is; the other value is refused. */
static const struct {
	const char *key, *value, *why;
} machine_fixed[] = {
	{"usb", "off", "there is no USB"},
	{"vmport", "off", "there is no VMware port"},
	{"smm", "off", "there is no system management mode"},
	{"acpi", "on", "ACPI is always there"},
	{"graphics", "off", "there is no graphic console"},
	{"kernel-irqchip", "split", "the interrupt controller is always split"},
	{"dump-guest-core", "off", "guest memory is never part of a core file"},
	{"mem-merge", "off", "guest memory is never merged"},
	{"hpet", "off", "there is no HPET"},
	{"pit", "off", "there is no PIT"},
	{"pic", "off", "there is no PIC"},
	{"i8042", "off", "there is no i8042"},
	{"sata", "off", "there is no SATA controller"},
};

int cli_set_machine(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	int ret = opts_parse(&opts, "-machine", arg, "type", err);

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
	for (size_t i = 0; !ret && i < ARRAY_SIZE(machine_fixed); i++) {
		bool have, want;

		v = opts_get(&opts, machine_fixed[i].key);
		if (!v || !strcmp(v, machine_fixed[i].value)) {
			continue;
		}
		if (parse_bool(v, &have) == 0 &&
		    parse_bool(machine_fixed[i].value, &want) == 0 && have == want) {
			continue;
		}
		ret = err_set(err, EINVAL, "-machine: %s=%s cannot be had: %s; leave it out or say %s=%s",
			      machine_fixed[i].key, v, machine_fixed[i].why,
			      machine_fixed[i].key, machine_fixed[i].value);
	}
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
