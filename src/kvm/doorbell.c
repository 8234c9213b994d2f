/*
 * Doorbells: struct doorbells on KVM_IOEVENTFD (api.rst 4.59). Width 0 means any width, which
 * KVM matches by address alone, so a driver may ring with 2 or 4 bytes.
 * Threads: control loop.
 */
#include <errno.h>

#include "base/util.h"
#include "kvm/kvm_int.h"

/* #ioctls(main): KVM_IOEVENTFD */
static int doorbell_set(struct doorbells *d, uint64_t addr, unsigned size, int fd,
			unsigned flags)
{
	struct kvm_vm *vm = container_of(d, struct kvm_vm, doorbells);
	struct kvm_ioeventfd e = {.addr = addr, .len = size, .fd = fd, .flags = flags};

	if (size && (size > 8 || !is_pow2(size))) {
		return -EINVAL;
	}
	return kvm_ioctl(vm->fd, KVM_IOEVENTFD, &e);
}

static int doorbell_add(struct doorbells *d, uint64_t addr, unsigned size, int fd)
{
	return doorbell_set(d, addr, size, fd, 0);
}

static void doorbell_del(struct doorbells *d, uint64_t addr, unsigned size, int fd)
{
	doorbell_set(d, addr, size, fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static const struct doorbells_ops kvm_doorbells_ops = {
	.add = doorbell_add,
	.del = doorbell_del,
};

void kvm_doorbells_init(struct kvm_vm *vm)
{
	vm->doorbells.ops = &kvm_doorbells_ops;
}

struct doorbells *kvm_vm_doorbells(struct kvm_vm *vm)
{
	return &vm->doorbells;
}
