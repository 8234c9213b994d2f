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
#include <string.h>

#include "base/util.h"
#include "core/bus.h"
#include "core/device.h"
#include "device/platform/pl061.h"
#include "event/loop.h"
#include "spec/primecell.h"

#define SIZE	 0x1000u
#define PRESS_NS UINT64_C(100000000)

struct pl061 {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct irq_line line;

	pthread_mutex_t lock;
	uint8_t in, out, dir, is, ibe, iev, ie, edges, afsel;
	bool irq_level;

	struct loop_timer release;
};

static uint8_t pins(const struct pl061 *g)
{
	return (uint8_t)((g->out & g->dir) | (g->in & ~g->dir));
}

static uint8_t ris(const struct pl061 *g)
{
	uint8_t level = (uint8_t) ~(pins(g) ^ g->iev);

	return (uint8_t)((g->is & level) | (~g->is & g->edges));
}

/* before: the pins before whatever happened */
static void update_locked(struct pl061 *g, uint8_t before)
{
	uint8_t now = pins(g), up = now & ~before, down = before & ~now;
	bool level;

	g->edges |= (uint8_t)(~g->is & ((g->ibe & (up | down)) |
					(~g->ibe & ((g->iev & up) | (~g->iev & down)))));
	level = ris(g) & g->ie;
	if (level != g->irq_level) {
		g->irq_level = level;
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
		v = g->dir;
		break;
	case PL061_IS:
		v = g->is;
		break;
	case PL061_IBE:
		v = g->ibe;
		break;
	case PL061_IEV:
		v = g->iev;
		break;
	case PL061_IE:
		v = g->ie;
		break;
	case PL061_RIS:
		v = ris(g);
		break;
	case PL061_MIS:
		v = ris(g) & g->ie;
		break;
	case PL061_AFSEL:
		v = g->afsel;
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
		mask = (uint8_t)(off >> 2) & g->dir;
		g->out = (uint8_t)((g->out & ~mask) | (v & mask));
		break;
	case PL061_DIR:
		g->dir = v;
		break;
	case PL061_IS:
		g->is = v;
		break;
	case PL061_IBE:
		g->ibe = v;
		break;
	case PL061_IEV:
		g->iev = v;
		break;
	case PL061_IE:
		g->ie = v;
		break;
	case PL061_IC:
		g->edges &= (uint8_t)~v;
		break;
	case PL061_AFSEL:
		g->afsel = v; /* no pin has another function */
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
	g->in = (uint8_t)((g->in & ~clear) | set);
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

struct pl061_state {
	uint8_t in, out, dir, is, ibe, iev, ie, edges, afsel;
	bool irq_level;
};
static const struct state_desc pl061_desc = {
	.name = "pl061",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pl061_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U8(struct pl061_state, in),
			STATE_F_U8(struct pl061_state, out),
			STATE_F_U8(struct pl061_state, dir),
			STATE_F_U8(struct pl061_state, is),
			STATE_F_U8(struct pl061_state, ibe),
			STATE_F_U8(struct pl061_state, iev),
			STATE_F_U8(struct pl061_state, ie),
			STATE_F_U8(struct pl061_state, edges),
			STATE_F_U8(struct pl061_state, afsel),
			STATE_F_BOOL(struct pl061_state, irq_level),
			STATE_F_END,
		},
};

static int pl061_save(struct device *d, void *p, struct err *err)
{
	struct pl061 *g = container_of(d, struct pl061, dev);

	pthread_mutex_lock(&g->lock);
	*(struct pl061_state *)p = (struct pl061_state){
		g->in,	g->out, g->dir,	  g->is,    g->ibe,
		g->iev, g->ie,	g->edges, g->afsel, g->irq_level,
	};
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int pl061_load(struct device *d, const void *p, struct err *err)
{
	struct pl061 *g = container_of(d, struct pl061, dev);
	const struct pl061_state *st = p;

	pthread_mutex_lock(&g->lock);
	g->in = st->in;
	g->out = st->out;
	g->dir = st->dir;
	g->is = st->is;
	g->ibe = st->ibe;
	g->iev = st->iev;
	g->ie = st->ie;
	g->edges = st->edges;
	g->afsel = st->afsel;
	g->irq_level = st->irq_level;
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
	g->in = g->out = g->dir = g->is = g->ibe = g->iev = g->ie = g->edges = g->afsel = 0;
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
		.size = SIZE,
		.ops = &pl061_bus_ops,
		.opaque = g,
	};
	ret = bus_add(vm->bus, &g->region);
	if (ret) {
		err_set(err, -ret, "gpio: cannot use the addresses at %#llx: %s",
			(unsigned long long)base, strerror(-ret));
		goto free_gpio;
	}
	ret = device_add(vm->devices, &g->dev, &pl061_ops, "gpio", err);
	if (ret) {
		bus_del(vm->bus, &g->region);
		goto free_gpio;
	}
	*out = g;
	return 0;

free_gpio:
	pthread_mutex_destroy(&g->lock);
	free(g);
	return ret;
}
