"""Firmware on Arm: AAVMF with variables, Debian from a disk; QEMU_EFI.fd that starts a kernel."""
import re
import subprocess

from arm import LIMIT, direct_args, image
import acpi
import kernel_log
import vm as v


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
