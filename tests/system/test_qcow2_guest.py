"""A guest on qcow2 disks: four queues on two iothreads above a backing chain, a file system that is made,
filled, trimmed, grown and checked, and a disk whose file system is full three times. One boot; QEMU's own
tools look at the images and at the host's side of each byte afterwards."""
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile

import vm as v

MIB = 1 << 20
NEMU_IMG = os.path.join(v.ROOT, "build", "nemu-img")
PROGRAMS = ["mke2fs", "e2fsck", "resize2fs"]
SCRIPT = r"""set -e
fail() { echo "FAILED: $*"; exit 1; }
sum() { echo SUM_$1=$(dd if=/dev/$1 bs=1M iflag=direct 2> /dev/null | sha256sum); }
same() { cmp -n $3 /dev/$1 $2 || fail "$1 is not $2"; }
echo 3 > /proc/sys/kernel/printk
echo QUEUES=$(ls /sys/block/vdb/mq | wc -l)

# the chain: what was there below, then new clusters, then the same again
sum vdb
for seed in 1 2; do
fio --name=v --filename=/dev/vdb --rw=randwrite --bs=4k-16k --size=2M --offset_increment=2M --numjobs=4 \
  --cpus_allowed=0-3 --cpus_allowed_policy=split --ioengine=libaio --iodepth=8 --direct=1 --randseed=$seed \
  --verify=crc32c --do_verify=1 --end_fsync=1 --minimal > /tmp/fio || fail fio $seed
done
blkdiscard -o 1M -l 1M /dev/vdb
blkdiscard -z -o 3M -l 1M /dev/vdb
dd if=/dev/vdb bs=1M skip=1 count=1 iflag=direct 2> /dev/null | cmp -n 1048576 - /dev/zero || fail discard
dd if=/dev/vdb bs=1M skip=3 count=1 iflag=direct 2> /dev/null | cmp -n 1048576 - /dev/zero || fail zeroes
sum vdb

# the file system
mke2fs -q -t ext4 -E nodiscard /dev/vdc
mount -t ext4 /dev/vdc /mnt
dd if=/dev/urandom of=/mnt/keep bs=64k count=32 2> /dev/null
dd if=/dev/urandom of=/mnt/drop bs=64k count=128 2> /dev/null
sync
echo FULL
read x
rm /mnt/drop
sync
fstrim /mnt || fail fstrim
dd if=/dev/zero of=/mnt/flush bs=4k count=1 conv=fsync 2> /dev/null
sync
echo TRIMMED
while [ $(cat /sys/block/vdc/size) = 65536 ]; do sleep 0.1; done
resize2fs /dev/vdc 2> /dev/null > /dev/null || fail resize2fs
cp /mnt/keep /mnt/more
dd if=/dev/urandom of=/mnt/new bs=64k count=64 2> /dev/null
cmp /mnt/keep /mnt/more
df -m /mnt | tail -1 | awk '{ print "MIB=" $2 }'
umount /mnt
e2fsck -fn /dev/vdc > /tmp/fsck || fail e2fsck $(cat /tmp/fsck)
sum vdc

# no room for it
echo FILL
dd if=/dev/urandom of=/dev/vdd bs=256k count=48 oflag=direct 2> /dev/null || fail dd
dd if=/dev/zero of=/dev/vdd bs=256k seek=56 count=1 conv=fsync 2> /dev/null || fail dd
sum vdd
echo ERRORS=$(dmesg | grep -c 'I/O error' || true)
"""


def tools_disk(path):
	"""A tar with the script and, because the test initramfs has no ext4 tools, this machine's."""
	with tarfile.open(path, "w") as tar:
		info = tarfile.TarInfo("script")
		info.size = len(SCRIPT)
		tar.addfile(info, io.BytesIO(SCRIPT.encode()))
		libraries = set()
		for name in PROGRAMS:
			program = next(p for p in (f"/sbin/{name}", f"/usr/sbin/{name}") if os.path.exists(p))
			tar.add(os.path.realpath(program), f"bin/{name}")
			text = subprocess.run(["ldd", program], capture_output=True, text=True,
					      check=True).stdout
			libraries |= set(re.findall(r"(/\S+) \(0x", text))
		for library in libraries:
			tar.add(os.path.realpath(library), library[1:])
	return path


def sh(*argv):
	done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
	assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
	return done.stdout


def content(path, tmp_path):
	"""What QEMU reads there."""
	raw = tmp_path / "content"
	sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	with open(raw, "rb") as file:
		digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else \
			hashlib.sha256(file.read())
	# and we
	sh(NEMU_IMG, "compare", "-f", "qcow2", "-F", "raw", path, raw)
	os.unlink(raw)
	return digest.hexdigest()


def check(path):
	"""Nothing wrong, nothing lost, for either."""
	report = json.loads(sh("qemu-img", "check", "-f", "qcow2", "--output=json", path))
	assert not report.get("corruptions") and not report.get("leaks"), report
	sh(NEMU_IMG, "check", "-f", "qcow2", path)


def allocated(path):
	return os.stat(path).st_blocks * 512


def chain(tmp_path):
	"""raw below a qcow2 of QEMU's below one of ours."""
	base, mid, top = (tmp_path / name for name in ("base.raw", "mid.qcow2", "top.qcow2"))
	base.write_bytes(os.urandom(10 * MIB + 512))
	sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-o", "cluster_size=4k", mid)
	sh("qemu-io", "-f", "qcow2", "-c", "write -P 77 100k 3M", mid)
	sh(NEMU_IMG, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "mid.qcow2", top, "12M")
	return base, mid, top


def test_qcow2_disks_of_a_guest(tmp_path):
	small = tmp_path / "small"
	small.mkdir()
	subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M", "none", small], check=True)
	try:
		guest(tmp_path, small)
	finally:
		subprocess.run(["umount", "-l", small], check=True)


def guest(tmp_path, small):
	base, mid, top = chain(tmp_path)
	below = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (base, mid)]
	fs, full = tmp_path / "fs.qcow2", small / "full.qcow2"
	sh(NEMU_IMG, "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", fs, "32M")
	sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", full, "16M")
	first = content(top, tmp_path)
	queues = "num-queues=4,iothread-vq-mapping.0.iothread=io0,iothread-vq-mapping.1.iothread=io1"
	with v.direct("cd /; tar xf /dev/vda; exec sh /script",
		      "-object", "iothread,id=io0", "-object", "iothread,id=io1",
		      "-drive", f"if=none,id=tools,format=raw,readonly=on,file={tools_disk(tmp_path / 'tools')}",
		      "-blockdev", f"driver=qcow2,node-name=top,discard=unmap,file.filename={top},"
		      "backing.node-name=mid,file.node-name=below",
		      "-drive", f"if=none,id=fs,format=qcow2,discard=unmap,file={fs}",
		      "-drive", f"if=none,id=full,format=qcow2,file={full}",
		      "-device", "virtio-blk-pci,drive=tools",
		      "-device", f"virtio-blk-pci,drive=top,{queues}",
		      "-device", f"virtio-blk-pci,drive=fs,{queues}",
		      "-device", "virtio-blk-pci,id=disk3,drive=full,iothread=io1",
		      cpus=4, mem="768M", initrd=v.INITRD_FIO) as vm:
		out = vm.serial
		out.expect(r"^FULL")
		before = allocated(fs)
		out.send("\n")
		out.expect(r"^TRIMMED")
		assert allocated(fs) < before - 7 * MIB, "fstrim gave nothing back"
		vm.qmp.cmd("block_resize", device="fs", size=48 * MIB)
		# other options while it is in use; what cannot change says so
		for options in ({"l2-cache-size": 4096, "refcount-cache-size": 4096, "discard": "unmap"},
				{"lazy-refcounts": True, "overlap-check": "all", "discard": "unmap"},
				{"cache": {"no-flush": False}, "discard": "unmap", "lazy-refcounts": False}):
			vm.qmp.cmd("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "top", **options}])
		for options in ({"node-name": "top", "read-only": True}, {"node-name": "top", "file": "x"},
				{"node-name": "mid", "driver": "qcow2", "read-only": False}, {"node-name": "below"}):
			reply = vm.qmp.raw(json.dumps({"execute": "blockdev-reopen",
						       "arguments": {"options": [options]}}))
			assert "error" in reply, (options, reply)
		out.expect(r"^FILL")
		for room in ("6M", "10M", "64M"):
			event = vm.qmp.event("BLOCK_IO_ERROR")["data"]
			assert event["device"] == "full" and event["nospace"] and event["action"] == "stop", event
			vm.qmp.event("STOP")
			assert vm.qmp.cmd("query-status")["status"] == "io-error"
			subprocess.run(["mount", "-o", f"remount,size={room}", small], check=True)
			vm.qmp.events = [e for e in vm.qmp.events if e["event"] != "BLOCK_IO_ERROR"]
			vm.qmp.cmd("cont")
			vm.qmp.event("RESUME")
		assert out.expect(r"NEMU-TEST-EXIT=(\d+)").group(1) == "0", out.text[-3000:]
		assert vm.wait() == 0, vm.errors()
		text, errors = out.text.replace("\r", ""), vm.errors()
	assert errors == "", errors
	assert "QUEUES=4" in text and "FAILED" not in text, text[-3000:]
	assert int(re.search(r"^MIB=(\d+)", text, re.M).group(1)) > 36, "the file system has not grown"
	assert re.search(r"^ERRORS=0$", text, re.M), "the guest saw an error"
	sums = re.findall(r"^SUM_(\w+)=(\w+)", text, re.M)
	assert sums == [("vdb", first), ("vdb", content(top, tmp_path)), ("vdc", content(fs, tmp_path)),
			("vdd", content(full, tmp_path))]
	for path in (top, fs, full):
		check(path)
	assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in (base, mid)] == below
