/*
 * What a vCPU left the guest for (api.rst section 5, "The kvm_run structure").
 *
 * Port and memory accesses go to the bus, everything else is rare: a triple fault is a reset, a
 * system event is what it says, and what KVM cannot go on with stops this vCPU and reports a
 * panic, registers logged. The stopped vCPU may be inspected and continues after a reset.
 *
 * Threads: the vCPU's. Untrusted: the guest, in every field but the framing that KVM gives.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/kvm_int.h"
#include "kvm/trace.h"

static void vcpu_stop(struct kvm_vcpu *v, enum power_request what)
{
	atomic_store(&v->stopped, true);
	v->vm->cfg.power->request(v->vm->cfg.power, what);
}

static bool exit_fatal(struct kvm_vcpu *v)
{
	kvm_vcpu_count(v, KVM_STAT_ERROR);
	kvm_arch_log_registers(v);
	vcpu_stop(v, POWER_PANIC);
	return false;
}

static bool exit_internal_error(struct kvm_vcpu *v)
{
	const struct kvm_run *run = v->run;
	char bytes[3 * 15 + 1] = "";

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
	    run->internal.ndata >= 1 &&
	    (run->emulation_failure.flags &
	     KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
		unsigned n = MIN(run->emulation_failure.insn_size, 15);

		for (unsigned i = 0; i < n; i++) {
			snprintf(bytes + 3 * i, 4, " %02x",
				 run->emulation_failure.insn_bytes[i]);
		}
	}
	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		log_guest(v->name, "KVM cannot emulate the guest's instruction%s%s",
			  bytes[0] ? ":" : "", bytes);
		break;
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		log_guest(v->name, "KVM met an exception while it delivered another");
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		log_guest(v->name, "KVM left the guest while it delivered an event");
		break;
	default:
		log_guest(v->name, "KVM stopped with internal error %u",
			  run->internal.suberror);
		break;
	}
	return exit_fatal(v);
}

static bool exit_system_event(struct kvm_vcpu *v)
{
	kvm_vcpu_count(v, KVM_STAT_OTHER);
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vcpu_stop(v, POWER_OFF);
		return false;
	case KVM_SYSTEM_EVENT_RESET:
		vcpu_stop(v, POWER_RESET);
		return false;
	case KVM_SYSTEM_EVENT_CRASH:
		vcpu_stop(v, POWER_PANIC);
		return false;
	default:
		log_guest(v->name, "KVM reports system event %u, which NEMU does not know",
			  v->run->system_event.type);
		return exit_fatal(v);
	}
}

static void exit_io(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	unsigned size = run->io.size;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	/* KVM's promise, not the guest's: at most a page, inside the mapping */
	assert(range_within(run->io.data_offset, (uint64_t)size * run->io.count,
			    v->vm->run_size));
	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			bus_write(v->bus, BUS_PIO, run->io.port, data, size);
		} else {
			bus_read(v->bus, BUS_PIO, run->io.port, data, size);
		}
	}
}

static void exit_mmio(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;

	if (run->mmio.is_write) {
		bus_write(v->bus, BUS_MMIO, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	} else {
		bus_read(v->bus, BUS_MMIO, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	}
}

bool kvm_vcpu_exit(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;

	trace_kvm_vcpu_exit(v->index, run->exit_reason);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		kvm_vcpu_count(v, KVM_STAT_PIO);
		exit_io(v);
		return true;
	case KVM_EXIT_MMIO:
		kvm_vcpu_count(v, KVM_STAT_MMIO);
		exit_mmio(v);
		return true;
	case KVM_EXIT_IOAPIC_EOI:
		kvm_vcpu_count(v, KVM_STAT_IOAPIC_EOI);
		if (v->vm->cfg.ioapic_eoi) {
			v->vm->cfg.ioapic_eoi(v->vm->cfg.ioapic_opaque, run->eoi.vector);
		}
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		kvm_vcpu_count(v, KVM_STAT_INTR);
		return true;
	case KVM_EXIT_SHUTDOWN:
		kvm_vcpu_count(v, KVM_STAT_SHUTDOWN);
		log_guest(v->name, "triple fault: the machine is reset");
		vcpu_stop(v, POWER_RESET);
		return false;
	case KVM_EXIT_SYSTEM_EVENT:
		return exit_system_event(v);
	case KVM_EXIT_INTERNAL_ERROR:
		return exit_internal_error(v);
	case KVM_EXIT_FAIL_ENTRY:
		log_guest(v->name, "the processor refuses to enter the guest, reason %#jx",
			  (uintmax_t)run->fail_entry.hardware_entry_failure_reason);
		return exit_fatal(v);
	case KVM_EXIT_DEBUG:
		log_guest(v->name, "the guest stopped for a debugger that is not there");
		return exit_fatal(v);
	default:
		if (kvm_arch_exit(v)) {
			return true;
		}
		log_guest(v->name, "KVM left the guest for reason %u, which NEMU does not know",
			  run->exit_reason);
		return exit_fatal(v);
	}
}

void kvm_vcpu_run_failed(struct kvm_vcpu *v, int error)
{
	log_guest(v->name, "KVM cannot run the guest: %s", strerror(error));
	exit_fatal(v);
}
