/*
 * -cpu on Arm: host (or max, the same), with features of the host's that the guest is not to have.
 */
#ifndef ARCH_ARM64_CPU_OPTION_H
#define ARCH_ARM64_CPU_OPTION_H

#include <stdbool.h>

#include "arch/cpu.h"
#include "base/err.h"

struct arm64_cpu_option {
	bool no_pmu, no_sve, no_pauth;
};
/* -EINVAL with a sentence. */
int arm64_cpu_parse(struct arm64_cpu_option *o, const char *text, struct err *err);

#endif
