/*
 * The parser of -cpu: MODEL, then features and properties by QEMU's names.
 *
 *   +NAME, -NAME, NAME=on|off, NAME   a feature
 *   phys-bits=N, host-phys-bits=on    the width of physical addresses
 *   migratable=off                    (host) with what ties the guest to this host: invtsc
 *   pmu=off                           (host) without performance counters
 *   check, enforce                    what is missing on this host is always refused
 *
 * The operator is trusted; what cannot be had is refused by name all the same.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86/cpuid_int.h"
#include "base/opts.h"
#include "base/util.h"

static int feature_change(struct x86_cpu_model *m, const char *name, bool on, struct err *err)
{
	int f = x86_feature_find(name);

	if (f < 0) {
		const char *near = x86_feature_nearest(name);

		if (!strncmp(name, "hv-", 3) || !strncmp(name, "hv_", 3)) {
			return err_set(err, EINVAL,
				       "-cpu: '%s' is not available, there are no Hyper-V "
				       "interfaces: leave it out",
				       name);
		}
		return err_set(err, EINVAL,
			       "-cpu: no CPU feature '%s'%s%s%s -cpu help lists them", name,
			       near ? "; did you mean '" : ":", near ? near : "",
			       near ? "'?" : "");
	}
	if (on && x86_features[f].refused) {
		return err_set(err, EINVAL,
			       "-cpu: feature '%s' is not available, %s: leave it "
			       "out",
			       name, x86_features[f].refused);
	}
	if (m->changes == X86_MAX_FEATURE_CHANGES) {
		return err_set(err, EINVAL, "-cpu: more than %d features",
			       X86_MAX_FEATURE_CHANGES);
	}
	m->change[m->changes].feature = f;
	m->change[m->changes++].on = on;
	return 0;
}

static int set_host_phys_bits(struct x86_cpu_model *m, bool on, struct err *err)
{
	m->host_phys_bits = on;
	return 0;
}

static int set_migratable(struct x86_cpu_model *m, bool on, struct err *err)
{
	if (!on && m->base) {
		return err_set(
			err, EINVAL,
			"-cpu: migratable=off cannot be had with %s, which is for machines "
			"that migrate: leave it out or use -cpu host",
			m->base->name);
	}
	m->not_migratable = !on;
	return 0;
}

static int set_pmu(struct x86_cpu_model *m, bool on, struct err *err)
{
	if (on && m->base) {
		return err_set(err, EINVAL,
			       "-cpu: pmu=on cannot be had with %s, since the counters are the "
			       "host's: leave it out or use -cpu host",
			       m->base->name);
	}
	m->no_pmu = !on;
	return 0;
}

static int set_enforce(struct x86_cpu_model *m, bool on, struct err *err)
{
	return on ? 0
		  : err_set(err, EINVAL,
			    "-cpu: check=off and enforce=off cannot be had: a feature that "
			    "this "
			    "host lacks is always refused; leave them out");
}

static const struct {
	const char *key;
	int (*set)(struct x86_cpu_model *m, bool on, struct err *err);
} properties[] = {
	{"host-phys-bits", set_host_phys_bits},
	{"migratable", set_migratable},
	{"pmu", set_pmu},
	{"check", set_enforce},
	{"enforce", set_enforce},
};

static int model_opt(struct x86_cpu_model *m, const struct opt *o, struct err *err)
{
	int (*set)(struct x86_cpu_model *, bool, struct err *) = NULL;
	uint64_t bits;
	bool on;

	if (o->key[0] == '+' || o->key[0] == '-') {
		return feature_change(m, o->key + 1, o->key[0] == '+', err);
	}
	if (!strcmp(o->key, "phys-bits")) {
		if (parse_u64(o->value, &bits) < 0 || bits < 32 || bits > 52) {
			return err_set(err, EINVAL,
				       "-cpu: phys-bits=%s is not a number from 32 "
				       "to 52",
				       o->value);
		}
		m->phys_bits = bits;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(properties); i++) {
		if (!strcmp(properties[i].key, o->key)) {
			set = properties[i].set;
		}
	}
	if (!set && x86_feature_find(o->key) < 0) {
		return feature_change(m, o->key, true, err); /* which says what is wrong */
	}
	if (parse_bool(o->value, &on) < 0) {
		return err_set(err, EINVAL, "-cpu: %s=%s is neither on nor off", o->key,
			       o->value);
	}
	return set ? set(m, on, err) : feature_change(m, o->key, on, err);
}

static int model_name(struct x86_cpu_model *m, const struct opts *o, struct err *err)
{
	const char *name = o->count && !strcmp(o->opt[0].key, "model") ? o->opt[0].value : "";

	if (!strcmp(name, "host") || !strcmp(name, "max")) {
		return 0;
	}
	m->base = x86_base_model_find(name);
	if (!m->base) {
		return err_set(err, EINVAL,
			       "-cpu: '%s' is no model; there are host (max), x86-64-v2, "
			       "x86-64-v3 and x86-64-v4, and -cpu help lists their features",
			       name);
	}
	m->no_pmu = true;
	return 0;
}

int x86_cpu_model_parse(struct x86_cpu_model *m, const char *text, struct err *err)
{
	struct opts o;
	int r;

	*m = (struct x86_cpu_model){0};
	r = opts_parse(&o, "-cpu", text, "model", err);
	if (r < 0) {
		return r;
	}
	r = model_name(m, &o, err);
	for (size_t i = 1; i < o.count && r == 0; i++) {
		r = model_opt(m, &o.opt[i], err);
	}
	if (r == 0 && m->phys_bits && m->host_phys_bits) {
		r = err_set(err, EINVAL,
			    "-cpu: phys-bits= and host-phys-bits=on contradict each "
			    "other: give one");
	}
	opts_fini(&o);
	return r;
}
