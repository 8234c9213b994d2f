/* Real-time clock: encodings, setting, calendar against the C library, snapshot, state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "device/platform/rtc.h"
#include "fakes/fakes.h"
#include "spec/mc146818.h"

#define NS INT64_C(1000000000)

struct env {
	struct fake_vm *fv;
	int64_t now; /* host UTC, ns */
};

static int64_t env_now(void *opaque)
{
	return ((struct env *)opaque)->now;
}

static struct env *env_new(int64_t offset)
{
	struct env *e = calloc(1, sizeof(*e));
	struct rtc_config cfg = {.offset_s = offset, .now = env_now, .opaque = e};

	e->now = INT64_C(1700000000) * NS + 5; /* 2023-11-14 22:13:20, a Tuesday */
	e->fv = fake_vm_new(NULL);
	assert_int_equal(rtc_new(&e->fv->vm, &cfg, NULL), 0);
	return e;
}

static int setup(void **state)
{
	*state = env_new(0);
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	fake_vm_free(e->fv);
	free(e);
	return 0;
}

static uint8_t rd(struct env *e, uint8_t reg)
{
	fake_pio_write(e->fv, 0x70, reg, 1);
	return (uint8_t)fake_pio_read(e->fv, 0x71, 1);
}

static void wr(struct env *e, uint8_t reg, uint8_t v)
{
	fake_pio_write(e->fv, 0x70, reg, 1);
	fake_pio_write(e->fv, 0x71, v, 1);
}

/* century year month day hour minute second, as read, in hexadecimal for BCD */
static void expect(struct env *e, uint64_t want)
{
	static const uint8_t regs[] = {RTC_CENTURY, RTC_YEAR,	 RTC_MONTH,  RTC_DAY_OF_MONTH,
				       RTC_HOURS,   RTC_MINUTES, RTC_SECONDS};
	uint64_t got = 0;

	for (unsigned i = 0; i < sizeof(regs); i++) {
		got = got << 8 | rd(e, regs[i]);
	}
	if (got != want) {
		fail_msg("%014llx, wanted %014llx", (unsigned long long)got,
			 (unsigned long long)want);
	}
}

static void test_read(void **state)
{
	struct env *e = *state;

	expect(e, 0x20231114221320);
	assert_int_equal(rd(e, RTC_DAY_OF_WEEK), 3);
	assert_int_equal(rd(e, RTC_REG_A), 0x26);
	assert_int_equal(rd(e, RTC_REG_B), RTC_B_24H);
	assert_int_equal(rd(e, RTC_REG_C), 0);
	assert_int_equal(rd(e, RTC_REG_D), RTC_D_VRT);
	assert_int_equal(rd(e, 0x0f), 0);
	wr(e, 0x0f, 0xfe);
	assert_int_equal(rd(e, 0x0f), 0);
	assert_int_equal(rd(e, 0x34), 0);
	/* the index is not readable; its bit 7 is the NMI mask */
	assert_int_equal(fake_pio_read(e->fv, 0x70, 1), 0xff);
	assert_int_equal(rd(e, 0x80 | RTC_SECONDS), 0x20);
	e->now += 3600 * NS;
	expect(e, 0x20231114231320);
	/* binary, then 12 hours */
	wr(e, RTC_REG_B, RTC_B_24H | RTC_B_DM);
	expect(e, 0x14170b0e170d14);
	wr(e, RTC_REG_B, 0);
	expect(e, 0x20231114911320);
	e->now += 3600 * NS;
	expect(e, 0x20231115121320);
	e->now += 12 * 3600 * NS;
	expect(e, 0x20231115921320);
	wr(e, RTC_REG_B, RTC_B_DM);
	expect(e, 0x14170b0f8c0d14);
	wr(e, RTC_REG_A, 0xff);
	assert_int_equal(rd(e, RTC_REG_A), 0x7f); /* never in update */
	wr(e, RTC_MINUTES_ALARM, 0x42);
	assert_int_equal(rd(e, RTC_MINUTES_ALARM), 0x42);
}

static void set(struct env *e, uint8_t b, uint8_t century, uint8_t year, uint8_t month,
		uint8_t day, uint8_t hour, uint8_t minute, uint8_t second)
{
	wr(e, RTC_REG_B, b | RTC_B_SET);
	wr(e, RTC_SECONDS, second);
	wr(e, RTC_MINUTES, minute);
	wr(e, RTC_HOURS, hour);
	wr(e, RTC_DAY_OF_MONTH, day);
	wr(e, RTC_MONTH, month);
	wr(e, RTC_YEAR, year);
	wr(e, RTC_CENTURY, century);
	wr(e, RTC_REG_B, b);
}

static void test_set(void **state)
{
	struct env *e = *state;

	set(e, RTC_B_24H, 0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59);
	expect(e, 0x20240228235959);
	e->now += NS;
	expect(e, 0x20240229000000);
	e->now += 86400 * NS;
	expect(e, 0x20240301000000);
	/* standing still while SET is on */
	wr(e, RTC_REG_B, RTC_B_24H | RTC_B_SET);
	e->now += 1000 * NS;
	expect(e, 0x20240301000000);
	wr(e, RTC_MINUTES, 0x30);
	wr(e, RTC_REG_B, RTC_B_24H);
	expect(e, 0x20240301003000);
	/* binary, 12 hours: 12 is midnight, 12 PM is noon */
	set(e, RTC_B_DM, 19, 99, 12, 31, 12, 0, 0);
	wr(e, RTC_REG_B, RTC_B_24H);
	expect(e, 0x19991231000000);
	set(e, RTC_B_DM, 19, 99, 12, 31, 0x8c, 0, 0);
	wr(e, RTC_REG_B, RTC_B_24H);
	expect(e, 0x19991231120000);
	/* no time: the clock goes on */
	set(e, RTC_B_24H, 0x20, 0x23, 0x02, 0x29, 0, 0, 0);
	expect(e, 0x19991231120000);
	set(e, RTC_B_24H, 0x20, 0x23, 0x13, 0x01, 0, 0, 0);
	set(e, RTC_B_24H, 0x20, 0x23, 0x00, 0x01, 0, 0, 0);
	set(e, RTC_B_24H, 0x20, 0x23, 0x01, 0x00, 0, 0, 0);
	set(e, RTC_B_24H, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
	set(e, RTC_B_DM, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
	set(e, 0, 0x20, 0x23, 0x01, 0x01, 0x00, 0, 0);
	wr(e, RTC_REG_B, RTC_B_24H);
	expect(e, 0x19991231120000);
	/* without SET, one field at a time */
	wr(e, RTC_HOURS, 0x07);
	wr(e, RTC_YEAR, 0x98);
	expect(e, 0x19981231070000);
	wr(e, RTC_MONTH, 0x02); /* the 31st of February is not taken */
	expect(e, 0x19981231070000);
	/* the limits of the calendar */
	set(e, RTC_B_24H, 0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
	expect(e, 0x99991231235959);
	e->now += 100 * NS;
	expect(e, 0x99991231235959);
	set(e, RTC_B_24H, 0x00, 0x00, 0x01, 0x01, 0, 0, 0);
	expect(e, 0x00000101000000);
	e->now -= 1000 * NS; /* the host's clock is set back */
	expect(e, 0x00000101000000);
	device_list_reset(&e->fv->devices);
	e->now += 1001 * NS;
	expect(e, 0x00000101000001);
}

/* The C library knows the calendar, too. */
static void test_calendar(void **state)
{
	struct env *e = *state;

	srand(7);
	wr(e, RTC_REG_B, RTC_B_24H | RTC_B_DM);
	for (int i = 0; i < 20000; i++) {
		int64_t t = ((int64_t)rand() << 31 ^ rand()) % INT64_C(250000000000);
		struct tm tm;
		time_t tt;

		t = i % 2 ? t / 25 : i % 4 ? t : -t / 5;
		e->now = t / (llabs(t) > 9000000000 ? 30 : 1) * NS;
		tt = (time_t)(e->now / NS - (e->now % NS < 0));
		gmtime_r(&tt, &tm);
		assert_int_equal(rd(e, RTC_CENTURY) * 100 + rd(e, RTC_YEAR), tm.tm_year + 1900);
		assert_int_equal(rd(e, RTC_MONTH), tm.tm_mon + 1);
		assert_int_equal(rd(e, RTC_DAY_OF_MONTH), tm.tm_mday);
		assert_int_equal(rd(e, RTC_DAY_OF_WEEK), tm.tm_wday + 1);
		assert_int_equal(rd(e, RTC_HOURS), tm.tm_hour);
		assert_int_equal(rd(e, RTC_SECONDS), tm.tm_sec);
	}
	/* every day of 400 years is set and comes back */
	e->now = 0;
	for (int64_t day = 0; day < 146097; day += 1) {
		time_t tt = (time_t)(day * 86400 + 45296);
		struct tm tm;

		gmtime_r(&tt, &tm);
		set(e, RTC_B_24H | RTC_B_DM, (uint8_t)((tm.tm_year + 1900) / 100),
		    (uint8_t)(tm.tm_year % 100), (uint8_t)(tm.tm_mon + 1), (uint8_t)tm.tm_mday,
		    12, 34, 56);
		assert_int_equal(rd(e, RTC_DAY_OF_MONTH), tm.tm_mday);
		assert_int_equal(rd(e, RTC_DAY_OF_WEEK), tm.tm_wday + 1);
		assert_int_equal(rd(e, RTC_MONTH), tm.tm_mon + 1);
	}
}

/* No second passes between seeing UIP clear and reading the time. */
static void test_snapshot(void **state)
{
	struct env *e = *state;

	e->now = INT64_C(1700000399) * NS + 999999999; /* 22:19:59 and a bit */
	assert_int_equal(rd(e, RTC_REG_A) & RTC_A_UIP, 0);
	e->now += 1000000; /* 1 ms later it is 22:20:00 */
	expect(e, 0x20231114221959);
	e->now += 2000000;
	expect(e, 0x20231114222000);
	/* the host's clock jumps */
	rd(e, RTC_REG_A);
	e->now -= 3600 * NS;
	expect(e, 0x20231114212000);
}

static void test_offset(void **state)
{
	struct env *e = env_new(-3600);
	struct rtc_config cfg = {.offset_s = INT64_MAX};
	struct fake_vm *fv = fake_vm_new(NULL);
	struct err err;

	expect(e, 0x20231114211320);
	fake_vm_free(e->fv);
	free(e);
	assert_true(rtc_new(&fv->vm, &cfg, &err) < 0);
	assert_int_equal(rtc_new(&fv->vm, NULL, &err), 0);
	fake_pio_write(fv, 0x70, RTC_CENTURY, 1);
	assert_in_range(fake_pio_read(fv, 0x71, 1), 0x20, 0x21);
	fake_vm_free(fv);
}

static void test_state(void **state)
{
	struct env *e = *state, *to = env_new(12345);

	/* in the middle of setting it */
	wr(e, RTC_REG_B, RTC_B_24H | RTC_B_SET);
	wr(e, RTC_HOURS, 0x01);
	wr(e, RTC_SECONDS_ALARM, 0x77);
	fake_pio_write(e->fv, 0x70, RTC_MINUTES, 1);
	fake_vm_pause(e->fv);
	fake_vm_pause(to->fv);
	assert_int_equal(fake_vm_transfer(e->fv, to->fv, NULL), 0);
	to->now += 500 * NS;
	assert_int_equal(fake_pio_read(to->fv, 0x71, 1), 0x13);
	expect(to, 0x20231114011320);
	wr(to, RTC_REG_B, RTC_B_24H);
	expect(to, 0x20231114011320);
	assert_int_equal(rd(to, RTC_SECONDS_ALARM), 0x77);
	/* and running, with the offset */
	fake_vm_pause(e->fv);
	assert_int_equal(fake_vm_transfer(to->fv, e->fv, NULL), 0);
	e->now = to->now + NS;
	expect(e, 0x20231114011321);
	fake_vm_free(to->fv);
	free(to);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_read),	  T(test_set),	  T(test_calendar),
		T(test_snapshot), T(test_offset), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
