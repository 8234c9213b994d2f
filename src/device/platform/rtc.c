/*
 * Real-time clock: the part of an MC146818 that is polled. Motorola MC146818 datasheet; the
 * century is at 0x32.
 *
 * Port 0x70 latches an index (bit 7, the NMI mask of PCs, is dropped), port 0x71 reads and
 * writes that register. There are time and date, the alarm bytes (stored, without effect) and
 * the control registers; everything else, among it the shutdown status 0x0F, reads 0.
 *
 * The time is the host's UTC plus `offset_s`; nothing ticks here. Update-in-progress is never
 * set. What it is there for, that no update comes between reading it and reading the time, is
 * kept by a snapshot: after register A was read the time stands still for SNAPSHOT_NS.
 *
 * While SET (register B) is on, the time registers are bytes in `held` that the guest may write;
 * when it is turned off they become the time if they make one. Without SET a write changes that
 * field of the running time at once.
 *
 * Invariants: offset_s gives years 0..9999 for host times that do; `held` is in use exactly while
 * SET is on.
 * Threads: accesses on vCPU threads under `lock`. No C library time functions: they may open
 * files. Untrusted: the guest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/util.h"
#include "device/platform/platform_int.h"
#include "device/platform/rtc.h"
#include "spec/mc146818.h"
#include "spec/platform_x86.h"

#define NS_PER_SEC  INT64_C(1000000000)
#define DAY_S	    INT64_C(86400)
#define SNAPSHOT_NS INT64_C(2000000)
/* 0000-01-01 and 10000-01-01 in seconds since 1970 */
#define TIME_MIN INT64_C(-62167219200)
#define TIME_MAX INT64_C(253402300799)

#define HELD	     11 /* registers 0..9, then the century */
#define HELD_CENTURY 10

struct rtc {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	int64_t (*now)(void *opaque);
	void *opaque;

	pthread_mutex_t lock;
	uint8_t index;
	uint8_t a, b;
	uint8_t alarm[3]; /* seconds, minutes, hours */
	uint8_t held[HELD];
	int64_t offset_s;
	int64_t snapshot_s, snapshot_until_ns; /* host time */
};

/* --- calendar --- */

struct date {
	unsigned year, month, day, weekday; /* month 1..12, weekday 1..7, Sunday first */
	unsigned hour, minute, second;
};

static bool leap(unsigned year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static unsigned month_days(unsigned year, unsigned month)
{
	static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return days[month - 1] + (month == 2 && leap(year));
}

/* Days from 0000-01-01 to the first day of the year (proleptic Gregorian). */
static int64_t days_before_year(unsigned year)
{
	unsigned y = year ? year - 1 : 0; /* the last full year, year 0 apart */

	return year ? 366 + (int64_t)y * 365 + y / 4 - y / 100 + y / 400 : 0;
}

static struct date date_of(int64_t t)
{
	int64_t days, rest, since = MIN(MAX(t, TIME_MIN), TIME_MAX) - TIME_MIN;
	struct date d;

	days = since / DAY_S;
	rest = since % DAY_S;
	d.hour = (unsigned)(rest / 3600);
	d.minute = (unsigned)(rest / 60 % 60);
	d.second = (unsigned)(rest % 60);
	d.weekday = (unsigned)((days + 6) % 7) + 1; /* 0000-01-01 was a Saturday */
	d.year = (unsigned)(days / 366);	    /* never too large, a few too small */
	while (days_before_year(d.year + 1) <= days) {
		d.year++;
	}
	days -= days_before_year(d.year);
	d.month = 1;
	while (days >= month_days(d.year, d.month)) {
		days -= month_days(d.year, d.month);
		d.month++;
	}
	d.day = (unsigned)days + 1;
	return d;
}

/* False if there is no such moment. */
static bool time_of(const struct date *d, int64_t *t)
{
	int64_t days;

	if (d->year > 9999 || d->month < 1 || d->month > 12 || d->day < 1 ||
	    d->day > month_days(d->year, d->month) || d->hour > 23 || d->minute > 59 ||
	    d->second > 59) {
		return false;
	}
	days = days_before_year(d->year) + d->day - 1;
	for (unsigned m = 1; m < d->month; m++) {
		days += month_days(d->year, m);
	}
	*t = TIME_MIN + days * DAY_S + d->hour * 3600 + d->minute * 60 + d->second;
	return true;
}

/* --- encodings, as register B says --- */

static uint8_t encode(const struct rtc *r, unsigned v)
{
	return (uint8_t)(r->b & RTC_B_DM ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
	return r->b & RTC_B_DM ? v : (v >> 4) * 10u + (v & 0x0f);
}

static uint8_t encode_hour(const struct rtc *r, unsigned hour)
{
	if (r->b & RTC_B_24H) {
		return encode(r, hour);
	}
	return encode(r, (hour + 11) % 12 + 1) | (hour >= 12 ? RTC_HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
	unsigned h;

	if (r->b & RTC_B_24H) {
		return decode(r, v);
	}
	h = decode(r, v & (uint8_t)~RTC_HOUR_PM);
	if (h < 1 || h > 12) {
		return 24; /* no hour */
	}
	return h % 12 + (v & RTC_HOUR_PM ? 12 : 0);
}

static void held_fill(const struct rtc *r, uint8_t held[HELD], int64_t t)
{
	struct date d = date_of(t);

	held[RTC_SECONDS] = encode(r, d.second);
	held[RTC_MINUTES] = encode(r, d.minute);
	held[RTC_HOURS] = encode_hour(r, d.hour);
	held[RTC_DAY_OF_WEEK] = encode(r, d.weekday);
	held[RTC_DAY_OF_MONTH] = encode(r, d.day);
	held[RTC_MONTH] = encode(r, d.month);
	held[RTC_YEAR] = encode(r, d.year % 100);
	held[HELD_CENTURY] = encode(r, d.year / 100);
	held[RTC_SECONDS_ALARM] = r->alarm[0];
	held[RTC_MINUTES_ALARM] = r->alarm[1];
	held[RTC_HOURS_ALARM] = r->alarm[2];
}

static bool held_time(const struct rtc *r, const uint8_t held[HELD], int64_t *t)
{
	struct date d = {
		.second = decode(r, held[RTC_SECONDS]),
		.minute = decode(r, held[RTC_MINUTES]),
		.hour = decode_hour(r, held[RTC_HOURS]),
		.day = decode(r, held[RTC_DAY_OF_MONTH]),
		.month = decode(r, held[RTC_MONTH]),
		.year = decode(r, held[HELD_CENTURY]) * 100 + decode(r, held[RTC_YEAR]),
	};

	return decode(r, held[RTC_YEAR]) < 100 && time_of(&d, t);
}

/* --- time --- */

/* #syscalls: clock_gettime */
static int64_t host_now(void *opaque)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t host_seconds(struct rtc *r)
{
	int64_t ns = r->now(r->opaque);

	return ns / NS_PER_SEC - (ns % NS_PER_SEC < 0);
}

/* The guest's time as its registers show it. */
static int64_t guest_seconds_locked(struct rtc *r)
{
	int64_t ns = r->now(r->opaque);

	/* also when the host's clock was set back meanwhile */
	if (ns < r->snapshot_until_ns && r->snapshot_until_ns - ns <= SNAPSHOT_NS) {
		return r->snapshot_s + r->offset_s;
	}
	return host_seconds(r) + r->offset_s;
}

static void set_time_locked(struct rtc *r, const uint8_t held[HELD])
{
	int64_t t;

	if (!held_time(r, held, &t)) {
		log_guest(r->dev.id, "the time written to it is none; it goes on as before");
		return;
	}
	r->offset_s = t - host_seconds(r);
	r->snapshot_until_ns = 0;
}

/* --- registers --- */

/* The index of a time register in held[], or -1. */
static int held_index(unsigned reg)
{
	return reg <= RTC_YEAR ? (int)reg : reg == RTC_CENTURY ? HELD_CENTURY : -1;
}

static uint8_t reg_read_locked(struct rtc *r)
{
	uint8_t held[HELD];
	int at = held_index(r->index);

	if (at >= 0) {
		if (r->b & RTC_B_SET) {
			return r->held[at];
		}
		held_fill(r, held, guest_seconds_locked(r));
		return held[at];
	}
	switch (r->index) {
	case RTC_REG_A:
		r->snapshot_s = host_seconds(r);
		r->snapshot_until_ns = r->now(r->opaque) + SNAPSHOT_NS;
		return r->a;
	case RTC_REG_B:
		return r->b;
	case RTC_REG_D:
		return RTC_D_VRT;
	default:
		return 0; /* register C has no interrupt to report */
	}
}

static void reg_b_write_locked(struct rtc *r, uint8_t v)
{
	bool was = r->b & RTC_B_SET;

	if (!was && v & RTC_B_SET) {
		/* in the new encoding, which is the one that the guest will write in */
		int64_t t = guest_seconds_locked(r);

		r->b = v;
		held_fill(r, r->held, t);
		return;
	}
	r->b = v;
	if (was && !(v & RTC_B_SET)) {
		set_time_locked(r, r->held);
	}
}

static void reg_write_locked(struct rtc *r, uint8_t v)
{
	int at = held_index(r->index);

	switch (r->index) {
	case RTC_SECONDS_ALARM:
	case RTC_MINUTES_ALARM:
	case RTC_HOURS_ALARM:
		r->alarm[r->index / 2] = v;
		r->held[at] = v;
		return;
	case RTC_REG_A:
		r->a = v & RTC_A_DV_RS;
		return;
	case RTC_REG_B:
		reg_b_write_locked(r, v);
		return;
	default:
		break;
	}
	if (at < 0 || (at == RTC_DAY_OF_WEEK && !(r->b & RTC_B_SET))) {
		return; /* the weekday follows from the date */
	}
	if (r->b & RTC_B_SET) {
		r->held[at] = v;
	} else {
		uint8_t held[HELD];

		held_fill(r, held, guest_seconds_locked(r));
		held[at] = v;
		set_time_locked(r, held);
	}
}

static uint64_t rtc_read(void *opaque, uint64_t off, unsigned size)
{
	struct rtc *r = opaque;
	uint8_t v;

	if (!off) {
		return UINT64_MAX; /* the index cannot be read back */
	}
	pthread_mutex_lock(&r->lock);
	v = reg_read_locked(r);
	pthread_mutex_unlock(&r->lock);
	return v;
}

static void rtc_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	if (!off) {
		r->index = value & 0x7f;
	} else {
		reg_write_locked(r, (uint8_t)value);
	}
	pthread_mutex_unlock(&r->lock);
}

static const struct bus_ops rtc_bus_ops = {
	.read = rtc_read,
	.write = rtc_write,
	.min_size = 1,
	.max_size = 1,
};

/* --- state --- */

struct rtc_state {
	uint8_t index, a, b;
	uint8_t alarm[3];
	uint8_t held[HELD];
	uint64_t offset_s; /* two's complement */
};

static int rtc_validate(const void *p, struct err *err)
{
	const struct rtc_state *st = p;
	int64_t offset = (int64_t)st->offset_s;

	if (offset < -2 * TIME_MAX || offset > 2 * TIME_MAX) {
		return err_set(err, EINVAL, "the state has a clock that is off by %lld s",
			       (long long)offset);
	}
	return 0;
}

static const struct state_desc rtc_desc = {
	.name = "rtc",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct rtc_state),
	.fields =
		(const struct state_field[]){
			STATE_F_RANGE(STATE_U8, struct rtc_state, index, 0, 0x7f),
			STATE_F_RANGE(STATE_U8, struct rtc_state, a, 0, RTC_A_DV_RS),
			STATE_F_U8(struct rtc_state, b),
			STATE_F_BYTES(struct rtc_state, alarm),
			STATE_F_BYTES(struct rtc_state, held),
			STATE_F_U64(struct rtc_state, offset_s),
			STATE_F_END,
		},
	.validate = rtc_validate,
};

static int rtc_save(struct device *d, void *p, struct err *err)
{
	struct rtc *r = container_of(d, struct rtc, dev);
	struct rtc_state *st = p;

	pthread_mutex_lock(&r->lock);
	st->index = r->index;
	st->a = r->a;
	st->b = r->b;
	memcpy(st->alarm, r->alarm, sizeof(st->alarm));
	memcpy(st->held, r->held, sizeof(st->held));
	st->offset_s = (uint64_t)r->offset_s;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static int rtc_load(struct device *d, const void *p, struct err *err)
{
	struct rtc *r = container_of(d, struct rtc, dev);
	const struct rtc_state *st = p;

	pthread_mutex_lock(&r->lock);
	r->index = st->index;
	r->a = st->a;
	r->b = st->b;
	memcpy(r->alarm, st->alarm, sizeof(st->alarm));
	memcpy(r->held, st->held, sizeof(st->held));
	r->offset_s = (int64_t)st->offset_s;
	r->snapshot_until_ns = 0;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

/* --- life --- */

static void rtc_reset(struct device *d)
{
	/* It runs on a battery: a reset of the machine changes nothing that is there. */
}

static void rtc_destroy(struct device *d)
{
	struct rtc *r = container_of(d, struct rtc, dev);

	bus_del(r->vm->bus, &r->region);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct device_state_ops rtc_state_ops = {
	.desc = &rtc_desc,
	.save = rtc_save,
	.load = rtc_load,
};
static const struct device_ops rtc_ops = {
	.name = "rtc",
	.reset = rtc_reset,
	.destroy = rtc_destroy,
	.state = (const struct device_state_ops *const[]){&rtc_state_ops, NULL},
};

int rtc_new(struct vm *vm, const struct rtc_config *cfg, struct err *err)
{
	struct rtc *r = calloc(1, sizeof(*r));
	int ret;

	if (!r) {
		return err_set(err, ENOMEM, "no memory for the real-time clock");
	}
	if (cfg && (cfg->offset_s < -2 * TIME_MAX || cfg->offset_s > 2 * TIME_MAX)) {
		free(r);
		return err_set(err, EINVAL,
			       "-rtc: a clock that is off by %lld s is outside of the "
			       "years 0 to 9999",
			       (long long)cfg->offset_s);
	}
	r->vm = vm;
	r->now = cfg && cfg->now ? cfg->now : host_now;
	r->opaque = cfg ? cfg->opaque : NULL;
	r->offset_s = cfg ? cfg->offset_s : 0;
	r->a = RTC_A_RESET;
	r->b = RTC_B_24H;
	pthread_mutex_init(&r->lock, NULL);
	r->region = (struct bus_region){
		.name = "rtc",
		.space = BUS_PIO,
		.base = PLAT_RTC_PORT,
		.size = PLAT_RTC_LEN,
		.ops = &rtc_bus_ops,
		.opaque = r,
	};
	ret = platform_add(vm, &r->dev, &rtc_ops, "rtc", &r->region, err);
	if (ret) {
		pthread_mutex_destroy(&r->lock);
		free(r);
	}
	return ret;
}
