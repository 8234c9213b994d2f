/*
 * Options of a subcommand, by its table. What is in no table is refused by name. An option that
 * is given twice counts the last time; -o lists are joined.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"

static int row_of(const struct img_cmd *cmd, int code)
{
	for (int i = 0; cmd->opts[i].code; i++) {
		if (cmd->opts[i].code == code) {
			return i;
		}
	}
	return -1;
}

static int store(struct img_args *a, int row, const char *value)
{
	char *old = a->value[row], *text = NULL;

	if (old && a->cmd->opts[row].code == 'o' && a->cmd->opts[row].arg) {
		text = asprintf(&text, "%s,%s", old, value) < 0 ? NULL : text;
	} else {
		text = strdup(value);
	}
	if (!text) {
		img_error("out of memory");
		return -ENOMEM;
	}
	free(old);
	a->value[row] = text;
	return 0;
}

static int refuse(const struct img_args *a, int c, char *const *argv)
{
	char shown[3] = {'-', (char)optopt, '\0'};
	const char *what = optopt && optopt < 256 ? shown : argv[optind - 1];

	if (c == ':') {
		if (optopt >= 256) {
			what = argv[optind - 1];
		}
		img_error("%s: the option '%s' needs a value; 'nemu-img %s --help' says which",
			  a->cmd->name, what, a->cmd->name);
	} else {
		img_error("%s: the option '%s' is not supported; 'nemu-img %s --help' lists those "
			  "that are",
			  a->cmd->name, what, a->cmd->name);
	}
	return -EINVAL;
}

int img_args_parse(const struct img_cmd *cmd, int argc, char **argv, struct img_args *a)
{
	struct option longs[ARGS_MAX + 2] = {{NULL, 0, NULL, 0}};
	char shorts[2 * ARGS_MAX + 4] = ":h";
	size_t ns = 2, nl = 0;
	int c, r;

	*a = (struct img_args){.cmd = cmd};
	longs[nl++] = (struct option){"help", no_argument, NULL, 'h'};
	for (const struct img_opt *o = cmd->opts; o->code; o++) {
		if (o->code < 256) {
			shorts[ns++] = (char)o->code;
			if (o->arg) {
				shorts[ns++] = ':';
			}
		}
		if (o->name) {
			longs[nl++] = (struct option){
				o->name, o->arg ? required_argument : no_argument, NULL, o->code};
		}
	}
	shorts[ns] = '\0';
	opterr = 0;
	/* a size such as -5G is no option */
	if (cmd->negative && argc > 2 && argv[argc - 1][0] == '-' &&
	    argv[argc - 1][1] >= '0' && argv[argc - 1][1] <= '9') {
		a->count = 1;
		argc--;
	}
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (c == 'h') {
			img_usage(cmd);
			return 1;
		}
		if (c == '?' || c == ':') {
			return refuse(a, c, argv);
		}
		r = store(a, row_of(cmd, c), optarg ? optarg : "");
		if (r) {
			return r;
		}
	}
	/* getopt has sorted argv: options first; what was left out follows */
	a->operand = argv + optind;
	a->count += argc - optind;
	return 0;
}

void img_args_free(struct img_args *a)
{
	for (int i = 0; i < ARGS_MAX; i++) {
		free(a->value[i]);
	}
}

const char *img_arg(const struct img_args *a, int code)
{
	int row = row_of(a->cmd, code);

	return row < 0 ? NULL : a->value[row];
}

static void opt_name(const struct img_cmd *cmd, int code, char buf[40])
{
	const struct img_opt *o = &cmd->opts[row_of(cmd, code)];

	if (code < 256) {
		snprintf(buf, 40, "-%c", code);
	} else {
		snprintf(buf, 40, "--%s", o->name);
	}
}

int img_arg_size(const struct img_args *a, int code, uint64_t min, uint64_t max, uint64_t def,
		 uint64_t *out)
{
	const char *text = img_arg(a, code);
	char name[40];

	*out = def;
	if (!text) {
		return 0;
	}
	opt_name(a->cmd, code, name);
	if (parse_size(text, 'b', out)) {
		img_error("%s: %s %s is no size; give a number, with k, M, G, T, P or E behind it "
			  "for a unit",
			  a->cmd->name, name, text);
		return -EINVAL;
	}
	if (*out < min || *out > max) {
		img_error("%s: %s %s is out of range; give %llu to %llu", a->cmd->name, name, text,
			  (unsigned long long)min, (unsigned long long)max);
		return -EINVAL;
	}
	return 0;
}

int img_arg_json(const struct img_args *a, bool *json)
{
	const char *text = img_arg(a, ARG_OUTPUT);

	*json = text && !strcmp(text, "json");
	if (text && !*json && strcmp(text, "human")) {
		img_error("%s: --output=%s is not valid; give human or json", a->cmd->name, text);
		return -EINVAL;
	}
	return 0;
}

int img_operands(const struct img_args *a, int n, const char *what)
{
	if (a->count < n) {
		img_error("%s: %s is missing; 'nemu-img %s --help' has the usage", a->cmd->name,
			  what, a->cmd->name);
		return -EINVAL;
	}
	if (a->count > n) {
		img_error("%s: '%s' is one operand too many; 'nemu-img %s --help' has the usage",
			  a->cmd->name, a->operand[n], a->cmd->name);
		return -EINVAL;
	}
	return 0;
}
