"""QMP as a client sees it: framing, answers, events, hostile clients, sockets.

`-machine none` needs no KVM, so most of it runs anywhere; what needs a running guest is with the
other tests of the lab (system_powerdown of a guest that listens, guest resets).
"""
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vm import NEMU  # noqa: E402

pytestmark = pytest.mark.host
COMMANDS = {"qmp_capabilities", "query-status", "query-version", "query-commands", "query-name",
	    "query-uuid", "query-kvm", "query-cpus-fast", "query-cpu-definitions",
	    "query-hotpluggable-cpus", "query-iothreads", "query-chardev", "stop", "cont",
	    "system_reset", "system_powerdown", "quit", "query-stats", "query-stats-schemas",
	    "trace-event-get-state", "trace-event-set-state", "block_resize", "block_set_io_throttle",
	    "blockdev-reopen"}
NO_LIMITS = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
# of a machine without disks
NOT_FOUND = {"block_resize": {"device": "d0", "size": 512}, "block_set_io_throttle": {"device": "d0", **NO_LIMITS},
	     "blockdev-reopen": {"options": [{"driver": "raw", "node-name": "d0"}]}}
# those that cannot do without
ARGUMENTS = {"query-stats": {"target": "vm"}, "trace-event-get-state": {"name": "*"},
	     "trace-event-set-state": {"name": "*", "enable": False}}
LIMIT = 20


class Client:
	def __init__(self, address, negotiate=True, enable=None):
		family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
		self.sock = address if isinstance(address, socket.socket) else socket.socket(family)
		self.sock.settimeout(LIMIT)
		if not isinstance(address, socket.socket):
			self.sock.connect(address)
		self.data = b""
		self.greeting = self.read()
		if negotiate:
			args = {"arguments": {"enable": enable}} if enable else {}
			assert self.ask({"execute": "qmp_capabilities", **args}) == {"return": {}}

	def read(self):
		while b"\n" not in self.data:
			data = self.sock.recv(65536)
			if not data:
				raise EOFError
			self.data += data
		line, self.data = self.data.split(b"\n", 1)
		assert line.endswith(b"\r")
		return json.loads(line)

	def send(self, data):
		if isinstance(data, (dict, list)):
			data = json.dumps(data)
		self.sock.sendall(data.encode() if isinstance(data, str) else data)

	def answer(self):
		while True:
			message = self.read()
			if "event" not in message:
				return message

	def ask(self, data):
		self.send(data)
		return self.answer()

	def status(self):
		return self.ask({"execute": "query-status"})["return"]["status"]

	def all_until(self, ident):
		"""Every message up to the answer with this id."""
		got = []
		while True:
			got.append(self.read())
			if got[-1].get("id") == ident:
				return got

	def events_until(self, ident):
		return [m["event"] if "event" in m else m.get("id") for m in self.all_until(ident)]

	def ended(self):
		try:
			while self.sock.recv(65536):
				pass
		except ConnectionResetError:
			pass
		return True

	def close(self):
		self.sock.close()


class Server:
	def __init__(self, directory, *args, qmp=None, wait="off", **popen):
		self.path = os.path.join(str(directory), "qmp")
		address = qmp or f"unix:{self.path},server=on,wait={wait}"
		popen.setdefault("stdin", subprocess.DEVNULL)
		popen.setdefault("stdout", subprocess.DEVNULL)
		self.process = subprocess.Popen([NEMU, "-machine", "none", "-qmp", address, *args],
						stderr=subprocess.PIPE, **popen)

	def wait_for(self, path):
		end = time.monotonic() + LIMIT
		while not os.path.exists(path):
			assert self.process.poll() is None, self.process.stderr.read()
			assert time.monotonic() < end
			time.sleep(0.01)

	def client(self, **args):
		self.wait_for(self.path)
		end = time.monotonic() + LIMIT
		while True:
			try:
				return Client(self.path, **args)
			except ConnectionRefusedError:	# bound, not listening yet
				assert time.monotonic() < end
				time.sleep(0.01)

	def rss(self):
		with open(f"/proc/{self.process.pid}/status") as file:
			return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

	def end(self):
		if self.process.poll() is None:
			self.process.kill()
		self.process.wait(LIMIT)
		self.process.stderr.close()


@pytest.fixture
def start(tmp_path):
	servers = []
	counter = itertools.count()

	def go(*args, **more):
		directory = tmp_path / str(next(counter))
		directory.mkdir()
		servers.append(Server(directory, *args, **more))
		return servers[-1]
	yield go
	for server in servers:
		server.end()


@pytest.fixture
def server(start):
	return start("-S")


@pytest.fixture
def client(server):
	return server.client()


def error(message):
	assert set(message) <= {"error", "id"}, message
	assert set(message["error"]) == {"class", "desc"}
	assert message["error"]["desc"]
	return message["error"]["class"]


# --- what is asked and answered ---

def test_greeting(server):
	greeting = server.client(negotiate=False).greeting
	assert set(greeting) == {"QMP"}
	assert set(greeting["QMP"]) == {"version", "capabilities"}
	assert greeting["QMP"]["capabilities"] == ["oob"]
	version = greeting["QMP"]["version"]
	assert set(version["qemu"]) == {"major", "minor", "micro"}
	assert version["package"].startswith("NEMU ")


def test_every_command_answers(server, client):
	names = {row["name"] for row in client.ask({"execute": "query-commands"})["return"]}
	assert names == COMMANDS
	for name, arguments in NOT_FOUND.items():
		reply = client.ask({"execute": name, "id": name, "arguments": arguments})
		assert reply["error"]["class"] == "DeviceNotFound" and reply["id"] == name, reply
	for name in sorted(names - {"qmp_capabilities", "quit", *NOT_FOUND}):
		reply = client.ask({"execute": name, "id": name, "arguments": ARGUMENTS.get(name, {})})
		assert "return" in reply and reply["id"] == name, reply


@pytest.mark.parametrize("name, arguments, word", [
	("block_resize", {"size": 512}, "node-name"),
	("block_resize", {"device": "d0", "node-name": "n0", "size": 512}, "node-name"),
	("block_resize", {"node-name": "n0", "size": 512}, "n0"),
	("block_resize", {"device": "d0", "size": -1}, "size"),
	("block_resize", {"device": "d0"}, "size"),
	("blockdev-reopen", {"options": []}, "options"),
	("blockdev-reopen", {"options": [{"driver": "raw"}]}, "node-name"),
	("blockdev-reopen", {"options": [{"node-name": "a"}, {"node-name": "b"}]}, "one by one"),
	("block_set_io_throttle", NO_LIMITS, "device"),
	("block_set_io_throttle", {"device": "d0", **NO_LIMITS, "bps": -1}, "bps"),
	("block_set_io_throttle", {"device": "d0"}, "bps"),
])
def test_disk_commands_refuse(client, name, arguments, word):
	reply = client.ask({"execute": name, "arguments": arguments})
	assert word in reply["error"]["desc"], reply


def test_queries(start):
	uuid = "01234567-89ab-cdef-0123-456789abcdef"
	client = start("-S", "-name", "guest=a b,debug-threads=on", "-uuid", uuid).client()
	ask = lambda name: client.ask({"execute": name})["return"]	# noqa: E731
	assert ask("query-status") == {"status": "prelaunch", "singlestep": False, "running": False}
	assert ask("query-name") == {"name": "a b"}
	assert ask("query-uuid") == {"UUID": uuid}
	assert ask("query-version") == client.greeting["QMP"]["version"]
	assert ask("query-kvm") == {"enabled": False, "present": False}
	for name in ("query-cpus-fast", "query-hotpluggable-cpus", "query-iothreads", "query-chardev"):
		assert ask(name) == []
	models = {m["name"]: m for m in ask("query-cpu-definitions")}
	assert list(models) == ["host", "max", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
	assert models["host"] == {"name": "host", "typename": "host-x86_64-cpu", "migration-safe": False,
				  "static": False, "deprecated": False}	# no host is known here
	assert models["x86-64-v3"]["migration-safe"]


def test_events_and_their_order(server, client):
	other = server.client()
	silent = server.client(negotiate=False)
	for c in (client, other):
		c.send('{"execute":"query-status","id":0}')
		assert c.events_until(0) == [0]
	for name, events in (("cont", ["RESUME"]), ("cont", []), ("stop", ["STOP"]), ("stop", []),
			     ("system_reset", ["RESET"]), ("system_powerdown", ["POWERDOWN"])):
		before = time.time()
		client.send({"execute": name, "id": name})
		got = client.all_until(name)
		assert [m["event"] for m in got[:-1]] == events, name
		assert got[-1] == {"return": {}, "id": name}
		for message in got[:-1]:
			stamp = message["timestamp"]
			seconds = stamp["seconds"] + stamp["microseconds"] / 1e6
			assert before - 1 < seconds < time.time() + 1
			if name == "system_reset":
				assert message["data"] == {"guest": False,
							   "reason": "host-qmp-system-reset"}
			else:
				assert "data" not in message
	# the others get the same events, and who has not negotiated gets none
	other.send('{"execute":"query-status","id":1}')
	assert other.events_until(1) == ["RESUME", "STOP", "RESET", "POWERDOWN", 1]
	assert error(silent.ask('{"execute":"query-status"}')) == "CommandNotFound"
	client.send({"execute": "quit", "id": "quit"})
	messages = [client.read(), client.read()]
	assert {"return": {}, "id": "quit"} in messages
	shutdown = next(m for m in messages if "event" in m)
	assert shutdown["event"] == "SHUTDOWN"
	assert shutdown["data"] == {"guest": False, "reason": "host-qmp-quit"}
	assert client.ended()
	assert other.read()["event"] == "SHUTDOWN"
	assert server.process.wait(LIMIT) == 0
	assert server.process.stderr.read() == b""


def test_status_follows(client):
	assert client.status() == "prelaunch"
	client.ask({"execute": "cont"})
	assert client.status() == "running"
	client.ask({"execute": "stop"})
	assert client.status() == "paused"


@pytest.mark.parametrize("ident", [
	"0", "-1", "1.5", "1e3", '"text"', '"\\u00e4\\n\\"\\\\"', '""', "true", "false", "null", "[]",
	"{}", '[1, [2, {"a" : "b c"}], "}"]', '{"id": {"id": 1}, "execute": "x"}',
	"9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551615",
	"123456789012345678901234567890"])
def test_ids_come_back(client, ident):
	reply = client.ask(f'{{"execute":"query-name","id":{ident}}}')
	assert reply == {"return": {}, "id": json.loads(ident)}
	reply = client.ask(f'{{"id" : {ident} , "execute":"no-such-command"}}')
	assert error(reply) == "CommandNotFound"
	assert reply["id"] == json.loads(ident)


def test_no_id(client):
	assert client.ask('{"execute":"query-name"}') == {"return": {}}


def test_id_in_arguments_is_no_id(client):
	reply = client.ask('{"arguments":{"id":1},"execute":"query-name"}')
	assert error(reply) == "GenericError" and "id" not in reply


def test_long_id_is_refused(client):
	reply = client.ask({"execute": "query-name", "id": "x" * 5000})
	assert error(reply) == "GenericError" and "id" not in reply


# --- framing ---

def test_single_quotes(client):
	assert client.ask("{'execute':'query-name','id':'a\"b\\'c'}") == {"return": {}, "id": "a\"b'c"}


def test_no_line_end_and_odd_space(client):
	assert client.ask(' \t\r\n { "execute" \r\n :\t"query-name" } ')["return"] == {}


def test_many_commands_in_one_write(client):
	count = 2000
	text = "".join(f'{{"execute":"query-commands","id":{i}}}' for i in range(count))
	client.sock.setblocking(True)
	client.sock.settimeout(LIMIT)
	pid = os.fork()			# who does not read while writing would not be served
	if pid == 0:
		try:
			client.sock.sendall(text.encode())
		finally:
			os._exit(0)
	assert [client.answer()["id"] for _ in range(count)] == list(range(count))
	os.waitpid(pid, 0)


def test_answers_keep_the_order(client):
	text = "".join(f'{{"execute":"{name}","id":{i}}}' for i, name in enumerate(
		["cont", "stop", "no-such", "system_reset", "query-status"] * 20))
	client.send(text + "{]")
	assert [client.answer()["id"] for _ in range(100)] == list(range(100))
	assert error(client.answer()) == "GenericError"


def test_one_command_in_many_writes(client):
	client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) \
		if client.sock.family != socket.AF_UNIX else None
	for byte in b'{"execute": "query-name", "id": "\\u00e4 \xc3\xa4"}':
		client.send(bytes([byte]))
	assert client.answer() == {"return": {}, "id": "\u00e4 \u00e4"}


@pytest.mark.parametrize("text", [
	"{]", "[}", "{}", "[]", "[1]", "{,}", '{"execute"}', '{"execute":}', '{"execute":"stop",}',
	'{"execute":"stop" "id":1}', '{execute:"stop"}', '{"execute":"st\\xop"}', '{"execute":"\\ud800"}',
	'{"execute":stop}', '{"execute":tru}', '{"execute":"stop","id":01}', '{"execute":"stop","id":1.}',
	'{"execute":"stop","id":1e999}', '{"execute":"stop","execute":"cont"}',
	'{"execute":"stop","id":1,"id":2}', '{"execute":"stop","exec-oob":"stop"}',
	'{"execute":1}', '{"execute":null}', '{"execute":["stop"]}', '{"execute":"stop","arguments":[]}',
	'{"execute":"stop","arguments":1}', '{"execute":"stop","arguments":null}',
	'{"execute":"stop","more":1}', '{"arguments":{}}', '{"id":1}', '{"execute":"stop","\\u0000":1}',
	'{"execute":"stop","arguments":{"x":1}}', '{"execute":"stop","arguments":{"":1}}',
	'{"execute":"query-status","arguments":{"x":123456789012345678901234567890}}',
	b'{"execute":"\xff\xfe"}\n', b'{"execute":"\xc3("}', b'{"execute":"\xc0\x80"}',
	b'{"execute":"\xed\xa0\x80"}', b'{"execute":"stop\x01"}\n', b'{"execute":"stop","\xc3":1}',
	b"\x00\n", b"\x04", "x\n", "42\n", '"stop"\n', "stop\n", "}\n", "]]]\n", "null{}"])
def test_wrong_input_is_refused(client, text):
	client.send(text)
	assert error(client.read()) == "GenericError"
	client.send('\n{"execute":"query-status","id":"after"}')
	rest = client.all_until("after")
	assert all(error(m) == "GenericError" for m in rest[:-1])
	assert rest[-1]["return"]["status"] == "prelaunch"	# nothing of it was executed


@pytest.mark.parametrize("name", ["", "x", "QUERY-STATUS", "quit ", "quit\\u0000", "quit\\u0000x",
				  "query_status", "human-monitor-command", "%s%n", "x" * 1000],
			 ids=range(10))
def test_unknown_commands(client, name):
	assert error(client.ask(f'{{"execute":"{name}"}}')) == "CommandNotFound"
	assert client.status() == "prelaunch"


def test_unfinished_message_can_be_left(client):
	"""QMP specification: a control character, or 0xFF, is a lexical error that starts afresh."""
	for begun in ('{"execute":"query-', '{"execute":', '{"a":[[[{"b":\'', "[" * 1000, '{"x":"\\'):
		for sync in (b"\x04", b"\xff", b"\x00"):
			client.send(begun)
			client.send(sync)
			assert error(client.read()) == "GenericError"
			assert client.ask('{"execute":"query-name","id":1}') == {"return": {}, "id": 1}
	client.send('{"execute":"que\n{"execute":"query-name","id":2}')
	assert error(client.read()) == "GenericError"
	assert client.read() == {"return": {}, "id": 2}


@pytest.mark.parametrize("text", [
	'{"execute":"query-name","id":"%s"}' % ("x" * (1 << 20)),
	'{"execute":"query-name","arguments":{"x":"%s"}}' % ("x" * (3 << 20)),
	'{"execute":"%s"}' % ("x" * (1 << 20)),
	'{"execute":"query-name","id":%s}' % ("[" * 129 + "]" * 129),
	'{"execute":"query-name","id":%s}' % ("[" * 200000 + "]" * 200000),
	'{"x":' * 5000 + "1" + "}" * 5000,
	'{"execute":"query-name","id":[%s1]}' % ("1," * 600000)],
	ids=["id", "argument", "command", "depth-129", "depth-200000", "objects", "array"])
def test_oversized_and_deep(server, client, text):
	client.send(text)
	assert error(client.read()) == "GenericError"
	assert client.ask('{"execute":"query-name","id":1}') == {"return": {}, "id": 1}


def test_largest_request_passes(client):
	pad = " " * ((1 << 20) - 100)
	assert client.ask('{"execute":"query-name",%s"id":1}' % pad) == {"return": {}, "id": 1}


def test_oversized_input_leaves_no_memory_behind(server, client):
	client.ask('{"execute":"query-name"}')
	before = server.rss()
	for _ in range(20):
		client.send('{"execute":"query-name","id":[%s1]}' % ("[]," * 300000))
		assert error(client.read()) == "GenericError"
	assert server.rss() - before < 16 * 1024


# --- negotiation, out-of-band ---

def test_before_negotiation(server):
	client = server.client(negotiate=False)
	for name in sorted(COMMANDS - {"qmp_capabilities"}) + ["no-such"]:
		reply = client.ask({"execute": name, "id": 7})
		assert error(reply) == "CommandNotFound" and reply["id"] == 7
		assert "qmp_capabilities" in reply["error"]["desc"]
	assert error(client.ask({"exec-oob": "query-status"})) == "CommandNotFound"
	for enable in (["nothing"], ["oob", 1], [None], "oob", {}, 1, ["oob\0"]):
		assert error(client.ask({"execute": "qmp_capabilities",
					 "arguments": {"enable": enable}})) == "GenericError"
		assert error(client.ask({"execute": "query-status"})) == "CommandNotFound"
	assert client.ask({"execute": "qmp_capabilities", "arguments": {"enable": []}}) == {"return": {}}
	assert client.status() == "prelaunch"


def test_negotiated_twice(client):
	reply = client.ask({"execute": "qmp_capabilities"})
	assert error(reply) == "CommandNotFound" and "already" in reply["error"]["desc"]
	assert client.status() == "prelaunch"


def test_each_client_negotiates(server, client):
	assert error(server.client(negotiate=False).ask({"execute": "stop"})) == "CommandNotFound"


def test_out_of_band(server, client):
	reply = client.ask({"exec-oob": "query-status", "id": 1})
	assert error(reply) == "GenericError" and reply["id"] == 1
	assert "not been enabled" in reply["error"]["desc"]
	with_oob = server.client(enable=["oob"])
	reply = with_oob.ask({"exec-oob": "query-status", "id": 1})
	assert error(reply) == "GenericError" and "does not support" in reply["error"]["desc"]
	assert error(with_oob.ask({"exec-oob": "no-such"})) == "CommandNotFound"
	assert with_oob.status() == "prelaunch"


# --- clients that come, go and misbehave ---

def test_disconnect_in_mid_message_and_again(server):
	for begun in ("", '{"execute":"qu', '{"execute":"qmp_capabilities"}{"execute":"stop"', "[" * 5000,
		      '{"execute":"qmp_capabilities"}{"execute":"query-commands"}' * 1000):
		first = server.client(negotiate=False)
		first.send(begun)
		first.close()
		assert server.client().status() == "prelaunch"


def test_half_close_still_gets_the_answers(server):
	client = server.client()
	client.send('{"execute":"cont"}{"execute":"stop"}{"execute":"query-status","id":1}{"exec')
	client.sock.shutdown(socket.SHUT_WR)
	assert client.all_until(1)[-1]["return"]["status"] == "paused"
	assert client.ended()


def test_a_client_that_never_reads(server):
	"""It is not read from any more, costs bounded memory, and others are served."""
	good = server.client()
	bad = server.client()
	before = server.rss()
	bad.sock.setblocking(False)
	sent, stuck = 0, 0
	request = b'{"execute":"query-commands"}' * 1000
	while stuck < 20 and sent < 64 << 20:
		try:
			sent += bad.sock.send(request)
			stuck = 0
		except BlockingIOError:
			stuck += 1
			assert good.status() in ("prelaunch", "paused")
	assert stuck == 20 and sent < 8 << 20
	# events go to it as well, until it has had its share
	for _ in range(8000):
		good.send('{"execute":"cont"}{"execute":"stop"}')
		for _ in range(4):
			good.read()
	assert server.rss() - before < 8 * 1024
	bad.sock.setblocking(True)
	assert bad.ended()			# disconnected, after what the socket still holds
	assert good.status() == "paused"
	assert server.client().status() == "paused"


def test_a_hundred_clients(server):
	clients = [server.client() for _ in range(100)]
	for i, client in enumerate(clients):
		client.send({"execute": "query-status", "id": i})
	for i, client in enumerate(clients):
		assert client.answer()["id"] == i
	clients[42].send('{"execute":"cont"}')
	for client in clients:
		assert client.read()["event"] == "RESUME"
	for client in clients:
		client.close()
	assert server.client().status() == "running"


def test_more_clients_than_there_is_room_for(server):
	"""They wait until others leave."""
	clients = [server.client(negotiate=False) for _ in range(128)]
	late = socket.socket(socket.AF_UNIX)
	late.settimeout(0.2)
	late.connect(server.path)
	with pytest.raises(TimeoutError):
		late.recv(1)
	for client in clients[:5]:
		client.close()
	assert Client(late).status() == "prelaunch"


# --- addresses ---

def test_socket_mode_and_removal(server):
	client = server.client()
	mode = os.stat(server.path).st_mode
	assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
	client.send('{"execute":"quit"}')
	assert server.process.wait(LIMIT) == 0
	assert not os.path.exists(server.path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_as_quit_does(server, number):
	client = server.client()
	server.process.send_signal(number)
	message = client.read()
	assert message["event"] == "SHUTDOWN"
	assert message["data"] == {"guest": False, "reason": "host-signal"}
	assert server.process.wait(LIMIT) == 0
	assert not os.path.exists(server.path)


def test_socket_is_removed_after_sigkill(server):
	server.client()
	server.process.kill()
	server.process.wait(LIMIT)
	end = time.monotonic() + LIMIT
	while os.path.exists(server.path):
		assert time.monotonic() < end, "the broker does not remove it"
		time.sleep(0.01)


def test_stale_socket_is_replaced(tmp_path):
	path = str(tmp_path / "qmp")
	with socket.socket(socket.AF_UNIX) as old:
		old.bind(path)
	server = Server(tmp_path, "-S")
	try:
		end = time.monotonic() + LIMIT
		while True:
			try:
				assert Client(path).status() == "prelaunch"
				break
			except (ConnectionRefusedError, FileNotFoundError):
				assert server.process.poll() is None and time.monotonic() < end
				time.sleep(0.01)
	finally:
		server.end()


def test_live_socket_is_refused(tmp_path, server, client):
	second = subprocess.run([NEMU, "-machine", "none", "-S", "-qmp",
				 f"unix:{server.path},server=on,wait=off"], capture_output=True,
				text=True, timeout=LIMIT)
	assert second.returncode == 1
	assert second.stderr.count("\n") == 1 and server.path in second.stderr
	assert client.status() == "prelaunch"
	assert server.client().status() == "prelaunch"	# its socket is still there


def test_a_file_in_the_way_stays(tmp_path):
	path = tmp_path / "qmp"
	path.write_text("precious")
	done = subprocess.run([NEMU, "-machine", "none", "-qmp", f"unix:{path},server=on,wait=off"],
			      capture_output=True, text=True, timeout=LIMIT)
	assert done.returncode == 1 and str(path) in done.stderr
	assert path.read_text() == "precious"


def free_port():
	with socket.socket() as s:
		s.bind(("127.0.0.1", 0))
		return s.getsockname()[1]


def test_tcp(start):
	port = free_port()
	server = start("-S", qmp=f"tcp:127.0.0.1:{port},server=on,wait=off")
	end = time.monotonic() + LIMIT
	while True:
		try:
			client = Client(("127.0.0.1", port))
			break
		except ConnectionRefusedError:
			assert server.process.poll() is None and time.monotonic() < end
			time.sleep(0.01)
	assert client.status() == "prelaunch"
	# reset instead of an orderly end, in mid-message
	other = Client(("127.0.0.1", port))
	other.send('{"execute":"query-st')
	other.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
	other.close()
	assert client.status() == "prelaunch"
	client.send('{"execute":"quit"}')
	assert server.process.wait(LIMIT) == 0


def test_server_off_connects(start, tmp_path):
	path = str(tmp_path / "listening")
	with socket.socket(socket.AF_UNIX) as listener:
		listener.bind(path)
		listener.listen()
		listener.settimeout(LIMIT)
		start("-S", qmp=f"unix:{path}")
		peer, _ = listener.accept()
		assert Client(peer).status() == "prelaunch"


def test_stdio(tmp_path):
	process = subprocess.Popen([NEMU, "-machine", "none", "-S", "-qmp", "stdio"], text=True,
				   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
	out, err = process.communicate(
		'{"execute":"qmp_capabilities"}\n{"execute":"query-status","id":1}{"execute":"quit","id":2}',
		timeout=LIMIT)
	messages = [json.loads(line) for line in out.splitlines()]
	assert "QMP" in messages[0] and messages[1] == {"return": {}}
	assert messages[2]["id"] == 1
	assert {"return": {}, "id": 2} in messages
	assert process.returncode == 0 and err == ""


def test_stdio_into_a_file(tmp_path):
	with open(tmp_path / "out", "w") as out:
		process = subprocess.run([NEMU, "-machine", "none", "-S", "-qmp", "stdio"], stdout=out,
					 input='{"execute":"qmp_capabilities"}{"execute":"quit","id":2}',
					 text=True, timeout=LIMIT, stderr=subprocess.PIPE)
	assert process.returncode == 0 and process.stderr == ""
	assert '"id":2' in (tmp_path / "out").read_text()


def test_stdio_end_of_input_is_not_the_end(start, tmp_path):
	"""Standard input that ends is a client that leaves; the other socket still works."""
	path = str(tmp_path / "second")
	server = start("-S", "-qmp", f"unix:{path},server=on,wait=off", qmp="stdio",
		       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
	server.process.stdin.close()
	assert b'"QMP"' in server.process.stdout.readline()
	server.path = path
	client = server.client()
	assert client.status() == "prelaunch"
	with open(f"/proc/{server.process.pid}/stat") as file:
		ticks = sum(map(int, file.read().split()[13:15]))
	assert ticks < 100			# it does not spin


def test_wait_on(start, tmp_path):
	"""Nobody is heard before each socket with wait=on has a client; then the machine starts."""
	path = str(tmp_path / "second")
	server = start("-S", "-qmp", f"unix:{path},server=on,wait=on", wait="on")
	first = server.client(negotiate=False)
	first.sock.settimeout(0.3)
	first.send('{"execute":"qmp_capabilities"}{"execute":"cont","id":1}')
	with pytest.raises(TimeoutError):
		first.read()
	first.sock.settimeout(LIMIT)
	second = Client(path)
	assert first.all_until(1)[-1] == {"return": {}, "id": 1}
	assert second.status() == "running"


def test_wait_on_ends_with_a_signal(start):
	server = start("-S", wait="on")
	server.wait_for(server.path)
	time.sleep(0.2)
	server.process.terminate()
	assert server.process.wait(LIMIT) == 0
	assert not os.path.exists(server.path)


@pytest.mark.parametrize("address", [
	"", "unix:", "unix:,server=on", "/tmp/x", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:,server=on",
	"tcp:127.0.0.1:1234567,server=on", "tcp:no.such.host.invalid:1,server=on", "stdio,x=1",
	"unix:/nonexistent/dir/qmp,server=on", "unix:/tmp/x,server=perhaps", "unix:/tmp/x,wait=1x",
	"unix:/tmp/nemu-nobody-listens", "unix:/tmp/x,server=on,more=1", "unix:/" + "x" * 200 + ",server=on"])
def test_bad_addresses(address):
	done = subprocess.run([NEMU, "-machine", "none", "-qmp", address], capture_output=True, text=True,
			      timeout=LIMIT, stdin=subprocess.DEVNULL)
	assert done.returncode == 1
	assert done.stderr.count("\n") == 1 and "-qmp" in done.stderr, done.stderr
