"""tools/gen-syscalls: what it collects, and what it refuses."""
import pathlib
import re
import subprocess

import pytest

TOOL = pathlib.Path(__file__).parents[3] / "tools" / "gen-syscalls"
BASE = """/*
 * #syscalls: futex
 * #syscalls(broker): openat2 -- on request
 */
"""


def run(tmp_path, text, *args, base=BASE):
    src = tmp_path / "src"
    (src / "sub").mkdir(parents=True, exist_ok=True)
    (src / "base.c").write_text(base)
    (src / "sub" / "file.c").write_text(text)
    out = tmp_path / "out.c"
    done = subprocess.run([TOOL, "--out", out, "--depfile", tmp_path / "out.d", *args, src],
                          capture_output=True, text=True, check=False)
    return done, out.read_text() if out.exists() else ""


def table(c_text, kind, what="syscalls"):
    body = re.search(rf"{kind}_{what}\[\] = {{(.*?)}};", c_text, re.S)
    return re.findall(r'{"(\w+)"', body.group(1)) if body else []


def accepted(tmp_path, text, *args):
    done, c_text = run(tmp_path, text, *args)
    assert done.returncode == 0, done.stderr
    return c_text


def refused(tmp_path, text, message, base=BASE):
    done, c_text = run(tmp_path, text, base=base)
    assert done.returncode != 0 and c_text == ""
    assert message in done.stderr
    return done.stderr


@pytest.mark.parametrize("line", [
    "/* #syscalls: read write */",
    " * #syscalls: read write",
    "// #syscalls: read, write.",
    "/* Does a thing. #syscalls: read write */",
    "\tfoo(); /* #syscalls: read write -- a remark */",
    "/* #syscalls: read write (the eventfd) */",
    "/* #syscalls(main, vcpu, io): read write */",
    "/* #syscalls(main vcpu io): read write */",
])
def test_forms(tmp_path, line):
    c_text = accepted(tmp_path, line + "\n")
    for kind in ("main", "vcpu", "io"):
        assert table(c_text, kind) == ["futex", "read", "write"]
    assert table(c_text, "broker") == ["openat2"]


def test_kinds_and_their_union(tmp_path):
    c_text = accepted(tmp_path, "/* #syscalls(vcpu): read */\n/* #syscalls(io): write */\n"
                                "/* #syscalls(main): accept4 */\n")
    assert table(c_text, "vcpu") == ["futex", "read"]
    assert table(c_text, "io") == ["futex", "write"]
    # A thread inherits main's filter, so main's table holds everything.
    assert table(c_text, "main") == ["accept4", "futex", "read", "write"]


def test_ioctls(tmp_path):
    c_text = accepted(tmp_path, "/* #ioctls(vcpu): KVM_RUN */\n/* #ioctls(main): KVM_IRQFD */\n")
    assert table(c_text, "vcpu") == ["futex", "ioctl"]
    assert table(c_text, "vcpu", "ioctls") == ["KVM_RUN"]
    assert table(c_text, "main", "ioctls") == ["KVM_IRQFD", "KVM_RUN"]
    assert table(c_text, "io") == ["futex"] and table(c_text, "io", "ioctls") == []


def test_start_is_documentation(tmp_path):
    c_text = accepted(tmp_path, "/* #syscalls(start): openat socket */\n")
    assert "openat)" not in c_text and "socket" not in c_text


def test_sanitized(tmp_path):
    line = "/* #syscalls(sanitized): sigaltstack */\n"
    assert "sigaltstack" not in accepted(tmp_path, line)
    c_text = accepted(tmp_path, line, "--sanitized")
    for kind in ("main", "vcpu", "io", "broker"):
        assert "sigaltstack" in table(c_text, kind)


def test_prose_is_not_read(tmp_path):
    c_text = accepted(tmp_path, "/* the `#syscalls` comments, also `#syscalls: bogus` and "
                                "\"#syscalls: openat\" */\n")
    assert table(c_text, "main") == ["futex"]


def test_each_call_once_with_its_place(tmp_path):
    c_text = accepted(tmp_path, "\n/* #syscalls: read */\n/* #syscalls: read */\n")
    assert table(c_text, "main").count("read") == 1
    assert "/* sub/file.c:2 */" in c_text


@pytest.mark.parametrize("line,message", [
    ("/* #syscalls read */", "needs the form"),
    ("/* #syscalls(main) read */", "needs the form"),
    ("/* #syscalls(cpu): read */", "no thread kind 'cpu'"),
    ("/* #syscalls(main:io): read */", "no thread kind 'main:io'"),
    ("/* #syscalls: */", "names nothing"),
    ("/* #syscalls: read and write! */", "'write!' is not the name of a system call"),
    ("/* #syscalls: KVM_RUN */", "'KVM_RUN' is not the name of a system call"),
    ("/* #ioctls: kvm_run */", "'kvm_run' is not the name of an ioctl request"),
    ("/* #syscalls: openat */", "openat is for no thread of the VM process"),
    ("/* #syscalls(io): socket */", "socket is for no thread of the VM process"),
    ("/* #syscalls(vcpu): execve */", "execve is for no thread of the VM process"),
    ("/* #syscalls(main): ptrace */", "ptrace is for no thread of the VM process"),
    ("/* #syscalls(broker): execve */", "execve is for nobody"),
    ("/* #syscalls(sanitized): ptrace */", "ptrace is for nobody"),
    ("/* #syscalls(main): ioctl */", "no '#ioctls' comment"),
])
def test_refused(tmp_path, line, message):
    assert "sub/file.c:1: " in refused(tmp_path, line + "\n", message)


def test_a_kind_without_calls_fails_the_build(tmp_path):
    refused(tmp_path, "", "no '#syscalls' comment for broker", base="/* #syscalls: futex */\n")
    refused(tmp_path, "", "no '#syscalls' comment for vcpu",
            base="/* #syscalls(main, io, broker): futex */\n")
    refused(tmp_path, "", "no '#syscalls' comment for main", base="")


def test_limit_is_reported(tmp_path):
    done, _ = run(tmp_path, "/* #syscalls: read write close */\n", "--limit", "3")
    assert done.returncode == 0
    assert "the VM process has 4 system calls; the aim is at most 3" in done.stderr
    # clone3 is answered with ENOSYS and does not count.
    done, _ = run(tmp_path, "/* #syscalls: read write close clone3 */\n", "--limit", "4")
    assert done.stderr == ""


def test_depfile_names_files_and_folders(tmp_path):
    accepted(tmp_path, "")
    dep = (tmp_path / "out.d").read_text()
    for name in ("src/base.c", "src/sub/file.c", "src/sub", "src"):
        assert f"{tmp_path}/{name}" in dep


def test_list(tmp_path):
    run(tmp_path, "/* #ioctls(vcpu): KVM_RUN */\n")
    done = subprocess.run([TOOL, "--list", tmp_path / "src"], capture_output=True, text=True,
                          check=True)
    assert "vcpu ioctl KVM_RUN sub/file.c:1\n" in done.stdout
    assert "broker syscall openat2 base.c:3\n" in done.stdout


def test_our_own_tree():
    """The real tables: what must never be in them, and what must."""
    done = subprocess.run([TOOL, "--list", TOOL.parents[1] / "src"], capture_output=True,
                          text=True, check=True)
    calls = {}
    for line in done.stdout.splitlines():
        kind, what, name, _ = line.split()
        calls.setdefault((what, kind), set()).add(name)
    for kind in ("main", "vcpu", "io"):
        names = calls["syscall", kind]
        assert not names & {"open", "openat", "openat2", "socket", "execve", "ptrace", "fork"}
        assert {"futex", "exit_group", "rt_sigreturn"} <= names
        assert names <= calls["syscall", "main"]
    assert "openat2" in calls["syscall", "broker"]
    assert "clone" not in calls["syscall", "vcpu"] | calls["syscall", "io"]
