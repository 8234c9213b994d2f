/*
 * The first stage (descriptors, umask, limits) and Landlock by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <seccomp.h>

#include "base/log.h"
#include "child.h"
#include "sandbox/sandbox_int.h"
#include "spec/landlock.h"

#define EARLY_TEST(name)                                              \
	static int name##_child(void *arg);                           \
	static void name(void **state)                                \
	{                                                             \
		assert_int_equal(child_run(name##_child, NULL), 0);   \
	}                                                             \
	static int name##_child(void *arg)

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

EARLY_TEST(keeps_only_named_descriptors)
{
	/* Unordered, twice, next to each other, and some that are kept anyway. */
	const int keep[] = {40, 7, 41, 2, 7, 100, 0};
	struct err err;

	for (int fd = 3; fd <= 120; fd++) {
		CHILD_CHECK(dup2(STDERR_FILENO, fd) == fd);
	}
	CHILD_CHECK(sandbox_early(keep, 7, &err) == 0);
	for (int fd = 0; fd <= 130; fd++) {
		CHILD_CHECK(is_open(fd) == (fd <= 2 || fd == 7 || fd == 40 || fd == 41 || fd == 100));
	}
	return 0;
}

EARLY_TEST(names_a_descriptor_that_is_missing)
{
	const int closed = 555, negative = -1;
	int many[300] = {0};
	struct err err;

	CHILD_CHECK(sandbox_early(&closed, 1, &err) == -EBADF);
	CHILD_CHECK(strstr(err.msg, "descriptor 555"));
	CHILD_CHECK(sandbox_early(&negative, 1, &err) == -EBADF);
	CHILD_CHECK(sandbox_early(many, 300, &err) == -E2BIG);
	return 0;
}

/* Otherwise the next file that is opened would be stderr, and log lines would end up in it. */
EARLY_TEST(fills_closed_standard_descriptors)
{
	struct stat st, null;
	struct err err;

	CHILD_CHECK(stat("/dev/null", &null) == 0);
	close(0);
	close(1);
	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	for (int fd = 0; fd <= 1; fd++) {
		CHILD_CHECK(fstat(fd, &st) == 0 && st.st_rdev == null.st_rdev);
	}
	CHILD_CHECK(write(1, "x", 1) == 1);
	return 0;
}

EARLY_TEST(sets_umask_limits_and_no_new_privs)
{
	struct rlimit lim = {100, 500}, core, core_before;
	struct err err;

	CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	CHILD_CHECK(getrlimit(RLIMIT_CORE, &core_before) == 0);
	umask(022);
	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	CHILD_CHECK(umask(0) == 077);
	CHILD_CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur == 500);
	CHILD_CHECK(getrlimit(RLIMIT_CORE, &core) == 0 &&
		    memcmp(&core, &core_before, sizeof(core)) == 0);
	CHILD_CHECK(child_status(getpid(), "NoNewPrivs", 10) == 1);
	return 0;
}

/* --- Landlock. A kernel without it says so, and nothing changes. --- */

static int open_close(const char *path, int flags)
{
	int fd = open(path, flags);

	return fd < 0 ? -errno : close(fd);
}

EARLY_TEST(landlock_without_rules_denies_files)
{
	int r, before = open("/dev/zero", O_RDONLY);
	char byte;

	CHILD_CHECK(confine_no_new_privs() == 0);
	r = landlock_enter(NULL, 0);
	CHILD_CHECK(r == 0 || r == -EOPNOTSUPP);
	CHILD_CHECK(open_close("/dev/zero", O_RDONLY) == (r == 0 ? -EACCES : 0));
	CHILD_CHECK(open_close("/", O_RDONLY | O_DIRECTORY) == (r == 0 ? -EACCES : 0));
	/* What is open stays open. */
	CHILD_CHECK(read(before, &byte, 1) == 1);
	return 0;
}

EARLY_TEST(landlock_leaves_what_a_rule_names)
{
	const struct landlock_path paths[] = {
		{"/nonexistent", LANDLOCK_ACCESS_FS_READ_FILE},
		{"/dev", LANDLOCK_ACCESS_FS_READ_FILE},
		{"/etc", 0},
	};
	int r;

	CHILD_CHECK(confine_no_new_privs() == 0);
	r = landlock_enter(paths, 3);
	CHILD_CHECK(r == 0 || r == -EOPNOTSUPP);
	CHILD_CHECK(open_close("/dev/zero", O_RDONLY) == 0);
	if (r == 0) {
		CHILD_CHECK(open_close("/dev/zero", O_RDWR) == -EACCES);
		CHILD_CHECK(open_close("/dev", O_RDONLY | O_DIRECTORY) == -EACCES);
		CHILD_CHECK(open_close("/etc/passwd", O_RDONLY) == -EACCES);
	}
	return 0;
}

/* --- one after the other, as main() does it --- */

EARLY_TEST(stages_follow_each_other)
{
	struct broker *b;
	struct err err;

	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	CHILD_CHECK(broker_start(&b, -1, &err) == 0);
	CHILD_CHECK(confine_single_threaded());
	broker_stop(b);
	broker_stop(NULL);
	sandbox_free(NULL);
	return 0;
}

/* As a container's own filter does: this system call fails with this error. */
static void kernel_lacks(int nr, int errnum)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

	CHILD_CHECK(seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO((uint32_t)errnum), nr, 0, NULL) ==
		    0);
	CHILD_CHECK(seccomp_load(ctx) == 0);
	seccomp_release(ctx);
}

EARLY_TEST(isolation_does_without_landlock)
{
	char said[512] = "";
	struct sandbox *sb;
	struct err err;
	int p[2];

	CHILD_CHECK(pipe(p) == 0);
	CHILD_CHECK(sandbox_early(p, 2, &err) == 0);
	log_set_fd(p[1]);
	kernel_lacks(SCMP_SYS(landlock_create_ruleset), EPERM);
	CHILD_CHECK(sandbox_new(&sb, true, &err) == 0);
	CHILD_CHECK(sandbox_isolate(sb, NULL, &err) == 0);
	CHILD_CHECK(read(p[0], said, sizeof(said) - 1) > 0);
	CHILD_CHECK(strstr(said, "no Landlock") && strchr(said, '\n')[1] == '\0');
	return 0;
}

EARLY_TEST(isolation_needs_seccomp)
{
	struct sandbox *sb;
	struct err err;

	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	CHILD_CHECK(sandbox_new(&sb, true, &err) == 0);
	kernel_lacks(SCMP_SYS(seccomp), EINVAL);
	CHILD_CHECK(sandbox_isolate(sb, NULL, &err) == -ENOSYS);
	CHILD_CHECK(strstr(err.msg, "-sandbox off"));
	return 0;
}

EARLY_TEST(capabilities_can_be_kept)
{
	unsigned long long before = child_status(getpid(), "CapPrm", 16);

	CHILD_CHECK(confine_caps(1 << 1) == 0);
	CHILD_CHECK(child_status(getpid(), "CapPrm", 16) == (before & (1 << 1)));
	CHILD_CHECK(child_status(getpid(), "CapEff", 16) == (before & (1 << 1)));
	CHILD_CHECK(child_status(getpid(), "CapInh", 16) == 0);
	CHILD_CHECK(confine_caps(0) == 0);
	CHILD_CHECK(child_status(getpid(), "CapPrm", 16) == 0);
	/* What is gone is not asked back. */
	CHILD_CHECK(confine_caps(~UINT64_C(0)) == 0);
	CHILD_CHECK(child_status(getpid(), "CapPrm", 16) == 0);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_only_named_descriptors),
		cmocka_unit_test(names_a_descriptor_that_is_missing),
		cmocka_unit_test(fills_closed_standard_descriptors),
		cmocka_unit_test(sets_umask_limits_and_no_new_privs),
		cmocka_unit_test(landlock_without_rules_denies_files),
		cmocka_unit_test(landlock_leaves_what_a_rule_names),
		cmocka_unit_test(stages_follow_each_other),
		cmocka_unit_test(isolation_does_without_landlock),
		cmocka_unit_test(isolation_needs_seccomp),
		cmocka_unit_test(capabilities_can_be_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
