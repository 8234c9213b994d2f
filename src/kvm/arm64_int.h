/*
 * What the arm64_*.c files of kvm/ share.
 */
#ifndef KVM_ARM64_INT_H
#define KVM_ARM64_INT_H

#include "kvm/arm64.h"
#include "kvm/kvm_int.h"

struct arm64_vcpu {
	struct kvm_vcpu_init init;
	struct kvm_reg_list *regs; /* what KVM has of it: the state */
	uint64_t mpidr;
};

struct arm64_gic {
	int fd, its_fd;
	struct kvm_gic_config cfg;
	struct gic_state *initial; /* as KVM made it */
};

/* A register of KVM_REG_SIZE(id) bytes. */
int arm64_reg_get(const struct kvm_vcpu *v, uint64_t id, void *value);
int arm64_reg_set(const struct kvm_vcpu *v, uint64_t id, const void *value);

/* arm64_gic.c: an attribute of the GIC or the ITS. 0 or -errno. */
int arm64_attr_get(int fd, uint32_t group, uint64_t attr, void *value);
int arm64_attr_set(int fd, uint32_t group, uint64_t attr, const void *value);
/* arm64_gic_state.c: remembers the state that a reset goes back to. */
int arm64_gic_remember(struct kvm_vm *vm, struct err *err);

#endif
