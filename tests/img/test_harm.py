"""What goes wrong: interruption, images in use, hostile and broken images."""
import hashlib
import os
import random
import shlex
import shutil
import signal
import struct
import subprocess
import time

import pytest

from pair import NEMU_IMG, ROOT, Pair, nemu_img, shell, source, sparse

pytestmark = pytest.mark.host


def digest(path):
	with open(path, "rb") as file:
		return hashlib.sha256(file.read()).hexdigest()


@pytest.fixture
def slow(tmp_path):
	"""A source that takes a while at 2 MiB a second."""
	sparse(tmp_path / "src.raw", source(20 << 20))
	return tmp_path


def default_signals():
	"""What runs in the background or under nohup has some of them ignored, and so would have its children."""
	for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
		signal.signal(sig, signal.SIG_DFL)


def begin(cwd, *args):
	child = subprocess.Popen([NEMU_IMG, *args], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
				 preexec_fn=default_signals)
	for _ in range(200):
		if any(name.startswith(".o") for name in os.listdir(cwd)) or child.poll() is not None:
			break
		time.sleep(0.02)
	assert child.poll() is None, child.communicate()
	time.sleep(0.2)
	return child


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_interrupted(slow, sig, fmt):
	(slow / "o").write_bytes(b"what was there")
	before = digest(slow / "src.raw")
	child = begin(slow, "convert", "-r", "2M", "-O", fmt, "src.raw", "o")
	child.send_signal(sig)
	child.communicate(timeout=10)
	assert child.returncode == -sig, "it ends by the signal, as shells expect"
	assert sorted(os.listdir(slow)) == ["o", "src.raw"]
	assert (slow / "o").read_bytes() == b"what was there"
	assert digest(slow / "src.raw") == before


def test_killed_leaves_the_name_alone(slow):
	(slow / "o").write_bytes(b"what was there")
	child = begin(slow, "convert", "-r", "2M", "-O", "qcow2", "src.raw", "o")
	child.kill()
	child.communicate(timeout=10)
	assert (slow / "o").read_bytes() == b"what was there"


def test_progress(slow):
	child = begin(slow, "convert", "-r", "4M", "src.raw", "o")
	child.send_signal(signal.SIGUSR1)
	time.sleep(0.3)
	assert child.poll() is None, "SIGUSR1 does no harm"
	child.terminate()
	_, err = child.communicate(timeout=10)
	percent = float(err.strip().strip("()").split("/")[0])
	assert 0 < percent < 100
	done = subprocess.run([NEMU_IMG, "convert", "-p", "src.raw", "o"], cwd=slow, capture_output=True, timeout=20)
	parts = done.stdout.split(b"\r")
	assert parts[0] == b"    (0.00/100%)" and parts[-2:] == [b"    (100.00/100%)", b"\n"]
	assert nemu_img(slow, "convert", "-p", "-q", "src.raw", "o").stdout == ""


@pytest.mark.parametrize("command", ["commit", "rebase"])
def test_killed_in_place(slow, command):
	"""Killed while it changes an image: the image is without fault and shows the same."""
	for made in (["create", "-q", "-f", "qcow2", "new", "20M"],
		     ["convert", "-f", "raw", "-O", "qcow2", "src.raw", "base"],
		     ["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"]):
		assert shell(["qemu-img", *made], slow).returncode == 0
	shell(["qemu-io", "-c", "write -P 7 1M 8M", "-c", "write -z 15M 1M", "top"], slow)
	shell(["qemu-img", "convert", "-O", "raw", "top", "was"], slow)
	args = ["commit", "top"] if command == "commit" else ["rebase", "-b", "new", "-F", "qcow2", "top"]
	for wait in (0.005, 0.02, 0.04, 0.08):
		child = subprocess.Popen([NEMU_IMG, *args], cwd=slow, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
		time.sleep(wait)
		child.kill()
		child.wait()
		time.sleep(0.1)
		for name in ("top", "base"):
			# -U: a ring may keep its files, and with them their locks, for a moment
			done = shell(["qemu-img", "check", "-U", name], slow)
			assert done.returncode in (0, 3), done.stdout + done.stderr
		done = shell(["qemu-img", "compare", "-U", "top", "was"], slow)
		assert done.returncode == 0, f"after {wait} s: {done.stdout}"


def test_a_full_disk_leaves_nothing(slow):
	"""The file size limit stands for a disk that is full."""
	done = subprocess.run(["bash", "-c", f"ulimit -f 4096; trap '' XFSZ; exec {NEMU_IMG} convert -O qcow2 src.raw o"],
			      cwd=slow, capture_output=True, text=True, timeout=60)
	assert done.returncode == 1 and "File too large" in done.stderr
	assert os.listdir(slow) == ["src.raw"]


def test_output_to_a_full_device(slow):
	with open("/dev/full", "w") as full:
		done = subprocess.run([NEMU_IMG, "info", "src.raw"], cwd=slow, stdout=full, stderr=subprocess.PIPE, text=True)
	assert done.returncode == 1 and done.stderr.startswith("nemu-img: ")


def test_in_use(tmp_path):
	pair = Pair(tmp_path)
	pair.prepare("qemu-img create -q -f qcow2 a.qcow2 10M", "qemu-img create -q -f raw a.raw 10M",
		     "qemu-img create -q -f raw src.raw 1M")
	users = [subprocess.Popen(["qemu-io", *how, os.path.join(where, name)], stdin=subprocess.PIPE,
				  stdout=subprocess.DEVNULL)
		 for where in (pair.q, pair.n) for name, how in (("a.qcow2", []), ("a.raw", ["-f", "raw"]))]
	try:
		time.sleep(0.5)
		for args in ("info a.qcow2", "info -U a.qcow2", "check a.qcow2", "check -U a.qcow2", "check -r all a.qcow2",
			     "map -U a.qcow2", "snapshot -c x a.qcow2", "snapshot -U -l a.qcow2", "resize a.qcow2 20M",
			     "convert a.qcow2 o", "convert -U a.qcow2 o", "convert src.raw a.qcow2",
			     "create -q -f qcow2 a.qcow2 1M", "compare -U a.qcow2 src.raw", "compare a.qcow2 src.raw",
			     "bench -c 1 a.qcow2", "rebase -u -b '' a.qcow2"):
			pair.run(args)
		# qemu-img would cut it off
		for args in (["create", "-f", "raw", "a.raw", "1M"], ["convert", "src.raw", "a.raw"],
			     ["resize", "-f", "raw", "--shrink", "a.raw", "1M"]):
			done = nemu_img(pair.n, *args)
			assert done.returncode == 1 and "in use" in done.stderr, args
	finally:
		for user in users:
			user.stdin.close()
			user.wait(timeout=10)
	assert os.stat(os.path.join(pair.n, "a.raw")).st_size == 10 << 20


def test_info_opens_no_backing_file(tmp_path):
	(tmp_path / "secret").write_bytes(bytes(65536))
	for name, fmt in (("plain", ["-F", "raw"]), ("probe", ["-F", "raw"])):
		shell(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", str(tmp_path / "secret"), *fmt, name, "1M"], tmp_path)
	for args, opened in ((["info", "plain"], False), (["info", "--output=json", "plain"], False),
			     (["check", "plain"], False), (["snapshot", "-l", "plain"], False),
			     (["info", "--backing-chain", "plain"], True), (["map", "plain"], True)):
		done = shell(["strace", "-f", "-e", "trace=openat,open,stat,newfstatat", "-o", "trace", NEMU_IMG, *args], tmp_path)
		assert done.returncode == 0, done.stderr
		assert ("/secret" in (tmp_path / "trace").read_text()) == opened, args


def test_loops_and_deep_chains(tmp_path):
	for a, b in (("a", "b"), ("b", "a")):
		shell(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", b, "-F", "qcow2", a, "1M"], tmp_path)
	for command in (["info", "--backing-chain"], ["map"], ["convert"], ["commit"]):
		done = nemu_img(tmp_path, *command, "a", *(["o"] if command == ["convert"] else []), timeout=30)
		assert done.returncode == 1 and ("loop" in done.stderr or "in use" in done.stderr), done.stderr
	assert not (tmp_path / "o").exists()


FOREIGN = {"vmdk": b"KDMV", "vhdx": b"vhdxfile", "vpc": b"conectix", "luks": b"LUKS\xba\xbe\0\1", "qed": b"QED\0"}


@pytest.mark.parametrize("fmt", sorted(FOREIGN))
def test_foreign_formats_are_not_taken_for_raw(tmp_path, fmt):
	(tmp_path / "x").write_bytes(FOREIGN[fmt].ljust(65536, b"\0"))
	done = nemu_img(tmp_path, "convert", "x", "o")
	assert done.returncode == 1 and f"'{fmt}'" in done.stderr and not (tmp_path / "o").exists()
	assert nemu_img(tmp_path, "convert", "-f", "raw", "x", "o").returncode == 0


COMMANDS = (["info"], ["check"], ["map", "--output=json"], ["snapshot", "-l"], ["measure", "-O", "qcow2"])


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
	path = tmp_path_factory.mktemp("victim")
	sparse(path / "src.raw", source(2 << 20))
	shell(["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k", "src.raw", "v"], path)
	shell(["qemu-img", "snapshot", "-c", "s", "v"], path)
	shell(["qemu-io", "-c", "write -P 3 0 100k", "v"], path)
	return (path / "v").read_bytes()


def seed_of(fixed):
	"""Always the same in `make check`, so that it says what a change did; others in `make soak`."""
	return int(os.environ.get("NEMU_SEED", random.randrange(1 << 32) if os.environ.get("NEMU_SOAK") else fixed))


CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus", "qcow2")
SANITIZED = os.path.join(ROOT, "build-asan", "nemu-img")
READING = ("info x", "check x", "map --output=json x", "measure -O qcow2 x", "snapshot -l x", "compare -s x y",
	   "convert -O raw x o", "convert -c -O qcow2 x o", "bench -c 20 -d 4 x")
CHANGING = ("bench -w -c 20 -d 4 x", "snapshot -c new x", "snapshot -a new x", "snapshot -d new x", "resize x +1M",
	    "resize --shrink x 64k", "rebase -u -b '' x", "commit x", "check -r leaks x", "check -r all x")


@pytest.mark.parametrize("name", sorted(os.listdir(CORPUS)))
def test_corpus(tmp_path, name):
	"""Every command on each image that the fuzzer starts from, with the tool of build-asan (stage asan makes it)."""
	shutil.copy(os.path.join(CORPUS, name), tmp_path / "y")
	for command in READING + CHANGING:
		if command in READING:
			shutil.copy(tmp_path / "y", tmp_path / "x")
		done = subprocess.run([SANITIZED, *shlex.split(command)],
				      cwd=tmp_path, capture_output=True, text=True, timeout=60, errors="replace",
				      env={**os.environ, "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1",
					   "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})
		assert done.returncode in (0, 1, 2, 3), f"{command}: {done.returncode}\n{done.stderr[-3000:]}"
		assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, f"{command}\n{done.stderr[-3000:]}"
		assert done.returncode == 0 or done.stderr, command
		if command in READING:
			assert digest(tmp_path / "x") == digest(tmp_path / "y"), f"{command} has written"


def survive(path, seed):
	for command in COMMANDS:
		before = digest(path / "x")
		done = nemu_img(path, *command, "x", timeout=20)
		assert done.returncode in (0, 1, 2, 3, 63), f"{seed}: {command}: {done.returncode}\n{done.stderr[-2000:]}"
		assert digest(path / "x") == before, f"{seed}: {command} has written"
	done = nemu_img(path, "convert", "x", "o", timeout=20)
	assert done.returncode in (0, 1), f"{seed}: convert: {done.returncode}\n{done.stderr[-2000:]}"


def test_broken_images(tmp_path, victim):
	seed = seed_of(3)
	r = random.Random(seed)
	for turn in range(100 if os.environ.get("NEMU_SOAK") else 12):
		data = bytearray(victim)
		for _ in range(r.choice([1, 3, 20])):
			at = r.randrange(0, r.choice([104, 4096, 32768, len(data)]))
			data[at] = r.choice([0, 0xff, r.randrange(256)])
		if turn % 3 == 0:
			del data[r.randrange(len(data)):]
		(tmp_path / "x").write_bytes(bytes(data) or b"Q")
		survive(tmp_path, f"NEMU_SEED={seed}, turn {turn}")


def test_repairs_what_is_broken(tmp_path, victim):
	seed = seed_of(1680459758)
	r = random.Random(seed)
	for turn in range(40 if os.environ.get("NEMU_SOAK") else 8):
		data = bytearray(victim)
		for _ in range(4):
			data[r.randrange(4096, len(data))] ^= 1 << r.randrange(8)
		(tmp_path / "x").write_bytes(bytes(data))
		done = nemu_img(tmp_path, "check", "-r", "all", "x")
		assert done.returncode in (0, 1, 2, 3), f"NEMU_SEED={seed}, turn {turn}\n{done.stderr}"
		if done.returncode == 0:
			again = shell(["qemu-img", "check", "x"], tmp_path)
			assert again.returncode == 0, f"NEMU_SEED={seed}, turn {turn}\n{again.stdout}{again.stderr}"


def be64(data, at):
	return struct.unpack_from(">Q", data, at)[0]


def snapshot_l2(data):
	return be64(data, be64(data, be64(data, 64))) & ~(0xff << 56)


@pytest.mark.parametrize("where, change", [
	(lambda d: snapshot_l2(d) + 400 * 8, lambda e: e | 1 << 63),		# compressed is never COPIED
	(lambda d: snapshot_l2(d) + 400 * 8, lambda e: e | 1 << 57),		# an offset above bit 55
	(lambda d: snapshot_l2(d) + 400 * 8, lambda e: 1 << 62),		# compressed in the header
	(lambda d: be64(d, 48), lambda e: e | 1),				# reserved, in the refcount table
], ids=["copied", "far", "header", "reftable"])
def test_repairs_one_entry(tmp_path, victim, where, change):
	data = bytearray(victim)
	at = where(data)
	struct.pack_into(">Q", data, at, change(be64(data, at)))
	(tmp_path / "x").write_bytes(bytes(data))
	assert nemu_img(tmp_path, "check", "x").returncode == shell(["qemu-img", "check", "x"], tmp_path).returncode == 2
	done = nemu_img(tmp_path, "check", "-r", "all", "x")
	assert done.returncode == 0 and "repaired" in done.stdout, done.stdout
	again = shell(["qemu-img", "check", "x"], tmp_path)
	assert again.returncode == 0, again.stdout + again.stderr


def test_a_link_stays_a_link(tmp_path):
	sparse(tmp_path / "src.raw", source(1 << 20))
	os.mkdir(tmp_path / "far")
	(tmp_path / "far" / "real").write_bytes(b"old")
	os.chmod(tmp_path / "far" / "real", 0o600)
	os.symlink("far/real", tmp_path / "o")
	assert nemu_img(tmp_path, "convert", "src.raw", "o").returncode == 0
	assert os.path.islink(tmp_path / "o") and digest(tmp_path / "o") == digest(tmp_path / "src.raw")
	assert os.stat(tmp_path / "o").st_mode & 0o777 == 0o600, "the mode of the old file stays"


def test_options_that_are_not_there_are_named(tmp_path):
	for args, name in ((["convert", "--bitmaps", "a", "b"], "--bitmaps"), (["create", "--object", "secret,id=x", "a", "1M"], "--object"),
			   (["info", "--foo", "a"], "--foo"), (["bench", "-Z", "a"], "-Z"), (["amend", "a"], "amend"),
			   (["create", "-f", "qcow2", "-o", "encrypt.format=luks", "a", "1M"], "encrypt.format")):
		done = nemu_img(tmp_path, *args)
		assert done.returncode == 1 and name in done.stderr and done.stderr.count("\n") == 1
