"""The figures of tests/bench/arm64.py that do not depend on times: exits to user space until init beside
`qemu-system-aarch64 -M virt` in the same lab, memory that the VMM keeps for itself."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import arm64		# noqa: E402

if not os.uname().machine == "aarch64":
	pytest.skip("runs on an Arm host: tests/lab/run --arch aarch64", allow_module_level=True)


def test_exits_and_memory():
	seen = arm64.guests(1)
	print(seen)
	assert seen["exits"][arm64.NEMU] <= seen["exits"][arm64.QEMU] / 2, seen
	assert seen["memory"][arm64.NEMU] <= 1536, seen
