/* See child.h. */
#include "child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int child_run(child_fn *fn, void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct rlimit core;

		if (getrlimit(RLIMIT_CORE, &core) == 0) {
			core.rlim_cur = 0;
			setrlimit(RLIMIT_CORE, &core);
		}
		_exit(fn(arg));
	}
	if (pid < 0) {
		abort();
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR) {
			abort();
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_SIGNAL + WTERMSIG(status);
}

_Noreturn void child_failed(const char *file, int line, const char *what)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "%s:%d: %s (errno %d)\n", file, line, what, errno);

	if (write(STDERR_FILENO, text, (size_t)n) < 0) {
		_exit(2);
	}
	_exit(1);
}

unsigned long long child_status(pid_t pid, const char *key, int base)
{
	char path[64], line[256];
	size_t len = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f) {
		abort();
	}
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, len) == 0 && line[len] == ':') {
			fclose(f);
			return strtoull(line + len + 1, NULL, base);
		}
	}
	abort();
}
