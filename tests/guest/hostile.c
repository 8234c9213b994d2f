/*
 * A guest that touches everything it can reach: every I/O port with every width, every page of
 * the address space outside RAM (once in each block of STRIDE), every register of every function
 * of bus 0 with all-ones, zeros and a pattern, virtio's registers, and a queue whose rings are
 * noise. It cannot fail by itself; it says "PASS" if it is still alive at the end.
 */
#include "guest.h"
#include "spec/pci.h"
#include "spec/platform_x86.h"
#include "spec/x86.h"

#ifndef STRIDE
#define STRIDE 0x100000u
#endif

void guest_irq(unsigned vector)
{
}

static uint64_t seed = 1;

static uint32_t noise(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(seed >> 33);
}

/* Ports that end the run on purpose, and the one that we speak through. */
static bool port_spared(uint32_t port, unsigned width)
{
	for (uint32_t p = port; p < port + width; p++) {
		if (p == PLAT_RESET_PORT || p == PLAT_KBC_PORT || p == PLAT_PM1_CNT_PORT ||
		    p == PLAT_SLEEP_CTL_PORT ||
		    (p >= PLAT_UART_PORT && p < PLAT_UART_PORT + PLAT_UART_LEN)) {
			return true;
		}
	}
	return false;
}

static void ports(void)
{
	for (uint32_t p = 0; p < 0x10000; p += p < 0x1000 ? 1 : 0x11) {
		uint16_t port = (uint16_t)p;

		inb(port);
		inw(port);
		inl(port);
		if (!port_spared(p, 4)) {
			outb(port, (uint8_t)noise());
			outw(port, (uint16_t)noise());
			outl(port, noise());
		}
	}
}

static void config(uint32_t bdf)
{
	if (pci_read32(bdf, PCI_VENDOR_ID) == 0xffffffff) {
		return;
	}
	for (unsigned reg = 0; reg < 0x1000; reg += reg < 0x140 ? 4 : 0x40) {
		uint32_t was = pci_read32(bdf, reg);

		pci_write32(bdf, reg, 0xffffffff);
		pci_read8(bdf, reg + 3);
		pci_write32(bdf, reg, 0);
		pci_write32(bdf, reg, noise());
		pci_read16(bdf, reg + 2);
		pci_write32(bdf, reg, was);
	}
}

static void mmio(uintptr_t from, uintptr_t to, uintptr_t step)
{
	for (uintptr_t a = from; a < to; a += step) {
		mmio_read8(a + 1);
		mmio_read32(a);
		mmio_write32(a, noise());
		mmio_write16(a + 2, (uint16_t)noise());
		mmio_write8(a + 7, (uint8_t)noise());
	}
}

/* Every register of every BAR, DMA on, so that queues run on whatever is in memory. */
static void bars(uint32_t bdf)
{
	if (pci_read32(bdf, PCI_VENDOR_ID) == 0xffffffff ||
	    pci_read8(bdf, PCI_HEADER_TYPE) & 0x7f) {
		return;
	}
	pci_enable(bdf);
	for (unsigned bar = 0; bar < 6; bar++) {
		uintptr_t at = pci_bar(bdf, bar);

		if (at >= PLAT_MMIO32_BASE && at < PLAT_MMIO32_END) {
			for (unsigned round = 0; round < 4; round++) {
				mmio(at, at + 0x4000, round ? 0x10 + 4 * round : 8);
			}
		}
	}
}

int main(void)
{
	irq_init();
	put("ports\n");
	ports();
	put("config\n");
	for (uint32_t devfn = 0; devfn < 256; devfn++) {
		config(devfn);
	}
	put("bars\n");
	for (uint32_t devfn = 0; devfn < 256; devfn++) {
		bars(devfn);
	}
	put("mmio\n");
	mmio(PLAT_ECAM_BASE + 0x100000, PLAT_MMIO32_END, STRIDE);
	mmio(PLAT_IOAPIC_BASE, PLAT_IOAPIC_BASE + PLAT_IOAPIC_SIZE, 0x10);
	mmio(PLAT_REGS_BASE, PLAT_REGS_BASE + PLAT_REGS_SIZE, 0x10);
	mmio(PLAT_TPM_BASE, PLAT_TPM_BASE + 0x5000, 0x100);
	put("PASS\n");
	guest_reset();
}
