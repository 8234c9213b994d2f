/*
 * The command line: what each option does, what is refused and that the refusal names it, JSON
 * forms, any order, contradictions.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "control/cli.h"

#define MAX_ARGS 32

/* Blanks separate the arguments; "~" stands for a blank in one. */
static int parse(const char *line, struct vm_config *c, enum cli_result *result,
		 struct err *err)
{
	char *copy = strdup(line), *argv[MAX_ARGS + 1] = {(char *)"nemu"}, *save = NULL;
	int argc = 1, ret;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		assert_true(argc < MAX_ARGS);
		for (char *p = w; *p; p++) {
			*p = *p == '~' ? ' ' : *p;
		}
		argv[argc++] = w;
	}
	err->msg[0] = 0;
	ret = cli_parse(argc, argv, c, result, err);
	free(copy);
	return ret;
}

static void good(const char *line, struct vm_config *c)
{
	enum cli_result result = CLI_DONE;
	struct err err;

	if (parse(line, c, &result, &err)) {
		fail_msg("%s: %s", line, err.msg);
	}
	assert_int_equal(result, CLI_RUN);
}

static void bad(const char *line, const char *names)
{
	enum cli_result result;
	struct vm_config c;
	struct err err;

	if (parse(line, &c, &result, &err) != -EINVAL) {
		fail_msg("'%s' is taken", line);
	}
	if (!strstr(err.msg, names)) {
		fail_msg("'%s': '%s' does not name '%s'", line, err.msg, names);
	}
	assert_null(strchr(err.msg, '\n'));
	vm_config_fini(&c);
}

static void test_defaults(void **state)
{
	struct vm_config c;

	good("", &c);
	assert_int_equal(c.type, MACHINE_VIRT);
	assert_string_equal(c.machine_name, "virt");
	assert_int_equal(c.ram, 128 * MiB);
	assert_int_equal(c.cpus, 1);
	assert_int_equal(c.sockets * c.dies * c.cores * c.threads, 1);
	assert_null(c.cpu);
	assert_null(c.kernel);
	assert_false(c.sandbox_off || c.daemonize || c.start_paused || c.nodefaults);
	assert_int_equal(c.devices.count + c.nserial + c.nqmp, 0);
	vm_config_fini(&c);
	(void)state;
}

static void test_every_option(void **state)
{
	struct vm_config c;

	good("-machine pc-q35-nemu-1.0,accel=kvm:tcg,usb=off,kernel-irqchip=split -cpu "
	     "host,-avx "
	     "-smp 4,sockets=2 -m 2G -kernel vmlinuz -initrd initrd.img -append "
	     "console=ttyS0~quiet "
	     "-name guest=one,debug-threads=on -uuid 00112233-4455-6677-8899-aabbccddeeff "
	     "-rtc base=utc,clock=host",
	     &c);
	assert_string_equal(c.machine_name, "pc-q35-nemu-1.0");
	assert_string_equal(c.cpu, "host,-avx");
	assert_int_equal(c.cpus, 4);
	assert_int_equal(c.sockets, 2);
	assert_int_equal(c.cores, 2);
	assert_int_equal(c.ram, 2 * GiB);
	assert_string_equal(c.kernel, "vmlinuz");
	assert_string_equal(c.initrd, "initrd.img");
	assert_string_equal(c.append, "console=ttyS0 quiet");
	assert_string_equal(c.name, "one");
	assert_true(c.uuid_set);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(c.uuid[i], i * 0x11);
	}
	vm_config_fini(&c);

	good("-M none -accel kvm -enable-kvm -bios OVMF.fd -S -no-reboot -no-shutdown "
	     "-nographic "
	     "-nodefaults -no-user-config -display none -vga none -monitor none -parallel none "
	     "-net none -nic none -sandbox off -pidfile p -boot menu=off,strict=on",
	     &c);
	assert_int_equal(c.type, MACHINE_NONE);
	assert_string_equal(c.bios, "OVMF.fd");
	assert_true(c.start_paused && c.no_reboot && c.no_shutdown && c.nographic &&
		    c.nodefaults);
	assert_true(c.sandbox_off);
	assert_string_equal(c.pidfile, "p");
	assert_string_equal(c.boot_order, "");
	assert_false(c.boot_menu || c.boot_wait_set);
	vm_config_fini(&c);

	good("-boot nc,menu=on,reboot-timeout=-1 -boot splash-time=2500 "
	     "-smbios type=1,uuid=00112233-4455-6677-8899-aabbccddeeff,serial=a,,b "
	     "-smbios type=11,value=x,value=y",
	     &c);
	assert_string_equal(c.boot_order, "nc");
	assert_true(c.boot_menu && c.boot_wait_set);
	assert_int_equal(c.boot_wait_ms, 2500);
	assert_true(c.uuid_set);
	assert_int_equal(c.uuid[1], 0x11);
	assert_int_equal(c.smbios.count, 2);
	assert_string_equal(opts_get(&c.smbios.item[0].opts, "serial"), "a,b");
	assert_string_equal(opts_get_item(&c.smbios.item[1].opts, "value", 0), "x");
	assert_string_equal(opts_get_item(&c.smbios.item[1].opts, "value", 1), "y");
	vm_config_fini(&c);

	good("-serial null -serial none -qmp unix:/q,server=on,wait=off -qmp stdio -daemonize "
	     "-sandbox on,obsolete=deny,spawn=deny,elevateprivileges=deny,resourcecontrol=deny",
	     &c);
	assert_int_equal(c.nserial, 2);
	assert_string_equal(c.serial[1], "none");
	assert_int_equal(c.nqmp, 2);
	assert_string_equal(c.qmp[0], "unix:/q,server=on,wait=off");
	assert_true(c.daemonize && !c.sandbox_off);
	vm_config_fini(&c);
	/* two dashes are as good as one */
	good("--m 64 --S", &c);
	assert_int_equal(c.ram, 64 * MiB);
	assert_true(c.start_paused);
	vm_config_fini(&c);
	(void)state;
}

static const char *item(struct config_list *l, size_t i, const char *key)
{
	assert_true(i < l->count);
	return opts_get(&l->item[i].opts, key);
}

static void test_items(void **state)
{
	struct vm_config c;

	good("-device virtio-net-pci,netdev=n0 -netdev tap,id=n0,fd=5 -chardev null,id=c0 "
	     "-object iothread,id=io -drive file=a,,b.img,if=none -blockdev file,node-name=x "
	     "-fw_cfg opt/a,string=b -device virtio-rng-pci",
	     &c);
	assert_string_equal(item(&c.devices, 0, "driver"), "virtio-net-pci");
	assert_string_equal(item(&c.devices, 0, "netdev"), "n0");
	assert_string_equal(item(&c.devices, 1, "driver"), "virtio-rng-pci");
	assert_string_equal(c.devices.item[0].opts.what, "-device");
	assert_string_equal(item(&c.netdevs, 0, "type"), "tap");
	assert_string_equal(item(&c.chardevs, 0, "backend"), "null");
	assert_string_equal(item(&c.objects, 0, "qom-type"), "iothread");
	assert_string_equal(item(&c.drives, 0, "file"), "a,b.img");
	assert_string_equal(item(&c.blockdevs, 0, "node-name"), "x");
	assert_string_equal(item(&c.fw_cfgs, 0, "name"), "opt/a");
	vm_config_fini(&c);
	(void)state;
}

static void test_json(void **state)
{
	struct vm_config c;
	struct opts o;
	struct err err;
	static const struct {
		const char *json, *names;
	} wrong[] = {
		{"{", "JSON"},
		{"[]", "object"},
		{"{\"a\":null}", "'a'"},
		{"{\"a\":1.5}", "'a'"},
		{"{\"a\":1,\"a\":2}", "JSON"},
		{"{\"a\":{\"b\":null}}", "a.b"},
		{"{\"a\":1} x", "JSON"},
		{"{\"a\":{\"b\":1},\"a.b\":2}", "a.b"},
		{"{\"a\":[[[[[[[[[[1]]]]]]]]]]}", "deep"},
	};
	char deep[800];

	good("-device {\"driver\":\"virtio-blk-pci\",\"drive\":\"d\",\"queue-size\":64} "
	     "-blockdev {\"driver\":\"raw\",\"node-name\":\"d\",\"read-only\":true,"
	     "\"file\":{\"driver\":\"file\",\"filename\":\"x\",\"l\":[false,-7]}}",
	     &c);
	assert_string_equal(item(&c.devices, 0, "driver"), "virtio-blk-pci");
	assert_string_equal(item(&c.devices, 0, "queue-size"), "64");
	assert_string_equal(item(&c.blockdevs, 0, "read-only"), "on");
	assert_string_equal(item(&c.blockdevs, 0, "file.driver"), "file");
	assert_string_equal(item(&c.blockdevs, 0, "file.l.0"), "off");
	assert_string_equal(item(&c.blockdevs, 0, "file.l.1"), "-7");
	vm_config_fini(&c);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_true(cli_json_to_opts("-device", wrong[i].json, &o, &err) < 0);
		if (!strstr(err.msg, wrong[i].names) || !strstr(err.msg, "-device")) {
			fail_msg("%s: %s", wrong[i].json, err.msg);
		}
	}
	/* a key that is far too long */
	snprintf(deep, sizeof(deep), "{\"%0300d\":1}", 1);
	assert_int_equal(cli_json_to_opts("-device", deep, &o, &err), -EINVAL);
	snprintf(deep, sizeof(deep), "{\"%0250d\":[[1]]}", 1);
	if (cli_json_to_opts("-device", deep, &o, &err) == 0) {
		opts_fini(&o);
	}
	(void)state;
}

static void test_memory(void **state)
{
	struct vm_config c;

	good("-machine memory-backend=a,hmat=on -M memory-backend=b "
	     "-overcommit mem-lock=on,cpu-pm=off -mem-path /dev/hugepages -mem-prealloc "
	     "-numa node,cpus=0,cpus=2-3,memdev=a "
	     "-object memory-backend-ram,id=a,size=1G,host-nodes=0,host-nodes=2,policy=bind "
	     "-object {\"qom-type\":\"memory-backend-ram\",\"id\":\"b\",\"host-nodes\":[0,2]}", &c);
	assert_string_equal(c.memory_backend, "b");
	assert_string_equal(c.mem_path, "/dev/hugepages");
	assert_true(c.hmat && c.mem_lock && c.mem_prealloc && !c.ram_set);
	assert_string_equal(item(&c.numas, 0, "type"), "node");
	assert_string_equal(item(&c.numas, 0, "cpus.0"), "0");
	assert_string_equal(item(&c.numas, 0, "cpus.1"), "2-3");
	for (unsigned i = 0; i < 2; i++) { /* text and JSON are the same */
		assert_string_equal(item(&c.objects, i, "host-nodes.0"), "0");
		assert_string_equal(item(&c.objects, i, "host-nodes.1"), "2");
	}
	vm_config_fini(&c);
	good("-m 1T -overcommit mem-lock=off", &c);
	assert_int_equal(c.ram, UINT64_C(1) << 40);
	assert_true(c.ram_set && !c.mem_lock);
	vm_config_fini(&c);
	(void)state;
}

static void test_order_and_repetition(void **state)
{
	struct vm_config c;

	/* several -machine options merge, in any order with the rest */
	good("-machine accel=kvm -initrd i -machine q35 -append a -m 1G -kernel k -machine "
	     "usb=off",
	     &c);
	assert_string_equal(c.machine_name, "q35");
	assert_int_equal(c.type, MACHINE_VIRT);
	vm_config_fini(&c);
	good("-machine none -machine virt", &c);
	assert_int_equal(c.type, MACHINE_VIRT);
	vm_config_fini(&c);
	(void)state;
}

static void test_repetition(void **state)
{
	struct vm_config c;

	good("-kernel k -kernel k -smp 2 -smp cores=2 -m 256 -m 1.5G", &c);
	assert_int_equal(c.cpus, 2);
	assert_int_equal(c.ram, 1536 * MiB);
	vm_config_fini(&c);
	(void)state;
}

static void test_refusals(void **state)
{
	static const struct {
		const char *line, *names;
	} cases[] = {
		{"disk.img", "'disk.img'"},
		{"-frobnicate", "-frobnicate"},
		{"-", "-"},
		{"--", "--"},
		{"-m", "-m"},
		{"-device", "-device"},
		{"-machine pc", "'pc'"},
		{"-machine accel=tcg", "tcg"},
		{"-machine accel=kvmx", "kvmx"},
		{"-accel xen:tcg", "-accel"},
		{"-machine usb=on", "usb=on"},
		{"-machine virt,smm=on", "smm=on"},
		{"-machine kernel-irqchip=on", "kernel-irqchip=on"},
		{"-machine virt,colour=red", "colour"},
		{"-machine virt,usb=off,usb=off", "usb"},
		{"-m 0", "'0'"},
		{"-m many", "'many'"},
		{"-m 1M", "-m"},
		{"-m -1", "-1"},
		{"-m 65T", "-m"},
		{"-m 16777217k", "-m"},
		{"-m 64M,slots=2", "slots"},
		{"-m 64M,maxmem=1G", "maxmem"},
		{"-m 64M,colour=red", "colour"},
		{"-machine hmat=maybe", "hmat=maybe"},
		{"-machine memory-backend=", "memory-backend"},
		{"-overcommit mem-lock=perhaps", "mem-lock=perhaps"},
		{"-overcommit cpu-pm=on", "cpu-pm=on"},
		{"-overcommit mem-lock=on,colour=red", "colour"},
		{"-mem-path a -mem-path b", "-mem-path"},
		{"-numa node,nodeid=0,nodeid=1", "nodeid"},
		{"-smp 0", "cpus=0"},
		{"-smp 4097", "4096"},
		{"-smp x", "cpus=x"},
		{"-smp 4,sockets=3", "-smp"},
		{"-smp 2,maxcpus=4,sockets=3", "maxcpus, 4"},
		{"-smp 2,maxcpus=4097", "maxcpus=4097"},
		{"-smp 4,maxcpus=2", "maxcpus=2"},
		{"-smp sockets=65,cores=64", "-smp"},
		{"-smp 2,colour=red", "colour"},
		{"-smp 4,cores=4,threads=2", "-smp"},
		{"-cpu host -cpu max", "-cpu"},
		{"-kernel a -kernel b", "-kernel"},
		{"-initrd i", "-initrd"},
		{"-append a", "-append"},
		{"-name guest=a,process=b", "process"},
		{"-uuid 1234", "1234"},
		{"-uuid 00112233-4455-6677-8899-aabbccddeef", "-uuid"},
		{"-uuid 00112233-4455-6677-8899-aabbccddeefff", "-uuid"},
		{"-uuid 00112233-4455-6677-8899-aabbccddeefg", "-uuid"},
		{"-uuid 0011223344556677-8899-aabb-ccddeeff", "-uuid"},
		{"-rtc base=localtime", "localtime"},
		{"-rtc clock=vm", "clock=vm"},
		{"-rtc driftfix=slew", "driftfix"},
		{"-rtc colour=red", "colour"},
		{"-uuid 00112233-4455-6677-8899-aabbccddeeff "
		 "-uuid 00112233-4455-6677-8899-aabbccddeefe",
		 "-uuid"},
		{"-uuid 00112233-4455-6677-8899-aabbccddeeff "
		 "-smbios type=1,uuid=00112233-4455-6677-8899-aabbccddeefe",
		 "-smbios"},
		{"-smbios type=1,uuid=1", "-smbios"},
		{"-boot menu=maybe", "menu=maybe"},
		{"-boot strict=maybe", "strict=maybe"},
		{"-boot order=cd", "order=cd"},
		{"-boot d", "order=d"},
		{"-boot cc", "order=cc"},
		{"-boot cnc", "order=cnc"},
		{"-boot once=n", "once=n"},
		{"-boot menu=on,splash=picture.bmp", "splash=picture.bmp"},
		{"-boot splash-time=100", "menu=on"},
		{"-boot menu=on,splash-time=65536", "splash-time=65536"},
		{"-boot menu=on,splash-time=soon", "splash-time=soon"},
		{"-boot reboot-timeout=5", "reboot-timeout=5"},
		{"-boot colour=red", "colour"},
		{"-sandbox maybe", "maybe"},
		{"-sandbox on,spawn=allow", "spawn=allow"},
		{"-sandbox on,colour=red", "colour"},
		{"-display gtk", "gtk"},
		{"-vga std", "std"},
		{"-monitor stdio", "stdio"},
		{"-parallel stdio", "stdio"},
		{"-net user", "user"},
		{"-nic tap", "tap"},
		{"-daemonize -nographic", "-daemonize"},
		{"-device virtio-rng-pci,id=a,id=b", "-device"},
		{"-device {\"driver\":", "-device"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bad(cases[i].line, cases[i].names);
	}
	(void)state;
}

static void test_smp_topologies(void **state)
{
	static const struct {
		const char *arg;
		unsigned cpus, sockets, dies, cores, threads, max;
	} cases[] = {
		{"1", 1, 1, 1, 1, 1},
		{"8", 8, 1, 1, 8, 1},
		{"8,sockets=2", 8, 2, 1, 4, 1},
		{"8,threads=2", 8, 1, 1, 4, 2},
		{"8,cores=2", 8, 4, 1, 2, 1},
		{"cores=2,threads=2,sockets=2", 8, 2, 1, 2, 2},
		{"8,dies=2,cores=2,threads=2", 8, 1, 2, 2, 2},
		{"maxcpus=3", 3, 1, 1, 3, 1},
		{"4,maxcpus=4", 4, 1, 1, 4, 1},
		{"2,maxcpus=8", 2, 1, 1, 8, 1, 8},
		{"3,maxcpus=8,sockets=2,threads=2", 3, 2, 1, 2, 2, 8},
		{"255", 255, 1, 1, 255, 1},
		{"288,sockets=2,threads=2", 288, 2, 1, 72, 2},
		{"4096,dies=2", 4096, 1, 2, 2048, 1},
	};
	struct vm_config c;
	char line[128];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(line, sizeof(line), "-smp %s", cases[i].arg);
		good(line, &c);
		assert_int_equal(c.cpus, cases[i].cpus);
		assert_int_equal(c.max_cpus, cases[i].max ? cases[i].max : cases[i].cpus);
		assert_int_equal(c.sockets, cases[i].sockets);
		assert_int_equal(c.dies, cases[i].dies);
		assert_int_equal(c.cores, cases[i].cores);
		assert_int_equal(c.threads, cases[i].threads);
		vm_config_fini(&c);
	}
	(void)state;
}

/* -trace is kept in its order and carried out later; --json belongs to -check-host. */
static void test_trace_and_check_host(void **state)
{
	enum cli_result result = CLI_RUN;
	struct vm_config c;
	struct err err;

	good("-machine none -trace virtq_* -trace enable=-virtq_pop,file=/tmp/x", &c);
	assert_int_equal(c.ntrace, 2);
	assert_string_equal(c.trace[0], "virtq_*");
	assert_string_equal(c.trace[1], "enable=-virtq_pop,file=/tmp/x");
	vm_config_fini(&c);
	bad("-machine none -json", "-check-host");
	assert_int_equal(parse("-trace help", &c, &result, &err), 0);
	assert_int_equal(result, CLI_DONE);
	vm_config_fini(&c);
	for (int i = 0; i < 2; i++) { /* in any order */
		const char *line = i ? "--json -check-host" : "-check-host --json";

		result = CLI_RUN;
		assert_int_equal(parse(line, &c, &result, &err), 0);
		assert_true(result == CLI_DONE || result == CLI_NO);
		vm_config_fini(&c);
	}
}

static void test_help_and_version(void **state)
{
	static const char *const lines[] = {"-help", "-h", "--version", "-version -frobnicate"};
	enum cli_result result;
	struct vm_config c;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		result = CLI_RUN;
		assert_int_equal(parse(lines[i], &c, &result, &err), 0);
		assert_int_equal(result, CLI_DONE);
		vm_config_fini(&c);
	}
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_option),
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_memory), cmocka_unit_test(test_json),
		cmocka_unit_test(test_order_and_repetition),
		cmocka_unit_test(test_repetition),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_smp_topologies),
		cmocka_unit_test(test_trace_and_check_host),
		cmocka_unit_test(test_help_and_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
