/*
 * With -Dtest_hooks=true and NEMU_SANDBOX_PROBE in the environment, each thread attempts every
 * forbidden call as soon as it is narrowed, and logs one line for each:
 *     nemu: sandbox: probe vcpu openat: refused
 *     nemu: sandbox: probe vcpu openat: CARRIED OUT
 * The build answers EPERM instead of killing (action_errno.c), so all of them are reached.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sandbox/sandbox_int.h"

void sandbox_hook_narrowed(unsigned table)
{
	if (!getenv("NEMU_SANDBOX_PROBE")) {
		return;
	}
	for (size_t i = 0; i < sandbox_nprobes; i++) {
		int r;

		if (table == SANDBOX_BROKER && sandbox_probes[i].broker_has) {
			continue;
		}
		r = sandbox_probes[i].attempt();
		/* log_err: shown at every log level. */
		log_err("sandbox", "probe %s %s: %s", sandbox_tables[table].name,
			sandbox_probes[i].name,
			r == -EPERM ? "refused" :
			r == 0      ? "CARRIED OUT" :
				      strerror(-r));
	}
}
