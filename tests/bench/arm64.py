#!/usr/bin/python3
"""NEMU beside `qemu-system-aarch64 -M virt` in one Arm lab: tests/bench/arm64.py [-n RUNS] [--boots N]
[--no-uefi]

The figures of tests/bench/run that there are on Arm, measured as there and in tests/bench/boots.py:

  exec to first byte  build-aarch64/tests/guest/arm64/smp.bin as firmware, until the first byte of its
                      serial port; peak memory of the same runs. Medians of RUNS (21), alternating
  start to init, exits to user space, memory
                      Debian's kernel entered directly, medians of N boots (3), alternating
  UEFI start to login the disk image of scripts/mkimage-arm64 under AAVMF
  libraries, size     lines of ldd, bytes of the stripped program

Times are those of an emulated processor: ratios mean something. tests/arm64/test_figures.py asserts what is
wanted of counts and memory. Exit status 1 only if something could not be measured.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import boots

ROOT = boots.ROOT
BUILD = os.path.join(ROOT, "build-aarch64")
IMAGES = os.path.join(ROOT, "build-aarch64-deps", "images")
DISK = "debian-aarch64.img"
PROGRAM = os.path.join(BUILD, "nemu")
GUEST = os.path.join(BUILD, "tests", "guest", "arm64", "smp.bin")
SPAWN = os.path.join(BUILD, "tests", "bench", "spawn")
NEMU, QEMU = "NEMU", "QEMU virt"
VMM = {
	NEMU: [PROGRAM, "-machine", "virt", "-cpu", "host"],
	QEMU: ["qemu-system-aarch64", "-M", "virt,gic-version=3", "-accel", "kvm", "-cpu", "host"],
}


def devices(place, vmm, i, disk=None):
	card = "virtio-net-pci,netdev=net0" + ("" if vmm == NEMU else ",romfile=")
	return [*VMM[vmm], "-m", f"{boots.RAM_MIB}M", "-nodefaults", "-display", "none", "-serial", "stdio",
		"-drive", f"if=none,id=disk0,format=raw,file={disk or place.disk(i)}",
		"-device", "virtio-blk-pci,drive=disk0",
		"-netdev", f"tap,id=net0,ifname={place.taps[i]},script=no,downscript=no",
		"-device", card, "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "null,id=con0", "-device", "virtconsole,chardev=con0"]


def direct(place, vmm, i):
	return boots.Guest([*devices(place, vmm, i), "-kernel", os.path.join(IMAGES, "vmlinuz"),
			    "-initrd", os.path.join(IMAGES, "initrd-test.img"),
			    "-append", "console=ttyAMA0 quiet nemu.run=c2xlZXAgMTAwMAo="])	# sleep 1000


def uefi(place, vmm):
	variables = os.path.join(place.path, "vars.fd")
	shutil.copy(os.path.join(IMAGES, "AAVMF_VARS.fd"), variables)
	code = os.path.join(IMAGES, "AAVMF_CODE.fd")
	return boots.Guest([*devices(place, vmm, 0, os.path.join("/dev/disk/lab", DISK)),
			    "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
			    "-drive", f"if=pflash,unit=1,format=raw,file={variables}"], b"login:")


def guests(count, vmms=(NEMU, QEMU), with_uefi=False):
	"""{figure: {vmm: value}}: "seconds", "exits" (medians), "memory" (KiB, of the second of two; NEMU's
	alone without UEFI) and "uefi"."""
	seconds, exits = {vmm: [] for vmm in vmms}, {vmm: [] for vmm in vmms}
	result, place = {"memory": {}, "uefi": {}}, boots.Place()
	try:
		for i in range(count):
			for vmm in vmms:
				guest = direct(place, vmm, 0)
				try:
					seconds[vmm].append(guest.seconds)
					exits[vmm].append(guest.exits)
					if i == count - 1 and (vmm == NEMU or with_uefi):
						second = direct(place, vmm, 1)
						time.sleep(boots.IDLE_S)
						result["memory"][vmm] = second.memory()
						second.close()
				finally:
					guest.close()
		for vmm in vmms if with_uefi else ():
			guest = uefi(place, vmm)
			guest.close()
			result["uefi"][vmm] = guest.seconds
	finally:
		place.close()
	result["seconds"] = {vmm: statistics.median(values) for vmm, values in seconds.items()}
	result["exits"] = {vmm: statistics.median(values) for vmm, values in exits.items()}
	return result


def start_up(runs):
	"""{"first": {vmm: seconds}, "peak": {vmm: KiB}}, medians; one run each before."""
	seen = {vmm: [] for vmm in VMM}
	for i in range(runs + 1):
		for vmm, command in VMM.items():
			text = subprocess.run([SPAWN, "1", *command, "-m", "128M", "-bios", GUEST, "-display", "none",
					       "-nodefaults", "-serial", "stdio"], check=True, capture_output=True,
					      text=True, timeout=120).stdout
			if i:
				seen[vmm].append([int(word) for word in text.split()])
	median = {vmm: [statistics.median(column) for column in zip(*rows)] for vmm, rows in seen.items()}
	return {"first": {vmm: m[0] / 1e9 for vmm, m in median.items()},
		"peak": {vmm: m[1] for vmm, m in median.items()}}


def libraries(program):
	text = subprocess.run(["/lib/ld-linux-aarch64.so.1", "--list", shutil.which(program)], check=True,
			      capture_output=True, text=True).stdout
	return len(text.splitlines())


def inside(opt):
	result = {**start_up(opt.n), **guests(opt.boots, with_uefi=opt.uefi)}
	result["ldd"] = {vmm: libraries(command[0]) for vmm, command in VMM.items()}
	with open(opt.out, "w", encoding="utf-8") as out:
		json.dump(result, out)


def stripped_size(program):
	with tempfile.NamedTemporaryFile() as file:
		subprocess.run(["aarch64-linux-gnu-strip", "-o", file.name, program], check=True)
		return os.path.getsize(file.name)


# figure, key, how it is shown, the most that NEMU may have: a part of QEMU's, or a number
ROWS = [
	("exec to first byte", "first", lambda v: f"{v * 1e3:.1f} ms", None, None),
	("peak memory", "peak", lambda v: f"{v:,.0f} KiB", 1 / 8, None),
	("VMM-private memory, 2nd VM", "memory", lambda v: f"{v:,.0f} KiB", None, 1536),
	("exits to user space to init", "exits", lambda v: f"{v:,.0f}", 1 / 2, None),
	("start to init", "seconds", lambda v: f"{v:.2f} s", 1.05, None),
	("UEFI start to login", "uefi", lambda v: f"{v:.1f} s", None, None),
	("lines of ldd", "ldd", str, None, 8),
	("program, stripped", "size", lambda v: f"{v / 1024:,.0f} KiB", None, 1024 * 1024),
]


def table(result):
	print(f"| figure | {QEMU} | {NEMU} | ratio | wanted |  |\n| --- | --- | --- | --- | --- | --- |")
	for figure, key, show, part, most in ROWS:
		seen = result[key]
		if NEMU not in seen:
			continue
		mine, other = seen[NEMU], seen.get(QEMU)
		limit = other * part if part else most
		verdict = "" if limit is None else "met" if mine <= limit else "MISSED"
		wanted = f"{part:.3g} of QEMU's" if part else show(most) if most else ""
		ratio = f"{mine / other:.2f}" if other else ""
		print(f"| {figure} | {show(other) if other else ''} | {show(mine)} | {ratio} | {wanted} | {verdict} |")


def main():
	parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
	parser.add_argument("-n", type=int, default=21, metavar="RUNS")
	parser.add_argument("--boots", type=int, default=3, metavar="N")
	parser.add_argument("--no-uefi", dest="uefi", action="store_false",
			    help="leave out the boots through firmware, and the memory of QEMU")
	parser.add_argument("--out", help=argparse.SUPPRESS)
	opt = parser.parse_args()
	try:
		if opt.out:
			return inside(opt)
		print("in an Arm lab, where only ratios, counts and memory mean something (10 minutes)", flush=True)
		with tempfile.NamedTemporaryFile(dir=os.path.join(ROOT, "build")) as file:
			subprocess.run([os.path.join(ROOT, "tests", "lab", "run"), "--arch", "aarch64", "--disk",
					os.path.join(IMAGES, DISK), "--", os.path.realpath(__file__), "-n", str(opt.n),
					"--boots", str(opt.boots), *([] if opt.uefi else ["--no-uefi"]), "--out",
					file.name], check=True)
			with open(file.name, encoding="utf-8") as out:
				result = json.load(out)
		result["size"] = {NEMU: stripped_size(PROGRAM)}
	except (RuntimeError, OSError, subprocess.SubprocessError) as error:
		sys.exit(f"bench: {error}")
	table(result)


if __name__ == "__main__":
	main()
