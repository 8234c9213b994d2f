"""Looking inside: what the host offers, trace events in the log and as probes, statistics."""
import json
import os
import re
import subprocess

import pytest

import net
import vm as v

STATES = {"ok", "missing", "fatal", "unknown"}


def nemu(*args, **more):
	return subprocess.run([v.NEMU, *args], capture_output=True, text=True, timeout=120, **more)


def check_host(*args):
	done = nemu("-check-host", "--json", *args)
	assert done.stderr == ""
	report = json.loads(done.stdout)
	assert done.returncode == (0 if report["usable"] else 1)
	assert {"version", "usable", "facts"} == set(report)
	return report


def events():
	return nemu("-trace", "help").stdout.split()


# --- on the machine that builds ---

@pytest.mark.host
def test_check_host_table_and_json_agree():
	report = check_host()
	table = nemu("-check-host")
	assert table.returncode == (0 if report["usable"] else 1)
	rows = dict(re.findall(r"^([a-zA-Z0-9_.-]+) +(ok|missing|fatal|unknown) ", table.stdout, re.M))
	assert rows == {key: fact["state"] for key, fact in report["facts"].items()}
	for key in ("kvm.device", "kvm.api", "kvm.cap.SPLIT_IRQCHIP", "kvm.cap.XSAVE", "kvm.execution",
		    "kvm.nested", "kvm.kvmclock", "vhost.net", "vhost.vsock", "vhost.scsi", "vfio",
		    "vfio.iommu", "net.tun", "io_uring", "userfaultfd", "sandbox.landlock",
		    "sandbox.seccomp", "memory", "cpus", "kernel"):
		assert key in rows, key
	assert any(key.startswith("hugepages") for key in rows)
	for key, fact in report["facts"].items():
		assert fact["state"] in STATES and fact["value"], key
		lacks = fact["state"] in ("missing", "fatal")
		assert ("consequence" in fact) == lacks and ("remedy" in fact) == lacks, (key, fact)
	assert report["usable"] == ("fatal" not in rows.values())


@pytest.mark.host
def test_check_host_without_kvm(tmp_path):
	"""No /dev/kvm at all, whatever this machine has: in a mount name space with an empty /dev."""
	user = [] if os.geteuid() == 0 else ["-r"]
	done = subprocess.run(["unshare", *user, "-m", "sh", "-c", f"mount -t tmpfs none /dev; exec {v.NEMU} "
			       "-check-host --json"], capture_output=True, text=True, timeout=60)
	facts = json.loads(done.stdout)["facts"]
	assert done.returncode == 1
	assert facts["kvm.device"]["state"] == "fatal"
	assert "kvm_intel or kvm_amd" in facts["kvm.device"]["remedy"]
	assert facts["kvm.cap.IRQFD"]["state"] == facts["kvm.execution"]["state"] == "unknown"
	assert facts["net.tun"]["state"] == "missing" and "modprobe tun" in facts["net.tun"]["remedy"]


@pytest.mark.host
@pytest.mark.parametrize("args,words", [
	(["-json"], "-check-host"),
	(["-machine", "none", "-trace", "no_such_event"], "no_such_event"),
	(["-machine", "none", "-trace", "enable=*,colour=red"], "colour"),
	(["-machine", "none", "-trace", "*,file=/no/such/folder/x"], "/no/such/folder/x"),
	(["-machine", "none", "-trace", "events=/no/such/file"], "/no/such/file"),
])
def test_refused_by_name(args, words):
	done = nemu(*args)
	assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.host
def test_probes_are_the_events():
	"""Each event is one USDT probe with a semaphore, and the table is in order."""
	names = events()
	assert names == sorted(names) and len(names) > 25
	notes = subprocess.run(["readelf", "-n", v.NEMU], capture_output=True, text=True, check=True).stdout
	probes = re.findall(r"Provider: nemu\s+Name: (\w+)\s+Location: \S+ Base: \S+ Semaphore: (0x[0-9a-f]+)",
			    notes)
	assert sorted(name for name, _ in probes) == names
	gates = {int(address, 16) for _, address in probes}
	assert len(gates) == len(names) and 0 not in gates


@pytest.mark.host
def test_trace_log_and_qmp(tmp_path):
	log, patterns = tmp_path / "log", tmp_path / "events"
	patterns.write_text("# QMP, without answers\nqmp_*\n-qmp_answer\n\n")
	with v.Vm("-machine", "none", "-trace", f"events={patterns},file={log}", "-trace", "machine_state",
		  serial=False) as vm:
		qmp = vm.qmp
		states = {e["name"]: e for e in qmp.cmd("trace-event-get-state", name="*")}
		assert list(states) == events()
		assert {e["state"] for e in states.values()} == {"enabled", "disabled"}
		assert [n for n, e in states.items() if e["state"] == "enabled"] == ["machine_state",
										      "qmp_command"]
		assert not any(e["vcpu"] for e in states.values())
		assert qmp.cmd("trace-event-set-state", name="qmp_a*", enable=True) == {}
		qmp.cmd("query-status")
		assert qmp.cmd("trace-event-set-state", name="*", enable=False,
			       **{"ignore-unavailable": True}) == {}
		qmp.cmd("query-kvm")
		for request, text in (({"name": "nope"}, 'unknown event "nope"'),
				      ({"name": "virtq_pop", "vcpu": 0}, "vcpu-specific"),
				      ({}, "'name' is missing")):
			reply = qmp.raw(json.dumps({"execute": "trace-event-get-state", "arguments": request}))
			assert text in reply["error"]["desc"]
		assert qmp.cmd("query-stats", target="vm") == []
		qmp.cmd("quit")
		assert vm.wait() == 0 and vm.errors() == ""
		pid = vm.process.pid
	lines = log.read_text().splitlines()
	assert all(re.match(rf"{pid}@\d+\.\d{{6}}:(qmp_command|qmp_answer|machine_state) ", line)
		   for line in lines)
	said = [line.split(":", 1)[1] for line in lines]
	assert "qmp_command name=trace-event-get-state oob=0" in said
	assert "qmp_answer name=query-status error=0" in said
	assert not any("query-kvm" in line for line in said)


# --- in the lab ---

def test_check_host_in_the_lab():
	facts = check_host()["facts"]
	assert all(facts[key]["state"] == "ok" for key in facts if key.startswith("kvm.cap."))
	assert facts["kvm.execution"]["state"] == "ok" and "native" in facts["kvm.execution"]["value"]
	for key in ("kvm.device", "kvm.kvmclock", "net.tun", "io_uring", "sandbox.landlock",
		    "sandbox.seccomp", "userfaultfd", "kvm.optional.BINARY_STATS_FD"):
		assert facts[key]["state"] == "ok", (key, facts[key])
	# the lab's processor has no XSAVE
	assert facts["kvm.optional.XCRS"]["state"] == "missing"
	assert "AVX" in facts["kvm.optional.XCRS"]["consequence"]


def stats(qmp, target, provider):
	return [{s["name"]: s["value"] for s in entry["stats"]} for entry in
		qmp.cmd("query-stats", target=target, providers=[{"provider": provider}])]


def check_schemas(qmp):
	schemas = {(e["provider"], e["target"]): {s["name"]: s for s in e["stats"]}
		   for e in qmp.cmd("query-stats-schemas")}
	assert set(schemas) == {(p, t) for p in ("kvm", "nemu") for t in ("vm", "vcpu")}
	assert schemas["kvm", "vcpu"]["exits"]["type"] == "cumulative"
	halt = schemas["kvm", "vcpu"]["halt_wait_ns"]
	assert (halt["unit"], halt["base"], halt["exponent"]) == ("seconds", 10, -9)
	histogram = schemas["kvm", "vcpu"]["halt_wait_hist"]
	assert histogram["type"] == "log2-histogram"
	assert [e["provider"] for e in qmp.cmd("query-stats-schemas", provider="nemu")] == ["nemu"] * 2
	for target in ("vm", "vcpu"):
		for provider in ("kvm", "nemu"):
			assert set(stats(qmp, target, provider)[0]) == set(schemas[provider, target])
	assert len(stats(qmp, "vcpu", "kvm")[0]["halt_wait_hist"]) > 1


def check_filters(qmp):
	got = qmp.cmd("query-stats", target="vcpu", vcpus=["/machine/unattached/device[1]"],
		      providers=[{"provider": "nemu", "names": ["exits", "no-such"]}])
	assert len(got) == 1 and got[0]["qom-path"] == "/machine/unattached/device[1]"
	assert [s["name"] for s in got[0]["stats"]] == ["exits"]
	for request, text in (({"target": "cryptodev"}, "cryptodev"),
			      ({"target": "vm", "vcpus": []}, "vcpus"),
			      ({"target": "vcpu", "vcpus": [1]}, "strings"),
			      ({"target": "vm", "providers": [{"provider": "x"}]}, "'x'"),
			      ({"target": "vm", "providers": [{"provider": "kvm", "names": [1]}]}, "strings"),
			      ({"target": "vcpu", "vcpus": ["x"] * 1025}, "1024 strings"),
			      ({"target": "vm", "providers": [{"provider": "kvm"}] * 3}, "twice")):
		reply = qmp.raw(json.dumps({"execute": "query-stats", "arguments": request}))
		assert text in reply["error"]["desc"], reply


def test_booting_guest(tmp_path):
	"""A guest that boots, uses disk, network and serial port, all under the sandbox: its events are in
	the log, its exits in the statistics, and the devices that caused them are named."""
	tap = net.TapNet("observe")
	disk, log = tmp_path / "disk", tmp_path / "trace"
	disk.write_bytes(bytes(1 << 20))
	script = ("set -e; dd if=/dev/vda of=/dev/null bs=4096 iflag=direct 2> /dev/null; "
		  "ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up; ping -c 2 10.77.0.1; "
		  "echo WORKED; read x; echo GOT-$x")
	patterns = ("virtq_*", "virtio_*", "blk_*", "net_*", "pci_*", "machine_*", "qmp_*", "ioapic_line",
		    "bus_*", "kvm_irq_route", "kvm_vcpu_exit", "loop_post")
	trace = [arg for p in patterns for arg in ("-trace", p)]
	try:
		with v.direct(script, "-trace", f"file={log}", *trace, "-drive",
			      f"if=virtio,format=raw,file={disk}", "-netdev",
			      "tap,id=n0,ifname=tap0,script=no", "-device", "virtio-net-pci,netdev=n0,id=nic",
			      cpus=2, netns=tap.name) as vm:
			qmp = vm.qmp
			check_schemas(qmp)
			check_filters(qmp)
			before, kvm_before = stats(qmp, "vm", "nemu")[0], stats(qmp, "vcpu", "kvm")
			vm.serial.expect(r"^WORKED")
			after, kvm_after = stats(qmp, "vm", "nemu")[0], stats(qmp, "vcpu", "kvm")
			qmp.cmd("trace-event-set-state", name="kvm_vcpu_exit", enable=False)
			each = stats(qmp, "vcpu", "nemu")
			vm.serial.send("it\n")
			vm.serial.expect(r"GOT-it")
			assert vm.wait() == 0 and vm.errors() == ""
	finally:
		tap.close()
	assert after["exits"] > before["exits"] + 1000
	assert after["exits-pio"] > before["exits-pio"] and after["exits-mmio"] > before["exits-mmio"]
	assert kvm_after[0]["exits"] > kvm_before[0]["exits"]
	assert len(each) == 2 and all(e["exits"] > 0 for e in each)
	# the device that caused them
	assert after["bus/uart/writes"] > 100 and after["bus/nic/virtio-common/writes"] > 5
	accesses = sum(n for name, n in after.items() if name.startswith("bus/"))
	# a vCPU may be between its two counters
	assert after["exits-pio"] + after["exits-mmio"] <= accesses + len(each)
	check_log(log.read_text(), after["exits"])


def check_log(text, exits):
	count, queues, ops = {}, set(), {}
	for line in text.splitlines():
		name, _, args = line.split(":", 1)[1].partition(" ")
		count[name] = count.get(name, 0) + 1
		args = dict(pair.split("=", 1) for pair in args.split(" ") if "=" in pair)
		if name == "virtq_pop":
			queues.add((args["dev"], args["queue"]))
		if name in ("blk_submit", "blk_complete"):
			ops[name] = ops.get(name, 0) + 1
	for name in ("kvm_vcpu_exit", "kvm_irq_route", "virtq_kick", "virtq_pop", "virtq_push", "virtq_notify",
		     "virtio_set_status", "blk_submit", "blk_complete", "net_rx", "net_tx",
		     "pci_msix_trigger", "pci_bar_map", "machine_state", "qmp_command", "ioapic_line",
		     "bus_unassigned_read", "loop_post"):
		assert count.get(name, 0) > 0, (name, count)
	assert ops["blk_submit"] == ops["blk_complete"] >= 256
	assert {("nic", "0"), ("nic", "1")} <= queues
	assert count["virtq_push"] <= count["virtq_pop"]
	# interrupted entries (EINTR) are exits by the statistics and no exit of KVM's
	assert count["kvm_vcpu_exit"] >= 0.5 * exits
	assert "machine_state from=prelaunch to=running" in text
	assert "machine_request request=0x4 guest=1 reason=guest-shutdown" in text
