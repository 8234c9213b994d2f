/* PM timer and sleep register, reset port, generic event device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "device/platform/ged.h"
#include "device/platform/pm.h"
#include "device/platform/reset.h"
#include "fakes/fakes.h"
#include "spec/platform_x86.h"

static unsigned requests(struct fake_vm *fv, enum power_request what)
{
	return fv->power.count[what];
}

static void test_timer(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	uint32_t start, v;

	assert_int_equal(pm_new(&fv->vm, NULL), 0);
	start = fake_pio_read(fv, 0x608, 4);
	loop_clock_advance(fv->vm.loop, 1000000000);
	v = fake_pio_read(fv, 0x608, 4);
	assert_int_equal((v - start) & 0xffffff, 3579545);
	/* 24 bits: it wraps after 4.69 s; years do not overflow */
	loop_clock_advance(fv->vm.loop, 4000000000);
	v = fake_pio_read(fv, 0x608, 4);
	assert_int_equal((v - start) & 0xffffff, (5 * 3579545) & 0xffffff);
	loop_clock_advance(fv->vm.loop, UINT64_C(400000000) * 1000000000);
	v = fake_pio_read(fv, 0x608, 4);
	assert_int_equal((v - start) & 0xffffff, (UINT64_C(400000005) * 3579545) & 0xffffff);
	/* parts of it */
	assert_int_equal(fake_pio_read(fv, 0x608, 2), v & 0xffff);
	assert_int_equal(fake_pio_read(fv, 0x609, 1), v >> 8 & 0xff);
	assert_int_equal(fake_pio_read(fv, 0x60b, 1), 0);
	fake_pio_write(fv, 0x608, 0, 4);
	assert_int_equal(fake_pio_read(fv, 0x608, 4), v);
	fake_vm_free(fv);
}

/* It stands still while paused and goes on elsewhere. */
static void test_timer_state(void **state)
{
	struct fake_vm *a = fake_vm_new(NULL), *b = fake_vm_new(NULL);
	uint32_t v;

	assert_int_equal(pm_new(&a->vm, NULL), 0);
	loop_clock_advance(b->vm.loop, 777);
	assert_int_equal(pm_new(&b->vm, NULL), 0);
	loop_clock_advance(a->vm.loop, 123456789);
	v = fake_pio_read(a, 0x608, 4);
	fake_vm_pause(a);
	loop_clock_advance(a->vm.loop, 5000000000);
	fake_vm_pause(b);
	assert_int_equal(fake_vm_transfer(a, b, NULL), 0);
	loop_clock_advance(b->vm.loop, 3000000000);
	device_list_resume(&b->devices);
	assert_int_equal(fake_pio_read(b, 0x608, 4), v);
	device_list_resume(&a->devices);
	assert_int_equal(fake_pio_read(a, 0x608, 4), v);
	loop_clock_advance(a->vm.loop, 1000000);
	assert_in_range(fake_pio_read(a, 0x608, 4), v + 3579, v + 3580);
	fake_vm_free(a);
	fake_vm_free(b);
}

static void test_sleep(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);

	assert_int_equal(pm_new(&fv->vm, NULL), 0);
	/* everything below the timer reads 0 */
	assert_int_equal(fake_pio_read(fv, 0x600, 4), 0);
	assert_int_equal(fake_pio_read(fv, 0x604, 2), 0);
	assert_int_equal(fake_pio_read(fv, 0x606, 1), 0);
	/* what does not power off: SCI_EN, other types, the status register, neighbours */
	fake_pio_write(fv, 0x604, 0x0001, 2);
	fake_pio_write(fv, 0x605, 0x20 | 5 << 2, 1);
	fake_pio_write(fv, 0x605, 0x1c, 1);
	fake_pio_write(fv, 0x606, 0xff, 2);
	fake_pio_write(fv, 0x604, 0x20, 1);
	fake_pio_write(fv, 0x600, 0xffffffff, 4);
	assert_int_equal(requests(fv, POWER_OFF), 0);
	/* OVMF: PM1_CNT, 16 bits; Linux: SLEEP_CONTROL, a byte; both in one as well */
	fake_pio_write(fv, 0x604, 0x2001, 2);
	assert_int_equal(requests(fv, POWER_OFF), 1);
	fake_pio_write(fv, 0x605, 0x20, 1);
	assert_int_equal(requests(fv, POWER_OFF), 2);
	fake_pio_write(fv, 0x604, 0x2000, 4);
	assert_int_equal(requests(fv, POWER_OFF), 3);
	assert_int_equal(requests(fv, POWER_RESET), 0);
	fake_vm_free(fv);
}

static void test_reset(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);

	assert_int_equal(reset_new(&fv->vm, NULL), 0);
	assert_int_equal(fake_pio_read(fv, 0x64, 1), 0xff);
	fake_pio_write(fv, 0x64, 0xd1, 1);
	fake_pio_write(fv, 0x60, 0xfe, 1);
	assert_int_equal(requests(fv, POWER_RESET), 0);
	fake_pio_write(fv, 0x64, 0xfe, 1);
	assert_int_equal(requests(fv, POWER_RESET), 1);
	fake_vm_free(fv);
}

static void test_ged(void **state)
{
	struct fake_vm *a = fake_vm_new(NULL), *b = fake_vm_new(NULL);
	struct ged *ga, *gb;

	assert_int_equal(ged_new(&a->vm, PLAT_GED_BASE, fake_irq_line(&a->irq, 16), &ga, NULL), 0);
	assert_int_equal(ged_new(&b->vm, PLAT_GED_BASE, fake_irq_line(&b->irq, 16), &gb, NULL), 0);
	ged_raise(ga, PLAT_GED_POWER);
	assert_int_equal(a->irq.edges[16], 1);
	assert_int_equal(a->irq.line[0] & 1u << 16, 0);
	ged_raise(ga, PLAT_GED_CPU);
	assert_int_equal(a->irq.edges[16], 2);
	/* only the whole word reads and clears */
	assert_int_equal(fake_mmio_read(a, PLAT_GED_BASE, 1), 0xff);
	fake_mmio_write(a, PLAT_GED_BASE, 0xffffffff, 4);
	fake_vm_pause(a);
	fake_vm_pause(b);
	assert_int_equal(fake_vm_transfer(a, b, NULL), 0);
	assert_int_equal(fake_mmio_read(b, PLAT_GED_BASE, 4), PLAT_GED_POWER | PLAT_GED_CPU);
	assert_int_equal(fake_mmio_read(b, PLAT_GED_BASE, 4), 0);
	assert_int_equal(b->irq.edges[16], 0);
	device_list_reset(&a->devices);
	assert_int_equal(fake_mmio_read(a, PLAT_GED_BASE, 4), 0);
	fake_vm_free(a);
	fake_vm_free(b);
}

/* Every event arrives exactly once, whoever raises it. */
struct raiser {
	struct ged *g;
	uint32_t bit;
	_Atomic bool seen;
};

static void *raiser_main(void *arg)
{
	struct raiser *r = arg;

	for (int i = 0; i < 5000; i++) {
		r->seen = false;
		ged_raise(r->g, r->bit);
		while (!r->seen) {
			sched_yield();
		}
	}
	return NULL;
}

static void test_ged_threads(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct raiser r[3];
	pthread_t t[3];
	unsigned count = 0;
	struct ged *g;

	assert_int_equal(ged_new(&fv->vm, PLAT_GED_BASE, fake_irq_line(&fv->irq, 16), &g, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		r[i] = (struct raiser){.g = g, .bit = 1u << i};
		assert_int_equal(pthread_create(&t[i], NULL, raiser_main, &r[i]), 0);
	}
	while (count < 15000) {
		uint32_t v = (uint32_t)fake_mmio_read(fv, PLAT_GED_BASE, 4);

		for (unsigned i = 0; i < 3; i++) {
			if (v & 1u << i) {
				assert_false(r[i].seen);
				count++;
				r[i].seen = true;
			}
		}
	}
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
	}
	assert_int_equal(fake_mmio_read(fv, PLAT_GED_BASE, 4), 0);
	fake_vm_free(fv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timer), cmocka_unit_test(test_timer_state),
		cmocka_unit_test(test_sleep), cmocka_unit_test(test_reset),
		cmocka_unit_test(test_ged),   cmocka_unit_test(test_ged_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
