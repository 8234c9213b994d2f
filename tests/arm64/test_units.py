"""The unit and device tests on an Arm kernel: those that are for Arm alone, and those in which the
processor or the system calls matter (barriers, io_uring, filters, descriptors of KVM)."""
import glob
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = os.path.join(ROOT, "build-aarch64", "tests")
NAMES = ["unit-arch-arm64", "unit-firmware-*", "device-platform-primecell", "unit-core-bus",
	 "unit-event-*", "unit-mem-*", "unit-pci-threads", "unit-pci-msix", "unit-sandbox-*", "unit-state-*",
	 "unit-kvm-*", "unit-block-file", "device-virtio-core", "device-virtio-threads"]
FOUND = sorted({path for name in NAMES for path in glob.glob(os.path.join(TESTS, name))
		if os.path.isfile(path) and os.access(path, os.X_OK)})

if not os.uname().machine == "aarch64":
	pytest.skip("runs on an Arm host: tests/lab/run --arch aarch64", allow_module_level=True)


@pytest.mark.parametrize("path", FOUND, ids=os.path.basename)
def test_unit(path):
	done = subprocess.run([path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
			      errors="replace", env={**os.environ, "CMOCKA_MESSAGE_OUTPUT": "STDOUT"})
	assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
