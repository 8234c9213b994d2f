/*
 * nemu: one process is one virtual machine. Parse, open, build, isolate, run.
 *
 * The order is the security model (sandbox/sandbox.h): the broker, if anybody may ever ask it for
 * something, is forked while the process is small, everything the command line names is opened
 * before the process isolates itself, and threads start only afterwards, with nothing left to open.
 */
#include <errno.h>
#include <stdio.h>

#include "base/rights.h"
#include "chardev/chr.h"
#include "control/cli.h"
#include "control/daemon.h"
#include "control/qmp.h"
#include "machine/machine.h"
#include "sandbox/broker.h"
#include "sandbox/sandbox.h"

struct nemu {
	struct vm_config cfg;
	struct daemon daemon;
	struct broker *broker;
	struct sandbox *sandbox;
	struct loop *loop;
	struct rights rights;
	struct qmp_server *qmp;
	struct machine *machine;
	bool quitting;
};

/* What the broker may open again, and what it removes at the end. */
static int policy_path(void *arg, bool writable, const char *path, struct err *err)
{
	return broker_allow_open(arg, path, writable, err);
}

static int policy_connect(void *arg, const char *path, struct err *err)
{
	return broker_allow_connect(arg, path, err);
}

static int policy(struct nemu *n, struct err *err)
{
	const char *path;
	struct chr *c;
	int ret = 0;

	for (unsigned i = 0; !ret && (c = machine_chardev(n->machine, i)); i++) {
		path = chr_socket_path(c);
		ret = path ? broker_created(n->broker, path, BROKER_SOCKET, err) : 0;
		path = chr_peer_path(c);
		ret = path && !ret ? broker_allow_connect(n->broker, path, err) : ret;
	}
	ret = ret ? ret : vm_config_sockets(&n->cfg, policy_connect, n->broker, err);
	return ret ? ret : vm_config_paths(&n->cfg, policy_path, n->broker, err);
}

/* What back ends ask the broker for. */
static int rights_connect(void *arg, const char *path, struct err *err)
{
	return broker_connect(arg, path, err);
}

static int rights_passt(void *arg, const char *const *args, struct err *err)
{
	return broker_passt(arg, args, err);
}

static void thread_init(void *arg, enum machine_thread kind)
{
	(kind == MACHINE_THREAD_VCPU ? sandbox_vcpu_enter : sandbox_io_enter)(arg);
}

static void quit(void *opaque)
{
	struct nemu *n = opaque;

	n->quitting = true;
	loop_stop(n->loop);
}

static int build(struct nemu *n, struct err *err)
{
	struct machine_env env = {.thread_init = thread_init};
	const char *path;
	int ret = 0;

	if (vm_config_needs_broker(&n->cfg)) {
		/* it must not keep a caller waiting for its end */
		daemon_hide_stderr(&n->daemon, true);
		ret = broker_start(&n->broker, -1, err);
		daemon_hide_stderr(&n->daemon, false);
		n->rights = (struct rights){rights_connect, rights_passt, n->broker};
		env.rights = &n->rights;
	}
	if (!ret && loop_new(&n->loop, "nemu", 0)) {
		ret = err_set(err, ENOMEM, "cannot make the control loop");
	}
	ret = ret ? ret : qmp_new(n->loop, &n->cfg, &n->qmp, err);
	for (unsigned i = 0; !ret && (path = qmp_socket_path(n->qmp, i)); i++) {
		ret = broker_created(n->broker, path, BROKER_SOCKET, err);
	}
	ret = ret ? ret : daemon_pidfile(n->cfg.pidfile, err);
	if (!ret && n->cfg.pidfile) {
		ret = broker_created(n->broker, n->cfg.pidfile, BROKER_REGULAR, err);
	}
	ret = ret ? ret : sandbox_new(&n->sandbox, !n->cfg.sandbox_off, err);
	env.arg = n->sandbox;
	ret = ret ? ret : machine_new(n->loop, &n->cfg, &env, &n->machine, err);
	ret = ret || !n->broker ? ret : policy(n, err);
	ret = ret ? ret : daemon_signals(&n->daemon, n->loop, n->machine, err);
	ret = ret ? ret : sandbox_isolate(n->sandbox, n->broker, err);
	return ret;
}

static int run(struct nemu *n, struct err *err)
{
	int ret;

	machine_on_quit(n->machine, quit, n);
	qmp_start(n->qmp, n->machine);
	daemon_ready(&n->daemon);
	while (qmp_waits(n->qmp) && !n->quitting) {
		loop_step(n->loop, -1);
	}
	if (n->quitting) {
		return 0;
	}
	ret = machine_start(n->machine, err);
	if (!ret && !n->quitting) {
		loop_run(n->loop);
	}
	return ret;
}

/* Every inherited descriptor that nobody named. */
static int close_others(struct nemu *n, struct err *err)
{
	int keep[CONFIG_MAX_FDS + 2];
	size_t count = vm_config_fds(&n->cfg, keep);

	if (n->daemon.fd >= 0) {
		keep[count++] = n->daemon.fd;
		keep[count++] = n->daemon.null_fd;
	}
	return sandbox_early(keep, count, err);
}

int main(int argc, char **argv)
{
	struct nemu n = {0};
	enum cli_result what = CLI_RUN;
	struct err err = {0};
	int ret = cli_parse(argc, argv, &n.cfg, &what, &err);

	if (!ret && what == CLI_RUN) {
		ret = daemon_start(&n.daemon, n.cfg.daemonize, &err);
		ret = ret ? ret : close_others(&n, &err);
		ret = ret ? ret : cli_trace_start(&n.cfg, &err);
		ret = ret ? ret : build(&n, &err);
		ret = ret ? ret : run(&n, &err);
		qmp_free(n.qmp);
		machine_free(n.machine);
		daemon_end(&n.daemon);
		broker_stop(n.broker);
		sandbox_free(n.sandbox);
		if (n.loop) {
			loop_free(n.loop);
		}
	}
	if (ret) {
		fprintf(stderr, "nemu: %s\n", err.msg);
	}
	vm_config_fini(&n.cfg);
	return ret || what == CLI_NO ? 1 : 0;
}
