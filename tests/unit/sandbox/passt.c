/*
 * passt as a child of the broker: it serves when the broker says so, and it has ended when
 * the VM process has, however each of them ends. With the real passt, in a network namespace
 * with an interface that has a default route.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/route.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "child.h"
#include "sandbox/sandbox_int.h"

static const char *unavailable;

static void set_addr(int s, struct ifreq *ifr, unsigned long request, const char *text)
{
	struct sockaddr_in *sin = (struct sockaddr_in *)&ifr->ifr_addr;

	sin->sin_family = AF_INET;
	inet_pton(AF_INET, text, &sin->sin_addr);
	if (ioctl(s, request, ifr)) {
		unavailable = "no address for an interface";
	}
}

/* A tap with 10.99.0.5/24 and a default route: what passt copies to the guest. */
static void network_make(void)
{
	struct ifreq ifr = {.ifr_name = "pt0", .ifr_flags = IFF_TAP | IFF_NO_PI};
	struct rtentry rt = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = (char *)"pt0"};
	int tun, s;

	if (access("/usr/bin/passt", X_OK)) {
		unavailable = "passt is not installed";
		return;
	}
	if (unshare(CLONE_NEWNET)) {
		unavailable = "no right to make a network namespace";
		return;
	}
	tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC); /* stays open */
	if (tun < 0 || ioctl(tun, TUNSETIFF, &ifr)) {
		unavailable = "no tap interface";
		return;
	}
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	set_addr(s, &ifr, SIOCSIFADDR, "10.99.0.5");
	set_addr(s, &ifr, SIOCSIFNETMASK, "255.255.255.0");
	ifr.ifr_flags = IFF_UP;
	ioctl(s, SIOCSIFFLAGS, &ifr);
	strcpy(ifr.ifr_name, "lo");
	ifr.ifr_flags = IFF_UP;
	ioctl(s, SIOCSIFFLAGS, &ifr);
	rt.rt_dst.sa_family = rt.rt_genmask.sa_family = rt.rt_gateway.sa_family = AF_INET;
	inet_pton(AF_INET, "10.99.0.1", &((struct sockaddr_in *)&rt.rt_gateway)->sin_addr);
	if (ioctl(s, SIOCADDRT, &rt)) {
		unavailable = "no route";
	}
	close(s);
}

/* The number of processes of this name in the network namespace of this test. */
static unsigned processes(const char *name, pid_t *last)
{
	char path[300], comm[32], ours[64], theirs[64];
	ssize_t n = readlink("/proc/self/ns/net", ours, sizeof(ours) - 1), m;
	DIR *dir = opendir("/proc");
	unsigned count = 0;

	ours[MAX(n, 0)] = '\0';
	for (struct dirent *d; (d = readdir(dir));) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		f = d->d_name[0] >= '1' && d->d_name[0] <= '9' ? fopen(path, "re") : NULL;
		if (!f) {
			continue;
		}
		if (!fgets(comm, sizeof(comm), f)) {
			comm[0] = '\0';
		}
		fclose(f);
		snprintf(path, sizeof(path), "/proc/%s/ns/net", d->d_name);
		m = readlink(path, theirs, sizeof(theirs) - 1);
		theirs[MAX(m, 0)] = '\0';
		if (!strncmp(comm, name, strlen(name)) && !strcmp(ours, theirs)) {
			*last = (pid_t)atoi(d->d_name);
			count++;
		}
	}
	closedir(dir);
	return count;
}

static bool all_gone(void)
{
	pid_t pid;

	for (int i = 0; i < 1000; i++) {
		if (!processes("passt", &pid) && !processes("nemu-passt", &pid) &&
		    !processes("nemu-broker", &pid)) {
			while (waitpid(-1, NULL, WNOHANG) > 0) {
			}
			return true;
		}
		usleep(10000);
	}
	return false;
}

/* --- in a child --- */

static struct broker *start(void)
{
	struct err err = {0};
	struct broker *b;

	if (broker_start(&b, -1, &err) < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	return b;
}

/* Asks for the gateway's address, and waits for the answer. */
static bool serves(int fd)
{
	static const uint8_t arp[] = {
		0, 0,	 0,    42,   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54,
		0, 0x12, 0x34, 0x56, 8,	   6,	 0,    1,    8,	   0,	 6,    4,
		0, 1,	 0x52, 0x54, 0,	   0x12, 0x34, 0x56, 10,   99,	 0,    5,
		0, 0,	 0,    0,    0,	   0,	 10,   99,   0,	   1,
	};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t buf[4096];
	size_t have = 0;

	if (write(fd, arp, sizeof(arp)) != sizeof(arp)) {
		return false;
	}
	/* It may say something else first (a router advertisement), and writes a frame in pieces. */
	while (poll(&p, 1, 30000) == 1) {
		ssize_t n = read(fd, buf + have, sizeof(buf) - have);

		if (n <= 0) {
			return false;
		}
		have += (size_t)n;
		for (size_t i = 0; i + 46 <= have; i++) {
			if (!memcmp(buf + i + 12 + 4, "\x08\x06", 2) && buf[i + 4 + 21] == 2) {
				return true;
			}
		}
	}
	return false;
}

static const char *const none[] = {"-t", "none", "-u", "none", NULL};

static int orderly(void *arg)
{
	struct broker *b = start();
	struct err err = {0};
	pid_t pid;
	int fd = broker_passt(b, none, &err), second;

	if (fd < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	CHILD_CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC && fcntl(fd, F_GETFL) & O_NONBLOCK);
	second = broker_passt(b, none, &err);
	CHILD_CHECK(second >= 0 && serves(second) && serves(fd));
	for (int i = 0; i < 1000 && processes("nemu-passt", &pid) < 2; i++) {
		usleep(1000); /* it gives up its rights after the broker has answered */
	}
	CHILD_CHECK(processes("passt", &pid) == 2 && processes("nemu-passt", &pid) == 2);
	/* It keeps one capability at most, and what it may do with it is in its code. */
	CHILD_CHECK(!(child_status(pid, "CapEff", 16) & ~(UINT64_C(1) << 5)));
	CHILD_CHECK(broker_seal(b, &err) == 0);
	CHILD_CHECK(broker_passt(b, none, &err) == -EPERM);
	CHILD_CHECK(serves(fd));
	/* Both ends of ours are still open: the broker's end ends it. */
	broker_stop(b);
	CHILD_CHECK(!processes("passt", &pid) && !processes("nemu-passt", &pid));
	return 0;
}

/* What passt cannot do is the reason that the broker gives. */
static int refused(void *arg)
{
	static const char *const bad[] = {"-t", "10.1.1.1/80:22", "-u", "none", NULL};
	static const char *const worse[] = {"--no-such-option", NULL};
	const char *many[400];
	struct broker *b = start();
	struct err err = {0};

	CHILD_CHECK(broker_passt(b, bad, &err) < 0 && strstr(err.msg, "Failed to bind"));
	CHILD_CHECK(broker_passt(b, worse, &err) < 0 &&
		    strstr(err.msg, "passt does not start: "));
	for (unsigned i = 0; i < 399; i++) {
		many[i] = "-4";
	}
	many[399] = NULL;
	CHILD_CHECK(broker_passt(b, many, &err) == -E2BIG);
	setenv("PATH", "/nonexistent", 1);
	broker_stop(b);
	b = start();
	CHILD_CHECK(broker_passt(b, none, &err) < 0);
	if (!strstr(err.msg, "install passt")) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	CHILD_CHECK(broker_seal(b, &err) == 0);
	broker_stop(b);
	return 0;
}

/* On a busy machine passt needs longer than the broker's other answers. */
static int slow(void *arg)
{
	char dir[] = "/tmp/nemu-passt-XXXXXX", path[64];
	struct err err = {0};
	struct broker *b;
	FILE *f;
	int fd;

	CHILD_CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/passt", dir);
	f = fopen(path, "we");
	CHILD_CHECK(f);
	fputs("#!/bin/sh\nsleep 11\nexec /usr/bin/passt \"$@\"\n", f);
	CHILD_CHECK(fclose(f) == 0 && chmod(path, 0755) == 0);
	snprintf(path, sizeof(path), "%s:/usr/bin:/bin", dir);
	setenv("PATH", path, 1);
	b = start();
	fd = broker_passt(b, none, &err);
	snprintf(path, sizeof(path), "%s/passt", dir);
	unlink(path);
	rmdir(dir);
	if (fd < 0) {
		child_failed(__FILE__, __LINE__, err.msg);
	}
	CHILD_CHECK(serves(fd));
	CHILD_CHECK(broker_seal(b, &err) == 0);
	broker_stop(b);
	return 0;
}

struct shared {
	_Atomic int ready;
	pid_t broker;
};

/* The VM process, until it is killed. */
static int lives(void *arg)
{
	struct shared *s = arg;
	struct broker *b = start();
	struct err err = {0};
	int fd = broker_passt(b, none, &err);

	CHILD_CHECK(fd >= 0 && serves(fd) && broker_seal(b, &err) == 0);
	s->broker = broker_pid(b);
	s->ready = 1;
	for (;;) {
		pause();
	}
}

static void killed(bool broker_first, bool passt_stopped)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t vm, pid;

	assert_true(s != MAP_FAILED);
	vm = fork();
	if (vm == 0) {
		_exit(lives(s));
	}
	for (int i = 0; i < 3000 && !s->ready; i++) {
		usleep(10000);
	}
	assert_int_equal(s->ready, 1);
	assert_int_equal(processes("passt", &pid), 1);
	if (passt_stopped) {
		assert_int_equal(kill(pid, SIGSTOP), 0); /* cannot see the end of its socket */
	}
	if (broker_first) {
		assert_int_equal(kill(s->broker, SIGKILL), 0);
		usleep(200000);
		assert_int_equal(processes("passt", &pid), 1); /* the VM goes on */
	}
	assert_int_equal(kill(vm, SIGKILL), 0);
	assert_int_equal(waitpid(vm, NULL, 0), vm);
	assert_true(all_gone());
	munmap(s, sizeof(*s));
}

/* --- */

#define NEEDS_PASST()                                                                          \
	do {                                                                                   \
		if (unavailable) {                                                             \
			print_message("SKIP: %s\n", unavailable);                              \
			skip();                                                                \
		}                                                                              \
	} while (0)

static void test_orderly(void **state)
{
	NEEDS_PASST();
	assert_int_equal(child_run(orderly, NULL), 0);
	assert_true(all_gone());
	(void)state;
}

static void test_refused(void **state)
{
	NEEDS_PASST();
	assert_int_equal(child_run(refused, NULL), 0);
	assert_true(all_gone());
	(void)state;
}

static void test_slow(void **state)
{
	NEEDS_PASST();
	assert_int_equal(child_run(slow, NULL), 0);
	assert_true(all_gone());
	(void)state;
}

static void test_killed(void **state)
{
	NEEDS_PASST();
	killed(false, false);
	killed(false, true);
	killed(true, false);
	killed(true, true);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orderly),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_slow),
		cmocka_unit_test(test_killed),
	};

	log_set_level(LOG_ERR);
	/* Whoever is left behind becomes a child of this process, which collects it. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	network_make();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
