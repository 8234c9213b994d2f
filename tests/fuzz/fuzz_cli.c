/*
 * The command line: the input's lines are its arguments. Either it is refused with a sentence, or
 * what it left is whole: topology, lists, options that can be read again. The first byte chooses
 * the JSON form, the option syntax, a number or the value of -cpu alone.
 *
 * #covers: src/control/cli.c src/control/cli_set.c src/control/cli_machine.c src/control/cli_json.c
 * #covers: src/base/opts.c src/arch/x86/features.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid.h"
#include "base/opts.h"
#include "base/util.h"
#include "control/cli.h"

#define ARGS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* -help and -version speak to it. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return freopen("/dev/null", "w", stdout) ? 0 : 1;
}

static void check_list(const struct config_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		assert(l->item[i].opts.what);
		opts_get(&l->item[i].opts, "id");
	}
}

static void check(const struct vm_config *c)
{
	int fds[CONFIG_MAX_FDS];

	assert(c->cpus && c->ram && c->machine_name);
	assert((uint64_t)c->sockets * c->dies * c->cores * c->threads == c->cpus);
	check_list(&c->drives);
	check_list(&c->blockdevs);
	check_list(&c->devices);
	check_list(&c->netdevs);
	check_list(&c->chardevs);
	check_list(&c->objects);
	check_list(&c->fw_cfgs);
	assert(vm_config_fds(c, fds) <= CONFIG_MAX_FDS);
}

static void command_line(char *text)
{
	enum cli_result result = CLI_DONE;
	char program[] = "nemu", *argv[ARGS] = {program};
	struct vm_config c;
	struct err err = {0};
	int argc = 1, ret;

	while (argc < ARGS && text) {
		argv[argc++] = strsep(&text, "\n");
	}
	ret = cli_parse(argc, argv, &c, &result, &err);
	if (ret) {
		assert(ret < 0 && err.msg[0]);
	} else if (result == CLI_RUN) {
		check(&c);
	}
	vm_config_fini(&c);
}

/* Whatever was taken can be found, and nothing else. */
static void options(const char *text, bool json)
{
	struct err err = {0};
	struct opts o;
	int ret = json ? cli_json_to_opts("-device", text, &o, &err)
		       : opts_parse(&o, "-device", text, "driver", &err);

	if (ret) {
		assert(ret < 0 && err.msg[0]);
		return;
	}
	opts_get(&o, "driver");
	ret = opts_check_used(&o, &err);
	assert(ret == 0 || err.msg[0]);
	opts_fini(&o);
}

static void numbers(const char *text)
{
	uint64_t v = 0, again = 0;
	char back[32];
	bool on;

	if (parse_u64(text, &v) == 0) {
		snprintf(back, sizeof(back), "%llu", (unsigned long long)v);
		assert(parse_u64(back, &again) == 0 && again == v);
	}
	parse_size(text, 'M', &v);
	parse_size(text, 'B', &v);
	parse_bool(text, &on);
}

static void cpu(const char *text)
{
	struct x86_cpu_model m;
	struct err err = {0};
	int ret = x86_cpu_model_parse(&m, text, &err);

	assert(ret == 0 ? m.changes <= X86_MAX_FEATURE_CHANGES : ret < 0 && err.msg[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size) {
		return 0;
	}
	text = strndup((const char *)data + 1, size - 1);
	assert(text);
	switch (data[0]) {
	case 'j':
		options(text, true);
		break;
	case 'o':
		options(text, false);
		break;
	case 'u':
		cpu(text);
		break;
	case 'n':
		numbers(text);
		break;
	default:
		command_line(text);
		break;
	}
	free(text);
	return 0;
}
