/*
 * Waits for the key at pin 3 of the PL061, as gpio-keys does, and for its interrupt at the GIC:
 * "button: ready", "button: pressed", "button: released", then off.
 */
#include "guest.h"

#include "spec/platform_arm64.h"
#include "spec/primecell.h"

#define PIN	(1u << PLAT_GPIO_POWER_KEY)
#define ISPENDR 0x200
#define ICFGR	0xc00
#define INTID	(PLAT_FIRST_SPI + PLAT_SPI_GPIO)

static int interrupt(void)
{
	return read32(PLAT_GICD_BASE + ISPENDR + INTID / 32 * 4) >> INTID % 32 & 1;
}

static void edge(uint32_t level)
{
	while (!interrupt() || read32(PLAT_GPIO_BASE + PL061_MIS) != PIN ||
	       read32(PLAT_GPIO_BASE + PL061_DATA + (PIN << 2)) != level) {
	}
	write32(PLAT_GPIO_BASE + PL061_IC, PIN);
}

void guest_main(uint64_t cpu)
{
	uint64_t config = PLAT_GICD_BASE + ICFGR + INTID / 16 * 4;

	write32(config, read32(config) & ~(3u << INTID % 16 * 2)); /* by level: KVM's is edge at first */
	write32(PLAT_GPIO_BASE + PL061_IBE, PIN);
	write32(PLAT_GPIO_BASE + PL061_IE, PIN);
	put(interrupt() ? "button: an interrupt too early\n" : "button: ready\n");
	edge(PIN);
	put("button: pressed\n");
	edge(0);
	put(interrupt() ? "button: an interrupt too long\n" : "button: released\n");
	psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}
