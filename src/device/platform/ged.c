/*
 * Generic event device. ACPI 6.5, 5.6.9: an interrupt whose handler (_EVT in dsdt.asl) reads a
 * register that says what happened.
 *
 * The register is 32 bits wide and is cleared by reading it. Raising an event sets its bits and
 * then pulses the edge-triggered interrupt, so an event raised between the guest's reading and
 * its end of interrupt makes one more interrupt; the handler may then find 0, which is harmless.
 *
 * Threads: all of them; the one word of state is atomic. Untrusted: the guest.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/util.h"
#include "device/platform/ged.h"
#include "device/platform/platform_int.h"
#include "spec/ged.h"

struct ged {
	struct device dev;
	struct vm *vm;
	struct bus_region region;
	struct irq_line line;
	_Atomic uint32_t pending; /* PLAT_GED_* */
};

static uint64_t ged_read(void *opaque, uint64_t off, unsigned size)
{
	struct ged *g = opaque;

	return atomic_exchange(&g->pending, 0);
}

static void ged_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	/* read-only */
}

static const struct bus_ops ged_bus_ops = {
	.read = ged_read,
	.write = ged_write,
	.min_size = PLAT_GED_SIZE, /* a part of it must not clear all of it */
	.max_size = PLAT_GED_SIZE,
};

void ged_raise(struct ged *g, uint32_t events)
{
	atomic_fetch_or(&g->pending, events);
	irq_line_pulse(&g->line);
}

static void ged_reset(struct device *d)
{
	struct ged *g = container_of(d, struct ged, dev);

	atomic_store(&g->pending, 0);
}

static void ged_destroy(struct device *d)
{
	struct ged *g = container_of(d, struct ged, dev);

	bus_del(g->vm->bus, &g->region);
	free(g);
}

struct ged_state {
	uint32_t pending;
};
static const struct state_desc ged_desc = {
	.name = "ged",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct ged_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U32(struct ged_state, pending),
			STATE_F_END,
		},
};

static int ged_save(struct device *d, void *p, struct err *err)
{
	struct ged *g = container_of(d, struct ged, dev);

	((struct ged_state *)p)->pending = atomic_load(&g->pending);
	return 0;
}

/* The interrupt itself is in the state of the interrupt controllers. */
static int ged_load(struct device *d, const void *p, struct err *err)
{
	struct ged *g = container_of(d, struct ged, dev);

	atomic_store(&g->pending, ((const struct ged_state *)p)->pending);
	return 0;
}

static const struct device_state_ops ged_state_ops = {
	.desc = &ged_desc,
	.save = ged_save,
	.load = ged_load,
};
static const struct device_ops ged_ops = {
	.name = "ged",
	.reset = ged_reset,
	.destroy = ged_destroy,
	.state = (const struct device_state_ops *const[]){&ged_state_ops, NULL},
};

int ged_new(struct vm *vm, uint64_t base, struct irq_line line, struct ged **out, struct err *err)
{
	struct ged *g = calloc(1, sizeof(*g));
	int ret;

	if (!g) {
		return err_set(err, ENOMEM, "no memory for the generic event device");
	}
	g->vm = vm;
	g->line = line;
	g->region = (struct bus_region){
		.name = "ged",
		.space = BUS_MMIO,
		.base = base,
		.size = PLAT_GED_SIZE,
		.ops = &ged_bus_ops,
		.opaque = g,
	};
	ret = platform_add(vm, &g->dev, &ged_ops, "ged", &g->region, err);
	if (ret) {
		free(g);
		return ret;
	}
	*out = g;
	return 0;
}
