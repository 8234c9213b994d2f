"""The Debian disk under unmodified OVMF: one machine with every kind of device, booted three
times (start, reboot from inside, full stop and start). The tests build on each other in order.
"""
import os
import re
import shutil
import socket
import subprocess

import pytest

import acpi
import kernel_log
import net
import vm as v

LAB_DISK = "/dev/disk/lab/debian-x86_64.img"
GUID = "6e656d75-1111-4222-8333-444455556666"
VAR = f"/sys/firmware/efi/efivars/NemuTest-{GUID}"
BITS = int(os.environ.get("NEMU_PHYS_BITS", "40"))


class Machine:
	def __init__(self, folder, with_net=True):
		self.folder = folder
		self.vars = os.path.join(folder, "vars.fd")
		shutil.copy(v.OVMF_VARS, self.vars)
		self.data = os.path.join(folder, "data.raw")
		with open(self.data, "wb") as file:
			file.truncate(32 << 20)
		self.net = net.TapNet("uefi", 2) if with_net else None
		self.console_path = os.path.join(folder, "hvc0")
		self.vm = None

	def firmware(self):
		return ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={v.OVMF_CODE}",
			"-drive", f"if=pflash,format=raw,unit=1,file={self.vars}",
			"-drive", f"file={LAB_DISK},format=raw,if=virtio"]

	def start(self, *more):
		args = ["-machine", "q35,accel=kvm", "-cpu", "host", "-m", "1G", "-smp", "2",
			"-name", "uefi-test", "-uuid", "12345678-1234-5678-9abc-def012345678",
			*self.firmware(),
			"-object", "iothread,id=io0", "-object", "rng-random,id=r0,filename=/dev/urandom",
			"-device", "pcie-root-port,id=rp0,chassis=1,slot=1",
			"-device", "pcie-root-port,id=rp1,chassis=2,slot=2",
			"-drive", f"id=data,if=none,format=raw,file={self.data}",
			"-device", "virtio-blk-pci,drive=data,bus=rp0,iothread=io0,serial=DATA",
			"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
			"-device", "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:02,iothread=io0",
			"-netdev", "tap,id=n1,ifname=tap1,script=no,downscript=no",
			"-device", "virtio-net-pci,netdev=n1,mac=52:54:00:77:01:02,bus=rp1",
			"-device", "virtio-rng-pci,rng=r0",
			"-chardev", f"socket,id=c0,path={self.console_path},server=on,wait=off",
			"-device", "virtio-serial-pci,id=vs0",
			"-device", "virtconsole,chardev=c0,bus=vs0.0", *more]
		self.vm = v.Vm(*args, netns=self.net.name)
		return self.vm

	def close(self):
		if self.vm:
			self.vm.kill()
		if self.net:
			self.net.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
	m = Machine(str(tmp_path_factory.mktemp("uefi")))
	try:
		m.start()
		m.vm.login()
		yield m
	finally:
		m.close()


def test_login_on_serial(machine):
	status, text = machine.vm.run("uname -a; systemctl is-system-running --wait")
	assert "Debian" in text and "nemu-guest" in text
	assert machine.vm.run("[ -d /sys/firmware/efi ]")[0] == 0
	assert machine.vm.run("[ $(nproc) = 2 ]")[0] == 0


def test_kernel_log(machine):
	status, text = machine.vm.run(kernel_log.SHOW)
	kernel_log.check(text)


def test_acpi_tables(machine, tmp_path):
	status, text = machine.vm.run(acpi.DUMP)
	tables = acpi.parse(text, tmp_path)
	assert {"APIC", "DSDT", "FACP", "MCFG"} <= set(tables)
	paths = acpi.check(tables, tmp_path)
	assert r"\_SB.PCI0._CRS" in paths


def test_identity(machine):
	"""-uuid and -name through SMBIOS."""
	status, text = machine.vm.run("cat /sys/class/dmi/id/product_uuid /sys/class/dmi/id/product_name")
	assert "12345678-1234-5678-9abc-def012345678" in text.lower()


def test_devices_behind_root_ports(machine):
	status, text = machine.vm.run("lspci -n; for d in /sys/block/vd*/serial; do echo $d $(cat $d); done; "
				      "readlink -f /sys/block/vd*/device")
	assert re.search(r"0[12]:00\.0 \S+: 1af4:1042", text), text
	assert re.search(r"0[12]:00\.0 \S+: 1af4:1041", text), text


def test_disk_behind_port(machine):
	status, text = machine.vm.run(
		"d=/dev/$(basename $(dirname $(grep -l DATA /sys/block/vd*/serial))); "
		"fio --name=v --filename=$d --rw=randrw --bs=4k-32k --size=24M --ioengine=libaio --iodepth=8 "
		"--direct=1 --verify=crc32c --end_fsync=1 --minimal > /dev/null; echo FIO=$?; "
		"sync; echo SUM=$(sha256sum < $d)")
	assert "FIO=0" in text, text
	done = subprocess.run(["sha256sum", machine.data], capture_output=True, text=True, check=True)
	assert done.stdout.split()[0] == re.search(r"SUM=(\w+)", text).group(1)


def nic(machine, mac):
	status, text = machine.vm.run(f"basename $(dirname $(grep -il {mac} /sys/class/net/*/address))")
	return text.strip().splitlines()[-1]


@pytest.mark.parametrize("number,offloads", [(0, "on"), (0, "off"), (1, "on")])
def test_net(machine, number, offloads):
	"""ping and iperf3 both ways over a tap, with the guest's offloads on and off."""
	name = nic(machine, f"52:54:00:77:0{number}:02")
	address, peer = f"10.77.{number}.2", f"10.77.{number}.1"
	status, text = machine.vm.run(
		f"ip addr replace {address}/24 dev {name}; ip link set {name} up; "
		f"ethtool -K {name} tx {offloads} rx {offloads} tso {offloads} gro {offloads} 2>&1; "
		f"ping -c 3 -i 0.2 -W 5 {peer}")
	assert status == 0, text
	assert " 0% packet loss" in text, text
	machine.net.start("iperf3", "-s", "-B", peer)
	for direction in ("", "-R"):
		# The server may need a moment to listen, the one before to go away
		status, text = machine.vm.run(
			f"for i in $(seq 30); do iperf3 -c {peer} -t 3 -f m {direction} 2>&1 && break; "
			"sleep 1; done | tail -n 20")
		assert "receiver" in text, text
	machine.net.stop()
	if offloads == "on":
		features = machine.vm.run(f"ethtool -k {name}")[1]
		assert "tcp-segmentation-offload: on" in features, features


def test_rng(machine):
	status, text = machine.vm.run("cat /sys/class/misc/hw_random/rng_current; "
				      "dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c; "
				      "dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum; "
				      "dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum")
	assert "virtio_rng" in text and "1024" in text, text
	sums = re.findall(r"[0-9a-f]{64}", text)
	assert len(sums) == 2 and sums[0] != sums[1]


def test_console_login(machine):
	sock = socket.socket(socket.AF_UNIX)
	sock.connect(machine.console_path)
	console = v.Stream(sock.fileno())
	console.send("\n")
	console.expect(r"login: ")  # again: the first one went to nobody
	console.send("root\n")
	console.expect("Password: ")
	console.send("nemu\n")
	console.expect(r"# ")
	console.send("tty; head -c 20000 /dev/zero | tr '\\0' x; echo; echo END''MARK\n")
	console.expect("/dev/hvc0")
	console.expect("ENDMARK")
	assert console.text.count("x") >= 20000
	console.send("exit\n")
	sock.close()


def test_variable_and_boot_order(machine):
	status, text = machine.vm.run(
		f"printf '\\007\\000\\000\\000hello' > {VAR}; "
		"efibootmgr -c -d /dev/vda -p 1 -L NemuEntry -l '\\EFI\\BOOT\\BOOTX64.EFI' && efibootmgr")
	assert status == 0, text
	entry = re.search(r"Boot([0-9A-F]{4})\*? NemuEntry", text).group(1)
	machine.order = re.search(r"BootOrder: (\S+)", text).group(1)
	assert machine.order.startswith(entry)
	machine.entry = entry


def stored(machine):
	status, text = machine.vm.run(f"tail -c 5 {VAR}; echo; efibootmgr")
	assert "hello" in text, text
	assert f"BootOrder: {machine.order}" in text, text
	assert f"BootCurrent: {machine.entry}" in text, "the new entry was not booted:\n" + text


def test_reboot_comes_back(machine):
	machine.vm.serial.send("reboot\n")
	assert machine.vm.qmp.event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}
	machine.vm.login()
	stored(machine)


def test_poweroff_ends_with_success(machine):
	machine.vm.serial.send("poweroff\n")
	assert machine.vm.qmp.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
	assert machine.vm.wait() == 0
	assert machine.vm.errors() == ""
	machine.vm.kill()


def test_variables_after_stop_and_start(machine):
	machine.start()
	machine.vm.login()
	stored(machine)


def test_power_button(machine):
	machine.vm.qmp.cmd("system_powerdown")
	machine.vm.qmp.event("POWERDOWN")
	machine.vm.qmp.event("SHUTDOWN")
	assert machine.vm.wait() == 0


@pytest.mark.phys_bits
def test_wide_addresses(tmp_path):
	"""46 and 48 bits: 64-bit BARs go where the firmware puts them."""
	m = Machine(str(tmp_path), with_net=False)
	try:
		args = ["-machine", "virt", "-cpu", f"host,phys-bits={BITS}", "-m", "1G", *m.firmware(),
			"-device", "pcie-root-port,id=rp0", "-device", "virtio-rng-pci,bus=rp0"]
		m.vm = v.Vm(*args)
		m.vm.login(900)
		status, text = m.vm.run("grep -m1 'address sizes' /proc/cpuinfo; cat /proc/iomem | grep -i virtio; "
					+ kernel_log.SHOW)
		assert f"{BITS} bits physical" in text
		kernel_log.check(text)
		m.vm.serial.send("poweroff\n")
		assert m.vm.wait() == 0
	finally:
		m.close()
