/*
 * nemu-img: the table of its subcommands. See img.h.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"

static const struct img_cmd commands[] = {
	{"bench", "FILENAME", "time reads or writes of an image", bench_opts, cmd_bench},
	{"check", "FILENAME", "look for errors in an image, and repair it", check_opts, cmd_check},
	{"commit", "FILENAME", "write what an image has into its backing file", commit_opts,
	 cmd_commit},
	{"compare", "FILENAME1 FILENAME2", "compare the contents of two images", compare_opts,
	 cmd_compare},
	{"convert", "FILENAME [FILENAME2 ...] OUTPUT_FILENAME",
	 "copy an image, or several one after another, into a new one", convert_opts, cmd_convert},
	{"create", "FILENAME [SIZE]", "make a new image", create_opts, cmd_create},
	{"dd", "if=INPUT of=OUTPUT [bs=SIZE] [count=BLOCKS] [skip=BLOCKS]",
	 "copy a part of an image", dd_opts, cmd_dd},
	{"info", "FILENAME", "describe an image", info_opts, cmd_info},
	{"map", "FILENAME", "list which part of an image is where", map_opts, cmd_map},
	{"measure", "[FILENAME]", "tell how large a file a new image needs", measure_opts,
	 cmd_measure},
	{"rebase", "FILENAME", "give an image another backing file", rebase_opts, cmd_rebase},
	{"resize", "FILENAME [+|-]SIZE", "change the size of an image", resize_opts, cmd_resize,
	 .negative = true},
	{"snapshot", "FILENAME", "list, make, apply or delete snapshots within an image",
	 snapshot_opts, cmd_snapshot},
	{.name = NULL},
};

static void help(void)
{
	printf("usage: nemu-img COMMAND [OPTION]... OPERAND...\n"
	       "       nemu-img COMMAND --help\n"
	       "       nemu-img --version\n\nCommands:\n");
	for (const struct img_cmd *c = commands; c->name; c++) {
		printf("  %-9s %s\n", c->name, c->doc);
	}
	printf("\nFormats: raw, qcow2\n");
}

static const struct img_cmd *find(const char *name)
{
	for (const struct img_cmd *c = commands; c->name; c++) {
		if (!strcmp(c->name, name)) {
			return c;
		}
	}
	return NULL;
}

static int run(const struct img_cmd *cmd, int argc, char **argv)
{
	struct img_args a;
	struct err err;
	int status = img_args_parse(cmd, argc, argv, &a);

	if (status) {
		img_args_free(&a);
		return status < 0;
	}
	if (img_ctl_new(&a.ctl, &err)) {
		img_error("%s", err.msg);
		img_args_free(&a);
		return 1;
	}
	status = cmd->run(&a);
	if (fflush(stdout) || ferror(stdout)) {
		img_error("what there is to say cannot be written to standard output");
		status = status ? status : 1;
	}
	img_ctl_free(a.ctl);
	img_args_free(&a);
	return status;
}

int main(int argc, char **argv)
{
	const struct img_cmd *cmd;

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		img_error("a command is missing; 'nemu-img --help' lists them");
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help();
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("nemu-img version %s\n", NEMU_VERSION);
		return 0;
	}
	cmd = find(argv[1]);
	if (!cmd && argv[1][0] == '-') {
		img_error("there is no option '%s' before the command; 'nemu-img --help' lists "
			  "commands",
			  argv[1]);
		return 1;
	}
	if (!cmd) {
		img_error("there is no command '%s'; 'nemu-img --help' lists them", argv[1]);
		return 1;
	}
	return run(cmd, argc - 1, argv + 1);
}
