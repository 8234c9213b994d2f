/*
 * Counts, uses its timer and writes to its disk, and notices by itself when it is not the machine
 * any more that it was: tests/system/test_state.py stops it anywhere, saves it, and continues it
 * in another process.
 *
 * What has to survive: general registers and a counter in one of them (spin.S); all sixteen XMM
 * registers and MXCSR; MSRs, CR2 and debug registers that hold patterns; the armed TSC deadline
 * (ticks go on); kvmclock and TSC (neither goes back, and they agree); the disk's queue, its
 * MSI-X entry and BARs (each step writes a sector and flushes); memory (the records themselves).
 *
 * Sector n of the disk is a struct record with seq n. Lines on the serial port: "begin", "half",
 * then "PASS …" or "FAIL why".
 */
#include "guest.h"
#include "spec/virtio_blk.h"

#define STEPS      40u
#define SPINS      150u
#define MAGIC      UINT64_C(0x4e454d5553544154)
#define WAIT_NS    UINT64_C(20000000000)
#define PERIOD_MS  5u
#define MSR_LSTAR          0xc0000082u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_FS_BASE        0xc0000100u
#define MXCSR      0x1fa0u /* not the value after reset: precision flag set */

struct record { /* tests/system/test_state.py has the same */
	uint64_t magic, seq, counter, ticks, tsc, ns, khz, sum;
	uint8_t rest[VIRTIO_BLK_SECTOR_SIZE - 64];
};
_Static_assert(sizeof(struct record) == VIRTIO_BLK_SECTOR_SIZE, "record");

unsigned spin(uint64_t *counter, uint64_t rounds);

static struct record records[STEPS], back __attribute__((aligned(512)));
static uint64_t counter;
static struct {
	volatile uint64_t ticks;
	uint64_t period, deadline, last_tsc, last_ns;
} timer;

void guest_irq(unsigned vector)
{
	uint64_t now;

	if (vector == IRQ_DISK) {
		disk_irq();
		return;
	}
	now = rdtsc();
	if (now < timer.deadline) {
		guest_fail("the timer came before its deadline");
	}
	timer.ticks++;
	timer.deadline = now + timer.period;
	timer_arm(timer.deadline);
}

/* --- registers that nothing else here uses --- */

static const struct {
	uint32_t msr;
	uint64_t value;
} msrs[] = {
	{MSR_LSTAR, UINT64_C(0x0000123456789abc)},
	{MSR_KERNEL_GS_BASE, UINT64_C(0x00000fedcba98765)},
	{MSR_FS_BASE, UINT64_C(0x0000345678123456)},
};
#define CR2 UINT64_C(0x00005555aaaa5555)
#define DR0 UINT64_C(0x0000000012345678)
#define DR3 UINT64_C(0x00001fffffffff00)

static uint64_t xmm[16][2] __attribute__((aligned(16)));
static uint32_t mxcsr;
static bool has_mxcsr;

#define EACH_XMM(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) \
	f(14) f(15)
#define XMM_LOAD(n) __asm__ volatile("movdqu %0, %%xmm" #n : : "m"(xmm[n]));
#define XMM_STORE(n) __asm__ volatile("movdqu %%xmm" #n ", %0" : "=m"(xmm[n]));

static uint64_t xmm_pattern(unsigned i, unsigned half)
{
	return UINT64_C(0x0101010101010101) * (i + 1) ^ (half ? UINT64_C(0xfedc) << 48 : 0);
}

/* A KVM that emulates kernel-mode code knows MOVDQU, but not LDMXCSR. It needs a microsecond for
 * an instruction. */
static bool is_emulated(void)
{
	uint64_t best = UINT64_MAX;

	for (unsigned round = 0; round < 3; round++) {
		uint64_t took = clock_ns();

		for (unsigned i = 0; i < 100; i++) {
			__asm__ volatile("nop");
		}
		took = clock_ns() - took;
		best = took < best ? took : best;
	}
	return best > 50000;
}

static void registers_set(void)
{
	for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
		wrmsr(msrs[i].msr, msrs[i].value);
	}
	__asm__ volatile("mov %0, %%cr2" : : "r"(CR2));
	__asm__ volatile("mov %0, %%dr0" : : "r"(DR0));
	__asm__ volatile("mov %0, %%dr3" : : "r"(DR3));
	for (unsigned i = 0; i < 16; i++) {
		xmm[i][0] = xmm_pattern(i, 0);
		xmm[i][1] = xmm_pattern(i, 1);
	}
	EACH_XMM(XMM_LOAD)
	has_mxcsr = !is_emulated();
	if (has_mxcsr) {
		mxcsr = MXCSR;
		__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	}
}

static void registers_check(void)
{
	uint64_t cr2, dr0, dr3;

	for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
		if (rdmsr(msrs[i].msr) != msrs[i].value) {
			put_num("msr", msrs[i].msr);
			guest_fail("a model-specific register changed");
		}
	}
	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	__asm__ volatile("mov %%dr0, %0" : "=r"(dr0));
	__asm__ volatile("mov %%dr3, %0" : "=r"(dr3));
	if (cr2 != CR2 || dr0 != DR0 || dr3 != DR3) {
		guest_fail("CR2 or a debug register changed");
	}
	memset(xmm, 0, sizeof(xmm));
	EACH_XMM(XMM_STORE)
	for (unsigned i = 0; i < 16; i++) {
		if (xmm[i][0] != xmm_pattern(i, 0) || xmm[i][1] != xmm_pattern(i, 1)) {
			put_num("xmm", i);
			guest_fail("an XMM register changed");
		}
	}
	if (!has_mxcsr) {
		return;
	}
	__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
	if (mxcsr != MXCSR) {
		guest_fail("MXCSR changed");
	}
}

/* --- time --- */

static void time_check(struct record *r)
{
	r->tsc = rdtsc();
	r->ns = clock_ns();
	r->khz = clock_khz();
	if (r->tsc < timer.last_tsc) {
		guest_fail("the TSC went back");
	}
	if (r->ns < timer.last_ns) {
		guest_fail("kvmclock went back");
	}
	timer.last_tsc = r->tsc;
	timer.last_ns = r->ns;
}

static void tick_wait(uint64_t from)
{
	uint64_t end = clock_ns() + WAIT_NS;

	irq_off();
	while (timer.ticks == from) {
		irq_wait();
		if (clock_ns() > end) {
			guest_fail("the timer has stopped");
		}
	}
	irq_on();
}

/* --- steps --- */

static uint64_t record_sum(const struct record *r)
{
	return r->magic + r->seq * 3 + r->counter * 5 + r->ticks * 7 + r->tsc * 11 + r->ns * 13 +
	       r->khz * 17;
}

static void step(unsigned n)
{
	struct record *r = &records[n];
	uint64_t ticks = timer.ticks;
	unsigned bad = spin(&counter, SPINS);

	if (bad) {
		put_num("register", bad);
		guest_fail("a general register changed");
	}
	if (counter != (uint64_t)(n + 1) * SPINS) {
		guest_fail("the counter lost its place");
	}
	registers_check();
	time_check(r);
	r->magic = MAGIC;
	r->seq = n;
	r->counter = counter;
	tick_wait(ticks);
	r->ticks = timer.ticks;
	r->sum = record_sum(r);
	disk_write(n, r, sizeof(*r));
	disk_flush();
}

static void read_back(void)
{
	for (unsigned n = 0; n < STEPS; n++) {
		const struct record *r = &records[n];

		disk_read(n, &back, sizeof(back));
		if (back.seq != r->seq || back.sum != r->sum || record_sum(&back) != r->sum) {
			put_num("sector", n);
			guest_fail("the disk does not hold what was written");
		}
	}
}

int main(void)
{
	irq_init();
	clock_init();
	disk_init();
	if (disk_sectors() < STEPS) {
		guest_fail("the disk is too small");
	}
	registers_set();
	timer_init();
	timer.period = clock_khz() * PERIOD_MS;
	timer.deadline = rdtsc() + timer.period;
	timer_arm(timer.deadline);
	irq_on();
	put("begin\n");
	for (unsigned n = 0; n < STEPS; n++) {
		step(n);
		if (n == STEPS / 2) {
			put("half\n");
		}
	}
	read_back();
	put_num("counter", counter);
	put_num("ticks", timer.ticks);
	put_num("mxcsr", has_mxcsr);
	put("PASS\n");
	guest_reset();
}
