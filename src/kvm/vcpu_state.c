/*
 * A vCPU's state in and out of a stream: a section for each, by number. What the state is is the
 * architecture's: x86_state.c, arm64_state.c.
 *
 * Threads: control loop, vCPUs parked. Untrusted: the stream.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/kvm_int.h"

struct instance {
	char name[16];
};

static struct instance instance_of(const struct kvm_vcpu *v)
{
	struct instance i;

	snprintf(i.name, sizeof(i.name), "%u", v->index);
	return i;
}

static void *state_new(const struct kvm_vcpu *v, struct err *err)
{
	void *st = calloc(1, kvm_arch_vcpu_desc.size);

	assert(!v->running);
	if (!st) {
		err_set(err, ENOMEM, "no memory for the state of %s", v->name);
	}
	return st;
}

int kvm_vcpu_save(struct kvm_vcpu *v, struct state_out *o, struct err *err)
{
	void *st = state_new(v, err);
	int r = st ? kvm_arch_vcpu_capture(v, st, err) : -ENOMEM;

	if (r == 0) {
		r = state_put(o, &kvm_arch_vcpu_desc, instance_of(v).name, st);
		if (r < 0) {
			err_set(err, -r, "the state of %s cannot be saved: %s", v->name,
				strerror(-r));
		}
	}
	free(st);
	return r;
}

int kvm_vcpu_load(struct kvm_vcpu *v, struct state_in *in, struct err *err)
{
	void *st = state_new(v, err);
	int r = st ? state_get(in, &kvm_arch_vcpu_desc, instance_of(v).name, st, err) : -ENOMEM;

	if (r == -ENOENT) {
		err_set(err, ENOENT, "the saved state has no %s", v->name);
	}
	r = r ? r : kvm_arch_vcpu_check(v, st, err);
	if (r == 0) {
		atomic_store(&v->stopped, true); /* half loaded is not runnable */
		r = kvm_arch_vcpu_apply(v, st, err);
	}
	if (r == 0) {
		atomic_store(&v->stopped, false);
	}
	free(st);
	return r;
}
