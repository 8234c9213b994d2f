/*
 * The life of a machine: the run states of machine.h and the one way they change.
 *
 * Whatever stops the guest (QMP, the guest's own reset or power-off, a failed vCPU, a signal)
 * sets a bit in m->req and calls machine_go(). If the guest runs, the vCPUs are paused, then the
 * devices drained; then act() does what is asked, most final first, and the guest goes on if
 * nothing says otherwise. Requests that arrive on the way only set their bit.
 *
 * Invariants: (1) outside PHASE_IDLE nobody resumes; (2) state is RUN_RUNNING exactly while vCPUs
 * and devices are resumed or about to be paused; (3) STOP is sent once per stop, RESUME once per
 * start. Control loop only; power requests come from any thread through power_bits.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/block.h"
#include "machine/machine_int.h"
#include "machine/trace.h"

const char *run_state_name(enum run_state s)
{
	static const char *const names[] = {
		[RUN_PRELAUNCH] = "prelaunch",	[RUN_RUNNING] = "running",
		[RUN_PAUSED] = "paused",	[RUN_SHUTDOWN] = "shutdown",
		[RUN_INTERNAL_ERROR] = "internal-error", [RUN_IO_ERROR] = "io-error",
	};

	return names[s];
}

static void state_set(struct machine *m, enum run_state s)
{
	trace_machine_state(run_state_name(m->state), run_state_name(s));
	m->state = s;
}

static void emit(struct machine *m, enum machine_event ev, bool guest, const char *reason)
{
	struct list *p, *tmp;

	list_for_each_safe(p, tmp, &m->listeners) {
		struct machine_listener *l = list_entry(p, struct machine_listener, node);

		l->event(l->opaque, ev, guest, reason);
	}
}

static void wait_for(struct machine *m, machine_done_fn *fn, void *opaque)
{
	if (!fn) {
		return;
	}
	if (m->nwaiters == ARRAY_SIZE(m->waiter)) {
		fn(opaque); /* an answer that is early is better than none */
		return;
	}
	m->waiter[m->nwaiters++] = (struct machine_waiter){fn, opaque};
}

static void wake_waiters(struct machine *m)
{
	struct machine_waiter w[ARRAY_SIZE(m->waiter)];
	unsigned n = m->nwaiters;

	memcpy(w, m->waiter, n * sizeof(w[0]));
	m->nwaiters = 0;
	for (unsigned i = 0; i < n; i++) {
		w[i].fn(w[i].opaque);
	}
}

static void guest_resume(struct machine *m)
{
	state_set(m, RUN_RUNNING);
	if (m->kvm) {
		device_list_resume(&m->devices);
		kvm_vcpus_resume(m->kvm);
	}
}

static void quit_now(struct machine *m)
{
	m->quitting = true;
	if (m->on_quit) {
		m->on_quit(m->on_quit_opaque);
	}
}

/* Everything is still: do what is asked. */
static void act(struct machine *m)
{
	bool was_running = m->state == RUN_RUNNING;
	unsigned req = m->req;
	struct err err;

	m->req = 0;
	m->phase = PHASE_IDLE;
	if (req & REQ_RESET && !(req & REQ_QUIT) && m->cfg->no_reboot) {
		req = (req & ~(unsigned)REQ_RESET) | REQ_SHUTDOWN;
	}
	if (req & (REQ_SHUTDOWN | REQ_QUIT)) {
		emit(m, MACHINE_SHUTDOWN, m->req_guest, m->req_reason);
		state_set(m, RUN_SHUTDOWN);
		if (req & REQ_QUIT || !m->cfg->no_shutdown) {
			wake_waiters(m);
			quit_now(m);
			return;
		}
		if (was_running) {
			emit(m, MACHINE_STOP, false, NULL);
		}
		wake_waiters(m);
		return;
	}
	if (req & REQ_RESET) {
		device_list_reset(&m->devices);
		if (m->kvm && board_reset(m, &err)) {
			log_err("machine", "reset failed: %s", err.msg);
			req |= REQ_PANIC;
		} else if (m->state == RUN_SHUTDOWN || m->state == RUN_INTERNAL_ERROR) {
			state_set(m, RUN_PAUSED); /* a reset is the way out of both */
		}
		emit(m, MACHINE_RESET, m->req_guest, m->req_reason);
	}
	if (req & (REQ_PANIC | REQ_IO_ERROR | REQ_STOP) && was_running) {
		state_set(m, req & REQ_PANIC      ? RUN_INTERNAL_ERROR
			     : req & REQ_IO_ERROR ? RUN_IO_ERROR
						  : RUN_PAUSED);
		if (req & REQ_PANIC) {
			emit(m, MACHINE_PANIC, true, NULL);
		}
		emit(m, MACHINE_STOP, false, NULL);
	} else if (was_running) {
		guest_resume(m);
	}
	wake_waiters(m);
}

static void devices_are_paused(void *opaque)
{
	act(opaque);
}

static void cpus_are_paused(void *opaque)
{
	struct machine *m = opaque;

	m->phase = PHASE_DEVICES;
	device_list_pause(&m->devices, devices_are_paused, m);
}

static void machine_go(struct machine *m)
{
	if (m->phase != PHASE_IDLE || !m->req || m->quitting) {
		return;
	}
	if (m->state != RUN_RUNNING || !m->kvm) {
		act(m); /* still already */
		return;
	}
	m->phase = PHASE_CPUS;
	kvm_vcpus_pause(m->kvm, cpus_are_paused, m);
}

static void ask(struct machine *m, unsigned req, bool guest, const char *reason)
{
	trace_machine_request(req, guest, reason ? reason : "");
	/* The first reason stays, unless something more final comes. */
	if (!(m->req & (REQ_SHUTDOWN | REQ_QUIT)) && req & (REQ_RESET | REQ_SHUTDOWN | REQ_QUIT)) {
		m->req_guest = guest;
		m->req_reason = reason;
	}
	m->req |= req;
	machine_go(m);
}

/* --- power requests of the guest --- */

static void power_request(struct power *p, enum power_request what)
{
	struct machine *m = container_of(p, struct machine, power);

	atomic_fetch_or(&m->power_bits, 1u << what);
	loop_post(m->vm.loop, &m->power_work);
}

static void power_handle(void *arg)
{
	struct machine *m = arg;
	unsigned bits = atomic_exchange(&m->power_bits, 0);

	if (m->state != RUN_RUNNING && m->phase == PHASE_IDLE) {
		return; /* the guest is stopped: a late vCPU's exit that a reset has overtaken */
	}
	if (bits & 1u << POWER_PANIC) {
		ask(m, REQ_PANIC, true, NULL);
	}
	if (bits & 1u << POWER_IO_ERROR) {
		ask(m, REQ_IO_ERROR, true, NULL);
	}
	if (bits & 1u << POWER_OFF) {
		ask(m, REQ_SHUTDOWN, true, "guest-shutdown");
	} else if (bits & 1u << POWER_RESET) {
		ask(m, REQ_RESET, true, "guest-reset");
	}
}

/* --- public --- */

static void nothing(void *opaque)
{
}

int machine_new(struct loop *loop, const struct vm_config *cfg, const struct machine_env *env,
		struct machine **out, struct err *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int ret;

	if (!m) {
		return err_set(err, ENOMEM, "machine: out of memory");
	}
	m->cfg = cfg;
	m->env = *env;
	m->vm.loop = loop;
	m->vm.devices = &m->devices;
	m->vm.power = &m->power;
	m->power.request = power_request;
	m->power_work = (struct loop_work){.fn = power_handle, .arg = m};
	m->state = RUN_PRELAUNCH;
	list_init(&m->listeners);
	device_list_init(&m->devices);
	if (cfg->type == MACHINE_NONE) {
		*out = m;
		return 0;
	}
	ret = backends_open(m, err);
	if (!ret) {
		ret = board_new(m, err);
	}
	if (!ret) {
		ret = devices_create(m, err);
	}
	if (!ret && !board_has_boot_source(m) && !cfg->start_paused) {
		ret = err_set(err, EINVAL, "nothing to boot: give firmware with -drive if=pflash,… or "
			      "-bios FILE, or a kernel with -kernel FILE (-S starts without)");
	}
	if (!ret) {
		ret = board_ready(m, err);
	}
	if (!ret && cfg->mem_lock) {
		ret = mem_lock_all(err);
	}
	if (ret) {
		backends_unlink(m);
		machine_free(m);
		return ret;
	}
	blk_graph_seal(m->be.graph);
	/* Nothing runs before the first resume; a queue that a loaded state has enabled, neither. */
	device_list_pause(&m->devices, nothing, NULL);
	*out = m;
	return 0;
}

void machine_free(struct machine *m)
{
	if (!m) {
		return;
	}
	if (m->kvm) {
		kvm_vcpus_stop(m->kvm);
	}
	for (size_t i = 0; i < m->be.nio; i++) {
		loop_thread_join(m->be.io[i].loop);
	}
	device_list_destroy(&m->devices);
	board_free(m);
	backends_close(m);
	memory_close(&m->memory);
	free(m->serials);
	bootorder_fini(&m->bootorder);
	free(m);
}

void machine_io_thread_init(void *arg)
{
	struct machine *m = arg;

	if (m->env.thread_init) {
		m->env.thread_init(m->env.arg, MACHINE_THREAD_IO);
	}
}

int machine_start(struct machine *m, struct err *err)
{
	int ret;

	for (size_t i = 0; i < m->be.nio; i++) {
		ret = loop_thread_start(m->be.io[i].loop, machine_io_thread_init, m);
		if (ret) {
			return err_set(err, -ret, "-object iothread,id=%s: the thread cannot be "
				       "started: %s", m->be.io[i].id, strerror(-ret));
		}
	}
	if (m->kvm) {
		ret = kvm_vcpus_start(m->kvm, err);
		if (ret) {
			return ret;
		}
	}
	m->started = true;
	if (!m->cfg->start_paused && m->kvm) {
		guest_resume(m);
		emit(m, MACHINE_RESUME, false, NULL);
	}
	return 0;
}

enum run_state machine_state(const struct machine *m)
{
	return m->state;
}

void machine_listen(struct machine *m, struct machine_listener *l)
{
	list_add_tail(&m->listeners, &l->node);
}

void machine_unlisten(struct machine_listener *l)
{
	list_del(&l->node);
}

void machine_stop(struct machine *m, machine_done_fn *done, void *opaque)
{
	wait_for(m, done, opaque);
	if (m->state != RUN_RUNNING && m->phase == PHASE_IDLE) {
		if (m->state == RUN_PRELAUNCH) {
			state_set(m, RUN_PAUSED);
		}
		wake_waiters(m);
		return;
	}
	ask(m, REQ_STOP, false, NULL);
}

int machine_cont(struct machine *m, struct err *err)
{
	switch (m->state) {
	case RUN_RUNNING:
		m->req &= ~(unsigned)REQ_STOP; /* the stop that is on its way is taken back */
		return 0;
	case RUN_SHUTDOWN:
		return err_set(err, EINVAL, "Resetting the Virtual Machine is required");
	case RUN_INTERNAL_ERROR:
		return err_set(err, EINVAL, "Resetting the Virtual Machine is required");
	default:
		break;
	}
	if (m->kvm && !board_has_boot_source(m)) {
		return err_set(err, EINVAL, "nothing to boot: the machine was started without firmware "
			       "and kernel");
	}
	guest_resume(m);
	emit(m, MACHINE_RESUME, false, NULL);
	return 0;
}

void machine_reset(struct machine *m, machine_done_fn *done, void *opaque)
{
	wait_for(m, done, opaque);
	ask(m, REQ_RESET, false, "host-qmp-system-reset");
}

void machine_powerdown(struct machine *m)
{
	if (m->kvm) {
		board_powerdown(m);
	}
	emit(m, MACHINE_POWERDOWN, false, NULL);
}

void machine_quit(struct machine *m, const char *reason)
{
	if (!m->quitting) {
		ask(m, REQ_QUIT, false, reason);
	}
}

void machine_on_quit(struct machine *m, machine_done_fn *fn, void *opaque)
{
	m->on_quit = fn;
	m->on_quit_opaque = opaque;
}

const struct vm_config *machine_config(const struct machine *m)
{
	return m->cfg;
}

unsigned machine_cpus(const struct machine *m)
{
	return m->kvm ? m->cfg->cpus : 0;
}

pid_t machine_cpu_tid(const struct machine *m, unsigned cpu)
{
	struct kvm_vcpu *v = m->kvm ? kvm_vm_vcpu(m->kvm, cpu) : NULL;

	return v ? kvm_vcpu_tid(v) : 0;
}

const char *machine_iothread(const struct machine *m, unsigned i, pid_t *tid)
{
	if (i >= m->be.nio) {
		return NULL;
	}
	*tid = loop_tid(m->be.io[i].loop);
	return m->be.io[i].id;
}

struct chr *machine_chardev(const struct machine *m, unsigned i)
{
	return i < m->be.nchr ? m->be.chr[i] : NULL;
}
