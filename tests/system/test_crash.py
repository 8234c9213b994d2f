"""What a guest flushed is there, and the image is sound, wherever its nemu was killed or power was lost.

tests/guest/writer.c writes, discards, zeroes and flushes with many requests at once and says what it has
flushed. Its nemu is killed with SIGKILL at a random moment. Then qemu-img and nemu-img check the image, and
each sector has to be what the last flush left there or something that was written to it since. What is
there then is what the next run starts from.

A killed process leaves the kernel with all that it wrote. Power is lost in crash_tool, under the same guest:
there writes that no flush covers are lost, torn, or done in another order. NEMU_SEED chooses other moments.
"""
import collections
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

import vm as v

NEMU_IMG = os.path.join(v.ROOT, "build", "nemu-img")
TOOL = os.path.join(v.ROOT, "build", "tests", "system", "crash_tool")
MACHINE = ["-nodefaults", "-display", "none", "-no-reboot", "-machine", "virt", "-m", "16M", "-bios",
	   os.path.join(v.ROOT, "build", "tests", "guest", "writer.bin"), "-object", "iothread,id=io0"]
SECTOR, SECTORS, SLOTS, LENGTH = 512, 4080, 16, 24	# the last three as in writer.c
STRIPE = SECTORS // SLOTS
MIX, MASK = 0x9e3779b97f4a7c15, (1 << 64) - 1
ZERO = bytes(SECTOR)
FORMATS = ["cluster_size=64k", "cluster_size=4k,refcount_bits=64", "extended_l2=on,cluster_size=16k",
	   "lazy_refcounts=on,cluster_size=8k", "compat=0.10,cluster_size=2k"]


class Random:
	def __init__(self, seed):
		self.state = seed

	def next(self):
		self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
		return self.state >> 33


def pattern(number, sector):
	return (((number << 32 | sector) * MIX) & MASK).to_bytes(8, "little") * (SECTOR // 8)


def one_round(rnd, number, may_be):
	"""Appends what round `number` leaves in each sector, None: zeros or nothing new. True: a flush
	follows."""
	for i in range(1 + rnd.next() % SLOTS):
		kind = rnd.next() % 8
		first = i * STRIPE + rnd.next() % (STRIPE - LENGTH)
		for sector in range(first, first + 1 + rnd.next() % LENGTH):
			may_be[sector].append(None if kind == 0 else ZERO if kind == 1 else
					      pattern(number, sector))
	return rnd.next() % 3 == 0


def candidates(before, seed, flushed):
	"""The contents that each sector may have when `flushed` rounds are known to be flushed and the guest
	has gone on to its next flush at most."""
	rnd, number = Random(seed), 0
	safe = [{content} for content in before]
	while True:
		since = collections.defaultdict(list)
		while True:
			flush = one_round(rnd, number, since)
			number += 1
			if flush:
				break
		for sector, writes in since.items():
			for content in writes:
				if content and number <= flushed:
					safe[sector] = {content}
				else:
					safe[sector].add(content or ZERO)
		if number > flushed:
			return safe


def sh(*argv, statuses=(0,)):
	done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
	assert done.returncode in statuses, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
	return done.stdout


def sectors_of(path, tmp_path):
	raw = tmp_path / "content"
	sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	data = raw.read_bytes()
	return [data[i:i + SECTOR] for i in range(0, len(data), SECTOR)]


def check(path, lazy):
	"""No corruption; leaks, which can be given back."""
	if lazy:	# its refcounts are put right when it is opened
		sh(NEMU_IMG, "check", "-q", "-f", "qcow2", "-r", "all", path)
	theirs = json.loads(sh("qemu-img", "check", "-f", "qcow2", "--output=json", path, statuses=(0, 3)))
	assert not theirs.get("corruptions") and not theirs.get("check-errors"), theirs
	leaks = theirs.get("leaks", 0)
	ours = json.loads(sh(NEMU_IMG, "check", "-f", "qcow2", "--output=json", "-r", "leaks", path))
	assert ours.get("leaks-fixed", 0) == leaks and not ours.get("leaks") and not ours.get("corruptions"), \
		(ours, theirs)
	if leaks:
		sh("qemu-img", "check", "-q", "-f", "qcow2", path)
	return leaks


def run_and_kill(path, tmp_path, rng):
	"""(seed, rounds that were flushed)"""
	serial = tmp_path / "serial"
	serial.write_bytes(b"")
	flushes, more = rng.randrange(1, 12), rng.random() * 0.03
	process = subprocess.Popen(
		[v.NEMU, *MACHINE, "-serial", f"file:{serial}", "-drive",
		 f"if=none,id=d,format=qcow2,discard=unmap,file={path},l2-cache-size=4k,"
		 "refcount-cache-size=4k", "-device", "virtio-blk-pci,drive=d,iothread=io0"],
		stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
	end = time.monotonic() + 60
	while serial.read_bytes().count(b"\n") < 1 + flushes:
		assert time.monotonic() < end and process.poll() is None, \
			f"{serial.read_text()[-500:]} {process.poll()}"
		time.sleep(0.002)
	time.sleep(more)	# anywhere in a round
	process.kill()
	assert process.wait() == -signal.SIGKILL
	process.stderr.close()
	# its io_uring lets go of the file a moment later
	while subprocess.run(["qemu-img", "info", path], capture_output=True).returncode:
		assert time.monotonic() < end
		time.sleep(0.01)
	text = serial.read_text()
	assert "FAIL" not in text, text[-500:]
	seen = re.findall(r"^flushed=(\d+) $", text[:text.rindex("\n")], re.M)
	return int(re.match(r"seed=(\d+)", text).group(1)), int(seen[-1]) + 1 if seen else 0


def kills(tmp_path, options, rng, count):
	path = tmp_path / "disk.qcow2"
	if rng.random() < 0.5:
		base = tmp_path / "base.raw"
		base.write_bytes(rng.randbytes(SECTORS * SECTOR - 40 * SECTOR))
		sh(NEMU_IMG, "create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "raw", path,
		   SECTORS * SECTOR)
	else:
		sh(NEMU_IMG, "create", "-q", "-f", "qcow2", "-o", options, path, SECTORS * SECTOR)
	content, leaks, rounds = sectors_of(path, tmp_path), 0, 0
	for _ in range(count):
		seed, flushed = run_and_kill(path, tmp_path, rng)
		leaks += check(path, "lazy" in options)
		after = sectors_of(path, tmp_path)
		may_be = candidates(content, seed, flushed)
		bad = [i for i in range(SECTORS) if after[i] not in may_be[i]]
		assert not bad, f"{options}, guest's seed {seed}, {flushed} rounds flushed: sectors {bad[:20]}"
		content, rounds = after, rounds + flushed
	print(f"{options}: {count} kills, {rounds} rounds flushed, {leaks} leaked clusters")
	assert rounds > 0


def seed_of(default):
	seed = int(os.environ.get("NEMU_SEED", default))
	print(f"NEMU_SEED={seed}")
	return seed


@pytest.mark.parametrize("options", FORMATS)
def test_killed(tmp_path, options):
	number = FORMATS.index(options)
	kills(tmp_path, options, random.Random(seed_of(number)), 2 if number < 2 else 1)


@pytest.mark.soak
@pytest.mark.parametrize("options", FORMATS)
def test_killed_often(tmp_path, options):
	seed = seed_of(time.time_ns() % 2**32)
	for i in range(4):
		(tmp_path / str(i)).mkdir()
		kills(tmp_path / str(i), options, random.Random(seed + i), 25)


def power_lost(tmp_path, options, seed, moments, images):
	path, left = tmp_path / "disk.qcow2", tmp_path / "left"
	left.mkdir(parents=True)
	sh(NEMU_IMG, "create", "-q", "-f", "qcow2", "-o", options, path, SECTORS * SECTOR)
	# small caches: what is evicted has to keep the order, too
	print(options, sh(TOOL, moments, images, seed, left, "--", *MACHINE, "-serial", f"file:{tmp_path}/serial",
			  "-blockdev", "driver=witness,node-name=d,discard=unmap,file.driver=qcow2,"
			  f"file.file.driver=power,file.file.filename={path},file.l2-cache-size=4k,"
			  "file.refcount-cache-size=4k", "-device", "virtio-blk-pci,drive=d,iothread=io0"))
	for image in left.iterdir():
		check(image, "lazy" in options)


@pytest.mark.parametrize("options", FORMATS)
def test_power_lost(tmp_path, options):
	power_lost(tmp_path, options, seed_of(FORMATS.index(options)), 500, 48)


@pytest.mark.soak
@pytest.mark.parametrize("options", FORMATS)
def test_power_lost_often(tmp_path, options):
	seed = seed_of(time.time_ns() % 2**31)
	for i in range(4):
		power_lost(tmp_path / str(i), options, seed + i, 3000, 1000)
