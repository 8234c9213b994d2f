"""The tiny guests of tests/guest with nemu itself, sandbox and all: on /dev/kvm of this machine if
it has one, and in the lab."""
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEMU = os.environ.get("NEMU", os.path.join(ROOT, "build", "nemu"))
GUESTS = os.path.join(ROOT, "build", "tests", "guest")
LIMIT = 300


def run(guest, *options):
	"""(serial output, stderr) of a guest that ends by itself."""
	done = subprocess.run([NEMU, "-nodefaults", "-no-user-config", "-display", "none",
			       "-machine", "virt", "-bios", os.path.join(GUESTS, f"{guest}.bin"),
			       "-serial", "stdio", *options],
			      stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
	errors = done.stderr.decode(errors="replace")
	assert done.returncode == 0, errors[-3000:]
	return done.stdout.decode(errors="replace"), errors


def resets(_path):
	text, errors = run("reset", "-m", "16M", "-smp", "2")
	assert text == "".join(f"reset={n} \n" for n in range(6)) + "PASS\n"
	assert not errors


def processors(_path):
	for cpus in (1, 2, 5):
		text, errors = run("smp", "-m", "64M", "-smp", str(cpus), "-no-reboot")
		aps = cpus - 1
		assert text == f"cpus={cpus} ipis={2 * aps} timers={aps} answers={aps} pin={aps} PASS\n"
		assert not errors


def many_processors(path):
	"""Beyond 255, with gaps in the APIC ids: 72 cores take 7 bits, so the last id is 256 + 143."""
	disk = os.path.join(path, "disk.img")
	with open(disk, "wb") as file:
		file.truncate(1 << 20)
	text, errors = run("smp", "-m", "64M", "-smp", "288,sockets=2,cores=72,threads=2", "-no-reboot",
			   "-drive", f"if=none,id=disk,format=raw,file={disk}",
			   "-device", "virtio-blk-pci,drive=disk")
	assert text == "cpus=288 ipis=574 timers=287 answers=287 pin=399 msi=399 PASS\n"
	assert not errors


def exits(_path):
	text, errors = run("exits", "-m", "16M", "-no-reboot")
	assert text.endswith("PASS\n") and not errors


def memory(_path):
	text, errors = run("memory", "-m", "5G", "-no-reboot")
	assert text == f"ranges=2 bytes={5 << 30} end={7 << 30} PASS\n"
	assert not errors


def hostile(path):
	"""Whatever it does, it harms only its own devices: it gets to its end and nemu to its."""
	disk = os.path.join(path, "disk.img")
	with open(disk, "wb") as file:
		file.truncate(1 << 20)
	text, _errors = run("hostile", "-m", "64M", "-no-reboot",
			    "-device", "pcie-root-port,id=port",
			    "-drive", f"if=none,id=disk,format=raw,file={disk}",
			    "-device", "virtio-blk-pci,drive=disk",
			    "-object", "rng-random,id=rng,filename=/dev/urandom",
			    "-device", "virtio-rng-pci,rng=rng",
			    "-device", "virtio-serial-pci")
	assert text.endswith("PASS\n"), text[-500:]


ALL = [resets, processors, many_processors, exits, memory, hostile]


@pytest.mark.host
@pytest.mark.kvm
@pytest.mark.parametrize("what", ALL, ids=lambda what: what.__name__)
def test_guest_here(tmp_path, what):
	if not os.access("/dev/kvm", os.R_OK | os.W_OK):
		pytest.skip("no /dev/kvm here: runs in the lab")
	what(tmp_path)


@pytest.mark.parametrize("what", [resets, processors, many_processors, exits], ids=lambda what: what.__name__)
def test_guest(tmp_path, what):
	what(tmp_path)


@pytest.mark.soak		# a minute there
def test_hostile_guest(tmp_path):
	hostile(tmp_path)
