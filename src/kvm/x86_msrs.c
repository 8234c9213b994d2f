/*
 * Model-specific registers as state (api.rst 4.3 KVM_GET_MSR_INDEX_LIST, 4.18 KVM_GET_MSRS;
 * x86/msr.rst for KVM's own).
 *
 * Which MSRs there are is KVM's to say, and differs between hosts. With the first vCPU every
 * MSR of KVM's list, and those that are architectural but not in it (MTRRs, machine check
 * banks), is read and written back once; what KVM refuses is logged by index and left out. After
 * that a refusal is an error that names the MSR and the value: a KVM_SET_MSRS that
 * stops in the middle is never taken for success.
 *
 * Not state: the TSC (clock.c), the wall clock MSRs (writing one makes KVM write guest memory
 * at an address that the guest may have put to other use since; guests write it before each
 * use), Hyper-V's (some of them count time), EFER, the APIC base and segment bases (special
 * registers).
 *
 * Threads: control loop, vCPU parked. Untrusted: the stream, whose values KVM itself checks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <asm/kvm_para.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/x86_int.h"
#include "spec/x86.h"

/* KVM takes fewer than 256 at a time. */
#define MSR_CHUNK 128

/* Reads or writes m[0..n): how many KVM took before the first it refused, or -errno.
 * #ioctls(main): KVM_GET_MSRS KVM_SET_MSRS */
static int msr_io(struct kvm_vcpu *v, unsigned long request, struct x86_msr *m, unsigned n)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[MSR_CHUNK];
	} buf;
	unsigned done = 0;

	while (done < n) {
		unsigned chunk = MIN(n - done, MSR_CHUNK);
		int r;

		memset(&buf.head, 0, sizeof(buf.head));
		buf.head.nmsrs = chunk;
		for (unsigned i = 0; i < chunk; i++) {
			buf.entry[i] = (struct kvm_msr_entry){
				.index = m[done + i].index,
				.data = m[done + i].value,
			};
		}
		r = kvm_ioctl(v->fd, request, &buf);
		if (r < 0) {
			return r;
		}
		for (int i = 0; i < r; i++) {
			m[done + i].value = buf.entry[i].data;
		}
		done += r;
		if ((unsigned)r < chunk) {
			break;
		}
	}
	return done;
}

int x86_msr_read(struct kvm_vcpu *v, uint32_t index, uint64_t *value)
{
	struct x86_msr m = {.index = index};
	int r = msr_io(v, KVM_GET_MSRS, &m, 1);

	*value = m.value;
	return r < 0 ? r : r == 1 ? 0 : -EINVAL;
}

int x86_msr_write(struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
	struct x86_msr m = {.index = index, .value = value};
	int r = msr_io(v, KVM_SET_MSRS, &m, 1);

	return r < 0 ? r : r == 1 ? 0 : -EINVAL;
}

static bool msr_is_state(uint32_t index)
{
	switch (index) {
	case MSR_HV_FIRST ... MSR_HV_LAST: /* which no guest of ours is shown */
	case MSR_IA32_TSC:
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		return false;
	default:
		return true;
	}
}

static void msr_add(struct x86_msr *m, unsigned *n, uint32_t index)
{
	for (unsigned i = 0; i < *n; i++) {
		if (m[i].index == index) {
			return;
		}
	}
	if (*n < KVM_MAX_MSRS && msr_is_state(index)) {
		m[(*n)++] = (struct x86_msr){.index = index};
	}
}

/* #ioctls(start): KVM_GET_MSR_INDEX_LIST */
static int msr_list(struct kvm_vm *vm, struct x86_msr *m, unsigned *n, struct err *err)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + KVM_MAX_MSRS * sizeof(uint32_t));
	int r;

	if (!list) {
		return err_set(err, ENOMEM, "no memory for the list of MSRs");
	}
	list->nmsrs = KVM_MAX_MSRS;
	r = kvm_ioctl(vm->sys_fd, KVM_GET_MSR_INDEX_LIST, list);
	if (r < 0) {
		err_set(err, -r, "KVM does not list the MSRs of a vCPU: %s", strerror(-r));
		goto free_list;
	}
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		msr_add(m, n, list->indices[i]);
	}
	msr_add(m, n, MSR_MTRRdefType);
	msr_add(m, n, MSR_MTRRfix64K_00000);
	msr_add(m, n, MSR_MTRRfix16K_80000);
	msr_add(m, n, MSR_MTRRfix16K_A0000);
	for (unsigned i = 0; i < 8; i++) {
		msr_add(m, n, MSR_MTRRfix4K_C0000 + i);
		msr_add(m, n, MSR_MTRRphysBase0 + 2 * i);
		msr_add(m, n, MSR_MTRRphysBase0 + 2 * i + 1);
	}
	for (unsigned i = 0; i < 4 * (vm->mce_cap & 0xFF); i++) {
		msr_add(m, n, MSR_IA32_MC0_CTL + i); /* CTL, STATUS, ADDR, MISC */
	}
free_list:
	free(list);
	return r;
}

/* Keeps those of m[0..n) that KVM takes: their number, or -errno. */
static int msr_sift(struct kvm_vcpu *v, unsigned long request, struct x86_msr *m, unsigned n)
{
	unsigned done = 0;

	while (done < n) {
		int r = msr_io(v, request, m + done, n - done);

		if (r < 0) {
			return r;
		}
		done += r;
		if (done < n) {
			log_debug(v->name, "KVM lists MSR %#x but cannot %s it: not saved",
				  m[done].index, request == KVM_GET_MSRS ? "read" : "write");
			n--;
			memmove(&m[done], &m[done + 1], (n - done) * sizeof(m[0]));
		}
	}
	return n;
}

int x86_msrs_probe(struct kvm_vcpu *v, struct err *err)
{
	struct kvm_msr_set *set = &v->vm->msrs;
	struct x86_msr *m;
	unsigned n = 0;
	int r;

	if (set->probed) {
		return 0;
	}
	m = malloc(KVM_MAX_MSRS * sizeof(*m));
	if (!m) {
		return err_set(err, ENOMEM, "no memory for the list of MSRs");
	}
	r = msr_list(v->vm, m, &n, err);
	if (r < 0) {
		goto free_list;
	}
	r = msr_sift(v, KVM_GET_MSRS, m, n);
	if (r >= 0) {
		r = msr_sift(v, KVM_SET_MSRS, m, r);
	}
	if (r < 0) {
		err_set(err, -r, "KVM does not give %s's MSRs: %s", v->name, strerror(-r));
		goto free_list;
	}
	for (int i = 0; i < r; i++) {
		set->index[i] = m[i].index;
	}
	set->count = r;
	set->probed = true;
	r = 0;
free_list:
	free(m);
	return r;
}

int x86_msrs_get(struct kvm_vcpu *v, struct x86_vcpu_state *st, struct err *err)
{
	const struct kvm_msr_set *set = &v->vm->msrs;
	int r;

	for (unsigned i = 0; i < set->count; i++) {
		st->msrs[i] = (struct x86_msr){.index = set->index[i]};
	}
	st->msr_count = set->count;
	r = msr_io(v, KVM_GET_MSRS, st->msrs, set->count);
	if (r < 0) {
		return err_set(err, -r, "KVM does not give %s's MSRs: %s", v->name,
			       strerror(-r));
	}
	if ((unsigned)r < set->count) {
		return err_set(err, EIO, "KVM refuses to read MSR %#x of %s", st->msrs[r].index,
			       v->name);
	}
	return 0;
}

int x86_msrs_set(struct kvm_vcpu *v, const struct x86_vcpu_state *st, struct err *err)
{
	struct x86_msr *m = malloc(MAX(st->msr_count, 1) * sizeof(*m));
	unsigned n = 0;
	int r;

	if (!m) {
		return err_set(err, ENOMEM, "no memory for %s's MSRs", v->name);
	}
	for (unsigned i = 0; i < st->msr_count; i++) {
		if (msr_is_state(st->msrs[i].index) &&
		    st->msrs[i].index != MSR_IA32_TSC_DEADLINE) {
			m[n++] = st->msrs[i];
		}
	}
	r = msr_io(v, KVM_SET_MSRS, m, n);
	if (r < 0) {
		err_set(err, -r, "KVM does not take %s's MSRs: %s", v->name, strerror(-r));
	} else if ((unsigned)r < n) {
		r = err_set(err, EINVAL, "KVM refuses the value %#jx for MSR %#x of %s",
			    (uintmax_t)m[r].value, m[r].index, v->name);
	} else {
		r = 0;
	}
	free(m);
	return r;
}

int x86_msrs_set_deadline(struct kvm_vcpu *v, const struct x86_vcpu_state *st, struct err *err)
{
	for (unsigned i = 0; i < st->msr_count; i++) {
		if (st->msrs[i].index != MSR_IA32_TSC_DEADLINE) {
			continue;
		}
		if (x86_msr_write(v, MSR_IA32_TSC_DEADLINE, st->msrs[i].value) < 0) {
			return err_set(
				err, EINVAL, "KVM refuses the value %#jx for MSR %#x of %s",
				(uintmax_t)st->msrs[i].value, st->msrs[i].index, v->name);
		}
	}
	return 0;
}
