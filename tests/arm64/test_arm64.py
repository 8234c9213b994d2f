"""The AArch64 machine in the Arm lab: tiny guests, direct boot of Debian's kernel. Few boots that check much
each: `scripts/check arm-lab` has 8 minutes on a machine of its own."""
import os
import re
import subprocess
import time

import pytest

from arm import LIMIT, image
import kernel_log
import net
import test_hostile as hostile
import vm as v
from vm import NEMU

GUESTS = os.path.join(v.BUILD, "tests", "guest", "arm64")


def tiny(guest, *options):
	"""(serial output, stderr) of a bare-metal guest that ends by itself."""
	done = subprocess.run([NEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "virt",
			       "-bios", os.path.join(GUESTS, f"{guest}.bin"), "-serial", "stdio",
			       "-no-reboot", *options],
			      stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
	errors = done.stderr.decode(errors="replace")
	assert done.returncode == 0, errors[-3000:]
	return done.stdout.decode(errors="replace"), errors


# --- tiny guests ---

@pytest.mark.parametrize("cpus", [1, 4, 200])
def test_cpu_on(cpus):
	"""PSCI starts every processor; 200 need the second region of redistributors."""
	text, errors = tiny("smp", "-m", "64M", "-smp", str(cpus))
	assert re.fullmatch(rf"smp: {cpus} of {cpus} processors, PSCI 1\.\d\n", text)
	assert not errors


def test_hostile(tmp_path):
	"""Every page, width and command, with every device, on the root bus and behind ports; meanwhile
	QMP answers, and nemu says little, does not grow and opens nothing."""
	disk = [hostile.blank(tmp_path / f"disk{n}", 1 << 20) for n in range(2)]
	taps = net.TapNet("armhostile")
	began = time.monotonic()
	try:
		with v.Vm("-machine", "virt", "-m", "64M", "-smp", 2, "-no-reboot", "-bios",
			  os.path.join(GUESTS, "hostile.bin"), "-fw_cfg", "name=opt/test/seed,string=arm",
			  "-object", "iothread,id=io0", "-device", "pcie-root-port,id=rp0,slot=1", "-device",
			  "pcie-root-port,id=rp1,slot=2", "-drive", f"if=none,id=d0,format=raw,file={disk[0]}",
			  "-drive", f"if=none,id=d1,format=raw,file={disk[1]}", "-device",
			  "virtio-blk-pci,drive=d0", "-device", "virtio-blk-pci,drive=d1,bus=rp0,iothread=io0",
			  "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device",
			  "virtio-net-pci,netdev=n0,bus=rp1", "-device", "virtio-rng-pci", "-chardev",
			  f"file,id=c0,path={tmp_path}/console", "-device", "virtio-serial-pci", "-device",
			  "virtconsole,chardev=c0", netns=taps.name) as vm:
			vm.serial.expect("hostile: seed", LIMIT)
			pid = vm.process.pid
			files, before = hostile.descriptors(pid), hostile.memory(pid)
			after = before
			while "hostile: done" not in vm.serial.text and vm.process.poll() is None:
				assert time.monotonic() - began < LIMIT, vm.serial.text
				try:
					assert vm.qmp.cmd("query-status")["running"]
					assert hostile.descriptors(pid) <= files
				except (EOFError, OSError):
					break		# its end
				after = max(after, hostile.memory(pid))
				vm.serial.pump(0.3)
			assert vm.wait(LIMIT) == 0, vm.errors()
			vm.serial.pump(0)
			assert re.search(r"hostile: done, \d+ aborts\n$", vm.serial.text.replace("\r", "")), vm.serial.text
			assert after - before < hostile.GROWTH, (before, after)
			hostile.quiet(vm.errors(), time.monotonic() - began)
	finally:
		taps.close()


def test_exits():
	"""Accesses of devices leave to user space, PSCI calls do not."""
	with v.Vm("-machine", "virt", "-m", "64M", "-bios", os.path.join(GUESTS, "exits.bin"), "-no-shutdown") as vm:
		vm.serial.expect("exits: done", LIMIT)
		assert vm.qmp.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
		stats = {s["name"]: s["value"] for part in vm.qmp.cmd("query-stats", target="vcpu")
			 for s in part["stats"]}
		assert 3000 <= stats["exits-mmio"] < 3100, stats
		assert stats["bus/pl031/reads"] == 1000 and stats["bus/pl031/writes"] == 1000
		assert stats["bus/unassigned/reads"] == 1000


def test_refused():
	"""What cannot be had is said with the remedy."""
	for options, sentence in [
		(["-cpu", "cortex-a57"], "-cpu cortex-a57: KVM runs only the host's processor on Arm"),
		(["-smp", "2,maxcpus=4"], "-smp maxcpus=4: KVM cannot add processors"),
		(["-machine", "q35"], "-machine: unknown machine 'q35'; this program has virt (virt-1.0) and none"),
		(["-m", "300G"], "the machine has room for 255 GiB"),
		(["-kernel", "/bin/true"], "is no Arm kernel"),
		(["-bios", os.path.join(GUESTS, "smp.bin"), "-kernel", "/bin/true"], "no Arm kernel that firmware"),
	]:
		done = subprocess.run([NEMU, "-nodefaults", "-display", "none", "-machine", "virt", "-S", *options],
				      capture_output=True, text=True, timeout=LIMIT)
		assert done.returncode == 1 and sentence in done.stderr, done.stderr
		assert len(done.stderr.strip().splitlines()) == 1


# --- direct boot ---

# Two back ends lie end to end, and the tree names two nodes of memory.
BANKS = ["-object", "memory-backend-ram,id=m0,size=4G", "-object", "memory-backend-memfd,id=m1,size=2G",
	 "-numa", "node,memdev=m0,cpus=0,cpus=3", "-numa", "node,memdev=m1,cpus=1-2", "-numa",
	 "dist,src=0,dst=1,val=21"]


@pytest.mark.parametrize("cpus,mem,kernel,banks", [(1, "512M", "vmlinuz.gz", []), (4, "6G", "vmlinuz", BANKS)],
			 ids=["one bank", "two banks"])
def test_direct(cpus, mem, kernel, banks, tmp_path):
	"""Processors, memory, clean log, a tree without warnings, message interrupts by device."""
	disk = tmp_path / "disk.img"
	disk.write_bytes(b"behind a port" + bytes((1 << 20) - 13))
	script = ("echo CPUS=$(grep -c ^processor /proc/cpuinfo); "
		  "echo MEM=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo); "
		  "echo DISK=$(head -c 13 /dev/vda); head -c 32 /dev/hwrng | wc -c; "
		  "echo hello > /dev/hvc0; cat /proc/interrupts; lspci -n; "
		  "grep 'System RAM' /proc/iomem; numactl -H; "
		  f"echo LOG-START; {kernel_log.SHOW}; echo LOG-END; "
		  "echo FDT-START; base64 /sys/firmware/fdt; echo FDT-END")
	console = tmp_path / "console"
	status, text, code, errors = v.run_direct(
		script, *banks, "-device", "pcie-root-port,id=rp0,chassis=1", "-drive",
		f"if=none,id=d,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=d,bus=rp0",
		"-device", "virtio-rng-pci", "-chardev", f"file,id=c,path={console}", "-device",
		"virtio-serial-pci", "-device", "virtconsole,chardev=c",
		cpus=cpus, mem=mem, kernel=image(kernel))
	assert status == 0 and code == 0, text[-3000:] + errors
	assert errors == "", "nemu has nothing to say about a good guest"
	assert re.search(rf"^CPUS={cpus}$", text, re.M)
	want = {"512M": 512, "6G": 6144}[mem]
	assert want * 0.8 < int(re.search(r"^MEM=(\d+)", text, re.M).group(1)) <= want
	ram = sorted(tuple(int(x, 16) for x in r) for r in re.findall(r"^(\w+)-(\w+) : System RAM$", text, re.M))
	assert ram[0][0] == 0x40000000 and ram[-1][1] == 0x40000000 + (want << 20) - 1, ram
	assert all(a[1] + 1 == b[0] for a, b in zip(ram, ram[1:])) and len(ram) == max(1, len(banks) // 5), ram
	if banks:
		assert re.findall(r"^node \d cpus: (.*)$", text, re.M) == ["0 3", "1 2"], text
		sizes = [int(n) for n in re.findall(r"^node \d size: (\d+) MB$", text, re.M)]
		assert 3900 < sizes[0] <= 4096 and 1900 < sizes[1] <= 2048, sizes
		assert re.search(r"^  0:  10  21 *\n  1:  21  10 *$", text, re.M), text
	assert re.search(r"^DISK=behind a port$", text, re.M) and re.search(r"^32$", text, re.M)
	assert "hello" in console.read_text()
	assert re.search(r"ITS-MSI.*virtio\d-req\.0", text) and "INTx" not in text
	kernel_log.check(re.search(r"LOG-START\n(.*?)LOG-END", text, re.S).group(1))
	tree = tmp_path / "fdt"
	subprocess.run(["base64", "-d"], input=re.search(r"FDT-START\n(.*?)FDT-END", text, re.S).group(1).encode(),
		       stdout=open(tree, "wb"), check=True)
	warnings = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", "-o", "/dev/null", tree],
				  capture_output=True, text=True, check=True).stderr
	assert not warnings


def test_button():
	"""The key of the PL061, as a guest without ACPI finds it, and its interrupt."""
	with v.Vm("-machine", "virt", "-m", "64M", "-bios", os.path.join(GUESTS, "button.bin")) as vm:
		vm.serial.expect("button: ready", LIMIT)
		vm.qmp.cmd("system_powerdown")
		assert vm.qmp.event("POWERDOWN")
		vm.serial.expect("button: pressed", LIMIT)
		vm.serial.expect("button: released", LIMIT)
		assert vm.wait(LIMIT) == 0


def test_stop_and_reset():
	"""Stop and cont; resets from both sides."""
	with v.direct("echo READY; read x; reboot -f", cpus=2) as vm:
		vm.serial.expect("READY", LIMIT)
		vm.qmp.cmd("stop")
		assert vm.qmp.event("STOP") and vm.qmp.cmd("query-status")["status"] == "paused"
		vm.qmp.cmd("cont")
		assert vm.qmp.event("RESUME")
		vm.serial.send("now\n")
		assert vm.qmp.event("RESET", LIMIT)["data"] == {"guest": True, "reason": "guest-reset"}
		vm.serial.expect("READY", LIMIT)
		vm.qmp.cmd("system_reset")
		assert vm.qmp.event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
		vm.serial.expect("READY", LIMIT)
		vm.qmp.cmd("quit")
		assert vm.wait() == 0
