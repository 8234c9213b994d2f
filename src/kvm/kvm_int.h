/*
 * What the files of kvm/ share. See kvm.h for the contracts.
 *
 * Pause protocol, all under vm->lock: `running` counts the vCPUs whose thread is (or is about
 * to be) in its run loop. Resume sets v->running and counts; the vCPU alone clears it, when it
 * parks, and the one that brings the count to zero while `pausing` is set posts `done_work`.
 * The request to leave the guest is kvm_run.immediate_exit itself: set by the control loop
 * while the vCPU runs, cleared by it while the vCPU is parked, so the two never race. After it
 * is set the vCPU gets a signal: before KVM_RUN the flag stops it, inside KVM_RUN the signal.
 * KVM completes the access that caused the last exit before it looks at the flag, so a vCPU
 * that was refused entry with -EINTR has nothing pending and its state may be read.
 */
#ifndef KVM_KVM_INT_H
#define KVM_KVM_INT_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "kvm/kvm.h"

/* Makes a vCPU leave KVM_RUN; its handler does nothing. */
#define KVM_KICK_SIGNAL SIGUSR1
#define KVM_MAX_VCPUS	4096 /* the most any kernel is built for */
#define KVM_MAX_CPUID	256
#define KVM_MAX_MSRS	768

struct kvm_slot {
	struct mem_region *region; /* NULL: free */
	uint64_t *bitmap;	   /* while the dirty log is on */
	size_t words;
};

struct kvm_slots {
	struct mem_listener listener;
	struct kvm_slot slot[MEM_MAX_REGIONS];
	unsigned max;
	bool logging;
	bool manual; /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is on */
	bool added;
};

struct kvm_irqs {
	struct irqchip chip;
	unsigned max;	 /* GSIs 0..max-1 */
	uint64_t *used;	 /* bitmap of allocated GSIs */
	uint16_t *entry; /* by GSI: position in the table plus one, 0: no route */
	struct kvm_irq_routing *table;
	unsigned capacity;
	bool ext_dest;
	bool devid; /* Arm: messages carry the id of their source, because an ITS translates */
};

/* The MSRs that make up a vCPU's state: those KVM lists and lets us read and write. */
struct kvm_msr_set {
	bool probed;
	unsigned count;
	uint32_t index[KVM_MAX_MSRS];
};

struct arm64_gic;
struct kvm_vm {
	struct kvm_vm_config cfg;
	int sys_fd, fd;
	int stats_fd; /* -1: KVM has none */
	size_t run_size, xsave_size;
	unsigned max_vcpus, max_vcpu_ids;
	bool sregs2, xcrs, xsave2, payload, tsc_control, kvmclock_ctrl, tsc_offset;
	uint64_t mce_cap; /* 0: no machine check architecture */
	struct kvm_slots slots;
	struct kvm_irqs irqs;
	struct doorbells doorbells;
	struct kvm_msr_set msrs;
	struct arm64_gic *gic; /* Arm: NULL before kvm_gic_new() */
	unsigned ipa_bits;     /* Arm */

	struct kvm_vcpu **vcpus;
	unsigned vcpu_count;

	pthread_mutex_t lock;
	pthread_cond_t wake; /* a vCPU may run, or must quit */
	unsigned running;
	bool quit;
	bool pausing;
	bool paused; /* control loop only */
	struct loop_work done_work;
	void (*done)(void *opaque);
	void *done_opaque;
};

struct x86_vcpu_state;
struct arm64_vcpu;
struct kvm_vcpu {
	struct kvm_vm *vm;
	unsigned index;
	uint32_t id; /* x86: the APIC id */
	char name[16]; /* "vcpu0": thread and log */
	int fd;
	int stats_fd; /* -1: KVM has none */
	struct kvm_run *run;
	struct bus_reader *bus;
	pthread_t thread;
	bool started;
	_Atomic pid_t tid;
	bool running;	      /* vm->lock */
	_Atomic bool stopped; /* not to be resumed before a reset */
	struct kvm_cpuid2 *cpuid;	/* x86 */
	struct x86_vcpu_state *initial; /* x86: as KVM made it */
	struct arm64_vcpu *arm64;
	_Atomic uint64_t stats[KVM_STAT_COUNT];
};

static inline void kvm_vcpu_count(struct kvm_vcpu *v, enum kvm_stat s)
{
	/* one writer: no read-modify-write needed */
	uint64_t n = atomic_load_explicit(&v->stats[s], memory_order_relaxed);
	atomic_store_explicit(&v->stats[s], n + 1, memory_order_relaxed);
}

/* vm.c: what a host's KVM has to have; `without` completes "without which". */
struct kvm_required_cap {
	unsigned cap;
	const char *name;
	const char *without;
};
/* The i-th, NULL past the end: those of every host, then the architecture's. */
const struct kvm_required_cap *kvm_required_cap(unsigned i);
/* /dev/kvm; a sentence and -errno. */
int kvm_open(int *fd, struct err *err);
/* 0 or a positive answer; -errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
/* The capability's value, 0 if absent. */
int kvm_cap(const struct kvm_vm *vm, unsigned cap);
int kvm_enable(struct kvm_vm *vm, unsigned cap, uint64_t arg);

/* irq.c, doorbell.c, slots.c */
int kvm_irqs_init(struct kvm_vm *vm, struct err *err);
void kvm_irqs_fini(struct kvm_vm *vm);
void kvm_doorbells_init(struct kvm_vm *vm);
int kvm_slots_init(struct kvm_vm *vm, struct err *err);
void kvm_slots_fini(struct kvm_vm *vm);

/* vcpu.c */
void kvm_vcpu_free(struct kvm_vcpu *v);

/* exit.c: what KVM_RUN returned; false: this vCPU stops until it is reset. */
bool kvm_vcpu_exit(struct kvm_vcpu *v);
/* KVM_RUN failed with error (positive). Always stops. */
void kvm_vcpu_run_failed(struct kvm_vcpu *v, int error);

/* stats.c: the descriptor of a VM's or vCPU's statistics, -1 if KVM has none. */
int kvm_stats_open(int fd);
/* Calls fn for each statistic behind it. 0 or -errno. */
int kvm_stats_read(int fd, stat_fn *fn, void *opaque);
/* vcpu.c: what kvm_vcpu_new() of each architecture does; config is for kvm_arch_vcpu_setup(). */
int kvm_vcpu_create(struct kvm_vm *vm, unsigned index, uint32_t id, const void *config,
		    struct kvm_vcpu **out, struct err *err);

/* --- one of each for every architecture: x86_*.c, arm64_*.c --- */
extern const struct kvm_required_cap kvm_arch_caps[];
extern const unsigned kvm_arch_ncaps;
extern const char kvm_arch_how_to_get[]; /* what a host without /dev/kvm needs */
/* For KVM_CREATE_VM. */
unsigned long kvm_arch_vm_type(const struct kvm_vm *vm);
int kvm_arch_vm_setup(struct kvm_vm *vm, struct err *err);
void kvm_arch_vm_teardown(struct kvm_vm *vm);
int kvm_arch_vcpu_setup(struct kvm_vcpu *v, const void *config, struct err *err);
void kvm_arch_vcpu_teardown(struct kvm_vcpu *v);
/* A vCPU's state: a structure that is only the architecture's. check is between decoding and
 * apply, which changes the vCPU. 0 or -errno with a sentence. */
extern const struct state_desc kvm_arch_vcpu_desc;
int kvm_arch_vcpu_capture(struct kvm_vcpu *v, void *state, struct err *err);
int kvm_arch_vcpu_check(const struct kvm_vcpu *v, const void *state, struct err *err);
int kvm_arch_vcpu_apply(struct kvm_vcpu *v, const void *state, struct err *err);
/* For -check-host: what is used where it is there, and further questions. */
struct kvm_optional_cap {
	unsigned cap;
	const char *key, *without;
};
extern const struct kvm_optional_cap kvm_arch_optional_caps[];
extern const unsigned kvm_arch_noptional_caps;
struct kvm_check {
	host_fact_fn *fn;
	void *opaque;
	int sys_fd; /* -1: no KVM */
};
#define KVM_CHECK_NO_KVM "cannot be asked without /dev/kvm"
void kvm_check_tell(const struct kvm_check *c, const char *key, enum host_state state,
		    const char *value, const char *consequence, const char *remedy);
void kvm_arch_check(const struct kvm_check *c);
void kvm_arch_log_registers(struct kvm_vcpu *v);
/* An exit that only this architecture has: true if it was one and the guest goes on. */
bool kvm_arch_exit(struct kvm_vcpu *v);

#endif
