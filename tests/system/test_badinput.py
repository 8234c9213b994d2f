"""What an operator can get wrong: one sentence that names the option, exit status 1, nothing left.

Each case runs in a directory of its own, which has to be as it was before; processes that the
program has started have to be gone. Needs /dev/kvm, since most options are looked at in the
order in which the machine is built; no guest runs.
"""
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
import termios
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vm import KERNEL, NEMU, OVMF_CODE, OVMF_VARS, Qmp  # noqa: E402

pytestmark = [pytest.mark.host, pytest.mark.kvm]
LIMIT = 30
BARE = ["-nodefaults", "-display", "none"]
MARK = "NEMU_TEST_RUN"
# root without the right to open what it has no permission for
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps",
		"-dac_override,-dac_read_search", "--"]


@pytest.fixture
def place(tmp_path, monkeypatch):
	"""An empty directory to run in; afterwards no process that was started here may be left."""
	mark = f"{os.getpid()}-{time.monotonic_ns()}"
	monkeypatch.setenv(MARK, mark)
	monkeypatch.chdir(tmp_path)
	before = taps()
	yield tmp_path
	end = time.monotonic() + 5
	while processes(mark):
		assert time.monotonic() < end, processes(mark)
		time.sleep(0.05)
	assert taps() == before


def taps():
	return {name for name in os.listdir("/sys/class/net")
		if os.path.exists(f"/sys/class/net/{name}/tun_flags")}


def processes(mark):
	found = []
	for pid in filter(str.isdigit, os.listdir("/proc")):
		try:
			with open(f"/proc/{pid}/environ", "rb") as file:
				if f"{MARK}={mark}".encode() not in file.read().split(b"\0"):
					continue
			with open(f"/proc/{pid}/cmdline", "rb") as file:
				line = file.read()
			if b"nemu" in line.split(b"\0")[0]:
				found.append((pid, line))
		except OSError:
			continue
	return found


def tree(path):
	return {os.path.join(base, name) for base, _, names in os.walk(path) for name in names} | \
		{os.path.join(base, name) for base, names, _ in os.walk(path) for name in names}


def run(*args, prefix=(), **more):
	return subprocess.run([*prefix, NEMU, *map(str, args)], stdin=subprocess.DEVNULL,
			      capture_output=True, text=True, timeout=LIMIT, **more)


def refused(done, *words):
	"""One sentence with all these words in it."""
	assert done.returncode == 1, (done.returncode, done.stderr)
	assert done.stdout == ""
	assert re.fullmatch(r"nemu: [^\n]{10,}\n", done.stderr), done.stderr
	for word in words:
		assert word in done.stderr, (word, done.stderr)


def check(place, args, *words, **more):
	before = tree(place)
	refused(run(*args, **more), *words)
	assert tree(place) == before


# --- options ---

@pytest.mark.parametrize("args, words", [
	(["-frobnicate"], ["-frobnicate", "-help"]),
	(["--machine=virt"], ["--machine=virt"]),
	(["disk.img"], ["disk.img", "-drive"]),
	([""], ["not an option"]),
	(["-"], ["-"]),
	([], ["boot", "-kernel"]),
	(["-machine"], ["-machine", "argument"]),
	(["-machine", "pc"], ["-machine", "virt"]),
	(["-machine", "virt,usb=on"], ["-machine", "usb", "off"]),
	(["-machine", "virt,what=1"], ["-machine", "what"]),
	(["-machine", "virt,accel=tcg"], ["-machine", "kvm"]),
	(["-accel", "hvf"], ["-accel", "kvm"]),
	(["-cpu", "qemu64", "-S"], ["-cpu", "host"]),
	(["-cpu", "host,+nonsense", "-S"], ["-cpu", "nonsense"]),
	(["-cpu", "host,+avx51f", "-S"], ["-cpu", "avx51f", "'avx512f'"]),
	(["-cpu", "host,enforce=off", "-S"], ["-cpu", "enforce=off"]),
	(["-cpu", "x86-64-v2,pmu=on", "-S"], ["-cpu", "pmu=on", "x86-64-v2"]),
	(["-cpu", "host,phys-bits=7", "-S"], ["-cpu", "phys-bits"]),
	(["-cpu", "host", "-cpu", "host,-x2apic"], ["-cpu", "twice"]),
	(["-smp", "0"], ["-smp"]), (["-smp", "many"], ["-smp"]), (["-smp", "4097"], ["-smp", "4096"]),
	(["-smp", "4,sockets=3"], ["-smp", "4"]), (["-smp", "2,maxcpus=1"], ["-smp", "maxcpus"]),
	(["-smp", "2,maxcpus=4,cores=3"], ["-smp", "maxcpus"]), (["-smp", "2,colour=red"], ["-smp", "colour"]),
	(["-m", "0"], ["-m"]), (["-m", "-1"], ["-m"]), (["-m", "1X"], ["-m"]), (["-m", "1M"], ["-m"]),
	(["-m", "99999999T"], ["-m"]), (["-m", "1G,slots=2,maxmem=4G"], ["-m", "hotplug"]),
	(["-uuid", "1234"], ["-uuid"]), (["-name", "a,colour=red"], ["-name", "colour"]),
	(["-rtc", "base=localtime"], ["-rtc", "utc"]), (["-boot", "once=n"], ["-boot", "once"]),
	(["-boot", "order=d"], ["-boot", "bootindex"]), (["-smbios", "type=9", "-S"], ["-smbios", "type=9"]),
	(["-smbios", "type=1,colour=red", "-S"], ["-smbios", "colour"]),
	(["-S", "-boot", "c", "-drive", f"if=none,id=d,readonly=on,format=raw,file={OVMF_CODE}", "-device",
	  "virtio-blk-pci,drive=d,bootindex=1"], ["-boot", "bootindex"]),
	(["-S", "-drive", f"if=none,id=d,readonly=on,format=raw,file={OVMF_CODE}", "-drive",
	  f"if=none,id=e,readonly=on,format=raw,file={OVMF_CODE}", "-device", "virtio-blk-pci,drive=d,id=x,bootindex=1",
	  "-device", "virtio-blk-pci,drive=e,bootindex=1"], ["bootindex", "x"]),
	(["-S", "-device", "virtio-rng-pci,bootindex=1"], ["-device", "bootindex"]),
	(["-display", "gtk"], ["-display"]), (["-vga", "std"], ["-vga"]), (["-net", "user"], ["-netdev"]),
	(["-monitor", "stdio"], ["-monitor", "-qmp"]), (["-sandbox", "maybe"], ["-sandbox"]),
	(["-sandbox", "on,spawn=allow"], ["-sandbox", "spawn"]),
	(["-initrd", "x"], ["-initrd", "-kernel"]), (["-append", "x"], ["-append", "-kernel"]),
	(["-kernel", "a", "-kernel", "b"], ["-kernel", "twice"]), (["-kernel", ""], ["-kernel", "empty"]),
	(["-bios", OVMF_CODE, "-drive", f"if=pflash,file={OVMF_CODE},readonly=on"], ["-bios", "-drive"]),
	(["-daemonize", "-nographic", "-S"], ["-daemonize"]),
	(["-S", "-device", "nonsense"], ["-device", "nonsense", "help"]),
	(["-S", "-device", "virtio-blk-pci"], ["-device", "drive"]),
	(["-S", "-device", "virtio-blk-pci,drive=nothing"], ["-device", "nothing"]),
	(["-S", "-device", "virtio-rng-pci,colour=red"], ["-device", "colour"]),
	(["-S", "-device", "virtio-rng-pci,addr=0x40"], ["-device", "addr"]),
	(["-S", "-device", "virtio-rng-pci,vectors=0"], ["-device", "vectors=0"]),
	(["-S", "-device", "virtio-rng-pci,packed=maybe"], ["-device", "packed"]),
	(["-S", "-device", "virtio-blk-pci,drive=d,num-queues=65"], ["-device", "num-queues=65", "64"]),
	(["-S", "-device", "virtio-blk-pci,drive=d,num-queues=0"], ["-device", "num-queues=0"]),
	(["-S", "-device", "virtio-rng-pci,iothread-vq-mapping.0.iothread=x"],
	 ["-device", "iothread-vq-mapping.0.iothread"]),
	(["-S", "-device", "virtio-blk-pci,drive=d,iothread-vq-mapping.0.iothread=x,"
	  "iothread-vq-mapping.0.vqs.0=x"], ["-device", "vqs.0=x"]),
	(["-S", "-netdev", "tap,id=n,ifname=t,queues=65"], ["-netdev", "queues"]),
	(["-S", "-device", "virtio-rng-pci,addr=5", "-device", "virtio-rng-pci,addr=5"], ["-device", "5"]),
	(["-S", "-device", "virtio-rng-pci,bus=nowhere"], ["-device", "nowhere"]),
	(["-S", "-device", "virtio-rng-pci,id=a", "-device", "virtio-rng-pci,id=a"], ["-device", "a"]),
	(["-S", "-device", '{"driver":'], ["-device", "JSON"]), (["-S", "-device", '[]'], ["-device"]),
	(["-S", "-device", "virtio-blk-pci,drive=d,iothread=x", "-drive",
	  "if=none,id=d,format=raw,file=/dev/null,readonly=on"], ["-"]),
	(["-S", "-netdev", "user,id=n"], ["-netdev", "user"]), (["-S", "-netdev", "tap"], ["-netdev", "id"]),
	(["-S", "-netdev", "tap,id=n,fd=999"], ["descriptor 999", "command line"]),
	(["-S", "-netdev", "tap,id=n,ifname=waytoolonginterfacename"], ["-netdev", "ifname"]),
	(["-S", "-device", "virtio-net-pci,netdev=n"], ["-device", "netdev"]),
	(["-S", "-chardev", "nonsense,id=c"], ["-chardev", "nonsense"]),
	(["-S", "-chardev", "null"], ["-chardev", "id"]),
	(["-S", "-chardev", "null,id=c", "-chardev", "null,id=c"], ["-chardev", "c"]),
	(["-S", "-serial", "chardev:nothing"], ["-serial", "nothing"]),
	(["-S", "-serial", "nonsense"], ["-serial", "nonsense"]),
	(["-S", "-serial", "null", "-serial", "null"], ["-serial"]),
	(["-S", "-serial", "file:/nonexistent/x"], ["-serial", "/nonexistent/x"]),
	(["-S", "-serial", "unix:/nonexistent/x,server=on,wait=off"], ["-serial", "/nonexistent/x"]),
	(["-S", "-chardev", "socket,id=c,path=/nonexistent/x"], ["-chardev", "/nonexistent/x"]),
	(["-S", "-object", "nonsense,id=o"], ["-object", "nonsense"]),
	(["-S", "-object", "iothread"], ["-object", "id"]),
	(["-S", "-object", "iothread,id=o", "-object", "iothread,id=o"], ["-object", "o"]),
	(["-S", "-fw_cfg", "name=opt/x,file=/nonexistent"], ["-fw_cfg", "/nonexistent"]),
	(["-S", "-fw_cfg", "opt/x"], ["-fw_cfg"]),
	(["-S", "-drive", "file=x"], ["-drive", "format"]),
	(["-S", "-drive", "file=x,format=vmdk"], ["-drive", "vmdk"]),
	(["-S", "-drive", "file=x,format=raw,if=ide"], ["-drive", "ide"]),
	(["-S", "-drive", "format=raw"], ["-drive", "file"]),
	(["-S", "-drive", "file=/dev/null,format=raw,colour=red"], ["-drive", "colour"]),
	(["-S", "-drive", "if=pflash,format=raw"], ["-drive", "file"]),
	(["-S", "-drive", f"if=pflash,file={OVMF_CODE},unit=7"], ["-drive", "unit"]),
	(["-S", "-blockdev", "driver=raw,filename=x"], ["-blockdev", "node-name"]),
	(["-S", "-blockdev", "driver=nonsense,node-name=x"], ["-blockdev", "nonsense"]),
	(["-S", "-blockdev", "driver=null-co,node-name=1x"], ["-blockdev", "node-name"]),
	(["-S", "-blockdev", "driver=raw,node-name=x,file=nobody"], ["-blockdev", "nobody"]),
	(["-S", "-blockdev", "driver=throttle,node-name=x,throttle-group=nobody,file.driver=null-co"],
	 ["-blockdev", "throttle-group", "nobody"]),
	(["-S", "-object", "throttle-group,id=g,x-iops-total=5,x-iops-read=5"],
	 ["-object", "iops-total", "iops-read"]),
	(["-S", "-object", "throttle-group,id=g,x-bps-total-max=5"], ["-object", "bps-total-max"]),
	*[(["-S", "-drive", f"if=none,id=d,driver=null-co,{more}"], ["-drive", *words]) for more, words in (
		("cache=nonsense", ["cache=nonsense", "directsync"]), ("werror=nonsense", ["werror=nonsense"]),
		("rerror=enospc", ["rerror=enospc"]), ("snapshot=on", ["snapshot"]),
		("copy-on-read=on", ["copy-on-read"]), ("media=floppy", ["media=floppy"]),
		("index=x", ["index=x"]), ("discard=maybe", ["discard"]),
		("detect-zeroes=unmap", ["detect-zeroes", "discard=unmap"]),
		("force-share=on", ["force-share", "read-only"]),
		("throttling.iops-total=-1", ["throttling.iops-total"]),
		("throttling.iops-size=5", ["iops-size"]), ("format=raw", ["format", "driver"]))],
	(["-S", "-drive", "if=none,id=d,driver=null-co", "-device", "virtio-blk-pci,drive=d,werror=nonsense"],
	 ["-device", "werror=nonsense"]),
	(["-S", "-drive", "if=none,id=d,driver=null-co", "-device", "virtio-blk-pci,drive=d,write-cache=nonsense"],
	 ["-device", "write-cache"]),
	(["-S", "-blockdev", "driver=null-co,node-name=n", "-device", "virtio-blk-pci,drive=n", "-device",
	  "virtio-blk-pci,drive=n"], ["-device", "share-rw"]),
	(["-S", "-qmp", "nonsense"], ["-qmp"]),
	(["-S", "-pidfile", "/nonexistent/pid"], ["-pidfile", "/nonexistent/pid"]),
	(["-S", "-pidfile", "/"], ["-pidfile", "/"]),
], ids=lambda value: None if isinstance(value, list) and len(value) > 8 else
	re.sub(r"[^\w.,=+-]", "_", " ".join(value))[:60])
def test_options(place, args, words):
	check(place, args, *words)


# --- files ---

KINDS = {
	"kernel": lambda path: ["-kernel", path],
	"initrd": lambda path: ["-kernel", KERNEL, "-initrd", path],
	"bios": lambda path: ["-bios", path],
	"code": lambda path: ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={path}"],
	"variables": lambda path: ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF_CODE}",
				   "-drive", f"if=pflash,unit=1,format=raw,file={path}"],
	"drive": lambda path: ["-S", "-drive", f"file={path},format=raw"],
	"blockdev": lambda path: ["-S", "-blockdev", f"driver=raw,node-name=n,filename={path}"],
	"node": lambda path: ["-S", "-blockdev", f"driver=file,node-name=f,filename={path}", "-blockdev",
			      "driver=raw,node-name=n,file=f", "-device", "virtio-blk-pci,drive=n"],
}
OPTION = {"kernel": "-kernel", "initrd": "-initrd", "bios": "-bios", "code": "-drive",
	  "variables": "-drive", "drive": "-drive", "blockdev": "-blockdev", "node": "-blockdev"}


@pytest.mark.parametrize("kind", KINDS)
def test_missing_file(place, kind):
	path = str(place / "missing")
	check(place, KINDS[kind](path), OPTION[kind], path)


@pytest.mark.parametrize("kind", KINDS)
def test_directory(place, kind):
	path = place / "directory"
	path.mkdir()
	check(place, KINDS[kind](path), OPTION[kind], str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_pipe(place, kind):
	path = place / "pipe"
	os.mkfifo(path)
	check(place, KINDS[kind](path), OPTION[kind], str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_not_permitted(place, kind):
	"""Root may read everything, so it runs without that right."""
	path = place / "secret"
	path.write_bytes(bytes(1 << 20))
	path.chmod(0)
	os.chmod(place, 0o777)
	check(place, KINDS[kind](path), OPTION[kind], str(path),
	      prefix=UNPRIVILEGED)


@pytest.mark.parametrize("kind", ["kernel", "bios", "code", "variables"])
@pytest.mark.parametrize("size", [0, 1, 511, 4097])
def test_truncated(place, kind, size):
	path = place / "short"
	source = {"kernel": KERNEL, "variables": OVMF_VARS}.get(kind, OVMF_CODE)
	with open(source, "rb") as file:
		path.write_bytes(file.read(size))
	check(place, KINDS[kind](path), OPTION[kind])


def test_truncated_kernel_in_its_body(place):
	path = place / "short"
	with open(KERNEL, "rb") as file:
		path.write_bytes(file.read(1 << 20))
	check(place, KINDS["kernel"](path), "-kernel", str(path))


def test_empty_initrd_and_image(place):
	path = place / "empty"
	path.write_bytes(b"")
	check(place, KINDS["initrd"](path), "-initrd", str(path))


@pytest.mark.parametrize("kind", ["kernel", "initrd", "bios", "code", "variables"])
def test_too_large(place, kind):
	path = place / "large"
	source = {"kernel": KERNEL, "initrd": "/dev/null", "variables": OVMF_VARS}.get(kind, OVMF_CODE)
	with open(source, "rb") as file:
		path.write_bytes(file.read())
	os.truncate(path, 8 << 40 if kind == "initrd" else 1 << 30)
	check(place, KINDS[kind](path), OPTION[kind])


@pytest.mark.parametrize("kind", ["kernel"])
def test_not_what_it_should_be(place, kind):
	path = place / "noise"
	path.write_bytes(b"\xa5" * (4 << 20))
	check(place, KINDS[kind](path), OPTION[kind], str(path))


def test_image_that_is_empty(place):
	path = place / "empty"
	path.write_bytes(b"")
	check(place, KINDS["drive"](path), "-drive", str(path), "truncate")


def test_image_that_cannot_be_written(place):
	path = place / "read-only"
	path.write_bytes(bytes(4096))
	path.chmod(0o444)
	check(place, KINDS["drive"](path), "-drive", str(path), prefix=UNPRIVILEGED)


# --- locks ---

class Holder:
	"""A program that has the image open."""

	def __init__(self, argv, ready):
		self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
						stderr=subprocess.PIPE)
		try:
			ready(self.process)
		except BaseException:
			self.__exit__()
			raise

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.process.kill()
		self.process.communicate()


def qmp_ready(path):
	def wait(process):
		end = time.monotonic() + LIMIT
		while not os.path.exists(path):
			assert process.poll() is None, process.stderr.read()
			assert time.monotonic() < end
			time.sleep(0.02)
		Qmp(str(path)).close()
	return wait


def locked(path):
	inode = f":{os.stat(path).st_ino} "

	def wait(process):
		end = time.monotonic() + LIMIT
		while True:
			with open("/proc/locks") as file:
				if inode in file.read():
					return
			assert process.poll() is None, process.stderr.read()
			assert time.monotonic() < end
			time.sleep(0.02)
	return wait


@pytest.mark.parametrize("kind", ["drive", "node"])
def test_image_locked_by_another_nemu(place, kind):
	path, sock = place / "disk", place / "qmp"
	path.write_bytes(bytes(1 << 20))
	holder = [NEMU, *BARE, "-S", "-drive", f"file={path},format=raw", "-qmp",
		  f"unix:{sock},server=on,wait=off"]
	with Holder(holder, qmp_ready(sock)):
		# who uses a node locks its file: the device
		check(place, KINDS[kind](path), "-device" if kind == "node" else "-drive", str(path))
	end = time.monotonic() + 10
	while os.path.exists(sock):
		assert time.monotonic() < end
		time.sleep(0.02)


def test_image_locked_by_qemu_io(place):
	path = place / "disk"
	path.write_bytes(bytes(1 << 20))
	with Holder(["qemu-io", "-f", "raw", str(path)], locked(path)):
		check(place, KINDS["drive"](path), "-drive", str(path))


def test_variables_locked_by_another_nemu(place):
	path, sock = place / "vars", place / "qmp"
	with open(OVMF_VARS, "rb") as file:
		path.write_bytes(file.read())
	holder = [NEMU, *BARE, "-S", *KINDS["variables"](path), "-qmp", f"unix:{sock},server=on,wait=off"]
	with Holder(holder, qmp_ready(sock)):
		check(place, KINDS["variables"](path), "-drive", str(path))


# --- memory, /dev/kvm ---

def test_memory_that_cannot_be_had(place):
	check(place, ["-S", "-m", "64T"], "-m", "less")


def test_memory_above_the_limit_of_the_process(place):
	def limit():
		resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
	check(place, ["-S", "-m", "4G"], "-m", "less", preexec_fn=limit)


def unshared(script):
	"""In a mount name space of its own: script, then the program."""
	return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script + '\nexec "$@"', "sh"]


def test_no_kvm(place):
	empty = place / "dev"
	empty.mkdir()
	script = f"mount -t tmpfs none {empty}; cp -a /dev/null /dev/zero /dev/urandom {empty}; " \
		f"mount --bind {empty} /dev"
	check(place, ["-S"], "/dev/kvm", prefix=unshared(script))


def test_kvm_not_permitted(place):
	script = f"mount -t tmpfs none {place}/m; cp -a /dev/kvm {place}/m/kvm; chmod 0 {place}/m/kvm; " \
		f"mount --bind {place}/m/kvm /dev/kvm"
	(place / "m").mkdir()
	check(place, ["-S"], "/dev/kvm", prefix=unshared(script) + UNPRIVILEGED)


def test_kvm_is_something_else(place):
	check(place, ["-S"], "/dev/kvm", prefix=unshared("mount --bind /dev/null /dev/kvm"))


def test_no_kvm_is_needed_for_probing(place):
	done = run("-machine", "none", "-S", "-qmp", f"unix:{place}/qmp,server=on,wait=off", "-daemonize",
		   "-pidfile", place / "pid", prefix=unshared("mount --bind /dev/null /dev/kvm"))
	assert done.returncode == 0, done.stderr
	os.kill(int((place / "pid").read_text()), signal.SIGTERM)


# --- what is in the way ---

def test_everything_that_was_made_is_removed(place):
	"""The last option fails after sockets, pid file and tap exist."""
	(place / "keep").write_text("x")
	args = ["-S", "-qmp", f"unix:{place}/qmp,server=on,wait=off", "-pidfile", place / "pid",
		"-serial", f"unix:{place}/serial,server=on,wait=off", "-chardev", f"socket,id=c,path={place}/c,server=on,wait=off",
		"-netdev", "tap,id=n,ifname=nemutest0,script=no,downscript=no", "-device", "nonsense"]
	check(place, args, "-device", "nonsense")


def test_a_live_serial_socket_is_refused(place):
	path = str(place / "serial")
	with socket.socket(socket.AF_UNIX) as live:
		live.bind(path)
		live.listen()
		check(place, ["-S", "-serial", f"unix:{path},server=on,wait=off"], "-serial", path)


# --- life: signals, pid file, daemon ---

class Running:
	def __init__(self, place, *args):
		self.sock = str(place / "qmp")
		self.process = subprocess.Popen([NEMU, *BARE, "-S", "-qmp",
						 f"unix:{self.sock},server=on,wait=off", *map(str, args)],
						stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
						stderr=subprocess.PIPE, text=True)
		qmp_ready(self.sock)(self.process)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.process.kill()
		self.process.communicate()

	def end(self):
		out, err = self.process.communicate(timeout=LIMIT)
		assert self.process.returncode == 0, err
		assert out == ""
		return err


@pytest.mark.parametrize("how", ["quit", "SIGTERM", "SIGINT", "SIGHUP"])
def test_ends_in_order(place, how):
	disk, pid = place / "disk", place / "pid"
	disk.write_bytes(bytes(1 << 20))
	with Running(place, "-pidfile", pid, "-drive", f"file={disk},format=raw", "-object", "iothread,id=io",
		     "-device", "virtio-rng-pci", "-serial", f"unix:{place}/serial,server=on,wait=off") as vm:
		assert int(pid.read_text()) == vm.process.pid
		assert pid.read_text() == f"{vm.process.pid}\n"
		qmp = Qmp(vm.sock)
		if how == "quit":
			qmp.cmd("quit")
		else:
			vm.process.send_signal(getattr(signal, how))
		reason = qmp.event("SHUTDOWN", LIMIT)["data"]["reason"]
		assert reason == ("host-qmp-quit" if how == "quit" else "host-signal")
		vm.end()
	assert tree(place) == {str(disk)}
	# and the lock is gone
	with Running(place, "-drive", f"file={disk},format=raw") as vm:
		vm.process.terminate()
		vm.end()


def test_terminal_is_as_before(place):
	"""The serial port on a terminal, which is given back with the settings it had."""
	ours, theirs = pty.openpty()
	try:
		before = termios.tcgetattr(theirs)
		process = subprocess.Popen([NEMU, "-S", "-nographic", "-qmp",
					    f"unix:{place}/qmp,server=on,wait=off"],
					   stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
		try:
			qmp_ready(place / "qmp")(process)
			assert termios.tcgetattr(theirs) != before
			Qmp(str(place / "qmp")).cmd("quit")
			assert process.wait(LIMIT) == 0, process.stderr.read()
		finally:
			process.kill()
			process.communicate()
		assert termios.tcgetattr(theirs) == before
	finally:
		os.close(ours)
		os.close(theirs)


def test_killed_leaves_nothing(place):
	with Running(place, "-pidfile", place / "pid", "-serial",
		     f"unix:{place}/serial,server=on,wait=off") as vm:
		vm.process.kill()
		vm.process.wait()
	end = time.monotonic() + 10
	while tree(place):
		assert time.monotonic() < end, tree(place)
		time.sleep(0.02)


def test_pidfile_of_a_living_process(place):
	pid = place / "pid"
	with Running(place, "-pidfile", pid) as vm:
		refused(run("-S", "-pidfile", pid), "-pidfile", str(pid))
		assert int(pid.read_text()) == vm.process.pid
		vm.process.terminate()
		vm.end()
	assert not pid.exists()


def test_pidfile_left_by_a_dead_process_is_taken(place):
	pid = place / "pid"
	pid.write_text("1234567890\n")
	with Running(place, "-pidfile", pid) as vm:
		assert pid.read_text() == f"{vm.process.pid}\n"
		vm.process.terminate()
		vm.end()


def test_daemonize(place):
	started = time.monotonic()
	done = run(*BARE, "-S", "-daemonize", "-pidfile", place / "pid", "-qmp",
		   f"unix:{place}/qmp,server=on,wait=off")
	assert done.returncode == 0 and done.stderr == "" and done.stdout == ""
	assert time.monotonic() - started < LIMIT
	pid = int((place / "pid").read_text())
	try:
		qmp = Qmp(str(place / "qmp"))		# it listens already
		assert qmp.cmd("query-status")["status"] == "prelaunch"
		assert os.getsid(pid) != os.getsid(0)
		assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
		qmp.cmd("quit")
	except BaseException:
		os.kill(pid, signal.SIGKILL)
		raise
	end = time.monotonic() + 10
	while tree(place):
		assert time.monotonic() < end, tree(place)
		time.sleep(0.02)


def test_daemonize_tells_why_not(place):
	check(place, ["-S", "-daemonize", "-pidfile", place / "pid", "-kernel", "/nonexistent"], "-kernel")


def test_without_boot_source(place):
	with Running(place) as vm:
		qmp = Qmp(vm.sock)
		assert qmp.cmd("query-status") == {"status": "prelaunch", "singlestep": False, "running": False}
		assert qmp.cmd("query-kvm") == {"enabled": True, "present": True}
		assert len(qmp.cmd("query-cpus-fast")) == 1
		assert "boot" in qmp.raw('{"execute":"cont"}')["error"]["desc"]
		for name in ("stop", "system_reset", "system_powerdown"):
			assert qmp.cmd(name) == {}
		qmp.cmd("quit")
		vm.end()


# --- every option of -help is there ---

FORMS = {
	"machine": "virt", "M": "q35", "accel": "kvm", "cpu": "host", "smp": "2,sockets=1,cores=2,threads=1",
	"m": "size=256M", "kernel": KERNEL, "initrd": "FILE", "append": "quiet", "bios": OVMF_CODE,
	"drive": "file=DISK,if=none,format=raw,id=d0,cache=writeback", "blockdev":
	'{"driver":"raw","node-name":"n0","filename":"DISK2"}', "device": "virtio-rng-pci,id=r0,addr=7",
	"netdev": "tap,id=n0,ifname=nemutest1,script=no,downscript=no", "chardev": "null,id=c0",
	"object": "rng-random,id=rng0,filename=/dev/urandom", "serial": "null",
	"qmp": "unix:SOCK,server=on,wait=off", "fw_cfg": "name=opt/test,string=x", "name": "guest=x,debug-threads=on",
	"uuid": "01234567-89ab-cdef-0123-456789abcdef", "rtc": "base=utc,driftfix=none", "boot": "order=c,strict=on,menu=on,splash-time=1",
	"smbios": "type=1,serial=x", "trace": "machine_*", "mem-path": "/dev/shm", "overcommit": "mem-lock=off",
	"numa": "node,nodeid=0,memdev=m0",
	"display": "none", "vga": "none", "monitor": "none", "parallel": "none", "net": "none", "nic": "none",
	"sandbox": "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	"pidfile": "PID",
}
FLAGS = ["enable-kvm", "mem-prealloc", "S", "no-reboot", "no-shutdown", "nographic", "nodefaults", "no-user-config"]
NEEDS = {"initrd": ["-kernel", KERNEL], "append": ["-kernel", KERNEL],
	 "numa": ["-m", "64M", "-object", "memory-backend-ram,id=m0,size=64M"]}


def listed():
	done = run("-help")
	assert done.returncode == 0 and done.stderr == ""
	return re.findall(r"^  -(\S+)", done.stdout, re.M)


def test_help_is_complete(place):
	assert sorted(listed()) == sorted([*FORMS, *FLAGS, "daemonize", "check-host", "json", "version", "help", "h"])
	assert run("-h").stdout == run("--help").stdout
	assert re.fullmatch(r"NEMU version \S+\n", run("-version").stdout)


@pytest.mark.parametrize("name", [*FORMS, *FLAGS])
def test_each_option_is_accepted(place, name):
	for file in ("disk", "disk2", "file"):
		(place / file).write_bytes(bytes(1 << 20))
	args = [*NEEDS.get(name, []), f"-{name}"]
	if name in FORMS:
		text = FORMS[name]
		for word, path in (("DISK2", "disk2"), ("DISK", "disk"), ("FILE", "file"), ("SOCK", "other"),
				   ("PID", "pid")):
			text = text.replace(word, str(place / path))
		args.append(text)
	with Running(place, *args) as vm:
		assert Qmp(vm.sock).cmd("query-status")["status"] == "prelaunch"
		vm.process.terminate()
		vm.end()


def test_device_help(place):
	done = run("-device", "help")
	assert done.returncode == 0 and "virtio-blk-pci" in done.stdout and done.stderr == ""


def test_machine_help_lists_the_machines():
	done = run("-machine", "help")
	assert done.returncode == 0 and not done.stderr
	names = re.findall(r"^  (\S+)  ", done.stdout, re.M)
	assert names == ["virt", "virt-1.0", "q35", "pc-q35-nemu-1.0", "none"]


def test_cpu_help():
	done = run("-cpu", "help")
	assert done.returncode == 0 and done.stderr == ""
	assert re.findall(r"^  (\S+)  +\S", done.stdout, re.M)[:5] == ["host", "max", "x86-64-v2", "x86-64-v3",
								      "x86-64-v4"]
	assert {"sse4.2", "avx512f", "x2apic", "kvmclock", "invtsc"} <= set(done.stdout.split())
	assert run("-cpu", "?").stdout == done.stdout


def test_sandbox_off_says_so(place):
	with Running(place, "-sandbox", "off") as vm:
		vm.process.terminate()
		assert "sandbox" in vm.end()
