"""Ways to boot: a PVH kernel, a kernel through firmware, the order of devices, the network. And
what -smbios says to the guest, on both ways."""
import os
import re
import shutil

import pytest

import efi
import kernel_log
import net
import vm as v

UUID = "12345678-1234-5678-9abc-def012345678"


@pytest.fixture
def firmware(tmp_path):
	store = str(tmp_path / "vars.fd")
	shutil.copy(v.OVMF_VARS, store)
	return ["-machine", "virt", "-smp", "1",
		"-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={v.OVMF_CODE}",
		"-drive", f"if=pflash,format=raw,unit=1,file={store}"]


def identity(tmp_path):
	oem = tmp_path / "oem.txt"
	oem.write_text("from a file")
	return ["-uuid", UUID, "-name", "a-name",
		"-smbios", "type=0,vendor=Firm,version=7.1,date=02/03/2024,release=7.1",
		"-smbios", "type=1,manufacturer=Maker,product=OpenStack Nova,version=v2,sku=S-1,"
			   "serial=ds=nocloud;s=http://10.0.0.1/,,x/,family=Fam",
		"-smbios", "type=2,manufacturer=BoardMaker,location=Slot 7",
		"-smbios", "type=3,asset=Asset-9",
		"-smbios", "type=4,sock_pfx=Socket,max-speed=3000,version=Turbo",
		"-smbios", f"type=11,value=first,value=second=2,path={oem}",
		"-smbios", "type=17,loc_pfx=Bay,bank=Bank 0,serial=D1,speed=4800"]


SHOW = "dmidecode; echo SYS=$(cat /sys/class/dmi/id/product_serial /sys/class/dmi/id/product_name \
	/sys/class/dmi/id/chassis_asset_tag)"


def check_identity(text, cores, memory):
	"""What dmidecode and the kernel read, as cloud-init does."""
	for line in ("Vendor: Firm", "Version: 7.1", "Release Date: 02/03/2024", "BIOS Revision: 7.1",
		     "Manufacturer: Maker", "Product Name: OpenStack Nova", "SKU Number: S-1", "Family: Fam",
		     "Serial Number: ds=nocloud;s=http://10.0.0.1/,x/", f"UUID: {UUID}",
		     "Manufacturer: BoardMaker", "Location In Chassis: Slot 7", "Asset Tag: Asset-9",
		     "Socket Designation: Socket 0", "Max Speed: 3000 MHz", f"Core Count: {cores}",
		     "String 1: first", "String 2: second=2", "String 3: from a file",
		     "Locator: Bay 0", "Bank Locator: Bank 0", "Serial Number: D1", "Speed: 4800 MT/s",
		     f"Maximum Capacity: {memory}", f"Size: {memory}", "UEFI is supported"):
		assert re.search(rf"^\s*{re.escape(line)}\s*$", text, re.M), (line, text[-9000:])
	assert "SYS=ds=nocloud;s=http://10.0.0.1/,x/ OpenStack Nova Asset-9" in text
	assert not re.search("OUT OF SPEC|BAD INDEX|broken|truncated", text), text


def test_pvh(tmp_path):
	"""Debian's kernel as ELF: memory, initrd, command line and tables through start info."""
	script = ("echo LOADER=$(cat /proc/sys/kernel/bootloader_type); cat /proc/cmdline; "
		  f"ls -d /sys/firmware/efi; {SHOW}; "
		  f"awk '/MemTotal/ {{print \"MEM=\" int($2 / 1024)}}' /proc/meminfo; "
		  f"nproc; ls /sys/firmware/acpi/tables; echo LOG-START; {kernel_log.SHOW}; echo LOG-END")
	status, text, code, errors = v.run_direct(script, *identity(tmp_path), kernel=v.VMLINUX, mem="3G",
						  append="nemu.word=pvh")
	assert status == 0 and code == 0, errors
	loader = re.search(r"^LOADER=(\d+)$", text, re.M).group(1)
	assert loader != "255", "that is what a bzImage is told"
	assert "nemu.word=pvh" in text and re.search(r"^APIC\s+DSDT\s+FACP", text, re.M)
	assert 2800 < int(re.search(r"^MEM=(\d+)", text, re.M).group(1)) <= 3072, "RAM above 4 GiB, too"
	assert not re.search("^/sys/firmware/efi", text, re.M)
	check_identity(text, 1, "3 GB")
	kernel_log.check(re.search(r"LOG-START\n(.*?)LOG-END", text, re.S).group(1))
	assert errors == ""


def test_pvh_reset():
	"""A second start from the same memory: what the kernel counts on to be zero is."""
	with v.direct("echo READY; sleep 1000", kernel=v.VMLINUX) as vm:
		vm.serial.expect("READY")
		vm.qmp.cmd("system_reset")
		vm.qmp.event("RESET")
		vm.serial.expect("READY")
		vm.qmp.cmd("quit")
		assert vm.wait() == 0


def test_kernel_through_firmware(firmware, tmp_path):
	script = f"ls -d /sys/firmware/efi; cat /proc/cmdline; {SHOW}"
	run = v.script_option(script)
	with v.Vm(*firmware, "-m", "512M", *identity(tmp_path), "-kernel", v.KERNEL, "-initrd", v.INITRD,
		  "-append", f"console=ttyS0 quiet nemu.word=uefi {run}") as vm:
		assert vm.serial.expect(r"NEMU-TEST-EXIT=(\d+)").group(1) == "0"
		assert vm.wait() == 0
		text = vm.serial.text.replace("\r", "")
		assert re.search("^/sys/firmware/efi", text, re.M), text
		assert "nemu.word=uefi" in text
		check_identity(text, 1, "512 MB")
		assert vm.errors() == ""


def test_boot_order_and_network(firmware, tmp_path):
	"""Three disks and the network card in the order of bootindex. Each loader fails, so that one start of
	the firmware shows all; a disk without an index is not tried."""
	names = ("A", "B", "C", "D")
	disks = {n: efi.disk(str(tmp_path / f"{n}.img"), f"<loader of disk {n}>") for n in names}
	program = efi.app(str(tmp_path / "net.efi"), "<loader from the network>")
	side = net.TapNet("boot", 1)
	log = tmp_path / "pxe.log"
	try:
		side.start("/usr/bin/python3", os.path.join(v.ROOT, "tests/system/pxe_server.py"), "tap0",
			   "10.77.0.1", "10.77.0.9", program, log=str(log))
		drives = []
		for n, path in disks.items():
			drives += ["-drive", f"if=none,id={n},format=raw,file={path}"]
		with v.Vm(*firmware, "-m", "256M", *drives, "-device", "pcie-root-port,id=rp0,addr=3",
			  "-device", "virtio-blk-pci,drive=D,addr=4",
			  "-device", "virtio-blk-pci,drive=A,bootindex=2,addr=5",
			  "-device", "virtio-blk-pci,drive=B,bootindex=1,addr=6.0,multifunction=on",
			  "-device", "virtio-blk-pci,drive=C,bootindex=3,bus=rp0",
			  "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
			  "-device", "virtio-net-pci,netdev=n0,bootindex=4,addr=6.1,mac=52:54:00:77:00:09",
			  netns=side.name) as vm:
			vm.serial.expect("<loader from the network>")
			said = re.findall("<loader [^>]*>", vm.serial.text)
			assert said == ["<loader of disk B>", "<loader of disk A>", "<loader of disk C>",
					"<loader from the network>"], vm.serial.text
			vm.qmp.cmd("quit")
			assert vm.wait() == 0
			assert vm.errors() == ""
		steps = log.read_text()
		assert re.search("^DHCP discover PXEClient:Arch:00007.* 52:54:00:77:00:09$", steps, re.M), steps
		assert f"TFTP sent {os.path.getsize(program)}" in steps, steps
	finally:
		side.close()
