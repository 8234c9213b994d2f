"""ACPI tables of a running guest: fetched over its console, judged by iasl and acpiexec."""
import base64
import os
import re
import subprocess

# A shell command for the guest that prints every table as text.
DUMP = ("cd /sys/firmware/acpi/tables && for t in *; do [ -f $t ] && "
	"{ echo \"TABLE $t\"; base64 $t; echo TABLE-END; }; done; true")


def parse(text, folder):
	"""Writes the tables of DUMP's output to folder; {name: path}."""
	tables = {}
	for name, data in re.findall(r"TABLE (\w+)\n(.*?)TABLE-END", text.replace("\r", ""), re.S):
		path = os.path.join(folder, f"{name}.dat")
		with open(path, "wb") as file:
			file.write(base64.b64decode(data))
		tables[name] = path
	return tables


def _tool(*command, folder):
	done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
	return done.returncode, done.stdout + done.stderr


def check(tables, folder):
	"""Every table through iasl -d and back without a word; every _STA and _CRS evaluates."""
	for name, path in tables.items():
		externals = [f for n, f in tables.items() if n in ("DSDT", "SSDT") and n != name]
		extra = ["-e", ",".join(externals)] if name in ("DSDT", "SSDT") else []
		code, text = _tool("iasl", *extra, "-d", path, folder=folder)
		assert code == 0, text
		assert not re.search(r"error|warning", text, re.I), f"iasl -d {name}:\n{text}"
		code, text = _tool("iasl", f"{name}.dsl", folder=folder)
		assert code == 0 and "0 Errors, 0 Warnings" in text, f"iasl {name}.dsl:\n{text}"
		with open(path, "rb") as file:
			data = file.read()
		if name not in ("FACS",):
			assert sum(data) % 256 == 0, f"{name}: checksum"
	code = [tables["DSDT"]] + [p for n, p in tables.items() if n.startswith("SSDT")]
	_, found = _tool("acpiexec", "-r", "-b", "find _CRS;find _STA", *code, folder=folder)
	paths = re.findall(r"^\s+(\\\S+\._(?:CRS|STA))\s", found, re.M)
	assert any(p.endswith("_CRS") for p in paths), found
	assert any(p.endswith("_STA") for p in paths), found
	commands = ";".join(f"evaluate {p}" for p in paths)
	_, text = _tool("acpiexec", "-r", "-b", commands, *code, folder=folder)
	assert not re.search(r"ACPI (Error|Warning)|AE_[A-Z_]+", text.replace("AE_OK", "")), text
	for path in paths:
		assert f"Evaluation of {path} returned object" in text, f"{path}:\n{text}"
	return paths
