"""Four queues of a disk and four queue pairs of a network card, each on two iothreads, on packed and
on split rings: fio verifies what it wrote, the host sees the same bytes, iperf3 uses every pair."""
import hashlib
import json
import os
import re

import pytest

import net
import vm as v

MIB = 1 << 20
QUEUES = 4
SCRIPT = r"""set -e
n=$(ls /sys/class/net | grep -v lo)
for d in /sys/bus/virtio/devices/*; do echo FEATURES=$(cat $d/features); done
echo MQ=$(ls /sys/block/vda/mq | wc -l)
fio --name=v --filename=/dev/vda --rw=randwrite --bs=4k-16k --size=2M --offset_increment=2M \
--numjobs=4 --cpus_allowed=0-3 --cpus_allowed_policy=split --ioengine=libaio --iodepth=8 --direct=1 \
--verify=crc32c --do_verify=1 --end_fsync=1 --minimal > /tmp/fio
echo SUM=$(sha256sum < /dev/vda)
ip addr add 10.77.0.2/24 dev $n; ip link set $n up
ethtool -L $n combined 1
echo BEFORE; ethtool -l $n; ethtool -g $n
ethtool -L $n combined 4
echo AFTER; ethtool -l $n
for r in "" -R; do
for i in 0 1 2 3; do iperf3 -c 10.77.0.1 -p 520$i -A $i -t 3 $r > /tmp/i$i || echo FAILED$r & done
wait; cat /tmp/i? | awk '/receiver/ {print "RATE=" $7}'
done
ethtool -L $n combined 2; ping -c 2 -W 9 10.77.0.1 > /dev/null; echo PING=$?
echo RNG=$(head -c 16 /dev/hwrng | wc -c)
grep virtio /proc/interrupts
"""


def mapping(form):
	"""The same in QEMU's two forms."""
	if form == "json":
		return [{"iothread": "io0", "vqs": [0, 3]}, {"iothread": "io1", "vqs": [1, 2]}]
	return {"iothread-vq-mapping.0.iothread": "io0", "iothread-vq-mapping.1.iothread": "io1"}


def devices(packed):
	"""JSON for the one, keys and values for the other."""
	disk = {"driver": "virtio-blk-pci", "drive": "d0", "num-queues": QUEUES, "queue-size": 128,
		"packed": packed, "iothread-vq-mapping": mapping("json")}
	card = {"driver": "virtio-net-pci", "netdev": "n0", "mq": "on", "rx_queue_size": 512,
		"packed": "on" if packed else "off", **mapping("flat")}
	text = ",".join(f"{key}={value}" for key, value in card.items() if key != "driver")
	return ["-device", json.dumps(disk), "-device", f"virtio-net-pci,{text}",
		"-device", f"virtio-rng-pci,packed={card['packed']}"]


def cpu_time(pid):
	"""Nanoseconds that each thread has run, by its name."""
	times = {}
	for task in os.listdir(f"/proc/{pid}/task"):
		with open(f"/proc/{pid}/task/{task}/comm") as file:
			name = file.read().strip()
		with open(f"/proc/{pid}/task/{task}/schedstat") as file:
			times[name] = int(file.read().split()[0])
	return times


def interrupts(text, name):
	"""How many each queue had: {queue: count}."""
	return {match.group(2): sum(int(n) for n in match.group(1).split())
		for match in re.finditer(rf"^\s*\d+:((?:\s+\d+)+)\s.*virtio\d+-({name}\.\d+)$", text, re.M)}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "split"])
def test_four_queues(packed, tmp_path):
	disk = tmp_path / "disk.img"
	with open(disk, "wb") as file:
		file.write(os.urandom(MIB))
		file.truncate(8 * MIB)
	taps = net.TapNet("queues", multi_queue=True)
	try:
		for i in range(QUEUES):
			taps.start("iperf3", "-s", "-B", "10.77.0.1", "-p", f"520{i}")
		with v.direct(SCRIPT, "-object", "iothread,id=io0", "-object", "iothread,id=io1",
			      "-drive", f"if=none,id=d0,format=raw,file={disk}",
			      "-netdev", f"tap,id=n0,ifname=tap0,queues={QUEUES},script=no,downscript=no",
			      *devices(packed), cpus=4, mem="768M", initrd=v.INITRD_FIO,
			      netns=taps.name) as vm:
			vm.serial.expect(r"^MQ=4")
			before = cpu_time(vm.process.pid)
			vm.serial.expect(r"^SUM=")
			middle = cpu_time(vm.process.pid)
			vm.serial.expect("AFTER")
			for _ in range(3):
				vm.qmp.cmd("stop")
				vm.qmp.event("STOP")
				vm.qmp.cmd("cont")
				vm.qmp.event("RESUME")
			vm.serial.expect(r"^RNG=")
			after = cpu_time(vm.process.pid)
			assert vm.serial.expect(r"NEMU-TEST-EXIT=(\d+)").group(1) == "0", vm.serial.text[-3000:]
			assert vm.wait() == 0, vm.errors()
			text, errors = vm.serial.text.replace("\r", ""), vm.errors()
	finally:
		taps.close()
	assert errors == ""
	features = re.findall(r"^FEATURES=([01]+)$", text, re.M)
	assert len(features) == 3 and all(f[34] == str(int(packed)) for f in features), features
	with open(disk, "rb") as file:
		assert hashlib.sha256(file.read()).hexdigest() == re.search(r"SUM=(\w+)", text).group(1)
	for name in ("IO io0", "IO io1"):
		assert before[name] < middle[name] < after[name], f"{name} had nothing to do"
	limits, now = text.split("BEFORE")[1].split("AFTER")
	assert re.findall(r"Combined:\s+(\d+)", limits) == ["4", "1"]
	assert re.findall(r"RX:\s+(\d+)", limits)[-1] == "512"
	assert re.findall(r"Combined:\s+(\d+)", now) == ["4", "4"]
	assert "FAILED" not in text and text.count("RATE=") == 2 * QUEUES, text[-3000:]
	assert "PING=0" in text and "RNG=16" in text
	for name in ("req", "input", "output"):
		counts = interrupts(text, name)
		assert len(counts) == QUEUES, (name, counts, text[-3000:])
		assert name == "output" or all(counts.values()), (name, counts)
