/*
 * PrimeCell GPIO (PL061). ARM DDI 0190B. Eight pins; what is not an output is low, but for a key
 * that is pressed.
 *
 * An interrupt is pending by edge (latched until it is cleared) or by level, as IS, IBE and IEV
 * say. Threads: registers on vCPU threads under `lock`; keys and their timer on the control loop.
 * Untrusted: the guest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/util.h"
#include "device/platform/platform_int.h"
#include "device/platform/primecell.h"
#include "event/loop.h"
#include "spec/primecell.h"

#define PRESS_NS UINT64_C(100000000)

/* The registers; in: what keys do to the pins. Also the state. */
struct pl061_regs {
	uint8_t in, out, dir, is, ibe, iev, ie, edges, afsel;
	bool irq_level;
};

struct pl061 {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct irq_line line;

	pthread_mutex_t lock;
	struct pl061_regs r;

	struct loop_timer release;
};

static uint8_t pins(const struct pl061 *g)
{
	return (uint8_t)((g->r.out & g->r.dir) | (g->r.in & ~g->r.dir));
}

static uint8_t ris(const struct pl061 *g)
{
	uint8_t level = (uint8_t) ~(pins(g) ^ g->r.iev);

	return (uint8_t)((g->r.is & level) | (~g->r.is & g->r.edges));
}

/* before: the pins before whatever happened */
static void update_locked(struct pl061 *g, uint8_t before)
{
	uint8_t now = pins(g), up = now & ~before, down = before & ~now;
	bool level;

	g->r.edges |=
		(uint8_t)(~g->r.is & ((g->r.ibe & (up | down)) |
				      (~g->r.ibe & ((g->r.iev & up) | (~g->r.iev & down)))));
	level = ris(g) & g->r.ie;
	if (level != g->r.irq_level) {
		g->r.irq_level = level;
		irq_line_set(&g->line, level);
	}
}

static uint64_t pl061_read(void *opaque, uint64_t off, unsigned size)
{
	static const uint8_t id[8] = {0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
	struct pl061 *g = opaque;
	uint64_t v;

	pthread_mutex_lock(&g->lock);
	switch (off) {
	case PL061_DATA ... PL061_DATA_END - 1:
		v = pins(g) & (off >> 2);
		break;
	case PL061_DIR:
		v = g->r.dir;
		break;
	case PL061_IS:
		v = g->r.is;
		break;
	case PL061_IBE:
		v = g->r.ibe;
		break;
	case PL061_IEV:
		v = g->r.iev;
		break;
	case PL061_IE:
		v = g->r.ie;
		break;
	case PL061_RIS:
		v = ris(g);
		break;
	case PL061_MIS:
		v = ris(g) & g->r.ie;
		break;
	case PL061_AFSEL:
		v = g->r.afsel;
		break;
	default:
		v = off >= PRIMECELL_ID && off % 4 == 0 ? id[(off - PRIMECELL_ID) / 4] : 0;
		break;
	}
	pthread_mutex_unlock(&g->lock);
	return v;
}

static void pl061_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pl061 *g = opaque;
	uint8_t v = (uint8_t)value, mask, before;

	pthread_mutex_lock(&g->lock);
	before = pins(g);
	switch (off) {
	case PL061_DATA ... PL061_DATA_END - 1:
		mask = (uint8_t)(off >> 2) & g->r.dir;
		g->r.out = (uint8_t)((g->r.out & ~mask) | (v & mask));
		break;
	case PL061_DIR:
		g->r.dir = v;
		break;
	case PL061_IS:
		g->r.is = v;
		break;
	case PL061_IBE:
		g->r.ibe = v;
		break;
	case PL061_IEV:
		g->r.iev = v;
		break;
	case PL061_IE:
		g->r.ie = v;
		break;
	case PL061_IC:
		g->r.edges &= (uint8_t)~v;
		break;
	case PL061_AFSEL:
		g->r.afsel = v; /* no pin has another function */
		break;
	default:
		break;
	}
	update_locked(g, before);
	pthread_mutex_unlock(&g->lock);
}

static const struct bus_ops pl061_bus_ops = {
	.read = pl061_read,
	.write = pl061_write,
	.min_size = 1,
	.max_size = 4,
};

static void pin_set(struct pl061 *g, uint8_t clear, uint8_t set)
{
	uint8_t before;

	pthread_mutex_lock(&g->lock);
	before = pins(g);
	g->r.in = (uint8_t)((g->r.in & ~clear) | set);
	update_locked(g, before);
	pthread_mutex_unlock(&g->lock);
}

static void release_fn(void *opaque)
{
	pin_set(opaque, 0xff, 0);
}

void pl061_press(struct pl061 *g, unsigned pin)
{
	pin_set(g, 0, (uint8_t)(1u << pin));
	loop_timer_arm(&g->release, loop_now_ns(g->vm->loop) + PRESS_NS);
}

static const struct state_desc pl061_desc = {
	.name = "pl061",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pl061_regs),
	.fields =
		(const struct state_field[]){
			STATE_F_U8(struct pl061_regs, in),
			STATE_F_U8(struct pl061_regs, out),
			STATE_F_U8(struct pl061_regs, dir),
			STATE_F_U8(struct pl061_regs, is),
			STATE_F_U8(struct pl061_regs, ibe),
			STATE_F_U8(struct pl061_regs, iev),
			STATE_F_U8(struct pl061_regs, ie),
			STATE_F_U8(struct pl061_regs, edges),
			STATE_F_U8(struct pl061_regs, afsel),
			STATE_F_BOOL(struct pl061_regs, irq_level),
			STATE_F_END,
		},
};

static int pl061_save(struct device *d, void *p, struct err *err)
{
	struct pl061 *g = container_of(d, struct pl061, dev);

	pthread_mutex_lock(&g->lock);
	*(struct pl061_regs *)p = g->r;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int pl061_load(struct device *d, const void *p, struct err *err)
{
	struct pl061 *g = container_of(d, struct pl061, dev);
	const struct pl061_regs *st = p;

	pthread_mutex_lock(&g->lock);
	g->r = *st;
	pthread_mutex_unlock(&g->lock);
	if (st->in) {
		loop_timer_arm(&g->release, loop_now_ns(g->vm->loop) + PRESS_NS);
	}
	return 0;
}

static void pl061_reset(struct device *d)
{
	struct pl061 *g = container_of(d, struct pl061, dev);

	loop_timer_disarm(&g->release);
	pthread_mutex_lock(&g->lock);
	g->r = (struct pl061_regs){.irq_level = g->r.irq_level};
	update_locked(g, 0);
	pthread_mutex_unlock(&g->lock);
}

static void pl061_destroy(struct device *d)
{
	struct pl061 *g = container_of(d, struct pl061, dev);

	bus_del(g->vm->bus, &g->region);
	loop_timer_disarm(&g->release);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static const struct device_state_ops pl061_state_ops = {
	.desc = &pl061_desc,
	.save = pl061_save,
	.load = pl061_load,
};
static const struct device_ops pl061_ops = {
	.name = "pl061",
	.reset = pl061_reset,
	.destroy = pl061_destroy,
	.state = (const struct device_state_ops *const[]){&pl061_state_ops, NULL},
};

int pl061_new(struct vm *vm, uint64_t base, struct irq_line line, struct pl061 **out,
	      struct err *err)
{
	struct pl061 *g = calloc(1, sizeof(*g));
	int ret;

	if (!g) {
		return err_set(err, ENOMEM, "no memory for the GPIO controller");
	}
	g->vm = vm;
	g->line = line;
	pthread_mutex_init(&g->lock, NULL);
	loop_timer_init(vm->loop, &g->release, release_fn, g);
	g->region = (struct bus_region){
		.name = "pl061",
		.space = BUS_MMIO,
		.base = base,
		.size = PRIMECELL_SIZE,
		.ops = &pl061_bus_ops,
		.opaque = g,
	};
	ret = platform_add(vm, &g->dev, &pl061_ops, "gpio", &g->region, err);
	if (ret) {
		pthread_mutex_destroy(&g->lock);
		free(g);
		return ret;
	}
	*out = g;
	return 0;
}
