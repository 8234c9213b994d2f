"""Thirty named ports and two consoles at once, on two controllers, with a guest: names, data both ways
on all of them, open and close, ports whose host side is slow, absent or floods.
"""
import os
import re
import select
import socket
import subprocess
import time

import vm as v

SOCKETS, PTYS = 24, 3
NAMES = [f"org.example.{i}" for i in range(SOCKETS + PTYS + 3)]
SLOW, ABSENT = 4, 5     # of the sockets

GUEST = r"""
cd /sys/class/virtio-ports
while [ $(ls vport*/name 2> /dev/null | wc -l) -lt 30 ]; do sleep 0.1; done
for p in vport*; do [ -s $p/name ] && echo "PORT $(cat $p/name) $p"; done
for p in vport*; do
	n=$(cat $p/name 2> /dev/null); n=${n##*.}
	[ -n "$n" ] && ln -s /dev/$p /tmp/port$n
done
echo "NAMED $(ls /tmp/port* | wc -l)"; read go
cd /tmp
# an echo on each, with the number in front, all at once
for n in 0 1 2 3 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 29; do
	(exec 3<> port$n; read line <&3; echo "$n:$line" >&3; sleep 1000) &
done
# one that nobody reads, one that nobody is at, a file, a null device
(exec 3<> port4; dd if=/dev/zero bs=4096 count=256 >&3 2> /dev/null; echo SLOW-DONE > /dev/console) &
(echo "somebody is there" > port5; echo ABSENT-DONE > /dev/console) &
echo "to the file" > port27
dd if=/dev/zero of=port28 bs=4096 count=16 2> /dev/null && echo NULL-DONE
echo LISTENING
read go
# and while port4 is stuck
(exec 3<> /dev/hvc0; echo "hello hvc" >&3; read line <&3; echo "HVC $line" > /dev/console) &
read go
# open and close as the guest sees them: poll says HUP without a host
hup() { echo "OPEN $(cat /sys/kernel/debug/virtio-ports/$(readlink $1 | sed s,/dev/,,) | grep host_connected)"; }
mount -t debugfs none /sys/kernel/debug
hup port0; read go
hup port0; read go
hup port0
echo BYE
"""


def read_until(fd, want, limit=60):
	got, end = b"", time.monotonic() + limit
	while want not in got:
		left = end - time.monotonic()
		assert left > 0, (want, got)
		if select.select([fd], [], [], left)[0]:
			got += os.read(fd, 4096)
	return got


def memory(pid):
	with open(f"/proc/{pid}/status") as file:
		return int(re.search(r"^VmData:\s+(\d+)", file.read(), re.M).group(1))


def port(bus, chardev, name):
	return ["-device", f"virtserialport,bus={bus}.0,chardev={chardev},name={name}"]


def test_thirty_ports(tmp_path):
	args = ["-device", "virtio-serial-pci,id=a", "-device", "virtio-serial-pci,id=b,max_ports=20"]
	server = socket.socket(socket.AF_UNIX)        # for ports that are clients here
	server.bind(str(tmp_path / "back"))
	server.listen(8)
	for i in range(SOCKETS):
		if i in (22, 23):
			if i == 22:
				where = f"path={tmp_path}/back,reconnect=1"
			else:
				where = "host=127.0.0.1,port=7123,server=on,wait=off"
		else:
			where = f"path={tmp_path}/s{i},server=on,wait=off"
		args += ["-chardev", f"socket,id=c{i},{where}"]
	for i in range(SOCKETS, SOCKETS + PTYS):
		args += ["-chardev", f"pty,id=c{i}"]
	args += ["-chardev", f"file,id=c27,path={tmp_path}/file", "-chardev", "null,id=c28",
		 "-chardev", "stdio,id=c29"]
	for i, name in enumerate(NAMES):
		args += port("a" if i < 16 else "b", f"c{i}", name)
	args += ["-chardev", f"socket,id=hvc,path={tmp_path}/hvc,server=on,wait=off",
		 "-device", "virtconsole,bus=a.0,chardev=hvc"]
	with v.direct_long(GUEST, str(tmp_path / "script"), *args, stdin=subprocess.PIPE) as vm:
		back = server.accept()[0]
		peers = {}
		for i in range(SOCKETS):
			if i == 22:
				peers[i] = back
			elif i == 23:
				peers[i] = socket.create_connection(("127.0.0.1", 7123))
			elif i != ABSENT:
				peers[i] = socket.socket(socket.AF_UNIX)
				peers[i].connect(str(tmp_path / f"s{i}"))
		fds = {i: s.fileno() for i, s in peers.items()}
		by_label = {c["label"]: c["filename"] for c in vm.qmp.cmd("query-chardev")}
		for i in range(SOCKETS, SOCKETS + PTYS):
			fds[i] = os.open(by_label[f"c{i}"].removeprefix("pty:"), os.O_RDWR | os.O_NOCTTY)
		names = {}
		for _ in NAMES:
			match = vm.serial.expect(r"^PORT (\S+) (vport\d+p\d+)")
			names[match.group(1)] = match.group(2)
		assert sorted(names) == sorted(NAMES)
		assert len({re.match(r"vport\d+", p).group(0) for p in names.values()}) == 2
		assert vm.serial.expect(r"^NAMED (\d+)").group(1) == "30"
		before = memory(vm.process.pid)
		vm.serial.send("\n")
		vm.serial.expect("NULL-DONE")
		vm.serial.expect("LISTENING")
		# All at once: everything is written before the first answer is read.
		talking = [i for i in fds if i != SLOW]
		fds[29] = vm.process.stdin.fileno()
		for i in talking + [29]:
			os.write(fds[i], f"port {i} speaks\n".encode())
		fds[29] = vm.process.stdout.fileno()
		for i in talking + [29]:
			assert f"{i}:port {i} speaks".encode() in read_until(fds[i], b"speaks\n"), i
		assert (tmp_path / "file").read_text() == "to the file\n"
		# Port 4 has a megabyte that nobody has read yet: it is whole.
		assert "SLOW-DONE" not in vm.serial.text
		# A flood that the guest does not read: it ends in the guest's buffers and the socket's.
		for i in (0, 1, 2):
			peers[i].settimeout(0.5)
			sent = 0
			try:
				while True:
					sent += peers[i].send(bytes(65536))
					assert sent < 8 << 20, "the flood of a port is taken for ever"
			except TimeoutError:
				pass
		# A console loses what comes while the guest has it closed: first it speaks.
		hvc = socket.socket(socket.AF_UNIX)
		hvc.connect(str(tmp_path / "hvc"))
		vm.serial.send("\n")
		read_until(hvc.fileno(), b"hello hvc")
		hvc.sendall(b"hello guest\n")
		vm.serial.expect("HVC hello guest")
		assert memory(vm.process.pid) - before < 1024
		got = b""
		while len(got) < 256 * 4096:
			data = os.read(fds[SLOW], 65536)
			assert data
			got += data
		vm.serial.expect("SLOW-DONE")
		assert got == bytes(256 * 4096)
		# The guest's driver waits for a host; now there is one.
		assert "ABSENT-DONE" not in vm.serial.text
		peers[ABSENT] = socket.socket(socket.AF_UNIX)
		peers[ABSENT].connect(str(tmp_path / f"s{ABSENT}"))
		assert read_until(peers[ABSENT].fileno(), b"there\n") == b"somebody is there\n"
		vm.serial.expect("ABSENT-DONE")
		# open and close, and a client that connects again
		vm.serial.send("\n")
		vm.serial.expect(r"^OPEN host_connected: 1")
		peers[0].close()
		peers[22].close()
		peers[22] = server.accept()[0]
		vm.serial.send("\n")
		vm.serial.expect(r"^OPEN host_connected: 0")
		peers[0] = socket.socket(socket.AF_UNIX)
		peers[0].connect(str(tmp_path / "s0"))
		vm.serial.send("\n")
		vm.serial.expect(r"^OPEN host_connected: 1")
		vm.serial.expect("BYE")
		assert vm.wait() == 0
		errors = [line for line in vm.errors().splitlines() if "redirected to" not in line]
		assert errors == []
		for fd in (fds[i] for i in range(SOCKETS, SOCKETS + PTYS)):
			os.close(fd)
		for peer in peers.values():
			peer.close()
	assert not [n for n in os.listdir(tmp_path) if re.fullmatch(r"s\d+|hvc", n)], "sockets are left"
