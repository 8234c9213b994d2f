/*
 * A filter that gen_filters.c has compiled from a generated table of system calls: on a thread
 * with a single system call.
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
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/sandbox_int.h"

int filter_build(struct sock_fprog *out, unsigned table, struct err *err)
{
	const struct sandbox_filter *f = &sandbox_filters[table];

	*out = (struct sock_fprog){.filter = malloc(f->len * sizeof(f->code[0]))};
	if (!out->filter) {
		return err_set(err, ENOMEM, "sandbox: no memory for the %s filter",
			       sandbox_tables[table].name);
	}
	out->len = (unsigned short)f->len;
	for (size_t i = 0; i < f->len; i++) {
		out->filter[i] = f->code[i];
		if (f->code[i].k == SANDBOX_OWN_PID) {
			out->filter[i].k = (uint32_t)getpid();
		}
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
