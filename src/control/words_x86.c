/*
 * What the command line knows and says on x86-64 alone: see cli_int.h.
 */
#include <stddef.h>

#include "control/cli_int.h"

const char *const cli_machine_names[] = {"virt", "virt-1.0", "q35", "pc-q35-nemu-1.0", NULL};
const char cli_machine_help[] =
	"virt (also virt-1.0, q35, pc-q35-nemu-1.0) or none; accel=kvm, "
	"memory-backend=ID, hmat=on|off";
const char cli_machine_known[] = "virt (virt-1.0, also known as q35 and pc-q35-nemu-1.0)";
const struct cli_fixed cli_machine_fixed[] = {
	{"vmport", "off", "there is no VMware port"},
	{"smm", "off", "there is no system management mode"},
	{"kernel-irqchip", "split", "the interrupt controller is always split"},
	{"hpet", "off", "there is no HPET"},
	{"pit", "off", "there is no PIT"},
	{"pic", "off", "there is no PIC"},
	{"i8042", "off", "there is no i8042"},
	{"sata", "off", "there is no SATA controller"},
	{NULL, NULL, NULL},
};

const char cli_cpu_arg[] = "host|x86-64-v2|x86-64-v3|x86-64-v4"
			   "[,+FEATURE|-FEATURE|FEATURE=on|off][,phys-bits=N]";
const char cli_cpu_help[] = "the CPU of the host or a baseline, with features switched; "
			    "-cpu help lists them";
const char cli_cpu_properties[] = "Properties: migratable=on|off, pmu=on|off, phys-bits=N, "
				  "host-phys-bits=on|off, check, enforce";
const char cli_cpu_features[] = "Recognized CPUID flags";

const char cli_kernel_help[] = "start this kernel: a bzImage, or an ELF file with a PVH entry";
