/*
 * What the command line knows and says on AArch64 alone: see cli_int.h.
 */
#include <stddef.h>

#include "control/cli_int.h"

const char *const cli_machine_names[] = {"virt", "virt-1.0", NULL};
const char cli_machine_help[] = "virt (also virt-1.0) or none; accel=kvm, memory-backend=ID, "
				"hmat=on|off";
const char cli_machine_known[] = "virt (virt-1.0)";
const struct cli_fixed cli_machine_fixed[] = {
	{"gic-version", "3", "the interrupt controller is a GICv3"},
	{"its", "on", "messages need it"},
	{"kernel-irqchip", "on", "the interrupt controller is always KVM's"},
	{"virtualization", "off", "there is no EL2"},
	{"secure", "off", "there is no EL3"},
	{NULL, NULL, NULL},
};

const char cli_cpu_arg[] = "host|max[,FEATURE=on|off]";
const char cli_cpu_help[] =
	"the CPU of the host; -cpu help lists the features that can be hidden";
const char cli_cpu_properties[] = "Properties: FEATURE=off hides a feature that the host has";
const char cli_cpu_features[] = "Features";

const char cli_kernel_help[] = "start this kernel: an Image, plain or packed with gzip";
