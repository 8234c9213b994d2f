"""tools/check-syscalls on traces as strace -f writes them."""
import pathlib
import subprocess

TOOL = pathlib.Path(__file__).parents[3] / "tools" / "check-syscalls"
LISTS = """/*
 * #syscalls: futex
 * #syscalls(main): clone seccomp set_robust_list wait4
 * #syscalls(io): read
 * #syscalls(broker): openat2
 * #ioctls(vcpu): KVM_RUN
 */
"""
LOAD = "seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, {len=67, filter=0x5}) = 0"

# 10 is main, 11 the broker, 12 a vCPU from before isolation, 13 an iothread from after it. What
# comes before a filter is not counted, nor is the question whether the kernel has seccomp.
GOOD = f"""
10 openat(AT_FDCWD, "/dev/kvm", O_RDWR) = 3
10 seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, NULL) = -1 EFAULT (Bad address)
10 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD) = 11
11 prctl(PR_SET_NAME, "nemu-broker") = 0
11 openat(AT_FDCWD, "/dev/null", O_RDWR) = 4
11 {LOAD}
11 openat2(AT_FDCWD, "/a", {{flags=O_RDONLY, resolve=RESOLVE_NO_SYMLINKS}}, 24) = 5
10 clone3({{flags=CLONE_VM|CLONE_THREAD, exit_signal=0}} <unfinished ...>
12 set_robust_list(0x7f, 24) = 0
10 <... clone3 resumed> => {{parent_tid=[12]}}, 88) = 12
12 {LOAD}
12 ioctl(7, KVM_RUN, 0) = 0
10 {LOAD}
10 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD) = 13
13 set_robust_list(0x7f, 24 <unfinished ...>
10 futex(0x1, FUTEX_WAIT, 0, NULL <unfinished ...>
13 <... set_robust_list resumed>) = 0
13 {LOAD}
13 read(5, "x", 1) = 1
10 <... futex resumed>) = 0
10 wait4(11, NULL, 0, NULL) = 11
10 +++ exited with 0 +++
"""


def check(tmp_path, trace, *args):
    src = tmp_path / "src"
    src.mkdir(exist_ok=True)
    (src / "lists.c").write_text(LISTS)
    (tmp_path / "trace").write_text(trace)
    done = subprocess.run([TOOL, "--src", src, "--trace", tmp_path / "trace", *args],
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_all_listed(tmp_path):
    assert check(tmp_path, GOOD) == (0, [], "")


def test_unused(tmp_path):
    status, out, _ = check(tmp_path, GOOD, "--unused")
    assert status == 0
    assert out == [f"{kind}: {name} is listed and was not called" for kind, name in (
        ("main", "ioctl"), ("main", "read"), ("vcpu", "futex"), ("io", "futex"),
        ("main", "KVM_RUN"))]


def test_refused_call(tmp_path):
    """-Dtest_hooks=true: the call fails, the thread goes on."""
    status, out, _ = check(tmp_path, GOOD + "13 openat(AT_FDCWD, \"x\", 0) = -1 EPERM (…)\n")
    assert (status, out) == (1, ["io: openat is not listed"])


def test_each_kind_has_its_own_list(tmp_path):
    status, out, _ = check(tmp_path, GOOD + "12 read(1, \"x\", 1) = -1 EPERM (…)\n"
                                            "13 wait4(11) = -1 EPERM (…)\n"
                                            "11 futex(0x1) = -1 EPERM (…)\n"
                                            "10 openat2(1) = -1 EPERM (…)\n")
    assert status == 1
    assert out == ["broker: futex is not listed", "io: wait4 is not listed",
                   "main: openat2 is not listed", "vcpu: read is not listed"]


def test_death(tmp_path):
    trace = GOOD + "13 execve(\"/bin/sh\", [], NULL) = ?\n13 +++ killed by SIGSYS +++\n"
    assert check(tmp_path, trace)[:2] == (1, ["io: execve is not listed, the thread died of it"])


def test_ioctl_requests(tmp_path):
    status, out, _ = check(tmp_path, GOOD + "12 ioctl(7, KVM_SET_REGS or KVM_X, {}) = -1 EPERM\n"
                                            "12 ioctl(7, TIOCSTI, 0x1) = -1 EPERM\n")
    assert (status, out) == (1, ["vcpu: KVM_SET_REGS or KVM_X is not listed",
                                 "vcpu: TIOCSTI is not listed"])


def test_without_a_sandbox(tmp_path):
    status, _, stderr = check(tmp_path, "10 read(0, \"\", 1) = 0\n")
    assert status == 1 and "no thread loaded a filter" in stderr
