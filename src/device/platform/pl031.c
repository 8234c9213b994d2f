/*
 * PrimeCell real time clock (PL031). ARM DDI 0224C.
 *
 * A 32-bit counter of seconds since 1970: the host's UTC plus `offset`, which the guest changes by
 * loading the counter. It cannot be stopped (CR reads 1). When the counter reaches MR the
 * interrupt is raised, by a timer of the control loop that looks again whenever it comes.
 *
 * Threads: registers on vCPU threads under `lock`; the timer on the control loop, to which changes
 * of MR and of the counter are posted. Untrusted: the guest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/util.h"
#include "device/platform/platform_int.h"
#include "device/platform/primecell.h"
#include "event/loop.h"
#include "spec/primecell.h"

#define NS_PER_SEC INT64_C(1000000000)
#define LOOK_S	   3600u /* the host's clock may be set meanwhile */

/* What the guest has set, and its state. */
struct pl031_regs {
	uint64_t offset_s; /* two's complement: the clock goes on while a machine is saved */
	uint32_t mr, lr;
	bool mr_set; /* there is an alarm that has not come */
	bool imsc, ris, irq_level;
};

struct pl031 {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct pl031_config cfg;

	pthread_mutex_t lock;
	struct pl031_regs r;

	struct loop_work work;
	struct loop_timer timer; /* control loop */
};

static int64_t now_s(const struct pl031 *r)
{
	struct timespec ts;

	if (r->cfg.now) {
		return r->cfg.now(r->cfg.opaque) / NS_PER_SEC;
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec;
}

static uint32_t counter(const struct pl031 *r)
{
	return (uint32_t)((uint64_t)now_s(r) + r->r.offset_s);
}

static void update_locked(struct pl031 *r)
{
	bool level = r->r.ris && r->r.imsc;

	if (level != r->r.irq_level) {
		r->r.irq_level = level;
		irq_line_set(&r->cfg.line, level);
	}
}

/* Control loop. */
static void alarm_fn(void *opaque)
{
	struct pl031 *r = opaque;
	uint32_t left;

	pthread_mutex_lock(&r->lock);
	left = r->r.mr - counter(r);
	if (r->r.mr_set && (left == 0 || left > INT32_MAX)) { /* reached or just passed */
		r->r.mr_set = false;
		r->r.ris = true;
		update_locked(r);
	}
	if (r->r.mr_set) {
		loop_timer_arm(&r->timer, loop_now_ns(r->vm->loop) +
						  MIN(left, LOOK_S) * (uint64_t)NS_PER_SEC);
	} else {
		loop_timer_disarm(&r->timer);
	}
	pthread_mutex_unlock(&r->lock);
}

static uint64_t pl031_read(void *opaque, uint64_t off, unsigned size)
{
	static const uint8_t id[8] = {0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
	struct pl031 *r = opaque;
	uint64_t v = 0;

	pthread_mutex_lock(&r->lock);
	switch (off) {
	case PL031_DR:
		v = counter(r);
		break;
	case PL031_MR:
		v = r->r.mr;
		break;
	case PL031_LR:
		v = r->r.lr;
		break;
	case PL031_CR:
		v = 1;
		break;
	case PL031_IMSC:
		v = r->r.imsc;
		break;
	case PL031_RIS:
		v = r->r.ris;
		break;
	case PL031_MIS:
		v = r->r.ris && r->r.imsc;
		break;
	default:
		v = off >= PRIMECELL_ID && off % 4 == 0 ? id[(off - PRIMECELL_ID) / 4] : 0;
		break;
	}
	pthread_mutex_unlock(&r->lock);
	return v;
}

static void pl031_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pl031 *r = opaque;
	uint32_t v = (uint32_t)value;

	pthread_mutex_lock(&r->lock);
	switch (off) {
	case PL031_MR:
		r->r.mr = v;
		/* one that lies behind comes when the counter has gone round */
		r->r.mr_set = v - counter(r) <= INT32_MAX;
		loop_post(r->vm->loop, &r->work);
		break;
	case PL031_LR:
		r->r.lr = v;
		r->r.offset_s = v - (uint64_t)now_s(r);
		loop_post(r->vm->loop, &r->work);
		break;
	case PL031_IMSC:
		r->r.imsc = v & 1;
		break;
	case PL031_ICR:
		r->r.ris = r->r.ris && !(v & 1);
		break;
	default:
		break;
	}
	update_locked(r);
	pthread_mutex_unlock(&r->lock);
}

static const struct bus_ops pl031_bus_ops = {
	.read = pl031_read,
	.write = pl031_write,
	.min_size = 1,
	.max_size = 4,
};

static const struct state_desc pl031_desc = {
	.name = "pl031",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pl031_regs),
	.fields =
		(const struct state_field[]){
			STATE_F_U64(struct pl031_regs, offset_s),
			STATE_F_U32(struct pl031_regs, mr),
			STATE_F_U32(struct pl031_regs, lr),
			STATE_F_BOOL(struct pl031_regs, mr_set),
			STATE_F_BOOL(struct pl031_regs, imsc),
			STATE_F_BOOL(struct pl031_regs, ris),
			STATE_F_BOOL(struct pl031_regs, irq_level),
			STATE_F_END,
		},
};

static int pl031_save(struct device *d, void *p, struct err *err)
{
	struct pl031 *r = container_of(d, struct pl031, dev);

	pthread_mutex_lock(&r->lock);
	*(struct pl031_regs *)p = r->r;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static int pl031_load(struct device *d, const void *p, struct err *err)
{
	struct pl031 *r = container_of(d, struct pl031, dev);
	const struct pl031_regs *st = p;

	pthread_mutex_lock(&r->lock);
	r->r = *st;
	r->r.offset_s = (uint64_t)(int32_t)st->offset_s; /* what a guest can make of it */
	pthread_mutex_unlock(&r->lock);
	loop_post(r->vm->loop, &r->work);
	return 0;
}

/* The clock goes on, the alarm does not. */
static void pl031_reset(struct device *d)
{
	struct pl031 *r = container_of(d, struct pl031, dev);

	pthread_mutex_lock(&r->lock);
	r->r.mr = r->r.lr = 0;
	r->r.mr_set = r->r.imsc = r->r.ris = false;
	update_locked(r);
	pthread_mutex_unlock(&r->lock);
	loop_timer_disarm(&r->timer);
}

static void pl031_destroy(struct device *d)
{
	struct pl031 *r = container_of(d, struct pl031, dev);

	bus_del(r->vm->bus, &r->region);
	loop_work_cancel(r->vm->loop, &r->work);
	loop_timer_disarm(&r->timer);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct device_state_ops pl031_state_ops = {
	.desc = &pl031_desc,
	.save = pl031_save,
	.load = pl031_load,
};
static const struct device_ops pl031_ops = {
	.name = "pl031",
	.reset = pl031_reset,
	.destroy = pl031_destroy,
	.state = (const struct device_state_ops *const[]){&pl031_state_ops, NULL},
};

int pl031_new(struct vm *vm, const struct pl031_config *cfg, struct err *err)
{
	struct pl031 *r = calloc(1, sizeof(*r));
	int ret;

	if (!r) {
		return err_set(err, ENOMEM, "no memory for the real-time clock");
	}
	r->vm = vm;
	r->cfg = *cfg;
	r->r.offset_s = (uint64_t)cfg->offset_s;
	pthread_mutex_init(&r->lock, NULL);
	r->work = (struct loop_work){.fn = alarm_fn, .arg = r};
	loop_timer_init(vm->loop, &r->timer, alarm_fn, r);
	r->region = (struct bus_region){
		.name = "pl031",
		.space = BUS_MMIO,
		.base = cfg->base,
		.size = PRIMECELL_SIZE,
		.ops = &pl031_bus_ops,
		.opaque = r,
	};
	ret = platform_add(vm, &r->dev, &pl031_ops, "rtc", &r->region, err);
	if (ret) {
		pthread_mutex_destroy(&r->lock);
		free(r);
	}
	return ret;
}
