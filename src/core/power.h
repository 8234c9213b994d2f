/*
 * What the guest (or a device on its behalf) may ask of the machine. Any thread; each call
 * only posts to the control loop and returns at once.
 */
#ifndef CORE_POWER_H
#define CORE_POWER_H

enum power_request {
	POWER_RESET,     /* guest reset register, 0x64, PSCI SYSTEM_RESET, triple fault */
	POWER_OFF,       /* S5 */
	POWER_PANIC,     /* pvpanic; an internal error of a vCPU: stop, keep for inspection */
	POWER_IO_ERROR,  /* a device whose error policy says stop */
};
struct power {
	void (*request)(struct power *p, enum power_request what);
};

#endif
