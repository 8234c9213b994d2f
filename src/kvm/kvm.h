/*
 * The virtual machine as KVM sees it: the only folder with KVM ioctls (Documentation/virt/kvm/
 * api.rst of the kernel). It implements the interfaces that core/ and mem/ declare: struct
 * irqchip, struct doorbells and a memory listener, and runs the vCPUs.
 *
 * What a CPU is (CPUID, reset registers) comes from arch/ as the structures of linux/kvm.h;
 * machine/ carries it from there to here, and neither folder knows the other.
 *
 * Threads: everything is for the control loop (struct kvm_vm_config.loop) unless it says
 * otherwise. A vCPU thread, "vcpuN", only enters the guest, dispatches the exit to the bus and
 * enters again.
 */
#ifndef KVM_KVM_H
#define KVM_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "core/bus.h"
#include "core/doorbell.h"
#include "core/host_fact.h"
#include "core/irq.h"
#include "core/power.h"
#include "core/stats.h"
#include "event/loop.h"
#include "mem/mem.h"
#include "state/state.h"

struct kvm_vm;
struct kvm_vcpu;

/* Pins of the IOAPIC in user space: GSI 0..23. MSI routes are allocated from here upwards. */
#define KVM_IOAPIC_PINS 24

/* Everything it points to outlives the VM. */
struct kvm_vm_config {
	struct loop *loop; /* the control loop */
	struct mem *mem;   /* the VM adds itself as a listener */
	struct bus *bus;
	struct power *power;
	/* Each vCPU thread calls this before its first entry (the sandbox). May be NULL. */
	loop_work_fn *thread_init;
	void *thread_arg;
	/* KVM_EXIT_IOAPIC_EOI: the guest ended the interrupt with this vector, whose route was
	 * set for one of the IOAPIC's pins. Called on the vCPU's thread. May be NULL. */
	void (*ioapic_eoi)(void *opaque, uint8_t vector);
	void *ioapic_opaque;
	/* MSI addresses carry destination bits 14:8 in their bits 11:5; set it exactly when
	 * the guest's CPUID has KVM_FEATURE_MSI_EXT_DEST_ID (above 255 vCPUs). */
	bool msi_ext_dest_id;
	/* No performance counters, not even those that AMD processors have without saying so. */
	bool no_pmu;
};

/* Opens /dev/kvm, checks what NEMU needs of it, makes a VM without vCPUs. One sentence and
 * -ENOENT (no /dev/kvm), -EACCES, -EBUSY (another hypervisor holds the CPU), -ENOTSUP (a
 * capability is missing; the sentence has the consequence), or what KVM returned. */
int kvm_vm_new(const struct kvm_vm_config *cfg, struct kvm_vm **out, struct err *err);
/* Paused only (kvm_vcpus_pause() has called done(), or nothing was ever resumed): joins the
 * vCPU threads, leaves the memory map. */
void kvm_vm_free(struct kvm_vm *vm);

/* For -check-host: fn for each thing that KVM offers here or lacks. Also without /dev/kvm.
 * Takes up to 5 s, and SIGALRM, where guest code is emulated. */
void kvm_check_host(host_fact_fn *fn, void *opaque);

struct irqchip *kvm_vm_irqchip(struct kvm_vm *vm);
struct doorbells *kvm_vm_doorbells(struct kvm_vm *vm);

/* The most vCPUs KVM takes, and one more than the highest APIC id. */
unsigned kvm_vm_max_vcpus(const struct kvm_vm *vm);
unsigned kvm_vm_max_vcpu_ids(const struct kvm_vm *vm);

/* --- vCPUs --- */

/* kvm_vcpu_new() and kvm_vcpu_reset() take what the architecture needs: x86.h, arm64.h. */

/* Starts the threads of those that have none; they wait for kvm_vcpus_resume(). Apart from
 * kvm_vcpu_new(), because threads are started after the process has isolated itself. 0 or
 * -errno with a sentence; those that run stay. */
int kvm_vcpus_start(struct kvm_vm *vm, struct err *err);
/* Ends and joins the threads (kvm_vm_free() does it, too), for whoever frees what they use. */
void kvm_vcpus_stop(struct kvm_vm *vm);
unsigned kvm_vm_vcpu_count(const struct kvm_vm *vm);
struct kvm_vcpu *kvm_vm_vcpu(struct kvm_vm *vm, unsigned index); /* NULL if there is none */

unsigned kvm_vcpu_index(const struct kvm_vcpu *v);
pid_t kvm_vcpu_tid(const struct kvm_vcpu *v); /* thread id, for query-cpus-fast */

/* Asynchronous: asks every vCPU to leave the guest; when the last one is outside, with the
 * access it was in completed, done(opaque) is called on the control loop, never from here. A
 * vCPU may be waiting in a loop_call() on the control loop meanwhile, which is why nobody
 * waits. One pause at a time; pausing what is paused calls done() all the same. */
void kvm_vcpus_pause(struct kvm_vm *vm, void (*done)(void *opaque), void *opaque);
/* After done() (or before the first pause: vCPUs start out paused). Tells guests with kvmclock
 * that they were paused, so that their watchdogs do not bark. */
void kvm_vcpus_resume(struct kvm_vm *vm);
bool kvm_vcpus_paused(const struct kvm_vm *vm); /* true from done() on */

/* --- statistics: any thread, values are read without a lock --- */
enum kvm_stat {
	KVM_STAT_PIO,
	KVM_STAT_MMIO,
	KVM_STAT_IOAPIC_EOI,
	KVM_STAT_INTR,	   /* left for a signal or a request of ours */
	KVM_STAT_SHUTDOWN, /* triple faults */
	KVM_STAT_ERROR,	   /* internal errors, failed entries, unknown exits */
	KVM_STAT_OTHER,
	KVM_STAT_COUNT,
};
const char *kvm_stat_name(enum kvm_stat s);
uint64_t kvm_vcpu_stat(const struct kvm_vcpu *v, enum kvm_stat s);
/* Accesses that the vCPU made to a bus region: bus_reader_stat() of its reader. */
uint64_t kvm_vcpu_bus_stat(const struct kvm_vcpu *v, unsigned i, bool write);
/* What KVM counts itself, of the VM (v NULL) or a vCPU: fn for each one. Nothing on a kernel
 * that has no binary statistics (before 5.14). Control loop. 0 or -errno with a sentence. */
int kvm_stats_each(struct kvm_vm *vm, struct kvm_vcpu *v, stat_fn *fn, void *opaque,
		   struct err *err);

/* --- state: paused only --- */

/* Everything that KVM keeps of it: section "x86-vcpu" or "arm64-vcpu", instance: the index. */
int kvm_vcpu_save(struct kvm_vcpu *v, struct state_out *o, struct err *err);
/* Into a vCPU made with the same processor (checked), on x86 after kvm_clock_load(). What KVM
 * refuses is named exactly. After an error the vCPU needs a reset. */
int kvm_vcpu_load(struct kvm_vcpu *v, struct state_in *in, struct err *err);

#endif
