/*
 * -cpu and -smp. The text of -cpu is kept, and read by machine/, which knows the models.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "control/cli_int.h"
#include "machine/machine.h"

#define HELP_WIDTH 80u

static void cpu_help(void)
{
	const char *name, *doc;
	size_t column = 0;

	printf("Available CPUs:\n");
	for (unsigned i = 0; (name = machine_cpu_model(i, &doc)); i++) {
		printf("  %-16s  %s\n", name, doc);
	}
	printf("\n%s\n\n%s:", cli_cpu_properties, cli_cpu_features);
	for (unsigned i = 0; (name = machine_cpu_feature(i)); i++) {
		if (!column || column + 1 + strlen(name) > HELP_WIDTH) {
			column = (size_t)printf("\n  %s", name) - 1;
		} else {
			column += (size_t)printf(" %s", name);
		}
	}
	printf("\n");
}

int cli_set_cpu(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		cpu_help();
		c->done = true;
		return 0;
	}
	return cli_set_string(c, o, arg, err);
}

int cli_set_smp(struct cli *c, const struct cli_option *o, const char *arg, struct err *err)
{
	const struct {
		const char *key;
		uint64_t *out;
	} keys[] = {
		{"cpus", &c->smp_cpus},	  {"maxcpus", &c->smp_max}, {"sockets", &c->smp_sockets},
		{"dies", &c->smp_dies},	  {"cores", &c->smp_cores}, {"threads", &c->smp_threads},
	};
	struct opts opts;
	int ret = opts_parse(&opts, "-smp", arg, "cpus", err);

	if (ret) {
		return ret;
	}
	for (size_t i = 0; !ret && i < ARRAY_SIZE(keys); i++) {
		const char *v = opts_get(&opts, keys[i].key);

		if (v && (parse_u64(v, keys[i].out) || !*keys[i].out || *keys[i].out > CLI_MAX_CPUS)) {
			ret = err_set(err, EINVAL, "-smp: %s=%s is not a number from 1 to %u",
				      keys[i].key, v, CLI_MAX_CPUS);
		}
	}
	if (!ret) {
		ret = opts_check_used(&opts, err);
	}
	opts_fini(&opts);
	c->have_smp = true;
	return ret;
}

int cli_smp_finish(struct cli *c, struct err *err)
{
	struct vm_config *cfg = c->cfg;
	uint64_t s = c->smp_sockets, d = c->smp_dies, k = c->smp_cores, t = c->smp_threads;
	uint64_t n = c->smp_cpus, max = c->smp_max;

	if (max && max < n) {
		return err_set(err, EINVAL, "-smp: maxcpus=%llu is less than cpus=%llu",
			       (unsigned long long)max, (unsigned long long)n);
	}
	d = d ? d : 1;
	t = t ? t : 1;
	if (!max) {
		max = n ? n : (s ? s : 1) * d * (k ? k : 1) * t;
	}
	n = n ? n : max;
	if (!k) { /* QEMU since 6.2 prefers cores over sockets */
		s = s ? s : 1;
		k = max / (s * d * t);
	} else if (!s) {
		s = max / (d * k * t);
	}
	if (!s || !k || s * d * k * t != max || max > CLI_MAX_CPUS) {
		return err_set(err, EINVAL,
			       "-smp: sockets * dies * cores * threads must be the number "
			       "of CPUs that there can be (maxcpus, %llu), at most %u",
			       (unsigned long long)max, CLI_MAX_CPUS);
	}
	cfg->cpus = (unsigned)n;
	cfg->max_cpus = (unsigned)max;
	cfg->sockets = (unsigned)s;
	cfg->dies = (unsigned)d;
	cfg->cores = (unsigned)k;
	cfg->threads = (unsigned)t;
	return 0;
}
