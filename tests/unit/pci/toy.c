/* A PCI function for the tests of pci/: see toy.h. */
#include "toy.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "pci/msix.h"

static uint64_t block_read(void *opaque, uint64_t off, unsigned size)
{
	const struct toy_block *b = opaque;

	return TOY_MARK + b->bar + 256 * b->toy->tag;
}

static void block_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	const struct toy_block *b = opaque;

	b->toy->written[b->bar] = (uint32_t)value;
}

static const struct bus_ops block_ops = {.read = block_read, .write = block_write};

static void toy_cfg_written(struct pci_func *f, unsigned off, unsigned len)
{
	container_of(f, struct toy, func)->cfg_writes++;
}

static void toy_bar_changed(struct pci_func *f, unsigned bar, bool mapped, uint64_t addr)
{
	struct toy *t = container_of(f, struct toy, func);

	assert(mapped ? t->addr[bar] == 0 : t->addr[bar] != 0); /* strictly in turn */
	t->addr[bar] = mapped ? addr : 0;
	t->maps[bar] += mapped;
	t->unmaps[bar] += !mapped;
}

static void toy_bus_reset(struct pci_func *f)
{
	container_of(f, struct toy, func)->bus_resets++;
	pci_func_reset(f);
}

static const struct pci_func_ops toy_func_ops = {
	.cfg_written = toy_cfg_written,
	.bar_changed = toy_bar_changed,
	.bus_reset = toy_bus_reset,
};

static void toy_reset(struct device *d)
{
	pci_func_reset(&container_of(d, struct toy, dev)->func);
}

static void toy_destroy(struct device *d)
{
	struct toy *t = container_of(d, struct toy, dev);

	pci_func_remove(&t->func);
	msix_fini(&t->func);
	free(t);
}

static int toy_save(struct device *d, void *st, struct err *err)
{
	pci_func_save(&container_of(d, struct toy, dev)->func, st);
	return 0;
}

static int toy_load(struct device *d, const void *st, struct err *err)
{
	return pci_func_load(&container_of(d, struct toy, dev)->func, st, err);
}

static const struct device_state_ops toy_state = {&pci_func_state_desc, toy_save, toy_load};
static const struct device_state_ops *const toy_states[] = {&toy_state, NULL};
static const struct device_ops toy_ops = {
	.name = "toy", .reset = toy_reset, .destroy = toy_destroy, .state = toy_states};

static void toy_block_add(struct toy *t, unsigned bar, uint64_t size, struct loop *owner)
{
	t->block[bar] = (struct toy_block){t, bar};
	pci_bar_region(&t->func, bar, 0, size, "toy", &block_ops, &t->block[bar], owner);
}

struct toy *toy_new(struct vm *vm, struct pci_bus *bus, int devfn, unsigned nvec, unsigned tag)
{
	struct toy *t = calloc(1, sizeof(*t));
	char name[16];
	int rc;

	assert(t);
	t->tag = tag;
	snprintf(name, sizeof(name), "toy-%u", tag);
	rc = pci_func_add(&t->func, bus, devfn, name, &toy_func_ops, NULL);
	assert(rc == 0);
	pci_set_ids(&t->func, TOY_VENDOR, TOY_DEVICE, 0xff0000, 3, 0x1af4, 0x1100);
	pci_pm_cap_add(&t->func);
	pci_express_cap_add(&t->func, 0, 0);
	pci_bar_init(&t->func, 0, 4096, 0);
	pci_bar_init(&t->func, 2, 16384, PCI_BAR_64 | PCI_BAR_PREFETCH);
	pci_bar_init(&t->func, 4, 32, PCI_BAR_IO);
	toy_block_add(t, 0, 4096, vm->loop);
	toy_block_add(t, 2, 4096, NULL);
	toy_block_add(t, 4, 32, NULL);
	if (nvec) {
		rc = msix_init(&t->func, nvec, 2, 0x1000, 0x2000, NULL);
		assert(rc == 0);
	}
	rc = device_add(vm->devices, &t->dev, &toy_ops, name, NULL);
	assert(rc == 0);
	return t;
}
