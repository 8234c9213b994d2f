"""State of an Arm machine from one process to another."""
import os
import re
import subprocess

from arm import LIMIT, direct_args
import kernel_log
import vm as v

TOOL = os.path.join(v.BUILD, "tests", "system", "state_tool")


def test_state(tmp_path):
	"""Saved, ended, loaded in another process, continued: the clock did not see the time away, the
	disk, message interrupts and both processors go on."""
	disk = tmp_path / "disk.img"
	disk.write_bytes(os.urandom(4 << 20))
	script = ("i=0; while [ $i -lt 8 ]; do i=$((i + 1)); "
		  "dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null || echo BROKEN; "
		  "taskset -c $((i % 2)) true; echo STEP=$i UP=$(cut -d' ' -f1 /proc/uptime); done; "
		  f"{kernel_log.SHOW}")
	state, serial = tmp_path / "state", [tmp_path / "serial1", tmp_path / "serial2"]

	def tool(n, *what):
		args = [str(a) for a in direct_args(script, 2, "vmlinuz")]
		return subprocess.run([TOOL, *what, "--", "-nodefaults", "-display", "none", *args, "-serial",
				       f"file:{serial[n]}", "-drive", f"if=virtio,format=raw,file={disk}",
				       "-device", "virtio-rng-pci"],
				      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
	done = tool(0, "save", str(state), "at", "STEP=3", str(serial[0]))
	assert done.returncode == 0, done.stderr
	subprocess.run(["sleep", "20"])
	done = tool(1, "load", str(state))
	assert done.returncode == 0, done.stderr
	text = serial[0].read_text() + serial[1].read_text()
	assert "BROKEN" not in text and "NEMU-TEST-EXIT=0" in text, text[-3000:]
	steps = [(int(i), float(up)) for i, up in re.findall(r"STEP=(\d+) UP=([\d.]+)", text)]
	assert [i for i, _ in steps] == list(range(1, 9)), text[-3000:]
	gaps = [b - a for (_, a), (_, b) in zip(steps, steps[1:])]
	assert min(gaps) >= 0 and max(gaps) < 15, gaps
	kernel_log.check(re.search(r"STEP=8 .*?\n(.*)NEMU-TEST-EXIT", serial[1].read_text(), re.S).group(1))
	# a state that does not fit is refused with one sentence
	data = bytearray(state.read_bytes())
	state.write_bytes(data[:len(data) // 2])
	done = tool(1, "load", str(state))
	assert done.returncode == 1 and len(re.findall("^state_tool: ", done.stderr, re.M)) == 1, done.stderr
