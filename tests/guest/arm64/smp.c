/*
 * Starts every processor with PSCI's CPU_ON, waits until each has been there, and switches the
 * machine off: "smp: 4 of 4 processors, PSCI 1.1". A second CPU_ON of one that runs is refused.
 */
#include "guest.h"

#include "spec/fw_cfg.h"

#define MAX_CPUS 512
#define ALREADY_ON (-4)

static volatile uint64_t here[MAX_CPUS];
static volatile uint64_t wrong;

/* KVM gives 16 processors of each lowest affinity level. */
static uint64_t mpidr_of(uint64_t cpu)
{
	return (cpu & 15) | cpu >> 4 << 8;
}

void guest_main(uint64_t cpu)
{
	uint64_t n, mpidr, up;
	int64_t version;

	__asm__ volatile("mrs %0, mpidr_el1" : "=r"(mpidr));
	if ((mpidr & 0xffffff) != mpidr_of(cpu)) {
		wrong++;
	}
	here[cpu] = 1;
	if (cpu) {
		return;
	}
	n = fw_cfg_u16(FW_CFG_NB_CPUS);
	for (uint64_t i = 1; i < n && i < MAX_CPUS; i++) {
		if (psci(PSCI_CPU_ON, mpidr_of(i), (uint64_t)secondary, i)) {
			wrong++;
		}
	}
	for (uint64_t rounds = 0; rounds < 200000000; rounds++) {
		up = 0;
		for (uint64_t i = 0; i < n && i < MAX_CPUS; i++) {
			up += here[i];
		}
		if (up == n) {
			break;
		}
	}
	if (n > 1 && psci(PSCI_CPU_ON, mpidr_of(1), (uint64_t)secondary, 1) != ALREADY_ON) {
		wrong++;
	}
	version = psci(PSCI_VERSION, 0, 0, 0);
	put("smp: ");
	put_number(up);
	put(" of ");
	put_number(n);
	put(" processors, PSCI ");
	put_number((uint64_t)version >> 16);
	put(".");
	put_number((uint64_t)version & 0xffff);
	put(wrong ? ", and something was wrong\n" : "\n");
	psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}
