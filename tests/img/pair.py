"""The same command lines for qemu-img and nemu-img, each in a directory of its own, and what they say
and leave there compared."""
import json
import os
import re
import shlex
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEMU_IMG = os.environ.get("NEMU_IMG", os.path.join(ROOT, "build", "nemu-img"))

# what two runs of one program do not have in common either
SAME = [
	(r"disk size: .*", "disk size: N"),
	(r'"actual-size": \d+', '"actual-size": 0'),
	(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
	(r'"date-n?sec": \d+', '"date": 0'),
	(r"completed in \d+\.\d+ seconds", "completed in N seconds"),
]


def plain(text):
	for pattern, instead in SAME:
		text = re.sub(pattern, instead, text)
	return text


def shell(argv, cwd, timeout=20):
	return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=timeout, errors="replace",
			      env={**os.environ, "TZ": "UTC", "LC_ALL": "C"})


class Pair:
	def __init__(self, path):
		self.q, self.n = str(path / "q"), str(path / "n")
		os.mkdir(self.q)
		os.mkdir(self.n)

	def both(self, command):
		"""The result of (qemu-img, nemu-img), which have to end alike."""
		args = shlex.split(command) if isinstance(command, str) else list(command)
		q = shell(["qemu-img", *args], self.q)
		n = shell([NEMU_IMG, *args], self.n)
		assert n.returncode >= 0, f"nemu-img {command}: signal {-n.returncode}\n{n.stderr}"
		assert n.returncode == q.returncode, f"nemu-img {command}\n{n.stderr}\n--- qemu-img\n{q.stderr}"
		if n.returncode and not n.stdout and args[:1] != ["compare"]:
			assert n.stderr.startswith("nemu"), f"nemu-img {command}: no reason given"
		return q, n

	def run(self, command, out=True, status=None):
		"""The same output, byte for byte."""
		q, n = self.both(command)
		if out:
			assert plain(n.stdout) == plain(q.stdout), f"nemu-img {command}"
		if status is not None:
			assert n.returncode == status, f"nemu-img {command}\n{n.stderr}"
		return n

	def json(self, command, without=()):
		"""The same values; without: keys that may differ."""
		pair = [json.loads(plain(done.stdout)) for done in self.both(command)]
		for one in pair:
			for entry in one if isinstance(one, list) else [one]:
				for key in without:
					entry.pop(key, None)
		assert pair[1] == pair[0], f"nemu-img {command}"
		return pair[1]

	def prepare(self, *commands):
		"""qemu's tools, in both directories."""
		for where in (self.q, self.n):
			for command in commands:
				done = shell(shlex.split(command), where)
				assert done.returncode == 0, f"{command}: {done.stderr}"

	def write(self, name, data):
		for where in (self.q, self.n):
			with open(os.path.join(where, name), "wb") as file:
				file.write(data)

	def read(self, name):
		with open(os.path.join(self.n, name), "rb") as file:
			return file.read()

	def exists(self, name):
		there = [os.path.exists(os.path.join(where, name)) for where in (self.q, self.n)]
		assert there[0] == there[1], name
		return there[0]

	def info(self, name, fmt=None):
		"""What qemu-img says of both images."""
		all_ = []
		for where in (self.q, self.n):
			done = shell(["qemu-img", "info", "--output=json", *(["-f", fmt] if fmt else []), name], where)
			assert done.returncode == 0, done.stderr
			all_.append(json.loads(plain(done.stdout)))
		assert all_[1] == all_[0]
		return all_[1]

	def same(self, name, check=True, fmt="qcow2"):
		"""The two images have the same content, and ours is without fault."""
		if check and fmt == "qcow2":
			done = shell(["qemu-img", "check", "-f", "qcow2", name], self.n)
			assert done.returncode == 0, done.stdout + done.stderr
		done = shell(["qemu-img", "compare", "-f", fmt, "-F", fmt, os.path.join(self.q, name),
			      os.path.join(self.n, name)], self.n)
		assert done.returncode == 0, done.stdout + done.stderr

	def nothing_left(self):
		"""No temporary file, and no file that qemu-img would not have made."""
		assert sorted(os.listdir(self.n)) == sorted(os.listdir(self.q))


def nemu_img(cwd, *args, timeout=20):
	return shell([NEMU_IMG, *args], str(cwd), timeout)


def source(size=10 << 20, seed=1):
	"""Random data, zeros and text, in pieces that are no multiples of a cluster."""
	import random
	r = random.Random(seed)
	data = bytearray(size)
	at = 0
	while at < size:
		n = r.choice([512, 4096, 60000, 65536, 200000, 1 << 20])
		kind = r.randrange(4)
		piece = r.randbytes(n) if kind == 0 else b"line of text, over and over\n" * (n // 28) if kind == 1 else b""
		data[at:at + len(piece)] = piece[:max(0, size - at)]
		at += n
	return bytes(data[:size])


def sparse(path, data):
	with open(path, "wb") as file:
		file.truncate(len(data))
		for at in range(0, len(data), 4096):
			if any(data[at:at + 4096]):
				file.seek(at)
				file.write(data[at:at + 4096])
