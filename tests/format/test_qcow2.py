"""qcow2 beside qemu-img and qemu-io: each reads what the other wrote, random programs, refusals."""
import json
import os
import subprocess

import pytest

from q2 import (NEMU_IMG, TOOL, Image, Model, create, program, qemu_check, qemu_io, rng_of, same_content, seed_of, sh,
		kill)

pytestmark = pytest.mark.host

# options of create, of ours and qemu-img's alike
FORMATS = [
	"compat=0.10",
	"compat=0.10,cluster_size=512",
	"cluster_size=512",
	"cluster_size=2M",
	"cluster_size=4k,refcount_bits=1",
	"cluster_size=4k,refcount_bits=2",
	"cluster_size=512,refcount_bits=64",
	"refcount_bits=8",
	"refcount_bits=32,cluster_size=1k",
	"lazy_refcounts=on",
	"extended_l2=on",
	"extended_l2=on,cluster_size=16k,lazy_refcounts=on",
	"compression_type=zstd",
]
PREALLOC = ["preallocation=metadata", "preallocation=falloc", "preallocation=full",
	    "preallocation=metadata,cluster_size=512", "preallocation=metadata,extended_l2=on"]
SOAK = bool(os.environ.get("NEMU_SOAK"))


def cluster_of(options):
	for word in options.split(","):
		if word.startswith("cluster_size="):
			text = word.split("=")[1]
			scale = {"k": 1 << 10, "M": 1 << 20}.get(text[-1])
			return int(text[:-1]) * scale if scale else int(text)
	return 65536


def by_qemu(path, options, size, *more):
	sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *more, path, str(size))
	return path


@pytest.mark.parametrize("options", FORMATS + PREALLOC)
def test_made_by_either(tmp_path, options):
	size = 5 * 1024 * 1024 + 512
	for maker in ("ours", "qemu"):
		path = str(tmp_path / maker)
		if maker == "ours":
			create(path, f"{size},{options}")
		else:
			by_qemu(path, options, size)
		qemu_check(path)
		model = Model(size)
		for i, (off, length) in enumerate(((0, 1), (70000, 3000), (1 << 20, 200000),
						   (size - 700, 700))):
			model.write(off, length, i + 1)
			if i % 2:
				qemu_io(path, f"write -P {i + 1} {off} {length}")
			else:
				with Image(path) as image:
					image.do(f"write {off} {length} {i + 1}")
		qemu_check(path)
		same_content(path, model.save(str(tmp_path / "raw")))
	ours, theirs = (json.loads(sh("qemu-img", "info", "--output=json", str(tmp_path / name)).stdout)
			for name in ("ours", "qemu"))
	for key in ("virtual-size", "cluster-size", "format-specific"):
		assert ours[key] == theirs[key]
	with Image(str(tmp_path / "ours"), ",read-only=on") as image:
		assert json.loads(image.do("info")) == theirs["format-specific"]
		got = dict(word.split("=") for word in image.do("check 0").split())
	report = qemu_check(str(tmp_path / "ours"))
	assert int(got["end"]) == report["image-end-offset"]
	assert int(got["total"]) == report["total-clusters"]
	assert int(got["allocated"]) == report.get("allocated-clusters", 0)
	assert int(got["fragmented"]) == report.get("fragmented-clusters", 0)


def chain_below(tmp_path, rng, options, size):
	"""A raw file or a qcow2 on one, longer or shorter than what stands on it; its path, format, content."""
	base = Model(max(4096, size + rng.randrange(-4, 5) * 4096))
	for i in range(30):
		base.write(rng.randrange(len(base.data) - 4000), 4000, i + 1)
	raw = base.save(str(tmp_path / "base.raw"))
	if rng.random() < 0.4:
		return raw, "raw", base
	mid = str(tmp_path / "base.qcow2")
	sh(rng.choice([NEMU_IMG, "qemu-img"]), "create", "-q", "-f", "qcow2", "-o", options, "-b", raw, "-F", "raw",
	   mid)
	return mid, "qcow2", base


def by_either(rng, path, command, *more):
	"""Of the tools' commands, by either of them; resize has its size behind the image's name."""
	before, behind = ([], more) if command == "resize" else (more, ())
	fmt = [] if command == "snapshot" else ["-f", "qcow2"]
	sh(rng.choice([NEMU_IMG, "qemu-img"]), command, *fmt, *(str(word) for word in before), path,
	   *(str(word) for word in behind))


def run_program(tmp_path, rng, options, steps, compress=False, commit=False):
	cluster = cluster_of(options)
	size = rng.choice([64, 200, 333]) * max(4096, cluster // 8) // 4096 * 4096
	path = str(tmp_path / "a.qcow2")
	if commit:
		base, base_format, content = chain_below(tmp_path, rng, options, size)
		create(path, f"{size},{options},backing_file={base},backing_fmt={base_format}")
		model = Model(size, bytes(content.data))
	else:
		create(path, f"{size},{options}")
		model = Model(size)
	words = options.split(",")
	snapshots = 0 if "refcount_bits=1" in words else 1 if "refcount_bits=2" in words else 3
	v2 = "compat=0.10" in options
	raw = str(tmp_path / "raw")
	check_all = ",overlap-check=all" if len(options) % 2 else ""
	image = Image(path, check_all)
	done = []
	try:
		for ours, theirs in program(rng, model, cluster, steps, snapshots=snapshots,
					    resize=not v2, compress=compress, commit=commit,
					    discard=not (v2 and commit)):
			done.append(str(ours or theirs))
			if not ours or theirs and rng.random() < 0.3:	# the other one does it
				image.close()
				if isinstance(theirs, tuple):
					by_either(rng, path, *theirs)
				else:
					qemu_io(path, theirs)
				image = Image(path, check_all)
				assert image.first == "ok open", image.first
				if not ours:
					committed(base, base_format, model)
			else:
				image.do(ours)
			if rng.random() < 0.1:
				image.do("flush")
				got = dict(word.split("=") for word in image.do("check 0").split())
				assert got["errors"] == got["corruptions"] == "0", got
		same_content_open(image, path, model, raw)
		image.close()
		qemu_check(path, leaks=None)
		same_content(path, model.save(raw))
		if commit:
			qemu_check(base, leaks=None) if base_format == "qcow2" else None
		for name, content in model.snaps.items():
			with Image(path, ",read-only=on") as old:
				old.do(f"snapshot load {name}", f"dump {raw}.snap")
			with open(raw + ".snap", "rb") as file:
				assert (file.read() == content) is True or content is None, name
		with Image(path) as image:
			image.do("check 3")
		qemu_check(path)
	except AssertionError:
		print("\n".join(done))
		raise


def committed(base, base_format, model):
	"""What is below holds it all now; it may be longer than what stands on it."""
	raw = base + ".content"
	sh("qemu-img", "convert", "-f", base_format, "-O", "raw", base, raw)
	with open(raw, "rb") as file:
		assert (file.read(len(model.data)) == bytes(model.data)) is True
	os.unlink(raw)


def same_content_open(image, path, model, raw):
	image.do(f"dump {raw}.open")
	with open(raw + ".open", "rb") as file:
		assert (file.read() == bytes(model.data)) is True	# a diff of them takes minutes


@pytest.mark.parametrize("options", FORMATS)
def test_random_program(tmp_path, options):
	seed = seed_of(1000 + FORMATS.index(options))
	run_program(tmp_path, rng_of(seed), options, 40)


@pytest.mark.parametrize("options", [o for o in FORMATS if "refcount_bits=1" not in o.split(",") and
				     "refcount_bits=2" not in o])
def test_random_program_compressed(tmp_path, options):
	seed = seed_of(2000 + FORMATS.index(options))
	run_program(tmp_path, rng_of(seed), options, 25, compress=True)


@pytest.mark.parametrize("options", FORMATS)
def test_random_program_commits(tmp_path, options):
	run_program(tmp_path, rng_of(seed_of(3000 + FORMATS.index(options))), options,
		    12 if "2M" in options else 40, commit=True)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(500))
def test_random_program_soak(tmp_path, number):
	rng = rng_of(seed_of(10000 + number))
	options = FORMATS[number % len(FORMATS)]
	run_program(tmp_path, rng, options, 150,
		    compress="4k,refcount_bits" not in options and number % 2 == 0, commit=number % 3 == 0)


@pytest.mark.parametrize("options", ["cluster_size=4k", "extended_l2=on,cluster_size=16k",
				     "compat=0.10"])
def test_backing_chain(tmp_path, options):
	"""Longer and shorter than the overlay, raw and qcow2, made by both."""
	rng = rng_of(seed_of(77))
	size = 1 << 20
	base = Model(size + 8192)
	for i in range(40):
		base.write(rng.randrange(size), 5000, i + 1)
	base.resize(size + 8192)
	raw = base.save(str(tmp_path / "base.raw"))
	mid = by_qemu(str(tmp_path / "mid.qcow2"), options, size // 2, "-b", raw, "-F", "raw")
	model = Model(size // 2, bytes(base.data))
	with Image(mid) as image:
		for ours, _ in program(rng, model, 4096, 20, snapshots=0, resize=False, discard=False):
			image.do(ours)
	qemu_check(mid)
	same_content(mid, model.save(str(tmp_path / "x")))
	top = create(str(tmp_path / "top.qcow2"), f"{size},{options},backing_file=mid.qcow2,backing_fmt=qcow2")
	model.resize(size)
	same_content(top, model.save(str(tmp_path / "x")))
	with Image(top) as image:
		for ours, _ in program(rng, model, 4096, 60, snapshots=0, resize=False, discard=False):
			image.do(ours)
		same_content_open(image, top, model, str(tmp_path / "y"))
	qemu_check(top)
	same_content(top, model.save(str(tmp_path / "x")))
	# growing brings nothing of the backing file to light that was behind the end
	short = by_qemu(str(tmp_path / "short.qcow2"), options, 65536, "-b", raw, "-F", "raw")
	grown = Model(65536, bytes(base.data))
	grown.resize(size)
	with Image(short) as image:
		image.do(f"resize {size}")
	qemu_check(short)
	same_content(short, grown.save(str(tmp_path / "x")))
	# json: and absolute names
	for name in (f"json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{raw}\"}}}}", raw):
		with Image(short) as image:
			image.do(f"backing {name} raw")
		same_content(short, grown.save(str(tmp_path / "x")))


@pytest.mark.parametrize("options", ["compat=0.10", "cluster_size=4k", "extended_l2=on"])
def test_zeros_behind_the_backing_file(tmp_path, options):
	"""What is zero already takes no cluster."""
	base = str(tmp_path / "base.raw")
	with open(base, "wb") as file:
		file.write(b"\1" * 4096)
	path = create(str(tmp_path / "a"), f"{1 << 20},{options},backing_file={base},backing_fmt=raw")
	with Image(path) as image:
		image.do("zero 200000 3000", "zero 300000 300000", "zero 660000 5000 unmap", "zero 720896 2048")
	assert not qemu_check(path).get("allocated-clusters")
	with Image(path) as image:
		image.do(f"zero 0 {1 << 20}")
	assert qemu_check(path).get("allocated-clusters", 0) <= ("0.10" in options)
	same_content(path, Model(1 << 20).save(str(tmp_path / "raw")))


@pytest.mark.parametrize("raw", ["off", "on"])
def test_data_file(tmp_path, raw):
	size = 1 << 20
	for maker in ("ours", "qemu"):
		path, data = str(tmp_path / maker), str(tmp_path / f"{maker}.data")
		options = f"data_file={data},data_file_raw={raw}"
		if maker == "ours":
			create(path, f"{size},{options}")
		else:
			by_qemu(path, options, size)
		model = Model(size)
		with Image(path) as image:
			for ours, _ in program(rng_of(seed_of(5)), model, 65536, 60, snapshots=0,
					       resize=False):
				image.do(ours)
			assert image.ask("snapshot create x").startswith("error 95")
		qemu_check(path)
		same_content(path, model.save(str(tmp_path / "x")))
		if raw == "on":
			sh("cmp", data, str(tmp_path / "x"))


def test_compressed(tmp_path):
	"""Clusters that qemu-img compressed, and ours for it."""
	for kind in ("zlib", "zstd"):
		raw = str(tmp_path / "raw")
		with open(raw, "wb") as file:
			file.write(b"".join(bytes([i % 251]) * 300 + os.urandom(40) for i in range(20000)))
			file.truncate((file.tell() + 511) // 512 * 512)
		path = str(tmp_path / kind)
		sh("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={kind}",
		   raw, path)
		same_content(path, raw)
		ours = create(str(tmp_path / f"{kind}.ours"), f"8M,compression_type={kind}")
		with Image(ours) as image:
			for i in range(0, 60, 2):
				image.do(f"compress {i * 65536} 65536 {i + 1}", f"packed {(i + 1) * 65536} {i + 2}")
			image.do("write 100 50 7", "write 65536 65536 9")
		report = qemu_check(ours)
		assert report["compressed-clusters"] == 58
		qemu_io(ours, "read -P 1 0 100", "read -P 7 100 50", "read -P 9 65536 65536",
			"read -P 60 3866624 65536")


def test_dirty_and_killed(tmp_path):
	"""A process that dies: what was flushed is there, and a check finds nothing wrong."""
	for options in ("lazy_refcounts=on", "lazy_refcounts=off"):
		path = create(str(tmp_path / options), f"8M,{options}")
		image = Image(path)
		image.do("write 0 100000 1", "write 1000000 5 2", "flush", "write 3000000 70000 3")
		kill(image)
		info = json.loads(sh("qemu-img", "info", "--output=json", path).stdout)
		assert info["dirty-flag"] == (options == "lazy_refcounts=on")
		if info["dirty-flag"]:
			with Image(path):	# repaired at open
				pass
		qemu_check(path, leaks=None)
		qemu_io(path, "read -P 1 0 100000", "read -P 2 1000000 5")


def test_bitmaps(tmp_path):
	"""Bitmaps of QEMU: kept; those that should have followed our writes say that they did not."""
	path = by_qemu(str(tmp_path / "a"), "compat=1.1", 8 << 20)
	sh("qemu-img", "bitmap", "--add", path, "on")
	sh("qemu-img", "bitmap", "--add", "--disable", path, "off")
	with Image(path) as image:
		image.do("read 0 512 0")
	qemu_check(path)
	with Image(path) as image:
		image.do("write 0 512 1")
	qemu_check(path)
	bitmaps = json.loads(sh("qemu-img", "info", "--output=json", path).stdout)
	flags = {b["name"]: b["flags"] for b in bitmaps["format-specific"]["data"]["bitmaps"]}
	assert "in-use" in flags["on"] and "in-use" not in flags["off"]
	with Image(path, ",read-only=on") as image:
		ours = json.loads(image.do("info"))["data"]["bitmaps"]
	assert {b["name"]: b["flags"] for b in ours} == flags


def test_many_at_once(tmp_path):
	path = create(str(tmp_path / "a"), "64M,cluster_size=4k")
	with Image(path) as image:
		image.do("writes 300 0 3000 65536 5", "writes 300 1000 9000 4096 6", "flush")
		image.do("check 0")
	qemu_check(path)
	qemu_io(path, "read -P 6 1000 1200000", "read -P 5 19595264 3000")


def patched(path, *changes):
	with open(path, "r+b") as file:
		for off, data in changes:
			file.seek(off)
			file.write(data)
	return path


def be(value, width):
	return value.to_bytes(width, "big")


HEADER = [	# field, offset, value, what the sentence has to name
	("magic", 0, b"QFIx", "magic"),
	("version", 4, be(4, 4), "version"),
	("cluster_bits", 20, be(8, 4), "cluster_bits"),
	("cluster_bits", 20, be(22, 4), "cluster_bits"),
	("size", 24, be(1 << 63, 8), "size"),
	("size", 24, be(1 << 50, 8), "l1_size"),
	("crypt", 32, be(1, 4), "encrypted"),
	("l1_size", 36, be(0, 4), "l1_size"),
	("l1_size", 36, be(0xffffffff, 4), "l1_size"),
	("l1_offset", 40, be(0x123, 8), "l1_table_offset"),
	("l1_offset", 40, be(1 << 62, 8), "l1_table_offset"),
	("rt_offset", 48, be(1, 8), "refcount_table_offset"),
	("rt_offset", 48, be(0, 8), "refcount_table_offset"),
	("rt_offset", 48, be(0xffffffffffff0000, 8), "refcount_table_offset"),
	("rt_clusters", 56, be(0, 4), "refcount_table_clusters"),
	("rt_clusters", 56, be(0x7fffffff, 4), "refcount_table_clusters"),
	("nsnap", 60, be(65537, 4), "nb_snapshots"),
	("snap", 60, be(1, 4) + be(0x10001, 8), "snapshots_offset"),
	("incompat", 72, be(1 << 40, 8), "number 40"),
	("order", 96, be(7, 4), "refcount_order"),
	("length", 100, be(8, 4), "header_length"),
	("length", 100, be(0x7ffffff8, 4), "header_length"),
	("compression", 104, b"\1", "compression_type"),
	("backing", 8, be(0x7fffffffffffffff, 8) + be(10, 4), "backing_file_offset"),
	("backing", 8, be(200, 8) + be(1024, 4), "backing_file_offset"),
	("extension", 112, be(0xe2792aca, 4) + be(0xffffffff, 4), "extension"),
]


@pytest.mark.parametrize("case", HEADER, ids=lambda c: c[0])
def test_header_refused(tmp_path, case):
	path = by_qemu(str(tmp_path / "bad"), "compat=1.1", 8 << 20)
	before = open(patched(path, (case[1], case[2])), "rb").read()
	image = Image(path)
	assert image.first.startswith("error") and case[3] in image.first and "bad" in image.first, image.first
	image.proc.wait()
	assert open(path, "rb").read() == before


@pytest.mark.parametrize("cluster, step", [(512, 512), (4096, 512 if SOAK else 2560)])
def test_truncated(tmp_path, cluster, step):
	"""Cut off at every sector: a sentence, or an image that reads; never a crash. With clusters of a sector each cut
	is between two of them, and all kinds of tables are among them."""
	path = by_qemu(str(tmp_path / "whole"), f"cluster_size={cluster}", 1 << 20)
	qemu_io(path, f"write -P 1 0 {cluster * 5}", f"write -P 2 500000 {cluster * 5}")
	sh("qemu-img", "snapshot", "-c", "s", path)
	whole = open(path, "rb").read()
	cut = str(tmp_path / "cut")
	for n in range(0, len(whole), step):
		with open(cut, "wb") as file:
			file.write(whole[:n])
		for options in (",read-only=on", ""):
			image = Image(cut, options)
			if image.first != "ok open":
				assert "cut" in image.first
				image.proc.wait()
				continue
			image.ask(f"dump {cut}.dump")
			image.ask("write 100000 5000 3")
			image.ask("check 0")
			image.proc.stdin.close()
			assert image.proc.wait(60) == 0


def test_bad_entries(tmp_path):
	"""Entries that point at metadata, nowhere or askew: EIO, the corrupt bit, nothing overwritten."""
	info = by_qemu(str(tmp_path / "x"), "cluster_size=64k", 8 << 20)
	qemu_io(info, "write -P 1 0 65536", "write -P 2 65536 65536")
	whole = open(info, "rb").read()
	l1 = int.from_bytes(whole[40:48], "big")
	l2 = int.from_bytes(whole[l1:l1 + 8], "big") & 0xfffffffffffe00
	copied = 1 << 63
	path = str(tmp_path / "bad")
	for off, value, command in [
			(l2, copied | l1, "write 0 512 5"),		# the L1 table
			(l2, copied | l2, "write 0 512 5"),		# itself
			(l2, copied, "read 0 512 0"),			# the header: no offset
			(l2, copied | 0x50200, "read 0 512 1"),		# askew
			(l2, copied | 0x50200, "write 0 512 1"),
			(l2, copied | 1 << 55, "write 70000000 1 1"),	# far away
			(l1, copied | 0x50200, "read 0 512 1"),
			(l1, copied | 1 << 50, "read 0 512 1"),
			(l2, 1 << 62 | (1 << 50), "read 0 512 1")]:	# compressed, far away
		with open(path, "wb") as file:
			file.write(whole)
		patched(path, (off, be(value, 8)))
		image = Image(path)
		if image.first != "ok open":
			image.proc.wait()
			continue
		answer = image.ask(command)
		assert answer.startswith("error") or off == l2 and value == copied, (off, value, answer)
		image.proc.stdin.close()
		assert image.proc.wait(60) == 0
		after = open(path, "rb").read()
		keep = 512
		assert after[keep:l2] == whole[keep:l2] or off < l2, (off, value)
		image = Image(path, ",x-no-repair=on")
		assert image.first == "ok open", (off, value, image.first)
		image.do("check 3")
		image.close()
		qemu_check(path)


def test_inactive_l2(tmp_path):
	"""A snapshot's L2 table is metadata, too, for overlap-check=all."""
	path = by_qemu(str(tmp_path / "whole"), "cluster_size=64k", 8 << 20)
	with Image(path, ",overlap-check=all") as image:
		image.do("write 0 131072 1", "snapshot create a", "write 0 512 2", "snapshot create b",
			 "write 0 512 3", "snapshot delete a", "write 262144 65536 4", "flush")
	qemu_check(path)
	whole = open(path, "rb").read()
	active, snapshot = int.from_bytes(whole[40:48], "big"), int.from_bytes(whole[64:72], "big")
	l1 = int.from_bytes(whole[snapshot:snapshot + 8], "big")
	old, l2 = (int.from_bytes(whole[at:at + 8], "big") & 0xfffffffffffe00 for at in (l1, active))
	assert old != l2
	for options, answer in (("", "ok"), (",overlap-check.inactive-l2=on", "error 5")):
		bad = str(tmp_path / "bad")
		with open(bad, "wb") as file:
			file.write(whole)
		patched(bad, (l2 + 8, be(1 << 63 | old, 8)))	# cluster 1 of the guest
		image = Image(bad, options)
		assert image.first == "ok open"
		assert image.ask("write 65536 512 5").startswith(answer)
		image.proc.stdin.close()
		assert image.proc.wait(60) == 0
		log = image.proc.stderr.read()
		assert answer == "ok" or "inactive L2 table" in log, log
		assert (open(bad, "rb").read()[old:old + 65536] == whole[old:old + 65536]) is (answer != "ok")


def test_unknown_bits(tmp_path):
	path = by_qemu(str(tmp_path / "a"), "compat=1.1", 1 << 20)
	patched(path, (88, be(1 << 50, 8)))
	with Image(path):
		pass
	assert open(path, "rb").read()[88:96] == be(0, 8)
	patched(path, (72, be(2, 8)))	# corrupt
	image = Image(path)
	assert image.first.startswith("error 13") and "corrupt" in image.first
	image.proc.wait()
	with Image(path, ",read-only=on") as image:
		image.do("read 0 512 0")


def reopened(image, rng, options):
	"""Other options while it is open; also read-only and back."""
	words = [rng.choice(["cache-size=0,l2-cache-size=4k", "cache-size=0,l2-cache-size=1M",
			     "cache-size=0,refcount-cache-size=8k",
			     "cache-size=64k,l2-cache-size=0,refcount-cache-size=0"]),
		 rng.choice(["discard=unmap", "discard=ignore", "pass-discard-request=on"]),
		 rng.choice(["overlap-check=none", "overlap-check=all", "overlap-check=cached"]),
		 rng.choice(["cache.no-flush=on", "cache.no-flush=off", "cache-clean-interval=1"])]
	if "compat=0.10" not in options:
		words.append(rng.choice(["lazy-refcounts=on", "lazy-refcounts=off"]))
	if rng.random() < 0.4:
		image.do("reopen read-only=on")
		assert image.ask("write 0 1 1").startswith("error 30")
		qemu_check(image.path, leaks=None)	# it is all there, and free to be read
		words.append("read-only=off")
	image.do("reopen " + ",".join(words))


@pytest.mark.parametrize("options", FORMATS)
def test_reopen(tmp_path, options):
	rng = rng_of(seed_of(4000 + FORMATS.index(options)))
	cluster, size = cluster_of(options), 1 << 20
	path, model = create(str(tmp_path / "a"), f"{size},{options}"), Model(size)
	with Image(path) as image:
		for step, (ours, _) in enumerate(program(rng, model, cluster, 60, snapshots=0, resize=False)):
			image.do(ours)
			if step % 5 == 4:
				reopened(image, rng, options)
		for text, why in (("reopen x-no-repair=on", "cannot be changed"), ("reopen file=x", "file"),
				  ("reopen force-share=on,read-only=on", "force-share"),
				  ("reopen cache-size=4k,l2-cache-size=8k", "exceed")):
			assert why in image.ask(text), text
		# nothing of what was refused stayed
		image.do("reopen read-only=off", "write 0 512 7")
		model.write(0, 512, 7)
		same_content_open(image, path, model, str(tmp_path / "raw"))
	qemu_check(path)
	same_content(path, model.save(str(tmp_path / "raw")))


def test_backing_loop(tmp_path):
	path = by_qemu(str(tmp_path / "a"), "compat=1.1", 1 << 20)
	with Image(path) as image:
		image.do("backing a qcow2")
	image = Image(path, ",read-only=on")
	assert image.first.startswith("error"), image.first
	image.proc.wait()


def test_measure(tmp_path):
	for options in ("", "cluster_size=512", "cluster_size=2M", "refcount_bits=64",
			"extended_l2=on", "preallocation=falloc"):
		for size in (0, 512, 1 << 20, (1 << 30) + 512, 1 << 40):
			if size >> 30 and "=512" in options:
				continue
			theirs = json.loads(sh("qemu-img", "measure", "--output=json", "-O", "qcow2",
					       *(["-o", options] if options else []), "--size", str(size)).stdout)
			ours = sh(TOOL, "--measure", f"{size}{',' if options else ''}{options}").stdout.split()
			assert ours[1:] == [str(theirs["required"]), str(theirs["fully-allocated"])], (options, size)


def test_crashed_images(tmp_path):
	"""What the crash test leaves, as QEMU sees it: no corruption."""
	program = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(TOOL))), "tests",
			       "unit-block-qcow2-crash")
	done = subprocess.run([program], env={**os.environ, "NEMU_CRASH_DIR": str(tmp_path)},
			      capture_output=True, text=True, timeout=300)
	assert done.returncode == 0, done.stdout + done.stderr
	images = sorted(tmp_path.glob("*.qcow2"))
	assert len(images) > 20
	for image in images:
		qemu_check(str(image), leaks=None)
		with Image(str(image)) as ours:
			ours.do("check 1")
		qemu_check(str(image))
