"""tools/gen-trace: what it makes of declarations, and what it refuses."""
import os
import subprocess

import pytest

pytestmark = pytest.mark.host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def gen(tmp_path, *texts, what="--source"):
	files = []
	for number, text in enumerate(texts):
		files.append(tmp_path / f"events{number}")
		files[-1].write_text(text)
	out = tmp_path / "out" / "x.c"
	out.parent.mkdir(exist_ok=True)
	done = subprocess.run([os.path.join(ROOT, "tools", "gen-trace"), what, str(out), *map(str, files)],
			      capture_output=True, text=True)
	return done, out.read_text() if out.exists() else ""


def test_header(tmp_path):
	done, text = gen(tmp_path, "# why\nadded(str dev, hex addr, bool ok)\n\nempty()\n", what="--header")
	assert done.returncode == 0
	assert "static inline void trace_added(const char *dev, uint64_t addr, bool ok)" in text
	assert "static inline void trace_empty(void)" in text
	assert "_TRACE_H\n" in text


def test_source_has_all_in_order(tmp_path):
	done, text = gen(tmp_path, "zebra(int n)\n", "ape(u64 n)\nbee()\n")
	assert done.returncode == 0
	table = text[text.index("trace_events[]"):]
	assert table.index('"ape"') < table.index('"bee"') < table.index('"zebra"')
	assert "STAP_PROBE1(nemu, zebra, n);" in text and "STAP_PROBE(nemu, bee);" in text
	assert 'trace_line("ape n=%" PRIu64, n);' in text and 'trace_line("bee");' in text


@pytest.mark.parametrize("text,words", [
	("Bad(int n)", "events0:1"), ("a(float n)", "'float n'"), ("a(int n, int n)", "differ"),
	("a(int)", "'int'"), ("a(int n) x", "not of the form"), ("a()\na()", "declared"),
	("a(int a, int b, int c, int d, int e, int f, int g)", "at most 6"),
])
def test_refused(tmp_path, text, words):
	done, _ = gen(tmp_path, text)
	assert done.returncode == 1 and words in done.stderr


def test_header_compiles_and_costs_a_branch(tmp_path):
	"""One that is not watched evaluates to a compare and a jump: nothing is called in line."""
	done, _ = gen(tmp_path, "seen(int n, str text)\n", what="--header")
	(tmp_path / "out" / "x.h").write_text((tmp_path / "out" / "x.c").read_text())
	(tmp_path / "t.c").write_text('#include "out/x.h"\nvoid f(int n);\nvoid f(int n) { trace_seen(n, ""); }\n')
	text = subprocess.run(["gcc", "-O2", "-S", "-o", "-", "-I", str(tmp_path), "-I",
			       os.path.join(ROOT, "src"), "-I", ROOT, str(tmp_path / "t.c")],
			      capture_output=True, text=True, check=True).stdout
	body = [line.strip() for line in text[text.index("f:"):text.index(".cfi_endproc")].splitlines()]
	hot = body[:body.index("ret")]
	assert sum(line.startswith("j") for line in hot) == 1
	assert not [line for line in hot if line.startswith("call")]
