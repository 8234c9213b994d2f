/*
 * -machine, -accel and -smp: what is merged from several options and checked at the end.
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

int cli_set_smp(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	const struct {
		const char *key;
		uint64_t *out;
	} keys[] = {
		{"cpus", &c->smp_cpus},	  {"maxcpus", &c->smp_max}, {"sockets", &c->smp_sockets},
		{"dies", &c->smp_dies},	  {"cores", &c->smp_cores}, {"threads", &c->smp_threads},
	};
	struct opts opts;
	int ret = opts_parse(&opts, "-smp", arg, "cpus", err);

	if (ret) {
		return ret;
	}
	for (size_t i = 0; !ret && i < ARRAY_SIZE(keys); i++) {
		const char *v = opts_get(&opts, keys[i].key);

		if (v && (parse_u64(v, keys[i].out) || !*keys[i].out || *keys[i].out > CLI_MAX_CPUS)) {
			ret = err_set(err, EINVAL, "-smp: %s=%s is not a number from 1 to %u",
				      keys[i].key, v, CLI_MAX_CPUS);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	c->have_smp = true;
	return ret;
}

int cli_smp_finish(struct cli *c, struct err *err)
{
	struct vm_config *cfg = c->cfg;
	uint64_t s = c->smp_sockets, d = c->smp_dies, k = c->smp_cores, t = c->smp_threads;
	uint64_t n = c->smp_cpus;

	if (c->smp_max && n && c->smp_max < n) {
		return err_set(err, EINVAL, "-smp: maxcpus=%llu is less than cpus=%llu",
			       (unsigned long long)c->smp_max, (unsigned long long)n);
	}
	if (c->smp_max && n && c->smp_max > n) {
		return err_set(err, EINVAL, "-smp: maxcpus=%llu is for CPU hotplug, which this version "
			       "does not have; leave it out or say maxcpus=%llu",
			       (unsigned long long)c->smp_max, (unsigned long long)n);
	}
	d = d ? d : 1;
	t = t ? t : 1;
	if (!n) {
		n = c->smp_max ? c->smp_max : (s ? s : 1) * d * (k ? k : 1) * t;
	}
	if (!k) { /* QEMU since 6.2 prefers cores over sockets */
		s = s ? s : 1;
		k = n / (s * d * t);
	} else if (!s) {
		s = n / (d * k * t);
	}
	if (!s || !k || s * d * k * t != n || n > CLI_MAX_CPUS) {
		return err_set(err, EINVAL, "-smp: sockets * dies * cores * threads must be the number "
			       "of CPUs (%llu), at most %u", (unsigned long long)n, CLI_MAX_CPUS);
	}
	cfg->cpus = (unsigned)n;
	cfg->sockets = (unsigned)s;
	cfg->dies = (unsigned)d;
	cfg->cores = (unsigned)k;
	cfg->threads = (unsigned)t;
	return 0;
}
