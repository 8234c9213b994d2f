/*
 * vCPUs: their threads, and how they are paused and resumed. kvm_int.h has the protocol.
 *
 * States of a vCPU:  stopped ──reset──▶ parked ◀──pause / resume──▶ running
 *                       ▲─────────triple fault, internal error────────┘
 * A stopped vCPU counts as paused and stays so until kvm_vcpu_reset().
 *
 * Threads: functions are the control loop's, vcpu_thread() is the vCPU's own. The thread waits
 * in a futex while parked and in KVM_RUN while running; it allocates nothing and opens nothing.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/util.h"
#include "kvm/kvm_int.h"

static void vm_pause_done(void *arg)
{
	struct kvm_vm *vm = arg;
	void (*done)(void *) = vm->done;

	pthread_mutex_lock(&vm->lock);
	vm->pausing = false;
	pthread_mutex_unlock(&vm->lock);
	vm->paused = true;
	vm->done = NULL;
	done(vm->done_opaque);
}

/* Waits until the vCPU may run; false: the thread ends. ran: it comes from the guest (a thread that
 * starts late may find that it is to run already). #syscalls(vcpu): futex write -- the
 * loop's eventfd */
static bool vcpu_park(struct kvm_vcpu *v, bool ran)
{
	struct kvm_vm *vm = v->vm;
	bool go;

	pthread_mutex_lock(&vm->lock);
	if (ran) {
		v->running = false;
		if (--vm->running == 0 && vm->pausing) {
			loop_post(vm->cfg.loop, &vm->done_work);
		}
	}
	while (!v->running && !vm->quit) {
		pthread_cond_wait(&vm->wake, &vm->lock);
	}
	go = v->running;
	pthread_mutex_unlock(&vm->lock);
	return go;
}

/* Runs the guest until the vCPU is to park. #ioctls(vcpu): KVM_RUN */
static void vcpu_run(struct kvm_vcpu *v)
{
	for (;;) {
		int r = ioctl(v->fd, KVM_RUN, NULL);

		if (r == 0) {
			if (!kvm_vcpu_exit(v)) {
				return;
			}
			continue;
		}
		if (errno == EINTR) {
			kvm_vcpu_count(v, KVM_STAT_INTR);
			/* entry refused, so nothing is pending: see kvm_int.h */
			if (__atomic_load_n(&v->run->immediate_exit, __ATOMIC_SEQ_CST)) {
				return;
			}
			continue;
		}
		if (errno == EAGAIN) { /* an AP that got INIT or SIPI */
			continue;
		}
		kvm_vcpu_run_failed(v, errno);
		return;
	}
}

/* Until thread_init() narrows it, the thread has the control loop's filter.
 * #syscalls(main): prctl rt_sigprocmask gettid */
static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *v = arg;
	struct kvm_vm *vm = v->vm;
	sigset_t set;

	pthread_setname_np(pthread_self(), v->name);
	/* signals for the process are the control loop's, and only the kick is ours */
	sigfillset(&set);
	sigdelset(&set, KVM_KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	atomic_store(&v->tid, gettid());
	if (vm->cfg.thread_init) {
		vm->cfg.thread_init(vm->cfg.thread_arg);
	}
	for (bool ran = false; vcpu_park(v, ran); ran = true) {
		vcpu_run(v);
	}
	return NULL;
}

static int vcpu_start(struct kvm_vcpu *v)
{
	pthread_attr_t attr;
	int r;

	r = pthread_attr_init(&attr);
	if (r) {
		return -r;
	}
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	r = pthread_create(&v->thread, &attr, vcpu_thread, v);
	pthread_attr_destroy(&attr);
	v->started = r == 0;
	return -r;
}

/* #syscalls(main): munmap close futex */
void kvm_vcpu_free(struct kvm_vcpu *v)
{
	assert(!v->started);
	kvm_arch_vcpu_teardown(v);
	bus_reader_free(v->bus);
	if (v->run) {
		munmap(v->run, v->vm->run_size);
	}
	if (v->stats_fd >= 0) {
		close(v->stats_fd);
	}
	if (v->fd >= 0) {
		close(v->fd);
	}
	free(v);
}

/* #ioctls(start): KVM_CREATE_VCPU */
int kvm_vcpu_create(struct kvm_vm *vm, unsigned index, uint32_t id, const void *config,
		    struct kvm_vcpu **out, struct err *err)
{
	struct kvm_vcpu **list, *v;
	int r;

	assert(index == vm->vcpu_count);
	if (index >= vm->max_vcpus || id >= vm->max_vcpu_ids) {
		return err_set(err, EINVAL,
			       "KVM takes at most %u vCPUs with ids below %u here: "
			       "use a smaller -smp",
			       vm->max_vcpus, vm->max_vcpu_ids);
	}
	list = realloc(vm->vcpus, (index + 1) * sizeof(vm->vcpus[0]));
	if (list) {
		vm->vcpus = list;
	}
	v = calloc(1, sizeof(*v));
	if (!list || !v) {
		free(v);
		return err_set(err, ENOMEM, "no memory for vCPU %u", index);
	}
	v->vm = vm;
	v->index = index;
	v->id = id;
	v->stopped = true;
	v->stats_fd = -1;
	snprintf(v->name, sizeof(v->name), "vcpu%u", index);
	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)id);
	if (v->fd < 0) {
		r = errno;
		err_set(err, r, "KVM cannot create %s: %s", v->name, strerror(r));
		r = -r;
		goto free_vcpu;
	}
	v->stats_fd = kvm_stats_open(v->fd);
	v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		r = err_set(err, errno, "%s cannot be mapped: %s", v->name, strerror(errno));
		goto free_vcpu;
	}
	r = bus_reader_new(vm->cfg.bus, &v->bus);
	if (r < 0) {
		err_set(err, -r, "%s cannot see the bus: %s", v->name, strerror(-r));
		goto free_vcpu;
	}
	r = kvm_arch_vcpu_setup(v, config, err);
	if (r < 0) {
		goto free_vcpu;
	}
	vm->vcpus[vm->vcpu_count++] = v;
	*out = v;
	return 0;

free_vcpu:
	kvm_vcpu_free(v);
	return r;
}

int kvm_vcpus_start(struct kvm_vm *vm, struct err *err)
{
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		struct kvm_vcpu *v = vm->vcpus[i];
		int r = v->started ? 0 : vcpu_start(v);

		if (r < 0) {
			return err_set(err, -r, "%s gets no thread: %s", v->name, strerror(-r));
		}
	}
	return 0;
}

void kvm_vcpus_stop(struct kvm_vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->quit = true;
	pthread_cond_broadcast(&vm->wake);
	pthread_mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		struct kvm_vcpu *v = vm->vcpus[i];

		if (v->started) {
			pthread_join(v->thread, NULL);
			v->started = false;
		}
	}
}

/* #syscalls(main): tgkill futex */
void kvm_vcpus_pause(struct kvm_vm *vm, void (*done)(void *), void *opaque)
{
	assert(!vm->done);
	vm->done = done;
	vm->done_opaque = opaque;
	vm->done_work.fn = vm_pause_done;
	vm->done_work.arg = vm;
	pthread_mutex_lock(&vm->lock);
	vm->pausing = true;
	if (!vm->running) {
		loop_post(vm->cfg.loop, &vm->done_work);
	}
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		struct kvm_vcpu *v = vm->vcpus[i];

		if (v->running) {
			/* the flag first: what the signal does not interrupt then sees it */
			__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
			pthread_kill(v->thread, KVM_KICK_SIGNAL);
		}
	}
	pthread_mutex_unlock(&vm->lock);
}

/* #ioctls(main): KVM_KVMCLOCK_CTRL */
void kvm_vcpus_resume(struct kvm_vm *vm)
{
	assert(!vm->done);
	for (unsigned i = 0; i < vm->vcpu_count && vm->paused && vm->kvmclock_ctrl; i++) {
		/* EINVAL: this guest has no kvmclock */
		kvm_ioctl(vm->vcpus[i]->fd, KVM_KVMCLOCK_CTRL, NULL);
	}
	pthread_mutex_lock(&vm->lock);
	vm->paused = false;
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		struct kvm_vcpu *v = vm->vcpus[i];

		if (!v->running && !atomic_load(&v->stopped)) {
			__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
			v->running = true;
			vm->running++;
		}
	}
	pthread_cond_broadcast(&vm->wake);
	pthread_mutex_unlock(&vm->lock);
}

bool kvm_vcpus_paused(const struct kvm_vm *vm)
{
	return vm->paused;
}

unsigned kvm_vm_vcpu_count(const struct kvm_vm *vm)
{
	return vm->vcpu_count;
}

struct kvm_vcpu *kvm_vm_vcpu(struct kvm_vm *vm, unsigned index)
{
	return index < vm->vcpu_count ? vm->vcpus[index] : NULL;
}

unsigned kvm_vcpu_index(const struct kvm_vcpu *v)
{
	return v->index;
}

pid_t kvm_vcpu_tid(const struct kvm_vcpu *v)
{
	return atomic_load(&v->tid);
}

static const char *const stat_names[KVM_STAT_COUNT] = {
	[KVM_STAT_PIO] = "pio",
	[KVM_STAT_MMIO] = "mmio",
	[KVM_STAT_IOAPIC_EOI] = "ioapic-eoi",
	[KVM_STAT_INTR] = "interrupted",
	[KVM_STAT_SHUTDOWN] = "shutdown",
	[KVM_STAT_ERROR] = "error",
	[KVM_STAT_OTHER] = "other",
};

const char *kvm_stat_name(enum kvm_stat s)
{
	return stat_names[s];
}

uint64_t kvm_vcpu_stat(const struct kvm_vcpu *v, enum kvm_stat s)
{
	return atomic_load_explicit(&v->stats[s], memory_order_relaxed);
}
