/*
 * Starts every application processor (Intel SDM volume 3A, 8.4.4: INIT, SIPI), sends each an
 * interrupt, lets each wait for its own timer, and reports how many answered. The number that is
 * wanted is in CPUID (leaf 0xB where there is one); broadcast reaches exactly those.
 */
#include "guest.h"
#include "spec/x86.h"

#define MAX_CPUS     64u
#define AP_START     0x8000u
#define ICR_INIT     0x000c4500u /* all but self, assert, INIT */
#define ICR_SIPI     (0x000c4600u | AP_START >> 12)
#define ICR_ALL_IPI  (0x000c4000u | IRQ_IPI)
#define ICR_TO_BSP   (0x00004000u | IRQ_IPI)
#define QUIET_NS     UINT64_C(300000000) /* nobody else has come for that long */
#define LIMIT_NS     UINT64_C(30000000000)

extern const char ap_code[], ap_code_end[];
extern volatile uint32_t cpus_started;

static volatile uint32_t ipis, timers, answers, finished;
static volatile uint8_t seen[256];
static uint64_t ap_ticks;

void guest_irq(unsigned vector)
{
	if (vector == IRQ_TIMER) {
		__sync_fetch_and_add(&timers, 1);
	} else if (vector == IRQ_IPI) {
		if (rdmsr(MSR_IA32_APIC_BASE) & APIC_BASE_BSP) {
			__sync_fetch_and_add(&answers, 1);
		} else {
			__sync_fetch_and_add(&ipis, 1);
		}
	}
}

void ap_main(uint32_t index);

/* One interrupt from the boot processor, one of its own timer, one to the boot processor: in turn,
 * because two of one vector that nobody has taken yet are one. */
void ap_main(uint32_t index)
{
	uint32_t id;

	lapic_enable();
	id = lapic_id();
	if (seen[id]) {
		guest_fail("two processors have one APIC id");
	}
	seen[id] = 1;
	timer_init();
	__sync_fetch_and_add(&finished, 1); /* ready */
	irq_wait();
	timer_arm(rdtsc() + ap_ticks);
	irq_wait();
	while (answers != index - 1) {
		pause();
	}
	lapic_icr(0, ICR_TO_BSP);
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

static void settle(void)
{
	uint32_t last = cpus_started;
	uint64_t end = clock_ns() + QUIET_NS;

	while (clock_ns() < end) {
		if (cpus_started != last) {
			last = cpus_started;
			end = clock_ns() + QUIET_NS;
		}
		pause();
	}
}

int main(void)
{
	uint32_t aps;

	irq_init();
	clock_init();
	seen[lapic_id()] = 1;
	ap_ticks = clock_khz() * 2;
	memcpy((void *)(uintptr_t)AP_START, ap_code, (size_t)(ap_code_end - ap_code));
	lapic_icr(0, ICR_INIT);
	lapic_icr(0, ICR_SIPI);
	settle();
	aps = cpus_started - 1;
	wait_for(&finished, aps, "a processor has not come to its code");
	irq_on();
	lapic_icr(0, ICR_ALL_IPI);
	wait_for(&ipis, aps, "an interrupt between processors was lost");
	wait_for(&timers, aps, "a processor's timer was lost");
	wait_for(&answers, aps, "an answer to the boot processor was lost");
	put_num("cpus", cpus_started);
	put_num("ipis", ipis);
	put_num("timers", timers);
	put_num("answers", answers);
	put("PASS\n");
	guest_reset();
}
