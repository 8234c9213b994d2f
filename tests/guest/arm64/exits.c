/*
 * A thousand exits of each kind: reads and writes of a device register that the bus answers, of
 * one that nobody answers, and PSCI calls that stay in KVM. The host counts.
 */
#include "guest.h"

#include "spec/platform_arm64.h"
#include "spec/primecell.h"

#define TIMES 1000

void guest_main(uint64_t cpu)
{
	for (int i = 0; i < TIMES; i++) {
		read32(PLAT_RTC_BASE + PL031_MR);
	}
	for (int i = 0; i < TIMES; i++) {
		write32(PLAT_RTC_BASE + PL031_ICR, 1);
	}
	for (int i = 0; i < TIMES; i++) {
		read32(PLAT_MMIO32_BASE);
	}
	for (int i = 0; i < TIMES; i++) {
		psci(PSCI_VERSION, 0, 0, 0);
	}
	put("exits: done\n");
	psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}
