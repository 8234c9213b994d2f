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


def boot_options(path):
	"""-boot and bootindex= as firmware reads them."""
	disk = os.path.join(path, "boot.img")
	with open(disk, "wb") as file:
		file.truncate(1 << 20)

	def drives(*devices):
		args = ["-m", "16M", "-no-reboot", "-device", "pcie-root-port,id=rp0,addr=1e"]
		for i, device in enumerate(devices):
			args += ["-drive", f"if=none,id=d{i},format=raw,readonly=on,file={disk}",
				 "-device", f"virtio-blk-pci,drive=d{i},{device}"]
		return args

	def expect(args, options, order):
		text, errors = run("fwcfg", *args)
		size = len(order) + 1 if order else 0
		assert text == f"{options}order-size={size} \n{order}PASS\n"
		assert not errors

	plain = drives("addr=4", "addr=6,multifunction=on", "addr=6.1", "bus=rp0")
	no_wait = "menu=0 wait-size=2 wait-ms=0 "
	expect(plain, no_wait, "")
	expect([*plain, "-boot", "menu=on"], "menu=1 wait-size=0 ", "")
	expect([*plain, "-boot", "cn,menu=on,splash-time=700"], "menu=1 wait-size=2 wait-ms=700 ",
	       "/pci@i0cf8/scsi@4/disk@0,0\n/pci@i0cf8/scsi@6/disk@0,0\n/pci@i0cf8/scsi@6,1/disk@0,0\n"
	       "/pci@i0cf8/pci-bridge@1e/scsi@0/disk@0,0\n")
	expect(drives("addr=4", "addr=6,multifunction=on,bootindex=9", "addr=6.1", "bus=rp0,bootindex=0"),
	       no_wait, "/pci@i0cf8/pci-bridge@1e/scsi@0/disk@0,0\n/pci@i0cf8/scsi@6/disk@0,0\n")


ALL = [resets, processors, many_processors, exits, memory, boot_options]


@pytest.mark.parametrize("what", ALL, ids=lambda what: what.__name__)
def test_guest(tmp_path, what):
	what(tmp_path)


if not os.environ.get("NEMU_LAB"):
	@pytest.mark.host
	@pytest.mark.kvm
	@pytest.mark.parametrize("what", ALL, ids=lambda what: what.__name__)
	def test_guest_here(tmp_path, what):
		if not os.access("/dev/kvm", os.R_OK | os.W_OK):
			pytest.skip("no /dev/kvm here: runs in the lab")
		what(tmp_path)
