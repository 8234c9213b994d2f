/*
 * spawn COUNT COMMAND...: starts COMMAND, waits for the first byte on its standard output, ends it
 * with SIGTERM (SIGKILL after a second), COUNT times. For each run one line: nanoseconds from
 * just before exec to the byte, and the peak resident memory in KiB, which is what GNU time prints
 * as %M. A run without a byte is an error.
 *
 * Small and static in its memory on purpose: a child's peak starts at the parent's, until exec.
 * Standard input of the command is a pipe that stays open, as a terminal would.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS 60000
#define END_MS	 1000

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static pid_t start(char **command, int out[2], int in[2])
{
	pid_t pid = vfork();

	if (pid) {
		return pid;
	}
	dup2(in[0], STDIN_FILENO);
	dup2(out[1], STDOUT_FILENO);
	execvp(command[0], command);
	_exit(127);
}

/* Waits for the end, first friendly. */
static void end(pid_t pid, struct rusage *usage)
{
	const struct timespec tick = {.tv_nsec = 1000000};
	int status;

	kill(pid, SIGTERM);
	for (unsigned i = 0; i < END_MS; i++) {
		if (wait4(pid, &status, WNOHANG, usage) == pid) {
			return;
		}
		nanosleep(&tick, NULL);
	}
	kill(pid, SIGKILL);
	wait4(pid, &status, 0, usage);
}

static int once(char **command)
{
	struct rusage usage = {0};
	struct pollfd p = {.events = POLLIN};
	int out[2], in[2];
	uint64_t from, took;
	ssize_t n = 0;
	pid_t pid;
	char byte;

	if (pipe2(out, O_CLOEXEC) || pipe2(in, O_CLOEXEC)) {
		perror("spawn: pipe");
		return 1;
	}
	from = now_ns();
	pid = start(command, out, in);
	close(out[1]);
	close(in[0]);
	if (pid < 0) {
		perror("spawn: fork");
		return 1;
	}
	p.fd = out[0];
	if (poll(&p, 1, LIMIT_MS) == 1) {
		n = read(out[0], &byte, 1);
	}
	took = now_ns() - from;
	end(pid, &usage);
	close(out[0]);
	close(in[1]);
	if (n != 1) {
		fprintf(stderr, "spawn: %s: no byte on its standard output\n", command[0]);
		return 1;
	}
	printf("%llu %ld\n", (unsigned long long)took, usage.ru_maxrss);
	return 0;
}

int main(int argc, char **argv)
{
	int ret = argc < 3;

	if (ret) {
		fprintf(stderr, "spawn: give COUNT COMMAND...\n");
	}
	signal(SIGPIPE, SIG_IGN);
	for (long i = argc < 3 ? 0 : strtol(argv[1], NULL, 10); i > 0 && !ret; i--) {
		ret = once(argv + 2);
	}
	return ret;
}
