"""The isolation of the process as it runs: what its threads may not do, and what they need.

build-hooks/nemu attempts every forbidden call in each thread as soon as that thread is isolated
(src/sandbox/hooks_probe.c); build/nemu is looked at from outside, and a guest with disk, network
card, rng, console and iothread runs under strace.
"""
import base64
import os
import re
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vm import CONSOLE, INITRD, KERNEL, NEMU, ROOT, Qmp  # noqa: E402

HOOKS = os.path.join(ROOT, "build-hooks", "nemu")
# at least these, by the part of the name that says what is attempted
FORBIDDEN = {"open", "socket", "exec", "ptrace", "mmap", "mprotect", "clone"}
LIMIT = 60


def start(nemu, directory, *args, **env):
	path = os.path.join(str(directory), "qmp")
	process = subprocess.Popen(
		[nemu, "-nodefaults", "-display", "none", "-S", "-smp", "2", "-object", "iothread,id=io0",
		 "-qmp", f"unix:{path},server=on,wait=off", *map(str, args)],
		stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
		env={**os.environ, **env})
	try:
		end = time.monotonic() + LIMIT
		while not os.path.exists(path):
			assert process.poll() is None, process.stderr.read()
			assert time.monotonic() < end
			time.sleep(0.02)
		qmp = Qmp(path)
		assert len(qmp.cmd("query-cpus-fast")) == 2
		return process, qmp
	except BaseException:
		process.kill()
		process.communicate()
		raise


def threads(pid):
	"""{name: {field of /proc/PID/task/TID/status: value}}"""
	found = {}
	for tid in os.listdir(f"/proc/{pid}/task"):
		try:
			with open(f"/proc/{pid}/task/{tid}/status") as file:
				fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
		except (FileNotFoundError, ProcessLookupError):
			continue		# it has ended since
		found[f"{fields['Name']} {tid}"] = fields
	return found


def child(pid):
	with open(f"/proc/{pid}/task/{pid}/children") as file:
		return [int(word) for word in file.read().split()]


@pytest.mark.host
@pytest.mark.kvm
def test_every_forbidden_call_fails_in_every_thread(tmp_path):
	process, qmp = start(HOOKS, tmp_path, NEMU_SANDBOX_PROBE="1")
	try:
		qmp.cmd("quit")
		_, log = process.communicate(timeout=LIMIT)
	finally:
		process.kill()
	assert process.returncode == 0, log
	probes = re.findall(r"^nemu: sandbox: probe (\S+) (.+?): (.*)$", log, re.M)
	assert len(probes) == log.count(" probe "), log
	kinds = {}
	for kind, call, result in probes:
		assert result == "refused", (kind, call, result)
		kinds.setdefault(kind, []).append(call)
	assert {"main", "vcpu", "io"} <= set(kinds), kinds.keys()
	assert set(kinds["main"]) == set(kinds["vcpu"]) == set(kinds["io"])
	for kind in ("main", "io"):
		assert len(kinds[kind]) == len(set(kinds[kind])), kind
	assert len(kinds["vcpu"]) == 2 * len(set(kinds["vcpu"]))	# both of them
	for word in FORBIDDEN:
		assert any(word in call for call in kinds["vcpu"]), (word, kinds["vcpu"])


@pytest.mark.host
def test_released_program_attempts_nothing():
	with open(NEMU, "rb") as file:
		data = file.read()
	assert b"NEMU_SANDBOX_PROBE" not in data and b"CARRIED OUT" not in data


@pytest.mark.host
@pytest.mark.kvm
def test_as_seen_from_outside(tmp_path):
	process, qmp = start(NEMU, tmp_path)
	try:
		broker = child(process.pid)
		assert len(broker) == 1
		seen = threads(process.pid)
		assert len(seen) >= 4, seen.keys()		# main, two vCPUs, an iothread
		for name, status in {**seen, **threads(broker[0])}.items():
			assert status["Seccomp"] == "2", name
			assert status["NoNewPrivs"] == "1", name
		for name, status in seen.items():
			for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
				assert int(status[field], 16) == 0, (name, field)
		filters = {name: int(status["Seccomp_filters"]) for name, status in seen.items()}
		main = next(n for name, n in filters.items() if name.endswith(f" {process.pid}"))
		assert all(n > main for name, n in filters.items()
			   if not name.endswith(f" {process.pid}")), filters	# narrower than main
		# nothing of the file system is open for writing but what was named
		for fd in os.listdir(f"/proc/{process.pid}/fd"):
			target = os.readlink(f"/proc/{process.pid}/fd/{fd}")
			assert target.startswith(("/dev/", "socket:", "pipe:", "anon_inode:", "/memfd:")), target
		qmp.cmd("quit")
		_, log = process.communicate(timeout=LIMIT)
		assert process.returncode == 0 and log == ""
	finally:
		process.kill()
		process.communicate()
	assert not os.path.exists(f"/proc/{broker[0]}")


@pytest.mark.host
@pytest.mark.kvm
@pytest.mark.parametrize("more, brokers", [([], 0), (["-pidfile", "pid"], 1), (["-qmp", "unix:q,server=on,wait=off"], 1),
					   (["-chardev", "null,id=c"], 1)])
def test_broker_only_if_it_can_be_asked(tmp_path, more, brokers):
	process = subprocess.Popen([NEMU, "-S", "-nodefaults", "-serial", "none", *more], cwd=tmp_path,
				   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
	try:
		end = time.monotonic() + LIMIT
		while not any("vcpu0" in name for name in threads(process.pid)):
			assert process.poll() is None and time.monotonic() < end
			time.sleep(0.02)
		assert len(child(process.pid)) == brokers
		process.send_signal(signal.SIGTERM)
		_, log = process.communicate(timeout=LIMIT)
		assert process.returncode == 0 and log == ""
	finally:
		process.kill()
		process.communicate()
	assert not os.listdir(tmp_path)


@pytest.mark.host
@pytest.mark.kvm
def test_broker_ends_with_the_program(tmp_path):
	process, _ = start(NEMU, tmp_path)
	broker = child(process.pid)[0]
	process.send_signal(signal.SIGKILL)
	process.communicate()
	end = time.monotonic() + 10
	while os.path.exists(f"/proc/{broker}"):
		assert time.monotonic() < end
		time.sleep(0.02)
	assert not os.listdir(tmp_path)


def test_a_guest_calls_only_what_is_listed(tmp_path):
	"""strace sees every call; one that no `#syscalls` comment names would end the thread."""
	disk = tmp_path / "disk"
	disk.write_bytes(bytes(16 << 20))
	script = "set -e; dd if=/dev/vda of=/tmp/x bs=64k count=16 iflag=direct; " \
		"dd if=/tmp/x of=/dev/vda bs=64k oflag=direct conv=fsync; blkdiscard /dev/vda; " \
		"head -c 64 /dev/hwrng > /tmp/r; ip link set eth0 up; ping -c 1 -W 1 10.1.2.3 || true; " \
		"echo hello > /dev/hvc0"
	text = base64.b64encode(script.encode()).decode()
	argv = [sys.executable, os.path.join(ROOT, "tools", "check-syscalls"), "--", NEMU, "-nodefaults",
		"-display", "none", "-no-reboot", "-smp", "2", "-m", "256M", "-kernel", KERNEL, "-initrd", INITRD,
		"-append", f"console={CONSOLE} quiet nemu.run={text}", "-object", "iothread,id=io0",
		"-drive", f"if=none,id=d0,format=raw,discard=unmap,file={disk}",
		"-device", "virtio-blk-pci,drive=d0,iothread=io0",
		"-netdev", "tap,id=n0,ifname=nemutest2,script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0", "-device", "virtio-rng-pci",
		"-chardev", f"file,id=c0,path={tmp_path}/hvc0", "-device", "virtio-serial-pci",
		"-device", "virtconsole,chardev=c0", "-serial", f"file:{tmp_path}/serial",
		"-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off"]
	done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
	serial = (tmp_path / "serial").read_text(errors="replace")
	assert "NEMU-TEST-EXIT=0" in serial, (serial[-3000:], done.stdout, done.stderr)
	assert done.returncode == 0, (done.stdout, done.stderr)
	assert "hello" in (tmp_path / "hvc0").read_text(errors="replace")
