/*
 * The option table of the command line.
 *
 * Each option is one row: its name, whether it takes an argument, the function that records it
 * and its line of -help. A function gets the argument and writes to struct cli, which collects
 * what has to be merged (-machine, -m, -smp) and is turned into the vm_config at the end.
 * The operator is trusted, the text is checked all the same: every refusal names the option.
 */
#include "control/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "machine/machine.h"

#define MAX_RAM     (UINT64_C(1) << 46)
#define DEFAULT_RAM (128 * MiB)
#define MAX_CPUS    255u

struct cli {
	struct vm_config *cfg;
	bool no_user_config;
	bool have_ram, have_smp;
	uint64_t smp_cpus, smp_max, smp_sockets, smp_dies, smp_cores, smp_threads;
	bool done;
};

struct cli_option {
	const char *name;
	const char *arg; /* what to show in the help; NULL: takes none */
	int (*set)(struct cli *c, const struct cli_option *o, const char *arg, struct err *err);
	const char *help;
	size_t offset; /* of a list or a flag in struct vm_config, for the generic setters */
};

static char *xstrdup(const char *s)
{
	char *d = strdup(s);

	if (!d) {
		abort(); /* at start, a few bytes: nothing sensible can follow */
	}
	return d;
}

static int list_push(struct config_list *l, struct opts *o, const char *what, struct err *err)
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

/* --- JSON --- */

static int json_flatten(struct opts *o, const char *prefix, json_t *v, int depth, struct err *err)
{
	char key[256], num[32];
	const char *name, *text = NULL;
	json_t *child;
	int ret = 0;

	if (depth > 8) {
		return err_set(err, EINVAL, "%s: the JSON value is nested too deeply", o->what);
	}
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		json_object_foreach(v, name, child) {
			int n = snprintf(key, sizeof(key), "%s%s%s", prefix, *prefix ? "." : "",
					 name);

			if (n < 0 || (size_t)n >= sizeof(key)) {
				return err_set(err, EINVAL, "%s: the key '%.40s…' is too long",
					       o->what, name);
			}
			ret = json_flatten(o, key, child, depth + 1, err);
			if (ret) {
				return ret;
			}
		}
		return 0;
	case JSON_ARRAY:
		for (size_t i = 0; i < json_array_size(v); i++) {
			snprintf(key, sizeof(key), "%.200s.%zu", prefix, i);
			ret = json_flatten(o, key, json_array_get(v, i), depth + 1, err);
			if (ret) {
				return ret;
			}
		}
		return 0;
	case JSON_STRING:
		text = json_string_value(v);
		break;
	case JSON_INTEGER:
		snprintf(num, sizeof(num), "%lld", (long long)json_integer_value(v));
		text = num;
		break;
	case JSON_TRUE:
		text = "on";
		break;
	case JSON_FALSE:
		text = "off";
		break;
	default:
		return err_set(err, EINVAL, "%s: '%s' has a value of a type that is not supported",
			       o->what, prefix);
	}
	return opts_add(o, prefix, text, err);
}

int cli_json_to_opts(const char *what, const char *json, struct opts *out, struct err *err)
{
	json_error_t je;
	json_t *v = json_loads(json, JSON_REJECT_DUPLICATES, &je);
	int ret;

	*out = (struct opts){.what = what};
	if (!v) {
		return err_set(err, EINVAL, "%s: not valid JSON: %s (column %d)", what, je.text,
			       je.column);
	}
	if (!json_is_object(v)) {
		json_decref(v);
		return err_set(err, EINVAL, "%s: the JSON value must be an object", what);
	}
	ret = json_flatten(out, "", v, 0, err);
	json_decref(v);
	if (ret) {
		opts_fini(out);
	}
	return ret;
}

/* --- setters --- */

static int set_flag(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	*(bool *)((char *)c->cfg + o->offset) = true;
	return 0;
}

/* A string that may stand once: a second, different one contradicts. */
static int set_string(struct cli *c, const struct cli_option *o, const char *arg,
		      struct err *err)
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
	*s = xstrdup(arg);
	return 0;
}

static const char *first_key(const char *name)
{
	static const struct {
		const char *option, *key;
	} keys[] = {
		{"device", "driver"}, {"netdev", "type"},      {"chardev", "backend"},
		{"object", "qom-type"}, {"drive", NULL},       {"blockdev", NULL},
		{"fw_cfg", "name"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!strcmp(keys[i].option, name)) {
			return keys[i].key;
		}
	}
	return NULL;
}

static int set_item(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	static const char *const what[] = {"-device", "-netdev", "-chardev", "-object",
					   "-drive", "-blockdev", "-fw_cfg"};
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
		ret = opts_parse(&opts, w, arg, first_key(o->name), err);
	}
	if (ret) {
		return ret;
	}
	return list_push(l, &opts, w, err);
}

static int push_text(char ***list, size_t *n, const char *arg, const char *name, struct err *err)
{
	char **l = realloc(*list, (*n + 1) * sizeof(*l));

	if (!l) {
		return err_set(err, ENOMEM, "-%s: out of memory", name);
	}
	*list = l;
	l[(*n)++] = xstrdup(arg);
	return 0;
}

static int set_serial(struct cli *c, const struct cli_option *o, const char *arg,
		      struct err *err)
{
	return push_text(&c->cfg->serial, &c->cfg->nserial, arg, o->name, err);
}

static int set_qmp(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return push_text(&c->cfg->qmp, &c->cfg->nqmp, arg, o->name, err);
}

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
			cfg->machine_name = xstrdup(name);
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

static int set_machine(struct cli *c, const struct cli_option *o, const char *arg,
		       struct err *err)
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

static int set_accel(struct cli *c, const struct cli_option *o, const char *arg,
		     struct err *err)
{
	return accel_check("-accel", arg, err);
}

static int set_kvm(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	return 0; /* -enable-kvm: there is nothing else */
}

static int set_m(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	uint64_t size = 0;
	int ret = opts_parse(&opts, "-m", arg, "size", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "size");
	if (v && (parse_size(v, 'M', &size) || !size)) {
		ret = err_set(err, EINVAL, "-m: '%s' is not a memory size; write for example 2G", v);
	}
	for (const char *const *k = (const char *const[]){"slots", "maxmem", NULL}; !ret && *k; k++) {
		if (opts_get(&opts, *k)) {
			ret = err_set(err, EINVAL, "-m: %s is for memory hotplug, which this version "
				      "does not have; leave it out", *k);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	if (ret || !v) {
		return ret;
	}
	if (size % (4 * KiB) || size < 16 * MiB || size > MAX_RAM) {
		return err_set(err, EINVAL, "-m: %s is not possible; the size is a multiple of 4 KiB "
			       "from 16 MiB to 64 TiB", arg);
	}
	c->cfg->ram = size;
	return 0;
}

static int set_smp(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
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

		if (v && (parse_u64(v, keys[i].out) || !*keys[i].out || *keys[i].out > MAX_CPUS)) {
			ret = err_set(err, EINVAL, "-smp: %s=%s is not a number from 1 to %u",
				      keys[i].key, v, MAX_CPUS);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	c->have_smp = true;
	return ret;
}

static int set_name(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
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
		c->cfg->name = xstrdup(v);
	}
	opts_get(&opts, "debug-threads"); /* threads are always named */
	ret = opts_check_used(&opts, err);
	opts_fini(&opts);
	return ret;
}

static int set_uuid(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	size_t n = 0;

	for (const char *p = arg; *p; p++) {
		size_t pos = (size_t)(p - arg);
		bool dash = pos == 8 || pos == 13 || pos == 18 || pos == 23;
		char pair[3] = {0};

		if (dash) {
			if (*p != '-') {
				goto bad;
			}
			continue;
		}
		pair[0] = p[0];
		pair[1] = p[1];
		if (n == 16 || strspn(pair, "0123456789abcdefABCDEF") != 2) {
			goto bad;
		}
		c->cfg->uuid[n++] = (uint8_t)strtoul(pair, NULL, 16);
		p++;
	}
	if (n != 16) {
		goto bad;
	}
	c->cfg->uuid_set = true;
	return 0;
bad:
	return err_set(err, EINVAL, "-uuid: '%s' is not of the form "
		       "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", arg);
}

static int set_sandbox(struct cli *c, const struct cli_option *o, const char *arg,
		       struct err *err)
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

static int set_rtc(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
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
static int set_only(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
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

static int set_boot(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	int ret = opts_parse(&opts, "-boot", arg, "order", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "menu");
	if (v && strcmp(v, "off")) {
		ret = err_set(err, EINVAL, "-boot: menu=%s cannot be had; there is no boot menu", v);
	}
	v = opts_get(&opts, "strict");
	if (!ret && v && strcmp(v, "on") && strcmp(v, "off")) {
		ret = err_set(err, EINVAL, "-boot: strict=%s is neither on nor off", v);
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	return ret;
}

static int set_no_user_config(struct cli *c, const struct cli_option *o, const char *arg,
			      struct err *err)
{
	c->no_user_config = true; /* there are no configuration files that are read unasked */
	return 0;
}

static int set_help(struct cli *c, const struct cli_option *o, const char *arg, struct err *err);

static int set_version(struct cli *c, const struct cli_option *o, const char *arg,
		       struct err *err)
{
	printf("NEMU version %s\n", NEMU_VERSION);
	c->done = true;
	return 0;
}

#define CFG(f) offsetof(struct vm_config, f)
static const struct cli_option options[] = {
	{"machine", "[type=]NAME[,key=value…]", set_machine,
	 "virt (also virt-1.0, q35, pc-q35-nemu-1.0) or none; accel=kvm", 0},
	{"M", "NAME", set_machine, "the same as -machine", 0},
	{"accel", "kvm", set_accel, "KVM is the only accelerator", 0},
	{"enable-kvm", NULL, set_kvm, "the same", 0},
	{"cpu", "host[,+FEATURE|-FEATURE|FEATURE=on|off][,phys-bits=N]", set_string,
	 "the CPU of the host, with features switched", CFG(cpu)},
	{"smp", "[cpus=]N[,sockets=…,dies=…,cores=…,threads=…]", set_smp,
	 "number of virtual CPUs and how they are arranged", 0},
	{"m", "[size=]SIZE", set_m, "memory of the guest, in MiB or with a suffix (512, 2G)", 0},
	{"kernel", "FILE", set_string, "start this Linux kernel (bzImage) without firmware",
	 CFG(kernel)},
	{"initrd", "FILE", set_string, "initial RAM disk for -kernel", CFG(initrd)},
	{"append", "TEXT", set_string, "kernel command line for -kernel", CFG(append)},
	{"bios", "FILE", set_string, "firmware image, read-only", CFG(bios)},
	{"drive", "file=FILE[,if=none|virtio|pflash][,format=raw][,id=…][,readonly=on]…", set_item,
	 "a disk, or a flash of the firmware (if=pflash, unit 0 code, unit 1 variables)",
	 CFG(drives)},
	{"blockdev", "driver=raw|file|host_device,node-name=…,…", set_item,
	 "a block node, also as JSON", CFG(blockdevs)},
	{"device", "DRIVER[,id=…][,bus=…][,addr=…],…", set_item,
	 "a device, also as JSON; -device help lists them", CFG(devices)},
	{"netdev", "tap,id=…[,ifname=…|,fd=…]", set_item, "a network back end", CFG(netdevs)},
	{"chardev", "stdio|pty|file|null|socket,id=…,…", set_item, "a character back end",
	 CFG(chardevs)},
	{"object", "iothread|rng-builtin|rng-random,id=…", set_item, "an object that devices use",
	 CFG(objects)},
	{"serial", "stdio|pty|null|none|file:FILE|unix:PATH,server=on,wait=off|chardev:ID",
	 set_serial, "where the serial port goes", 0},
	{"qmp", "unix:PATH,server=on,wait=off|tcp:HOST:PORT,server=on,wait=off|stdio", set_qmp,
	 "control socket", 0},
	{"fw_cfg", "[name=]opt/…,file=FILE|string=TEXT", set_item, "a file for the firmware or guest",
	 CFG(fw_cfgs)},
	{"name", "[guest=]TEXT", set_name, "name of the virtual machine", 0},
	{"uuid", "UUID", set_uuid, "its UUID, shown to the guest", 0},
	{"rtc", "base=utc", set_rtc, "the clock runs in UTC", 0},
	{"boot", "[menu=off][,strict=on|off]", set_boot, "no boot menu", 0},
	{"S", NULL, set_flag, "do not start the guest; wait for cont over QMP",
	 CFG(start_paused)},
	{"no-reboot", NULL, set_flag, "end instead of rebooting", CFG(no_reboot)},
	{"no-shutdown", NULL, set_flag, "stop instead of ending when the guest powers off",
	 CFG(no_shutdown)},
	{"nographic", NULL, set_flag, "serial port on the terminal", CFG(nographic)},
	{"nodefaults", NULL, set_flag, "only what is named (no serial port on the terminal)",
	 CFG(nodefaults)},
	{"no-user-config", NULL, set_no_user_config, "accepted; no configuration file is ever read",
	 0},
	{"display", "none", set_only, "there is no graphic console", 0},
	{"vga", "none", set_only, "the same", 0},
	{"monitor", "none", set_only, "there is no human monitor", 0},
	{"parallel", "none", set_only, "there is no parallel port", 0},
	{"net", "none", set_only, "use -netdev", 0},
	{"nic", "none", set_only, "use -netdev", 0},
	{"sandbox", "on|off", set_sandbox, "isolation of this process; off is for debugging only", 0},
	{"pidfile", "FILE", set_string, "write the process id there, removed at the end",
	 CFG(pidfile)},
	{"daemonize", NULL, set_flag, "go to the background when everything is ready",
	 CFG(daemonize)},
	{"version", NULL, set_version, "print the version", 0},
	{"help", NULL, set_help, "print this", 0},
	{"h", NULL, set_help, "the same", 0},
};
#undef CFG

static int set_help(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	printf("usage: nemu [options]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		printf("  -%s %s\n        %s\n", options[i].name,
		       options[i].arg ? options[i].arg : "", options[i].help);
	}
	c->done = true;
	return 0;
}

/* --- what can only be said when all options are there --- */

static int smp_finish(struct cli *c, struct err *err)
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
	if (!s || !k || s * d * k * t != n || n > MAX_CPUS) {
		return err_set(err, EINVAL, "-smp: sockets * dies * cores * threads must be the number "
			       "of CPUs (%llu), at most %u", (unsigned long long)n, MAX_CPUS);
	}
	cfg->cpus = (unsigned)n;
	cfg->sockets = (unsigned)s;
	cfg->dies = (unsigned)d;
	cfg->cores = (unsigned)k;
	cfg->threads = (unsigned)t;
	return 0;
}

static int cli_finish(struct cli *c, struct err *err)
{
	struct vm_config *cfg = c->cfg;

	if (!cfg->machine_name) {
		cfg->machine_name = xstrdup("virt");
	}
	if (!cfg->ram) {
		cfg->ram = DEFAULT_RAM;
	}
	if (cfg->initrd && !cfg->kernel) {
		return err_set(err, EINVAL, "-initrd needs -kernel; name the kernel that it belongs to");
	}
	if (cfg->append && !cfg->kernel) {
		return err_set(err, EINVAL, "-append needs -kernel; name the kernel that it is for");
	}
	if (cfg->daemonize && cfg->nographic && !cfg->nodefaults && !cfg->nserial) {
		return err_set(err, EINVAL, "-daemonize cannot be used with a serial port on the "
			       "terminal; say -serial none or -display none instead of -nographic");
	}
	return smp_finish(c, err);
}

int cli_parse(int argc, char **argv, struct vm_config *out, enum cli_result *result,
	      struct err *err)
{
	struct cli c = {.cfg = out};
	int ret;

	vm_config_init(out);
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *arg = "";
		const struct cli_option *o = NULL;

		if (*name != '-') {
			return err_set(err, EINVAL, "'%s' is not an option; a disk is named with "
				       "-drive file=%s,format=raw,if=virtio", name, name);
		}
		name += name[1] == '-' ? 2 : 1;
		for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
			if (!strcmp(options[k].name, name)) {
				o = &options[k];
			}
		}
		if (!o) {
			return err_set(err, EINVAL, "%s: unknown option; -help lists what there is",
				       argv[i]);
		}
		if (o->arg) {
			if (i + 1 >= argc) {
				return err_set(err, EINVAL, "-%s needs an argument: %s", o->name,
					       o->arg);
			}
			arg = argv[++i];
		}
		ret = o->set(&c, o, arg, err);
		if (ret) {
			return ret;
		}
		if (c.done) {
			*result = CLI_DONE;
			return 0;
		}
	}
	*result = CLI_RUN;
	return cli_finish(&c, err);
}
