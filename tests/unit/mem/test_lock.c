/* mem_lock_all() where it is not allowed: a sentence with the remedy, and nothing is locked. That
 * it locks where it is allowed is shown by tests/system/test_memory.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/backend.h"

static long locked_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long kib = -1;

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "VmLck: %ld", &kib);
	}
	if (f) {
		fclose(f);
	}
	return kib;
}

/* In a process of its own, as the limit is for the whole process. Root may exceed it. */
static int child(void)
{
	struct rlimit none = {0, 0};
	struct err err = {0};

	if (setrlimit(RLIMIT_MEMLOCK, &none) ||
	    (!geteuid() && (setgid(65534) || setuid(65534)))) {
		return 10;
	}
	if (mem_lock_all(&err) != -EPERM) {
		return 1;
	}
	if (!strstr(err.msg, "-overcommit mem-lock=on") || !strstr(err.msg, "ulimit -l")) {
		return 2;
	}
	return locked_kib() ? 3 : 0;
}

static void test_refused(void **state)
{
	pid_t pid = fork();
	int st;

	if (!pid) {
		_exit(child());
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_true(WIFEXITED(st));
	assert_int_equal(WEXITSTATUS(st), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
