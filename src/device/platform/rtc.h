/*
 * Real-time clock at ports 0x70/0x71, polled: no alarm, no interrupt.
 */
#ifndef DEVICE_PLATFORM_RTC_H
#define DEVICE_PLATFORM_RTC_H

#include <stdint.h>

#include "base/err.h"
#include "core/vm.h"

struct rtc_config {
	int64_t offset_s; /* guest clock minus host UTC, seconds: -rtc base= */
	/* Host UTC in nanoseconds since 1970; NULL: CLOCK_REALTIME. For tests. Any thread. */
	int64_t (*now)(void *opaque);
	void *opaque;
};
/* Makes the device "rtc" and registers it in vm->devices, which destroys it. cfg may be NULL.
 * Control loop. */
int rtc_new(struct vm *vm, const struct rtc_config *cfg, struct err *err);

#endif
