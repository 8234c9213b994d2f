/*
 * The machine: builds what a struct vm_config says, runs it, stops it.
 *
 * machine_new() opens everything the configuration names (files, taps, sockets, /dev/kvm),
 * creates every thread and device, and leaves the vCPUs paused; the process is isolated after
 * it, and only then machine_start() lets the guest run. All functions are for the control loop.
 *
 * Run states and who changes them (names as in QMP's RunState):
 *   prelaunch ──start──▶ running ◀─cont── paused ; running ──stop──▶ paused
 *   running ──guest reset──▶ (pause, drain, reset) ──▶ running, or shutdown with -no-reboot
 *   running ──S5, quit, signal──▶ shutdown ; running ──vCPU failure──▶ internal-error
 *   running ──I/O error policy──▶ io-error
 * Every change goes: vCPUs paused → devices drained → act → resume; requests that arrive
 * meanwhile are kept and done next.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "event/loop.h"
#include "machine/config.h"

struct machine;

enum run_state {
	RUN_PRELAUNCH, RUN_RUNNING, RUN_PAUSED, RUN_SHUTDOWN, RUN_INTERNAL_ERROR, RUN_IO_ERROR,
};
const char *run_state_name(enum run_state s); /* "prelaunch", "running", … */

enum machine_event {
	MACHINE_STOP,      /* STOP */
	MACHINE_RESUME,    /* RESUME */
	MACHINE_RESET,     /* RESET {guest, reason} */
	MACHINE_POWERDOWN, /* POWERDOWN: the button was pressed */
	MACHINE_SHUTDOWN,  /* SHUTDOWN {guest, reason} */
	MACHINE_PANIC,     /* a vCPU failed: STOP follows */
};
/* reason: "guest-shutdown", "guest-reset", "host-qmp-quit", "host-qmp-system-reset",
 * "host-signal". */
/* A disk could not do what the guest asked for (BLOCK_IO_ERROR). */
struct machine_block_error {
	char device[64], drive[64], node[64]; /* ids of the device and of its -drive, or "" */
	bool read;
	int error;          /* errno */
	const char *action; /* "report", "ignore", "stop" */
};
struct machine_listener {
	void (*event)(void *opaque, enum machine_event ev, bool guest, const char *reason);
	void (*block_error)(void *opaque, const struct machine_block_error *e); /* may be NULL */
	void *opaque;
	struct list node;
};

/* thread_init(arg, kind) is called first on every thread that the machine creates. */
enum machine_thread { MACHINE_THREAD_VCPU, MACHINE_THREAD_IO };
struct rights;
struct machine_env {
	void (*thread_init)(void *arg, enum machine_thread kind);
	void *arg;
	const struct rights *rights; /* for back ends; NULL: none */
};

/* On error nothing is left behind. */
int machine_new(struct loop *loop, const struct vm_config *cfg, const struct machine_env *env,
		struct machine **out, struct err *err);
/* Paused or shut down; drains, flushes disks, joins threads, removes what was created. */
void machine_free(struct machine *m);

/* Threads load their seccomp filters and signal readiness in here. Then, unless
 * cfg->start_paused, the guest runs. */
int machine_start(struct machine *m, struct err *err);

enum run_state machine_state(const struct machine *m);
void machine_listen(struct machine *m, struct machine_listener *l);
void machine_unlisten(struct machine_listener *l);

/* Called once when the transition is complete, possibly before the call returns. */
typedef void machine_done_fn(void *opaque);
void machine_stop(struct machine *m, machine_done_fn *done, void *opaque);
/* -EINVAL with a sentence when the state has no way to running (shutdown). */
int machine_cont(struct machine *m, struct err *err);
void machine_reset(struct machine *m, machine_done_fn *done, void *opaque); /* system_reset */
void machine_powerdown(struct machine *m);
/* Ends the machine: drained, flushed, then on_quit as given to machine_on_quit(). */
void machine_quit(struct machine *m, const char *reason);
/* fn is called when the process is to end: quit, S5 without -no-shutdown, reset with -no-reboot. */
void machine_on_quit(struct machine *m, machine_done_fn *fn, void *opaque);

/* The whole state of a paused machine, RAM included, to fd / from fd (design: declared state;
 * the transport here is only a file). -EBUSY if not paused. load: before machine_start(), into
 * a machine of the same configuration. */
int machine_save_fd(struct machine *m, int fd, struct err *err);
int machine_load_fd(struct machine *m, int fd, struct err *err);

/* The disk of a -drive id= or the node of that name gets another size, and its device tells the guest;
 * one of the two names is NULL. */
int machine_block_resize(struct machine *m, const char *device, const char *node_name,
			 uint64_t size, struct err *err);

/* Other options for the node that o names (node-name=), as blockdev-reopen has them; what o has is copied.
 * 0: done() follows, err NULL if it went well. */
struct opts;
typedef void machine_result_fn(void *opaque, const struct err *err);
int machine_block_reopen(struct machine *m, struct opts *o, machine_result_fn *done, void *opaque,
			 struct err *err);

/* Other limits for a drive that has throttling.*, and for the others of its group. */
struct blk_limits;
int machine_block_throttle(struct machine *m, const char *drive, const struct blk_limits *l,
			   struct err *err);

/* --- for queries --- */
const struct vm_config *machine_config(const struct machine *m);
unsigned machine_cpus(const struct machine *m);
pid_t machine_cpu_tid(const struct machine *m, unsigned cpu);
/* i-th iothread: its id, or NULL past the end. */
const char *machine_iothread(const struct machine *m, unsigned i, pid_t *tid);
/* The i-th device that -device can name, with a line about it; NULL past the end. */
const char *machine_device_class(unsigned i, const char **doc);
/* The i-th model of -cpu, with a line about it; NULL past the end. */
const char *machine_cpu_model(unsigned i, const char **doc);
/* The i-th feature that -cpu can switch; NULL past the end. */
const char *machine_cpu_feature(unsigned i);
/* The j-th feature of model i that this host lacks; NULL past the end, or if it is not known
 * (machine none). */
const char *machine_cpu_missing(const struct machine *m, unsigned i, unsigned j);
struct chr;
struct chr *machine_chardev(const struct machine *m, unsigned i); /* NULL past the end */
/* Paths that the process created and has to remove at its end (sockets), for the broker. */
#endif
