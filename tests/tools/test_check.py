"""scripts/check counts what ran, and never takes a missing part for a pass."""
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def check(tmp_path, monkeypatch):
	path = os.path.join(ROOT, "scripts", "check")
	monkeypatch.setattr("sys.dont_write_bytecode", True)
	loader = importlib.machinery.SourceFileLoader("nemu_check", path)
	module = importlib.util.module_from_spec(importlib.util.spec_from_loader("nemu_check", loader))
	loader.exec_module(module)
	module.ROOT = str(tmp_path)
	module.OUT = str(tmp_path / "build" / "check")
	return module


def tap(check, code, output):
	result, skips = check.Result(), []
	check.parse_tap(result, "t", code, output, "", skips.append)
	return result.passed, len(result.failures), result.skipped, skips


def test_tap_counts(check):
	assert tap(check, 0, "1..2\nok 1 - a\nok 2 - b\n# ok - tests\n") == (2, 0, 0, [])
	assert tap(check, 1, "1..2\nok 1 - a\nnot ok 2 - b\n# why\n") == (1, 1, 0, [])
	assert tap(check, 0, "1..1\nok 1 - a\n1..1\nok 1 - b\n") == (2, 0, 0, [])


@pytest.mark.parametrize("line", ["ok 2 # SKIP b", "not ok 2 # SKIP b", "ok 2 - b # SKIP"])
def test_tap_skip(check, line):
	assert tap(check, 0, f"1..2\nok 1 - a\n{line}\n") == (1, 0, 1, [1])


@pytest.mark.parametrize("code,output,counts", [
	(0, "....\n34 passed in 1.41s\n", (34, 0, 0)),
	(0, "== 3 passed, 2 skipped, 1 warning in 0.10s ==\n", (3, 0, 2)),
	(1, "== 2 failed, 3 passed in 61.10s (0:01:01) ==\n", (3, 2, 0)),
	(1, "1 passed, 1 error in 0.2s\n", (1, 1, 0)),
	(2, "1 passed in 0.2s\n", (1, 1, 0)),
	(0, "1 skipped in 0.2s\n", (0, 1, 1)),
	(5, "no tests ran in 0.00s\n", (0, 1, 0)),
])
def test_pytest_under_meson(check, code, output, counts):
	assert tap(check, code, output)[:3] == counts


@pytest.mark.parametrize("code,output", [
	(0, ""),				# printed nothing
	(0, "1..0\n"),				# planned nothing
	(0, "1..2\nok 1 - a\n"),		# ended early, status 0
	(-11, "1..2\nok 1 - a\n"),		# crashed
	(-6, "1..1\nok 1 - a\n"),		# crashed at exit: a leak, say
	(66, "1..1\nok 1 - a\n"),		# a sanitizer
])
def test_tap_never_hides_a_failure(check, code, output):
	assert tap(check, code, output)[1] == 1


JUNIT = """<testsuites><testsuite>
<testcase classname="a" name="ok"/>
<testcase classname="a" name="bad"><failure message="m">why</failure></testcase>
<testcase classname="a" name="error"><error message="m">why</error></testcase>
<testcase classname="a" name="skip"><skipped message="no reason"/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("in_lab,counts", [(False, (1, 2, 1)), (True, (1, 3, 0))])
def test_junit_counts(check, tmp_path, in_lab, counts):
	xml = tmp_path / "x.xml"
	xml.write_text(JUNIT)
	result = check.Result()
	check.parse_junit(result, "w", str(xml), "", in_lab)
	assert (result.passed, len(result.failures), result.skipped) == counts


@pytest.mark.parametrize("text", [None, "", "<testsuites/>", "<testsuites>"])
def test_junit_without_tests_fails(check, tmp_path, text):
	xml = tmp_path / "x.xml"
	if text is not None:
		xml.write_text(text)
	result = check.Result()
	check.parse_junit(result, "w", str(xml), "the output", False)
	assert [output for _, output in result.failures] == ["the output"]


def options(**more):
	return type("Opt", (), {"stages": [], "soak": False, "retry": [], "rerun": 0, **more})()


def stages(check, *rows):
	check.STAGES = [(name, stage, needs, soak) for name, stage, needs, soak in rows]


def test_stages_go_on_after_a_failure(check, capsys):
	def good(result, _opt):
		result.ok(3)

	def bad(result, _opt):
		result.fail("it", "line\n" * 100 + "the last line")

	def breaks(_result, _opt):
		raise OSError("no such thing")

	stages(check, ("bad", bad, [], False), ("after", good, ["bad"], False),
	       ("breaks", breaks, [], False), ("good", good, [], False), ("long", bad, [], True))
	assert check.run_stages(options()) == 1
	out = capsys.readouterr().out.splitlines()
	assert out[-1] == "3 passed, 3 failed, 0 skipped"
	assert "    the last line" in out
	assert sum(line == "    line" for line in out) == check.TAIL - 1
	assert "  FAILED after: not run, because bad failed" in out
	assert "  FAILED breaks: no such thing" in out


def test_nothing_ran_is_a_failure(check, capsys):
	stages(check, ("none", lambda result, opt: None, [], False))
	assert check.run_stages(options()) == 1
	assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"


def test_all_good(check, capsys):
	stages(check, ("one", lambda result, opt: result.ok(), [], False))
	assert check.run_stages(options()) == 0
	assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"


def test_limit_ends_the_whole_group(check):
	code, text = check.run(["sh", "-c", "sleep 1000 & echo $!; wait"], "x.log", 1)
	assert code == 124
	assert "ended after 1 s" in text
	pid = int(text.split()[0])
	state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
	assert state.stdout.strip()[:1] in ("", "Z")


def test_output_is_shown_while_it_comes(check, capsys):
	code, text = check.run(["sh", "-c", "echo one; sleep 1; echo two"], "x.log", 30, echo="x")
	assert (code, text) == (0, "one\ntwo\n")
	assert capsys.readouterr().out == "    x: one\n    x: two\n"


# What skipped itself here runs again in the lab, and only that counts there.
@pytest.mark.parametrize("there,counts", [
	("1..2\nok 1 - a\nok 2 - b\n", (2, 0, 0)),
	("1..2\nok 1 - a\nnot ok 2 - b\n", (1, 1, 1)),
	("1..2\nok 1 - a\nok 2 # SKIP b\n", (1, 1, 1)),
	("1..2\nok 1 - a\n", (1, 1, 1)),
])
def test_skipped_here_runs_in_the_lab(check, tmp_path, monkeypatch, capsys, there, counts):
	(tmp_path / "scripts").mkdir()
	shutil.copy(os.path.join(ROOT, "scripts", "check"), tmp_path / "scripts" / "check")
	(tmp_path / "tests").mkdir()
	shutil.copy(os.path.join(ROOT, "tests", "pytest.ini"), tmp_path / "tests" / "pytest.ini")
	(tmp_path / "tests" / "test_x.py").write_text("def test_x():\n\tpass\n")
	(tmp_path / "tap").write_text(there)
	monkeypatch.setattr(check, "lab_argv", lambda inside, bits: inside)

	def here(result, opt):
		check.parse_tap(result, "exe", 0, "1..2\nok 1 - a\nok 2 # SKIP b\n", "",
				lambda n: opt.retry.append(("exe", ["cat", str(tmp_path / "tap")], n)))

	stages(check, ("unit", here, [], False), ("lab", check.stage_lab, [], False))
	check.run_stages(options(kvm=True))
	passed, failed, skipped = counts
	assert capsys.readouterr().out.splitlines()[-1] == (
		f"{passed + 1} passed, {failed} failed, {skipped} skipped")	# one more: test_x


def test_firmware_has_a_lab_of_its_own(check, tmp_path, monkeypatch, capsys):
	(tmp_path / "scripts").mkdir()
	shutil.copy(os.path.join(ROOT, "scripts", "check"), tmp_path / "scripts" / "check")
	(tmp_path / "tests" / "system").mkdir(parents=True)
	shutil.copy(os.path.join(ROOT, "tests", "pytest.ini"), tmp_path / "tests" / "pytest.ini")
	(tmp_path / "tests" / "test_x.py").write_text("def test_x():\n\tpass\n")
	(tmp_path / "tests" / "system" / "test_uefi.py").write_text("def test_u():\n\tassert 0\n")
	monkeypatch.setattr(check, "lab_argv", lambda inside, bits: inside)
	stages(check, ("lab", check.stage_lab, [], False))
	assert check.run_stages(options(kvm=True)) == 1
	out = capsys.readouterr().out.splitlines()
	assert out[-1] == "1 passed, 1 failed, 0 skipped"
	assert any("FAILED lab-firmware" in line for line in out)


def test_a_skip_in_the_lab_is_a_failure(check, tmp_path, monkeypatch, capsys):
	(tmp_path / "scripts").mkdir()
	shutil.copy(os.path.join(ROOT, "scripts", "check"), tmp_path / "scripts" / "check")
	(tmp_path / "tests").mkdir()
	shutil.copy(os.path.join(ROOT, "tests", "pytest.ini"), tmp_path / "tests" / "pytest.ini")
	(tmp_path / "tests" / "test_x.py").write_text(
		"import pytest\n\ndef test_x():\n\tpytest.skip('no')\n\n"
		"@pytest.mark.soak\ndef test_long():\n\tassert 0\n\n"
		"@pytest.mark.host\ndef test_host():\n\tassert 0\n")
	monkeypatch.setattr(check, "lab_argv", lambda inside, bits: inside)
	stages(check, ("lab", check.stage_lab, [], False))
	assert check.run_stages(options(kvm=True)) == 1
	assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


SOURCE = """#include <stdio.h>
#include <string.h>
#ifdef RWX
__attribute__((section(".both,\\"awx\\",@progbits#"))) int both = 1;
#endif
#ifdef BIG
const char big[1 << 20] = "a";
#endif
int main(int argc, char **argv)
{
	char b[16];
	strcpy(b, argv[0]);
	return printf("%s", b) < 0;
}
"""
GOOD = ["-O2", "-pie", "-fPIE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong",
	"-Wl,-z,relro,-z,now,-z,noexecstack"]


@pytest.mark.parametrize("flags,missing", [
	([], []),
	(["-no-pie", "-fno-pie"], ["position-independent executable"]),
	(["-Wl,-z,norelro"], ["RELRO"]),
	(["-Wl,-z,lazy"], ["BIND_NOW"]),
	(["-Wl,-z,execstack"], ["stack not executable"]),
	(["-DRWX"], ["no segment both writable and executable"]),
	(["-Wl,-rpath,/tmp"], ["no library search path of its own"]),
	(["-fno-stack-protector"], ["stack protector"]),
	(["-U_FORTIFY_SOURCE"], ["fortified calls"]),
	(["-DBIG"], ["at most 1 MiB when stripped"]),
])
def test_hardening(check, tmp_path, flags, missing):
	if not shutil.which("gcc"):
		pytest.fail("gcc is not installed")
	(tmp_path / "build").mkdir()
	(tmp_path / "x.c").write_text(SOURCE)
	subprocess.run(["gcc", *GOOD, *flags, "-o", tmp_path / "build" / "nemu", tmp_path / "x.c"],
		       check=True, capture_output=True)
	result = check.Result()
	check.stage_hardening("build", "strip")(result, None)
	names = [name.split(": ")[1] for name, _ in result.failures]
	assert names == missing
	assert result.passed == 10 - len(missing)


def test_hardening_without_a_binary(check):
	result = check.Result()
	check.stage_hardening("build", "strip")(result, None)
	assert len(result.failures) == 1 and not result.passed


def test_every_test_file_has_a_home():
	"""A source file of a test that no meson.build names would never run."""
	lost = []
	for top in ("unit", "device", "fuzz"):
		for where, _, names in os.walk(os.path.join(ROOT, "tests", top)):
			built = ""
			up = where
			while up != os.path.join(ROOT, "tests"):
				path = os.path.join(up, "meson.build")
				built += open(path).read() if os.path.exists(path) else ""
				up = os.path.dirname(up)
			for name in names:
				stem = name[:-2].removeprefix("fuzz_")
				is_test = name.endswith(".c") or re.fullmatch(r"test_.*\.py", name)
				if is_test and name not in built and (
						top != "fuzz" or f"'{stem}'" not in built):
					lost.append(os.path.join(where, name))
	assert not lost
