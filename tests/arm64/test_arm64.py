"""The AArch64 machine in the Arm lab: tiny guests, direct boot of Debian's kernel, firmware, state.

Few boots that check much each: `scripts/check arm64-lab` has 12 minutes.
"""
import os
import re
import subprocess
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
import acpi		# noqa: E402
import kernel_log	# noqa: E402
import net		# noqa: E402
import test_hostile as hostile	# noqa: E402
import vm as v		# noqa: E402
from vm import NEMU	# noqa: E402

TOOL = os.path.join(v.BUILD, "tests", "system", "state_tool")
GUESTS = os.path.join(v.BUILD, "tests", "guest", "arm64")
LIMIT = 300

if not os.uname().machine == "aarch64":
	pytest.skip("runs on an Arm host: tests/lab/run --arch aarch64", allow_module_level=True)


def image(name):
	return os.path.join(v.IMAGES, name)


def tiny(guest, *options):
	"""(serial output, stderr) of a bare-metal guest that ends by itself."""
	done = subprocess.run([NEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "virt",
			       "-bios", os.path.join(GUESTS, f"{guest}.bin"), "-serial", "stdio",
			       "-no-reboot", *options],
			      stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
	errors = done.stderr.decode(errors="replace")
	assert done.returncode == 0, errors[-3000:]
	return done.stdout.decode(errors="replace"), errors


def direct_args(script, cpus, kernel):
	return ["-machine", "virt", "-cpu", "host", "-smp", cpus, "-m", "512M", "-kernel", image(kernel),
		"-initrd", v.INITRD, "-append", f"console={v.CONSOLE} quiet {v.script_option(script)}"]


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
		(["-machine", "q35"], "-machine q35: is a name of the x86-64 machine"),
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


# --- state ---

def test_state(tmp_path):
	"""Saved, ended, loaded in another process, continued: the clock did not see the time away, the
	disk, message interrupts and both processors go on."""
	disk = tmp_path / "disk.img"
	disk.write_bytes(os.urandom(4 << 20))
	script = ("i=0; while [ $i -lt 12 ]; do i=$((i + 1)); "
		  "dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null || echo BROKEN; "
		  "taskset -c $((i % 2)) true; echo STEP=$i UP=$(cut -d' ' -f1 /proc/uptime); done; "
		  f"{kernel_log.SHOW}")
	state, serial = tmp_path / "state", [tmp_path / "serial1", tmp_path / "serial2"]

	def tool(n, *what):
		args = [str(a) for a in direct_args(script, 2, "vmlinuz")]
		return subprocess.run([TOOL, *what, "--", "-nodefaults", "-display", "none", *args, "-serial",
				       f"file:{serial[n]}", "-drive", f"if=virtio,format=raw,file={disk}",
				       "-device", "virtio-rng-pci"],
				      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
	done = tool(0, "save", str(state), "at", "STEP=4", str(serial[0]))
	assert done.returncode == 0, done.stderr
	subprocess.run(["sleep", "20"])
	done = tool(1, "load", str(state))
	assert done.returncode == 0, done.stderr
	text = serial[0].read_text() + serial[1].read_text()
	assert "BROKEN" not in text and "NEMU-TEST-EXIT=0" in text, text[-3000:]
	steps = [(int(i), float(up)) for i, up in re.findall(r"STEP=(\d+) UP=([\d.]+)", text)]
	assert [i for i, _ in steps] == list(range(1, 13)), text[-3000:]
	gaps = [b - a for (_, a), (_, b) in zip(steps, steps[1:])]
	assert min(gaps) >= 0 and max(gaps) < 15, gaps
	kernel_log.check(re.search(r"STEP=12 .*?\n(.*)NEMU-TEST-EXIT", serial[1].read_text(), re.S).group(1))
	# a state that does not fit is refused with one sentence
	data = bytearray(state.read_bytes())
	state.write_bytes(data[:len(data) // 2])
	done = tool(1, "load", str(state))
	assert done.returncode == 1 and len(re.findall("^state_tool: ", done.stderr, re.M)) == 1, done.stderr


# --- firmware ---

def test_uefi(tmp_path):
	"""AAVMF boots Debian from a GPT disk behind a port, with memory in two nodes: login, tables, SMBIOS,
	clean log; a variable outlives a reboot and is in the file; the power button is the GED's."""
	var_file = tmp_path / "vars.fd"
	subprocess.run(["cp", "--sparse=always", image("AAVMF_VARS.fd"), var_file], check=True)
	name = "/sys/firmware/efi/efivars/NemuTest-6e656d75-0000-4000-8000-000000000001"
	disk = "/dev/disk/lab/debian-aarch64.img"
	with v.Vm("-machine", "virt,hmat=on", "-m", "512M", "-smp", "2", "-name", "arm-uefi", "-object",
		  "memory-backend-ram,id=m0,size=256M", "-object", "memory-backend-ram,id=m1,size=256M", "-numa",
		  "node,memdev=m0,cpus=0", "-numa", "node,memdev=m1,cpus=1", "-numa", "dist,src=0,dst=1,val=21",
		  *(f"{o}" for t in (0, 1) for o in ("-numa", f"hmat-lb,initiator={t},target={t},hierarchy=memory,"
						     "data-type=access-latency,latency=10")), "-drive",
		  f"if=pflash,unit=0,format=raw,readonly=on,file={image('AAVMF_CODE.fd')}", "-drive",
		  f"if=pflash,unit=1,format=raw,file={var_file}", "-drive", f"if=none,id=d,format=raw,file={disk}",
		  "-device", "pcie-root-port,id=rp0", "-device", "virtio-blk-pci,drive=d,bus=rp0,bootindex=1") as vm:
		vm.login(LIMIT * 2)
		status, text = vm.run(kernel_log.SHOW)
		kernel_log.check(text)
		status, text = vm.run("cat /sys/class/dmi/id/chassis_asset_tag /sys/class/dmi/id/sys_vendor; nproc")
		assert text.split()[:3] == ["arm-uefi", "NEMU", "2"], text
		status, text = vm.run("cd /sys/devices/system/node; cat online node0/distance node1/cpulist")
		assert text.splitlines()[:3] == ["0-1", "10 21", "1"], text
		status, text = vm.run(acpi.DUMP, LIMIT)
		tables = acpi.parse(text, tmp_path)
		assert {"APIC", "DSDT", "FACP", "GTDT", "MCFG", "SPCR", "DBG2", "IORT", "PPTT",
			"SRAT", "SLIT", "HMAT", "SSDT"} <= set(tables), tables
		acpi.check(tables, tmp_path)
		status, text = vm.run("mount | grep -q efivarfs || mount -t efivarfs efivarfs "
				      f"/sys/firmware/efi/efivars; printf '\\007\\000\\000\\000persistent' > {name}")
		assert status == 0, text
		vm.serial.send("systemctl reboot\n")
		assert vm.qmp.event("RESET", LIMIT)["data"]["guest"]
		vm.login(LIMIT * 2)
		status, text = vm.run("mount | grep -q efivarfs || mount -t efivarfs efivarfs "
				      f"/sys/firmware/efi/efivars; cat {name}")
		assert "persistent" in text, text
		vm.serial.send("ged() { awk '/ACPI:Ged/ {print $2 + $3}' /proc/interrupts; }; n=$(ged); echo BUTTON; "
			       "while [ $(ged) = $n ]; do sleep 0.2; done; echo PRESSED; systemctl poweroff\n")
		vm.serial.expect("BUTTON", LIMIT)
		vm.qmp.cmd("system_powerdown")
		vm.serial.expect("PRESSED", LIMIT)
		assert vm.qmp.event("SHUTDOWN", LIMIT)["data"] == {"guest": True, "reason": "guest-shutdown"}
		assert vm.wait(LIMIT) == 0
		assert vm.errors() == ""
	assert b"persistent" in var_file.read_bytes()


def test_kernel_through_firmware():
	"""QEMU_EFI.fd without variables starts -kernel, here packed."""
	with v.Vm(*direct_args("uname -m; [ -d /sys/firmware/efi ] && echo EFI", 1, "vmlinuz.gz"),
		  "-bios", image("QEMU_EFI.fd")) as vm:
		vm.serial.expect(r"aarch64\s+EFI", LIMIT * 2)
		assert vm.serial.expect(r"NEMU-TEST-EXIT=(\d+)", LIMIT).group(1) == "0"
		assert vm.wait(LIMIT) == 0
