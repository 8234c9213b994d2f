/*
 * -trace [enable=]PATTERN[,events=FILE][,file=FILE]: which events are logged from the start on,
 * and where to. PATTERN has * and ?; "-PATTERN" switches off. FILE of events= has one such
 * pattern a line, # starts a comment. Several options are carried out in their order.
 *
 * Threads: main, before isolation. The operator is trusted; what fits no event is refused by
 * name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "control/cli_int.h"

#define PATTERN_MAX 128

int cli_set_trace(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		for (unsigned i = 0; i < trace_nevents; i++) {
			printf("%s\n", trace_events[i].name);
		}
		c->done = true;
		return 0;
	}
	return cli_push_text(&c->cfg->trace, &c->cfg->ntrace, arg, o->name, err);
}

static int enable(const char *pattern, const char *from, struct err *err)
{
	bool on = *pattern != '-';

	if (!trace_set(pattern + !on, on)) {
		return err_set(err, EINVAL,
			       "-trace: %s%s%s fits no event; -trace help lists them", from,
			       *from ? ": " : "", pattern + !on);
	}
	return 0;
}

/* #syscalls(start): openat read close */
static int enable_file(const char *path, struct err *err)
{
	FILE *f = fopen(path, "re");
	char line[PATTERN_MAX];
	int ret = 0;

	if (!f) {
		return err_set(err, errno, "-trace events=%s: cannot be read: %s", path,
			       strerror(errno));
	}
	while (!ret && fgets(line, sizeof(line), f)) {
		size_t n = strcspn(line, "\r\n");

		if (n == sizeof(line) - 1) {
			ret = err_set(err, EINVAL,
				      "-trace events=%s: a line is longer than %zu characters",
				      path, sizeof(line) - 2);
			break;
		}
		while (n && (line[n - 1] == ' ' || line[n - 1] == '\t')) {
			n--;
		}
		line[n] = '\0';
		if (n && *line != '#') {
			ret = enable(line, path, err);
		}
	}
	if (!ret && ferror(f)) {
		ret = err_set(err, EIO, "-trace events=%s: cannot be read", path);
	}
	fclose(f);
	return ret;
}

int cli_trace_start(const struct vm_config *cfg, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < cfg->ntrace; i++) {
		const char *pattern, *events, *file;
		struct opts o;

		ret = opts_parse(&o, "-trace", cfg->trace[i], "enable", err);
		if (ret) {
			return ret;
		}
		pattern = opts_get(&o, "enable");
		events = opts_get(&o, "events");
		file = opts_get(&o, "file");
		ret = opts_check_used(&o, err);
		if (!ret && file) {
			ret = trace_open(file, err);
		}
		if (!ret && events) {
			ret = enable_file(events, err);
		}
		if (!ret && pattern) {
			ret = enable(pattern, "", err);
		}
		opts_fini(&o);
	}
	return ret;
}
