"""Debian guests of NEMU and of QEMU, in the lab: how long they need to init, how often they leave
the kernel, how much memory their VMM keeps for itself. Used by tests/bench/run.

The guest is the same for all: one vCPU, 512 MiB, virtio disk, network card on a tap, rng and console,
quiet kernel, build/images/initrd-test.img, which loads virtio_pci and the drivers of what is there,
reads once from each device and prints MARKER. QEMU's microvm has its PCI host, so that
it has the same devices.

  start to init   from just before exec until MARKER has come out of -serial stdio
  exits           hits of the trace event kvm:kvm_userspace_exit in that time (a hist trigger)
  memory          of the second of two equal VMs, 2 s after its marker: Pss_Dirty of every mapping
                  but guest RAM, of every process of the VMM. That is Private_Dirty, and of the
                  anonymous pages that NEMU and its broker share each page once
  UEFI            the disk image of scripts/mkimage under OVMF until the kernel starts init
"""
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
IMAGES = os.path.join(ROOT, "build", "images")
DISK = "debian-x86_64.img"
OVMF = "/usr/share/OVMF/OVMF_{}_4M.fd"
TRIGGER = "/sys/kernel/tracing/events/kvm/kvm_userspace_exit/"
RAM_MIB = 512
MARKER = b"NEMU-TEST-INIT"
UEFI_MARKER = b"Run /init as init process"
LIMIT = 300
IDLE_S = 2

NEMU, Q35, MICROVM = "NEMU", "QEMU q35", "QEMU microvm"
COMMAND = {
	NEMU: [os.path.join(ROOT, "build", "nemu")],
	Q35: ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host"],
	MICROVM: ["qemu-system-x86_64", "-M", "microvm,pcie=on,isa-serial=on", "-accel", "kvm",
		  "-cpu", "host"],
}


class Place:
	"""A directory with disks, and taps. One for the process."""

	def __init__(self):
		if not os.path.exists(TRIGGER):
			subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=True)
		self.path = tempfile.mkdtemp()
		self.taps = [f"bench{i}" for i in range(2)]
		for i, tap in enumerate(self.taps):
			subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap"], check=True)
			subprocess.run(["ip", "link", "set", tap, "up"], check=True)
			with open(self.disk(i), "wb") as disk:
				disk.truncate(64 << 20)

	def disk(self, i):
		return os.path.join(self.path, f"disk{i}.img")

	def close(self):
		for tap in self.taps:
			subprocess.run(["ip", "link", "del", tap], check=False)
		shutil.rmtree(self.path)


def command(place, vmm, i, disk=None):
	card = "virtio-net-pci,netdev=net0" + ("" if vmm == NEMU else ",romfile=")
	return [*COMMAND[vmm], "-m", f"{RAM_MIB}M", "-nodefaults", "-display", "none", "-serial", "stdio",
		"-drive", f"if=none,id=disk0,format=raw,file={disk or place.disk(i)}",
		"-device", "virtio-blk-pci,drive=disk0",
		"-netdev", f"tap,id=net0,ifname={place.taps[i]},script=no,downscript=no",
		"-device", card, "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "null,id=con0", "-device", "virtconsole,chardev=con0"]


def direct(place, vmm, i):
	# c2xl…: "sleep 1000", so that nothing goes on after the marker
	return [*command(place, vmm, i), "-kernel", os.path.join(IMAGES, "vmlinuz"),
		"-initrd", os.path.join(IMAGES, "initrd-test.img"),
		"-append", "console=ttyS0 quiet nemu.run=c2xlZXAgMTAwMAo="]


def uefi(place, vmm):
	variables = os.path.join(place.path, "vars.fd")
	shutil.copy(OVMF.format("VARS"), variables)
	disk = os.path.join("/dev/disk/lab", DISK)
	return [*command(place, vmm, 0, disk),
		"-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF.format('CODE')}",
		"-drive", f"if=pflash,unit=1,format=raw,file={variables}"]


def trigger(text):
	with open(TRIGGER + "trigger", "w", encoding="ascii") as file:
		file.write(text)


def exits():
	with open(TRIGGER + "hist", encoding="ascii") as file:
		return sum(int(n) for n in re.findall(r"hitcount: +(\d+)", file.read()))


class Guest:
	"""A VM that has printed its marker: .seconds and .exits until then."""

	def __init__(self, args, marker=MARKER):
		trigger("hist:keys=reason")
		try:
			start = time.monotonic()
			# its end shows as the end of the pipe
			self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
							stderr=subprocess.STDOUT)
			self.wait(args, marker, start)
			self.seconds = time.monotonic() - start
			self.exits = exits()
		finally:
			trigger("!hist:keys=reason")

	def wait(self, args, marker, start):
		text = b""
		out = self.process.stdout.fileno()
		while marker not in text:
			if not select.select([out], [], [], start + LIMIT - time.monotonic())[0]:
				self.close()
				raise RuntimeError(f"{args[0]}: no {marker.decode()} in {LIMIT} s; last: "
						   f"{text[-500:].decode(errors='replace')}")
			data = os.read(out, 65536)
			if not data:
				self.close()
				raise RuntimeError(f"{args[0]} ended: {text[-500:].decode(errors='replace')}")
			text += data

	def close(self):
		self.process.send_signal(signal.SIGTERM)
		try:
			self.process.wait(30)
		except subprocess.TimeoutExpired:
			self.process.kill()
			self.process.wait()

	def memory(self):
		"""KiB that its processes keep for themselves."""
		return sum(private(pid) for pid in family(self.process.pid))


def family(pid):
	yield pid
	for task in os.listdir(f"/proc/{pid}/task"):
		with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
			for child in file.read().split():
				yield from family(int(child))


def private(pid):
	total = size = 0
	with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
		for line in file:
			key, _, rest = line.partition(":")
			if key == "Size":
				size = int(rest.split()[0])
			elif key == "Pss_Dirty" and size < RAM_MIB << 10:
				total += int(rest.split()[0])
	return total


def measure(boots, with_uefi):
	"""{figure: {vmm: value}} for "seconds", "exits" (medians), "memory" (KiB) and "uefi"."""
	vmms = (NEMU, Q35, MICROVM)
	seconds = {vmm: [] for vmm in vmms}
	counts = {vmm: [] for vmm in vmms}
	result = {"memory": {}, "uefi": {}}
	place = Place()
	try:
		for i in range(boots):
			for vmm in vmms:
				guest = Guest(direct(place, vmm, 0))
				try:
					seconds[vmm].append(guest.seconds)
					counts[vmm].append(guest.exits)
					if i == boots - 1:
						result["memory"][vmm] = second(place, vmm)
				finally:
					guest.close()
		for vmm in (NEMU, Q35) if with_uefi else ():
			guest = Guest(uefi(place, vmm), UEFI_MARKER)
			guest.close()
			result["uefi"][vmm] = guest.seconds
	finally:
		place.close()
	result["seconds"] = {vmm: statistics.median(seconds[vmm]) for vmm in vmms}
	result["exits"] = {vmm: statistics.median(counts[vmm]) for vmm in vmms}
	return result


def second(place, vmm):
	guest = Guest(direct(place, vmm, 1))
	try:
		time.sleep(IDLE_S)
		return guest.memory()
	finally:
		guest.close()
