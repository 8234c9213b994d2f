/*
 * Power management ports: ACPI PM timer and sleep registers.
 * ACPI 6.5, 4.8.3.3 (PM timer), 4.8.3.7 (SLEEP_CONTROL_REG, SLEEP_STATUS_REG); the layout of
 * the block and why it serves firmware for Q35 too are in spec/platform_x86.h.
 *
 *   0x600-0x603  PM1 event block of Q35: reads 0
 *   0x604-0x605  PM1_CNT of Q35; its upper byte is SLEEP_CONTROL: S5 powers the machine off
 *   0x606        SLEEP_STATUS: reads 0 (this machine never wakes up), ignores writes
 *   0x608-0x60B  PM timer: 24 bits at 3.579545 MHz, no interrupt
 *
 * The timer is computed from CLOCK_MONOTONIC when it is read: firmware reads it up to a
 * million times a boot, so this is one clock reading and a multiplication, without a lock and
 * on the vCPU's thread. It stands still while the machine is paused and goes on with the same
 * value after its state was loaded elsewhere.
 *
 * Threads: accesses on vCPU threads; `base_ns` is atomic and changes only while paused.
 * Untrusted: the guest.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "core/power.h"
#include "device/platform/platform_int.h"
#include "device/platform/pm.h"
#include "event/loop.h"
#include "spec/platform_x86.h"

#define PM_TIMER_HZ   UINT64_C(3579545)
#define PM_TIMER_MASK UINT32_C(0xffffff)
#define NS_PER_SEC    UINT64_C(1000000000)

#define SLP_EN	      0x20u /* in SLEEP_CONTROL */
#define SLP_TYP_SHIFT 2
#define SLP_TYP_MASK  7u

#define SLEEP_CTL_OFF (PLAT_SLEEP_CTL_PORT - PLAT_PM_PORT)
#define TIMER_OFF     (PLAT_PM_TIMER_PORT - PLAT_PM_PORT)

struct pm {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	_Atomic uint64_t base_ns; /* the time at which the timer was 0 */
	uint64_t paused_ns;	  /* what the timer had run for when it was paused */
};

static uint64_t pm_elapsed_ns(struct pm *pm)
{
	return loop_now_ns(pm->vm->loop) -
	       atomic_load_explicit(&pm->base_ns, memory_order_relaxed);
}

static uint32_t pm_timer(uint64_t ns)
{
	/* seconds apart, so that the product cannot overflow: years fit */
	uint64_t ticks =
		ns / NS_PER_SEC * PM_TIMER_HZ + ns % NS_PER_SEC * PM_TIMER_HZ / NS_PER_SEC;

	return (uint32_t)ticks & PM_TIMER_MASK;
}

static uint64_t pm_read(void *opaque, uint64_t off, unsigned size)
{
	struct pm *pm = opaque;

	if (off < TIMER_OFF) {
		return 0;
	}
	return pm_timer(pm_elapsed_ns(pm)) >> 8 * (off - TIMER_OFF);
}

static void pm_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pm *pm = opaque;
	uint8_t ctl;

	if (off > SLEEP_CTL_OFF || off + size <= SLEEP_CTL_OFF) {
		return;
	}
	ctl = (uint8_t)(value >> 8 * (SLEEP_CTL_OFF - off));
	if (!(ctl & SLP_EN)) {
		return;
	}
	if ((ctl >> SLP_TYP_SHIFT & SLP_TYP_MASK) != PLAT_S5_TYPE) {
		log_guest(pm->dev.id, "sleep type %u is not there, only S5 is",
			  ctl >> SLP_TYP_SHIFT & SLP_TYP_MASK);
		return;
	}
	pm->vm->power->request(pm->vm->power, POWER_OFF);
}

static const struct bus_ops pm_bus_ops = {
	.read = pm_read,
	.write = pm_write,
	.min_size = 1,
	.max_size = 4,
};

static void pm_reset(struct device *d)
{
	/* The timer is free-running: a reset does not change it, as on hardware. */
}

static void pm_pause(struct device *d)
{
	struct pm *pm = container_of(d, struct pm, dev);

	pm->paused_ns = pm_elapsed_ns(pm);
	device_paused(d);
}

static void pm_resume(struct device *d)
{
	struct pm *pm = container_of(d, struct pm, dev);

	atomic_store(&pm->base_ns, loop_now_ns(pm->vm->loop) - pm->paused_ns);
}

static void pm_destroy(struct device *d)
{
	struct pm *pm = container_of(d, struct pm, dev);

	bus_del(pm->vm->bus, &pm->region);
	free(pm);
}

struct pm_state {
	uint64_t elapsed_ns;
};
static const struct state_desc pm_desc = {
	.name = "pm",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pm_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U64(struct pm_state, elapsed_ns),
			STATE_F_END,
		},
};

static int pm_save(struct device *d, void *p, struct err *err)
{
	struct pm *pm = container_of(d, struct pm, dev);

	((struct pm_state *)p)->elapsed_ns = pm->paused_ns;
	return 0;
}

static int pm_load(struct device *d, const void *p, struct err *err)
{
	struct pm *pm = container_of(d, struct pm, dev);

	pm->paused_ns = ((const struct pm_state *)p)->elapsed_ns;
	atomic_store(&pm->base_ns, loop_now_ns(pm->vm->loop) - pm->paused_ns);
	return 0;
}

static const struct device_state_ops pm_state_ops = {
	.desc = &pm_desc,
	.save = pm_save,
	.load = pm_load,
};
static const struct device_ops pm_ops = {
	.name = "pm",
	.reset = pm_reset,
	.pause = pm_pause,
	.resume = pm_resume,
	.destroy = pm_destroy,
	.state = (const struct device_state_ops *const[]){&pm_state_ops, NULL},
};

int pm_new(struct vm *vm, struct err *err)
{
	struct pm *pm = calloc(1, sizeof(*pm));
	int ret;

	if (!pm) {
		return err_set(err, ENOMEM, "no memory for the power management ports");
	}
	pm->vm = vm;
	atomic_init(&pm->base_ns, loop_now_ns(vm->loop));
	pm->region = (struct bus_region){
		.name = "pm",
		.space = BUS_PIO,
		.base = PLAT_PM_PORT,
		.size = PLAT_PM_LEN,
		.ops = &pm_bus_ops,
		.opaque = pm,
	};
	ret = platform_add(vm, &pm->dev, &pm_ops, "pm", &pm->region, err);
	if (ret) {
		free(pm);
	}
	return ret;
}
