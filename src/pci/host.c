/*
 * The host bridge: the ways into configuration space, 00:00.0 and 00:1f.0.
 *
 * ECAM and CF8/CFC reach the same registers. Reads run on the vCPU's thread; writes on the
 * control loop, while the vCPU waits, because they move BARs. The CF8 latch is one word of the
 * machine; vCPUs that race for it get what they would get from a chipset.
 *
 * Port 0xCF9 lies inside the latch: a one-byte access there is the reset register (bit 2
 * resets, ACPI and firmware write 0x06), other accesses of less than four bytes to the latch
 * are nothing.
 *
 * 00:00.0 has the device id by which stock OVMF chooses ECAM. 00:1f.0 is not the chipset that
 * OVMF takes it for: it has the two registers that are read there (PMBASE, ACPI_CNTL), class
 * ISA bridge, so that firmware looks for a UART at 0x3F8, and an id that no Linux driver binds
 * to.
 *
 * A machine without I/O ports (Arm) has ECAM only: firmware and kernels know the bridge from the
 * device tree and the tables, and a function in slot 0 would tell them nothing.
 *
 * PCI Express 5.0, 7.2.2; PCI 3.0, 3.2.2.3.2. Untrusted: every offset and value.
 */
#include "pci/host.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/power.h"
#include "pci/pci_int.h"
#include "spec/pci.h"

#define HOST_VENDOR 0x8086
#define HOST_DEVICE 0x29c0
#define HOST_CLASS  0x060000
#define SUB_VENDOR  0x1af4
#define SUB_DEVICE  0x1100

/* Red Hat's vendor id, which virtual devices use; the device id stands for nothing else. */
#define LPC_VENDOR    0x1b36
#define LPC_DEVICE    0x0f1f
#define LPC_CLASS     0x060100
#define LPC_DEVFN     PCI_DEVFN(0x1f, 0)
#define LPC_PMBASE    0x40
#define LPC_ACPI_CNTL 0x44

#define PMBASE_IO      0x00000001u
#define ACPI_CNTL_ON   0x80
#define RESET_REGISTER 1 /* 0xCF9, from the latch's address */
#define RESET_CPU      0x04
#define RESET_WRITABLE 0x0e

struct pci_host {
	struct device dev;
	struct vm *vm;
	struct pci_bus root;
	bool io;
	struct pci_func bridge, lpc; /* only with io */
	struct bus_region ecam, address, data;
	_Atomic uint32_t latch;
	_Atomic uint8_t reset_value;
};

static uint64_t ecam_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_host *h = opaque;

	return pci_cfg_read(&h->root, (uint8_t)(off >> PCI_ECAM_BUS_SHIFT),
			    (uint8_t)(off >> PCI_ECAM_DEVFN_SHIFT), off % PCI_CFG_SIZE, size);
}

static void ecam_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_host *h = opaque;

	pci_cfg_write(&h->root, (uint8_t)(off >> PCI_ECAM_BUS_SHIFT),
		      (uint8_t)(off >> PCI_ECAM_DEVFN_SHIFT), off % PCI_CFG_SIZE, size,
		      (uint32_t)value);
}

static const struct bus_ops ecam_ops = {
	.read = ecam_read,
	.write = ecam_write,
	.max_size = 4,
};

static uint64_t address_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_host *h = opaque;

	if (off == 0 && size == 4) {
		return atomic_load_explicit(&h->latch, memory_order_relaxed);
	}
	if (off == RESET_REGISTER && size == 1) {
		return atomic_load_explicit(&h->reset_value, memory_order_relaxed);
	}
	return UINT64_MAX;
}

static void address_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_host *h = opaque;

	if (off == 0 && size == 4) {
		atomic_store_explicit(&h->latch, (uint32_t)value & PCI_CONFIG_ADDRESS_MASK,
				      memory_order_relaxed);
	} else if (off == RESET_REGISTER && size == 1) {
		atomic_store_explicit(&h->reset_value, (uint8_t)value & RESET_WRITABLE,
				      memory_order_relaxed);
		if (value & RESET_CPU) {
			h->vm->power->request(h->vm->power, POWER_RESET);
		}
	}
}

static const struct bus_ops address_ops = {
	.read = address_read,
	.write = address_write,
	.max_size = 4,
};

/* The register that the latch and the port name; false if the latch names none. */
static bool data_target(struct pci_host *h, uint64_t off, uint8_t *bus, uint8_t *devfn,
			unsigned *reg)
{
	uint32_t latch = atomic_load_explicit(&h->latch, memory_order_relaxed);

	*bus = (uint8_t)(latch >> 16);
	*devfn = (uint8_t)(latch >> 8);
	*reg = (latch & 0xfc) + (unsigned)off;
	return latch & PCI_CONFIG_ADDRESS_ENABLE;
}

static uint64_t data_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_host *h = opaque;
	uint8_t bus, devfn;
	unsigned reg;

	if (!data_target(h, off, &bus, &devfn, &reg)) {
		return UINT64_MAX;
	}
	if (reg % size) { /* two bytes at CFD: any bytes of the dword may be named */
		return pci_cfg_read(&h->root, bus, devfn, reg, 1) |
		       pci_cfg_read(&h->root, bus, devfn, reg + 1, 1) << 8;
	}
	return pci_cfg_read(&h->root, bus, devfn, reg, size);
}

static void data_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_host *h = opaque;
	uint8_t bus, devfn;
	unsigned reg;

	if (!data_target(h, off, &bus, &devfn, &reg)) {
		return;
	}
	if (reg % size) {
		pci_cfg_write(&h->root, bus, devfn, reg, 1, (uint8_t)value);
		pci_cfg_write(&h->root, bus, devfn, reg + 1, 1, (uint8_t)(value >> 8));
	} else {
		pci_cfg_write(&h->root, bus, devfn, reg, size, (uint32_t)value);
	}
}

static const struct bus_ops data_ops = {
	.read = data_read,
	.write = data_write,
	.max_size = 4,
};

/* --- life and state --- */

static struct pci_host *of_dev(struct device *d)
{
	return container_of(d, struct pci_host, dev);
}

static void host_reset(struct device *d)
{
	struct pci_host *h = of_dev(d);

	atomic_store_explicit(&h->latch, 0, memory_order_relaxed);
	atomic_store_explicit(&h->reset_value, 0, memory_order_relaxed);
	if (h->io) {
		pci_func_reset(&h->bridge);
		pci_func_reset(&h->lpc);
	}
}

static void host_free(struct pci_host *h)
{
	bus_del(h->vm->bus, &h->data);
	bus_del(h->vm->bus, &h->address);
	bus_del(h->vm->bus, &h->ecam);
	pci_func_remove(&h->lpc);
	pci_func_remove(&h->bridge);
	free(h);
}

static void host_destroy(struct device *d)
{
	host_free(of_dev(d));
}

struct host_state {
	uint32_t latch;
	uint8_t reset_value;
	struct pci_func_state bridge, lpc;
};

static int host_save(struct device *d, void *state, struct err *err)
{
	struct pci_host *h = of_dev(d);
	struct host_state *st = state;

	st->latch = atomic_load_explicit(&h->latch, memory_order_relaxed);
	st->reset_value = atomic_load_explicit(&h->reset_value, memory_order_relaxed);
	if (h->io) {
		pci_func_save(&h->bridge, &st->bridge);
		pci_func_save(&h->lpc, &st->lpc);
	}
	return 0;
}

static int host_load(struct device *d, const void *state, struct err *err)
{
	struct pci_host *h = of_dev(d);
	const struct host_state *st = state;
	int rc = 0;

	if (h->io) {
		rc = pci_func_load(&h->bridge, &st->bridge, err);
		rc = rc < 0 ? rc : pci_func_load(&h->lpc, &st->lpc, err);
	}
	if (rc < 0) {
		return rc;
	}
	atomic_store_explicit(&h->latch, st->latch & PCI_CONFIG_ADDRESS_MASK,
			      memory_order_relaxed);
	atomic_store_explicit(&h->reset_value, st->reset_value & RESET_WRITABLE,
			      memory_order_relaxed);
	return 0;
}

static const struct state_field host_fields[] = {
	STATE_F_U32(struct host_state, latch),
	STATE_F_U8(struct host_state, reset_value),
	STATE_F_STRUCT(struct host_state, bridge, &pci_func_state_desc),
	STATE_F_STRUCT(struct host_state, lpc, &pci_func_state_desc),
	STATE_F_END,
};
static const struct state_desc host_desc = {
	.name = "pci-host",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct host_state),
	.fields = host_fields,
};
static const struct device_state_ops host_state_ops = {
	.desc = &host_desc,
	.save = host_save,
	.load = host_load,
};
static const struct device_state_ops *const host_states[] = {&host_state_ops, NULL};

static const struct device_ops host_ops = {
	.name = "pci-host",
	.reset = host_reset,
	.destroy = host_destroy,
	.state = host_states,
};

static int host_region_add(struct pci_host *h, struct bus_region *r, struct err *err)
{
	int rc;

	r->opaque = h;
	rc = bus_add(h->vm->bus, r);
	return rc < 0 ? err_set(err, -rc, "pci-host: no place for %s: %s", r->name,
				strerror(-rc))
		      : 0;
}

static int host_regions_add(struct pci_host *h, uint64_t ecam_base, struct err *err)
{
	int rc;

	h->ecam = (struct bus_region){
		.name = "ecam",
		.space = BUS_MMIO,
		.base = ecam_base,
		.size = PCI_ECAM_SIZE,
		.ops = &ecam_ops,
		.owner = h->vm->loop,
	};
	h->address = (struct bus_region){
		.name = "pci-address",
		.space = BUS_PIO,
		.base = PCI_CONFIG_ADDRESS,
		.size = 4,
		.ops = &address_ops,
	};
	h->data = (struct bus_region){
		.name = "pci-data",
		.space = BUS_PIO,
		.base = PCI_CONFIG_DATA,
		.size = 4,
		.ops = &data_ops,
		.owner = h->vm->loop,
	};
	rc = host_region_add(h, &h->ecam, err);
	if (rc == 0 && h->io) {
		rc = host_region_add(h, &h->address, err);
	}
	if (rc == 0 && h->io) {
		rc = host_region_add(h, &h->data, err);
	}
	return rc;
}

static int host_funcs_add(struct pci_host *h, uint16_t pm_base, struct err *err)
{
	int rc;

	rc = pci_func_add(&h->bridge, &h->root, PCI_DEVFN(0, 0), "pci-host", NULL, err);
	if (rc == 0) {
		rc = pci_func_add(&h->lpc, &h->root, LPC_DEVFN, "pci-lpc", NULL, err);
	}
	if (rc < 0) {
		return rc;
	}
	pci_set_ids(&h->bridge, HOST_VENDOR, HOST_DEVICE, HOST_CLASS, 0, SUB_VENDOR,
		    SUB_DEVICE);
	pci_set_ids(&h->lpc, LPC_VENDOR, LPC_DEVICE, LPC_CLASS, 0, SUB_VENDOR, SUB_DEVICE);
	/* It passes I/O on although it has no BAR: OVMF enables that before it looks for the UART. */
	h->lpc.wmask[PCI_COMMAND] |= PCI_COMMAND_IO;
	pci_set32(&h->lpc, LPC_PMBASE, pm_base | PMBASE_IO);
	pci_set8(&h->lpc, LPC_ACPI_CNTL, ACPI_CNTL_ON);
	return 0;
}

int pci_host_new(struct vm *vm, uint64_t ecam_base, bool io, uint16_t pm_base,
		 struct pci_host **out, struct err *err)
{
	struct pci_host *h = calloc(1, sizeof(*h));
	int rc;

	if (!h) {
		return err_set(err, ENOMEM, "pci-host: out of memory");
	}
	h->vm = vm;
	h->io = io;
	pci_bus_init(&h->root, vm, "pcie.0", NULL, 32);
	rc = host_regions_add(h, ecam_base, err);
	if (rc == 0 && io) {
		rc = host_funcs_add(h, pm_base, err);
	}
	if (rc == 0) {
		rc = device_add(vm->devices, &h->dev, &host_ops, "pci-host", err);
	}
	if (rc < 0) {
		host_free(h);
		return rc;
	}
	*out = h;
	return 0;
}

struct pci_bus *pci_host_bus(struct pci_host *h)
{
	return &h->root;
}

struct by_name {
	const char *name;
	struct pci_bus *found;
};

static int match_name(struct pci_func *f, void *arg)
{
	struct by_name *b = arg;

	if (pci_is_bridge(f) && strcmp(f->secondary->name, b->name) == 0) {
		b->found = f->secondary;
	}
	return b->found != NULL;
}

struct pci_bus *pci_bus_by_name(struct pci_bus *root, const char *name)
{
	struct by_name b = {.name = name};

	if (strcmp(root->name, name) == 0) {
		return root;
	}
	pci_for_each(root, match_name, &b);
	return b.found;
}
