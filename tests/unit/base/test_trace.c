/* base/trace.h: patterns, gates, lines; events of core/ stand for all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/trace.h"
#include "core/trace.h"
#include "firmware/trace.h"

static char path[] = "/tmp/nemu-trace-XXXXXX";

static int setup(void **state)
{
	struct err err;
	int fd = mkstemp(path);

	if (fd < 0 || close(fd) || unlink(path)) {
		return -1;
	}
	return trace_open(path, &err);
}

static int teardown(void **state)
{
	return unlink(path);
}

/* What was written since the last call. */
static const char *output(void)
{
	static char buf[1 << 20];
	static long seen;
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	fseek(f, seen, SEEK_SET);
	n = fread(buf, 1, sizeof(buf) - 1, f);
	fclose(f);
	seen += (long)n;
	buf[n] = '\0';
	return buf;
}

static void test_patterns(void **state)
{
	assert_true(trace_match("virtq_pop", "virtq_pop"));
	assert_true(trace_match("*", "virtq_pop"));
	assert_true(trace_match("*", ""));
	assert_true(trace_match("virtq_*", "virtq_pop"));
	assert_true(trace_match("*p?p", "virtq_pop"));
	assert_true(trace_match("v*q*o*", "virtq_pop"));
	assert_true(trace_match("*o*p", "virtq_pop_op"));
	assert_false(trace_match("virtq", "virtq_pop"));
	assert_false(trace_match("virtq_pop?", "virtq_pop"));
	assert_false(trace_match("*x*", "virtq_pop"));
	assert_false(trace_match("", "virtq_pop"));
	/* a pattern that would take for ever if each star were tried again */
	assert_false(
		trace_match("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
			    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void test_table_is_sorted(void **state)
{
	assert_true(trace_nevents > 25);
	for (unsigned i = 1; i < trace_nevents; i++) {
		assert_true(strcmp(trace_events[i - 1].name, trace_events[i].name) < 0);
	}
}

static void test_off_and_on(void **state)
{
	const char *text;
	char tid[32];

	trace_bus_unassigned_read(true, 0x80, 1);
	assert_string_equal(output(), "");
	assert_int_equal(trace_set("bus_unassigned_r*", true), 1);
	trace_bus_unassigned_read(true, 0x80, 1);
	trace_bus_unassigned_write(false, 0xfee0000012345678, 8, UINT64_MAX);
	text = output();
	snprintf(tid, sizeof(tid), "%d@", (int)gettid());
	assert_int_equal(strncmp(text, tid, strlen(tid)), 0);
	assert_non_null(strstr(text, ":bus_unassigned_read io=1 addr=0x80 size=1\n"));
	assert_null(strstr(text, "write"));
	assert_int_equal(trace_set("bus_*", true), 2);
	trace_bus_unassigned_write(false, 0xfee0000012345678, 8, UINT64_MAX);
	assert_non_null(strstr(output(),
			       ":bus_unassigned_write io=0 addr=0xfee0000012345678 size=8 "
			       "value=0xffffffffffffffff\n"));
	assert_int_equal(trace_set("*", false), trace_nevents);
	trace_bus_unassigned_read(true, 0x80, 1);
	assert_string_equal(output(), "");
	assert_int_equal(trace_set("no_such_event", true), 0);
}

/* A tool that attaches counts in the gate's low half: the event fires, the log stays silent,
 * and neither half changes the other. */
static void test_probe_and_log_are_apart(void **state)
{
	uint16_t *semaphore = (uint16_t *)&nemu_bus_unassigned_read_semaphore;

	__atomic_fetch_add(semaphore, 2, __ATOMIC_RELAXED);
	assert_true(trace_watched(&nemu_bus_unassigned_read_semaphore));
	trace_bus_unassigned_read(true, 1, 1);
	assert_string_equal(output(), "");
	trace_set("*", true);
	assert_int_equal(*semaphore, 2);
	trace_set("*", false);
	assert_int_equal(*semaphore, 2);
	__atomic_fetch_sub(semaphore, 2, __ATOMIC_RELAXED);
	assert_false(trace_watched(&nemu_bus_unassigned_read_semaphore));
}

/* A guest's text neither forges a line nor drives a terminal, and a long one is cut. */
static void test_hostile_text(void **state)
{
	char longer[2000];
	const char *text;

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	trace_set("fw_cfg_select", true);
	errno = EAGAIN;
	trace_fw_cfg_select(1, "a\n1@2.3:forged \x1b[2J", 5);
	assert_int_equal(errno, EAGAIN);
	text = output();
	assert_non_null(strstr(text, "file=a?1@2.3:forged ?[2J size=5\n"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	trace_fw_cfg_select(1, longer, 5);
	text = output();
	assert_true(strlen(text) <= 512);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	trace_set("*", false);
}

static void *busy(void *arg)
{
	for (unsigned i = 0; i < 2000; i++) {
		trace_bus_unassigned_read(false, i, 4);
	}
	return NULL;
}

/* Switching while others fire; each line is whole. */
static void test_threads(void **state)
{
	pthread_t t[4];
	const char *text;

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pthread_create(&t[i], NULL, busy, NULL), 0);
	}
	for (unsigned i = 0; i < 200; i++) {
		trace_set("bus_*", i % 2 == 0);
	}
	trace_set("*", true);
	trace_bus_unassigned_read(false, 7, 4); /* at least one */
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
	}
	trace_set("*", false);
	text = output();
	assert_true(*text);
	while (*text) {
		const char *end = strchr(text, '\n'),
			   *name = strstr(text, ":bus_unassigned_read io=0 addr=0x");

		assert_non_null(end);
		assert_true(name && name < end && end - text < 100);
		text = end + 1;
	}
}

static void test_open(void **state)
{
	struct err err;
	struct stat st;

	assert_int_equal(trace_open("/no/such/folder/file", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/no/such/folder/file"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_table_is_sorted),
		cmocka_unit_test(test_off_and_on),
		cmocka_unit_test(test_probe_and_log_are_apart),
		cmocka_unit_test(test_hostile_text),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_open),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
