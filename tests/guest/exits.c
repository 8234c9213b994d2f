/*
 * A known number of each kind of exit, between two marks on the serial port, with the time that
 * each took: what a hypervisor's exit path costs. The same number of kernel-mode instructions
 * beside it tells how fast the processor itself is here.
 */
#include "guest.h"
#include "spec/pci.h"
#include "spec/platform_x86.h"

#define ROUNDS 1000u

void guest_irq(unsigned vector)
{
}

static void report(const char *name, uint64_t start)
{
	put_num(name, (clock_ns() - start) / ROUNDS);
}

int main(void)
{
	uint64_t start;

	clock_init();
	put_num("rounds", ROUNDS);
	start = clock_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		__asm__ volatile("nop");
	}
	report("loop-ns", start);
	start = clock_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		inb(PLAT_RTC_PORT + 1);
	}
	report("pio-ns", start);
	start = clock_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (inb(0x80) != 0xff) {
			guest_fail("a port that is not there answers");
		}
	}
	report("pio-absent-ns", start);
	start = clock_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		pci_read32(0, PCI_VENDOR_ID);
	}
	report("ecam-ns", start);
	start = clock_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (mmio_read32(PLAT_MMIO32_END - 4) != 0xffffffff) {
			guest_fail("an address where nothing is answers");
		}
	}
	report("mmio-absent-ns", start);
	put("PASS\n");
	guest_reset();
}
