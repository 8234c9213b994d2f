"""User-mode networking through passt, and network peers that misbehave, with a guest.

One guest has two cards: eth0 on passt (DHCP, DNS, TCP both ways), eth1 on a stream socket whose peer
is this test: it never reads, floods, lies and goes away while the guest does other work.
"""
import hashlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

import net
import vm as v

DNS = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.99.0.5", 53))
while True:
	q, a = s.recvfrom(512)
	end = q.index(b"\\0", 12) + 5
	if q[end - 4:end - 2] == b"\\0\\1":	# A
		s.sendto(q[:2] + b"\\x81\\x80" + q[4:6] + b"\\0\\1\\0\\0\\0\\0" + q[12:end] +
			 b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + bytes([192, 0, 2, 99]), a)
	else:
		s.sendto(q[:2] + b"\\x81\\x80" + q[4:6] + b"\\0\\0\\0\\0\\0\\0" + q[12:end], a)
"""

GUEST = r"""
m() { cat /sys/class/net/$1/carrier 2> /dev/null; }
for e in /sys/class/net/e*; do
	case $(cat $e/address) in *:01) u=${e##*/} ;; *:02) s=${e##*/} ;; esac
done
cat > /tmp/dhcp << 'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
for n in $dns; do echo nameserver $n; done > /etc/resolv.conf
echo "DHCP ip=$ip mask=$mask router=$router dns=$dns search=$search"
END
chmod +x /tmp/dhcp
ip link set $u up
udhcpc -i $u -n -q -t 20 -O search -s /tmp/dhcp 2>&1 | tail -n 3
echo "DNS $(nslookup -type=a www.example.org 10.0.2.3 2>&1 | grep -c 192.0.2.99)"
echo "OUT $(wget -q -O - http://10.99.0.5:8000/to-guest | sha256sum)"
echo "GATEWAY $(wget -q -O - http://10.0.2.2:8001/to-guest | sha256sum)"
mkdir /tmp/www; dd if=/dev/urandom of=/tmp/www/from-guest bs=64k count=16 2> /dev/null
echo "SUM $(sha256sum < /tmp/www/from-guest)"
httpd -p 80 -h /tmp/www
echo SERVING; read go
echo "LINK $(m $u) $(m $s)"
ip link set $s up; ip addr add 10.5.0.2/24 dev $s
ip neigh add 10.5.0.1 lladdr 52:54:00:00:00:99 dev $s
send() { dd if=/dev/zero bs=1000 count=$1 2> /dev/null | timeout 60 nc -u -w 1 10.5.0.1 9; }
send 3000 > /dev/null 2>&1
echo "SENT"; read go
echo "RX $(cat /sys/class/net/$s/statistics/rx_packets)"
ls -la / > /dev/null; echo ALIVE; read go
i=0; while [ "$(m $s)" != 0 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done; echo "DOWN $(m $s)"; read go
i=0; while [ "$(m $s)" != 1 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done; echo "UP $(m $s)"
ping -c 1 -W 5 -I $s 10.5.0.1 > /dev/null 2>&1; echo "PINGED"; read go
i=0; while [ "$(m $u)" != 0 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done; echo "GONE $(m $u)"
dmesg -l emerg,alert,crit,err | grep -v -e i8042 | tail -n 5
"""


def frame(payload):
	return struct.pack(">I", len(payload)) + payload


class Network(net.TapNet):
	"""A namespace with an interface that has a default route, and a name server."""

	def __init__(self):
		super().__init__("passt", 0)
		net.ip("-n", self.name, "tuntap", "add", "mode", "tap", "name", "up0")
		net.ip("-n", self.name, "addr", "add", "10.99.0.5/24", "dev", "up0")
		net.ip("-n", self.name, "link", "set", "up0", "up")
		net.ip("-n", self.name, "route", "add", "default", "via", "10.99.0.1", "dev", "up0")
		self.etc = f"/etc/netns/{self.name}"
		os.makedirs(self.etc)
		with open(f"{self.etc}/resolv.conf", "w") as file:
			file.write("nameserver 10.99.0.5\n")

	def processes(self):
		out = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
		names = []
		for pid in out.stdout.split():
			try:
				with open(f"/proc/{pid}/comm") as file:
					names.append(file.read().strip())
			except OSError:
				pass
		return sorted(names)

	def close(self):
		super().close()
		shutil.rmtree(self.etc, ignore_errors=True)


@pytest.fixture(scope="module")
def network():
	n = Network()
	yield n
	n.close()


def wait_for(what, condition, limit=60):
	end = time.monotonic() + limit
	while not condition():
		assert time.monotonic() < end, what
		time.sleep(0.1)


def passts(network):
	return [p for p in network.processes() if p.startswith("passt")]


def memory(vm):
	"""Memory of the process that is not the guest's, in KiB."""
	with open(f"/proc/{nemu_pid(vm)}/status") as file:
		return int(re.search(r"^VmData:\s+(\d+)", file.read(), re.M).group(1))


def nemu_pid(vm):
	return vm.process.pid   # `ip netns exec` becomes the program


def http(port, path, network):
	"""GET from inside the namespace."""
	code = ("import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen("
		f"'http://127.0.0.1:{port}/{path}', timeout=60).read())")
	return subprocess.run(["ip", "netns", "exec", network.name, "/usr/bin/python3", "-c", code],
			      capture_output=True, check=True).stdout


def test_passt_and_hostile_peers(network, tmp_path):
	content = os.urandom(1 << 20)
	(tmp_path / "to-guest").write_bytes(content)
	path = str(tmp_path / "stream")
	server = socket.socket(socket.AF_UNIX)
	server.bind(path)
	server.listen(5)
	network.start("/usr/bin/python3", "-c", DNS)
	for address, port in (("10.99.0.5", 8000), ("127.0.0.1", 8001)):
		network.start("/usr/bin/python3", "-m", "http.server", "-b", address, "-d", str(tmp_path),
			      str(port))
	with v.direct_long(GUEST, str(tmp_path / "script"), "-object", "iothread,id=io0",
		      "-netdev", "user,id=n0,net=10.0.2.0/24,dns=10.0.2.3,dnssearch=example.org,"
		      "hostfwd=tcp:127.0.0.1:2280-:80,hostfwd=tcp::2281-10.0.2.15:80",
		      "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,iothread=io0",
		      "-netdev", f"stream,id=n1,addr.type=unix,addr.path={path},server=off,reconnect=1",
		      "-device", "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:02,iothread=io0",
		      netns=network.name) as vm:
		peer = server.accept()[0]
		assert len(passts(network)) == 1
		out = vm.serial.expect(r"^DHCP ip=(\S+) mask=(\S+) router=(\S+) dns=(.*?) search=(.*?)\r?$")
		assert out.group(1, 2, 3) == ("10.0.2.15", "24", "10.0.2.2"), out.group(0)
		assert out.group(4, 5) == ("10.99.0.5", "example.org"), "the host's name server"
		assert vm.serial.expect(r"^DNS (\d+)").group(1) != "0", "no answer of the name server"
		want = hashlib.sha256(content).hexdigest()
		assert vm.serial.expect(r"^OUT (\w+)").group(1) == want
		assert vm.serial.expect(r"^GATEWAY (\w+)").group(1) == want
		want = vm.serial.expect(r"^SUM (\w+)").group(1)
		vm.serial.expect("SERVING")
		for port in (2280, 2281):
			assert hashlib.sha256(http(port, "from-guest", network)).hexdigest() == want

		# The peer reads nothing of what the guest sends; the guest is not held up.
		vm.serial.send("\n")
		assert vm.serial.expect(r"^LINK (\d) ?(\d?)").group(1) == "1"
		before = memory(vm)
		vm.serial.expect("SENT")
		assert "the peer does not read" in vm.errors()
		# It floods: broadcasts as fast as they are taken, for some seconds.
		flood = frame(b"\xff" * 6 + b"\x52\x54\0\0\0\x99" + b"\x88\xb5" + bytes(1000)) * 50
		sent, end = 0, time.monotonic() + 5
		peer.settimeout(1)
		while time.monotonic() < end or sent < 1 << 20:
			try:
				sent += peer.send(flood)
			except TimeoutError:
				pass
		vm.serial.send("\n")
		vm.serial.expect("ALIVE")
		assert vm.qmp.cmd("query-status")["status"] == "running"
		assert memory(vm) - before < 1024
		# It lies, again and again, then goes, and is there again.
		for length in (0, 0xffffffff, 70000):
			peer.close()
			peer = server.accept()[0]
			peer.sendall(struct.pack(">I", length))
			assert drained(peer), "not hung up after a length that no frame has"
		peer.close()
		server.close()
		os.unlink(path)
		vm.serial.send("\n")
		assert vm.serial.expect(r"^DOWN (\d)").group(1) == "0"
		server = socket.socket(socket.AF_UNIX)
		server.bind(path)
		server.listen(1)
		vm.serial.send("\n")
		peer = server.accept()[0]
		assert vm.serial.expect(r"^UP (\d)").group(1) == "1"
		peer.settimeout(60)
		data = peer.recv(4)
		assert 14 <= struct.unpack(">I", data)[0] <= 65557
		vm.serial.expect("PINGED")
		assert memory(vm) - before < 1024
		assert len(vm.errors().splitlines()) < 30, vm.errors()

		# passt dies: the link is down, the VM goes on to its end.
		for pid in subprocess.run(["ip", "netns", "pids", network.name], capture_output=True,
					  text=True).stdout.split():
			with open(f"/proc/{pid}/comm") as file:
				if file.read().startswith("passt"):
					os.kill(int(pid), signal.SIGKILL)
		vm.serial.send("\n")
		assert vm.serial.expect(r"^GONE (\d)").group(1) == "0"
		assert vm.serial.expect(r"NEMU-TEST-EXIT=(\d+)")
		assert vm.wait() == 0
		assert "passt has ended" in vm.errors()
	network.stop()
	peer.close()
	server.close()
	wait_for("something is left behind", lambda: network.processes() == [])


def drained(peer):
	"""Reads to the end of the stream."""
	peer.settimeout(30)
	try:
		while peer.recv(65536):
			pass
	except ConnectionResetError:
		pass
	except TimeoutError:
		return False
	return True


@pytest.mark.parametrize("how", ["kill", "kill-broker", "quit"])
def test_passt_ends_with_the_vm(network, how):
	with v.Vm("-m", "16M", "-S", "-netdev", "user,id=n0,hostfwd=tcp::2282-:22",
		  "-device", "virtio-net-pci,netdev=n0", serial=False, netns=network.name) as vm:
		assert len(passts(network)) == 1
		assert "nemu-passt" in network.processes()
		if how == "quit":
			vm.qmp.cmd("quit")
			assert vm.wait() == 0
			assert network.processes() == [], "left when nemu had ended"
		elif how == "kill-broker":
			broker = [int(p) for p in subprocess.run(
				["ip", "netns", "pids", network.name], capture_output=True, text=True).stdout.split()
				  if open(f"/proc/{p}/comm").read().strip() == "nemu-broker"]
			os.kill(broker[0], signal.SIGKILL)
			time.sleep(0.5)
			assert len(passts(network)) == 1, "the VM goes on without its broker"
			assert vm.qmp.cmd("query-status")["running"] is False
			vm.process.kill()
		else:
			vm.process.kill()
		wait_for("passt is left behind", lambda: network.processes() == [], 20)


def test_refusals(network):
	"""What passt says is in the message; without passt the message says what to install."""
	def refuse(options, **more):
		command = ["ip", "netns", "exec", network.name, v.NEMU, "-nodefaults", "-display", "none",
			   "-m", "16M", "-S", "-netdev", options]
		out = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
		assert out.returncode == 1, out.stderr
		return out.stderr
	assert "Failed to bind" in refuse("user,id=n0,hostfwd=tcp:10.1.1.1:80-:80")
	assert "hostname=" in refuse("user,id=n0,hostname=x")
	assert "'dgram'" in refuse("dgram,id=n0")
	assert "install passt" in refuse("user,id=n0", env={"PATH": "/usr/sbin:/sbin"})
	assert network.processes() == []
