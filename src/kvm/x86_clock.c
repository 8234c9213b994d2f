/*
 * Guest time: kvmclock (api.rst 4.29 KVM_GET_CLOCK) and the TSCs (devices/vcpu.rst, "TSC").
 *
 * What is saved is one instant: the value of kvmclock, the TSC of the boot CPU at that moment,
 * and how far each other vCPU's TSC is from it (its offset, which KVM keeps in guest ticks).
 * Loading sets kvmclock, looks at the same pair again, and moves all offsets by one difference,
 * so the two clocks keep their distance to a microsecond and the TSCs theirs to the tick.
 * The instant is bracketed by two readings of kvmclock, the tightest of a few.
 *
 * The frequency must be the host's unless KVM can scale (KVM_CAP_TSC_CONTROL) or the two
 * are within KVM's tolerance; KVM decides.
 *
 * Threads: control loop, all vCPUs parked. Untrusted: the stream.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/x86_int.h"
#include "spec/x86.h"

#define CLOCK_TRIES 5

struct clock_tsc {
	/* of the vCPU's TSC against that of vCPU 0, in guest ticks modulo 2^64 */
	uint64_t delta;
};

struct clock_state {
	uint64_t kvmclock_ns;
	uint64_t tsc; /* of vCPU 0, at that moment */
	uint32_t tsc_khz;
	uint32_t count;
	struct clock_tsc vcpu[KVM_MAX_VCPUS];
};

static const struct state_field tsc_fields[] = {
	STATE_F_U64(struct clock_tsc, delta),
	STATE_F_END,
};
static const struct state_desc tsc_desc = {
	.name = "x86-tsc",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct clock_tsc),
	.fields = tsc_fields,
};
static const struct state_field clock_fields[] = {
	STATE_F_U64(struct clock_state, kvmclock_ns),
	STATE_F_U64(struct clock_state, tsc),
	STATE_F_RANGE(STATE_U32, struct clock_state, tsc_khz, 1, UINT32_MAX),
	STATE_F_VARRAY(struct clock_state, vcpu, &tsc_desc, count),
	STATE_F_END,
};
static const struct state_desc clock_desc = {
	.name = "x86-clock",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct clock_state),
	.fields = clock_fields,
};

/* Only where vm->tsc_offset (since Linux 5.16).
 * #ioctls(main): KVM_GET_DEVICE_ATTR KVM_SET_DEVICE_ATTR */
static int tsc_offset(struct kvm_vcpu *v, unsigned long request, uint64_t *value)
{
	struct kvm_device_attr a = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)value,
	};

	return kvm_ioctl(v->fd, request, &a);
}

/* kvmclock and vCPU 0's TSC at one moment. #ioctls(main): KVM_GET_CLOCK */
static int clock_pair(struct kvm_vm *vm, uint64_t *ns, uint64_t *tsc)
{
	uint64_t best = UINT64_MAX;

	for (unsigned i = 0; i < CLOCK_TRIES; i++) {
		struct kvm_clock_data before = {0}, after = {0};
		uint64_t t;
		int r;

		r = kvm_ioctl(vm->fd, KVM_GET_CLOCK, &before);
		if (r == 0) {
			r = x86_msr_read(vm->vcpus[0], MSR_IA32_TSC, &t);
		}
		if (r == 0) {
			r = kvm_ioctl(vm->fd, KVM_GET_CLOCK, &after);
		}
		if (r < 0) {
			return r;
		}
		if (after.clock - before.clock < best) {
			best = after.clock - before.clock;
			*ns = before.clock + best / 2;
			*tsc = t;
		}
	}
	return best == UINT64_MAX ? -EIO : 0;
}

/* #ioctls(main): KVM_GET_TSC_KHZ */
int kvm_clock_save(struct kvm_vm *vm, struct state_out *o, struct err *err)
{
	struct clock_state *st;
	uint64_t first = 0;
	int r;

	if (!vm->vcpu_count) {
		return err_set(err, EINVAL, "a machine without vCPUs has no clock to save");
	}
	st = calloc(1, sizeof(*st));
	if (!st) {
		return err_set(err, ENOMEM, "no memory for the state of the clock");
	}
	st->count = vm->vcpu_count;
	r = kvm_ioctl(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, NULL);
	if (r <= 0) {
		r = err_set(err, r ? -r : EIO, "KVM does not know the frequency of the TSC");
		goto free_state;
	}
	st->tsc_khz = r;
	r = clock_pair(vm, &st->kvmclock_ns, &st->tsc);
	if (r < 0) {
		err_set(err, -r, "KVM does not give the guest's clock: %s", strerror(-r));
		goto free_state;
	}
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		uint64_t offset = 0;

		r = vm->tsc_offset ? tsc_offset(vm->vcpus[i], KVM_GET_DEVICE_ATTR, &offset) : 0;
		if (r < 0) {
			err_set(err, -r, "KVM does not give the TSC offset of vcpu%u: %s", i,
				strerror(-r));
			goto free_state;
		}
		first = i ? first : offset;
		st->vcpu[i].delta = offset - first;
	}
	r = state_put(o, &clock_desc, "0", st);
	if (r < 0) {
		err_set(err, -r, "the state of the clock cannot be saved: %s", strerror(-r));
	}
free_state:
	free(st);
	return r;
}

static int clock_set_khz(struct kvm_vcpu *v, uint32_t khz, struct err *err)
{
	int now = kvm_ioctl(v->fd, KVM_GET_TSC_KHZ, NULL);
	int r;

	if (now == (int)khz) {
		return 0;
	}
	r = kvm_ioctl(v->fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz);
	if (r < 0) {
		return err_set(err, -r,
			       "%s ran with a TSC of %u kHz, and this host's %d kHz cannot be "
			       "scaled: use a host with the same frequency",
			       v->name, khz, now);
	}
	return 0;
}

/* kvm_pvm takes any TSC and keeps the host's: the guest then sees that time has passed, which
 * it survives, but whoever looks for lost seconds should find this line. */
static int clock_verify(struct kvm_vm *vm, uint64_t target, uint32_t khz)
{
	uint64_t now;
	int64_t off;
	int r = x86_msr_read(vm->vcpus[0], MSR_IA32_TSC, &now);

	off = (int64_t)(now - target) / khz; /* ms */
	if (r == 0 && (off < -1000 || off > 1000)) {
		log_warn("kvm",
			 "this KVM does not let a guest's TSC be set: it is off by %jd ms",
			 (intmax_t)off);
	}
	return r;
}

/* Moves every TSC so that vCPU 0's would have read `tsc` when kvmclock read `ns`. */
static int clock_set_tscs(struct kvm_vm *vm, const struct clock_state *st)
{
	uint64_t ns, tsc, offset = 0, target;
	int r;

	r = clock_pair(vm, &ns, &tsc);
	if (r < 0) {
		return r;
	}
	/* what is between loading kvmclock and here: microseconds, so no overflow to fear from
	 * an honest stream, and from another only a strange clock */
	target = st->tsc +
		 (uint64_t)((unsigned __int128)(ns - st->kvmclock_ns) * st->tsc_khz / 1000000);
	if (vm->tsc_offset) {
		r = tsc_offset(vm->vcpus[0], KVM_GET_DEVICE_ATTR, &offset);
	}
	for (unsigned i = 0; i < vm->vcpu_count && r == 0; i++) {
		uint64_t value = offset + (target - tsc) + st->vcpu[i].delta;

		if (vm->tsc_offset) {
			r = tsc_offset(vm->vcpus[i], KVM_SET_DEVICE_ATTR, &value);
		} else {
			/* KVM takes equal values written in quick succession to mean the
			 * same moment */
			r = x86_msr_write(vm->vcpus[i], MSR_IA32_TSC, target);
		}
	}
	return r ? r : clock_verify(vm, target, st->tsc_khz);
}

/* #ioctls(main): KVM_SET_CLOCK KVM_SET_TSC_KHZ */
int kvm_clock_load(struct kvm_vm *vm, struct state_in *in, struct err *err)
{
	struct clock_state *st = malloc(sizeof(*st));
	struct kvm_clock_data clock = {0};
	int r;

	if (!st) {
		return err_set(err, ENOMEM, "no memory for the state of the clock");
	}
	r = state_get(in, &clock_desc, "0", st, err);
	if (r == -ENOENT) {
		err_set(err, ENOENT, "the saved state has no clock");
	}
	if (r < 0) {
		goto free_state;
	}
	if (!st->count || st->count != vm->vcpu_count) {
		r = err_set(err, EINVAL,
			    "the saved machine has %u vCPUs, this one %u: use the "
			    "same -smp",
			    st->count, vm->vcpu_count);
		goto free_state;
	}
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		r = clock_set_khz(vm->vcpus[i], st->tsc_khz, err);
		if (r < 0) {
			goto free_state;
		}
	}
	clock.clock = st->kvmclock_ns;
	r = kvm_ioctl(vm->fd, KVM_SET_CLOCK, &clock);
	if (r < 0) {
		err_set(err, -r, "KVM does not take the guest's clock: %s", strerror(-r));
		goto free_state;
	}
	r = clock_set_tscs(vm, st);
	if (r < 0) {
		err_set(err, -r, "KVM does not take the guest's TSC: %s", strerror(-r));
	}
free_state:
	free(st);
	return r;
}
