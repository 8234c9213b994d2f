/*
 * The one function of util.h that is not inline.
 */
#include "base/util.h"

#include <time.h>

/* #syscalls: clock_gettime (the vDSO serves it on every clock source but the slow ones) */
uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}
