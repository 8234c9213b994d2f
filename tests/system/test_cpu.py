"""Processors: topology as the guest's own tools show it, threads that can be pinned, models."""
import os
import re
import subprocess

import pytest

import vm as v

# Bits of CPUID by the names of /proc/cpuinfo; what Linux adds by itself is not compared.
COMMON = set("""fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse
	sse2 syscall nx lm x2apic tsc_deadline_timer arat hypervisor""".split())
LEVEL2 = set("pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm".split())
LEVEL3 = "xsave avx avx2 bmi1 bmi2 f16c fma abm movbe".split()
LEVEL4 = "avx512f avx512bw avx512cd avx512dq avx512vl".split()
# Not bits of CPUID, but what Linux makes of them or of the processor's family; those of -smp
LINUX = set("""cpuid nopl rep_good tsc_known_freq constant_tsc nonstop_tsc xtopology extd_apicid vmmcall pti
	retpoline retpoline_amd lfence_rdtsc mfence_rdtsc cmp_legacy ht amd_dcm apicmp 3dnowprefetch up
	rsb_ctxsw fsgsbase_ acc_power""".split())


def host_flags():
	with open("/proc/cpuinfo") as file:
		return set(re.search(r"^flags\s*:(.*)$", file.read(), re.M).group(1).split())


def guest_flags(text):
	return set(re.search(r"^flags\s*:(.*)$", text, re.M).group(1).split())


# --- topology and threads ---

SHOW = r"""cd /sys/devices/system/cpu
for i in 0 1 2 3 4 5 6 7; do t=cpu$i/topology
	echo CPU=$i $(cat $t/physical_package_id $t/die_id $t/core_id $t/thread_siblings_list \
		$t/die_cpus_list $t/package_cpus_list)
	for c in cpu$i/cache/index*; do echo CACHE=$i $(cat $c/level $c/type $c/shared_cpu_list); done
done
LC_ALL=C lscpu
lscpu -p=CPU,CORE,SOCKET
echo POSSIBLE=$(cat possible) PRESENT=$(cat present)
echo READY; read x
"""


def pin(vm, cpus):
	"""The threads that QMP names are those of the vCPUs, and others may move them."""
	pid = vm.process.pid
	tids = [cpu["thread-id"] for cpu in cpus]
	assert len(set(tids)) == len(tids)
	for i, tid in enumerate(tids):
		with open(f"/proc/{pid}/task/{tid}/comm") as file:
			assert file.read() == f"vcpu{i}\n"
		with open(f"/proc/{pid}/task/{tid}/status") as file:
			assert re.search(r"^Seccomp:\t2$", file.read(), re.M)
	allowed = sorted(os.sched_getaffinity(0))
	for i, tid in enumerate(tids):
		one = allowed[i % len(allowed)]
		done = subprocess.run(["taskset", "-pc", str(one), str(tid)], capture_output=True, text=True)
		assert done.returncode == 0, done.stderr
		with open(f"/proc/{pid}/task/{tid}/status") as file:
			assert re.search(rf"^Cpus_allowed_list:\t{one}$", file.read(), re.M)


def test_topology_and_pinning():
	smp = "8,maxcpus=12,sockets=3,dies=2,cores=1,threads=2"
	with v.direct(SHOW, cpus=smp) as vm:
		cpus = vm.qmp.cmd("query-cpus-fast")
		assert [cpu["cpu-index"] for cpu in cpus] == list(range(8))
		for i, cpu in enumerate(cpus):
			assert cpu["props"] == {"socket-id": i // 4, "die-id": i // 2 % 2, "core-id": 0,
						"thread-id": i % 2}
		slots = vm.qmp.cmd("query-hotpluggable-cpus")
		assert sorted((s["qom-path"], s["type"], s["vcpus-count"]) for s in slots if "qom-path" in s) == sorted(
			(cpu["qom-path"], "host-x86_64-cpu", 1) for cpu in cpus)
		assert [s["props"]["socket-id"] for s in slots if "qom-path" not in s] == [2] * 4
		pin(vm, cpus)
		vm.serial.expect("^READY")	# pinned, and it boots all the same
		text = vm.serial.text.replace("\r", "")
		vm.serial.send("\n")
		assert vm.wait() == 0
		assert vm.errors() == ""
	assert re.search(r"^POSSIBLE=0-11 PRESENT=0-7$", text, re.M), text[-3000:]
	rows = dict(re.findall(r"^CPU=(\d) (.*)$", text, re.M))
	assert len(rows) == 8, text[-3000:]
	cores = set()
	for i in range(8):
		package, die, core, threads, in_die, in_package = rows[str(i)].split()
		pair = f"{i & ~1}-{i | 1}"
		assert (int(package), int(die)) == (i // 4, i // 2 % 2), rows
		assert threads == pair and in_die == pair, rows
		assert in_package == f"{i & ~3}-{i | 3}", rows
		cores.add((package, die, core))
	assert len(cores) == 4
	for cpu, _level, _kind, shared in re.findall(r"^CACHE=(\d) (\d) (\w+) (\S+)$", text, re.M):
		assert shared == f"{int(cpu) & ~1}-{int(cpu) | 1}", text	# cores and dies are two threads
	for name, value in (("CPU(s)", 8), ("On-line CPU(s) list", "0-7"), ("Thread(s) per core", 2),
			    ("Core(s) per socket", 2), ("Socket(s)", 2), ("Hypervisor vendor", "KVM")):
		assert re.search(rf"^\s*{re.escape(name)}:\s+{value}$", text, re.M), (name, text[-3000:])
	assert re.findall(r"^(\d),(\d),(\d)$", text, re.M) == [
		(str(i), str(i // 2), str(i // 4)) for i in range(8)]


# --- models ---

def test_baseline_shows_only_its_features():
	status, text, code, errors = v.run_direct("cat /proc/cpuinfo", "-cpu", "x86-64-v2,+aes,-cx16")
	assert status == 0 and code == 0 and errors == "", errors
	flags = guest_flags(text)
	want = (COMMON | LEVEL2 | {"aes"}) - {"cx16"}
	assert want <= flags, want - flags
	assert not flags - want - LINUX, flags - want - LINUX
	assert re.search(r"^model name\s*: NEMU x86-64-v2 virtual processor$", text, re.M)


def test_host_without_features():
	status, text, code, errors = v.run_direct(
		"cat /proc/cpuinfo", "-cpu", "host,-sse4.2,aes=off,-popcnt,pmu=off,migratable=on,check,enforce")
	assert status == 0 and code == 0 and errors == "", errors
	flags = guest_flags(text)
	gone = {"sse4_2", "aes", "popcnt"}
	assert gone <= host_flags(), "the lab's processor has them"
	assert not flags & (gone | {"perfctr_core", "nonstop_tsc", "svm"}), flags
	assert COMMON | (LEVEL2 - gone) <= flags


@pytest.mark.parametrize("name, features", [("x86-64-v3", LEVEL3), ("x86-64-v4", LEVEL3 + LEVEL4)])
def test_level_that_the_host_lacks(name, features):
	"""Refused with the whole list; the lab's processor has no AVX."""
	missing = [f for f in features if f not in host_flags()]
	assert "avx2" in missing
	done = subprocess.run([v.NEMU, "-nodefaults", "-display", "none", "-S", "-kernel", v.KERNEL,
			       "-cpu", name], stdin=subprocess.DEVNULL, capture_output=True, text=True,
			      timeout=v.LIMIT)
	assert done.returncode == 1
	assert f"-cpu {name}: this host lacks {', '.join(missing)}: use a lower level" in done.stderr
	with v.Vm("-S", "-kernel", v.KERNEL, serial=False) as vm:
		models = {m["name"]: m for m in vm.qmp.cmd("query-cpu-definitions")}
		assert models[name]["unavailable-features"] == missing
		assert models["x86-64-v2"]["unavailable-features"] == []
		assert models["host"]["unavailable-features"] == []


def test_more_processors_than_kvm_takes():
	done = subprocess.run([v.NEMU, "-nodefaults", "-display", "none", "-S", "-kernel", v.KERNEL,
			       "-smp", "4096"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
			      timeout=v.LIMIT)
	assert done.returncode == 1
	assert re.search(r"-smp 4096: KVM takes at most (\d+) vCPUs", done.stderr), done.stderr
