/*
 * Resets the machine RESETS times, as memory that survives a reset counts them, and writes one
 * line each time. Whatever a reset has to set back is looked at after it: the descriptor table,
 * the APIC, MSRs, the PCI configuration of the host bridge.
 */
#include "guest.h"
#include "spec/pci.h"
#include "spec/x86.h"

#define RESETS 5
#define MAGIC UINT64_C(0x7265736574636e74)

static struct {
	uint64_t magic, count;
} kept __attribute__((section(".keep"), aligned(8)));

void guest_irq(unsigned vector)
{
}

static void check_fresh(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) table;

	__asm__ volatile("sidt %0" : "=m"(table));
	if (table.base != 0) {
		guest_fail("the interrupt descriptor table is not reset");
	}
	if (mmio_read32(APIC_DEFAULT_BASE + 0xf0) != 0xff) {
		guest_fail("the local APIC is not reset");
	}
	if (mmio_read32(APIC_DEFAULT_BASE + 0x320) != 0x10000) {
		guest_fail("the timer's vector is not masked");
	}
	if (rdmsr(MSR_IA32_TSC_DEADLINE) != 0) {
		guest_fail("the timer is armed");
	}
	if (pci_read16(0, PCI_COMMAND) & PCI_COMMAND_MASTER) {
		guest_fail("the host bridge is not reset");
	}
}

int main(void)
{
	if (kept.magic != MAGIC) {
		kept.magic = MAGIC;
		kept.count = 0;
	}
	check_fresh();
	put_num("reset", kept.count);
	put("\n");
	if (kept.count++ == RESETS) {
		put("PASS\n");
		guest_off();
	}
	irq_init();
	timer_init();
	timer_arm(rdtsc() + (UINT64_C(1) << 40));
	pci_write16(0, PCI_COMMAND, PCI_COMMAND_MASTER);
	guest_reset();
}
