/*
 * A vCPU's declared state on Arm: every register that KVM lists for it (api.rst 4.84,
 * KVM_GET_REG_LIST), whether it runs, and pending exceptions.
 *
 * KVM's list is the definition: what a newer kernel adds is saved and loaded without a change
 * here. A guest continues only where KVM takes each of them; a processor that differs shows in an
 * identification register that is refused, and the message names it. The virtual counter is one of
 * them, so a guest does not see the time between save and load.
 *
 * Threads: control loop, vCPUs parked. Untrusted: the stream. Its ids are compared with KVM's own
 * list, so a size never comes from it; values are KVM's to judge.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/util.h"
#include "kvm/arm64_int.h"

#define MAX_REG_SIZE 256 /* a slice of a vector register */
#define MAX_REGS     2048

struct arm64_reg {
	uint64_t id;
	uint32_t len;
	uint8_t value[MAX_REG_SIZE];
};

struct arm64_vcpu_state {
	uint32_t mp_state;
	bool serror_pending, serror_has_esr;
	uint64_t serror_esr;
	uint32_t count;
	struct arm64_reg regs[MAX_REGS];
};

static const struct state_field reg_fields[] = {
	STATE_F_U64(struct arm64_reg, id),
	STATE_F_BUF(struct arm64_reg, value, len),
	STATE_F_END,
};
static const struct state_desc reg_desc = {
	.name = "arm64-register",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct arm64_reg),
	.fields = reg_fields,
};

static const struct state_field vcpu_fields[] = {
	STATE_F_U32(struct arm64_vcpu_state, mp_state),
	STATE_F_BOOL(struct arm64_vcpu_state, serror_pending),
	STATE_F_BOOL(struct arm64_vcpu_state, serror_has_esr),
	STATE_F_U64(struct arm64_vcpu_state, serror_esr),
	STATE_F_VARRAY(struct arm64_vcpu_state, regs, &reg_desc, count),
	STATE_F_END,
};
const struct state_desc kvm_arch_vcpu_desc = {
	.name = "arm64-vcpu",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct arm64_vcpu_state),
	.fields = vcpu_fields,
};

static uint32_t reg_size(uint64_t id)
{
	return 1u << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);
}

/* #ioctls(main): KVM_GET_MP_STATE KVM_GET_VCPU_EVENTS */
int kvm_arch_vcpu_capture(struct kvm_vcpu *v, void *state, struct err *err)
{
	struct arm64_vcpu_state *st = state;
	const struct kvm_reg_list *l = v->arm64->regs;
	struct kvm_vcpu_events ev = {0};
	struct kvm_mp_state mp;
	int r = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);

	if (r == 0 && kvm_cap(v->vm, KVM_CAP_VCPU_EVENTS)) {
		r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev);
	}
	if (r < 0) {
		return err_set(err, -r, "KVM does not give the state of %s: %s", v->name,
			       strerror(-r));
	}
	if (l->n > MAX_REGS) {
		return err_set(err, E2BIG,
			       "KVM has %llu registers for %s, NEMU keeps at most %u",
			       (unsigned long long)l->n, v->name, MAX_REGS);
	}
	st->mp_state = mp.mp_state;
	st->serror_pending = ev.exception.serror_pending;
	st->serror_has_esr = ev.exception.serror_has_esr;
	st->serror_esr = ev.exception.serror_esr;
	st->count = (uint32_t)l->n;
	for (uint32_t i = 0; i < st->count; i++) {
		struct arm64_reg *reg = &st->regs[i];

		reg->id = l->reg[i];
		reg->len = reg_size(reg->id);
		r = reg->len > MAX_REG_SIZE ? -E2BIG : arm64_reg_get(v, reg->id, reg->value);
		if (r < 0) {
			return err_set(err, -r,
				       "KVM does not give register %#" PRIx64 " of %s: %s",
				       reg->id, v->name, strerror(-r));
		}
	}
	return 0;
}

/* What can be set no more once a vCPU is made (the lengths of its vectors) has to be equal. */
static int compare(const struct kvm_vcpu *v, const struct arm64_reg *reg)
{
	uint8_t have[MAX_REG_SIZE];
	int r = arm64_reg_get(v, reg->id, have);

	return r < 0 ? r : memcmp(have, reg->value, reg->len) ? -EINVAL : 0;
}

/* KVM's own list is the measure. */
int kvm_arch_vcpu_check(const struct kvm_vcpu *v, const void *state, struct err *err)
{
	const struct arm64_vcpu_state *st = state;
	const struct kvm_reg_list *l = v->arm64->regs;

	if (st->count != l->n) {
		return err_set(
			err, EINVAL,
			"the saved %s has %u registers, this one %llu: use the same -cpu on a "
			"host with the same processor and kernel",
			v->name, st->count, (unsigned long long)l->n);
	}
	for (uint32_t i = 0; i < st->count; i++) {
		const struct arm64_reg *reg = &st->regs[i];

		if (reg->id != l->reg[i] || reg->len != reg_size(reg->id)) {
			return err_set(
				err, EINVAL,
				"the saved %s has register %#" PRIx64 ", which this one has "
				"not: use the same -cpu on a host with the same processor and "
				"kernel",
				v->name, reg->id);
		}
	}
	return 0;
}

/* #ioctls(main): KVM_SET_MP_STATE KVM_SET_VCPU_EVENTS */
int kvm_arch_vcpu_apply(struct kvm_vcpu *v, const void *state, struct err *err)
{
	const struct arm64_vcpu_state *st = state;
	struct kvm_mp_state mp = {.mp_state = st->mp_state};
	struct kvm_vcpu_events ev = {
		.exception.serror_pending = st->serror_pending,
		.exception.serror_has_esr = st->serror_has_esr,
		.exception.serror_esr = st->serror_esr,
	};
	int r;

	for (uint32_t i = 0; i < st->count; i++) {
		const struct arm64_reg *reg = &st->regs[i];

		r = reg->id == KVM_REG_ARM64_SVE_VLS ? compare(v, reg)
						     : arm64_reg_set(v, reg->id, reg->value);
		if (r < 0) {
			return err_set(err, -r,
				       "KVM does not take register %#" PRIx64
				       " of %s: %s; use a host with the same processor",
				       reg->id, v->name, strerror(-r));
		}
	}
	r = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
	if (r == 0 && (st->serror_pending || st->serror_has_esr)) {
		r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev);
	}
	return r < 0 ? err_set(err, -r, "KVM does not take the state of %s: %s", v->name,
			       strerror(-r))
		     : 0;
}
