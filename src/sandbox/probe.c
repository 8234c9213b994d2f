/*
 * Calls that no thread of the VM process may make once it is narrowed: each is attempted in
 * earnest and reports whether it was carried out. For the unit tests and for builds with
 * -Dtest_hooks=true; a released program does not contain this file.
 *
 * Each is chosen so that it would succeed in a process with the rights of an ordinary user, or
 * fail for another reason than EPERM, so a refusal is the sandbox's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "sandbox/sandbox_int.h"

static int probe_fd(long fd)
{
	if (fd < 0) {
		return -errno;
	}
	syscall(SYS_close, fd);
	return 0;
}

static int probe_result(long r)
{
	return r < 0 ? -errno : 0;
}

static int probe_openat(void)
{
	return probe_fd(syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY));
}

static int probe_openat2(void)
{
	const uint64_t how[3] = {O_RDONLY};

	return probe_fd(syscall(SYS_openat2, AT_FDCWD, "/", how, sizeof(how)));
}

static int probe_socket_unix(void)
{
	return probe_fd(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
}

static int probe_socket_inet(void)
{
	return probe_fd(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
}

static int probe_execve(void)
{
	return probe_result(syscall(SYS_execve, "/nonexistent", NULL, NULL));
}

static int probe_execveat(void)
{
	return probe_result(syscall(SYS_execveat, AT_FDCWD, "/nonexistent", NULL, NULL, 0));
}

static int probe_ptrace(void)
{
	return probe_result(syscall(SYS_ptrace, PTRACE_SEIZE, 0x7fffffff, 0, 0));
}

static int probe_vm_writev(void)
{
	return probe_result(syscall(SYS_process_vm_writev, getpid(), NULL, 0, NULL, 0, 0));
}

static int probe_mmap_exec(void)
{
	long p = syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return probe_result(p);
}

static int probe_mprotect_exec(void)
{
	static char page[8192];
	char *aligned = (char *)align_up((uintptr_t)page, 4096);

	return probe_result(syscall(SYS_mprotect, aligned, 4096, PROT_READ | PROT_EXEC));
}

static int probe_clone_process(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0) {
		syscall(SYS_exit_group, 0);
	}
	return probe_result(pid);
}

/* Process creation whose flags a filter cannot see. It has to look as if the kernel did not
 * have it, so that libc uses clone: refused is ENOSYS here. */
static int probe_clone3(void)
{
	struct clone_args args = {.exit_signal = SIGCHLD};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0) {
		syscall(SYS_exit_group, 0);
	}
	return pid < 0 && errno == ENOSYS ? -EPERM : probe_result(pid);
}

static int probe_kill_other(void)
{
	return probe_result(syscall(SYS_kill, 0x7fffffff, 0));
}

static int probe_tgkill_other(void)
{
	return probe_result(syscall(SYS_tgkill, 0x7fffffff, 0x7fffffff, 0));
}

static int probe_prctl_dumpable(void)
{
	return probe_result(syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int probe_ioctl_unlisted(void)
{
	/* Writes into the terminal's input queue: what no program here has a use for. */
	return probe_result(syscall(SYS_ioctl, -1, TIOCSTI, ""));
}

static int probe_ioctl_high_bits(void)
{
	/* The kernel ignores the high half of a request, so the filter must, too. */
	return probe_result(syscall(SYS_ioctl, -1, TIOCSTI | (1UL << 32), ""));
}

static int probe_unlink(void)
{
	return probe_result(syscall(SYS_unlinkat, AT_FDCWD, "/nonexistent", 0));
}

static int probe_bpf(void)
{
	return probe_result(syscall(SYS_bpf, 0, NULL, 0));
}

static int probe_unshare(void)
{
	return probe_result(syscall(SYS_unshare, 0));
}

static int probe_mount(void)
{
	return probe_result(syscall(SYS_mount, "none", "/nonexistent", "tmpfs", 0, NULL));
}

static int probe_keyctl(void)
{
	return probe_result(syscall(SYS_keyctl, 0, -3, 0, 0, 0));
}

static int probe_setuid(void)
{
	return probe_result(syscall(SYS_setuid, getuid()));
}

const struct sandbox_probe sandbox_probes[] = {
	{"openat", probe_openat},
	{"openat2", probe_openat2, .broker_has = true},
	{"socket-unix", probe_socket_unix, .broker_has = true},
	{"socket-inet", probe_socket_inet},
	{"execve", probe_execve},
	{"execveat", probe_execveat},
	{"ptrace", probe_ptrace},
	{"process_vm_writev", probe_vm_writev},
	{"mmap-exec", probe_mmap_exec},
	{"mprotect-exec", probe_mprotect_exec},
	{"clone-process", probe_clone_process},
	{"clone3-process", probe_clone3},
	{"kill-other", probe_kill_other},
	{"tgkill-other", probe_tgkill_other},
	{"prctl-dumpable", probe_prctl_dumpable},
	{"ioctl-unlisted", probe_ioctl_unlisted},
	{"ioctl-high-bits", probe_ioctl_high_bits},
	{"unlinkat", probe_unlink, .broker_has = true},
	{"bpf", probe_bpf},
	{"unshare", probe_unshare},
	{"mount", probe_mount},
	{"keyctl", probe_keyctl},
	{"setuid", probe_setuid},
};
const size_t sandbox_nprobes = ARRAY_SIZE(sandbox_probes);
