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
		assert text == f"cpus={cpus} ipis={aps} timers={aps} answers={aps} PASS\n"
		assert not errors


def exits(_path):
	text, errors = run("exits", "-m", "16M", "-no-reboot")
	assert text.endswith("PASS\n") and not errors


ALL = [resets, processors, exits]


@pytest.mark.host
@pytest.mark.kvm
@pytest.mark.parametrize("what", ALL, ids=lambda what: what.__name__)
def test_guest_here(tmp_path, what):
	if not os.access("/dev/kvm", os.R_OK | os.W_OK):
		pytest.skip("no /dev/kvm here: runs in the lab")
	what(tmp_path)


@pytest.mark.parametrize("what", ALL, ids=lambda what: what.__name__)
def test_guest(tmp_path, what):
	what(tmp_path)
