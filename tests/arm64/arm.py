"""What the tests of the AArch64 machine share; a test file that imports it is skipped on another machine."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
import vm as v		# noqa: E402

LIMIT = 300

if not os.uname().machine == "aarch64":
	pytest.skip("runs on an Arm host: tests/lab/run --arch aarch64", allow_module_level=True)


def image(name):
	return os.path.join(v.IMAGES, name)


def direct_args(script, cpus, kernel):
	return ["-machine", "virt", "-cpu", "host", "-smp", cpus, "-m", "512M", "-kernel", image(kernel),
		"-initrd", v.INITRD, "-append", f"console={v.CONSOLE} quiet {v.script_option(script)}"]
