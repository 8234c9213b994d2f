/*
 * Options of -blockdev and everything that can be wrong with an image: one sentence that names
 * it. Image locks, which QEMU shares.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkrig.h"

#define QEMU_IO "/usr/bin/qemu-io"

#define TEXT 400

static __attribute__((noinline)) void spell(char text[TEXT], const char *before,
					    const char *path, const char *after)
{
	snprintf(text, TEXT, "%s%s%s", before, path, after);
}

/* Opens, expects the error and a sentence that contains both words. */
static void refused_(int error, const char *word, const char *word2, const char *text,
		     const char *file, int line)
{
	struct blkrig r;
	int rc = blkrig_open(&r, text);

	if (rc == 0) {
		blkrig_close(&r);
	}
	_assert_int_equal(rc, -error, file, line);
	if (!strstr(r.err.msg, word) || !strstr(r.err.msg, word2)) {
		print_error("'%s' for %s\n", r.err.msg, text);
		_fail(file, line);
	}
	_assert_true(strchr(r.err.msg, '\n') == NULL, "one sentence", file, line);
}
#define refused(e, w, w2, t) refused_(e, w, w2, t, __FILE__, __LINE__)

static void test_options(void **state)
{
	char *path = blkrig_file(NULL, 8192), text[TEXT];
	struct blkrig r;
	static const struct {
		const char *options, *key;
	} good[] = {
		{"driver=raw,file.driver=file,node-name=d0", "file.filename"},
		{"driver=raw,node-name=d0", "file.filename"},
		{"driver=raw,node-name=d0,file.driver=file,file.node-name=f0", "filename"},
		{"driver=file,node-name=d0,aio=io_uring,locking=on", "filename"},
		{"node-name=d0,read-only=on,discard=unmap,cache.no-flush=on", "filename"},
		{"node-name=d0,driver=raw,file.driver=file,file.locking=off", "file.filename"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text), "%s,%s=%s", good[i].options, good[i].key, path);
		assert_int_equal(blkrig_open(&r, text), 0);
		assert_string_equal(blk_name(r.node), "d0");
		blkrig_close(&r);
	}
	refused(EINVAL, "filename", "missing", "driver=raw");
	refused(EINVAL, "filename", "missing", "driver=raw,filename=");
	refused(EINVAL, "nonsense", "-blockdev", "driver=raw,filename=/x,nonsense=1");
	refused(EINVAL, "driver", "vmdk", "driver=vmdk,filename=/x");
	refused(EINVAL, "aio", "posix", "driver=raw,filename=/x,aio=posix");
	refused(EINVAL, "aio=native", "cache.direct=on", "driver=raw,filename=/x,aio=native");
	refused(EINVAL, "discard", "maybe", "driver=raw,filename=/x,discard=maybe");
	refused(EINVAL, "read-only", "2", "driver=raw,filename=/x,read-only=2");
	refused(EINVAL, "file.filename", "keep one", "driver=raw,filename=/x,file.filename=/y");
	refused(EINVAL, "locking", "filename", "driver=file,file.driver=file,filename=/x");
	refused(EINVAL, "size", "filename", "driver=null-co,filename=/x");
	refused(EINVAL, "null-co", "512", "driver=null-co,size=1000");
	refused(EINVAL, "null-co", "512", "driver=null-co,size=0");
	assert_int_equal(blkrig_open(&r, "driver=null-co"), 0);
	assert_int_equal(r.info.size, GiB);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

static void test_bad_files(void **state)
{
	char *path = blkrig_file(NULL, 1000), *dir, text[TEXT];
	struct blkrig r;

	spell(text, "driver=host_device,filename=", path, "");
	refused(EINVAL, path, "driver=file", text);
	unlink(path);
	refused(ENOENT, path, "not there", text);
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(EINVAL, path, "neither", text);
	spell(text, "driver=raw,read-only=on,filename=", path, "");
	refused(EINVAL, path, "neither", text);
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	refused(EISDIR, path, "directory", text);
	spell(text, "driver=raw,filename=", path, "");
	refused(EISDIR, path, "directory", text);
	spell(text, "driver=raw,filename=", path, "/below");
	refused(ENOENT, path, "not there", text);
	rmdir(path);
	refused(EINVAL, "/dev/null", "neither", "driver=raw,filename=/dev/null");
	dir = blkrig_file("/dev/shm", 8192);
	spell(text, "driver=raw,cache.direct=on,filename=", dir, "");
	if (blkrig_open(&r, text) == 0) {
		blkrig_close(&r); /* newer kernels can */
	} else {
		refused(EINVAL, dir, "O_DIRECT", text);
	}
	unlink(dir);
	free(dir);
	free(path);
	(void)state;
}

static void test_no_permission(void **state)
{
	char *path = blkrig_file(NULL, 8192), text[TEXT];

	chmod(path, 0);
	if (geteuid() == 0 && seteuid(65534) != 0) {
		skip();
	}
	spell(text, "driver=raw,filename=", path, "");
	refused(EACCES, path, "read-only=on", text);
	spell(text, "driver=raw,filename=", path, ",read-only=on");
	refused(EACCES, path, "permission", text);
	if (getuid() == 0) {
		assert_int_equal(seteuid(0), 0);
	}
	unlink(path);
	free(path);
	(void)state;
}

/* --- locks --- */

static void test_locks_exclude(void **state)
{
	char *path = blkrig_file(NULL, 8192), rw[TEXT], ro[TEXT], off[TEXT];
	struct blkrig a, b;

	spell(rw, "driver=raw,filename=", path, "");
	spell(ro, "driver=raw,read-only=on,filename=", path, "");
	spell(off, "driver=raw,locking=off,filename=", path, "");
	assert_int_equal(blkrig_open(&a, rw), 0);
	refused(EAGAIN, path, "another process", rw);
	refused(EAGAIN, path, "another process", ro);
	assert_int_equal(blkrig_open(&b, off), 0);
	blkrig_close(&b);
	blkrig_close(&a);
	/* readers do not mind each other, but a writer */
	assert_int_equal(blkrig_open(&a, ro), 0);
	assert_int_equal(blkrig_open(&b, ro), 0);
	refused(EAGAIN, path, "another process", rw);
	blkrig_close(&a);
	refused(EAGAIN, path, "another process", rw);
	blkrig_close(&b);
	assert_int_equal(blkrig_open(&a, rw), 0);
	blkrig_close(&a);
	unlink(path);
	free(path);
	(void)state;
}

/* The bytes that other programs look at. */
static void test_lock_bytes(void **state)
{
	static const struct {
		int byte;
		bool rw, ro;
	} want[] = {
		{99, false, false},  {100, true, true},	  {101, true, false},
		{102, false, false}, {103, false, false}, {104, false, false},
		{200, false, false}, {201, true, true},	  {202, false, false},
		{203, false, false}, {204, false, false},
	};
	char *path = blkrig_file(NULL, 8192), text[TEXT];
	struct blkrig r;
	int fd = open(path, O_RDWR);

	for (int ro = 0; ro < 2; ro++) {
		spell(text, "driver=raw,filename=", path,
		      ro ? ",read-only=on" : ",read-only=off");
		assert_int_equal(blkrig_open(&r, text), 0);
		for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
			struct flock fl = {
				.l_type = F_WRLCK,
				.l_whence = SEEK_SET,
				.l_start = want[i].byte,
				.l_len = 1,
			};
			bool locked;

			assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
			locked = fl.l_type != F_UNLCK;
			assert_int_equal(locked, ro ? want[i].ro : want[i].rw);
			/* shared ones: another may take the same */
			assert_true(!locked || fl.l_type == F_RDLCK);
		}
		blkrig_close(&r);
	}
	close(fd);
	unlink(path);
	free(path);
	(void)state;
}

/* Looks without locking anything, so that it is in nobody's way. */
static bool locked(const char *path, off_t byte)
{
	struct flock fl = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = byte,
		.l_len = 1,
	};
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
	close(fd);
	return fl.l_type != F_UNLCK;
}

/* Runs qemu-io with the commands given on its standard input; -1 if it is not installed. With
 * keep it stays alive until *keep is closed. */
static pid_t qemu_io(const char *path, bool read_only, const char *commands, int *keep)
{
	int in[2];
	pid_t pid;

	if (access(QEMU_IO, X_OK) != 0) {
		return -1;
	}
	assert_int_equal(pipe(in), 0);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(in[0], 0);
		dup2(null, 1);
		dup2(null, 2);
		close(in[1]);
		execl(QEMU_IO, QEMU_IO, "-f", "raw", read_only ? "-r" : path,
		      read_only ? path : NULL, NULL);
		_exit(127);
	}
	close(in[0]);
	assert_int_equal(write(in[1], commands, strlen(commands)), strlen(commands));
	if (keep) {
		*keep = in[1];
	} else {
		close(in[1]);
	}
	return pid;
}

static int exit_status(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_locks_with_qemu(void **state)
{
	char *path = blkrig_file(NULL, 65536), text[TEXT];
	struct blkrig r;
	int keep;
	pid_t pid;

	spell(text, "driver=raw,filename=", path, "");
	assert_int_equal(blkrig_open(&r, text), 0);
	pid = qemu_io(path, false, "write 0 512\n", NULL);
	if (pid < 0) {
		blkrig_close(&r);
		unlink(path);
		free(path);
		skip(); /* qemu-utils is not installed */
	}
	assert_int_not_equal(exit_status(pid), 0);
	blkrig_close(&r);
	assert_int_equal(exit_status(qemu_io(path, false, "write 0 512\n", NULL)), 0);
	/* the other way round */
	pid = qemu_io(path, false, "write 0 512\n", &keep);
	for (int i = 0; i < 1000 && !locked(path, 101); i++) {
		usleep(10000);
	}
	assert_int_equal(blkrig_open(&r, text), -EAGAIN);
	assert_non_null(strstr(r.err.msg, path));
	close(keep);
	assert_int_equal(exit_status(pid), 0);
	assert_int_equal(blkrig_open(&r, text), 0);
	blkrig_close(&r);
	unlink(path);
	free(path);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),	      cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_no_permission), cmocka_unit_test(test_locks_exclude),
		cmocka_unit_test(test_lock_bytes),    cmocka_unit_test(test_locks_with_qemu),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("block open", tests, NULL, NULL);
}
