"""What a guest's kernel may say. Everything of level error or worse, and every warning about
ACPI or firmware, is a fault of the platform unless allowed.txt names it with a reason."""
import os
import re

SHOW = ("dmesg -l emerg,alert,crit,err; echo WARNINGS; "
	"dmesg -l warn | grep -iE 'acpi|firmware|bios|uefi|pci|apic|tsc' || true")


def allowed():
	"""Lines of allowed.txt: REGEX <tab> reason."""
	path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "allowed.txt")
	rules = []
	with open(path) as file:
		for line in file:
			if line.strip() and not line.startswith("#"):
				regex, reason = line.rstrip("\n").split("\t", 1)
				assert reason.strip(), line
				rules.append(re.compile(regex))
	return rules


def check(text):
	rules = allowed()
	bad = [line for line in text.replace("\r", "").splitlines()
	       if re.match(r"\s*\[\s*\d+\.\d+\]", line) and not any(r.search(line) for r in rules)]
	assert not bad, "the guest's kernel complains:\n" + "\n".join(bad)
