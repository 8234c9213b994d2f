/*
 * A generated table of system calls becomes a seccomp filter.
 *
 * libseccomp compiles the table to BPF once, in sandbox_new(); a thread then only hands the
 * program to the kernel, so starting one costs a single system call and no allocation. The
 * program is sorted as a binary tree. The kernel itself caches which calls are permitted
 * whatever their arguments are (since 5.11), so that reads and writes do not run the program at
 * all; ioctl does, about 20 comparisons.
 *
 * Calls with rules for their arguments, whatever the comments say:
 *   mmap, mprotect    never PROT_EXEC
 *   ioctl             only the requests of the table. The kernel takes the low 32 bits, so
 *                     only these are compared
 *   clone             only threads; libc falls back to it because
 *   clone3            answers ENOSYS: its flags are in memory, where a filter cannot look
 *   kill, tgkill      only this process
 *   prctl             only PR_SET_NAME
 *   seccomp           only to add a filter
 *   socket            (broker) only AF_UNIX
 *
 * Untrusted: nobody here; the tables are ours. Threads: filter_build() one at a time,
 * filter_load() any.
 *
 * What libc needs by itself, on every thread, with the reason:
 * #syscalls(main, vcpu, io, broker): futex -- locks, joins
 * #syscalls(main, vcpu, io, broker): mmap munmap mprotect brk -- malloc, thread stacks
 * #syscalls(main, vcpu, io, broker): mremap -- realloc of a large block
 * #syscalls(main, vcpu, io, broker): madvise -- a thread returns its stack; malloc trims
 * #syscalls(main, vcpu, io, broker): rt_sigreturn restart_syscall -- the kernel, for a signal
 * #syscalls(main, vcpu, io, broker): rt_sigprocmask -- abort, thread start and end
 * #syscalls(main, vcpu, io, broker): getpid gettid tgkill -- abort after a failed assertion
 * #syscalls(main, vcpu, io, broker): exit_group
 * #syscalls(main, vcpu, io): exit -- the end of a thread
 * #syscalls(main): clone clone3 set_robust_list rseq -- start of a thread, before it is narrowed
 * #syscalls(broker): clock_gettime write -- a log line, where there is no vDSO clock
 *
 * What the run-time libraries of the sanitizers need, in their builds alone:
 * #syscalls(sanitized): sigaltstack sched_yield getrandom nanosleep clock_nanosleep
 * #syscalls(sanitized): rt_sigaction sched_getaffinity prlimit64 getrusage readlink
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "sandbox/sandbox_int.h"

#define LOW_32 UINT64_C(0xffffffff)

/* One comparison of one argument; value_is_pid: with the process's own number. */
struct arg_rule {
	int nr;
	unsigned arg;
	uint64_t mask, value;
	bool value_is_pid;
};

static const struct arg_rule arg_rules[] = {
	{SCMP_SYS(mmap), 2, PROT_EXEC, 0, false},
	{SCMP_SYS(mprotect), 2, PROT_EXEC, 0, false},
	{SCMP_SYS(clone), 0, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND,
	 CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, false},
	{SCMP_SYS(kill), 0, LOW_32, 0, true},
	{SCMP_SYS(tgkill), 0, LOW_32, 0, true},
	{SCMP_SYS(prctl), 0, LOW_32, PR_SET_NAME, false},
	{SCMP_SYS(seccomp), 0, LOW_32, SECCOMP_SET_MODE_FILTER, false},
	{SCMP_SYS(socket), 0, LOW_32, AF_UNIX, false},
};

static const struct arg_rule *filter_arg_rule(int nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(arg_rules); i++) {
		if (arg_rules[i].nr == nr) {
			return &arg_rules[i];
		}
	}
	return NULL;
}

static int filter_add_masked(scmp_filter_ctx ctx, int nr, unsigned arg, uint64_t mask,
			     uint64_t value)
{
	const struct scmp_arg_cmp cmp = SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, mask, value);

	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, 1, &cmp);
}

static int filter_add_call(scmp_filter_ctx ctx, const struct sandbox_table *t, int nr)
{
	const struct arg_rule *rule;

	if (nr == SCMP_SYS(clone3)) {
		return seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(ENOSYS), nr, 0, NULL);
	}
	if (nr == SCMP_SYS(ioctl)) {
		for (size_t i = 0; i < t->nioctl; i++) {
			int r = filter_add_masked(ctx, nr, 1, LOW_32,
						  t->ioctl[i].request & LOW_32);

			/* Two names of one request. */
			if (r < 0 && r != -EEXIST) {
				return r;
			}
		}
		return 0;
	}
	rule = filter_arg_rule(nr);
	if (rule) {
		return filter_add_masked(ctx, nr, rule->arg, rule->mask,
					 rule->value_is_pid ? (uint64_t)getpid() :
							      rule->value);
	}
	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, 0, NULL);
}

static int filter_fill(scmp_filter_ctx ctx, const struct sandbox_table *t)
{
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	if (r < 0) {
		return r;
	}
	/* 2: a binary tree. A libseccomp older than 2.5 refuses that and makes a chain. */
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (size_t i = 0; i < t->ncall; i++) {
		if (t->call[i].nr < 0) {
			continue;
		}
		r = filter_add_call(ctx, t, t->call[i].nr);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* #syscalls(start): memfd_create fstat pread64 close */
static int filter_export(scmp_filter_ctx ctx, struct sock_fprog *out)
{
	struct stat st;
	int r, fd = memfd_create("seccomp", MFD_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}
	r = seccomp_export_bpf(ctx, fd);
	if (r < 0) {
		goto close_fd;
	}
	if (fstat(fd, &st) < 0) {
		r = -errno;
		goto close_fd;
	}
	if (st.st_size <= 0 || st.st_size > BPF_MAXINSNS * (off_t)sizeof(struct sock_filter)) {
		r = -E2BIG;
		goto close_fd;
	}
	out->filter = malloc((size_t)st.st_size);
	if (!out->filter) {
		r = -ENOMEM;
		goto close_fd;
	}
	if (pread(fd, out->filter, (size_t)st.st_size, 0) != st.st_size) {
		filter_fini(out);
		r = -EIO;
		goto close_fd;
	}
	out->len = (unsigned short)((size_t)st.st_size / sizeof(struct sock_filter));
	r = 0;
close_fd:
	close(fd);
	return r;
}

int filter_build(struct sock_fprog *out, unsigned table, struct err *err)
{
	const struct sandbox_table *t = &sandbox_tables[table];
	scmp_filter_ctx ctx = seccomp_init(sandbox_forbidden_action());
	int r;

	*out = (struct sock_fprog){0};
	if (!ctx) {
		return err_set(err, ENOMEM, "sandbox: no memory for the %s filter", t->name);
	}
	r = filter_fill(ctx, t);
	if (r == 0) {
		r = filter_export(ctx, out);
	}
	seccomp_release(ctx);
	if (r < 0) {
		return err_set(err, -r, "sandbox: the %s filter cannot be compiled: %s", t->name,
			       strerror(-r));
	}
	return 0;
}

void filter_fini(struct sock_fprog *f)
{
	free(f->filter);
	*f = (struct sock_fprog){0};
}

/* Kernels before 5.16 turn speculative store bypass off for a thread with a filter, which
 * would cost a write to SPEC_CTRL at every entry to the guest; the threads run no code but
 * ours, so that protects nobody.
 * #syscalls(main): seccomp -- a thread that was started after isolation narrows itself */
int filter_load(const struct sock_fprog *f)
{
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, f) !=
	    0) {
		return -errno;
	}
	return 0;
}
