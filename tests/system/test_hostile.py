"""The hostile guest on every device (tests/guest/hostile.c), with nemu built with ASAN and UBSAN.

The guest does what it can to registers and rings, from several processors at once, and then has to
find every device working after a reset. Meanwhile nemu answers QMP, keeps its memory and its open
files as they were, says little, and no sanitizer has anything to say."""
import collections
import os
import re
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from net import TapNet  # noqa: E402
from vm import NEMU, ROOT, Stream, Vm  # noqa: E402

ASAN = os.path.join(ROOT, "build-asan", "nemu")
GUEST = os.path.join(ROOT, "build", "tests", "guest", "hostile.bin")
SANITIZERS = {
	"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0:detect_stack_use_after_return=1:"
			"quarantine_size_mb=4:thread_local_quarantine_size_kb=64",
	"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
GROWTH = 16 << 20     # bytes of memory between the start of the storm and its end
LOG = 64 << 10        # bytes of messages
ANSWER = 30           # seconds that a QMP command may take, where everything is slow
LIMIT = 400
WATCH = """
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
print("ready", flush=True)
while True:
    frame, where = s.recvfrom(4096)
    if frame[14:19] == b"works":
        print("frame", where[0], flush=True)
"""


def memory(pid):
	with open(f"/proc/{pid}/status") as file:
		match = re.search(r"VmRSS:\s+(\d+) kB", file.read())
	return int(match.group(1)) << 10 if match else 0   # none: it is ending


def descriptors(pid):
	return len(os.listdir(f"/proc/{pid}/fd"))


def blank(path, size):
	with open(path, "wb") as file:
		file.truncate(size)
	return path


def devices(path):
	"""Every device that there is: on the root bus, and behind a port with a thread of its own."""
	return [
		"-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={GUEST}",
		"-drive", f"if=pflash,unit=1,format=raw,file={blank(path / 'vars', 0x20000)}",
		"-object", "iothread,id=io0",
		*(o for n in range(4) for o in ("-device", f"pcie-root-port,id=port{n},chassis={n},slot={n}")),
		"-drive", f"if=none,id=d0,format=raw,file={blank(path / 'disk0', 4 << 20)}",
		"-drive", f"if=none,id=d1,format=raw,file={blank(path / 'disk1', 4 << 20)}",
		"-device", "virtio-blk-pci,drive=d0",
		"-device", "virtio-blk-pci,drive=d1,bus=port0,iothread=io0",
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
		"-netdev", "tap,id=n1,ifname=tap1,script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0",
		"-device", "virtio-net-pci,netdev=n1,bus=port1,iothread=io0",
		"-object", "rng-random,id=r0,filename=/dev/urandom",
		"-device", "virtio-rng-pci,rng=r0",
		"-device", "virtio-rng-pci,rng=r0,bus=port2",
		"-chardev", f"file,id=c0,path={path / 'console0'}",
		"-chardev", f"file,id=c1,path={path / 'console1'}",
		"-chardev", f"socket,id=c2,path={path / 'unread'},server=on,wait=off",
		"-device", "virtio-serial-pci,id=s0,max_ports=2",
		"-device", "virtconsole,chardev=c0,bus=s0.0",
		"-device", "virtserialport,chardev=c2,bus=s0.0",
		"-device", "virtio-serial-pci,id=s1,bus=port3,max_ports=2",
		"-device", "virtconsole,chardev=c1,bus=s1.0",
	]


def quiet(log, seconds):
	"""Few messages, of each kind no more than its limit lets through."""
	assert len(log) < LOG, log[-3000:]
	kinds = collections.Counter(re.sub(r"\d+|0x[0-9a-f]+", "#", line) for line in log.splitlines())
	worst, count = max(kinds.items(), key=lambda kind: kind[1], default=("", 0))
	# 10 a minute for each place in the source; devices of one kind share it
	assert count <= 11 * (seconds / 60 + 1), (count, worst)


def storm(path, nemu, seed, rounds, cpus):
	net = TapNet("hostile", taps=2)
	watch = subprocess.Popen(["ip", "netns", "exec", net.name, sys.executable, "-c", WATCH],
				 stdout=subprocess.PIPE)
	began = time.monotonic()
	try:
		frames = Stream(watch.stdout.fileno())
		frames.expect("ready")
		with Vm("-machine", "virt", "-m", "64M", "-smp", cpus, "-no-reboot", *devices(path),
			"-fw_cfg", f"name=opt/test/seed,string={seed}",
			"-fw_cfg", f"name=opt/test/rounds,string={rounds}", "-S",
			netns=net.name, nemu=nemu) as vm:
			pid = vm.process.pid
			vm.qmp.cmd("cont")
			vm.serial.expect(rf"seed={seed} ", LIMIT)
			vm.serial.expect(r"STORM\n", LIMIT)
			assert vm.serial.text.count("works=") == 8, vm.serial.text[-2000:]
			files, before = descriptors(pid), memory(pid)
			alone = time.monotonic() - began
			after, slowest = before, 0
			while "PASS\n" not in vm.serial.text[vm.serial.seen:]:
				assert time.monotonic() - began < LIMIT, vm.serial.text[-1000:]
				if vm.process.poll() is not None or "FAIL" in vm.serial.text:
					break
				asked = time.monotonic()
				try:
					status = vm.qmp.cmd("query-status")["status"]
					open_now = descriptors(pid)
					after = max(after, memory(pid))
				except (EOFError, OSError):
					break          # its end, which is looked at below
				if status != "running":
					break
				assert open_now <= files, (open_now, files)
				slowest = max(slowest, time.monotonic() - asked)
				vm.serial.pump(0.5)
			code = vm.wait(60)
			vm.serial.pump(0)
			text, log = vm.serial.text, vm.errors()
		print(f"seed {seed}: {alone:.0f} s alone, {time.monotonic() - began:.0f} s, memory {before >> 10} KiB "
		      f"+ {(after - before) >> 10}, {files} descriptors, log {len(log)} bytes, "
		      f"slowest answer {slowest:.2f} s")
		assert "Sanitizer" not in log and "runtime error" not in log, log[-6000:]
		assert code == 0 and text.endswith("PASS\n"), (code, text[-1500:], log[-3000:])
		assert text.count("works=") == 16 and text.count("works flash") == 2
		assert after - before < GROWTH, (before, after)
		assert slowest < ANSWER
		quiet(log, time.monotonic() - began)
		for console in ("console0", "console1"):
			assert (path / console).read_bytes().count(b"the console works\n") == 2
		for tap in ("tap0", "tap1"):
			frames.expect(f"frame {tap}", 10)
	finally:
		watch.kill()
		watch.wait()
		net.close()


def test_hostile(tmp_path, monkeypatch):
	for name, options in SANITIZERS.items():
		monkeypatch.setenv(name, options)
	assert os.path.exists(ASAN), f"{ASAN} is missing: scripts/check asan builds it"
	storm(tmp_path, ASAN, seed=20240117, rounds=int(os.environ.get("NEMU_HOSTILE_ROUNDS", "60")),
	      cpus=3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 9))
def test_hostile_seeds(tmp_path, monkeypatch, seed):
	for name, options in SANITIZERS.items():
		monkeypatch.setenv(name, options)
	storm(tmp_path, ASAN if seed % 2 else NEMU, seed, 300, 1 + seed % 4)
