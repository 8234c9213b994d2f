/*
 * The broker: what its policy permits, what it refuses, hostile messages, and its end.
 *
 * Each case runs in a child of its own that plays the VM process, in a directory of its own.
 */
#include <errno.h>
#include <fcntl.h>
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <linux/capability.h>

#include "base/log.h"
#include "base/util.h"
#include "child.h"
#include "sandbox/sandbox_int.h"

static char top[] = "/tmp/nemu-broker-XXXXXX";

/* --- helpers; in a child --- */

static void make_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CHILD_CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static int make_socket(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	CHILD_CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	CHILD_CHECK(listen(fd, 1) == 0);
	return fd;
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static struct broker *start(void)
{
	struct err err = {0};
	struct broker *b;

	/* What a broker refuses it logs; the tests refuse a lot. */
	log_set_level(LOG_ERR);
	if (broker_start(&b, -1, &err) < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	return b;
}

static void seal(struct broker *b)
{
	struct err err = {0};

	if (broker_seal(b, &err) < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
}

static int content_is(int fd, const char *text)
{
	char buf[64] = {0};

	return pread(fd, buf, sizeof(buf) - 1, 0) >= 0 && strcmp(buf, text) == 0;
}

/* In an empty directory. */
static void in_child(child_fn *fn)
{
	char dir[64], command[96];
	int result;

	snprintf(dir, sizeof(dir), "%s/case", top);
	assert_int_equal(mkdir(dir, 0777), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(chdir(dir), 0);
	result = child_run(fn, NULL);
	assert_int_equal(chdir("/"), 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(result, 0);
}

#define BROKER_TEST(name)                      \
	static int name##_child(void *arg);    \
	static void name(void **state)         \
	{                                      \
		in_child(name##_child);        \
	}                                      \
	static int name##_child(void *arg)

/* --- open --- */

BROKER_TEST(opens_what_the_policy_names)
{
	struct broker *b = start();
	struct err err;
	int fd;

	make_file("ro", "read");
	make_file("rw", "write");
	make_file("other", "other");
	CHILD_CHECK(broker_allow_open(b, "ro", false, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "rw", true, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "/dev/null", true, &err) == 0);
	seal(b);
	/* Names count as they were written, whatever the current directory is now. */
	CHILD_CHECK(chdir("/") == 0);

	fd = broker_open(b, "ro", BROKER_RDONLY, &err);
	CHILD_CHECK(fd >= 0 && content_is(fd, "read"));
	CHILD_CHECK((fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_RDONLY);
	CHILD_CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	fd = broker_open(b, "rw", BROKER_RDWR, &err);
	CHILD_CHECK(fd >= 0 && (fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_RDWR);
	CHILD_CHECK(pwrite(fd, "WRITE", 5, 0) == 5 && content_is(fd, "WRITE"));
	CHILD_CHECK(ftruncate(fd, 2) == 0);
	CHILD_CHECK(broker_open(b, "rw", BROKER_RDONLY, &err) >= 0);
	CHILD_CHECK(broker_open(b, "/dev/null", BROKER_RDWR, &err) >= 0);

	CHILD_CHECK(broker_open(b, "ro", BROKER_RDWR, &err) == -EACCES);
	CHILD_CHECK(strstr(err.msg, "ro: the policy permits reading only"));
	CHILD_CHECK(broker_open(b, "other", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(broker_open(b, "./ro", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(broker_open(b, "ro", 1 << 7, &err) == -EINVAL);
	CHILD_CHECK(broker_connect(b, "ro", &err) == -EACCES);
	CHILD_CHECK(broker_unlink(b, "ro", &err) == -EACCES);
	broker_stop(b);
	return 0;
}

/* An exact path is a name, not an inode: an image may be replaced, or made later. */
BROKER_TEST(opens_what_stands_there_now)
{
	struct broker *b = start();
	struct err err;
	int fd;

	make_file("image", "old");
	CHILD_CHECK(broker_allow_open(b, "image", false, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "later", false, &err) == 0);
	seal(b);
	make_file("new", "new");
	CHILD_CHECK(rename("new", "image") == 0);
	fd = broker_open(b, "image", BROKER_RDONLY, &err);
	CHILD_CHECK(fd >= 0 && content_is(fd, "new"));
	CHILD_CHECK(broker_open(b, "later", BROKER_RDONLY, &err) == -ENOENT);
	make_file("later", "later");
	fd = broker_open(b, "later", BROKER_RDONLY, &err);
	CHILD_CHECK(fd >= 0 && content_is(fd, "later"));
	broker_stop(b);
	return 0;
}

BROKER_TEST(follows_the_links_of_the_start_only)
{
	struct broker *b = start();
	struct err err;
	int fd;

	CHILD_CHECK(mkdir("d", 0700) == 0 && mkdir("e", 0700) == 0);
	make_file("d/file", "good");
	make_file("e/file", "secret");
	make_file("plain", "plain");
	CHILD_CHECK(symlink("d/file", "link") == 0 && symlink("d", "dir") == 0);
	CHILD_CHECK(broker_allow_open(b, "link", false, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "dir/file", false, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "plain", false, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "d/file", false, &err) == 0);
	seal(b);
	fd = broker_open(b, "link", BROKER_RDONLY, &err);
	CHILD_CHECK(fd >= 0 && content_is(fd, "good"));
	fd = broker_open(b, "dir/file", BROKER_RDONLY, &err);
	CHILD_CHECK(fd >= 0 && content_is(fd, "good"));

	/* The links lead elsewhere. */
	CHILD_CHECK(unlink("link") == 0 && symlink("e/file", "link") == 0);
	CHILD_CHECK(unlink("dir") == 0 && symlink("e", "dir") == 0);
	CHILD_CHECK(broker_open(b, "link", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(strstr(err.msg, "leads to another file"));
	CHILD_CHECK(broker_open(b, "dir/file", BROKER_RDONLY, &err) == -EACCES);
	/* Links where there were none: as the file, and in its path. */
	CHILD_CHECK(unlink("plain") == 0 && symlink("e/file", "plain") == 0);
	CHILD_CHECK(broker_open(b, "plain", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(strstr(err.msg, "symbolic link"));
	CHILD_CHECK(rename("d", "was-d") == 0 && symlink("e", "d") == 0);
	CHILD_CHECK(broker_open(b, "d/file", BROKER_RDONLY, &err) == -EACCES);
	broker_stop(b);
	return 0;
}

BROKER_TEST(opens_only_files_and_devices)
{
	struct broker *b = start();
	struct err err;

	CHILD_CHECK(broker_allow_open(b, "fifo", true, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "directory", false, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "socket", true, &err) == 0);
	seal(b);
	CHILD_CHECK(mkfifo("fifo", 0600) == 0 && mkdir("directory", 0700) == 0);
	make_socket("socket");
	/* Neither of them stops the broker: a FIFO without a writer would. */
	CHILD_CHECK(broker_open(b, "fifo", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(broker_open(b, "fifo", BROKER_RDWR, &err) == -EACCES);
	CHILD_CHECK(broker_open(b, "directory", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(broker_open(b, "socket", BROKER_RDWR, &err) == -ENXIO);
	broker_stop(b);
	return 0;
}

/* --- making the policy --- */

BROKER_TEST(refuses_bad_rules)
{
	struct broker *b = start();
	char path[5000];
	struct err err;

	CHILD_CHECK(broker_allow_open(b, "", false, &err) == -EINVAL);
	CHILD_CHECK(broker_allow_open(b, "here/", false, &err) == -EINVAL);
	CHILD_CHECK(broker_allow_open(b, "/", false, &err) == -EINVAL);
	CHILD_CHECK(broker_allow_open(b, "..", false, &err) == -EINVAL);
	CHILD_CHECK(broker_allow_open(b, "no/such", false, &err) == -ENOENT);
	CHILD_CHECK(strstr(err.msg, "no/such"));
	memset(path, 'a', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	CHILD_CHECK(broker_allow_open(b, path, false, &err) == -ENAMETOOLONG);
	CHILD_CHECK(symlink("/", "root") == 0);
	CHILD_CHECK(broker_allow_open(b, "root", false, &err) == -EISDIR);
	CHILD_CHECK(broker_created(b, "nothing", BROKER_REGULAR, &err) == -ENOENT);
	for (unsigned i = 0; i < BROKER_RULES_MAX; i++) {
		snprintf(path, sizeof(path), "f%u", i);
		CHILD_CHECK(broker_allow_open(b, path, false, &err) == 0);
	}
	CHILD_CHECK(broker_allow_open(b, "more", false, &err) == -ENOSPC);
	/* The same name again is the same rule, and may be widened. */
	CHILD_CHECK(broker_allow_open(b, "f7", true, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "f7", false, &err) == 0);
	seal(b);
	make_file("f7", "seven");
	CHILD_CHECK(broker_open(b, "f7", BROKER_RDWR, &err) >= 0);
	make_file("f255", "last");
	CHILD_CHECK(broker_open(b, "f255", BROKER_RDONLY, &err) >= 0);
	CHILD_CHECK(broker_allow_open(b, "f8", true, &err) == -EPERM);
	CHILD_CHECK(broker_seal(b, &err) == -EPERM);
	broker_stop(b);
	return 0;
}

/* --- connect --- */

BROKER_TEST(connects_to_named_sockets)
{
	char dir[200] = "", path[256];
	struct broker *b = start();
	struct err err;
	int fd, server, peer;

	/* Longer than sun_path. */
	memset(dir, 'd', 150);
	CHILD_CHECK(mkdir(dir, 0700) == 0);
	snprintf(path, sizeof(path), "%s/s", dir);
	make_file("file", "file");
	CHILD_CHECK(broker_allow_connect(b, path, &err) == 0);
	CHILD_CHECK(broker_allow_connect(b, "file", &err) == 0);
	CHILD_CHECK(broker_allow_connect(b, "closed", &err) == 0);
	close(make_socket("closed"));
	seal(b);
	CHILD_CHECK(broker_connect(b, path, &err) == -ENOENT);
	CHILD_CHECK(chdir(dir) == 0);
	server = make_socket("s");
	CHILD_CHECK(chdir("..") == 0);
	fd = broker_connect(b, path, &err);
	CHILD_CHECK(fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) && fcntl(fd, F_GETFD));
	peer = accept(server, NULL, NULL);
	CHILD_CHECK(peer >= 0 && write(fd, "x", 1) == 1 && read(peer, path, 1) == 1);
	CHILD_CHECK(broker_connect(b, "file", &err) == -EACCES);
	CHILD_CHECK(broker_connect(b, "closed", &err) == -ECONNREFUSED);
	CHILD_CHECK(broker_open(b, "file", BROKER_RDONLY, &err) == -EACCES);
	broker_stop(b);
	return 0;
}

/* A peer that never accepts: its backlog is full, and the broker does not wait. */
BROKER_TEST(does_not_wait_for_a_peer)
{
	struct broker *b = start();
	struct err err;
	int r = 0;

	make_socket("s");
	CHILD_CHECK(broker_allow_connect(b, "s", &err) == 0);
	seal(b);
	for (int i = 0; i < 20 && r >= 0; i++) {
		r = broker_connect(b, "s", &err);
	}
	CHILD_CHECK(r == -EAGAIN);
	broker_stop(b);
	return 0;
}

/* --- clean-up --- */

BROKER_TEST(removes_what_was_created)
{
	struct broker *b = start();
	pid_t pid = broker_pid(b);
	struct err err;

	make_file("pid", "1");
	make_file("kept", "mine");
	make_file("replaced", "mine");
	make_file("file", "not a socket");
	make_socket("qmp");
	make_socket("early");
	CHILD_CHECK(symlink("kept", "link") == 0);
	CHILD_CHECK(broker_created(b, "pid", BROKER_REGULAR, &err) == 0);
	CHILD_CHECK(broker_created(b, "replaced", BROKER_REGULAR, &err) == 0);
	CHILD_CHECK(broker_created(b, "qmp", BROKER_SOCKET, &err) == 0);
	CHILD_CHECK(broker_created(b, "early", BROKER_SOCKET, &err) == 0);
	CHILD_CHECK(broker_created(b, "file", BROKER_SOCKET, &err) == -EACCES);
	CHILD_CHECK(broker_created(b, "link", BROKER_REGULAR, &err) == -EACCES);
	seal(b);
	CHILD_CHECK(broker_unlink(b, "early", &err) == 0 && !exists("early"));
	CHILD_CHECK(broker_unlink(b, "early", &err) == 0);
	CHILD_CHECK(broker_unlink(b, "kept", &err) == -EACCES);
	/* Another program has taken the name over: the file is not ours to remove. */
	make_file("new", "another's");
	CHILD_CHECK(rename("new", "replaced") == 0);
	broker_stop(b);
	CHILD_CHECK(!exists("pid") && !exists("qmp"));
	CHILD_CHECK(exists("replaced") && exists("kept") && exists("file") && exists("link"));
	CHILD_CHECK(kill(pid, 0) < 0 && errno == ESRCH);
	return 0;
}

BROKER_TEST(removes_also_before_the_seal)
{
	struct broker *b = start();
	struct err err;

	make_socket("qmp");
	CHILD_CHECK(broker_created(b, "qmp", BROKER_SOCKET, &err) == 0);
	broker_stop(b);
	CHILD_CHECK(!exists("qmp"));
	return 0;
}


/* The VM process dies of SIGKILL, while somebody else still holds its end of the connection. */
BROKER_TEST(outlives_nothing)
{
	pid_t *broker = mmap(NULL, sizeof(*broker), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t vm, holder;
	char byte;
	int p[2];

	CHILD_CHECK(broker != MAP_FAILED && pipe(p) == 0);
	/* The broker's exit status goes to us. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	vm = fork();
	if (vm == 0) {
		struct broker *b = start();
		struct err err;

		*broker = broker_pid(b);
		make_socket("qmp");
		CHILD_CHECK(broker_created(b, "qmp", BROKER_SOCKET, &err) == 0);
		seal(b);
		holder = fork();
		if (holder > 0) {
			CHILD_CHECK(write(p[1], &holder, sizeof(holder)) == sizeof(holder));
		}
		for (;;) {
			pause();
		}
	}
	close(p[1]);
	CHILD_CHECK(read(p[0], &holder, sizeof(holder)) == sizeof(holder));
	CHILD_CHECK(exists("qmp"));
	/* Neither the terminal's signals nor a service manager's end it. */
	CHILD_CHECK(kill(*broker, SIGINT) == 0 && kill(*broker, SIGTERM) == 0 &&
		    kill(*broker, SIGHUP) == 0);
	CHILD_CHECK(read(p[0], &byte, 0) == 0 && exists("qmp"));
	CHILD_CHECK(kill(vm, SIGKILL) == 0 && waitpid(vm, NULL, 0) == vm);
	CHILD_CHECK(waitpid(*broker, NULL, 0) == *broker);
	CHILD_CHECK(!exists("qmp"));
	CHILD_CHECK(holder > 0 && kill(holder, SIGKILL) == 0);
	return 0;
}

/* --- a hostile VM process --- */

static int raw(struct broker *b, const void *buf, size_t len, struct broker_reply *reply)
{
	CHILD_CHECK(send(broker_fd(b), buf, len, 0) == (ssize_t)len);
	CHILD_CHECK(recv(broker_fd(b), reply, sizeof(*reply), 0) == sizeof(*reply));
	CHILD_CHECK(reply->magic == BROKER_MAGIC);
	return reply->result;
}

static int raw_request(struct broker *b, uint32_t magic, uint32_t verb, uint32_t rule)
{
	struct broker_request m = {magic, verb, rule, 0};
	struct broker_reply reply;

	return raw(b, &m, sizeof(m), &reply);
}

static int raw_setup(struct broker *b, uint32_t verb, const char *path, bool terminated)
{
	struct broker_setup m = {.magic = BROKER_MAGIC, .verb = verb};
	struct broker_reply reply;

	if (!terminated) {
		memset(m.path, 'a', sizeof(m.path));
	}
	memcpy(m.path, path, strlen(path));
	return raw(b, &m, sizeof(m), &reply);
}

BROKER_TEST(answers_malformed_messages)
{
	static char big[sizeof(struct broker_setup) + 64];
	struct broker *b = start();
	struct broker_reply reply;
	struct err err;
	int fd;

	make_file("file", "file");
	make_file("secret", "secret");
	CHILD_CHECK(broker_allow_open(b, "file", false, &err) == 0);
	CHILD_CHECK(raw_setup(b, BROKER_ALLOW_OPEN, "/", false) == -EINVAL);
	CHILD_CHECK(raw_setup(b, BROKER_ALLOW_OPEN, "relative", true) == -EINVAL);
	CHILD_CHECK(raw_setup(b, BROKER_ALLOW_OPEN, "", true) == -EINVAL);
	CHILD_CHECK(raw_setup(b, 0, "/etc/passwd", true) == -EINVAL);
	CHILD_CHECK(raw_setup(b, 77, "/etc/passwd", true) == -EINVAL);
	seal(b);
	for (size_t len = 1; len <= sizeof(big); len += len < 40 ? 1 : 37) {
		if (len != sizeof(struct broker_request)) {
			CHILD_CHECK(raw(b, big, len, &reply) == -EINVAL);
			CHILD_CHECK(strlen(reply.text) > 0);
		}
	}
	CHILD_CHECK(raw(b, big, sizeof(big), &reply) == -EINVAL);
	CHILD_CHECK(raw(b, big, sizeof(struct broker_setup), &reply) == -EINVAL);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC + 1, BROKER_OPEN, 0) == -EINVAL);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, 0, 0) == -EACCES);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, 99, 0) == -EACCES);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, BROKER_CONNECT, 0) == -EACCES);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, BROKER_UNLINK, 0) == -EACCES);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, BROKER_OPEN, 1) == -EACCES);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, BROKER_OPEN, UINT32_MAX) == -EACCES);
	/* The policy takes no rule any more, however it is asked. */
	CHILD_CHECK(raw_setup(b, BROKER_ALLOW_OPEN, "/etc/passwd", true) == -EPERM);
	CHILD_CHECK(raw_setup(b, BROKER_CREATED, "/etc/passwd", true) == -EPERM);
	CHILD_CHECK(raw_setup(b, BROKER_SEAL, "", true) == -EPERM);
	CHILD_CHECK(raw_request(b, BROKER_MAGIC, BROKER_OPEN, 1) == -EACCES);
	/* And it still serves. */
	fd = broker_open(b, "file", BROKER_RDONLY, &err);
	CHILD_CHECK(fd >= 0 && content_is(fd, "file"));
	broker_stop(b);
	return 0;
}

BROKER_TEST(takes_no_descriptors)
{
	struct broker_request m = {BROKER_MAGIC, BROKER_OPEN, 0, 0};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.align = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct broker *b = start();
	struct broker_reply reply;
	struct err err;
	int p[2];

	make_file("file", "file");
	CHILD_CHECK(broker_allow_open(b, "file", false, &err) == 0);
	seal(b);
	/* More than the broker could have open. */
	for (int i = 0; i < 50; i++) {
		CHILD_CHECK(pipe(p) == 0);
		memcpy(CMSG_DATA(&control.align), &p[1], sizeof(int));
		CHILD_CHECK(sendmsg(broker_fd(b), &msg, 0) == sizeof(m));
		CHILD_CHECK(recv(broker_fd(b), &reply, sizeof(reply), 0) == sizeof(reply));
		CHILD_CHECK(reply.result == -EINVAL);
		/* It does not hold the write end either. */
		close(p[1]);
		CHILD_CHECK(read(p[0], &reply, 1) == 0);
		close(p[0]);
	}
	CHILD_CHECK(broker_open(b, "file", BROKER_RDONLY, &err) >= 0);
	broker_stop(b);
	return 0;
}

/* Asks without reading the answers; the broker neither waits nor runs out of descriptors. */
BROKER_TEST(survives_a_flood)
{
	struct broker_request m = {BROKER_MAGIC, BROKER_OPEN, 0, 0};
	struct broker *b = start();
	uint64_t begin, end;
	struct err err;
	char buf[4096];

	make_file("file", "file");
	make_socket("qmp");
	CHILD_CHECK(broker_allow_open(b, "file", false, &err) == 0);
	CHILD_CHECK(broker_created(b, "qmp", BROKER_SOCKET, &err) == 0);
	seal(b);
	begin = now_ns();
	for (int i = 0; i < 150; i++) {
		CHILD_CHECK(send(broker_fd(b), &m, sizeof(m), 0) == sizeof(m));
	}
	/* All answers to them come before this one, or have been dropped. */
	m.verb = 12345;
	CHILD_CHECK(send(broker_fd(b), &m, sizeof(m), 0) == sizeof(m));
	for (int i = 0; i < 151; i++) {
		struct broker_reply *reply = (struct broker_reply *)buf;

		CHILD_CHECK(recv(broker_fd(b), buf, sizeof(buf), 0) == sizeof(*reply));
		if (reply->result == -EACCES) {
			break;
		}
		CHILD_CHECK(i < 150);
	}
	/* 64 at once, the other 87 at 100 a second. */
	end = now_ns();
	CHILD_CHECK(end - begin >= 800000000 && end - begin < 10000000000);
	for (int i = 0; i < 5000; i++) {
		if (send(broker_fd(b), &m, sizeof(m), MSG_DONTWAIT) < 0) {
			CHILD_CHECK(errno == EAGAIN);
			break;
		}
	}
	broker_stop(b);
	CHILD_CHECK(!exists("qmp"));
	return 0;
}

BROKER_TEST(is_lost_once_and_for_all)
{
	struct broker *b = start();
	struct err err;

	make_file("file", "file");
	CHILD_CHECK(broker_allow_open(b, "file", false, &err) == 0);
	seal(b);
	CHILD_CHECK(kill(broker_pid(b), SIGKILL) == 0);
	CHILD_CHECK(broker_open(b, "file", BROKER_RDONLY, &err) == -EPIPE);
	CHILD_CHECK(broker_open(b, "file", BROKER_RDONLY, &err) == -EPIPE);
	CHILD_CHECK(strstr(err.msg, "the broker has ended"));
	broker_stop(b);
	return 0;
}

/* --- its own confinement --- */

BROKER_TEST(gives_up_what_it_does_not_need)
{
	const uint64_t allowed = UINT64_C(1) << CAP_DAC_OVERRIDE |
				 UINT64_C(1) << CAP_DAC_READ_SEARCH | UINT64_C(1) << CAP_FOWNER;
	int inherited = open("/", O_RDONLY);
	struct broker *b = start(), *none = start();
	char path[64], target[64] = "";
	struct err err;

	CHILD_CHECK(broker_allow_open(b, "x", false, &err) == 0);
	seal(b);
	seal(none);
	CHILD_CHECK((child_status(broker_pid(b), "CapPrm", 16) & ~allowed) == 0);
	CHILD_CHECK((child_status(broker_pid(b), "CapEff", 16) & ~allowed) == 0);
	CHILD_CHECK(child_status(broker_pid(none), "CapPrm", 16) == 0);
	CHILD_CHECK(child_status(broker_pid(b), "NoNewPrivs", 10) == 1);
	CHILD_CHECK(child_status(broker_pid(b), "Seccomp", 10) == 2);
	CHILD_CHECK(child_status(broker_pid(b), "Threads", 10) == 1);
	if (geteuid() == 0) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)broker_pid(b), inherited);
		CHILD_CHECK(readlink(path, target, sizeof(target) - 1) < 0 ||
			    strcmp(target, "/") != 0);
		snprintf(path, sizeof(path), "/proc/%d/fd/0", (int)broker_pid(b));
		CHILD_CHECK(readlink(path, target, sizeof(target) - 1) > 0 &&
			    strcmp(target, "/dev/null") == 0);
	}
	broker_stop(b);
	broker_stop(none);
	return 0;
}

/* The same as an ordinary user, without any capability to begin with. */
BROKER_TEST(works_for_an_ordinary_user)
{
	struct broker *b;
	struct sandbox *sb;
	struct err err;
	int fd;

	if (geteuid() == 0) {
		CHILD_CHECK(setresgid(65534, 65534, 65534) == 0);
		CHILD_CHECK(setresuid(65534, 65534, 65534) == 0);
		/* As after exec: a change of user makes the process undumpable. */
		CHILD_CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	}
	CHILD_CHECK(sandbox_early(NULL, 0, &err) == 0);
	b = start();
	make_file("file", "file");
	close(make_socket("qmp"));
	CHILD_CHECK(broker_allow_open(b, "file", true, &err) == 0);
	CHILD_CHECK(broker_allow_open(b, "/etc/shadow", false, &err) == 0);
	CHILD_CHECK(broker_created(b, "qmp", BROKER_SOCKET, &err) == 0);
	CHILD_CHECK(broker_created(b, "/etc/passwd", BROKER_REGULAR, &err) == -EACCES);
	CHILD_CHECK(sandbox_new(&sb, true, &err) == 0);
	if (sandbox_isolate(sb, b, &err) < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	/* From here on as the main thread of the VM process, with its filter. */
	fd = broker_open(b, "file", BROKER_RDWR, &err);
	CHILD_CHECK(fd >= 0 && write(fd, "FILE", 4) == 4);
	CHILD_CHECK(broker_open(b, "/etc/shadow", BROKER_RDONLY, &err) == -EACCES);
	CHILD_CHECK(broker_unlink(b, "qmp", &err) == 0);
	broker_stop(b);
	return 0;
}

static int make_top(void **state)
{
	return mkdtemp(top) && chmod(top, 0777) == 0 ? 0 : -1;
}

static int remove_top(void **state)
{
	return rmdir(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_what_the_policy_names),
		cmocka_unit_test(opens_what_stands_there_now),
		cmocka_unit_test(follows_the_links_of_the_start_only),
		cmocka_unit_test(opens_only_files_and_devices),
		cmocka_unit_test(refuses_bad_rules),
		cmocka_unit_test(connects_to_named_sockets),
		cmocka_unit_test(does_not_wait_for_a_peer),
		cmocka_unit_test(removes_what_was_created),
		cmocka_unit_test(removes_also_before_the_seal),
		cmocka_unit_test(outlives_nothing),
		cmocka_unit_test(answers_malformed_messages),
		cmocka_unit_test(takes_no_descriptors),
		cmocka_unit_test(survives_a_flood),
		cmocka_unit_test(is_lost_once_and_for_all),
		cmocka_unit_test(gives_up_what_it_does_not_need),
		cmocka_unit_test(works_for_an_ordinary_user),
	};

	return cmocka_run_group_tests(tests, make_top, remove_top);
}
