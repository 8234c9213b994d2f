/*
 * What the files of the command line share: the state of parsing and the setters that the option
 * table (cli.c) names. A setter gets the option's argument ("" if it takes none), records it and
 * returns 0, or -EINVAL with one sentence that names the option.
 */
#ifndef CONTROL_CLI_INT_H
#define CONTROL_CLI_INT_H

#include "control/cli.h"

/* The most that KVM can be built for; the machine says what this host takes. */
#define CLI_MAX_CPUS 4096u

struct cli {
	struct vm_config *cfg;
	bool no_user_config;
	bool have_smp;
	uint64_t smp_cpus, smp_max, smp_sockets, smp_dies, smp_cores, smp_threads;
	bool check_host, json;
	bool done;
};

struct cli_option {
	const char *name;
	const char *arg; /* what to show in the help; NULL: takes none */
	int (*set)(struct cli *c, const struct cli_option *o, const char *arg, struct err *err);
	const char *help;
	size_t offset; /* of a list or a flag in struct vm_config, for the generic setters */
};

/* As strdup(), but ends the program when there is no memory: at start, for a few bytes. */
char *cli_strdup(const char *s);
/* Appends *o, taken over in every case. */
int cli_list_push(struct config_list *l, struct opts *o, const char *what, struct err *err);
/* Appends a copy of arg. */
int cli_push_text(char ***list, size_t *n, const char *arg, const char *name, struct err *err);

/* words_x86.c, words_arm64.c: what is the architecture's. A value of -machine that only confirms
 * what the machine is; any other is refused with `why`. */
struct cli_fixed {
	const char *key, *value, *why;
};
extern const struct cli_fixed cli_machine_fixed[]; /* key NULL: the end */
extern const char *const cli_machine_names[];	    /* of the machine; NULL: the end */
extern const char cli_machine_help[], cli_machine_known[];
extern const char cli_cpu_arg[], cli_cpu_help[], cli_cpu_properties[], cli_cpu_features[];
extern const char cli_kernel_help[];

typedef int cli_setter(struct cli *c, const struct cli_option *o, const char *arg, struct err *err);
/* cli_set.c: generic ones and single options */
cli_setter cli_set_flag, cli_set_string, cli_set_item, cli_set_serial, cli_set_qmp,
	cli_set_name, cli_set_sandbox, cli_set_rtc, cli_set_only, cli_set_no_user_config;
/* cli_boot.c */
cli_setter cli_set_boot, cli_set_uuid, cli_set_smbios;
/* cli_cpu.c */
cli_setter cli_set_cpu, cli_set_smp;
/* trace_opts.c, check_host.c */
cli_setter cli_set_trace, cli_set_check_host, cli_set_json;
/* cli_machine.c */
cli_setter cli_set_machine, cli_set_accel, cli_set_kvm;
/* cli_memory.c */
cli_setter cli_set_m, cli_set_overcommit;
int cli_machine_memory(struct cli *c, struct opts *opts, struct err *err); /* keys of -machine */

/* When all options are there: fills cfg->cpus and the topology. */
int cli_smp_finish(struct cli *c, struct err *err);

/* check_host.c: prints what this host has; false: no guest can run here. */
bool cli_check_host(bool json);

#endif
