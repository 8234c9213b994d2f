"""What disks do while the guest runs: another size, a full file system and room again, limits, cache modes,
windows of a file, requests by threads. One boot."""
import hashlib
import os
import re
import subprocess

import vm as v

MIB = 1 << 20
SCRIPT = r"""
cd /sys/class/block
for d in vda vdb vdd; do echo CACHE_$d=$(cat $d/queue/write_cache); done
echo WINDOW=$(cat vdd/size) $(head -c 1048576 /dev/vdd | sha256sum)
echo SIZE=$(cat vda/size)
while [ $(cat vda/size) = 16384 ]; do sleep 0.1; done
echo RESIZED=$(cat vda/size)
dd if=/dev/urandom of=/dev/vda bs=1M seek=8 count=4 oflag=direct 2>/dev/null; echo BEHIND=$?
echo SUM_vda=$(dd if=/dev/vda bs=1M skip=8 count=4 iflag=direct 2>/dev/null | sha256sum)
echo FILL
dd if=/dev/urandom of=/dev/vdb bs=256k count=32 oflag=direct 2>/dev/null; echo FILLED=$?
echo SUM_vdb=$(dd if=/dev/vdb bs=256k count=32 iflag=direct 2>/dev/null | sha256sum)
t() { s=$(cut -d' ' -f1 /proc/uptime); dd if=/dev/vdc of=/dev/null bs=4k count=60 iflag=direct 2>/dev/null
echo $1 $s $(cut -d' ' -f1 /proc/uptime); }
t SLOW
read x
t FAST
dmesg | grep -c 'I/O error'
"""


def test_disks_while_the_guest_runs(tmp_path):
	small = tmp_path / "small"
	small.mkdir()
	subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", small], check=True)
	try:
		run(tmp_path, small)
	finally:
		subprocess.run(["umount", "-l", small], check=True)


def sha(path, start, length):
	with open(path, "rb") as file:
		file.seek(start)
		return hashlib.sha256(file.read(length)).hexdigest()


def run(tmp_path, small):
	growing, full, window = tmp_path / "a.img", small / "b.img", tmp_path / "d.img"
	window.write_bytes(os.urandom(3 * MIB))
	for path, size in ((growing, 8), (full, 64)):
		with open(path, "wb") as file:
			file.truncate(size * MIB)
	with v.direct(SCRIPT, "-object", "iothread,id=io0",
		      "-drive", f"if=none,id=d0,format=raw,aio=threads,file={growing}",
		      "-drive", f"if=none,id=d1,format=raw,cache=writethrough,werror=enospc,file={full}",
		      "-drive", "if=none,id=d2,driver=null-co,size=64M,throttling.iops-total=20",
		      "-blockdev", f"driver=raw,node-name=w0,offset=1M,size=1M,file.driver=file,"
		      f"file.filename={window}",
		      "-device", "virtio-blk-pci,id=disk0,drive=d0",
		      "-device", "virtio-blk-pci,id=disk1,drive=d1,iothread=io0",
		      "-device", "virtio-blk-pci,drive=d2",
		      "-device", "virtio-blk-pci,drive=w0,iothread=io0,config-wce=off") as vm:
		out = vm.serial
		out.expect(r"^SIZE=16384")
		answer = vm.qmp.cmd("block_resize", device="d0", size=12 * MIB)
		assert answer == {}, answer
		out.expect(r"^BEHIND=0")
		out.expect(r"^FILL")
		for room in (None, 4, 64):
			event = vm.qmp.event("BLOCK_IO_ERROR")["data"]
			assert event["device"] == "d1" and event["nospace"] and event["action"] == "stop", event
			assert event["operation"] == "write" and event["qom-path"].endswith("/disk1"), event
			vm.qmp.event("STOP")
			assert vm.qmp.cmd("query-status")["status"] == "io-error"
			if room:
				subprocess.run(["mount", "-o", f"remount,size={room}M", small], check=True)
			vm.qmp.cmd("cont")
			vm.qmp.event("RESUME")
		assert out.expect(r"^FILLED=(\d+)").group(1) == "0"
		out.expect(r"^SLOW.*\n")
		vm.qmp.cmd("block_set_io_throttle", device="d2", bps=0, bps_rd=0, bps_wr=0, iops=0,
			   iops_rd=0, iops_wr=0)
		out.send("\n")
		assert out.expect(r"NEMU-TEST-EXIT=(\d+)").group(1) in "01", out.text[-3000:]
		assert vm.wait() == 0, vm.errors()
		text = out.text.replace("\r", "")
	assert "CACHE_vda=write back" in text and "CACHE_vdb=write through" in text, text[-3000:]
	assert f"WINDOW=2048 {sha(window, MIB, MIB)}" in text
	assert "RESIZED=24576" in text
	assert f"SUM_vda={sha(growing, 8 * MIB, 4 * MIB)}" in text
	assert os.path.getsize(growing) == 12 * MIB
	assert f"SUM_vdb={sha(full, 0, 8 * MIB)}" in text
	seconds = {name: float(b) - float(a)
		   for name, a, b in re.findall(r"^(SLOW|FAST) ([\d.]+) ([\d.]+)$", text, re.M)}
	# 60 requests, 20 a second; the first few wait for nothing
	assert seconds["SLOW"] > 2.5 and seconds["FAST"] < seconds["SLOW"] / 2, seconds
	assert re.search(r"^0$", text, re.M), "the guest saw an error"
