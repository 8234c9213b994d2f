/*
 * The command line, in QEMU's spelling, into a struct vm_config. Order-free: an option only
 * records what it says, references between options are resolved by machine/. Several -machine
 * options merge, the later key wins. An option, key or value that is not supported is refused
 * by name; nothing is ignored.
 */
#ifndef CONTROL_CLI_H
#define CONTROL_CLI_H

#include "base/err.h"
#include "machine/config.h"

enum cli_result {
	CLI_RUN,  /* build the machine */
	CLI_DONE, /* -help, -version and the like: it was printed, exit with 0 */
	CLI_NO,	  /* -check-host: it was printed, and the answer is no: exit with 1 */
};

/* argv is not changed. -EINVAL with one sentence that names the option. out is initialised here
 * and to be freed by vm_config_fini() in every case. */
int cli_parse(int argc, char **argv, struct vm_config *out, enum cli_result *result,
	      struct err *err);

/* A JSON object as flat options: {"a":{"b":true}} is a.b=on. For -device, -blockdev, … and for
 * QMP's device_add later. -EINVAL with a sentence for what has no flat form. */
int cli_json_to_opts(const char *what, const char *json, struct opts *out, struct err *err);

/* Carries out -trace: before isolation, and after inherited descriptors are closed. */
int cli_trace_start(const struct vm_config *cfg, struct err *err);

#endif
