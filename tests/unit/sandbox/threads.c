/*
 * Isolation of the VM process: every forbidden call is attempted and every permitted one is
 * made, on a thread of each kind, started before and after isolation.
 */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include <linux/futex.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include "base/util.h"
#include "child.h"
#include "sandbox/sandbox_int.h"

enum order { BEFORE, AFTER };
enum { CARRIED_OUT = 0, REFUSED = 77, OTHER = 78 };

struct attempt {
	enum sandbox_thread kind;
	enum order order;
	int (*fn)(void *arg);
	void *arg;
	/* Between the thread and main. */
	struct sandbox *sb;
	pthread_barrier_t isolated;
	bool *reached; /* shared with the parent: the thread got as far as fn */
};

static void *attempt_thread(void *opaque)
{
	struct attempt *a = opaque;

	CHILD_CHECK(sandbox_thread_enter(a->sb, a->kind) == 0);
	pthread_barrier_wait(&a->isolated);
	*a->reached = true;
	_exit(a->fn(a->arg));
}

/* The life of a VM process up to where a thread of the kind runs; there fn is called. */
static int attempt_child(void *opaque)
{
	struct attempt *a = opaque;
	struct err err = {0};
	pthread_t thread;

	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	CHILD_CHECK(sandbox_new(&a->sb, true, &err) == 0);
	pthread_barrier_init(&a->isolated, NULL, 2);
	if (a->kind != SANDBOX_MAIN && a->order == BEFORE) {
		CHILD_CHECK(pthread_create(&thread, NULL, attempt_thread, a) == 0);
	}
	if (sandbox_isolate(a->sb, NULL, &err) < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	if (a->kind == SANDBOX_MAIN) {
		*a->reached = true;
		return a->fn(a->arg);
	}
	if (a->order == AFTER) {
		CHILD_CHECK(pthread_create(&thread, NULL, attempt_thread, a) == 0);
	}
	pthread_barrier_wait(&a->isolated);
	pthread_join(thread, NULL);
	/* Here only if the thread ended itself. */
	return CARRIED_OUT;
}

static int attempt(enum sandbox_thread kind, enum order order, int (*fn)(void *), void *arg)
{
	struct attempt a = {.kind = kind, .order = order, .fn = fn, .arg = arg};
	int how;

	a.reached = mmap(NULL, sizeof(*a.reached), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(a.reached != MAP_FAILED);
	how = child_run(attempt_child, &a);
	assert_true(*a.reached);
	munmap(a.reached, sizeof(*a.reached));
	return how;
}

/* What the sandbox answers in this build: death, or EPERM with -Dtest_hooks=true. */
static bool is_refusal(int how)
{
	return sandbox_forbidden_action() == SECCOMP_RET_KILL_PROCESS ?
		       how == CHILD_SIGNAL + SIGSYS || how == REFUSED :
		       how == REFUSED;
}

static int do_probe(void *arg)
{
	const struct sandbox_probe *p = arg;
	int r = p->attempt();

	return r == 0 ? CARRIED_OUT : r == -EPERM ? REFUSED : OTHER;
}

static void forbidden_calls_are_refused(void **state)
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++) {
		for (size_t i = 0; i < sandbox_nprobes; i++) {
			enum order order = i % 2 ? BEFORE : AFTER;
			int how = attempt(kind, order, do_probe, (void *)&sandbox_probes[i]);

			if (!is_refusal(how)) {
				fail_msg("%s on a %s thread: %d", sandbox_probes[i].name,
					 sandbox_tables[kind].name, how);
			}
		}
	}
}

static int do_broker_probe(void *arg)
{
	struct sock_fprog filter;
	struct err err;

	CHILD_CHECK(confine_no_new_privs() == 0);
	CHILD_CHECK(filter_build(&filter, SANDBOX_BROKER, &err) == 0);
	CHILD_CHECK(filter_load(&filter) == 0);
	return do_probe(arg);
}

static void broker_has_only_its_own(void **state)
{
	for (size_t i = 0; i < sandbox_nprobes; i++) {
		const struct sandbox_probe *p = &sandbox_probes[i];
		int how = child_run(do_broker_probe, (void *)p);

		if (is_refusal(how) == p->broker_has) {
			fail_msg("%s in the broker: %d", p->name, how);
		}
	}
}

/* A probe that the sandbox does not refuse must show as such, or the test above is worth
 * nothing: without isolation none of them ends the process with SIGSYS. */
static void probes_do_something(void **state)
{
	unsigned carried_out = 0;

	for (size_t i = 0; i < sandbox_nprobes; i++) {
		int how = child_run(do_probe, (void *)&sandbox_probes[i]);

		assert_true(how == CARRIED_OUT || how == OTHER || how == REFUSED);
		carried_out += how == CARRIED_OUT;
	}
	/* open, sockets, mappings, processes, … work for any user. */
	assert_true(carried_out >= 9);
}

/* --- permitted calls --- */

struct permitted {
	int nr;
	long arg[6];
};

static int do_permitted(void *arg)
{
	struct permitted *p = arg;

	if (p->nr == SCMP_SYS(tgkill) || p->nr == SCMP_SYS(kill)) {
		p->arg[0] = getpid();
	}
	syscall(p->nr, p->arg[0], p->arg[1], p->arg[2], p->arg[3], p->arg[4], p->arg[5]);
	return CARRIED_OUT;
}

static int do_beyond(void *arg)
{
	struct permitted *p = arg;
	long r = syscall(p->nr, p->arg[0], p->arg[1], p->arg[2], p->arg[3], p->arg[4],
			 p->arg[5]);

	return r == -1 && errno == EPERM ? REFUSED : CARRIED_OUT;
}

static int permitted_is_made(enum sandbox_thread kind, struct permitted *p)
{
	return attempt(kind, p->nr % 2 ? BEFORE : AFTER, do_permitted, p);
}

/* With arguments that the kernel refuses, so that the call does nothing but is made. */
static struct permitted harmless(int nr)
{
	struct permitted p = {nr, {-1, -1, -1, -1, -1, -1}};

	if (nr == SCMP_SYS(mmap) || nr == SCMP_SYS(mprotect)) {
		p.arg[2] = 0;
	} else if (nr == SCMP_SYS(prctl)) {
		p.arg[0] = PR_SET_NAME;
	} else if (nr == SCMP_SYS(seccomp)) {
		p.arg[0] = SECCOMP_SET_MODE_FILTER;
	} else if (nr == SCMP_SYS(tgkill)) {
		p.arg[2] = 0;
	} else if (nr == SCMP_SYS(kill)) {
		p.arg[1] = 0;
	}
	return p;
}

static void permitted_calls_are_made(void **state)
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++) {
		const struct sandbox_table *t = &sandbox_tables[kind];

		assert_true(t->ncall > 0);
		for (size_t i = 0; i < t->ncall; i++) {
			struct permitted p = harmless(t->call[i].nr);
			int how;

			if (p.nr < 0 || p.nr == SCMP_SYS(ioctl)) {
				continue;
			}
			how = permitted_is_made(kind, &p);
			if (p.nr == SCMP_SYS(rt_sigreturn)) {
				assert_int_equal(how, CHILD_SIGNAL + SIGSEGV);
			} else if (p.nr == SCMP_SYS(exit_group) ||
				   (p.nr == SCMP_SYS(exit) && kind == SANDBOX_MAIN)) {
				assert_int_equal(how, 255);
			} else if (how != CARRIED_OUT) {
				fail_msg("%s on a %s thread: %d", t->call[i].name, t->name, how);
			}
		}
		for (size_t i = 0; i < t->nioctl; i++) {
			struct permitted p = {SCMP_SYS(ioctl),
					      {-1, (long)t->ioctl[i].request, 0}};

			assert_int_equal(permitted_is_made(kind, &p), CARRIED_OUT);
		}
	}
}

static bool table_has(const struct sandbox_table *t, int nr)
{
	for (size_t i = 0; i < t->ncall; i++) {
		if (t->call[i].nr == nr) {
			return true;
		}
	}
	return false;
}

static bool table_has_ioctl(const struct sandbox_table *t, unsigned long request)
{
	for (size_t i = 0; i < t->nioctl; i++) {
		if (t->ioctl[i].request == request) {
			return true;
		}
	}
	return false;
}

/* The other threads are narrower than main: what only main has is refused there, although they
 * have inherited its filter. */
static void others_have_less_than_main(void **state)
{
	const struct sandbox_table *m = &sandbox_tables[SANDBOX_MAIN];
	unsigned beyond = 0;

	for (int kind = SANDBOX_VCPU; kind <= SANDBOX_IO; kind++) {
		const struct sandbox_table *t = &sandbox_tables[kind];

		for (size_t i = 0; i < m->ncall; i++) {
			struct permitted p = harmless(m->call[i].nr);

			if (p.nr >= 0 && !table_has(t, p.nr)) {
				assert_true(is_refusal(attempt(kind, AFTER, do_beyond, &p)));
				beyond++;
			}
		}
		for (size_t i = 0; i < m->nioctl; i++) {
			struct permitted p = {SCMP_SYS(ioctl),
					      {-1, (long)m->ioctl[i].request, 0}};

			if (!table_has_ioctl(t, m->ioctl[i].request)) {
				assert_true(is_refusal(attempt(kind, AFTER, do_beyond, &p)));
				beyond++;
			}
		}
	}
	assert_true(beyond > 10);
}

static void main_may_do_what_the_others_may(void **state)
{
	const struct sandbox_table *m = &sandbox_tables[SANDBOX_MAIN];

	for (int kind = SANDBOX_VCPU; kind <= SANDBOX_IO; kind++) {
		const struct sandbox_table *t = &sandbox_tables[kind];

		for (size_t i = 0; i < t->ncall; i++) {
			assert_true(table_has(m, t->call[i].nr));
		}
		for (size_t i = 0; i < t->nioctl; i++) {
			assert_true(table_has_ioctl(m, t->ioctl[i].request));
		}
	}
}

/* --- what libraries do on an isolated thread --- */

static void *nothing(void *arg)
{
	return arg;
}

static int use_libraries(void *arg)
{
	json_t *json = json_pack("{s:i, s:s}", "a", 1, "b", "c");
	char *text = json_dumps(json, 0), *block[64];

	CHILD_CHECK(text && strcmp(text, "{\"a\": 1, \"b\": \"c\"}") == 0);
	free(text);
	json_decref(json);
	/* Grow and shrink the heap and mapped blocks. */
	for (size_t i = 0; i < ARRAY_SIZE(block); i++) {
		block[i] = malloc(100 * KiB + i * 4 * KiB);
		CHILD_CHECK(block[i]);
		block[i][0] = 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(block); i++) {
		block[i] = realloc(block[i], 1 * MiB);
		CHILD_CHECK(block[i]);
		free(block[i]);
	}
	CHILD_CHECK(now_ns() != 0);
	return CARRIED_OUT;
}

static void libraries_work_when_narrowed(void **state)
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++) {
		assert_int_equal(attempt(kind, BEFORE, use_libraries, NULL), CARRIED_OUT);
		assert_int_equal(attempt(kind, AFTER, use_libraries, NULL), CARRIED_OUT);
	}
}

static int start_threads(void *arg)
{
	pthread_t t[20];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		CHILD_CHECK(pthread_create(&t[i], NULL, nothing, NULL) == 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		pthread_join(t[i], NULL);
	}
	return CARRIED_OUT;
}

static void main_starts_threads(void **state)
{
	assert_int_equal(attempt(SANDBOX_MAIN, AFTER, start_threads, NULL), CARRIED_OUT);
}

static int do_abort(void *arg)
{
	abort();
}

static void a_failed_assertion_ends_in_sigabrt(void **state)
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++) {
		assert_int_equal(attempt(kind, AFTER, do_abort, NULL), CHILD_SIGNAL + SIGABRT);
	}
}

/* --- the state of the process --- */

/* With what every thread may call. */
static _Noreturn void sleep_for_ever(void)
{
	for (int zero = 0;;) {
		syscall(SYS_futex, &zero, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	}
}

static void *narrowed_thread(void *opaque)
{
	struct attempt *a = opaque;

	CHILD_CHECK(sandbox_thread_enter(a->sb, SANDBOX_IO) == 0);
	pthread_barrier_wait(&a->isolated);
	sleep_for_ever();
}

static int isolated_child(void *opaque)
{
	int ready = *(int *)opaque;
	struct attempt a = {0};
	struct err err;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHILD_CHECK(sandbox_early(&ready, 1, &err) == 0);
	CHILD_CHECK(sandbox_new(&a.sb, true, &err) == 0);
	pthread_barrier_init(&a.isolated, NULL, 3);
	CHILD_CHECK(pthread_create(&thread, NULL, narrowed_thread, &a) == 0);
	CHILD_CHECK(sandbox_isolate(a.sb, NULL, &err) == 0);
	CHILD_CHECK(pthread_create(&thread, NULL, narrowed_thread, &a) == 0);
	pthread_barrier_wait(&a.isolated); /* both have entered */
	CHILD_CHECK(write(ready, "x", 1) == 1);
	sleep_for_ever();
}

/* Seen from outside, because the process cannot open /proc any more: its main thread, and one
 * each that was started before and after isolation. */
static int process_is_isolated_child(void *arg)
{
	static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapAmb"};
	unsigned tasks = 0;
	char path[64], byte;
	int ready[2];
	pid_t pid;
	DIR *dir;

	CHILD_CHECK(pipe(ready) == 0);
	pid = fork();
	if (pid == 0) {
		_exit(isolated_child(&ready[1]));
	}
	close(ready[1]);
	CHILD_CHECK(read(ready[0], &byte, 1) == 1);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	CHILD_CHECK(dir);
	for (struct dirent *d; (d = readdir(dir));) {
		pid_t tid = atoi(d->d_name);

		if (tid == 0) {
			continue;
		}
		for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
			CHILD_CHECK(child_status(tid, sets[i], 16) == 0);
		}
		/* Only root could have dropped it, and only root had something in it. */
		CHILD_CHECK(geteuid() != 0 || child_status(tid, "CapBnd", 16) == 0);
		CHILD_CHECK(child_status(tid, "NoNewPrivs", 10) == 1);
		CHILD_CHECK(child_status(tid, "Seccomp", 10) == 2);
		CHILD_CHECK(child_status(tid, "Umask", 8) == 077);
		tasks++;
	}
	CHILD_CHECK(tasks == 3);
	kill(pid, SIGKILL);
	return 0;
}

static void process_is_isolated(void **state)
{
	assert_int_equal(child_run(process_is_isolated_child, NULL), 0);
}

static void *never_enters(void *arg)
{
	prctl(PR_SET_NAME, "forgetful");
	for (;;) {
		pause();
	}
	return NULL;
}

static int unnarrowed_thread_child(void *arg)
{
	struct sandbox *sb;
	struct err err = {0};
	pthread_t thread;

	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	CHILD_CHECK(sandbox_new(&sb, true, &err) == 0);
	CHILD_CHECK(pthread_create(&thread, NULL, never_enters, NULL) == 0);
	CHILD_CHECK(sandbox_isolate(sb, NULL, &err) == -EBUSY);
	CHILD_CHECK(strstr(err.msg, "forgetful"));
	return 0;
}

static void unnarrowed_thread_is_noticed(void **state)
{
	assert_int_equal(child_run(unnarrowed_thread_child, NULL), 0);
}

static int off_child(void *arg)
{
	struct sandbox *sb;
	struct err err = {0};

	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	CHILD_CHECK(sandbox_new(&sb, false, &err) == 0);
	CHILD_CHECK(sandbox_isolate(sb, NULL, &err) == 0);
	CHILD_CHECK(sandbox_thread_enter(sb, SANDBOX_VCPU) == 0);
	CHILD_CHECK(child_status(getpid(), "Seccomp", 10) == 0);
	sandbox_free(sb);
	return 0;
}

static void sandbox_off_restricts_nothing(void **state)
{
	assert_int_equal(child_run(off_child, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(probes_do_something),
		cmocka_unit_test(forbidden_calls_are_refused),
		cmocka_unit_test(broker_has_only_its_own),
		cmocka_unit_test(permitted_calls_are_made),
		cmocka_unit_test(others_have_less_than_main),
		cmocka_unit_test(main_may_do_what_the_others_may),
		cmocka_unit_test(libraries_work_when_narrowed),
		cmocka_unit_test(main_starts_threads),
		cmocka_unit_test(a_failed_assertion_ends_in_sigabrt),
		cmocka_unit_test(process_is_isolated),
		cmocka_unit_test(unnarrowed_thread_is_noticed),
		cmocka_unit_test(sandbox_off_restricts_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
