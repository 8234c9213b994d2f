"""Memory back ends and NUMA nodes in running guests, seen from the host and from the guest.

Most of it with the tiny guest `memory`, which writes the first and last page of each range of RAM,
reads them again and ends with a reset; -no-reboot -no-shutdown keep the process for a look at it.
"""
import os
import re
import stat
import struct
import subprocess
import time

import pytest

import acpi
import vm as v

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
HIGH = 4 * GIB
LOW_MAX = 2 * GIB
GUEST = os.path.join(v.ROOT, "build", "tests", "guest", "memory.bin")


def mark(gpa):
	"""What the guest writes at an address."""
	return struct.pack("<Q", (gpa + 1) * 0x9E3779B97F4A7C15 % (1 << 64))


class Guest(v.Vm):
	"""The tiny guest, at its end."""

	def __init__(self, size, *args, ranges=None):
		super().__init__("-machine", "virt", "-bios", GUEST, "-no-reboot", "-no-shutdown", *args)
		end = self.serial.expect(r"PASS\n|FAIL.*\n", 120)
		assert end.group(0) == "PASS\n", self.serial.text + self.errors()
		got = dict(re.findall(r"(\w+)=(\d+) ", self.serial.text))
		assert int(got["bytes"]) == size
		assert int(got["ranges"]) == (ranges or (2 if size > LOW_MAX else 1))
		assert int(got["end"]) == (HIGH + size - LOW_MAX if size > LOW_MAX else size)

	def proc(self, name):
		with open(f"/proc/{self.process.pid}/{name}") as file:
			return file.read()

	def status(self, key):
		"""A line of /proc/PID/status, in bytes."""
		return int(re.search(rf"^{key}:\s+(\d+) kB", self.proc("status"), re.M).group(1)) * KIB

	def mapping(self, size):
		"""The mapping of this size: {key: bytes}, with start, flags and name."""
		found = []
		for text in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", self.proc("smaps"), flags=re.M)[1:]:
			start, end = (int(x, 16) for x in re.match(r"(\w+)-(\w+)", text).groups())
			if end - start == size:
				keys = {k: int(n) * KIB for k, n in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
				keys["start"], keys["head"] = start, text.split("\n")[0]
				keys["flags"] = re.search(r"^VmFlags: (.*)", text, re.M).group(1).split()
				found.append(keys)
		assert len(found) == 1, f"{len(found)} mappings of {size:#x} bytes"
		return found[0]

	def end(self):
		self.qmp.cmd("quit")
		assert self.wait() == 0, self.errors()
		assert self.errors() == ""


def meminfo(key):
	with open("/proc/meminfo") as file:
		return int(re.search(rf"^{key}:\s+(\d+)", file.read(), re.M).group(1))


@pytest.fixture(scope="module")
def huge_pages():
	"""64 huge pages of 2 MiB."""
	path = "/proc/sys/vm/nr_hugepages"
	with open(path) as file:
		before = file.read()
	with open(path, "w") as file:
		file.write("64")
	assert meminfo("HugePages_Free") == 64
	yield
	with open(path, "w") as file:
		file.write(before)


def backend(kind, size, more=""):
	return ("-object", f"memory-backend-{kind},id=m,size={size}{more}",
		"-machine", "memory-backend=m")


def test_ram_is_huge_private_and_not_dumped():
	size = 256 * MIB
	with Guest(size, "-m", "256M") as vm:
		m = vm.mapping(size)
		assert m["start"] % (2 * MIB) == 0
		assert "dd" in m["flags"] and "hg" in m["flags"] and "sh" not in m["flags"]
		assert 2 * MIB <= m["AnonHugePages"] == m["Anonymous"], "every page of the guest's is huge"
		assert m["Rss"] < 16 * MIB, "only what the guest touched"
		assert vm.status("VmLck") == 0
		vm.end()
	with Guest(size, "-m", "256M", *backend("ram", "256M", ",share=on,reserve=off")) as vm:
		m = vm.mapping(size)
		assert {"sh", "nr"} <= set(m["flags"])
		vm.end()


def test_prealloc_and_lock():
	size = 192 * MIB
	with Guest(size, *backend("ram", "192M", ",prealloc=on,prealloc-threads=3")) as vm:
		assert vm.mapping(size)["Rss"] == size
		vm.end()
	with Guest(size, "-m", "192M", "-mem-prealloc") as vm:
		assert vm.mapping(size)["Rss"] == size
		vm.end()
	with Guest(size, "-m", "192M", "-smp", "2", "-overcommit", "mem-lock=on") as vm:
		m = vm.mapping(size)
		assert "lo" in m["flags"] and m["Locked"] == size
		assert vm.status("VmLck") >= size
		assert vm.status("VmRSS") < size + 64 * MIB
		vm.end()


def test_memfd_in_huge_pages(huge_pages):
	size = 64 * MIB
	with Guest(size, *backend("memfd", "64M", ",hugetlb=on,hugetlbsize=2M,prealloc=on")) as vm:
		assert meminfo("HugePages_Free") == 32
		m = vm.mapping(size)
		assert m["KernelPageSize"] == 2 * MIB and m["Shared_Hugetlb"] + m["Private_Hugetlb"] == size
		vm.end()
	assert meminfo("HugePages_Free") == 64
	with Guest(size, *backend("memfd", "64M", ",hugetlb=on")) as vm:
		used = 64 - meminfo("HugePages_Free")
		assert 1 <= used <= 4 and meminfo("HugePages_Rsvd") == 32 - used, "taken as they are touched"
		vm.end()
	with Guest(size, *backend("memfd", "64M")) as vm:
		m = vm.mapping(size)
		assert "sh" in m["flags"] and "memfd:nemu-ram" in m["head"]
		vm.end()
	with pytest.raises(RuntimeError, match="256 MiB cannot be allocated: no memory"):
		Guest(256 * MIB, *backend("memfd", "256M", ",hugetlb=on,reserve=off,prealloc=on"))
	assert meminfo("HugePages_Free") == 64
	with pytest.raises(RuntimeError, match="not enough free huge pages of 2 MiB for 256 MiB"):
		Guest(256 * MIB, *backend("memfd", "256M", ",hugetlb=on"))
	with pytest.raises(RuntimeError, match="no huge pages of 4 MiB"):
		Guest(256 * MIB, *backend("memfd", "256M", ",hugetlb=on,hugetlbsize=4M"))
	with pytest.raises(RuntimeError, match="not a multiple of its pages of 2 MiB"):
		Guest(33 * MIB, *backend("memfd", "33M", ",hugetlb=on"))


def test_file_on_hugetlbfs(huge_pages, tmp_path):
	subprocess.run(["mount", "-t", "hugetlbfs", "none", tmp_path], check=True)
	try:
		for where in ("", "/ram"):
			with Guest(64 * MIB, *backend("file", "64M", f",mem-path={tmp_path}{where},prealloc=on")):
				assert meminfo("HugePages_Free") == 32
				assert os.listdir(tmp_path) == ([] if not where else ["ram"])
		os.unlink(tmp_path / "ram")
		with Guest(64 * MIB, "-m", "64M", "-mem-path", tmp_path) as vm:
			assert vm.mapping(64 * MIB)["KernelPageSize"] == 2 * MIB
			vm.end()
	finally:
		subprocess.run(["umount", tmp_path], check=True)


def test_file_contents():
	"""3 GiB: a part below the hole and one above, at their offsets in the file."""
	size, path = 3 * GIB, f"/dev/shm/nemu-ram-{os.getpid()}"
	last = HIGH + GIB - 4096
	try:
		with Guest(size, "-m", "3G", *backend("file", "3G", f",share=on,mem-path={path}")) as vm:
			with open(path, "rb") as file:
				for offset, gpa in ((0, 0), (LOW_MAX - 8, LOW_MAX - 8), (LOW_MAX, HIGH),
						    (size - 4096, last)):
					file.seek(offset)
					assert file.read(8) == mark(gpa), f"{gpa:#x}"
			assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
			vm.end()
		assert os.stat(path).st_size == size and 0 < os.stat(path).st_blocks * 512 < 64 * MIB
		with Guest(size, *backend("file", "3G", f",share=on,discard-data=on,mem-path={path}")) as vm:
			vm.end()
		assert os.stat(path).st_size == size and os.stat(path).st_blocks == 0
		for more in ("", ",readonly=on,rom=off", ",share=off,align=1G,reserve=off"):
			with Guest(size, *backend("file", "3G", f",mem-path={path}{more}")) as vm:
				if "align" in more:
					assert vm.mapping(size)["start"] % GIB == 0
				vm.end()
			with open(path, "rb") as file:
				assert file.read(4096) == bytes(4096), "share=off: the file knows nothing of the guest"
				file.seek(size - 4096)
				assert file.read() == bytes(4096)
		os.truncate(path, GIB)
		with pytest.raises(RuntimeError, match="fewer than the size of 3 GiB"):
			Guest(size, *backend("file", "3G", f",mem-path={path}"))
	finally:
		os.unlink(path)


def test_host_nodes():
	size = 128 * MIB
	for policy, shown in (("bind", "bind:0"), ("interleave", "interleave:0"),
			      ("preferred", "prefer:0")):
		with Guest(size, *backend("ram", "128M", f",host-nodes=0,policy={policy},prealloc=on")) as vm:
			start = f"{vm.mapping(size)['start']:08x} "
			line = next(x for x in vm.proc("numa_maps").splitlines() if x.startswith(start))
			assert line.split()[1] == shown and f"N0={size // 4096}" in line, line
			vm.end()
	with pytest.raises(RuntimeError, match="host-nodes: memory cannot be had from node 3"):
		Guest(size, *backend("ram", "128M", ",host-nodes=3-4,host-nodes=0,policy=bind"))


def test_512_gib_untouched():
	start = time.monotonic()
	with Guest(512 * GIB, "-m", "512G") as vm:
		assert time.monotonic() - start < 30, "nothing may be done for each page"
		assert vm.status("VmSize") > 512 * GIB and vm.status("VmRSS") < 64 * MIB
		vm.end()


@pytest.mark.phys_bits
def test_sparse_file():
	"""A TiB, where addresses are wide enough for it: with 40 bits there are 896 GiB for RAM."""
	wide = int(os.environ.get("NEMU_PHYS_BITS", "40")) > 40
	size, path = TIB if wide else 768 * GIB, f"/dev/shm/nemu-sparse-{os.getpid()}"
	with open(path, "wb") as file:
		file.truncate(TIB)
	try:
		start = time.monotonic()
		with Guest(size, *backend("file", size, f",share=on,mem-path={path}")) as vm:
			assert time.monotonic() - start < 30
			assert vm.status("VmRSS") < 64 * MIB
			vm.end()
		assert os.stat(path).st_blocks * 512 < 64 * MIB
		with open(path, "rb") as file:
			file.seek(size - 8)
			assert file.read(8) == mark(HIGH + size - LOW_MAX - 8)
	finally:
		os.unlink(path)


def test_numa_nodes(tmp_path):
	"""Three nodes, the last without CPUs, the second on both sides of the hole."""
	script = ("numactl -H; cd /sys/devices/system/node; for n in 0 1 2; do "
		  "echo NODE$n=$(cat node$n/cpulist),$(awk '/MemTotal/ {print int($4 / 1024)}' node$n/meminfo); "
		  "done; cat node2/access0/initiators/read_latency node2/access0/initiators/read_bandwidth; "
		  "ls node2/access0/initiators; echo CACHE=$(cat node2/memory_side_cache/index1/size); " + acpi.DUMP)
	status, text, code, errors = v.run_direct(
		script, "-machine", "hmat=on",
		"-object", "memory-backend-ram,id=m0,size=1536M", "-object", "memory-backend-memfd,id=m1,size=1G",
		"-object", "memory-backend-ram,id=m2,size=512M",
		"-numa", "node,nodeid=0,memdev=m0,cpus=0,cpus=3", "-numa", "node,nodeid=1,memdev=m1,cpus=1-2",
		"-numa", "node,nodeid=2,memdev=m2,initiator=1",
		"-numa", "dist,src=0,dst=1,val=21", "-numa", "dist,src=0,dst=2,val=31",
		"-numa", "dist,src=1,dst=2,val=17",
		*(arg for i in (0, 1) for t in (0, 1, 2) for arg in (
			"-numa", f"hmat-lb,initiator={i},target={t},hierarchy=memory,data-type=access-latency,"
			f"latency={10 + 5 * abs(i - t)}",
			"-numa", f"hmat-lb,initiator={i},target={t},hierarchy=memory,data-type=access-bandwidth,"
			f"bandwidth={10 - 3 * abs(i - t)}G")),
		"-numa", "hmat-cache,node-id=2,size=1M,level=1,associativity=direct,policy=write-back,line=64",
		cpus=4, mem="3G")
	assert status == 0 and code == 0 and errors == "", text[-3000:] + errors
	assert "available: 3 nodes (0-2)" in text
	for node, cpus, size in ((0, "0 3", 1536), (1, "1 2", 1024), (2, "", 512)):
		assert re.search(rf"^node {node} cpus: ?{cpus}$", text, re.M), text
		shown = int(re.search(rf"^node {node} size: (\d+) MB", text, re.M).group(1))
		assert size - 160 < shown <= size, f"node {node}: {shown} MB"
	distances = re.search(r"node distances:\n.*\n((?:\s+\d:.*\n)+)", text).group(1)
	assert [[int(x) for x in row.split()[1:]] for row in distances.splitlines()] == \
		[[10, 21, 31], [21, 10, 17], [31, 17, 10]]
	assert re.search(r"^NODE0=0,3,\d+\nNODE1=1-2,\d+\nNODE2=,\d+\n15\n7168\n", text, re.M), text[-3000:]
	assert "node1" in re.search(r"\n7168\n(.*?)CACHE", text, re.S).group(1)
	assert "CACHE=1048576" in text
	tables = acpi.parse(text, tmp_path)
	assert {"SRAT", "SLIT", "HMAT"} <= set(tables)
	acpi.check(tables, tmp_path)


def test_numa_default_cpus():
	"""CPUs that no option assigns: each socket to a node; -numa cpu by topology."""
	nodes = ("-object", "memory-backend-ram,id=a,size=256M", "-object", "memory-backend-ram,id=b,size=256M",
		 "-numa", "node,memdev=a", "-numa", "node,memdev=b")
	script = "cd /sys/devices/system/node; echo CPUS=$(cat node0/cpulist)/$(cat node1/cpulist)"
	status, text, _, errors = v.run_direct(script, *nodes, cpus="4,sockets=2")
	assert status == 0 and errors == "" and "CPUS=0-1/2-3" in text, text + errors
	status, text, _, errors = v.run_direct(
		script, *nodes, "-numa", "cpu,node-id=0,socket-id=1", "-numa", "cpu,node-id=1,socket-id=0,core-id=1",
		cpus="4,sockets=2")
	assert status == 0 and "CPUS=0,2-3/1" in text, text + errors
	assert re.search(r"1 CPUs, the first of them CPU 0, are in no -numa node", errors)
