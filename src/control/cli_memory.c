/*
 * -m, -overcommit and the keys of -machine that are about memory. What -object, -numa and
 * -mem-path name is looked for by machine/, when all options are there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli_int.h"

int cli_set_m(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	struct opts opts;
	const char *v;
	uint64_t size = 0;
	int ret = opts_parse(&opts, "-m", arg, "size", err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "size");
	if (v && (parse_size(v, 'M', &size) || !size)) {
		ret = err_set(err, EINVAL,
			      "-m: '%s' is not a memory size; write for example 2G", v);
	}
	for (const char *const *k = (const char *const[]){"slots", "maxmem", NULL}; !ret && *k;
	     k++) {
		if (opts_get(&opts, *k)) {
			ret = err_set(err, EINVAL,
				      "-m: %s is for memory hotplug, which this version "
				      "does not have; leave it out",
				      *k);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	if (ret || !v) {
		return ret;
	}
	if (size % (4 * KiB) || size < 16 * MiB || size > CONFIG_MAX_RAM) {
		return err_set(err, EINVAL,
			       "-m: %s is not possible; the size is a multiple of 4 KiB "
			       "from 16 MiB to 64 TiB",
			       arg);
	}
	c->cfg->ram = size;
	c->cfg->ram_set = true;
	return 0;
}

int cli_set_overcommit(struct cli *c, const struct cli_option *o, const char *arg,
		       struct err *err)
{
	struct opts opts;
	bool on = false;
	const char *v;
	int ret = opts_parse(&opts, "-overcommit", arg, NULL, err);

	if (ret) {
		return ret;
	}
	v = opts_get(&opts, "mem-lock");
	if (v && parse_bool(v, &c->cfg->mem_lock)) {
		ret = err_set(err, EINVAL, "-overcommit: mem-lock=%s is neither on nor off", v);
	}
	v = opts_get(&opts, "cpu-pm");
	if (!ret && v && (parse_bool(v, &on) || on)) {
		ret = err_set(err, EINVAL,
			      "-overcommit: cpu-pm=%s cannot be had: an idle CPU of the guest "
			      "always sleeps on the host; leave it out or say cpu-pm=off",
			      v);
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	return ret;
}

int cli_machine_memory(struct cli *c, struct opts *opts, struct err *err)
{
	const char *v = opts_get(opts, "memory-backend");

	if (v) {
		if (!*v) {
			return err_set(err, EINVAL, "-machine: memory-backend= is empty");
		}
		free(c->cfg->memory_backend);
		c->cfg->memory_backend = cli_strdup(v);
	}
	v = opts_get(opts, "hmat");
	if (v && parse_bool(v, &c->cfg->hmat)) {
		return err_set(err, EINVAL, "-machine: hmat=%s is neither on nor off", v);
	}
	return 0;
}
