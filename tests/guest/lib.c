/*
 * The runtime of the guests: serial port, interrupts, local APIC, kvmclock, PCI. guest.h has the
 * contracts. Intel SDM volume 3A chapter 11 (local APIC); KVM's documentation of
 * MSR_KVM_SYSTEM_TIME_NEW (virt/kvm/x86/msr.rst).
 */
#include "guest.h"
#include "spec/ioapic.h"
#include "spec/pci.h"
#include "spec/platform_x86.h"
#include "spec/uart16550.h"
#include "spec/x86.h"

/* local APIC registers [11.4.1] */
#define APIC_ID	       0x020
#define APIC_EOI       0x0b0
#define APIC_SVR       0x0f0
#define APIC_ICR_LOW   0x300
#define APIC_ICR_HIGH  0x310
#define APIC_LVT_TIMER 0x320
#define APIC_SVR_ON    0x1ffu /* enabled, spurious vector 255 */
#define APIC_ICR_BUSY  0x1000u
#define APIC_LVT_TSC_DEADLINE 0x40000u
#define MSR_X2APIC(reg) (0x800u + (reg) / 16) /* [11.12.1.2] */

#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

extern const uint32_t isr_table[];
extern const struct { char bytes[10]; } idtr;
extern uint64_t idt[];

static bool x2apic;

/* --- serial port --- */

void put_char(char c)
{
	while (!(inb(PLAT_UART_PORT + UART_LSR) & UART_LSR_THRE)) {
		pause();
	}
	outb(PLAT_UART_PORT + UART_THR, (uint8_t)c);
}

void put(const char *s)
{
	while (*s) {
		put_char(*s++);
	}
}

void put_num(const char *name, uint64_t v)
{
	char text[24];
	unsigned n = sizeof(text) - 1;

	text[n] = '\0';
	do {
		text[--n] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	put(name);
	put_char('=');
	put(text + n);
	put_char(' ');
}

/* --- end --- */

/* what is on its way out of the serial port leaves it first */
static void drain(void)
{
	irq_off();
	while (!(inb(PLAT_UART_PORT + UART_LSR) & UART_LSR_TEMT)) {
		pause();
	}
}

_Noreturn void guest_reset(void)
{
	drain();
	outb(PLAT_RESET_PORT, PLAT_RESET_VALUE);
	halt();
}

_Noreturn void guest_off(void)
{
	drain();
	outb(PLAT_SLEEP_CTL_PORT, 0x20 | PLAT_S5_TYPE << 2); /* SLP_EN */
	halt();
}

_Noreturn void guest_fail(const char *why)
{
	put("FAIL ");
	put(why);
	put("\n");
	guest_reset();
}

/* --- interrupts --- */

void interrupt(uint64_t vector, uint64_t error, uint64_t rip);

void interrupt(uint64_t vector, uint64_t error, uint64_t rip)
{
	if (vector < 32) {
		put_num("exception", vector);
		put_num("error", error);
		put_num("rip", rip);
		guest_fail("exception");
	}
	guest_irq((unsigned)vector);
	lapic_eoi();
}

static void idt_set(unsigned vector, uint32_t address)
{
	/* present, interrupt gate, selector of the 64-bit code */
	idt[vector * 2] = (uint64_t)(address >> 16) << 48 | UINT64_C(0x8e00) << 32 |
			  UINT64_C(0x18) << 16 | (address & 0xffff);
	idt[vector * 2 + 1] = 0;
}

void irq_init(void)
{
	for (unsigned i = 0; i < 32; i++) {
		idt_set(i, isr_table[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		idt_set(IRQ_FIRST + i, isr_table[32 + i]);
	}
	__asm__ volatile("lidt %0" : : "m"(idtr));
	lapic_enable();
}

static void lapic_write(unsigned reg, uint32_t v)
{
	if (x2apic) {
		wrmsr(MSR_X2APIC(reg), v);
	} else {
		mmio_write32(APIC_DEFAULT_BASE + reg, v);
	}
}

void lapic_enable(void)
{
	if (x2apic) {
		wrmsr(MSR_IA32_APIC_BASE, rdmsr(MSR_IA32_APIC_BASE) | APIC_BASE_EN | APIC_BASE_EXTD);
	}
	lapic_write(APIC_SVR, APIC_SVR_ON);
}

void lapic_x2apic(void)
{
	if (!(cpuid(1).ecx & 1u << 21)) {
		guest_fail("no x2APIC in CPUID");
	}
	x2apic = true;
	lapic_enable();
}

void lapic_eoi(void)
{
	lapic_write(APIC_EOI, 0);
}

uint32_t lapic_id(void)
{
	return x2apic ? (uint32_t)rdmsr(MSR_X2APIC(APIC_ID))
		      : mmio_read32(APIC_DEFAULT_BASE + APIC_ID) >> 24;
}

void lapic_icr(uint32_t dest, uint32_t low)
{
	if (x2apic) {
		wrmsr(MSR_X2APIC(APIC_ICR_LOW), (uint64_t)dest << 32 | low);
		return;
	}
	mmio_write32(APIC_DEFAULT_BASE + APIC_ICR_HIGH, dest << 24);
	mmio_write32(APIC_DEFAULT_BASE + APIC_ICR_LOW, low);
	while (mmio_read32(APIC_DEFAULT_BASE + APIC_ICR_LOW) & APIC_ICR_BUSY) {
		pause();
	}
}

void timer_init(void)
{
	if (!(cpuid(1).ecx & 1u << 24)) {
		guest_fail("no TSC-deadline timer in CPUID");
	}
	lapic_write(APIC_LVT_TIMER, APIC_LVT_TSC_DEADLINE | IRQ_TIMER);
}

void timer_arm(uint64_t tsc)
{
	wrmsr(MSR_IA32_TSC_DEADLINE, tsc);
}

/* --- kvmclock --- */

static struct pvclock {
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
} pvclock __attribute__((aligned(64)));

void clock_init(void)
{
	struct cpuid c = cpuid(0x40000000);

	if (c.ebx != 0x4b4d564b || !(cpuid(0x40000001).eax & 1u << 3)) {
		guest_fail("no kvmclock in CPUID");
	}
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (uintptr_t)&pvclock | 1);
}

uint64_t clock_ns(void)
{
	volatile struct pvclock *p = &pvclock;
	uint32_t version;
	uint64_t ns;

	do {
		uint64_t delta;

		version = p->version;
		__asm__ volatile("" : : : "memory");
		delta = rdtsc() - p->tsc_timestamp;
		delta = p->tsc_shift < 0 ? delta >> -p->tsc_shift : delta << p->tsc_shift;
		ns = p->system_time +
		     (uint64_t)((unsigned __int128)delta * p->tsc_to_system_mul >> 32);
		__asm__ volatile("" : : : "memory");
	} while (version & 1 || version != p->version);
	return ns;
}

uint64_t clock_khz(void)
{
	uint64_t khz = (UINT64_C(1000000) << 32) / pvclock.tsc_to_system_mul;

	return pvclock.tsc_shift < 0 ? khz << -pvclock.tsc_shift : khz >> pvclock.tsc_shift;
}

/* --- PCI: bdf is bus << 8 | devfn --- */

static uintptr_t ecam(uint32_t bdf, unsigned reg)
{
	return PLAT_ECAM_BASE + ((uintptr_t)bdf << PCI_ECAM_DEVFN_SHIFT) + reg;
}

uint8_t pci_read8(uint32_t bdf, unsigned reg)
{
	return mmio_read8(ecam(bdf, reg));
}

uint16_t pci_read16(uint32_t bdf, unsigned reg)
{
	return mmio_read16(ecam(bdf, reg));
}

uint32_t pci_read32(uint32_t bdf, unsigned reg)
{
	return mmio_read32(ecam(bdf, reg));
}

void pci_write16(uint32_t bdf, unsigned reg, uint16_t v)
{
	mmio_write16(ecam(bdf, reg), v);
}

void pci_write32(uint32_t bdf, unsigned reg, uint32_t v)
{
	mmio_write32(ecam(bdf, reg), v);
}

uint32_t pci_find(uint16_t vendor, uint16_t device)
{
	for (uint32_t devfn = 0; devfn < 256; devfn += 8) {
		if (pci_read32(devfn, PCI_VENDOR_ID) == ((uint32_t)device << 16 | vendor)) {
			return devfn;
		}
	}
	return PCI_NONE;
}

void pci_enable(uint32_t bdf)
{
	static uint32_t next = PLAT_MMIO32_BASE;

	for (unsigned reg = PCI_BAR0; reg < PCI_BAR0 + 24; reg += 4) {
		uint32_t kind = pci_read32(bdf, reg), size;

		pci_write32(bdf, reg, 0xffffffff);
		size = ~(pci_read32(bdf, reg) & ~0xfu) + 1;
		if (!size || kind & PCI_BAR_IO_SPACE) {
			continue;
		}
		next = (next + size - 1) & ~(size - 1);
		pci_write32(bdf, reg, next);
		next += size;
		if (kind & PCI_BAR_MEM_64) {
			reg += 4;
			pci_write32(bdf, reg, 0);
		}
	}
	pci_write16(bdf, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

uintptr_t pci_bar(uint32_t bdf, unsigned bar)
{
	return pci_read32(bdf, PCI_BAR0 + bar * 4) & ~0xfu;
}

unsigned pci_cap(uint32_t bdf, unsigned id, unsigned from)
{
	unsigned at = pci_read8(bdf, from ? from + PCI_CAP_NEXT : PCI_CAPABILITIES);

	for (unsigned n = 0; at >= PCI_HEADER_SIZE && n < 48; n++) {
		if (pci_read8(bdf, at) == id) {
			return at;
		}
		at = pci_read8(bdf, at + PCI_CAP_NEXT);
	}
	return 0;
}

void pci_msix(uint32_t bdf, unsigned entry, uint32_t apic_id, unsigned vector)
{
	unsigned cap = pci_cap(bdf, PCI_CAP_MSIX, 0);
	uint32_t table;
	uintptr_t at;

	if (!cap) {
		guest_fail("a device without MSI-X");
	}
	table = pci_read32(bdf, cap + PCI_MSIX_TABLE);
	at = pci_bar(bdf, table & 7) + (table & ~7u) + entry * PCI_MSIX_ENTRY_SIZE;
	mmio_write32(at, (uint32_t)MSI_ADDR_BASE | (apic_id & 0xff) << MSI_ADDR_DEST_SHIFT |
				 (apic_id >> 8) << MSI_ADDR_EXT_DEST_SHIFT);
	mmio_write32(at + 4, 0);
	mmio_write32(at + 8, vector);
	mmio_write32(at + 12, 0);
	pci_write16(bdf, cap + PCI_MSIX_CONTROL, PCI_MSIX_ENABLE);
}

/* --- memory: the compiler calls these --- */

void *memcpy(void *to, const void *from, size_t n)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int c, size_t n)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(c) : "memory");
	return to;
}
