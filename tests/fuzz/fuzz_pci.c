/*
 * PCI as a hostile guest sees it. The input is a list of 16-byte operations on a machine with a
 * host bridge, a function on the root bus, one behind a root port and one with MSI:
 * configuration accesses by ECAM and CF8/CFC, accesses to BARs, triggers, resets, states saved,
 * damaged and loaded. After each, what pci/ believes is compared with what an access finds.
 *
 * #covers: src/pci/cfg.c src/pci/bar.c src/pci/bus.c src/pci/host.c src/pci/msi.c
 * #covers: src/pci/msix.c src/pci/vec.c src/pci/port.c src/pci/express.c src/pci/state.c
 * #covers: src/pci/assign.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "fakes/fake_pci.h"
#include "pci/msi.h"
#include "pci/msix.h"
#include "pci/pci_int.h"
#include "spec/pci.h"

#define MAX_OPS 256
#define NVEC	33
#define FUNCS	3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct op {
	uint8_t what, target, len, arg;
	uint32_t off;
	uint64_t value;
};
_Static_assert(sizeof(struct op) == 16, "struct op");

struct world {
	struct fake_vm *fv;
	struct pci_bus *root, *sec;
	struct pci_func f[FUNCS];
	uint32_t triggers;
};

static uint64_t block_read(void *opaque, uint64_t off, unsigned size)
{
	return (uintptr_t)opaque;
}

static void block_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
}

static const struct bus_ops block_ops = {.read = block_read, .write = block_write};

/* What reading the first bytes of a BAR gives. */
static uintptr_t mark(unsigned func, unsigned bar)
{
	return 0x100 + func * 16 + bar;
}

static void func_new(struct world *w, unsigned i, struct pci_bus *bus, int devfn)
{
	struct pci_func *f = &w->f[i];
	int rc = pci_func_add(f, bus, devfn, "fuzz", NULL, NULL);

	assert(rc == 0);
	pci_set_ids(f, 0x1b36, (uint16_t)(0x100 + i), 0xff0000, 0, 0x1af4, 0x1100);
	pci_pm_cap_add(f);
	pci_express_cap_add(f, 0, 0);
	pci_bar_init(f, 0, 4096, 0);
	pci_bar_region(f, 0, 0, 4096, "fuzz", &block_ops, (void *)mark(i, 0), NULL);
	pci_bar_init(f, 2, 16384, PCI_BAR_64 | PCI_BAR_PREFETCH);
	pci_bar_region(f, 2, 0, 4096, "fuzz", &block_ops, (void *)mark(i, 2), w->fv->vm.loop);
	pci_bar_init(f, 4, 32, PCI_BAR_IO);
	pci_bar_region(f, 4, 0, 32, "fuzz", &block_ops, (void *)mark(i, 4), NULL);
	rc = i == FUNCS - 1 ? msi_init(f, 8, NULL)
			    : msix_init(f, NVEC, 2, 0x1000, 0x2000, NULL);
	assert(rc == 0);
}

static void func_free(struct pci_func *f)
{
	pci_func_remove(f);
	msix_fini(f);
	msi_fini(f);
}

static void world_new(struct world *w)
{
	struct pcie_root_port_config port = {.id = "rp", .devfn = 0x20};
	int rc;

	memset(w, 0, sizeof(*w));
	w->fv = fake_vm_new(&(struct fake_vm_config){.ram_mib = 1});
	w->root = fake_pci_host(w->fv);
	rc = pcie_root_port_new(&w->fv->vm, w->root, &port, &w->sec, NULL);
	assert(rc == 0);
	func_new(w, 0, w->root, 0x10);
	func_new(w, 1, w->sec, -1);
	func_new(w, 2, w->root, 0x18);
}

static void world_free(struct world *w)
{
	for (unsigned i = 0; i < FUNCS; i++) {
		func_free(&w->f[i]);
	}
	assert(w->root->conflicts == 0);
	fake_vm_free(w->fv);
}

static unsigned op_len(const struct op *o)
{
	return 1u << (o->len % 4);
}

/* Mostly functions that exist, on bus numbers that the guest may have given. */
static unsigned op_bdf(const struct op *o)
{
	static const uint16_t bdf[] = {0, 0x10, 0x18, 0x20, 0xf8, 0x100, 0x200, 0xff00};

	return o->target < 128 ? bdf[o->target % ARRAY_SIZE(bdf)] : (o->value >> 48);
}

static void op_config(struct world *w, const struct op *o, bool write, bool latch)
{
	unsigned off = o->off % PCI_CFG_SIZE;

	if (latch) {
		fake_pio_write(w->fv, 0xcf8, 0x80000000u | op_bdf(o) << 8 | (off & 0xfc), 4);
	}
	if (latch && write) {
		fake_pio_write(w->fv, (uint16_t)(0xcfc + off % 4), (uint32_t)o->value,
			       MIN(op_len(o), 4u));
	} else if (latch) {
		fake_pio_read(w->fv, (uint16_t)(0xcfc + off % 4), MIN(op_len(o), 4u));
	} else if (write) {
		fake_mmio_write(w->fv, FAKE_ECAM + ((uint64_t)op_bdf(o) << 12) + off, o->value,
				op_len(o));
	} else {
		fake_mmio_read(w->fv, FAKE_ECAM + ((uint64_t)op_bdf(o) << 12) + off, op_len(o));
	}
}

static void op_bar(struct world *w, const struct op *o)
{
	struct pci_func *f = &w->f[o->target % FUNCS];
	const struct pci_bar *b = &f->bar[o->arg % 3 * 2];
	uint64_t addr = b->mapped_addr + o->off % b->size;

	if (!b->mapped) {
		return;
	}
	if (b->flags & PCI_BAR_IO) {
		fake_pio_write(w->fv, (uint16_t)addr, (uint32_t)o->value, MIN(op_len(o), 4u));
		fake_pio_read(w->fv, (uint16_t)addr, MIN(op_len(o), 4u));
	} else {
		fake_mmio_write(w->fv, addr, o->value, op_len(o));
		fake_mmio_read(w->fv, addr, op_len(o));
	}
}

static void op_trigger(struct world *w, const struct op *o)
{
	struct pci_func *f = &w->f[o->target % FUNCS];
	uint64_t one = 1;
	int fd;

	w->triggers++;
	if (f->msi) {
		msi_trigger(f, o->off);
	} else if (o->arg % 2) {
		fd = msix_eventfd(f, o->off % NVEC);
		assert(fd >= 0 && write(fd, &one, sizeof(one)) == sizeof(one));
	} else {
		msix_trigger(f, o->off);
	}
}

/* A state that was damaged in one place: refused, or as if the guest had written it. */
static void op_load(struct world *w, const struct op *o)
{
	static struct pci_func_state st;
	struct pci_func *f = o->target % 4 == FUNCS ? w->sec->bridge : &w->f[o->target % 4];

	memset(&st, 0, sizeof(st));
	pci_func_save(f, &st);
	switch (o->arg % 4) {
	case 0:
		st.cfg[o->off % PCI_CFG_SIZE] ^= (uint8_t)o->value;
		break;
	case 1:
		st.nvec ^= (uint32_t)o->value % 4;
		break;
	case 2:
		st.vec[o->off % NVEC] = (struct pci_vec_state){
			o->value, (uint32_t)o->value, o->value >> 63, o->value >> 62 & 1};
		break;
	case 3:
		st.msi_pending = (uint32_t)o->value;
		break;
	}
	w->triggers += NVEC;
	pci_func_load(f, &st, NULL);
}

static void run(struct world *w, const struct op *o)
{
	switch (o->what % 12) {
	case 0:
	case 1:
		op_config(w, o, true, false);
		break;
	case 2:
		op_config(w, o, false, false);
		break;
	case 3:
		op_config(w, o, o->arg % 2, true);
		break;
	case 4:
	case 5:
		op_bar(w, o);
		break;
	case 6:
		fake_mmio_write(w->fv, o->value, o->off, op_len(o));
		fake_mmio_read(w->fv, o->value, op_len(o));
		fake_pio_write(w->fv, (uint16_t)o->value, o->off, MIN(op_len(o), 4u));
		break;
	case 7:
		op_trigger(w, o);
		break;
	case 8:
		op_load(w, o);
		break;
	case 9:
		if (o->arg % 4 == 0) {
			device_list_reset(&w->fv->devices);
			pci_func_reset(&w->f[o->target % FUNCS]);
		}
		break;
	case 10:
		if (o->arg % 2) {
			fake_pci_assign(w->fv, w->root);
		}
		break;
	case 11:
		/* Now and then the host has no route left. */
		w->fv->irq.gsi_limit = w->fv->irq.gsi_first + (o->arg % 2 ? FAKE_GSIS / 2 : 2);
		fake_vm_settle(w->fv);
		break;
	}
}

static void check(struct world *w)
{
	unsigned conflicts = 0;
	uint64_t base, end;

	for (unsigned i = 0; i < FUNCS; i++) {
		const struct pci_func *f = &w->f[i];

		for (unsigned bar = 0; bar < 6; bar++) {
			const struct pci_bar *b = &f->bar[bar];
			uint64_t addr = 0;

			conflicts += b->conflict;
			assert(!(b->mapped && b->conflict));
			if (!b->mapped) {
				continue;
			}
			assert(pci_bar_address(f, bar, &addr) && addr == b->mapped_addr);
			assert((b->flags & PCI_BAR_IO
					? fake_pio_read(w->fv, (uint16_t)addr, 4)
					: fake_mmio_read(w->fv, addr, 4)) == mark(i, bar));
		}
	}
	assert(conflicts == w->root->conflicts);
	assert(fake_irq_total(&w->fv->irq) <= w->triggers);
	assert(w->fv->irq.lost == 0);
	if (pci_mem64_extent(w->root, &base, &end)) {
		assert(base >= 4 * GiB && end > base);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct world w;
	struct op o;

	log_set_level(LOG_ERR);
	world_new(&w);
	for (unsigned n = 0; n < MAX_OPS && len >= sizeof(o); n++) {
		memcpy(&o, data, sizeof(o));
		data += sizeof(o);
		len -= sizeof(o);
		run(&w, &o);
		check(&w);
	}
	world_free(&w);
	return 0;
}
