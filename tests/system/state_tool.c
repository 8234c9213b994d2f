/*
 * A machine's state to a file and back, for tests/system/test_state.py. The command line is
 * nemu's own; until migration exists, nemu itself has no command for this.
 *
 *     state_tool save STATE after MS        -- NEMU OPTIONS...   run, stop after MS milliseconds
 *     state_tool save STATE at TEXT FILE    -- NEMU OPTIONS...   … when FILE (-serial) has TEXT
 *     state_tool load STATE                 -- NEMU OPTIONS...   load, go on to the guest's end
 *     state_tool flip STATE COUNT MS        -- NEMU OPTIONS...   load it COUNT times, each time
 *          with other bytes outside of guest memory changed and the checksum right again; what is
 *          taken runs for MS milliseconds. Prints how many were taken and refused
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/cli.h"
#include "event/loop.h"
#include "machine/machine.h"
#include "state/state_int.h"

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

/* --- flip --- */

/* First byte after the sections that are not guest memory: save puts those first. */
static size_t flip_end(const uint8_t *data, size_t len)
{
	size_t at = sizeof(struct state_wire_head);

	while (at + sizeof(struct state_wire_section) <= len) {
		const struct state_wire_section *s = (const void *)(data + at);

		if (s->kind != STATE_KIND_FIELDS) {
			break;
		}
		at += sizeof(*s) + s->name_len + le16_get(s->instance_len) +
		      (size_t)le64_get(s->len);
	}
	return at;
}

static uint32_t flip_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*seed >> 33);
}

static void flip_apply(uint8_t *data, size_t len, size_t end, uint64_t seed)
{
	struct crc32c crc;
	unsigned n = 1 + flip_random(&seed) % 3;
	le32 sum;

	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = data + sizeof(struct state_wire_head) +
			     flip_random(&seed) % (end - sizeof(struct state_wire_head));

		*p = flip_random(&seed) % 4 ? *p ^ (uint8_t)(1u << flip_random(&seed) % 8)
					    : (uint8_t)flip_random(&seed);
	}
	crc32c_init(&crc);
	sum = le32_of(crc32c_update(&crc, 0, data, len - STATE_CRC_SIZE));
	memcpy(data + len - STATE_CRC_SIZE, &sum, sizeof(sum));
}

/* 1: taken, 0: refused, <0: what a hostile stream must not bring about. */
static int flip_one(struct tool *t, int fd, uint64_t run_ns, struct err *err)
{
	struct machine_env env = {0};
	uint64_t until;
	int ret;

	t->ended = t->stopped = false;
	ret = machine_new(t->loop, &t->cfg, &env, &t->m, err);
	if (ret) {
		return ret;
	}
	machine_on_quit(t->m, on_end, t);
	ret = machine_load_fd(t->m, fd, err);
	if (ret) {
		machine_free(t->m);
		t->m = NULL;
		return err->msg[0] && !strchr(err->msg, '\n') ? 0 : -EINVAL;
	}
	if (!run_ns) {
		machine_free(t->m);
		t->m = NULL;
		return 1;
	}
	ret = machine_start(t->m, err);
	ret = ret ? ret : machine_cont(t->m, err);
	until = loop_now_ns(t->loop) + run_ns;
	while (!ret && !t->ended && loop_now_ns(t->loop) < until) {
		loop_step(t->loop, 5);
	}
	if (!ret && !t->ended) {
		machine_stop(t->m, on_stopped, t);
		while (!t->stopped && !t->ended) {
			loop_step(t->loop, -1);
		}
	}
	machine_free(t->m);
	t->m = NULL;
	return ret ? ret : 1;
}

static int tool_flip(struct tool *t, const char *path, unsigned count, uint64_t run_ns,
		     struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), copy = -1, ret = 0;
	unsigned taken = 0, refused = 0;
	struct stat st;
	uint8_t *data = MAP_FAILED, *map = MAP_FAILED;
	size_t len = 0, end;

	copy = memfd_create("state", MFD_CLOEXEC);
	if (fd >= 0 && copy >= 0 && !fstat(fd, &st) && !ftruncate(copy, st.st_size)) {
		len = (size_t)st.st_size;
		data = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
		map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
	}
	if (data == MAP_FAILED || map == MAP_FAILED) {
		ret = err_set(err, errno, "%s: %s", path, strerror(errno));
		goto close_fds;
	}
	end = flip_end(data, len);
	for (unsigned i = 0; i < count && ret >= 0; i++) {
		memcpy(map, data, len);
		flip_apply(map, len, end, i);
		err->msg[0] = '\0';
		ret = flip_one(t, copy, run_ns, err);
		if (ret > 0) {
			taken++;
		} else if (!ret) {
			refused++;
			printf("%u: %s\n", i, err->msg);
		}
	}
	printf("taken=%u refused=%u of %zu bytes\n", taken, refused, end);
	munmap(data, len);
	munmap(map, len);
close_fds:
	close(copy);
	close(fd);
	return ret < 0 ? ret : 0;
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
	if (!strcmp(argv[1], "flip")) {
		return tool_flip(t, argv[2], (unsigned)strtoul(argv[3], NULL, 10), after_ns, err);
	}
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
	} else if (at == 5 && !strcmp(argv[1], "flip")) {
		after_ns = strtoull(argv[4], NULL, 10) * UINT64_C(1000000);
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
