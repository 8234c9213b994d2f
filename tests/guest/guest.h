/*
 * What a bare-metal guest has: one processor in long mode with the first 4 GiB mapped, a serial
 * port, and what is declared here. Everything runs at privilege level 0 without an operating
 * system; main() is called with interrupts off, and when it returns the processor halts.
 *
 * The guests trust their hypervisor as a test trusts its subject: what it answers is checked, and
 * a wrong answer ends in guest_fail(), which says what was wrong and resets the machine.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IRQ_FIRST 0x40u
#define IRQ_TIMER 0x40u
#define IRQ_DISK  0x41u
#define IRQ_IPI   0x42u
#define IRQ_PIN   0x43u

/* --- processor --- */
static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* Plain MOV with a plain address, whatever the compiler thinks: all that KVM has to emulate. */
static inline uint32_t mmio_read32(uintptr_t a)
{
	uint32_t v;

	__asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}

static inline uint16_t mmio_read16(uintptr_t a)
{
	uint16_t v;

	__asm__ volatile("movw (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}

static inline uint8_t mmio_read8(uintptr_t a)
{
	uint8_t v;

	__asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(a) : "memory");
	return v;
}

static inline void mmio_write32(uintptr_t a, uint32_t v)
{
	__asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(a) : "memory");
}

static inline void mmio_write16(uintptr_t a, uint16_t v)
{
	__asm__ volatile("movw %0, (%1)" : : "r"(v), "r"(a) : "memory");
}

static inline void mmio_write8(uintptr_t a, uint8_t v)
{
	__asm__ volatile("movb %0, (%1)" : : "q"(v), "r"(a) : "memory");
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf)
{
	struct cpuid c;

	__asm__ volatile("cpuid" : "=a"(c.eax), "=b"(c.ebx), "=c"(c.ecx), "=d"(c.edx)
			 : "a"(leaf), "c"(0));
	return c;
}

static inline void irq_on(void)
{
	__asm__ volatile("sti" : : : "memory");
}

static inline void irq_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/* Interrupts on, sleep until one was handled, interrupts off: no wake-up is lost between. */
static inline void irq_wait(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

static inline void pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

/* --- serial port --- */
void put_char(char c);
void put(const char *s);
void put_num(const char *name, uint64_t v); /* "name=123 " */

/* --- end --- */
_Noreturn void guest_reset(void);           /* port 0xCF9 */
_Noreturn void guest_off(void);             /* ACPI S5 */
_Noreturn void guest_fail(const char *why); /* "FAIL why" on the serial port, reset */
_Noreturn void halt(void);                  /* for ever, without interrupts if they are off */

/* --- interrupts and the local APIC, in xAPIC mode until lapic_x2apic() --- */
/* Fills the descriptor table and switches the APIC on. An exception is a failure. */
void irq_init(void);
void lapic_enable(void); /* on every processor */
void lapic_x2apic(void); /* this processor, and those that call lapic_enable() later */
void lapic_eoi(void);
uint32_t lapic_id(void);
void lapic_icr(uint32_t dest, uint32_t low); /* waits until it is sent */
/* TSC-deadline mode with IRQ_TIMER. */
void timer_init(void);
void timer_arm(uint64_t tsc);
/* The guest's own: called for IRQ_FIRST and on, after which the EOI is sent. */
void guest_irq(unsigned vector);

/* --- time: kvmclock --- */
void clock_init(void);
uint64_t clock_ns(void);
uint64_t clock_khz(void); /* of the TSC */

/* --- PCI --- */
#define PCI_NONE 0xffffffffu
/* devfn of the first function of bus 0 with these ids, or PCI_NONE. */
uint32_t pci_find(uint16_t vendor, uint16_t device);
uint8_t pci_read8(uint32_t bdf, unsigned reg);
uint16_t pci_read16(uint32_t bdf, unsigned reg);
uint32_t pci_read32(uint32_t bdf, unsigned reg);
void pci_write16(uint32_t bdf, unsigned reg, uint16_t v);
void pci_write32(uint32_t bdf, unsigned reg, uint32_t v);
/* Gives every memory BAR an address of the 32-bit window and switches decoding and DMA on. */
void pci_enable(uint32_t bdf);
uintptr_t pci_bar(uint32_t bdf, unsigned bar);
/* First capability with this id after `from` (0: from the start), 0 if there is none. */
unsigned pci_cap(uint32_t bdf, unsigned id, unsigned from);
/* Programs one MSI-X entry to this vector of this processor and switches MSI-X on. Ids above 255
 * need KVM_FEATURE_MSI_EXT_DEST_ID. */
void pci_msix(uint32_t bdf, unsigned entry, uint32_t apic_id, unsigned vector);

/* --- virtio-blk --- */
/* Finds and starts the first disk: one queue, completion through IRQ_DISK. */
void disk_init(void);
void disk_irq_to(uint32_t apic_id); /* by this processor instead of that of disk_init() */
uint64_t disk_sectors(void);
/* One request, waiting with interrupts on. A device error is a failure. */
void disk_read(uint64_t sector, void *data, uint32_t len);
void disk_write(uint64_t sector, const void *data, uint32_t len);
void disk_flush(void);
/* Several at once: one for each slot, data in place until disk_wait(), which waits for all. */
#define DISK_SLOTS 16u
void disk_write_start(unsigned slot, uint64_t sector, const void *data, uint32_t len);
/* Discard or write-zeroes; false: the disk has no such thing. */
bool disk_erase_start(unsigned slot, bool zero, uint64_t sector, uint32_t sectors);
void disk_wait(void);
/* To be called by guest_irq(IRQ_DISK). */
void disk_irq(void);

/* --- memory --- */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int main(void);

#endif
