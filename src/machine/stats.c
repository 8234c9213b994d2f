/*
 * Statistics of a machine: see stats.h.
 *
 * Ours are exits to user space by reason, and accesses by device: each port or memory access of
 * a guest that no part of KVM handles is counted under its bus region (a repeated string
 * instruction once for each item, though it is one exit). Those of the VM are the sums over its
 * vCPUs. Doorbells and interrupts that go through KVM's eventfds are no exits and are not
 * counted here.
 */
#include "machine/stats.h"

#include <stdio.h>

#include "machine/machine_int.h"

static void count(stat_fn *fn, void *opaque, const char *name, uint64_t value)
{
	struct stat_sample s = {
		.name = name,
		.type = STAT_CUMULATIVE,
		.base = 10,
		.value = &value,
		.count = 1,
	};

	fn(opaque, &s);
}

static uint64_t exits(const struct machine *m, unsigned first, unsigned end,
		      enum kvm_stat which)
{
	uint64_t sum = 0;

	for (unsigned i = first; i < end; i++) {
		sum += kvm_vcpu_stat(kvm_vm_vcpu(m->kvm, i), which);
	}
	return sum;
}

static uint64_t accesses(const struct machine *m, unsigned first, unsigned end, unsigned region,
			 bool write)
{
	uint64_t sum = 0;

	for (unsigned i = first; i < end; i++) {
		sum += kvm_vcpu_bus_stat(kvm_vm_vcpu(m->kvm, i), region, write);
	}
	return sum;
}

static void ours(struct machine *m, unsigned first, unsigned end, stat_fn *fn, void *opaque)
{
	const char *region;
	uint64_t all = 0;
	char name[160];

	for (unsigned k = 0; k < KVM_STAT_COUNT; k++) {
		uint64_t n = exits(m, first, end, k);

		all += n;
		snprintf(name, sizeof(name), "exits-%s", kvm_stat_name(k));
		count(fn, opaque, name, n);
	}
	count(fn, opaque, "exits", all);
	for (unsigned i = 0; (region = bus_stat_name(m->vm.bus, i)); i++) {
		for (int write = 0; write < 2; write++) {
			snprintf(name, sizeof(name), "bus/%s/%s", region,
				 write ? "writes" : "reads");
			count(fn, opaque, name, accesses(m, first, end, i, write));
		}
	}
}

int machine_stats_each(struct machine *m, enum machine_stats which, int vcpu, stat_fn *fn,
		       void *opaque, struct err *err)
{
	if (!m->kvm) {
		return 0;
	}
	if (which == MACHINE_STATS_KVM) {
		return kvm_stats_each(m->kvm,
				      vcpu < 0 ? NULL : kvm_vm_vcpu(m->kvm, (unsigned)vcpu), fn,
				      opaque, err);
	}
	if (vcpu < 0) {
		ours(m, 0, kvm_vm_vcpu_count(m->kvm), fn, opaque);
	} else {
		ours(m, (unsigned)vcpu, (unsigned)vcpu + 1, fn, opaque);
	}
	return 0;
}
