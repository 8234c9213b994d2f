"""scripts/demo-arm64 and demo-login without a terminal, before a lab that only talks like a guest."""
import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What demo-login meets: a login prompt, a shell, the end after poweroff.
LAB = r'''#!/usr/bin/python3
import base64, subprocess, sys
with open("arguments", "w") as file:
	file.write("\n".join(sys.argv[1:]))
say = lambda text: print(text, end="", flush=True)
hear = lambda: sys.stdin.readline().rstrip("\n")
say("firmware\r\nguest login: ")
user = hear()
say("Password: ")
if (user, hear()) != ("root", "nemu"):
	sys.exit(9)
say("root@guest:~# ")
code = ""
while True:
	line = hear()
	if line == "poweroff":
		sys.exit(int(sys.argv[-1] == "broken"))
	if line.startswith("c=${c}"):
		code += line.removeprefix("c=${c}")
	if line.startswith('echo demo-"begin"'):
		done = subprocess.run(["sh", "-c", base64.b64decode(code)], stdout=subprocess.PIPE, text=True)
		say(f"demo-begin\r\n{done.stdout}demo-end={done.returncode}\r\n")
	say("demo> ")
'''


@pytest.fixture
def tree(tmp_path):
	def script(name, text):
		path = tmp_path / name
		path.parent.mkdir(parents=True, exist_ok=True)
		path.write_text(text)
		path.chmod(0o755)

	for name in ("demo-arm64", "demo-login"):
		(tmp_path / "scripts").mkdir(exist_ok=True)
		shutil.copy(os.path.join(ROOT, "scripts", name), tmp_path / "scripts")
	for name in ("scripts/arm64-root", "scripts/mkimage-arm64"):
		script(name, f'#!/bin/sh\necho "{name} $*" >> made\n')
	script("tests/lab/run", LAB)
	script("build-aarch64/nemu", "")
	images = tmp_path / "build-aarch64-deps" / "images"
	images.mkdir(parents=True)
	(images / "AAVMF_VARS.fd").write_text("no variables yet")
	return tmp_path


def demo(tree, command="uname -m", **more):
	return subprocess.run([tree / "scripts" / "demo-arm64"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
			      timeout=60, env={**os.environ, "DEMO_CMD": command, "DEMO_LIMIT": "30", **more})


@pytest.mark.skipif(os.geteuid() != 0, reason="the guest's disk needs root to be made")
def test_without_a_terminal(tree):
	done = demo(tree, "echo one; echo 'two  $((1 + 1))'")
	assert done.returncode == 0, done.stderr
	assert done.stdout == "one\ntwo  $((1 + 1))\n"
	assert (tree / "made").read_text() == "scripts/arm64-root lab\nscripts/mkimage-arm64 \n"
	words = (tree / "arguments").read_text().split("\n")
	lab, nemu = words[:words.index("--")], words[words.index("--") + 1:]
	assert lab[:2] == ["--arch", "aarch64"] and lab[2] == "--disk" and lab[3].endswith("/debian-aarch64.img")
	assert nemu[0] == "build-aarch64/nemu"
	drives = [b for a, b in zip(nemu, nemu[1:]) if a == "-drive"]
	assert len(drives) == 3 and "unit=0" in drives[0] and "readonly=on" in drives[0]
	assert drives[2].endswith("file=/dev/disk/lab/debian-aarch64.img")
	# the firmware's variables are a copy that the next run finds again
	copy = tree / drives[1].split("file=")[1]
	assert copy.read_text() == "no variables yet"
	copy.write_text("variables")
	assert demo(tree).returncode == 0 and copy.read_text() == "variables"


@pytest.mark.skipif(os.geteuid() != 0, reason="the guest's disk needs root to be made")
def test_what_fails_is_said(tree):
	done = demo(tree, "echo out; exit 3")
	assert done.returncode == 1 and done.stdout == "out\n" and "ended with status 3" in done.stderr
	text = (tree / "scripts" / "demo-arm64").read_text()
	(tree / "scripts" / "demo-arm64").write_text(text.replace("-serial chardev:terminal)", "broken)"))
	done = demo(tree)
	assert done.returncode == 1 and "the program ended with status 1" in done.stderr
	(tree / "build-aarch64" / "nemu").unlink()
	done = demo(tree)
	assert done.returncode == 1 and done.stderr == \
		"demo: build-aarch64/nemu is missing: run 'make ARCH=aarch64' first\n"
