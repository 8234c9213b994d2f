"""The documents name files that exist, and the platform page agrees with its header."""
import glob
import os
import re

import pytest

pytestmark = pytest.mark.host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = sorted(os.path.relpath(page, ROOT) for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md")
	       for page in glob.glob(os.path.join(ROOT, pattern), recursive=True))
# made by a build or a run, or a pattern for the reader to fill in
MADE = re.compile(r"^build|[*…]|NAME")


def read(name):
	with open(os.path.join(ROOT, name), encoding="utf-8") as file:
		return file.read()


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
	text = read(page)
	named = re.findall(r"`((?:src|spec|tests|tools|scripts|docs|schema)/[^\s`]*)", text)
	named += [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
	missing = []
	for name in named:
		if MADE.search(name):
			continue
		here = os.path.join(ROOT, os.path.dirname(page), name)
		if not os.path.exists(os.path.join(ROOT, name)) and not os.path.exists(here):
			missing.append(name)
	assert not missing


# `base/iov.h` and the like: a header as an #include names it
@pytest.mark.parametrize("page", PAGES)
def test_named_headers_exist(page):
	named = re.findall(r"`([a-z0-9]+(?:/[a-z0-9_]+)+\.h)`", read(page))
	missing = [name for name in named
		   if not os.path.exists(os.path.join(ROOT, "src", name)) and
		   not os.path.exists(os.path.join(ROOT, name))]
	assert not missing


def test_platform_page_agrees_with_the_header():
	header = dict(re.findall(r"#define\s+(PLAT_\w+)\s+(?:UINT\d+_C\()?(0x[0-9A-Fa-f]+|\d+)u?\)?",
				 read("spec/platform_x86.h") + read("spec/ged.h")))
	stated = re.findall(r"`(PLAT_\w+)` = (0x[0-9A-Fa-f]+|\d+)", read("docs/platform.md"))
	assert len(stated) > 30
	wrong = [(name, value) for name, value in stated
		 if name not in header or int(header[name], 0) != int(value, 0)]
	assert not wrong
	known = re.findall(r"PLAT_\w+", read("spec/platform_x86.h") + read("spec/ged.h"))
	unknown = set(re.findall(r"PLAT_\w+", read("docs/platform.md"))) - set(known)
	assert not unknown
	# and the page has all of the contract
	defined = set(re.findall(r"#define (PLAT_\w+)", read("spec/platform_x86.h")))
	assert not defined - set(re.findall(r"`(PLAT_\w+)`", read("docs/platform.md")))


def test_arm_page_agrees_with_the_header():
	header = read("spec/platform_arm64.h")
	page = read("docs/arm64.md")
	rows = re.findall(r"^\| (0x[0-9A-F]+) \|.*\| `(PLAT_\w+)`", page, re.M)
	assert len(rows) > 10
	for address, name in rows:
		value = re.search(rf"#define {name}\s+UINT64_C\((0x[0-9A-F]+)\)", header)
		assert value and int(value.group(1), 16) == int(address, 16), name
	assert re.search(r"#define PLAT_HIGH_BITS\s+39u", header) and "HIGH is 0x4000000000" in page
	bases = set(re.findall(r"#define (PLAT_\w+_BASE)", header)) - {"PLAT_PCI_IO_BASE"}
	assert not bases - set(re.findall(r"`(PLAT_\w+)`", page))


def property_tables():
	"""{class: {property: default or ""}} of src/machine/devices.c, what macros stand for included."""
	text = read("src/machine/devices.c").replace("\\\n", " ")
	macros = dict(re.findall(r"^#define (\w+_PROPS)\s+(.*)$", text, re.M))

	def rows(body):
		for name in macros:
			body = re.sub(rf"\b{name}\b", lambda _: macros[name], body)
		body = re.sub(r"\b\w+_PROPS\b", lambda m: macros[m.group(0)], body)
		found = re.findall(r'\{"([^"]+)",((?:[^{}"]|"[^"]*")*)\}', body)
		return {name: (re.search(r'\.def = "([^"]*)"', rest) or [None, ""])[1] for name, rest in found}

	tables = {name: rows(body) for name, body in
		  re.findall(r"struct opt_desc (props_\w+)\[\] = \{(.*?)\n\};", text, re.S)}
	classes = re.findall(r'\{"([\w-]+)",[^{}]*?\b(props_\w+),', text[text.index("} classes[] = {"):])
	return {name: tables[table] for name, table in classes}


def properties_said(page):
	return dict(re.findall(r"^\| `([\w-]+)` \| ([^|]*?) ?\| [^|]* ?\|$", read(f"docs/devices/{page}"), re.M))


def test_device_pages_have_every_property_and_its_default():
	classes = property_tables()
	assert {"virtio-blk-pci", "virtio-net-pci", "pcie-root-port", "virtconsole"} <= set(classes)
	common = properties_said("README.md")
	for name, props in classes.items():
		port = name in ("virtconsole", "virtserialport")
		said = properties_said("virtio-serial-pci.md" if port else f"{name}.md")
		if port:
			said.pop("max_ports")
		elif name == "virtio-serial-pci":
			said = {"max_ports": said["max_ports"]}
		if not port:
			virtio = name.startswith("virtio")
			said = {**{k: d for k, d in common.items()
				   if virtio or k not in ("disable-legacy", "disable-modern", "vectors", "packed")}, **said}
		assert said == props, name


# a device is what has a state table or a class of -device
def test_every_device_has_a_page_and_a_paragraph_on_threats():
	index = read("docs/devices/README.md")
	threats = read("THREATS.md").lower()
	pages = {name[:-3] for name in os.listdir(os.path.join(ROOT, "docs/devices"))} - {"README"}
	assert set(re.findall(r"\]\(([\w-]+)\.md\)", index)) == pages
	for name in pages:
		text = read(f"docs/devices/{name}.md")
		for heading in ("State", "Limits", "Threats", "Tests"):
			assert f"\n## {heading}\n" in text, (name, heading)
		word = {"pcie-root-port": "root port", "virtio-serial-pci": "virtio-console",
			"power": "pm timer"}.get(name, name.removesuffix("-pci"))
		assert word in threats, word
	sources = {"uart": "uart", "rtc": "rtc", "ged": "ged", "pm": "power", "reset": "power", "ioapic": "ioapic",
		   "pl011": "pl011", "pl031": "pl031", "pl061": "pl061"}
	for file in os.listdir(os.path.join(ROOT, "src/device/platform")):
		if file.endswith(".c") and file not in ("platform.c", "serial.c"):	# what they share
			assert sources[file[:-2]] in pages


# page: where the keys of the option are, in tables of rows or looked up one by one
KEYS = {
	"blockdev": ["src/block/open.c"],
	"boot": ["src/control/cli_boot.c"],
	"chardev": ["src/chardev/open.c"],
	"cpu": ["src/arch/x86/cpu_option.c"],
	"cpu.arm64": ["src/arch/arm64/cpu_option.c"],
	"m": ["src/control/cli_memory.c"],
	"machine": ["src/control/cli_machine.c", "src/control/words_x86.c"],
	"machine.arm64": ["src/control/cli_machine.c", "src/control/words_arm64.c"],
	"netdev": ["src/net/tap.c", "src/net/user.c", "src/net/stream.c"],
	"numa": ["src/machine/numa.c", "src/machine/numa_hmat.c"],
	"object": ["src/mem/backend_config.c"],
	"overcommit": ["src/control/cli_memory.c"],
	"smbios": ["src/machine/smbios_opts.c"],
	"smp": ["src/control/cli_cpu.c"],
	"smp.arm64": ["src/control/cli_cpu.c"],
	"trace": ["src/control/trace_opts.c"],
}
# the first word of an option, which its page begins with
FIRST = {"type", "backend", "qom-type", "model"}
# keys that are there to be refused
REFUSED = {"boot": {"once", "splash", "reboot-timeout"}, "numa": {"mem"}, "smbios": {"file"}}
# of another option in the same file, or made of a short form (-serial tcp:…)
ELSEWHERE = {
	"chardev": {"addr"},
	"m": {"mem-lock", "cpu-pm", "memory-backend", "hmat"},
	"overcommit": {"size", "memory-backend", "hmat"},
}


def keys_of(file):
	text = re.sub(r"/\*.*?\*/", "", read(file), flags=re.S)
	found = re.findall(r'opts_get(?:_item)?\(&?\w+, "([^"]+)"', text)
	found += re.findall(r'\bnuma_get_node\(\w+, \w+, "([^"]+)"', text)
	found += re.findall(r'\bget_n(?:ame|umber)\(\w+, "([^"]+)"', text)
	found += re.findall(r'\bROW(?:_ENUM)?\("([^"]+)"', text)
	found += re.findall(r'\{"([a-z][\w.-]*)", (?:OPT_|set_|&c->smp|offsetof|"(?:on|off|split|3)", "\w+ )', text)
	found += re.findall(r'\{\d+, "([^"]+)", SMBIOS_', text)
	return set(found)


@pytest.mark.parametrize("page", KEYS)
def test_option_pages_have_every_key(page):
	keys = set().union(*(keys_of(file) for file in KEYS[page]))
	assert keys, "the sources are read"
	said = set(re.findall(r"`([\w.-]+)`", "".join(
		line.split("|")[1] for line in read(f"docs/options/{page}.md").splitlines() if line.startswith("| "))))
	assert keys - REFUSED.get(page, set()) - ELSEWHERE.get(page, set()) - FIRST <= said


def test_every_fuzz_target_is_on_the_page():
	targets = {name[5:-2] for name in os.listdir(os.path.join(ROOT, "tests/fuzz"))
		   if name.startswith("fuzz_") and name.endswith(".c")}
	table = read("docs/testing.md").split("## Fuzz targets")[1].split("\n## ")[0]
	assert targets == {name for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.M)
			   for name in re.findall(r"`(\w+)`", row)}


def test_every_guest_is_on_the_page():
	build = read("tests/guest/meson.build")
	names = set(re.findall(r"^  '([\w-]+)': +\[\[", build, re.M)) | {"first-out"}
	assert names and not [name for name in names if f"| `{name}` |" not in read("docs/testing.md")]


def test_every_page_is_linked_from_the_first_one():
	linked = set(re.findall(r"\]\(([^)#\s]+)", read("README.md")))
	pages = {page for page in PAGES if page.startswith("docs/") and page.count("/") == 1}
	assert not pages - linked
