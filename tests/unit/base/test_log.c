/* base/log.h: format, levels, hostile texts, one write per line, the rate limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static int pipe_fd[2];

static int setup(void **state)
{
	if (pipe2(pipe_fd, O_NONBLOCK)) {
		return -1;
	}
	log_set_fd(pipe_fd[1]);
	log_set_level(LOG_WARN);
	return 0;
}

static int teardown(void **state)
{
	log_set_fd(STDERR_FILENO);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	return 0;
}

/* All that was written so far, as a string. */
static const char *output(void)
{
	static char buf[65536];
	ssize_t n = read(pipe_fd[0], buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static unsigned count_lines(const char *s)
{
	unsigned n = 0;

	for (; *s; s++) {
		n += *s == '\n';
	}
	return n;
}

static void test_format_and_level(void **state)
{
	errno = ENOTTY;
	log_err("disk0", "lost %d bytes", 5);
	log_warn("disk0", "odd");
	log_info("disk0", "hidden");
	assert_int_equal(errno, ENOTTY);
	assert_string_equal(output(), "nemu: disk0: lost 5 bytes\nnemu: disk0: odd\n");
	log_set_level(LOG_DEBUG);
	log_debug("disk0", "seen");
	assert_string_equal(output(), "nemu: disk0: seen\n");
	log_set_level(LOG_ERR);
	log_warn("disk0", "hidden");
	log_guest("disk0", "hidden");
	assert_string_equal(output(), "");
}

static void test_hostile_text(void **state)
{
	char big[5000];
	const char *out;

	log_warn("a\nb", "%s", "x\nnemu: fake\r\033[2J\177\xc3\xa9");
	assert_string_equal(output(), "nemu: a?b: x?nemu: fake??[2J?\xc3\xa9\n");
	memset(big, 'z', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	log_warn("o", "%s", big);
	out = output();
	assert_int_equal(strlen(out), 1023);
	assert_int_equal(count_lines(out), 1);
	log_warn(big, "%s", big);
	out = output();
	assert_int_equal(strlen(out), 1023);
	assert_int_equal(count_lines(out), 1);
}

static void test_unwritable(void **state)
{
	char fill[4096] = {0};

	while (write(pipe_fd[1], fill, sizeof(fill)) > 0) {
	}
	errno = 0;
	log_err("o", "nobody reads");
	log_set_fd(-1);
	log_err("o", "nobody is there");
	assert_int_equal(errno, 0);
}

static void complain(int i)
{
	log_guest("dev", "bad request %d", i);
}

static void test_rate_limit(void **state)
{
	struct log_limit lim = {0};
	const char *out;

	for (int i = 0; i < 1000; i++) {
		complain(i);
	}
	out = output();
	assert_int_equal(count_lines(out), 10);
	assert_non_null(strstr(out, "nemu: dev: bad request 9\n"));

	/* A minute later the swallowed ones are counted. */
	for (int i = 0; i < 25; i++) {
		log_limited(&lim, "dev", "early");
	}
	assert_int_equal(count_lines(output()), 10);
	lim.window_ns = 1;
	log_limited(&lim, "dev", "late");
	assert_string_equal(output(), "nemu: dev: 15 messages like the next one were dropped\n"
				      "nemu: dev: late\n");
	lim.count = UINT32_MAX;
	log_limited(&lim, "dev", "swallowed");
	assert_string_equal(output(), "");
	assert_true(lim.count == UINT32_MAX);
}

static struct log_limit shared;

static void *shout(void *arg)
{
	for (int i = 0; i < 200; i++) {
		log_err("thread", "%s", "0123456789012345678901234567890123456789");
		log_limited(&shared, "shared", "limited");
	}
	return NULL;
}

static void test_threads(void **state)
{
	const char *out, *p;
	pthread_t t[4];
	unsigned lines = 0, limited = 0;

	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, shout, NULL), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
	}
	out = output();
	for (p = out; *p; p = strchr(p, '\n') + 1) {
		if (!strncmp(p, "nemu: shared: limited\n", 22)) {
			limited++;
		} else {
			assert_memory_equal(p,
					    "nemu: thread: 0123456789012345678901234567890"
					    "123456789\n",
					    55);
			lines++;
		}
	}
	assert_int_equal(lines, 800);
	assert_in_range(limited, 10, 14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_format_and_level, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_text, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unwritable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
