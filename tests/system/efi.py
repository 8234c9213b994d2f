"""Small EFI boot media: the application of tests/guest/efi-hello.S with a message of its own."""
import os
import subprocess

import vm as v

APP = os.path.join(v.ROOT, "build", "tests", "guest", "efi-hello.efi")
PLACE = "@" * 32


def app(path, message):
	"""Writes the application to path; it prints message and returns an error."""
	with open(APP, "rb") as file:
		data = file.read()
	place = PLACE.encode("utf-16-le")
	assert data.count(place) == 1 and len(message) <= len(PLACE)
	with open(path, "wb") as file:
		file.write(data.replace(place, message.ljust(len(PLACE)).encode("utf-16-le")))
	return path


def disk(path, message):
	"""A FAT file system that firmware starts the application from."""
	program = app(path + ".efi", message)
	env = {**os.environ, "PATH": os.environ["PATH"] + ":/sbin:/usr/sbin"}
	for command in (["mkfs.vfat", "-C", path, "4096"],
			["mmd", "-i", path, "::/EFI", "::/EFI/BOOT"],
			["mcopy", "-i", path, program, "::/EFI/BOOT/BOOTX64.EFI"]):
		subprocess.run(command, check=True, capture_output=True, env=env)
	return path
