"""A running nemu for the tests: its serial port, its QMP socket, its exit status.

No test sleeps: everything waits for a text, an event or the end of the process, with a limit.
"""
import base64
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ARM = os.uname().machine == "aarch64"
BUILD = os.path.join(ROOT, "build-aarch64" if ARM else "build")
NEMU = os.environ.get("NEMU", os.path.join(BUILD, "nemu"))
IMAGES = os.path.join(ROOT, "build-aarch64-deps" if ARM else "build", "images")
CONSOLE = "ttyAMA0" if ARM else "ttyS0"
KERNEL = os.path.join(IMAGES, "vmlinuz")
VMLINUX = os.path.join(IMAGES, "vmlinux.elf")
INITRD = os.path.join(IMAGES, "initrd-test.img")
INITRD_FIO = os.path.join(IMAGES, "initrd-fio.img")
DISK = os.path.join(IMAGES, "debian-x86_64.img")
OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
# Everything under emulation takes long; a limit only says that something hangs.
LIMIT = float(os.environ.get("NEMU_TEST_LIMIT", "600"))


class Timeout(Exception):
	pass


class Stream:
	"""A socket or pipe that is read until a text shows."""

	def __init__(self, fd):
		self.fd = fd
		self.text = ""     # all of it
		self.seen = 0      # what expect() has gone past

	def pump(self, wait):
		if not select.select([self.fd], [], [], wait)[0]:
			return True
		try:
			data = os.read(self.fd, 65536)
		except (ConnectionResetError, OSError):
			return False
		self.text += data.decode("utf-8", "replace")
		return bool(data)

	def expect(self, pattern, limit=LIMIT):
		"""The match object of the first match after what was matched before. What is asked about a
		line, with ^ or groups, is asked of a whole one."""
		end = time.monotonic() + limit
		regex = re.compile(pattern, re.M)
		alive = True
		while True:
			match = regex.search(self.text, self.seen)
			if match and (regex.groups or pattern.startswith("^")):
				match = match if "\n" in self.text[match.start():] else None
			if match:
				self.seen = match.end()
				return match
			if not alive:
				raise Timeout(f"stream ended before {pattern!r}; last:\n{self.text[-3000:]}")
			if time.monotonic() > end:
				raise Timeout(f"no {pattern!r} in {limit} s; last:\n{self.text[-3000:]}")
			alive = self.pump(0.5)

	def send(self, text):
		data = text.encode()
		while data:
			data = data[os.write(self.fd, data):]


class Qmp:
	"""A QMP client; events are kept in .events."""

	def __init__(self, path, negotiate=True, limit=LIMIT):
		self.sock = socket.socket(socket.AF_UNIX)
		end = time.monotonic() + 30
		while True:
			try:
				self.sock.connect(path)
				break
			except (FileNotFoundError, ConnectionRefusedError):
				if time.monotonic() > end:
					raise
				time.sleep(0.05)
		self.sock.settimeout(limit)
		self.buffer = b""
		self.events = []
		self.idle = None   # called while we wait: somebody has to read the serial port
		self.greeting = self.read()
		if negotiate:
			self.cmd("qmp_capabilities")

	def read(self):
		end = time.monotonic() + self.sock.gettimeout()
		while b"\n" not in self.buffer:
			while self.idle and not select.select([self.sock], [], [], 0.2)[0]:
				if time.monotonic() > end:
					raise TimeoutError("nothing over QMP")
				self.idle()
			data = self.sock.recv(65536)
			if not data:
				raise EOFError("QMP connection closed")
			self.buffer += data
		line, self.buffer = self.buffer.split(b"\n", 1)
		return json.loads(line)

	def raw(self, data):
		"""Sends bytes and returns the next answer (events are kept)."""
		self.sock.sendall(data if isinstance(data, bytes) else data.encode())
		return self.answer()

	def answer(self):
		while True:
			message = self.read()
			if "event" not in message:
				return message
			self.events.append(message)

	def cmd(self, name, /, **args):
		request = {"execute": name}
		if args:
			request["arguments"] = args
		reply = self.raw(json.dumps(request))
		if "error" in reply:
			raise RuntimeError(f"{name}: {reply['error']}")
		return reply["return"]

	def event(self, name, limit=LIMIT):
		"""Waits for the next event of this name and takes it."""
		self.sock.settimeout(limit)
		while True:
			for i, event in enumerate(self.events):
				if event["event"] == name:
					return self.events.pop(i)
			message = self.read()
			if "event" in message:
				self.events.append(message)

	def close(self):
		self.sock.close()


class Vm:
	"""One nemu process. args: a list of options beside those for QMP and the serial port."""

	def __init__(self, *args, serial=True, qmp=True, netns=None, nemu=NEMU, defaults=True,
		     stdin=subprocess.DEVNULL):
		self.dir = tempfile.mkdtemp(prefix="nemu-test-")
		self.qmp_path = os.path.join(self.dir, "qmp")
		command = [nemu, "-nodefaults", "-display", "none"] if defaults else [nemu]
		if qmp:
			command += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
		self.serial_socket = None
		if serial:
			path = os.path.join(self.dir, "serial")
			command += ["-serial", f"unix:{path},server=on,wait=off"]
		command += [str(a) for a in args]
		if netns:
			command = ["ip", "netns", "exec", netns] + command
		self.command = command
		self.stderr = open(os.path.join(self.dir, "stderr"), "w+")
		self.process = subprocess.Popen(command, stdin=stdin,
						stdout=subprocess.PIPE, stderr=self.stderr)
		self.qmp = None
		self.serial = None
		try:
			if serial:
				self.serial_socket = self._connect(path)
				self.serial = Stream(self.serial_socket.fileno())
			if qmp:
				self.qmp = Qmp(self.qmp_path)
				if serial:
					self.qmp.idle = lambda: self.serial.pump(0)
		except Exception:
			try:
				self.process.wait(2)
			except subprocess.TimeoutExpired:
				pass
			why = f"nemu did not start (status {self.process.poll()}): {self.errors()}"
			self.kill()
			raise RuntimeError(why) from None

	def _connect(self, path):
		end = time.monotonic() + 60
		while True:
			sock = socket.socket(socket.AF_UNIX)
			try:
				sock.connect(path)
				return sock
			except (FileNotFoundError, ConnectionRefusedError):
				sock.close()
				if self.process.poll() is not None or time.monotonic() > end:
					raise
				time.sleep(0.05)

	def errors(self):
		"""What it said on standard error, and the kernel's word if the filter killed it."""
		self.stderr.flush()
		with open(os.path.join(self.dir, "stderr"), errors="replace") as file:
			text = file.read()
		if self.process.poll() == -signal.SIGSYS:
			log = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
			text += "\n".join(line for line in log.splitlines() if "type=1326" in line)
		return text

	def wait(self, limit=LIMIT):
		"""Exit status; the serial port is read meanwhile, so that the guest does not wait."""
		end = time.monotonic() + limit
		while self.process.poll() is None:
			if time.monotonic() > end:
				raise Timeout(f"nemu does not end; serial:\n"
					      f"{self.serial.text[-2000:] if self.serial else ''}")
			if not self.serial or not self.serial.pump(0.2):
				time.sleep(0.05)
		return self.process.returncode

	def kill(self):
		if self.process.poll() is None:
			self.process.kill()
			self.process.wait()
		for thing in (self.qmp, self.serial_socket):
			if thing:
				thing.close()
		self.stderr.close()
		shutil.rmtree(self.dir, ignore_errors=True)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		if self.process.poll() is None and _[0] is not None:
			print("stderr:", self.errors())
		self.kill()

	# --- guests ---

	def login(self, limit=LIMIT):
		"""At the login prompt of the Debian disk: a root shell with a known prompt."""
		self.serial.expect(r"login: ", limit)
		self.serial.send("root\n")
		self.serial.expect(r"Password: ")
		self.serial.send("nemu\n")
		self.serial.expect(r"[#$] ")
		self.serial.send("stty -echo; PS1='NEMU''> '; PROMPT_COMMAND=\n")
		self.serial.expect(r"NEMU> ")

	def run(self, command, limit=LIMIT):
		"""A command in that shell: (status, output)."""
		self.serial.send(command + "; echo \"=$?=\"\n")
		start = self.serial.seen
		match = self.serial.expect(r"=(\d+)=\r?\n", limit)
		output = self.serial.text[start:match.start()].replace("\r", "")
		self.serial.expect(r"NEMU> ", limit)
		return int(match.group(1)), output


def script_option(script):
	"""For the command line of a kernel with the test initramfs: run this."""
	return "nemu.run=" + base64.b64encode(script.encode()).decode()


def direct(script, *args, cpus=1, mem="512M", append="", kernel=KERNEL, initrd=INITRD,
	   **more):
	"""Direct boot of the test initramfs that runs a shell script and powers off."""
	line = f"console={CONSOLE} quiet {append} {script_option(script)}"
	return Vm("-machine", "virt", "-smp", cpus, "-m", mem, "-kernel", kernel, "-initrd", initrd,
		  "-append", line, *args, **more)


def direct_long(script, path, *args, **more):
	"""The same for a script that is too long for a command line: it is /dev/vda, a file at path."""
	data = script.encode()
	with open(path, "wb") as file:
		file.write(data + b"\n" * (-len(data) % 512))
	return direct("exec sh /dev/vda", "-drive", f"file={path},format=raw,if=virtio,readonly=on", *args,
		      **more)


def run_direct(script, *args, limit=LIMIT, **more):
	"""The same to its end: (status of the script, serial output, vm's exit status)."""
	with direct(script, *args, **more) as vm:
		match = vm.serial.expect(r"NEMU-TEST-EXIT=(\d+)", limit)
		code = vm.wait(limit)
		return int(match.group(1)), vm.serial.text.replace("\r", ""), code, vm.errors()
