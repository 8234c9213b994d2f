/*
 * The option table of the command line.
 *
 * Each option is one row: its name, whether it takes an argument, the function that records it
 * (cli_int.h) and its line of -help. A function gets the argument and writes to struct cli, which
 * collects what has to be merged (-machine, -m, -smp) and is turned into the vm_config at the end.
 * What is said differently on each architecture is in words_x86.c, words_arm64.c.
 * The operator is trusted, the text is checked all the same: every refusal names the option.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli_int.h"

#define DEFAULT_RAM (128 * MiB)

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
	{"machine", "[type=]NAME[,key=value…]", cli_set_machine,
	 cli_machine_help, 0},
	{"M", "NAME", cli_set_machine, "the same as -machine", 0},
	{"accel", "kvm", cli_set_accel, "KVM is the only accelerator", 0},
	{"enable-kvm", NULL, cli_set_kvm, "the same", 0},
	{"cpu", cli_cpu_arg, cli_set_cpu, cli_cpu_help, CFG(cpu)},
	{"smp", "[cpus=]N[,sockets=…,dies=…,cores=…,threads=…]", cli_set_smp,
	 "number of virtual CPUs and how they are arranged", 0},
	{"m", "[size=]SIZE", cli_set_m, "memory of the guest, in MiB or with a suffix (512, 2G)", 0},
	{"mem-path", "FILE|DIRECTORY", cli_set_string,
	 "the file, or a directory for one, that is the guest's memory (hugetlbfs)",
	 CFG(mem_path)},
	{"mem-prealloc", NULL, cli_set_flag, "allocate all of the guest's memory at start",
	 CFG(mem_prealloc)},
	{"overcommit", "[mem-lock=on|off][,cpu-pm=off]", cli_set_overcommit,
	 "lock the guest's memory and the process in RAM", 0},
	{"numa", "node|cpu|dist|hmat-lb|hmat-cache,key=value…", cli_set_item,
	 "a NUMA node of the guest, its CPUs, memory and distances", CFG(numas)},
	{"kernel", "FILE", cli_set_string, cli_kernel_help, CFG(kernel)},
	{"initrd", "FILE", cli_set_string, "initial RAM disk for -kernel", CFG(initrd)},
	{"append", "TEXT", cli_set_string, "kernel command line for -kernel", CFG(append)},
	{"bios", "FILE", cli_set_string, "firmware image, read-only", CFG(bios)},
	{"drive", "file=FILE[,if=none|virtio|pflash][,format=raw][,id=…][,readonly=on]…", cli_set_item,
	 "a disk, or a flash of the firmware (if=pflash, unit 0 code, unit 1 variables)",
	 CFG(drives)},
	{"blockdev", "driver=raw|file|host_device,node-name=…,…", cli_set_item,
	 "a block node, also as JSON", CFG(blockdevs)},
	{"device", "DRIVER[,id=…][,bus=…][,addr=…],…", cli_set_item,
	 "a device, also as JSON; -device help lists them", CFG(devices)},
	{"netdev", "tap,id=…[,ifname=…[,queues=N]|,fd=…|,fds=N:N…] | user,id=…[,hostfwd=…]… | "
	 "stream,id=…,addr.type=unix,addr.path=…",
	 cli_set_item, "a network back end: an interface, passt, or another process", CFG(netdevs)},
	{"chardev", "stdio|pty|file|null|socket,id=…,…", cli_set_item, "a character back end",
	 CFG(chardevs)},
	{"object", "iothread|rng-builtin|rng-random|memory-backend-ram|-memfd|-file,id=…",
	 cli_set_item, "an object that devices or the machine use", CFG(objects)},
	{"serial", "stdio|pty|null|none|file:FILE|unix:PATH,server=on,wait=off|chardev:ID",
	 cli_set_serial, "where the serial port goes", 0},
	{"qmp", "unix:PATH,server=on,wait=off|tcp:HOST:PORT,server=on,wait=off|stdio", cli_set_qmp,
	 "control socket", 0},
	{"fw_cfg", "[name=]opt/…,file=FILE|string=TEXT", cli_set_item, "a file for the firmware or guest",
	 CFG(fw_cfgs)},
	{"name", "[guest=]TEXT", cli_set_name, "name of the virtual machine", 0},
	{"uuid", "UUID", cli_set_uuid, "its UUID, shown to the guest", 0},
	{"rtc", "base=utc", cli_set_rtc, "the clock runs in UTC", 0},
	{"smbios", "type=N,KEY=VALUE…", cli_set_smbios,
	 "what the tables of type 0, 1, 2, 3, 4, 11 and 17 say of the machine", 0},
	{"boot", "[order=c|n|cn|nc][,menu=on|off][,splash-time=MS][,strict=on|off]", cli_set_boot,
	 "what firmware starts from, if no device has a bootindex; a wait for its menu", 0},
	{"S", NULL, cli_set_flag, "do not start the guest; wait for cont over QMP",
	 CFG(start_paused)},
	{"no-reboot", NULL, cli_set_flag, "end instead of rebooting", CFG(no_reboot)},
	{"no-shutdown", NULL, cli_set_flag, "stop instead of ending when the guest powers off",
	 CFG(no_shutdown)},
	{"nographic", NULL, cli_set_flag, "serial port on the terminal", CFG(nographic)},
	{"nodefaults", NULL, cli_set_flag, "only what is named (no serial port on the terminal)",
	 CFG(nodefaults)},
	{"no-user-config", NULL, cli_set_no_user_config, "accepted; no configuration file is ever read",
	 0},
	{"display", "none", cli_set_only, "there is no graphic console", 0},
	{"vga", "none", cli_set_only, "the same", 0},
	{"monitor", "none", cli_set_only, "there is no human monitor", 0},
	{"parallel", "none", cli_set_only, "there is no parallel port", 0},
	{"net", "none", cli_set_only, "use -netdev", 0},
	{"nic", "none", cli_set_only, "use -netdev", 0},
	{"sandbox", "on|off", cli_set_sandbox, "isolation of this process; off is for debugging only", 0},
	{"pidfile", "FILE", cli_set_string, "write the process id there, removed at the end",
	 CFG(pidfile)},
	{"daemonize", NULL, cli_set_flag, "go to the background when everything is ready",
	 CFG(daemonize)},
	{"trace", "[enable=]PATTERN[,events=FILE][,file=FILE]", cli_set_trace,
	 "log trace events, * and ? in their names; -trace help lists them", 0},
	{"check-host", NULL, cli_set_check_host,
	 "say what this host offers to guests, and what it lacks", 0},
	{"json", NULL, cli_set_json, "with -check-host: as JSON", 0},
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

static int cli_finish(struct cli *c, struct err *err)
{
	struct vm_config *cfg = c->cfg;

	if (!cfg->machine_name) {
		cfg->machine_name = cli_strdup("virt");
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
	if (cfg->boot_wait_set && !cfg->boot_menu) {
		return err_set(err, EINVAL, "-boot: splash-time= needs menu=on; it is how long the menu "
			       "can be called");
	}
	if (cfg->daemonize && cfg->nographic && !cfg->nodefaults && !cfg->nserial) {
		return err_set(err, EINVAL, "-daemonize cannot be used with a serial port on the "
			       "terminal; say -serial none or -display none instead of -nographic");
	}
	return cli_smp_finish(c, err);
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
	if (c.json && !c.check_host) {
		return err_set(err, EINVAL, "-json belongs to -check-host; name that, too");
	}
	if (c.check_host) {
		*result = cli_check_host(c.json) ? CLI_DONE : CLI_NO;
		return 0;
	}
	*result = CLI_RUN;
	return cli_finish(&c, err);
}
