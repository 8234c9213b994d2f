"""Direct boot of a bzImage: CPUs, memory, kernel log, tables, disk."""
import hashlib
import os
import re
import subprocess

import pytest

import acpi
import kernel_log
import vm as v

MIB = 1 << 20


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
	"""A folder on a file system that knows O_DIRECT where the lab has one."""
	if os.path.isdir("/scratch"):
		path = f"/scratch/nemu-{os.getpid()}"
		os.makedirs(path)
		yield path
		subprocess.run(["rm", "-rf", path])
	else:
		yield str(tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize("cpus,mem,low,high", [(1, "512M", 440, 512), (4, "6G", 5700, 6144)])
def test_cpus_memory_and_log(cpus, mem, low, high, tmp_path):
	script = ("echo CPUS=$(grep -c ^processor /proc/cpuinfo) $(cat /sys/devices/system/cpu/online); "
		  "echo MEM=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo); "
		  f"echo LOG-START; {kernel_log.SHOW}; echo LOG-END; {acpi.DUMP}")
	status, text, code, errors = v.run_direct(script, cpus=cpus, mem=mem)
	assert status == 0 and code == 0, errors
	assert re.search(rf"^CPUS={cpus} 0{f'-{cpus - 1}' if cpus > 1 else ''}$", text, re.M), text[-3000:]
	megabytes = int(re.search(r"^MEM=(\d+)", text, re.M).group(1))
	assert low < megabytes <= high
	kernel_log.check(re.search(r"LOG-START\n(.*?)LOG-END", text, re.S).group(1))
	tables = acpi.parse(text, tmp_path)
	assert {"APIC", "DSDT", "FACP", "MCFG", "SSDT"} <= set(tables)
	acpi.check(tables, tmp_path)
	assert errors == "", "nemu has nothing to say about a good guest"


def test_disk_with_verify(scratch):
	"""fio writes and verifies; the host sees the same bytes; discard and write-zeroes reach it."""
	disk, ro = os.path.join(scratch, "disk.raw"), os.path.join(scratch, "ro.raw")
	with open(disk, "wb") as file:
		file.truncate(64 * MIB)
	with open(ro, "wb") as file:
		file.write(b"read-only" * 1000 + bytes(MIB - 9000))
	script = r"""set -e
	d=/dev/$(basename $(dirname $(grep -l NEMU-DISK /sys/block/vd*/serial)))
	r=/dev/$(basename $(dirname $(grep -l NEMU-RO /sys/block/vd*/serial)))
	[ $(blockdev --getsize64 $d) = 67108864 ]
	fio --name=v --filename=$d --rw=randwrite --bs=4k-64k --size=32M --ioengine=libaio --iodepth=16 \
		--direct=1 --verify=crc32c --do_verify=1 --end_fsync=1 --minimal > /tmp/fio
	blkdiscard -o 33554432 -l 8388608 $d
	blkdiscard -z -o 41943040 -l 8388608 $d
	sync
	echo SUM=$(sha256sum < $d)
	if dd if=/dev/zero of=$r bs=4096 count=1 conv=fsync 2> /dev/null; then echo RO-WRITTEN; fi
	[ $(cat /sys/block/$(basename $r)/ro) = 1 ]
	head -c 9 $r; echo
	"""
	status, text, code, errors = v.run_direct(
		script, "-object", "iothread,id=io0",
		"-blockdev", f"driver=raw,node-name=n0,file.driver=file,file.filename={disk},"
		"discard=unmap,cache.direct=on",
		"-device", "virtio-blk-pci,drive=n0,serial=NEMU-DISK,iothread=io0",
		"-drive", f"id=d1,if=none,format=raw,file={ro},readonly=on",
		"-device", '{"driver":"virtio-blk-pci","drive":"d1","serial":"NEMU-RO"}',
		initrd=v.INITRD_FIO, mem="768M", cpus=2)
	assert status == 0 and code == 0, text[-3000:] + errors
	assert "RO-WRITTEN" not in text and "read-only" in text
	with open(disk, "rb") as file:
		assert hashlib.sha256(file.read()).hexdigest() == re.search(r"SUM=(\w+)", text).group(1)
	with open(disk, "rb") as file:
		file.seek(32 * MIB)
		assert file.read(16 * MIB) == bytes(16 * MIB)
	assert os.stat(disk).st_blocks * 512 < 60 * MIB, "discard punched no hole"


def test_hypervisor_clocks_and_devices():
	"""kvmclock is the clock, no INTx anywhere, no device that the contract does not list."""
	script = ("cat /sys/devices/system/clocksource/clocksource0/current_clocksource; "
		  "for f in /sys/bus/pci/devices/*/irq; do echo IRQ=$(cat $f); done; "
		  "lspci -n; cat /proc/interrupts; dmesg | grep -iE 'i8042|8254|8259|hpet'; "
		  "grep -c tsc_deadline_timer /proc/cpuinfo")
	status, text, code, errors = v.run_direct(script, "-device", "virtio-rng-pci")
	assert status == 0 and code == 0, errors
	assert re.search(r"^kvm-clock$", text, re.M)
	assert not re.search(r"XT-PIC|^\s*\d+:.*(timer|i8042|rtc0)$", text, re.M), text
	assert not re.search(r"IO-APIC.*fasteoi", text), "INTx:\n" + text
	assert set(re.findall(r"^IRQ=(\d+)$", text, re.M)) == {"0"}, text
	assert re.search(r"^1$", text, re.M), "no TSC-deadline timer"


def test_power_button_direct_boot():
	"""The button reaches a guest that polls its input device."""
	script = ("echo READY; for i in $(seq 600); do read -t 1 x < /dev/null; "
		  "if grep -q . /proc/acpi/event 2>/dev/null; then break; fi; "
		  "n=$(awk '/ACPI:Ged/ {print $2}' /proc/interrupts); [ \"$n\" != 0 ] && break; sleep 0.2; done; "
		  "echo GED=$n")
	with v.direct(script) as vm:
		vm.serial.expect("READY")
		vm.qmp.cmd("system_powerdown")
		assert vm.qmp.event("POWERDOWN")
		assert int(vm.serial.expect(r"GED=(\d+)").group(1)) >= 1
		assert vm.qmp.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
		assert vm.wait() == 0


def test_stop_and_cont_under_load():
	"""The guest's clock and disk survive many stops; nothing is lost, nobody complains."""
	script = ("dd if=/dev/zero of=/tmp/x bs=1M count=1 2>/dev/null; i=0; "
		  "while [ $i -lt 40 ]; do i=$((i + 1)); dd if=/dev/vda of=/dev/null bs=64k count=200 "
		  f"2>/dev/null; echo STEP=$i; done; {kernel_log.SHOW}; echo DONE")
	with v.direct(script, "-drive", f"file={v.OVMF_CODE},format=raw,if=virtio,readonly=on",
		      cpus=2) as vm:
		vm.serial.expect("STEP=1")
		for _ in range(10):
			vm.qmp.cmd("stop")
			assert vm.qmp.event("STOP")
			assert vm.qmp.cmd("query-status")["status"] == "paused"
			vm.qmp.cmd("cont")
			assert vm.qmp.event("RESUME")
		vm.serial.expect("STEP=40")
		start = vm.serial.seen
		vm.serial.expect("DONE")
		kernel_log.check(vm.serial.text[start:vm.serial.seen])
		assert vm.wait() == 0


def test_system_reset_boots_again():
	with v.direct("echo READY; sleep 1000") as vm:
		vm.serial.expect("READY")
		vm.qmp.cmd("system_reset")
		event = vm.qmp.event("RESET")
		assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
		vm.serial.expect("READY")
		vm.qmp.cmd("quit")
		assert vm.wait() == 0
