/*
 * The stages of the VM process: see sandbox.h for their order.
 *
 * Threads: sandbox_early(), sandbox_new() and sandbox_isolate() on the main thread;
 * sandbox_thread_enter() on the thread it narrows. `isolated` is written once by main; only main
 * starts threads, so a thread that was started before isolation has always entered by the time
 * it is set (main waits for that), and one that was started afterwards always sees it.
 *
 * Untrusted: whoever started nemu may have left descriptors open; the guest does not run yet.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/random.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/util.h"
#include "sandbox/sandbox_int.h"

#define KEEP_MAX      253 /* as many as one message can pass */
#define NOFILE_MAX    65536
#define ENTER_WAIT_NS UINT64_C(5000000000)

struct sandbox {
	bool enabled;
	_Atomic bool isolated;
	struct sock_fprog filter[SANDBOX_THREADS];
};

/* --- stage 2 --- */

/* Opens return the lowest free number, so going upwards fills the gaps.
 * #syscalls(start): fcntl openat */
static int early_std_fds(struct err *err)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0) {
			continue;
		}
		if (open("/dev/null", O_RDWR | O_NOCTTY) != fd) {
			return err_set(err, errno,
				       "descriptor %d is closed and /dev/null cannot be opened "
				       "in its place: %s; start nemu with descriptors 0 to 2 open",
				       fd, strerror(errno));
		}
	}
	return 0;
}

/* #syscalls(start): fcntl */
static int early_close_others(const int *keep, size_t n, struct err *err)
{
	int sorted[KEEP_MAX], r;

	if (n > KEEP_MAX) {
		return err_set(err, E2BIG, "%zu descriptors are too many, at most %d can be passed",
			       n, KEEP_MAX);
	}
	for (size_t i = 0; i < n; i++) {
		if (fcntl(keep[i], F_GETFD) < 0) {
			return err_set(err, EBADF,
				       "descriptor %d, which the command line names, is not open: "
				       "it has to be inherited from the process that starts nemu",
				       keep[i]);
		}
		sorted[i] = keep[i];
	}
	r = confine_close_fds(sorted, n);
	if (r < 0) {
		return err_set(err, -r, "inherited descriptors cannot be closed: %s; Linux 5.10 "
			       "or later is needed", strerror(-r));
	}
	return 0;
}

/* The default soft limit is there for programs that use select(2); each virtqueue needs two
 * descriptors. A failure shows where it matters, at the descriptor that cannot be had.
 * #syscalls(start): prlimit64 */
static void early_limits(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < NOFILE_MAX) {
		lim.rlim_cur = MIN(lim.rlim_max, NOFILE_MAX);
		(void)setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/* #syscalls(start): umask */
int sandbox_early(const int *keep, size_t n, struct err *err)
{
	int r = confine_no_new_privs();

	if (r < 0) {
		return err_set(err, -r, "no_new_privs cannot be set: %s", strerror(-r));
	}
	umask(077);
	r = early_std_fds(err);
	if (r < 0) {
		return r;
	}
	r = early_close_others(keep, n, err);
	if (r < 0) {
		return r;
	}
	early_limits();
	/* When a second arena shrinks, malloc reads /proc/sys/vm/overcommit_memory; threads
	 * that must not open files therefore share the first. The data path does not
	 * allocate, so nobody waits for it. */
	(void)mallopt(M_ARENA_MAX, 1);
	return 0;
}

/* --- stage 4 --- */

void sandbox_disabled_warning(void)
{
	log_err("sandbox", "OFF (-sandbox off): a guest that breaks out has every right of the "
		"user who started this process. Not for production.");
}

int sandbox_new(struct sandbox **out, bool enabled, struct err *err)
{
	struct sandbox *sb = calloc(1, sizeof(*sb));

	if (!sb) {
		return err_set(err, ENOMEM, "sandbox: no memory");
	}
	sb->enabled = enabled;
	if (!enabled) {
		sandbox_disabled_warning();
		*out = sb;
		return 0;
	}
	for (unsigned i = 0; i < SANDBOX_THREADS; i++) {
		int r = filter_build(&sb->filter[i], i, err);

		if (r < 0) {
			sandbox_free(sb);
			return r;
		}
	}
	*out = sb;
	return 0;
}

void sandbox_free(struct sandbox *sb)
{
	if (!sb) {
		return;
	}
	for (unsigned i = 0; i < SANDBOX_THREADS; i++) {
		filter_fini(&sb->filter[i]);
	}
	free(sb);
}

/* --- stage 5 --- */

/* Threads that the kernel made in this process run no code of it and take no part. */
static bool task_is_kernel_worker(const char *name)
{
	static const char *const prefix[] = {"iou-wrk-", "iou-sqp-", "vhost-", "kvm-nx-lpage"};

	for (size_t i = 0; i < ARRAY_SIZE(prefix); i++) {
		if (strncmp(name, prefix[i], strlen(prefix[i])) == 0) {
			return true;
		}
	}
	return false;
}

/* Has this thread loaded a filter? A thread that has just ended has none to load. */
static bool task_entered(const char *tid, char name[16])
{
	char path[64], line[256];
	bool entered = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", tid);
	f = fopen(path, "re");
	if (!f) {
		return true;
	}
	name[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Name: %15s", name) == 1) {
			entered = task_is_kernel_worker(name);
		} else if (strncmp(line, "Seccomp:\t2", 10) == 0) {
			entered = true;
		}
	}
	fclose(f);
	return entered;
}

/* All threads but this one have entered: 0. -EAGAIN, with the name of one that has not. */
static int isolate_check_threads(char name[16])
{
	DIR *dir = opendir("/proc/self/task");
	char self[32];
	int r = 0;

	if (!dir) {
		return -errno;
	}
	snprintf(self, sizeof(self), "%d", (int)gettid());
	for (struct dirent *d; r == 0 && (d = readdir(dir));) {
		if (d->d_name[0] != '.' && strcmp(d->d_name, self) != 0 &&
		    !task_entered(d->d_name, name)) {
			r = -EAGAIN;
		}
	}
	closedir(dir);
	return r;
}

/* #syscalls(start): openat getdents64 read fstat close clock_nanosleep gettid */
static int isolate_wait_threads(struct err *err)
{
	uint64_t until = now_ns() + ENTER_WAIT_NS;
	char name[16] = "";
	int r;

	if (__libc_single_threaded) {
		return 0;
	}
	while ((r = isolate_check_threads(name)) == -EAGAIN && now_ns() < until) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	if (r == -EAGAIN) {
		return err_set(err, EBUSY, "sandbox: thread '%s' has not entered the sandbox; this "
			       "is a fault in nemu, -sandbox off runs without", name);
	}
	if (r < 0) {
		return err_set(err, -r, "sandbox: /proc/self/task cannot be read: %s; mount /proc, "
			       "or -sandbox off runs without", strerror(-r));
	}
	return 0;
}

static void *settle_thread(void *arg)
{
	return arg;
}

/* What libraries do at first use they do now. #syscalls(start): getrandom openat
 * read close rt_sigaction */
static void isolate_settle(void)
{
	pthread_attr_t small;
	pthread_t thread;
	size_t seed = 0;

	/* jansson would open /dev/urandom; without a seed from here it still does, now */
	(void)!getrandom(&seed, sizeof(seed), GRND_NONBLOCK);
	json_object_seed(seed);
	/* The first thread makes libc install its signal handler for setuid. Without memory for
	 * a thread the machine's own will fail, too, and say so. Its stack is
	 * used again by the next. */
	if (!__libc_single_threaded || pthread_attr_init(&small)) {
		return;
	}
	if (!pthread_attr_setstacksize(&small, THREAD_STACK) &&
	    !pthread_create(&thread, &small, settle_thread, NULL)) {
		pthread_join(thread, NULL);
	}
	pthread_attr_destroy(&small);
}

/* Everything but the filter. *landlocked: the kernel has Landlock. */
static int give_up(bool *landlocked)
{
	int r = confine_no_new_privs();

	if (r < 0) {
		return r;
	}
	r = landlock_enter(NULL, 0);
	*landlocked = r != -EOPNOTSUPP;
	if (r < 0 && r != -EOPNOTSUPP) {
		return r;
	}
	return confine_caps(0);
}

int sandbox_isolate(struct sandbox *sb, struct broker *broker, struct err *err)
{
	bool landlocked;
	int r;

	if (broker) {
		r = broker_seal(broker, err);
		if (r < 0) {
			return r;
		}
	}
	if (!sb->enabled) {
		return 0;
	}
	r = isolate_wait_threads(err);
	if (r < 0) {
		return r;
	}
	isolate_settle();
	r = give_up(&landlocked);
	if (r < 0) {
		return err_set(err, -r, "sandbox: privileges cannot be dropped: %s", strerror(-r));
	}
	if (!landlocked) {
		log_warn("sandbox", "this kernel has no Landlock; seccomp and the loss of all "
			 "capabilities stand alone");
	}
	atomic_store(&sb->isolated, true);
	r = filter_load(&sb->filter[SANDBOX_MAIN]);
	if (r < 0) {
		return err_set(err, r == -EINVAL ? ENOSYS : -r,
			       "sandbox: this kernel does not take a seccomp filter: %s; "
			       "-sandbox off runs without", strerror(-r));
	}
	sandbox_hook_narrowed(SANDBOX_MAIN);
	return 0;
}

/* --- every other thread --- */

int sandbox_thread_enter(struct sandbox *sb, enum sandbox_thread kind)
{
	int r;

	if (!sb->enabled) {
		return 0;
	}
	if (!atomic_load(&sb->isolated)) {
		bool landlocked;

		r = give_up(&landlocked);
		if (r < 0) {
			return r;
		}
	}
	r = filter_load(&sb->filter[kind]);
	if (r < 0) {
		return r;
	}
	sandbox_hook_narrowed(kind);
	return 0;
}

static void sandbox_enter_or_end(struct sandbox *sb, enum sandbox_thread kind)
{
	int r = sandbox_thread_enter(sb, kind);

	if (r < 0) {
		log_err("sandbox", "a %s thread cannot give up its rights: %s",
			sandbox_tables[kind].name, strerror(-r));
		_exit(1);
	}
}

void sandbox_vcpu_enter(void *sandbox)
{
	sandbox_enter_or_end(sandbox, SANDBOX_VCPU);
}

void sandbox_io_enter(void *sandbox)
{
	sandbox_enter_or_end(sandbox, SANDBOX_IO);
}
