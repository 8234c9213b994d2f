/*
 * vCPUs on Arm. A vCPU is what the host's processor is, less what the user switched off; KVM gives
 * it its MPIDR by its number (16 of the lowest affinity level). PSCI is KVM's: a processor that is
 * switched on, off or suspended never leaves to user space, only the end of the whole machine does.
 *
 * Reset is KVM_ARM_VCPU_INIT once more, which sets every register to its reset value.
 *
 * Threads: control loop, vCPU parked; exits on the vCPU's.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/arm64_int.h"

#define MAX_REGS 8192

#define CORE_REG(field)                                                                        \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#define REG_MPIDR ARM64_SYS_REG(3, 0, 0, 0, 5)
/* Affinity levels 0-2 and 3. */
#define MPIDR_AFFINITY UINT64_C(0xff00ffffff)

/* #ioctls(main, vcpu): KVM_GET_ONE_REG */
int arm64_reg_get(const struct kvm_vcpu *v, uint64_t id, void *value)
{
	struct kvm_one_reg r = {.id = id, .addr = (uintptr_t)value};

	return kvm_ioctl(v->fd, KVM_GET_ONE_REG, &r);
}

/* #ioctls(main): KVM_SET_ONE_REG */
int arm64_reg_set(const struct kvm_vcpu *v, uint64_t id, const void *value)
{
	struct kvm_one_reg r = {.id = id, .addr = (uintptr_t)value};

	return kvm_ioctl(v->fd, KVM_SET_ONE_REG, &r);
}

/* #ioctls(main): KVM_ARM_VCPU_INIT KVM_ARM_VCPU_FINALIZE */
static int vcpu_init(struct kvm_vcpu *v, bool off, struct err *err)
{
	struct kvm_vcpu_init init = v->arm64->init;
	int sve = KVM_ARM_VCPU_SVE, r;

	if (off) {
		init.features[0] |= 1u << KVM_ARM_VCPU_POWER_OFF;
	}
	r = kvm_ioctl(v->fd, KVM_ARM_VCPU_INIT, &init);
	if (r < 0) {
		return err_set(err, -r, "KVM does not reset %s: %s", v->name, strerror(-r));
	}
	if (init.features[0] & 1u << KVM_ARM_VCPU_SVE) {
		r = kvm_ioctl(v->fd, KVM_ARM_VCPU_FINALIZE, &sve);
		/* EPERM: it is final from the time before */
		if (r < 0 && r != -EPERM) {
			return err_set(err, -r, "KVM does not give %s vectors: %s", v->name,
				       strerror(-r));
		}
	}
	return 0;
}

static void add_feature(struct kvm_vcpu *v, unsigned feature, unsigned cap, bool no)
{
	if (!no && kvm_cap(v->vm, cap)) {
		v->arm64->init.features[0] |= 1u << feature;
	}
}

/* #ioctls(start): KVM_GET_REG_LIST */
static int list_regs(struct kvm_vcpu *v, struct err *err)
{
	struct kvm_reg_list probe = {.n = 0}, *l;
	int r = kvm_ioctl(v->fd, KVM_GET_REG_LIST, &probe);

	if (r != -E2BIG || probe.n > MAX_REGS) {
		return err_set(err, r < 0 && r != -E2BIG ? -r : EIO,
			       "KVM does not list the registers of %s", v->name);
	}
	l = calloc(1, sizeof(*l) + probe.n * sizeof(l->reg[0]));
	if (!l) {
		return err_set(err, ENOMEM, "no memory for %s", v->name);
	}
	v->arm64->regs = l;
	l->n = probe.n;
	r = kvm_ioctl(v->fd, KVM_GET_REG_LIST, l);
	return r < 0 ? err_set(err, -r, "KVM does not list the registers of %s: %s", v->name,
			       strerror(-r))
		     : 0;
}

/* #ioctls(start): KVM_ARM_PREFERRED_TARGET */
int kvm_arch_vcpu_setup(struct kvm_vcpu *v, const void *config, struct err *err)
{
	const struct kvm_arm64_cpu *cpu = config;
	int r;

	v->arm64 = calloc(1, sizeof(*v->arm64));
	if (!v->arm64) {
		return err_set(err, ENOMEM, "no memory for %s", v->name);
	}
	r = kvm_ioctl(v->vm->fd, KVM_ARM_PREFERRED_TARGET, &v->arm64->init);
	if (r < 0) {
		return err_set(err, -r, "KVM does not know this processor: %s", strerror(-r));
	}
	add_feature(v, KVM_ARM_VCPU_PSCI_0_2, KVM_CAP_ARM_PSCI_0_2, false);
	add_feature(v, KVM_ARM_VCPU_PMU_V3, KVM_CAP_ARM_PMU_V3, cpu->no_pmu);
	add_feature(v, KVM_ARM_VCPU_SVE, KVM_CAP_ARM_SVE, cpu->no_sve);
	/* both or neither */
	if (kvm_cap(v->vm, KVM_CAP_ARM_PTRAUTH_GENERIC)) {
		add_feature(v, KVM_ARM_VCPU_PTRAUTH_ADDRESS, KVM_CAP_ARM_PTRAUTH_ADDRESS,
			    cpu->no_pauth);
	}
	if (v->arm64->init.features[0] & 1u << KVM_ARM_VCPU_PTRAUTH_ADDRESS) {
		v->arm64->init.features[0] |= 1u << KVM_ARM_VCPU_PTRAUTH_GENERIC;
	}
	r = vcpu_init(v, v->index != 0, err);
	if (r < 0) {
		return r;
	}
	r = arm64_reg_get(v, REG_MPIDR, &v->arm64->mpidr);
	if (r < 0) {
		return err_set(err, -r, "KVM does not give %s's MPIDR: %s", v->name,
			       strerror(-r));
	}
	v->arm64->mpidr &= MPIDR_AFFINITY;
	return list_regs(v, err);
}

void kvm_arch_vcpu_teardown(struct kvm_vcpu *v)
{
	if (v->arm64) {
		free(v->arm64->regs);
		free(v->arm64);
	}
}

int kvm_vcpu_new(struct kvm_vm *vm, unsigned index, const struct kvm_arm64_cpu *cpu,
		 struct kvm_vcpu **out, struct err *err)
{
	return kvm_vcpu_create(vm, index, index, cpu, out, err);
}

uint64_t kvm_vcpu_mpidr(const struct kvm_vcpu *v)
{
	return v->arm64->mpidr;
}

bool kvm_vcpu_has_pmu(const struct kvm_vcpu *v)
{
	return v->arm64->init.features[0] & 1u << KVM_ARM_VCPU_PMU_V3;
}

int kvm_vcpu_reset(struct kvm_vcpu *v, const struct kvm_arm64_init *init, struct err *err)
{
	int r;

	assert(!v->running);
	r = vcpu_init(v, !init, err);
	if (r < 0) {
		return r;
	}
	if (init) {
		r = arm64_reg_set(v, CORE_REG(regs.pc), &init->pc);
		r = r < 0 ? r : arm64_reg_set(v, CORE_REG(regs.regs[0]), &init->x0);
		if (r < 0) {
			return err_set(err, -r, "KVM does not take the registers of %s: %s",
				       v->name, strerror(-r));
		}
	}
	atomic_store(&v->stopped, false);
	return 0;
}

void kvm_arch_log_registers(struct kvm_vcpu *v)
{
	uint64_t pc = 0, lr = 0, sp = 0, pstate = 0, x0 = 0;

	arm64_reg_get(v, CORE_REG(regs.pc), &pc);
	arm64_reg_get(v, CORE_REG(regs.regs[30]), &lr);
	arm64_reg_get(v, CORE_REG(sp_el1), &sp);
	arm64_reg_get(v, CORE_REG(regs.pstate), &pstate);
	arm64_reg_get(v, CORE_REG(regs.regs[0]), &x0);
	log_guest(v->name,
		  "pc=%016" PRIx64 " lr=%016" PRIx64 " sp=%016" PRIx64 " pstate=%08" PRIx64
		  " x0=%016" PRIx64,
		  pc, lr, sp, pstate, x0);
}

/* An access that the processor does not describe, and so nobody can carry out: an external abort,
 * as nothing answers. #ioctls(vcpu): KVM_SET_VCPU_EVENTS */
bool kvm_arch_exit(struct kvm_vcpu *v)
{
	struct kvm_vcpu_events ev = {.exception.ext_dabt_pending = 1};

	if (v->run->exit_reason != KVM_EXIT_ARM_NISV) {
		return false;
	}
	log_guest(v->name, "an access at %#" PRIx64 " that a device cannot have is aborted",
		  (uint64_t)v->run->arm_nisv.fault_ipa);
	return kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) >= 0;
}
