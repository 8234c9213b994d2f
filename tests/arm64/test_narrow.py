"""A host with 36 bits of guest addresses, as Apple's processors have: narrow.c makes it one."""
import os
import re
import subprocess

import pytest
import test_arm64 as arm
import vm as v

NARROW = os.path.join(v.BUILD, "tests", "arm64", "narrow.so")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
	monkeypatch.setenv("LD_PRELOAD", NARROW)


def test_second_redistributor_region_and_limits():
	text, errors = arm.tiny("smp", "-m", "64M", "-smp", "130")
	assert re.fullmatch(r"smp: 130 of 130 processors, PSCI 1\.\d\n", text)
	assert not errors
	done = subprocess.run([arm.NEMU, "-nodefaults", "-display", "none", "-S", "-m", "32G"],
			      capture_output=True, text=True, timeout=arm.LIMIT)
	assert done.returncode == 1 and "has room for 31 GiB on this host" in done.stderr, done.stderr
	said = subprocess.run([arm.NEMU, "-check-host"], capture_output=True, text=True).stdout
	assert re.search(r"ipa-bits\s.*36", said), said


def test_direct_boot(tmp_path):
	"""ECAM and the 64-bit window are within 36 bits, and a device behind a port works there."""
	disk = tmp_path / "disk.img"
	disk.write_bytes(b"behind a port" + bytes((1 << 20) - 13))
	status, text, _, errors = v.run_direct(
		"echo DISK=$(head -c 13 /dev/vda); cat /proc/iomem; lspci -v",
		"-device", "pcie-root-port,id=rp0,chassis=1", "-drive", f"if=none,id=d,format=raw,file={disk}",
		"-device", "virtio-blk-pci,drive=d,bus=rp0", mem="1G")
	assert status == 0, errors
	assert "DISK=behind a port" in text
	assert re.search(r"^810000000-81fffffff : .*ECAM", text, re.M), text
	window = re.search(r"^c00000000-fffffffff : pcie@810000000", text, re.M)
	assert window, text
	assert re.search(r"^ +[cdef][0-9a-f]{8}-[cdef][0-9a-f]{8} : 0000:0", text[window.end():], re.M), text
