/*
 * A machine's state to a file and back, for tests/system/test_state.py. The command line is
 * nemu's own; until migration exists, nemu itself has no command for this.
 *
 *     state_tool save STATE after MS        -- NEMU OPTIONS...   run, stop after MS milliseconds
 *     state_tool save STATE at TEXT FILE    -- NEMU OPTIONS...   … when FILE (-serial) has TEXT
 *     state_tool load STATE                 -- NEMU OPTIONS...   load, go on to the guest's end
 *
 * Exit status: 0; 1 with one sentence on stderr, as nemu; 2 when the guest ended before it was
 * to be saved. There is no sandbox here: what is tested is the state, and the order of calls is
 * that of main.c otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/cli.h"
#include "event/loop.h"
#include "machine/machine.h"

#define POLL_NS	  UINT64_C(500000)
#define TEXT_MAX  65536
#define ENDED	  2

struct tool {
	struct vm_config cfg;
	struct loop *loop;
	struct machine *m;
	struct loop_timer timer;
	const char *text, *text_file;
	bool stopped, ended;
};

static int usage(void)
{
	fprintf(stderr, "state_tool: give save FILE after MS, save FILE at TEXT FILE or load FILE, "
			"then -- and nemu's options\n");
	return 1;
}

static void on_stopped(void *opaque)
{
	struct tool *t = opaque;

	t->stopped = true;
}

static void on_end(void *opaque)
{
	struct tool *t = opaque;

	t->ended = true;
}

static bool has_text(const struct tool *t)
{
	static char buf[TEXT_MAX + 1];
	int fd = open(t->text_file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, TEXT_MAX);

	if (fd >= 0) {
		close(fd);
	}
	buf[n > 0 ? n : 0] = '\0';
	return strstr(buf, t->text) != NULL;
}

static void on_timer(void *opaque)
{
	struct tool *t = opaque;

	if (t->text && !has_text(t)) {
		loop_timer_arm(&t->timer, loop_now_ns(t->loop) + POLL_NS);
		return;
	}
	machine_stop(t->m, on_stopped, t);
}

static int tool_save(struct tool *t, const char *path, uint64_t after_ns, struct err *err)
{
	int fd, ret = machine_start(t->m, err);

	if (ret) {
		return ret;
	}
	loop_timer_init(t->loop, &t->timer, on_timer, t);
	loop_timer_arm(&t->timer, loop_now_ns(t->loop) + after_ns);
	while (!t->stopped && !t->ended) {
		loop_step(t->loop, -1);
	}
	loop_timer_disarm(&t->timer);
	if (t->ended || machine_state(t->m) != RUN_PAUSED) {
		err_set(err, ECANCELED, "the guest ended before it was saved");
		return ENDED;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	}
	ret = machine_save_fd(t->m, fd, err);
	if (close(fd) && !ret) {
		ret = err_set(err, errno, "%s: %s", path, strerror(errno));
	}
	return ret;
}

static int tool_load(struct tool *t, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0) {
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	}
	ret = machine_load_fd(t->m, fd, err);
	close(fd);
	ret = ret ? ret : machine_start(t->m, err);
	ret = ret ? ret : machine_cont(t->m, err);
	while (!ret && !t->ended) {
		loop_step(t->loop, -1);
	}
	return ret;
}

static int tool_run(struct tool *t, char **argv, uint64_t after_ns, struct err *err)
{
	struct machine_env env = {0};
	bool save = !strcmp(argv[1], "save");
	int ret;

	if (loop_new(&t->loop, "state", 0)) {
		return err_set(err, ENOMEM, "cannot make the control loop");
	}
	t->cfg.start_paused = !save;
	ret = machine_new(t->loop, &t->cfg, &env, &t->m, err);
	if (ret) {
		return ret;
	}
	machine_on_quit(t->m, on_end, t);
	return save ? tool_save(t, argv[2], after_ns, err) : tool_load(t, argv[2], err);
}

int main(int argc, char **argv)
{
	struct tool t = {0};
	enum cli_result what;
	struct err err = {0};
	uint64_t after_ns = POLL_NS;
	int at, ret;

	for (at = 1; at < argc && strcmp(argv[at], "--"); at++) {
	}
	if (at == 5 && !strcmp(argv[1], "save") && !strcmp(argv[3], "after")) {
		after_ns = strtoull(argv[4], NULL, 10) * UINT64_C(1000000);
	} else if (at == 6 && !strcmp(argv[1], "save") && !strcmp(argv[3], "at")) {
		t.text = argv[4];
		t.text_file = argv[5];
	} else if (at != 3 || strcmp(argv[1], "load")) {
		return usage();
	}
	if (at == argc) {
		return usage();
	}
	ret = cli_parse(argc - at, argv + at, &t.cfg, &what, &err);
	if (!ret && what == CLI_RUN) {
		ret = tool_run(&t, argv, after_ns, &err);
	}
	machine_free(t.m);
	loop_free(t.loop);
	if (ret) {
		fprintf(stderr, "state_tool: %s\n", err.msg);
	}
	vm_config_fini(&t.cfg);
	return ret == ENDED ? ENDED : ret != 0;
}
