"""The manual pages say what the program has, all of it, and formatters have nothing against them."""
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEMU = os.environ.get("NEMU", os.path.join(ROOT, "build", "nemu"))
PAGES = ["nemu.1", "nemu-img.1", "nemu-qmp.7"]


@pytest.fixture(scope="module")
def gen():
	path = os.path.join(ROOT, "tools", "gen-man")
	loader = importlib.machinery.SourceFileLoader("gen_man", path)
	module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gen_man", loader))
	loader.exec_module(module)
	return module


@pytest.fixture
def tree(tmp_path):
	"""What the pages are made of, to be changed."""
	for name in ("meson.build", "src/control/cli.c", "src/control/words_x86.c",
		     "src/control/words_arm64.c", "src/control/qmp_commands.c", "docs/qmp.md",
		     "docs/nemu-img.md"):
		os.makedirs(os.path.dirname(tmp_path / name), exist_ok=True)
		shutil.copy(os.path.join(ROOT, name), tmp_path / name)
	shutil.copytree(os.path.join(ROOT, "docs/options"), tmp_path / "docs/options")
	shutil.copytree(os.path.join(ROOT, "tools/nemu-img"), tmp_path / "tools/nemu-img")
	return tmp_path


def make(tree, page, *options):
	out = tree / page
	done = subprocess.run([os.path.join(ROOT, "tools", "gen-man"), *options, page, str(tree), str(out)],
			      capture_output=True, text=True)
	return done, out


def plain(path):
	text = subprocess.run(["man", "-l", "-Tascii", str(path)], capture_output=True, text=True, check=True,
			      env={**os.environ, "MANWIDTH": "200", "MAN_KEEP_FORMATTING": ""}).stdout
	return re.sub(r".\x08", "", text)


@pytest.mark.parametrize("page", PAGES)
def test_formatters_are_content(tree, page):
	done, out = make(tree, page)
	assert done.returncode == 0, done.stderr
	assert out.read_text() == open(os.path.join(ROOT, "build", page), encoding="utf-8").read(), \
		"the page of the build is of these sources"
	lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(out)], capture_output=True,
			      text=True).stdout.splitlines()
	# the same sources make the same page, so it has no date
	assert [line for line in lint if "missing date" not in line] == []
	for device in ("ascii", "utf8"):
		done = subprocess.run(["man", "--warnings", "-l", "-T" + device, str(out)], capture_output=True,
				      text=True)
		assert done.returncode == 0 and done.stderr == ""


def test_every_option_is_there(tree):
	done, out = make(tree, "nemu.1")
	text = plain(out)
	shown = subprocess.run([NEMU, "-help"], capture_output=True, text=True, check=True).stdout
	names = re.findall(r"^  -(\S+)", shown, re.M)
	assert len(names) > 40
	missing = [name for name in names if not re.search(rf"^ +-{re.escape(name)}( |$)", text, re.M)]
	assert not missing
	# an option with keys has a page that names them
	lists = [(name, arg) for name, arg in re.findall(r"^  -(\S+) (.*)$", shown, re.M)
		 if re.search(r",[^|]*=", arg)]
	pages = {name[:-3] for name in os.listdir(os.path.join(ROOT, "docs", "options"))}
	assert len(lists) >= 10 and not [name for name, _ in lists if name not in pages]


def test_each_architecture_has_its_words(tree):
	words = {"x86": ["bzImage", "x86-64-v3", "q35", "host-phys-bits"], "arm64": ["gzip", "gic-version", "pauth"]}
	for arch, own in words.items():
		done, out = make(tree, "nemu.1", "--arch", arch)
		text = plain(out)
		assert done.returncode == 0, done.stderr
		assert not [word for word in own if word not in text]
		assert not [word for other in set(words) - {arch} for word in words[other] if word in text]


def test_every_command_is_there(tree):
	done, out = make(tree, "nemu-qmp.7")
	text = plain(out)
	with open(os.path.join(ROOT, "src/control/qmp_commands.c"), encoding="utf-8") as file:
		names = re.findall(r'^\t\{"([a-z_-]+)", (?:cmd|qmp)_', file.read(), re.M)
	assert len(names) > 15
	assert not [name for name in names if not re.search(rf"^ +{name}$", text, re.M)]
	assert re.search(r"^ +target \(string\)$", text, re.M)
	assert re.search(r"^ +vcpus \(array, optional\)$", text, re.M)


def test_every_command_of_nemu_img_is_there(tree):
	done, out = make(tree, "nemu-img.1")
	text = plain(out)
	shown = subprocess.run([NEMU + "-img", "--help"], capture_output=True, text=True, check=True).stdout
	names = re.findall(r"^  ([a-z]+) ", shown, re.M)
	assert len(names) == 13
	for name in names:
		assert re.search(rf"^ +{name} \[option\]", text, re.M), name
		usage = subprocess.run([NEMU + "-img", name, "--help"], capture_output=True, text=True, check=True).stdout
		for option in re.findall(r"^  (-\S+?),? ", usage, re.M):
			assert option == "-h" or re.search(rf"^ +{re.escape(option.split('=')[0])}([ ,=]|$)", text, re.M), (name, option)


@pytest.mark.parametrize("page,name,old,new,words", [
	("nemu-qmp.7", "docs/qmp.md", "## quit\n", "## qiut\n", "'## quit'"),
	("nemu-qmp.7", "docs/qmp.md", "## Events\n", "## no-such\n\n## Events\n", "'no-such'"),
	("nemu-qmp.7", "docs/qmp.md", "| `vcpus` |", "| `cpus` |", "`vcpus`"),
	("nemu-img.1", "docs/nemu-img.md", "## resize\n", "## shrink\n", "'shrink'"),
	("nemu-img.1", "docs/nemu-img.md", "## resize\n", "", "'## resize'"),
	("nemu.1", "src/control/cli.c", '"name of the virtual machine"', '""', "-name"),
])
def test_what_is_not_described_is_refused(tree, page, name, old, new, words):
	text = (tree / name).read_text()
	assert old in text
	(tree / name).write_text(text.replace(old, new, 1))
	done, _ = make(tree, page)
	assert done.returncode == 1 and words in done.stderr


def test_page_of_no_option_is_refused(tree):
	(tree / "docs/options/nonsense.md").write_text("# -nonsense\n")
	done, _ = make(tree, "nemu.1")
	assert done.returncode == 1 and "nonsense" in done.stderr


def test_text_cannot_become_a_macro(gen):
	lines = gen.markdown(".SH not a heading\n\n'quoted\n\na \\ and a - and `code`")
	assert lines == [".PP", "\\&.SH not a heading", ".PP", "\\&\\(aqquoted", ".PP",
			 "a \\e and a \\- and \\fBcode\\fR"]


def test_install_puts_them_where_man_looks(tmp_path):
	subprocess.run(["meson", "install", "-C", os.path.join(ROOT, "build"), "--no-rebuild", "--destdir",
			str(tmp_path)], check=True, capture_output=True)
	found = {os.path.relpath(os.path.join(at, name), tmp_path).split("share/")[-1]
		 for at, _, names in os.walk(tmp_path) for name in names if "/share/man" in at}
	assert found == {"man/man1/nemu.1", "man/man1/nemu-img.1", "man/man7/nemu-qmp.7"}
