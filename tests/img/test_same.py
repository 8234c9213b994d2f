"""nemu-img's command line beside qemu-img's: exit status, output and what is left, case by case."""
import os
import re
import shlex
import struct

import pytest

from pair import Pair, nemu_img, shell, source, sparse

pytestmark = pytest.mark.host


@pytest.fixture
def pair(tmp_path):
	return Pair(tmp_path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
	"""base <- mid <- top, all qcow2; raw and a compressed one; made by qemu's tools."""
	path = tmp_path_factory.mktemp("images")
	sparse(path / "src.raw", source())
	for command in ("qemu-img create -q -f qcow2 base.qcow2 10M",
			"qemu-io -c 'write -P 1 0 1M' -c 'write -z 3M 1M' base.qcow2",
			"qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
			"qemu-io -c 'write -P 2 64k 64k' -c 'write -z 512k 64k' mid.qcow2",
			"qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 12M",
			"qemu-io -c 'write -P 3 256k 100k' -c 'write -P 4 11M 64k' top.qcow2",
			"qemu-img convert -c -f raw -O qcow2 src.raw packed.qcow2",
			"qemu-img convert -f raw -O qcow2 src.raw data.qcow2"):
		done = shell(shlex.split(command), path)
		assert done.returncode == 0, done.stderr
	return path


@pytest.fixture
def chain(images, pair):
	for where in (pair.q, pair.n):
		assert shell(["cp", "-r", "--sparse=always", f"{images}/.", where], where).returncode == 0
	return pair


# --- create ---

CREATE = [
	"-f raw a 10M", "-f raw a 1000", "-f raw a 0", "a 5k", "-f raw -o preallocation=falloc a 1M",
	"-f raw -o preallocation=full a 1M", "-f raw -o size=3M a", "-q -f raw a 1M", "-f raw -o nocow=on a 1M",
	"-f qcow2 a 1G", "-f qcow2 a 1000", "-f qcow2 a 0", "-f qcow2 a 1.5G", "-f qcow2 a 7T", "-q -f qcow2 a 1M",
	"-f qcow2 -o size=5M a", "-f qcow2 -o cluster_size=512 a 1M", "-f qcow2 -o cluster_size=2M a 1G",
	"-f qcow2 -o cluster_size=4k,compat=0.10 a 1M", "-f qcow2 -o compat=1.1,lazy_refcounts=on a 1M",
	"-f qcow2 -o refcount_bits=1 a 1M", "-f qcow2 -o refcount_bits=64 a 1M",
	"-f qcow2 -o extended_l2=on a 1M", "-f qcow2 -o extended_l2=on,cluster_size=128k a 1M",
	"-f qcow2 -o compression_type=zstd a 1M", "-f qcow2 -o preallocation=metadata a 20M",
	"-f qcow2 -o preallocation=falloc a 2M", "-f qcow2 -o preallocation=full a 2M",
	"-f qcow2 -o cluster_size=4k -o refcount_bits=8 a 1M",
	"-f qcow2 -b base.raw -F raw a", "-f qcow2 -b base.raw -F raw a 20M", "-f qcow2 -b base.raw -F raw a 1M",
	"-f qcow2 -o backing_file=base.raw,backing_fmt=raw a", "-f qcow2 -b base.raw -F raw -o backing_file=none,backing_fmt=qcow2 a",
	"-f qcow2 -b base.raw -o backing_file=none,backing_fmt=raw a", "-u -f qcow2 -b none -F raw a 5M",
	"-f qcow2 -F qcow2 -b base.qcow2 a", "-f qcow2 -o data_file=d,data_file_raw=on a 1M",
	"-f qcow2 -o preallocation=metadata,data_file=d a 1M",
]


@pytest.mark.parametrize("args", CREATE)
def test_create(pair, args):
	pair.prepare("qemu-img create -q -f raw base.raw 10M", "qemu-img create -q -f qcow2 base.qcow2 3M")
	pair.run("create " + args, status=0)
	fmt = "qcow2" if "qcow2" in args.split(" ")[:3] else "raw"
	if "none" not in args:
		pair.info("a", fmt)
		pair.same("a", fmt=fmt)
	pair.nothing_left()


CREATE_BAD = [
	"", "-f qcow2 a", "-f qcow2 a 1x", "-f qcow2 a -5", "-f nonsense a 1G", "-f qcow2 -o foo=bar a 1G",
	"-f qcow2 nodir/a 1M", "-u -f qcow2 -b none -F raw a", "-f qcow2 -b none -F raw a 5M",
	"-f raw -b base.raw a 5M", "-z", "-f qcow2 a 1M extra", "-f qcow2 -b base.raw a", "-f",
	"-f qcow2 -o cluster_size=3k a 1M", "-f qcow2 -o cluster_size=4M a 1M", "-f qcow2 -o refcount_bits=3 a 1M",
	"-f qcow2 -o compat=0.10,lazy_refcounts=on a 1M", "-f qcow2 -o compat=2 a 1M",
	"-f qcow2 -o compat=0.10,extended_l2=on a 1M", "-f qcow2 -o extended_l2=on,cluster_size=4k a 1M",
	"-f qcow2 -o preallocation=foo a 1M", "-f qcow2 -o lazy_refcounts=maybe a 1M", "-f qcow2 -o size=x a",
	"-f raw -o preallocation=metadata a 1M", "-f qcow2 a 16E", "-f qcow2 -o compression_type=lzma a 1M",
	"-f qcow2 -b base.raw -F nonsense a", 
	"-f qcow2 -o data_file_raw=on a 1M", "-f qcow2 -b base.raw -F raw -o data_file=d,data_file_raw=on a",
]


@pytest.mark.parametrize("args", CREATE_BAD)
def test_create_refused(pair, args):
	pair.prepare("qemu-img create -q -f raw base.raw 10M")
	_, n = pair.both("create " + args)
	assert n.returncode == 1 and n.stderr.count("\n") == 1
	assert [f for f in os.listdir(pair.n) if f.startswith(".")] == []


# --- looking ---

IMAGES = ["src.raw", "base.qcow2", "mid.qcow2", "top.qcow2", "packed.qcow2", "data.qcow2"]


def test_info(chain):
	chain.prepare("qemu-img create -q -f qcow2 -o compat=0.10 -b src.raw -F raw old.qcow2",
		      "qemu-img create -q -f qcow2 -o cluster_size=128k,extended_l2=on,lazy_refcounts=on ext.qcow2 1G",
		      "qemu-img create -q -u -f qcow2 -b nowhere -F raw lost.qcow2 5M",
		      "qemu-img create -q -f qcow2 -o data_file=d,data_file_raw=on far.qcow2 1M",
		      "mkdir sub", "qemu-img create -q -f qcow2 -b ../src.raw -F raw sub/x.qcow2",
		      "qemu-img snapshot -c averyveryverylongname data.qcow2", "qemu-img snapshot -c two data.qcow2",
		      "qemu-img bitmap --add base.qcow2 b0")
	for name in [*IMAGES, "old.qcow2", "ext.qcow2", "lost.qcow2", "far.qcow2", "sub/x.qcow2"]:
		chain.run(f"info {name}", status=0, out="b0" not in name and name != "base.qcow2")
		chain.json(f"info --output=json {name}")
	chain.run("info --backing-chain mid.qcow2", out=False)
	chain.json("info --backing-chain --output=json top.qcow2")
	chain.run("info -f raw data.qcow2", status=0)
	chain.run("info -U top.qcow2", status=0)
	chain.run("info --image-opts driver=qcow2,file.driver=file,file.filename=top.qcow2", status=0)
	chain.run(["info", 'json:{"driver":"raw","file":{"driver":"file","filename":"src.raw"}}'], out=False, status=0)
	for bad in ("", "a b", "none", "-f qcow2 src.raw", "--output=xml src.raw", ".", "nbd:foo",
		    "--backing-chain lost.qcow2", "--image-opts filename=src.raw", "--nonsense src.raw", "-f foo src.raw"):
		chain.both(f"info {bad}")[1].returncode == 1


def test_map(chain):
	for name in IMAGES:
		chain.run(f"map {name}")
		chain.run(f"map --output=json {name}", status=0)
	chain.run("map --output=json -s 1M data.qcow2", status=0)
	chain.run("map --output=json --start-offset=100k --max-length=1M top.qcow2", status=0)
	chain.run("map --output=json --start-offset=100M top.qcow2", status=0)
	chain.run("map -l 64k top.qcow2", status=0)
	for bad in ("", "none", "--output=xml src.raw", "-s x src.raw", "src.raw more"):
		chain.run(f"map {bad}", status=1)


def test_measure(chain):
	for opts in ("", "-O qcow2", "-O qcow2 -o cluster_size=4k", "-O qcow2 -o refcount_bits=1",
		     "-O qcow2 -o compat=0.10", "-O qcow2 -o preallocation=full"):
		chain.run(f"measure {opts} --size 1G", status=0)
		chain.run(f"measure {opts} --size 1000", status=0)
		for name in IMAGES:
			chain.run(f"measure {opts} {name}", status=0)
			chain.json(f"measure --output=json {opts} {name}")
	for bad in ("", "--size 1G src.raw", "-O vhdx src.raw", "--size x", "-O qcow2 -o foo=1 --size 1M", "none"):
		chain.run(f"measure {bad}", status=1)


def damage(pair):
	"""leak.qcow2 has a leaked cluster, bad.qcow2 an entry that points nowhere."""
	data = bytearray(pair.read("base.qcow2"))
	table = struct.unpack_from(">Q", data, 48)[0]
	block = struct.unpack_from(">Q", data, table)[0]
	data += bytes(-len(data) % 65536) + bytes(65536)
	struct.pack_into(">H", data, block + 2 * (len(data) // 65536 - 1), 1)
	pair.write("leak.qcow2", bytes(data))
	data = bytearray(pair.read("base.qcow2"))
	l1 = struct.unpack_from(">Q", data, 40)[0]
	l2 = struct.unpack_from(">Q", data, l1)[0] & 0xfffffffffffe00
	struct.pack_into(">Q", data, l2 + 8 * 40, 1 << 63 | 5 << 40)
	pair.write("bad.qcow2", bytes(data))


def test_check(chain):
	damage(chain)
	for name in [*IMAGES[1:], "leak.qcow2", "bad.qcow2"]:
		chain.run(f"check {name}")
		chain.run(f"check -q {name}")
		chain.json(f"check --output=json {name}")
	chain.run("check src.raw", status=63)
	chain.run("check leak.qcow2", status=3)
	chain.run("check bad.qcow2", status=2)
	chain.run("check -r leaks leak.qcow2", status=0)
	chain.run("check leak.qcow2", status=0)
	chain.both("check -r leaks bad.qcow2")
	# qemu-img takes two runs for it
	assert nemu_img(chain.n, "check", "-r", "all", "bad.qcow2").returncode == 0
	assert shell(["qemu-img", "check", "bad.qcow2"], chain.n).returncode == 0
	for bad in ("", "none", "-r foo base.qcow2", "-p base.qcow2", "--output=xml base.qcow2", "-T foo base.qcow2", "-f foo base.qcow2"):
		chain.run(f"check {bad}", status=1)


def test_compare(chain):
	chain.prepare("qemu-img create -q -f raw long.raw 10M", "cp --sparse=always src.raw long.raw",
		      "qemu-img resize -q -f raw long.raw 11M", "cp long.raw other.raw",
		      "qemu-io -f raw -c 'write -P 9 10755000 512' other.raw",
		      "cp --sparse=always src.raw bit.raw", "qemu-io -f raw -c 'write -P 9 5000192 512' bit.raw",
		      "qemu-img create -q -f qcow2 empty.qcow2 10M")
	for args in ("src.raw data.qcow2", "data.qcow2 packed.qcow2", "-s data.qcow2 packed.qcow2", "src.raw long.raw",
		     "long.raw src.raw", "-s src.raw long.raw", "src.raw other.raw", "other.raw src.raw",
		     "src.raw bit.raw", "-q src.raw bit.raw", "data.qcow2 empty.qcow2", "top.qcow2 mid.qcow2",
		     "-f raw -F qcow2 src.raw data.qcow2", "none src.raw", "src.raw none", "src.raw", "",
		     "-f qcow2 src.raw data.qcow2", "-T foo src.raw data.qcow2", "-s top.qcow2 top.qcow2",
		     "-T none src.raw data.qcow2", "-U src.raw data.qcow2", "a b c"):
		chain.run(f"compare {args}")
	assert chain.run("compare src.raw data.qcow2").returncode == 0
	assert chain.run("compare src.raw bit.raw").returncode == 1
	assert chain.run("compare src.raw none").returncode == 2


# --- changing ---

def test_resize(chain):
	for step in ("-f raw src.raw 20M", "-f raw src.raw +5M", "-f raw src.raw 10M", "-f raw --shrink src.raw 10M",
		     "-f raw --shrink src.raw -1M", "data.qcow2 20M", "data.qcow2 20M", "data.qcow2 10M",
		     "--shrink data.qcow2 10M", "-q data.qcow2 +1M", "--preallocation=full data.qcow2 +1M",
		     "--preallocation=metadata data.qcow2 +1M", "--preallocation=falloc data.qcow2 +1M",
		     "--preallocation=foo data.qcow2 +1M", "data.qcow2", "data.qcow2 abc",
		     "--shrink --preallocation=full data.qcow2 5M", "data.qcow2 -100G", "data.qcow2 0", "none 1M",
		     "-f raw src.raw 1000000000000000000000", "--preallocation=metadata -f raw src.raw +1M",
		     "top.qcow2 +1M", "--shrink top.qcow2 1M", "--image-opts driver=qcow2,file.filename=mid.qcow2 11M"):
		chain.run(f"resize {step}")
	chain.same("data.qcow2")
	chain.same("top.qcow2")
	chain.same("src.raw", fmt="raw")
	for name in ("data.qcow2", "top.qcow2", "mid.qcow2"):
		chain.info(name)


def test_snapshot(chain):
	for step in ("-c one data.qcow2", "-c two data.qcow2", "-l data.qcow2", "data.qcow2", "-a nope data.qcow2",
		     "-d nope data.qcow2", "-l src.raw", "-l -c x data.qcow2", "-q -l data.qcow2", "", "-l none",
		     "-U -l data.qcow2", "-U -c x data.qcow2"):
		chain.run(f"snapshot {step}")
	chain.prepare("qemu-io -c 'write -P 7 0 3M' -c 'discard 4M 1M' data.qcow2")
	for step in ("-c three data.qcow2", "-a one data.qcow2", "-d two data.qcow2", "-l data.qcow2", "-d 3 data.qcow2",
		     "-d three data.qcow2", "-l data.qcow2"):
		chain.run(f"snapshot {step}")
		chain.same("data.qcow2")
	chain.run("compare src.raw data.qcow2", status=0)


def test_rebase(chain):
	chain.prepare("qemu-img convert -O qcow2 top.qcow2 whole.qcow2", "cp top.qcow2 t.qcow2", "cp top.qcow2 u.qcow2",
		      "qemu-img create -q -f qcow2 other.qcow2 8M", "qemu-io -c 'write -P 1 512k 2M' other.qcow2")
	for step in ("-b base.qcow2 -F qcow2 t.qcow2", "-b other.qcow2 -F qcow2 t.qcow2", "-b src.raw -F raw t.qcow2",
		     "-b '' t.qcow2", "-b mid.qcow2 -F qcow2 t.qcow2"):
		chain.run(f"rebase {step}", status=0)
		chain.same("t.qcow2")
		chain.run("compare t.qcow2 whole.qcow2", status=0)
		chain.info("t.qcow2")
	for step in ("-u -b foo -F raw u.qcow2", "-u -b '' u.qcow2", "-u -b mid.qcow2 -F qcow2 u.qcow2"):
		chain.run(f"rebase {step}", status=0)
		chain.info("u.qcow2")
	chain.same("u.qcow2")
	for bad in ("t.qcow2", "", "-b base.qcow2 t.qcow2", "-u -b base.qcow2 t.qcow2", "-b none -F raw t.qcow2",
		    "-b base.qcow2 -F foo t.qcow2", "-b base.qcow2 -F qcow2 src.raw", "-t foo -b '' t.qcow2",
		    "-b base.qcow2 -F qcow2 none", "-T foo -b '' t.qcow2"):
		chain.both(f"rebase {bad}")
	chain.same("t.qcow2")


def test_commit(chain):
	chain.prepare("qemu-img convert -O qcow2 top.qcow2 whole.qcow2", "cp top.qcow2 t.qcow2", "cp top.qcow2 u.qcow2")
	for bad in ("", "base.qcow2", "-b none top.qcow2", "none", "-t foo top.qcow2", "-r x top.qcow2"):
		chain.run(f"commit {bad}", status=1)
	chain.run("commit -d -q t.qcow2", status=0)
	chain.same("t.qcow2")
	chain.same("mid.qcow2")
	chain.run("compare mid.qcow2 whole.qcow2", status=0)
	chain.run("commit u.qcow2", status=0)
	chain.json("map --output=json u.qcow2", without=["offset"])
	chain.same("u.qcow2")
	chain.run("compare u.qcow2 whole.qcow2", status=0)
	chain.run("commit -b base.qcow2 -r 100M top.qcow2", status=0)
	for name in ("top.qcow2", "base.qcow2"):
		chain.same(name)
	chain.run("compare base.qcow2 whole.qcow2", status=0)
	chain.prepare("qemu-img create -q -f raw r.raw 5M", "qemu-img create -q -f qcow2 -b r.raw -F raw o.qcow2 6M",
		      "qemu-io -c 'write -P 3 1M 2M' -c 'write -z 4M 1M' -c 'write -P 4 5M 1M' o.qcow2")
	chain.run("commit o.qcow2", status=0)
	chain.same("r.raw", fmt="raw")


# --- copying ---

CONVERT = [
	"src.raw o", "-O raw src.raw o", "-f raw -O qcow2 src.raw o", "-O raw data.qcow2 o", "-O qcow2 packed.qcow2 o",
	"-c -O qcow2 src.raw o", "-c -O qcow2 -o compression_type=zstd src.raw o", "-c -O qcow2 -o cluster_size=4k data.qcow2 o",
	"-O qcow2 -o cluster_size=512 src.raw o", "-O qcow2 -o cluster_size=2M src.raw o",
	"-O qcow2 -o extended_l2=on,cluster_size=128k src.raw o", "-O qcow2 -o compat=0.10 src.raw o",
	"-O qcow2 -o preallocation=metadata src.raw o", "-O raw -o preallocation=falloc src.raw o",
	"-O raw -S 0 src.raw o", "-O raw -S 64k src.raw o", "-O qcow2 -S 0 src.raw o", "-O raw -S 512 src.raw o",
	"-O qcow2 -W -m 16 src.raw o", "-O raw -m 1 data.qcow2 o", "-O raw top.qcow2 o", "-O qcow2 top.qcow2 o",
	"-B mid.qcow2 -F qcow2 -O qcow2 top.qcow2 o", "-o backing_file=mid.qcow2,backing_fmt=qcow2 -O qcow2 top.qcow2 o",
	"-B mid.qcow2 -F qcow2 -o backing_file=none,backing_fmt=raw -O qcow2 top.qcow2 o",
	"src.raw data.qcow2 o", "-O qcow2 src.raw top.qcow2 packed.qcow2 o", "-C src.raw o", "-C -O qcow2 src.raw o",
	"-q -U src.raw o", "-r 500M src.raw o", "--salvage src.raw o", "-t none src.raw o", "-t writeback -T none src.raw o",
	"-t writethrough -O qcow2 src.raw o", "--image-opts driver=qcow2,file.filename=data.qcow2 o", "file:src.raw file:o",
	"-O qcow2 -c -W src.raw o", "-O qcow2 odd.raw o", "odd.raw o", "-O qcow2 empty.raw o", "empty.raw o",
	"-O qcow2 -o size=20M src.raw o", "-O qcow2 -o size=1M src.raw o", "-f raw data.qcow2 o", "-O qcow2 -c -S 0 src.raw o",
	"-O qcow2 -o data_file=o.data src.raw o",
]


@pytest.mark.parametrize("args", CONVERT)
def test_convert(chain, args):
	chain.prepare("truncate -s 70000 odd.raw", "dd if=src.raw of=odd.raw conv=notrunc bs=1000 count=66 status=none",
		      "truncate -s 0 empty.raw")
	chain.run("convert " + args, status=0)
	fmt = "qcow2" if "-O qcow2" in args else "raw"
	chain.same("o", fmt=fmt)
	if "empty" not in args:
		mine, theirs = chain.info("o", fmt), None
		assert mine["virtual-size"] >= 65536
	chain.nothing_left()
	if "-c " in args and "2M" not in args:
		sizes = [os.stat(os.path.join(w, "o")).st_size for w in (chain.q, chain.n)]
		assert sizes[1] <= sizes[0] * 1.02 + 65536
	blocks = [os.stat(os.path.join(w, "o")).st_blocks for w in (chain.q, chain.n)]
	assert blocks[1] <= blocks[0] * 1.02 + 600, "as sparse as qemu-img's"


CONVERT_BAD = [
	"", "src.raw", "-n src.raw none.raw", "-O foo src.raw o", "-c -O raw src.raw o", "-S 1000000000000 src.raw o",
	"-S 1000 src.raw o", "-m 0 src.raw o", "-m 17 src.raw o", "-l nope -O raw data.qcow2 o", "--target-is-zero src.raw o",
	"-C -S 4k src.raw o", "--image-opts -O raw data.qcow2 o", "--target-image-opts src.raw driver=raw,file.filename=o",
	"-t foo src.raw o", "-T foo src.raw o", "-r x src.raw o", "-c -C -O qcow2 src.raw o", "-B mid.qcow2 -O qcow2 top.qcow2 o",
	"--bitmaps -O qcow2 src.raw o", "--skip-broken-bitmaps -O qcow2 src.raw o", "none o", "src.raw nodir/o",
	"-O qcow2 -o foo=1 src.raw o", "-B none -F raw -O qcow2 top.qcow2 o", "-f qcow2 src.raw o", "src.raw src.raw",
	"-l x -O raw src.raw o", "-n src.raw small.raw", "-B mid.qcow2 -F qcow2 -O raw top.qcow2 o",
	"--nonsense src.raw o", "-B a -F raw -O qcow2 src.raw data.qcow2 o",
]


@pytest.mark.parametrize("args", CONVERT_BAD)
def test_convert_refused(chain, args):
	chain.prepare("qemu-img create -q -f raw small.raw 1M")
	before = chain.read("src.raw")
	chain.run("convert " + args, status=1)
	assert chain.read("src.raw") == before
	# qemu-img leaves what it has begun
	assert not os.path.exists(os.path.join(chain.n, "o"))
	assert [f for f in os.listdir(chain.n) if f.startswith(".")] == []


def test_convert_into_what_is_there(chain):
	chain.prepare("qemu-img create -q -f raw t.raw 12M", "qemu-io -f raw -c 'write -P 9 0 12M' t.raw",
		      "qemu-img create -q -f qcow2 t.qcow2 12M", "qemu-io -c 'write -P 9 0 12M' t.qcow2",
		      "qemu-img create -q -f raw z.raw 10M")
	chain.run("convert -n -f raw -O raw src.raw t.raw", status=0)
	chain.same("t.raw", fmt="raw")
	chain.run("convert -n -f raw -O qcow2 src.raw t.qcow2", status=0)
	chain.same("t.qcow2")
	chain.run("convert -n --target-is-zero -f raw src.raw z.raw", status=0)
	chain.same("z.raw", fmt="raw")
	chain.run("convert -n --target-image-opts -f raw src.raw driver=qcow2,file.driver=file,file.filename=t.qcow2", status=0)
	chain.same("t.qcow2")


def test_convert_snapshot(chain):
	chain.prepare("qemu-img snapshot -c one data.qcow2", "qemu-io -c 'write -P 7 0 3M' data.qcow2",
		      "qemu-img snapshot -c two data.qcow2", "qemu-io -c 'write -P 8 1M 3M' data.qcow2")
	for name in ("one", "2", "snapshot.name=two", "snapshot.id=1"):
		chain.run(f"convert -l {name} -O raw data.qcow2 o", status=0)
		chain.same("o", fmt="raw")
		chain.run(f"measure -l {name} -O qcow2 data.qcow2", status=0)
	chain.run("compare src.raw o", status=0)


def test_dd(chain):
	for args in ("bs=1M count=2", "count=1", "", "bs=1000 count=3", "skip=1000000", "bs=64k skip=3", "bs=2M count=0"):
		chain.both(f"dd if=src.raw of=o.raw {args}")
		chain.same("o.raw", fmt="raw")
	chain.run("dd -f qcow2 -O qcow2 if=top.qcow2 of=o.qcow2 bs=1M skip=1", status=0)
	chain.same("o.qcow2")
	chain.run("dd -U -O raw if=packed.qcow2 of=p.raw bs=3000 count=1000", status=0)
	chain.same("p.raw", fmt="raw")
	# both are counted from the beginning of the input
	for args in ("bs=1M count=3 skip=1", "bs=1M count=1 skip=2", "bs=1M count=100 skip=3", "bs=64k count=5 skip=5"):
		chain.run(f"dd if=src.raw of=o.raw {args}", status=0)
		chain.same("o.raw", fmt="raw")
	for bad in ("if=src.raw", "of=o.raw", "if=src.raw of=d bs=foo", "if=src.raw of=d foo=1", "if=src.raw of=d bs=0",
		    "if=none of=d", "-O foo if=src.raw of=d", "if=src.raw of=d count=x"):
		chain.run(f"dd {bad}", status=1)


def test_bench(chain):
	for args in ("-c 1000 src.raw", "-c 100 -d 1 -s 64k data.qcow2", "-c 100 -o 1M -S 8k data.qcow2",
		     "-f raw -c 100 -w --pattern=0x55 src.raw", "-c 1000 -w --flush-interval=100 data.qcow2",
		     "-c 1000 -w --flush-interval=100 --no-drain -q data.qcow2", "-c 0 data.qcow2", "-n -t none -c 10 data.qcow2",
		     "-U -c 10 data.qcow2", "-i threads -c 100 data.qcow2"):
		chain.run(f"bench {args}", status=0)
	for bad in ("", "-c 100 --flush-interval=1 data.qcow2", "-c 100 --flush-interval=10 -w -d 60 data.qcow2",
		    "-c 10 -i foo data.qcow2", "-n -c 10 data.qcow2", "-w --pattern=300 -c 10 data.qcow2", "-w -U -c 10 data.qcow2",
		    "-c x data.qcow2", "none", "-t foo data.qcow2"):
		chain.run(f"bench {bad}", status=1)
	assert chain.both("bench -c 10 -o 80M data.qcow2")[1].returncode == 1
	chain.same("src.raw", fmt="raw")
	chain.same("data.qcow2")


# each option of `qemu-img --help` that no case above has
OPTIONS = [
	"check --image-opts driver=qcow2,file.filename=base.qcow2", "check -U -f qcow2 base.qcow2", "check -T none base.qcow2",
	"check -r all -q base.qcow2",
	"compare --image-opts driver=raw,file.filename=src.raw driver=qcow2,file.filename=data.qcow2",
	"compare -p src.raw data.qcow2", "convert -p -f raw -O qcow2 src.raw o", "convert -p -q -f raw src.raw o",
	"convert -b mid.qcow2 -F qcow2 -O qcow2 top.qcow2 o",
	"map --image-opts --output=json driver=qcow2,file.filename=top.qcow2", "map -U -f qcow2 --output=json top.qcow2",
	"measure --image-opts -O qcow2 driver=qcow2,file.filename=top.qcow2", "measure -U -f raw -O qcow2 src.raw",
	"measure -O qcow2 -o backing_file=mid.qcow2 --size 1G", "info -U --image-opts driver=raw,file.filename=src.raw",
	"snapshot --image-opts -l driver=qcow2,file.filename=data.qcow2", "snapshot -q -c s data.qcow2",
	"resize -q --shrink data.qcow2 9M", "bench --image-opts -c 10 driver=qcow2,file.filename=data.qcow2",
	"dd --image-opts if=driver=qcow2,file.filename=data.qcow2 of=o bs=1M count=1",
	"rebase -p -b base.qcow2 -F qcow2 top.qcow2", "rebase -q -U -b base.qcow2 -F qcow2 top.qcow2",
	"rebase --image-opts -b base.qcow2 -F qcow2 driver=qcow2,file.filename=top.qcow2", "commit -p mid.qcow2",
	"commit --image-opts driver=qcow2,file.filename=mid.qcow2", "commit -t none -q mid.qcow2",
	"create -q -u -f qcow2 -b base.raw -F raw o 1M",
]


@pytest.mark.parametrize("args", OPTIONS)
def test_options(chain, args):
	if " -p " not in args:
		chain.run(args)
		return
	# how many steps there are is each one's own
	q, n = [re.split(r"\s*\(([\d.]+)/100%\)\s*", done.stdout) for done in chain.both(args)]
	assert "".join(q[::2]).strip() == "".join(n[::2]).strip()
	assert "100.00" in n[1::2] or "-q" in args


def test_commands(pair):
	for args in ("", "foo", "--nonsense", "amend -o compat=1.1 x"):
		assert pair.both(args)[1].returncode == 1
	for args in ("--help", "-h", "--version", "create --help"):
		assert pair.both(args)[1].returncode == 0
	for name in ("create", "convert"):
		pair.both(f"{name} -O qcow2 -o help a b" if name == "convert" else f"{name} -f qcow2 -o help")
