/*
 * Starts every application processor (Intel SDM volume 3A, 8.4.4: INIT, SIPI), interrupts all of
 * them at once, lets each wait for its own timer, interrupts each by its id and gets an answer
 * from each, and reports how many of each there were. Then the last processor, which has the highest
 * id, takes an interrupt from a pin of the I/O APIC and, if there is a disk, one of its MSI-X.
 *
 * How many processors there are fw_cfg says. Above 255 the local APICs are in x2APIC mode and
 * interrupt messages have extended destinations.
 */
#include "guest.h"
#include "spec/fw_cfg.h"
#include "spec/ioapic.h"
#include "spec/platform_x86.h"
#include "spec/uart16550.h"
#include "spec/virtio.h"
#include "spec/virtio_pci.h"
#include "spec/x86.h"

#define MAX_CPUS     1024u
#define MAX_IDS      4096u
#define AP_START     0x8000u
#define ICR_INIT     0x000c4500u /* all but self, assert, INIT */
#define ICR_SIPI     (0x000c4600u | AP_START >> 12)
#define ICR_ALL_IPI  (0x000c4000u | IRQ_IPI)
#define ICR_ONE_IPI  (0x00004000u | IRQ_IPI)
#define LIMIT_NS     UINT64_C(30000000000)
#define KVM_FEATURE_MSI_EXT_DEST_ID 15
#define NOBODY       UINT32_MAX

extern const char ap_code[], ap_code_end[];
extern volatile uint32_t cpus_started;

static volatile uint32_t ipis, timers, answers, ready;
static volatile uint32_t pin_cpu = NOBODY, disk_cpu = NOBODY;
static volatile uint8_t seen[MAX_IDS];
static volatile uint32_t ids[MAX_CPUS]; /* in the order in which they came */
static uint64_t ap_ticks;

static bool boot_cpu(void)
{
	return rdmsr(MSR_IA32_APIC_BASE) & APIC_BASE_BSP;
}

void guest_irq(unsigned vector)
{
	switch (vector) {
	case IRQ_TIMER:
		__sync_fetch_and_add(&timers, 1);
		break;
	case IRQ_IPI:
		__sync_fetch_and_add(boot_cpu() ? &answers : &ipis, 1);
		break;
	case IRQ_PIN:
		outb(PLAT_UART_PORT + UART_IER, 0);
		pin_cpu = lapic_id();
		break;
	case IRQ_DISK:
		disk_cpu = lapic_id();
		disk_irq();
		if (!boot_cpu()) {
			lapic_icr(ids[0], ICR_ONE_IPI); /* which sleeps */
		}
		break;
	}
}

static void come(uint32_t index)
{
	uint32_t id = lapic_id();

	if (index >= MAX_CPUS || id >= MAX_IDS || __sync_lock_test_and_set(&seen[id], 1)) {
		guest_fail("too many processors, or two with one APIC id");
	}
	ids[index] = id;
}

void ap_main(uint32_t index);

void ap_main(uint32_t index)
{
	lapic_enable();
	come(index);
	timer_init();
	__sync_fetch_and_add(&ready, 1);
	irq_wait(); /* to all */
	timer_arm(rdtsc() + ap_ticks);
	irq_wait();
	irq_wait(); /* to this one */
	lapic_icr(ids[0], ICR_ONE_IPI);
	for (;;) {
		irq_wait();
	}
}

static void wait_for(volatile uint32_t *what, uint32_t n, const char *why)
{
	uint64_t end = clock_ns() + LIMIT_NS;

	while (*what < n) {
		if (clock_ns() > end) {
			put_num("have", *what);
			put_num("want", n);
			guest_fail(why);
		}
		pause();
	}
}

static uint32_t cpu_count(void)
{
	uint32_t n;

	outw(PLAT_FW_CFG_PORT, FW_CFG_NB_CPUS);
	n = inb(PLAT_FW_CFG_PORT + 1);
	return n | (uint32_t)inb(PLAT_FW_CFG_PORT + 1) << 8;
}

static void start_all(uint32_t total)
{
	memcpy((void *)(uintptr_t)AP_START, ap_code, (size_t)(ap_code_end - ap_code));
	lapic_icr(0, ICR_INIT);
	lapic_icr(0, ICR_SIPI);
	wait_for(&cpus_started, total, "a processor has not started");
	wait_for(&ready, total - 1, "a processor has not come to its code");
}

/* One by one, because two of one vector that nobody has taken yet are one. */
static void ask_each(uint32_t aps)
{
	for (uint32_t i = 1; i <= aps; i++) {
		lapic_icr(ids[i], ICR_ONE_IPI);
		wait_for(&ipis, aps + i, "an interrupt to one processor was lost");
		wait_for(&answers, i, "an answer to the boot processor was lost");
	}
}

static void ioapic_write(unsigned reg, uint32_t v)
{
	mmio_write32(PLAT_IOAPIC_BASE + IOAPIC_IOREGSEL, reg);
	mmio_write32(PLAT_IOAPIC_BASE + IOAPIC_IOWIN, v);
}

/* The serial port has nothing to send and says so. */
static void take_pin(uint32_t id)
{
	const unsigned reg = IOAPIC_REG_REDTBL + 2 * PLAT_GSI_UART;
	uint64_t end = clock_ns() + LIMIT_NS;

	ioapic_write(reg + 1, (id & 0xff) << 24 | (id >> 8) << 17);
	ioapic_write(reg, IRQ_PIN);
	outb(PLAT_UART_PORT + UART_IER, UART_IER_ETBEI);
	while (pin_cpu == NOBODY) {
		if (clock_ns() > end) {
			guest_fail("an interrupt of the I/O APIC was lost");
		}
		pause();
	}
	if (pin_cpu != id) {
		guest_fail("an interrupt of the I/O APIC went astray");
	}
	put_num("pin", pin_cpu);
}

static void take_msi(uint32_t id)
{
	static uint8_t sector[512];

	if (pci_find(VIRTIO_PCI_VENDOR_ID, VIRTIO_PCI_DEVICE_ID_BASE + VIRTIO_ID_BLOCK) == PCI_NONE) {
		return;
	}
	disk_init();
	disk_irq_to(id);
	disk_read(0, sector, sizeof(sector));
	if (disk_cpu != id) {
		guest_fail("an MSI-X went astray");
	}
	put_num("msi", disk_cpu);
}

int main(void)
{
	uint32_t total = cpu_count(), aps = total - 1, last = 0;

	irq_init();
	clock_init();
	if (total > 255) {
		if (!(cpuid(0x40000001).eax & 1u << KVM_FEATURE_MSI_EXT_DEST_ID)) {
			guest_fail("no extended destinations in CPUID");
		}
		lapic_x2apic();
	}
	come(0);
	ap_ticks = clock_khz() * 2;
	start_all(total);
	irq_on();
	lapic_icr(0, ICR_ALL_IPI);
	wait_for(&ipis, aps, "an interrupt to all processors was lost");
	wait_for(&timers, aps, "a processor's timer was lost");
	ask_each(aps);
	for (uint32_t i = 0; i < total; i++) {
		last = ids[i] > last ? ids[i] : last;
	}
	put_num("cpus", cpus_started);
	put_num("ipis", ipis);
	put_num("timers", timers);
	put_num("answers", answers);
	take_pin(last);
	take_msi(last);
	put("PASS\n");
	guest_reset();
}
