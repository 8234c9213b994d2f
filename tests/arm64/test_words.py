"""What the program says of itself on Arm is of Arm."""
import re
import subprocess

import test_arm64 as arm


def said(*options):
	done = subprocess.run([arm.NEMU, *options], capture_output=True, text=True, timeout=arm.LIMIT)
	return done.returncode, done.stdout + done.stderr


def test_help():
	code, text = said("-help")
	assert code == 0 and "an Image, plain or packed with gzip" in text
	assert not re.search(r"x86|q35|bzImage|PVH|phys-bits", text)
	code, text = said("-cpu", "help")
	assert code == 0 and re.search(r"^  pmu sve pauth$", text, re.M) and "CPUID" not in text
	code, text = said("-machine", "help")
	assert code == 0 and re.findall(r"^  (\S+)  ", text, re.M) == ["virt", "virt-1.0", "none"]


def test_machine_keys():
	"""Those of QEMU's machine confirm what this one is, or are refused; x86-64's are unknown."""
	ok = "virt,gic-version=3,its=on,virtualization=off,secure=off,kernel-irqchip=on"
	code, text = said("-nodefaults", "-machine", ok, "-kernel", "/bin/true")
	assert code == 1 and "is no Arm kernel" in text
	code, text = said("-nodefaults", "-machine", "virt,gic-version=2")
	assert code == 1 and "the interrupt controller is a GICv3" in text
	code, text = said("-nodefaults", "-machine", "virt,hpet=off")
	assert code == 1 and "hpet" in text
