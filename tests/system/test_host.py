"""The KVM host that the other tests here count on."""
import fcntl
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KVM_GET_API_VERSION, KVM_CHECK_EXTENSION, KVM_CREATE_VM = 0xae00, 0xae03, 0xae01
CAPS = {"IRQCHIP_SPLIT": 121, "IRQFD": 32, "IOEVENTFD": 36, "SIGNAL_MSI": 77,
	"TSC_DEADLINE_TIMER": 72, "READONLY_MEM": 81, "IMMEDIATE_EXIT": 136}


def test_is_the_lab():
	assert os.environ.get("NEMU_LAB") == "1"
	assert os.geteuid() == 0


def test_kvm_is_complete():
	kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
	try:
		assert fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0) == 12
		missing = [name for name, number in CAPS.items()
			   if fcntl.ioctl(kvm, KVM_CHECK_EXTENSION, number) <= 0]
		assert not missing
		os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
	finally:
		os.close(kvm)


def test_work_tree_is_here_and_writable():
	path = os.path.join(ROOT, "build", f"written-in-the-lab-{os.getpid()}")
	with open(path, "x") as file:
		file.write("x")
	os.unlink(path)
	assert os.access(os.path.join(ROOT, "build", "nemu"), os.X_OK)


def test_taps_and_namespaces(request):
	name = f"check{os.getpid() % 10000}"
	subprocess.run(["ip", "netns", "add", name], check=True)
	request.addfinalizer(lambda: subprocess.run(["ip", "netns", "del", name], check=True))
	subprocess.run(["ip", "-n", name, "tuntap", "add", "mode", "tap", "name", "tap0"], check=True)


def test_landlock_is_there():
	with open("/sys/kernel/security/lsm") as file:
		assert "landlock" in file.read().split(",")


@pytest.mark.phys_bits
def test_physical_address_width():
	bits = os.environ["NEMU_PHYS_BITS"]
	with open("/proc/cpuinfo") as file:
		lines = [line for line in file if line.startswith("address sizes")]
	assert lines and all(f": {bits} bits physical" in line for line in lines)
