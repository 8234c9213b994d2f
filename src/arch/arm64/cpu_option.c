/*
 * Reads -cpu: see cpu_option.h. There are no other models: KVM has the host's processor only.
 */
#include "arch/arm64/cpu_option.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/opts.h"
#include "base/util.h"

static const struct {
	const char *name, *doc;
} models[] = {
	{"host", "the host's processor, as far as KVM passes it on"},
	{"max", "the same as host"},
};

static const struct {
	const char *name;
	size_t off;
} features[] = {
	{"pmu", offsetof(struct arm64_cpu_option, no_pmu)},
	{"sve", offsetof(struct arm64_cpu_option, no_sve)},
	{"pauth", offsetof(struct arm64_cpu_option, no_pauth)},
};

const char *arch_cpu_model(unsigned i, const char **doc)
{
	if (i >= ARRAY_SIZE(models)) {
		return NULL;
	}
	*doc = models[i].doc;
	return models[i].name;
}

const char *arch_cpu_feature(unsigned i)
{
	return i < ARRAY_SIZE(features) ? features[i].name : NULL;
}

int arm64_cpu_parse(struct arm64_cpu_option *o, const char *text, struct err *err)
{
	struct opts opts;
	const char *model, *v;
	bool on, known = false;
	int ret = opts_parse(&opts, "-cpu", text, "model", err);

	*o = (struct arm64_cpu_option){0};
	if (ret) {
		return ret;
	}
	model = opts_get(&opts, "model");
	for (size_t i = 0; model && i < ARRAY_SIZE(models); i++) {
		known = known || !strcmp(model, models[i].name);
	}
	if (!known) {
		ret = err_set(err, EINVAL,
			      "-cpu %s: KVM runs only the host's processor on Arm: say "
			      "-cpu host",
			      text);
	}
	for (size_t i = 0; !ret && i < ARRAY_SIZE(features); i++) {
		v = opts_get(&opts, features[i].name);
		if (v && parse_bool(v, &on)) {
			ret = err_set(err, EINVAL, "-cpu: %s=%s is neither on nor off",
				      features[i].name, v);
		} else if (v) {
			*(bool *)((char *)o + features[i].off) = !on;
		}
	}
	ret = ret ? ret : opts_check_used(&opts, err);
	opts_fini(&opts);
	return ret;
}
