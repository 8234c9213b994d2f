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

# Two web servers and a name server. No HTTPServer: it asks the name server for its own name.
SERVERS = """
import functools, http.server, socket, socketserver, sys, threading
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
for address in (("10.99.0.5", 8000), ("127.0.0.1", 8001)):
	server = socketserver.ThreadingTCPServer(address, handler)
	threading.Thread(target=server.serve_forever, daemon=True).start()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.99.0.5", 53))
print("READY", flush=True)
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
ping -q -l 8 -c 8 -s 60000 -w 3 10.5.0.1 > /dev/null 2>&1	# 41 frames each
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

	def pids(self, start=""):
		"""The processes whose names start so."""
		out = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
		found = []
		for pid in out.stdout.split():
			try:
				with open(f"/proc/{pid}/comm") as file:
					if file.read().startswith(start):
						found.append(int(pid))
			except OSError:
				pass
		return found

	def close(self):
		super().close()
		shutil.rmtree(self.etc, ignore_errors=True)


@pytest.fixture(scope="module")
def namespace():
	n = Network()
	yield n
	n.close()


@pytest.fixture
def network(namespace):
	"""The namespace, without anything that a test that failed has left there."""
	yield namespace
	namespace.stop()
	for pid in namespace.pids():
		os.kill(pid, signal.SIGKILL)
	wait_for("cannot be killed", lambda: namespace.pids() == [])


def wait_for(what, condition, limit=60):
	end = time.monotonic() + limit
	while not condition():
		assert time.monotonic() < end, what
		time.sleep(0.1)


def memory(vm):
	"""Memory of the process that is not the guest's, in KiB."""
	# `ip netns exec` becomes the program
	with open(f"/proc/{vm.process.pid}/status") as file:
		return int(re.search(r"^VmData:\s+(\d+)", file.read(), re.M).group(1))


def http_sums(network, path, *ports):
	"""GET from inside the namespace."""
	code = ("import sys, hashlib, urllib.request\n"
		"for url in sys.argv[1:]:\n"
		"	print(hashlib.sha256(urllib.request.urlopen(url, timeout=60).read()).hexdigest())")
	urls = [f"http://127.0.0.1:{port}/{path}" for port in ports]
	out = network.run("/usr/bin/python3", "-c", code, *urls)
	assert out.returncode == 0, out.stderr
	return out.stdout.split()


def flood(peer, frames, seconds, least):
	"""Frames as fast as they are taken, whole ones; the bytes that were taken."""
	sent, rest, start = 0, b"", time.monotonic()
	peer.settimeout(1)
	while rest or time.monotonic() < start + seconds or sent < least:
		assert time.monotonic() < start + 60, f"after {sent} bytes nothing more is taken"
		rest = rest or frames
		try:
			n = peer.send(rest)
		except TimeoutError:
			continue
		sent, rest = sent + n, rest[n:]
	return sent


def test_passt_and_hostile_peers(network, tmp_path):
	content = os.urandom(1 << 20)
	(tmp_path / "to-guest").write_bytes(content)
	path = str(tmp_path / "stream")
	server = socket.socket(socket.AF_UNIX)
	server.bind(path)
	server.listen(5)
	log = tmp_path / "servers"
	network.start("/usr/bin/python3", "-c", SERVERS, str(tmp_path), log=str(log))
	with v.direct_long(GUEST, str(tmp_path / "script"), "-object", "iothread,id=io0",
		      "-netdev", "user,id=n0,net=10.0.2.0/24,dns=10.0.2.3,dnssearch=example.org,"
		      "hostfwd=tcp:127.0.0.1:2280-:80,hostfwd=tcp::2281-10.0.2.15:80",
		      "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,iothread=io0",
		      "-netdev", f"stream,id=n1,addr.type=unix,addr.path={path},server=off,reconnect=1",
		      "-device", "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:02,iothread=io0",
		      netns=network.name) as vm:
		peer = server.accept()[0]
		assert len(network.pids("passt")) == 1
		wait_for("no servers", lambda: "READY" in log.read_text())
		out = vm.serial.expect(r"^DHCP ip=(\S+) mask=(\S+) router=(\S+) dns=(.*?) search=(.*?)\r?$")
		assert out.group(1, 2, 3) == ("10.0.2.15", "24", "10.0.2.2"), out.group(0)
		assert out.group(4, 5) == ("10.99.0.5", "example.org"), "the host's name server"
		assert vm.serial.expect(r"^DNS (\d+)").group(1) != "0", "no answer of the name server"
		want = hashlib.sha256(content).hexdigest()
		assert vm.serial.expect(r"^OUT (\w+)").group(1) == want
		assert vm.serial.expect(r"^GATEWAY (\w+)").group(1) == want
		want = vm.serial.expect(r"^SUM (\w+)").group(1)
		vm.serial.expect("SERVING")
		assert http_sums(network, "from-guest", 2280, 2281) == [want, want]

		# The peer reads nothing of what the guest sends; the guest is not held up.
		vm.serial.send("\n")
		assert vm.serial.expect(r"^LINK (\d) ?(\d?)").group(1) == "1"
		before = memory(vm)
		wait_for("no stall", lambda: "the peer does not read" in vm.errors())
		vm.serial.expect("SENT")
		# It floods with broadcasts. What is not in the guest is in a few buffers.
		one = frame(b"\xff" * 6 + b"\x52\x54\0\0\0\x99" + b"\x88\xb5" + bytes(1000))
		sent = flood(peer, one * 50, 3, 2 << 20)
		vm.serial.send("\n")
		assert int(vm.serial.expect(r"^RX (\d+)").group(1)) * len(one) > sent - (1 << 20)
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
		os.kill(network.pids("passt")[0], signal.SIGKILL)
		vm.serial.send("\n")
		assert vm.serial.expect(r"^GONE (\d)").group(1) == "0"
		assert vm.serial.expect(r"NEMU-TEST-EXIT=(\d+)")
		assert vm.wait() == 0
		assert "passt has ended" in vm.errors()
	network.stop()
	peer.close()
	server.close()
	wait_for("something is left behind", lambda: network.pids() == [])


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
		assert len(network.pids("passt")) == 1
		wait_for("no minder", lambda: network.pids("nemu-passt"))
		if how == "quit":
			vm.qmp.cmd("quit")
			assert vm.wait() == 0
			assert network.pids() == [], "left when nemu had ended"
		elif how == "kill-broker":
			os.kill(network.pids("nemu-broker")[0], signal.SIGKILL)
			time.sleep(0.5)
			assert len(network.pids("passt")) == 1, "the VM goes on without its broker"
			assert vm.qmp.cmd("query-status")["running"] is False
			vm.process.kill()
		else:
			vm.process.kill()
		wait_for("passt is left behind", lambda: network.pids() == [], 20)


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
	wait_for("something is left behind", lambda: network.pids() == [])
