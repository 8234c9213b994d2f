"""A network namespace with a tap interface: the other side of a guest's network card."""
import os
import subprocess


def ip(*args):
	subprocess.run(["ip", *args], check=True, capture_output=True)


class TapNet:
	"""Namespace NAME with taps tap0, tap1, … that have 10.77.N.1/24."""

	def __init__(self, name, taps=1, multi_queue=False):
		self.name = f"{name}{os.getpid() % 10000}"
		ip("netns", "add", self.name)
		ip("-n", self.name, "link", "set", "lo", "up")
		for n in range(taps):
			ip("-n", self.name, "tuntap", "add", "mode", "tap", "vnet_hdr",
			   *(["multi_queue"] if multi_queue else []), "name", f"tap{n}")
			ip("-n", self.name, "addr", "add", f"10.77.{n}.1/24", "dev", f"tap{n}")
			ip("-n", self.name, "link", "set", f"tap{n}", "up")
		self.servers = []

	def run(self, *command, **more):
		return subprocess.run(["ip", "netns", "exec", self.name, *command],
				      capture_output=True, text=True, **more)

	def start(self, *command, log=os.devnull):
		with open(log, "w") as out:
			self.servers.append(subprocess.Popen(["ip", "netns", "exec", self.name, *command],
							     stdout=out, stderr=out))

	def stop(self):
		for server in self.servers:
			server.kill()
			server.wait()
		self.servers = []

	def close(self):
		self.stop()
		subprocess.run(["ip", "netns", "del", self.name], capture_output=True)
