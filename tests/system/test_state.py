"""A machine that is saved, ended, loaded in another process and continued.

tests/guest/state.c looks at itself: registers, FPU, MSRs, timer, clocks, disk, memory. Here is
what only the host can see: that the clocks stood still in between, and what is on the disk.
The same tests run on /dev/kvm of this machine if it has one, and in the lab.
"""
import os
import random
import struct
import subprocess
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUESTS = os.path.join(ROOT, "build", "tests", "guest")
TOOL = os.path.join(ROOT, "build", "tests", "system", "state_tool")
STEPS, SPINS, SECTOR = 40, 150, 512		# as in state.c
MAGIC = 0x4e454d5553544154
AWAY = 3.0					# seconds between saving and loading
LIMIT = 120


def kvm_usable():
	return os.access("/dev/kvm", os.R_OK | os.W_OK)


def tsc_can_be_set():
	"""kvm_pvm gives its guests the host's TSC, whatever is written."""
	return not os.path.exists("/sys/module/kvm_pvm")


class Machine:
	"""The options of one machine, its disk, and state_tool."""

	def __init__(self, path, cpus=1, mem="16M"):
		self.path = str(path)
		self.disk = os.path.join(self.path, "disk.img")
		self.state = os.path.join(self.path, "state")
		self.cpus, self.mem, self.runs = cpus, mem, 0
		with open(self.disk, "wb") as file:
			file.truncate(STEPS * SECTOR)

	def options(self, *more):
		self.runs += 1
		self.serial_path = os.path.join(self.path, f"serial{self.runs}")
		return ["--", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
			"-machine", "virt", "-m", self.mem, "-smp", str(self.cpus),
			"-bios", os.path.join(GUESTS, "state.bin"),
			"-serial", f"file:{self.serial_path}",
			"-drive", f"if=none,id=disk,format=raw,file={self.disk}",
			"-device", "virtio-blk-pci,drive=disk", *more]

	def tool(self, *what, more=()):
		options = self.options(*more)
		what = [self.serial_path if word == "SERIAL" else word for word in what]
		done = subprocess.run([TOOL, *what, *options], stdin=subprocess.DEVNULL,
				      capture_output=True, text=True, timeout=LIMIT)
		return done

	def serial(self):
		with open(self.serial_path) as file:
			return file.read()

	def save(self, *when):
		done = self.tool("save", self.state, *when)
		assert done.returncode == 0, done.stderr
		assert "FAIL" not in self.serial()

	def load(self):
		done = self.tool("load", self.state)
		assert done.returncode == 0, done.stderr
		return self.serial()

	def refused(self, more=(), state=None):
		"""The one sentence with which a load is refused."""
		done = self.tool("load", state or self.state, more=more)
		assert done.returncode == 1, done.stderr
		lines = done.stderr.strip().splitlines()
		lines = [line for line in lines if line.startswith("state_tool: ")]
		assert len(lines) == 1, done.stderr
		return lines[0]

	def records(self):
		with open(self.disk, "rb") as file:
			data = file.read()
		return [struct.unpack_from("<8Q", data, n * SECTOR) for n in range(STEPS)]


def check_disk(machine, away):
	"""Each step wrote its sector once, in order, and the clocks did not see the time away."""
	last, gaps = None, []
	for n, record in enumerate(machine.records()):
		magic, seq, counter, ticks, tsc, ns, khz, check = record
		assert (magic, seq, counter) == (MAGIC, n, (n + 1) * SPINS)
		assert check == sum(v * w for v, w in zip(record[:7], (1, 3, 5, 7, 11, 13, 17))) % 2**64
		if last:
			assert ticks > last[3], f"no tick in step {n}"
			assert tsc > last[4] and ns > last[5], f"time went back in step {n}"
			by_tsc = (tsc - last[4]) * 1000000 // khz
			gaps.append((ns - last[5], abs(by_tsc - (ns - last[5]))))
		last = record
	assert max(gap for gap, _ in gaps) < away * 1e9, "kvmclock went on while nothing ran"
	if tsc_can_be_set():
		assert max(off for _, off in gaps) < 1000000, "kvmclock and TSC do not agree"


def saved_and_loaded(tmp_path, when, cpus=1):
	machine = Machine(tmp_path, cpus)
	machine.save(*when)
	time.sleep(AWAY)
	text = machine.load()
	assert text.endswith("PASS\n") and "FAIL" not in text, text
	assert f"counter={STEPS * SPINS} " in text
	check_disk(machine, AWAY)
	return text


def bad_states(tmp_path):
	machine = Machine(tmp_path)
	machine.save("at", "half", "SERIAL")
	with open(machine.state, "rb") as file:
		good = file.read()
	bad = os.path.join(machine.path, "bad")
	seen = set()

	def refuse(data):
		with open(bad, "wb") as file:
			file.write(data)
		seen.add(machine.refused(state=bad))

	refuse(b"")
	for length in (1, 15, 16, 40, 1000, len(good) // 2, len(good) - 1):
		refuse(good[:length])
	refuse(good + b"\0")
	rng = random.Random(2)
	for _ in range(20):
		data = bytearray(good)
		data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
		refuse(bytes(data))
	assert len(seen) > 3		# not one sentence for everything

	# another machine
	machine.cpus = 2
	assert "CPUs" in machine.refused()
	machine.cpus, machine.mem = 1, "32M"
	assert "MiB" in machine.refused()
	machine.mem = "16M"
	assert "devices" in machine.refused(more=("-device", "virtio-rng-pci"))
	# and the right one is still fine
	assert machine.load().endswith("PASS\n")


def flipped_states(tmp_path, count):
	"""Changed bytes with a right checksum: refused with a sentence, or a machine that runs."""
	machine = Machine(tmp_path)
	machine.save("at", "half", "SERIAL")
	# the emulated processor of the lab hangs, with the host in it, in some impossible vCPU states
	run_ms = "0" if os.environ.get("NEMU_LAB") else "20"
	done = machine.tool("flip", machine.state, str(count), run_ms)
	assert done.returncode == 0, done.stderr[-2000:]
	words = dict(word.split("=") for word in done.stdout.splitlines()[-1].split()
		     if "=" in word)
	assert int(words["taken"]) + int(words["refused"]) == count
	assert int(words["refused"]) > count // 4


def needs_kvm():
	if not kvm_usable():
		pytest.skip("no /dev/kvm here: runs in the lab")


@pytest.mark.host
@pytest.mark.kvm
@pytest.mark.parametrize("when", [("at", "begin", "SERIAL"), ("at", "half", "SERIAL"),
				  ("after", "30"), ("after", "110")], ids=" ".join)
def test_saved_and_loaded_here(tmp_path, when):
	needs_kvm()
	saved_and_loaded(tmp_path, when)


@pytest.mark.host
@pytest.mark.kvm
def test_bad_states_here(tmp_path):
	needs_kvm()
	bad_states(tmp_path)


@pytest.mark.host
@pytest.mark.kvm
def test_flipped_states_here(tmp_path):
	needs_kvm()
	flipped_states(tmp_path, 2000 if os.environ.get("NEMU_SOAK") else 150)


def test_saved_and_loaded(tmp_path):
	text = saved_and_loaded(tmp_path, ("at", "half", "SERIAL"))
	assert "mxcsr=1" in text		# all of the FPU was looked at


def test_saved_and_loaded_with_4_cpus(tmp_path):
	saved_and_loaded(tmp_path, ("at", "half", "SERIAL"), cpus=4)


def test_flipped_states(tmp_path):
	flipped_states(tmp_path, 40)
