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
				 read("spec/platform_x86.h")))
	stated = re.findall(r"`(PLAT_\w+)` = (0x[0-9A-Fa-f]+|\d+)", read("docs/platform.md"))
	assert len(stated) > 30
	wrong = [(name, value) for name, value in stated
		 if name not in header or int(header[name], 0) != int(value, 0)]
	assert not wrong
	known = re.findall(r"PLAT_\w+", read("spec/platform_x86.h"))
	unknown = set(re.findall(r"PLAT_\w+", read("docs/platform.md"))) - set(known)
	assert not unknown
