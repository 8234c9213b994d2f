"""What the tests of this folder share: qcow2_tool, qemu-img and qemu-io, and random programs."""
import json
import os
import random
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
TOOL = os.path.join(ROOT, os.environ.get("NEMU_BUILD", "build"), "tests", "format", "qcow2_tool")
NEMU_IMG = os.path.join(ROOT, os.environ.get("NEMU_BUILD", "build"), "nemu-img")


def sh(*argv, check=True):
	done = subprocess.run(argv, capture_output=True, text=True, timeout=120, errors="replace")
	if check and done.returncode:
		raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
	return done


def qemu_check(path, leaks=0):
	"""qemu-img check: nothing wrong, and no leaks but those allowed."""
	done = sh("qemu-img", "check", "-f", "qcow2", "--output=json", path, check=False)
	report = json.loads(done.stdout) if done.stdout.startswith("{") else {}
	assert report and not report.get("corruptions") and not report.get("check-errors"), \
		f"{path}: {done.stdout}{done.stderr}"
	assert leaks is None or report.get("leaks", 0) <= leaks, f"{path}: {done.stdout}{done.stderr}"
	return report


def qemu_io(path, *commands):
	"""Each command must succeed; a pattern that differs is a failure."""
	argv = ["qemu-io", "-f", "qcow2", "-d", "unmap"]
	for command in commands:
		argv += ["-c", command]
	done = sh(*argv, path)
	text = done.stdout + done.stderr
	assert "failed" not in text and "rror" not in text and "nvalid" not in text, text
	return text


def create(path, options):
	done = sh(TOOL, "--create", path, options, check=False)
	assert done.returncode == 0, done.stdout + done.stderr
	return path


class Image:
	"""qcow2_tool on an image."""

	def __init__(self, path, options=""):
		self.path = path
		self.text = f"driver=qcow2,file.driver=file,file.filename={path}{options}"
		self.log = ""
		self.proc = subprocess.Popen([TOOL, self.text], stdin=subprocess.PIPE, text=True,
					     stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1)
		self.first = self.proc.stdout.readline().strip()

	def __enter__(self):
		assert self.first == "ok open", f"{self.text}: {self.first}"
		return self

	def __exit__(self, kind, value, trace):
		self.close()

	def ask(self, line):
		self.proc.stdin.write(line + "\n")
		self.proc.stdin.flush()
		answer = self.proc.stdout.readline().strip()
		assert answer, f"{self.text}: '{line}': the tool ended: {self.proc.stderr.read()}"
		return answer

	def do(self, *lines):
		for line in lines:
			answer = self.ask(line)
			assert answer.startswith("ok"), f"{self.text}: '{line}': {answer}"
		return answer[3:]

	def close(self):
		if self.proc.poll() is None:
			self.proc.stdin.close()
		assert self.proc.wait(60) == 0, self.proc.stderr.read()
		self.log = self.proc.stderr.read()
		self.proc.stdout.close()
		self.proc.stderr.close()


def kill(image):
	"""And waits until the image is free: an io_uring keeps its files for a moment after its process."""
	image.proc.kill()
	image.proc.wait()
	end = time.monotonic() + 20
	while sh("qemu-img", "info", image.path, check=False).returncode and time.monotonic() < end:
		time.sleep(0.05)


def same_content(path, other_raw, image=None):
	"""The image as qemu-img and as we read it is other_raw."""
	sh("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, other_raw)
	dump = path + ".dump"
	if image:
		image.do(f"dump {dump}")
	else:
		with Image(path, ",read-only=on") as ours:
			ours.do(f"dump {dump}")
	sh("cmp", dump, other_raw)
	os.unlink(dump)


class Model:
	"""What the image should hold, as a file of bytes; snapshots are copies, or None: not known."""

	def __init__(self, size, content=b""):
		self.data = bytearray(content[:size].ljust(size, b"\0"))
		self.snaps = {}

	def write(self, off, length, byte):
		self.data[off:off + length] = bytes([byte]) * length

	def resize(self, size):
		self.data = self.data[:size] + bytes(max(0, size - len(self.data)))

	def save(self, path):
		with open(path, "wb") as file:
			file.write(self.data)
		return path


def program(rng, model, cluster, steps, snapshots=3, resize=True, discard=True, compress=False, commit=False):
	"""Random operations as (ours, qemu-io's) lines, done to the model as well. A tuple is for a tool of
	that name, with its arguments: both lines then, if there is no line of ours."""
	size_now = len(model.data)
	for _ in range(steps):
		size_now = len(model.data)
		kind = rng.choices(["write", "big", "zero", "unmap", "discard", "flush", "snap", "resize",
				    "compress", "commit"], [30, 8, 8, 8, 8, 4, 4 if snapshots else 0,
							    3 if resize else 0, 5 if compress else 0,
							    6 if commit else 0])[0]
		unit = rng.choice([1, 512, 4096, cluster])
		off = rng.randrange(0, max(1, size_now // unit)) * unit
		length = min(size_now - off, rng.choice([1, 3, 512, 700, 4096, cluster, cluster + 512,
							 3 * cluster]))
		if kind == "big":
			length = min(size_now - off, rng.randrange(1, 20 * cluster))
		byte = rng.randrange(1, 256)
		if length <= 0:
			continue
		if kind in ("write", "big"):
			model.write(off, length, byte)
			yield f"write {off} {length} {byte}", f"write -P {byte} {off} {length}"
		elif kind == "zero":
			model.write(off, length, 0)
			yield f"zero {off} {length}", f"write -z {off} {length}"
		elif kind == "unmap":
			model.write(off, length, 0)
			yield f"zero {off} {length} unmap", f"write -z -u {off} {length}"
		elif kind == "discard" and discard:
			off = off // cluster * cluster
			length = min(size_now - off, max(cluster, length // cluster * cluster))
			if length % cluster and off + length != size_now:
				continue
			model.write(off, length, 0)
			yield f"discard {off} {length}", f"discard {off} {length}"
		elif kind == "compress":
			off = off // cluster * cluster
			length = min(cluster, size_now - off)
			model.write(off, length, byte)
			yield f"compress {off} {length} {byte}", None	# QEMU's overwrites nothing
		elif kind == "flush":
			yield "flush", "flush"
		elif kind == "commit":	# the content stays, but moves down: below snapshots, too
			model.snaps = dict.fromkeys(model.snaps)
			yield None, ("commit", *(["-d"] if rng.random() < 0.3 else []))
		elif kind == "snap":
			name = f"s{rng.randrange(3)}"
			if name not in model.snaps and len(model.snaps) < snapshots:
				model.snaps[name] = bytes(model.data)
				yield f"snapshot create {name}", ("snapshot", "-c", name)
			elif name not in model.snaps:
				continue
			elif rng.random() < 0.5 and model.snaps[name] is not None:
				model.data = bytearray(model.snaps[name])
				yield f"snapshot apply {name}", ("snapshot", "-a", name)
			else:
				del model.snaps[name]
				yield f"snapshot delete {name}", ("snapshot", "-d", name)
		elif kind == "resize":
			new = max(4096, size_now + rng.randrange(-8, 9) * 4096 * rng.choice([1, 16]))
			if new != size_now:
				model.resize(new)
				# what QEMU cuts off comes back when it grows again
				yield f"resize {new}", ("resize", new) if new > size_now else None


def seed_of(default):
	return int(os.environ.get("NEMU_SEED", default))


def rng_of(seed):
	print(f"seed {seed}")
	return random.Random(seed)
