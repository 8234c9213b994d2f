/*
 * Writes, discards, zeroes and flushes its disk until somebody ends it, and says which flush has
 * returned: tests/system/test_crash.py knows from that what has to be there after its end.
 *
 * Prints "seed=N", then after each flush "flushed=N", N being the last round before it. Everything that a
 * round does follows from the seed, with rnd() (next() in test_crash.py is the same):
 *
 *   requests of round N   1 + rnd() % DISK_SLOTS, all on their way at once
 *   of request i          kind = rnd() % 8: 0 discard, 1 write-zeroes with UNMAP, else write
 *                         where = rnd() % (stripe - LENGTH), length = 1 + rnd() % LENGTH
 *                         sectors from i * stripe + where on; stripe = sectors / DISK_SLOTS
 *   then                  a flush if rnd() % 3 is 0
 *
 * Each 8 bytes of a sector S that round N writes are (N << 32 | S) * MIX. A round touches no sector
 * twice.
 */
#include "guest.h"

#define LENGTH 24u /* sectors */
#define SECTOR 512u
#define MIX    UINT64_C(0x9e3779b97f4a7c15)

static uint64_t state;
static uint64_t data[DISK_SLOTS][LENGTH * SECTOR / 8];

void guest_irq(unsigned vector)
{
	if (vector == IRQ_DISK) {
		disk_irq();
	}
}

static uint32_t rnd(void)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(state >> 33);
}

static void fill(uint64_t *to, uint64_t round, uint64_t sector, uint32_t sectors)
{
	for (uint32_t i = 0; i < sectors; i++) {
		for (unsigned k = 0; k < SECTOR / 8; k++) {
			*to++ = (round << 32 | (sector + i)) * MIX;
		}
	}
}

static void round_start(uint64_t round, uint32_t stripe)
{
	uint32_t n = 1 + rnd() % DISK_SLOTS;

	for (unsigned i = 0; i < n; i++) {
		uint32_t kind = rnd() % 8;
		uint64_t sector = (uint64_t)i * stripe + rnd() % (stripe - LENGTH);
		uint32_t length = 1 + rnd() % LENGTH;

		if (kind < 2 && disk_erase_start(i, kind, sector, length)) {
			continue;
		}
		fill(data[i], round, sector, length);
		disk_write_start(i, sector, data[i], length * SECTOR);
	}
}

int main(void)
{
	uint32_t stripe;

	irq_init();
	clock_init();
	disk_init();
	stripe = (uint32_t)disk_sectors() / DISK_SLOTS;
	if (stripe <= LENGTH) {
		guest_fail("the disk is too small");
	}
	state = rdtsc();
	put_num("seed", state);
	put("\n");
	irq_on();
	for (uint64_t round = 0;; round++) {
		round_start(round, stripe);
		disk_wait();
		if (rnd() % 3 == 0) {
			disk_flush();
			put_num("flushed", round);
			put("\n");
		}
	}
}
