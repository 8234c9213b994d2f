"""tools/check-layers finds planted violations and passes clean trees."""
import os
import subprocess

import pytest

pytestmark = pytest.mark.host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, "tools", "check-layers")


def plant(root, files):
	for name, text in files.items():
		path = root / name
		path.parent.mkdir(parents=True, exist_ok=True)
		path.write_text(text)


def run(root):
	done = subprocess.run([TOOL, str(root)], capture_output=True, text=True)
	return done.returncode, done.stdout.splitlines()


CLEAN = {
	"src/main.c": '#include "machine/machine.h"\n#include "base/err.h"\n',
	"src/device/virtio/blk.c": '#include <stdint.h>\n#include "virtio/virtio.h"\n'
							   '#include "block/block.h"\n#include "event/loop.h"\n'
							   '#include "device/virtio/blk_int.h"\n#include "spec/virtio.h"\n',
	"src/net/tap.c": '#include <net/if.h>\n#include <linux/if_tun.h>\n#include "net/net.h"\n',
	"src/kvm/vm.c": '#include <linux/kvm.h>\n#include "core/irq.h"\n',
	"src/machine/x86.c": '#include "kvm/vm.h"\n#include "arch/x86/cpu.h"\n'
						 '#include "block/block.h"\n',
	"src/control/qmp.c": '#include "block/node.h"\n#include "migrate/session.h"\n',
	"tools/nemu-img.c": '#include "block/block.h"\n#include "control/gen/img.h"\n'
						'#include "img.h"\n',
	"tools/img.h": "/* neighbour */\n",
	"spec/virtio.h": '#include "base/wire.h"\n',
}


def test_clean_tree_passes(tmp_path):
	plant(tmp_path, CLEAN)
	code, out = run(tmp_path)
	assert code == 0, out
	assert out == ["check-layers: 9 files, no violation"]


def test_empty_tree_is_not_a_pass(tmp_path):
	assert run(tmp_path)[0] == 2


# (file, line that is planted, rule). None of the headers exists.
PLANTED = [
	("src/block/raw.c", '#include "device/virtio/blk.h"', "layer"),
	("src/block/raw.c", '#include "mem/mem.h"', "layer"),
	("src/block/raw.c", '#include "job/job.h"', "layer"),
	("src/net/tap.c", '#include "core/vm.h"', "layer"),
	("src/chardev/pty.c", '#include "block/block.h"', "layer"),
	("src/device/uart.c", '#include "kvm/vm.h"', "layer"),
	("src/device/uart.c", '#include "arch/x86/cpu.h"', "layer"),
	("src/device/uart.c", '#include "block/node.h"', "layer"),
	("src/device/uart.c", '#include "machine/machine.h"', "layer"),
	("src/kvm/vm.c", '#include "arch/x86/cpu.h"', "layer"),
	("src/arch/x86/cpu.c", '#include "kvm/vm.h"', "layer"),
	("src/arch/x86/cpu.c", '#include "pci/pci.h"', "layer"),
	("src/core/bus.c", '#include "pci/pci.h"', "layer"),
	("src/pci/pci.c", '#include "virtio/virtio.h"', "layer"),
	("src/virtio/queue.c", '#include "net/net.h"', "layer"),
	("src/mem/mem.c", '#include "state/state.h"', "layer"),
	("src/event/loop.c", '#include "mem/mem.h"', "layer"),
	("src/base/log.c", '#include "event/loop.h"', "layer"),
	("src/firmware/acpi.c", '#include "pci/pci.h"', "layer"),
	("src/sandbox/broker.c", '#include "event/loop.h"', "layer"),
	("src/machine/x86.c", '#include "control/qmp.h"', "layer"),
	("src/migrate/ram.c", '#include "control/qmp.h"', "layer"),
	("tools/nemu-img.c", '#include "machine/machine.h"', "layer"),
	("tools/nemu-img.c", '#include "control/qmp.h"', "layer"),
	("spec/virtio.h", '#include "core/vm.h"', "layer"),
	("src/core/bus.c", '#include "nowhere/x.h"', "folder"),
	("src/core/bus.c", '#include "../kvm/vm.h"', "form"),
	("src/core/bus.c", '#include "core/../kvm/vm.h"', "form"),
	("src/core/bus.c", '#include "bus.h"', "form"),
	("src/core/bus.c", "#include <kvm/vm.h>", "form"),
	("src/core/bus.c", "#include KVM_HEADER", "form"),
	("src/core/bus.c", '#include "pci/pci_int.h"', "layer"),
	("src/pci/pci.c", '#include "core/core_int.h"', "private"),
	("src/device/virtio/blk.c", '#include "device/pci/nvme_int.h"', "private"),
	("src/core/bus.c", "#include <linux/kvm.h>", "kvm"),
	("src/device/uart.c", "#include <asm/kvm_para.h>", "kvm"),
	# written so that a careless search misses them
	("src/block/raw.c", ' \t#  include   "kvm/vm.h" /* why */', "layer"),
	("src/block/raw.c", '/* x */ #include "kvm/vm.h"', "layer"),
	("src/block/raw.c", '#include/**/"kvm/vm.h"', "layer"),
	("src/block/raw.c", '#\\\ninclude "kvm/vm.h"', "layer"),
	("src/block/raw.c", '#if 0\n#endif\n#ifdef X\n#include "kvm/vm.h"\n#endif', "layer"),
]


@pytest.mark.parametrize("name,line,rule", PLANTED)
def test_planted_violation_fails(tmp_path, name, line, rule):
	plant(tmp_path, CLEAN)
	plant(tmp_path, {name: "/* a comment\n * of two lines */\n" + line + "\nint x;\n"})
	code, out = run(tmp_path)
	assert code == 1
	where = 3 + next(i for i, text in enumerate(line.split("\n")) if "#" in text and
					 ("include" in text or text.endswith("\\")))
	assert len(out) == 1, out
	assert out[0].startswith(f"{name}:{where}: {rule}: "), out


@pytest.mark.parametrize("name,line,refused", [
	("src/machine/virt.c", "#ifdef __aarch64__", True),
	("src/kvm/vm.c", "  #  if defined(__x86_64__) && 1", True),
	("spec/cpu.h", "#if X || !defined(__ARM_FEATURE_CRC32)", True),
	("src/kvm/vm.c", "/* #ifdef __aarch64__ */", False),
	("src/base/cpu.h", "#ifdef __aarch64__", False),
])
def test_asking_for_an_architecture(tmp_path, name, line, refused):
	plant(tmp_path, CLEAN)
	plant(tmp_path, {name: "\n" + line + "\n#endif\n" if line[0] != "/" else line + "\n"})
	code, out = run(tmp_path)
	assert code == refused
	assert not refused or out[0].startswith(f"{name}:2: arch: "), out


def test_comments_and_strings_are_no_includes(tmp_path):
	plant(tmp_path, CLEAN)
	plant(tmp_path, {"src/core/bus.c": '/*\n#include "kvm/vm.h"\n*/\n// #include "kvm/vm.h"\n'
									   'const char *s = "/*";\nint y; /* "*/\n'})
	assert run(tmp_path)[0] == 0


def test_string_does_not_hide_an_include(tmp_path):
	plant(tmp_path, CLEAN)
	plant(tmp_path, {"src/core/bus.c": 'const char *s = "/*";\n#include "kvm/vm.h"\n// */\n'})
	code, out = run(tmp_path)
	assert code == 1
	assert out[0].startswith("src/core/bus.c:2: layer: ")


def test_folder_without_a_row_is_refused(tmp_path):
	plant(tmp_path, CLEAN)
	plant(tmp_path, {"src/helpers/x.c": "int x;\n"})
	code, out = run(tmp_path)
	assert code == 1
	assert out[0].startswith("src/helpers:1: folder: ")


@pytest.mark.parametrize("lines,code", [(1500, 0), (1501, 1)])
def test_length_limit(tmp_path, lines, code):
	plant(tmp_path, CLEAN)
	plant(tmp_path, {"src/core/bus.c": "int x;\n" * lines})
	got, out = run(tmp_path)
	assert got == code, out
	if code:
		assert out[0].startswith("src/core/bus.c:1501: length: ")
