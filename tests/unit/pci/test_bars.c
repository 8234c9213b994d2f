/*
 * BARs follow what the guest writes: sizing, moving under decode, changing places, overlaps,
 * power states, and bridges: windows, bus numbers, secondary bus reset, link.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "fakes/fake_pci.h"
#include "spec/pci.h"
#include "toy.h"

#define A	     0x10u /* 00:02.0 */
#define B	     0x18u /* 00:03.0 */
#define PORT	     0x20u /* 00:04.0 */
#define MARK(t, bar) (TOY_MARK + (bar) + 256 * (t)->tag)
#define NOBODY	     0xffffffffu

struct fixture {
	struct fake_vm *fv;
	struct pci_bus *root, *sec;
	struct toy *a, *b, *c; /* c: behind the port */
};

static int setup(void **state)
{
	static struct fixture f;

	f.fv = fake_vm_new(NULL);
	f.root = fake_pci_host(f.fv);
	f.a = toy_new(&f.fv->vm, f.root, A, TOY_NVEC, 1);
	f.b = toy_new(&f.fv->vm, f.root, B, TOY_NVEC, 2);
	assert_int_equal(
		pcie_root_port_new(&f.fv->vm, f.root,
				   &(struct pcie_root_port_config){.id = "rp", .devfn = PORT},
				   &f.sec, NULL),
		0);
	f.c = toy_new(&f.fv->vm, f.sec, -1, TOY_NVEC, 3);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_vm_free(f->fv);
	return 0;
}

static uint32_t at(struct fixture *f, uint64_t addr)
{
	return (uint32_t)fake_mmio_read(f->fv, addr, 4);
}

static void command(struct fixture *f, unsigned bdf, uint16_t v)
{
	fake_cfg_write(f->fv, bdf, PCI_COMMAND, v, 2);
}

static void test_sizing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fake_pci_bar_size(f->fv, A, 0), 4096);
	assert_int_equal(fake_pci_bar_size(f->fv, A, 1), 0);
	assert_int_equal(fake_pci_bar_size(f->fv, A, 2), 16384);
	assert_int_equal(fake_pci_bar_size(f->fv, A, 4), 32);
	assert_int_equal(fake_pci_bar_size(f->fv, A, 5), 0);

	/* With decoding on: a BAR is away while it is sized, not on top of other things. */
	fake_pci_bar_write(f->fv, A, 0, 0xc0000000);
	fake_pci_bar_write(f->fv, A, 2, 0x4000000000);
	fake_pci_bar_write(f->fv, A, 4, 0x6000);
	command(f, A, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	assert_int_equal(at(f, 0xc0000000), MARK(f->a, 0));
	for (unsigned bar = 0; bar < 5; bar += 2) {
		uint64_t old = fake_pci_bar_read(f->fv, A, bar);

		fake_cfg_write(f->fv, A, PCI_BAR0 + 4 * bar, NOBODY, 4);
		if (bar == 2) {
			fake_cfg_write(f->fv, A, PCI_BAR0 + 4 * bar + 4, NOBODY, 4);
		}
		assert_int_equal(f->a->addr[bar], 0);
		assert_int_equal(at(f, 0xfffff000), NOBODY);
		fake_pci_bar_write(f->fv, A, bar, old);
		assert_int_equal(f->a->addr[bar], old);
	}
	/* One that ends at the top of its space looks the same, so it is not decoded either;
	 * the last one below is. */
	fake_pci_bar_write(f->fv, A, 0, 0xfffff000);
	assert_int_equal(f->a->addr[0], 0);
	fake_pci_bar_write(f->fv, A, 0, 0xffffe000);
	assert_int_equal(at(f, 0xffffe000), MARK(f->a, 0));
	fake_pci_bar_write(f->fv, A, 0, 0);
	assert_int_equal(f->a->addr[0], 0);
	/* I/O above 64 KiB does not exist. */
	fake_pci_bar_write(f->fv, A, 4, 0x10000);
	assert_int_equal(f->a->addr[4], 0);
	fake_pci_bar_write(f->fv, A, 4, 0xffc0);
	assert_int_equal(fake_pio_read(f->fv, 0xffc0, 4), MARK(f->a, 4));
}

static void test_moving_under_decode(void **state)
{
	struct fixture *f = *state;

	fake_pci_bar_write(f->fv, A, 0, 0xc0000000);
	assert_int_equal(at(f, 0xc0000000), NOBODY); /* decoding is off */
	command(f, A, PCI_COMMAND_MEMORY);
	assert_int_equal(at(f, 0xc0000ffc), MARK(f->a, 0));
	assert_int_equal(at(f, 0xc0001000), NOBODY);
	fake_mmio_write(f->fv, 0xc0000010, 0x1234, 2);
	assert_int_equal(f->a->written[0], 0x1234);
	fake_pci_bar_write(f->fv, A, 0, 0xd0000000);
	assert_int_equal(at(f, 0xc0000000), NOBODY);
	assert_int_equal(at(f, 0xd0000000), MARK(f->a, 0));
	assert_int_equal(f->a->maps[0], 2);
	assert_int_equal(f->a->unmaps[0], 1);
	/* Writing the same again moves nothing. */
	fake_pci_bar_write(f->fv, A, 0, 0xd0000000);
	command(f, A, PCI_COMMAND_MEMORY | PCI_COMMAND_PARITY);
	assert_int_equal(f->a->maps[0], 2);

	/* Half a move: the 64-bit BAR stands at its new low and old high half meanwhile. */
	fake_pci_bar_write(f->fv, A, 2, 0x40c0000000);
	assert_int_equal(at(f, 0x40c0000000), MARK(f->a, 2));
	fake_cfg_write(f->fv, A, PCI_BAR0 + 8, 0xd0004000, 4);
	assert_int_equal(at(f, 0x40d0004000), MARK(f->a, 2));
	fake_cfg_write(f->fv, A, PCI_BAR0 + 12, 0x7f, 4);
	assert_int_equal(at(f, 0x7fd0004000), MARK(f->a, 2));
	assert_int_equal(at(f, 0x40d0004000), NOBODY);
	/* In a BAR, what no region covers. */
	assert_int_equal(at(f, 0x7fd0004000 + 0x3000), NOBODY);
	/* The MSI-X table moved along. */
	assert_int_equal(at(f, 0x7fd0004000 + 0x100c), 1);

	/* I/O and memory decoding are separate. */
	fake_pci_bar_write(f->fv, A, 4, 0x6000);
	assert_int_equal(fake_pio_read(f->fv, 0x6000, 4), NOBODY);
	command(f, A, PCI_COMMAND_IO);
	assert_int_equal(fake_pio_read(f->fv, 0x601c, 4), MARK(f->a, 4));
	assert_int_equal(at(f, 0x7fd0004000), NOBODY);
	fake_pio_write(f->fv, 0x6001, 0xab, 1);
	assert_int_equal(f->a->written[4], 0xab);
	command(f, A, 0);
	assert_int_equal(fake_pio_read(f->fv, 0x6000, 4), NOBODY);
}

static void test_changing_places(void **state)
{
	struct fixture *f = *state;

	fake_pci_bar_write(f->fv, A, 0, 0xc0000000);
	fake_pci_bar_write(f->fv, B, 0, 0xc0001000);
	command(f, A, PCI_COMMAND_MEMORY);
	command(f, B, PCI_COMMAND_MEMORY);
	fake_pci_bar_write(f->fv, A, 0, 0xc0001000); /* B is still there: A waits */
	assert_int_equal(at(f, 0xc0001000), MARK(f->b, 0));
	assert_int_equal(at(f, 0xc0000000), NOBODY);
	assert_int_equal(f->a->addr[0], 0);
	assert_int_equal(f->root->conflicts, 1);
	fake_pci_bar_write(f->fv, B, 0, 0xc0000000); /* and gets its place when B moves */
	assert_int_equal(at(f, 0xc0001000), MARK(f->a, 0));
	assert_int_equal(at(f, 0xc0000000), MARK(f->b, 0));
	assert_int_equal(f->root->conflicts, 0);
}

static void test_overlaps(void **state)
{
	struct fixture *f = *state;

	command(f, A, PCI_COMMAND_MEMORY);
	command(f, B, PCI_COMMAND_MEMORY);
	fake_pci_bar_write(f->fv, A, 0, 0xc0001000);
	/* Only the table, its second region, finds its place taken: none of it is decoded. */
	fake_pci_bar_write(f->fv, B, 2, 0xc0000000);
	assert_int_equal(f->b->addr[2], 0);
	assert_int_equal(at(f, 0xc0000000), NOBODY);
	assert_int_equal(at(f, 0xc0002000), NOBODY);
	assert_int_equal(at(f, 0xc0001000), MARK(f->a, 0));
	/* The one that was decoded first stays, whatever the other does. */
	fake_pci_bar_write(f->fv, B, 0, 0xc0001000);
	assert_int_equal(f->root->conflicts, 2);
	assert_int_equal(at(f, 0xc0001000), MARK(f->a, 0));
	/* Among its own BARs, too: the first that is tried gets the place. */
	command(f, A, 0);
	assert_int_equal(at(f, 0xc0001000), MARK(f->b, 0));
	assert_int_equal(f->root->conflicts, 1);
	command(f, B, 0);
	assert_int_equal(f->root->conflicts, 0);
	assert_int_equal(at(f, 0xc0001000), NOBODY);

	/* On top of ECAM: not decoded, and ECAM works on. */
	command(f, B, PCI_COMMAND_MEMORY);
	fake_pci_bar_write(f->fv, B, 0, FAKE_ECAM + 0x100000);
	fake_pci_bar_write(f->fv, B, 2, 0xc0000000);
	assert_int_equal(f->b->addr[0], 0);
	assert_int_equal(f->b->addr[2], 0xc0000000);
	assert_int_equal(fake_cfg_read(f->fv, A, 0, 2), TOY_VENDOR);
	/* A loser that is removed leaves nothing behind. */
	assert_int_equal(f->root->conflicts, 1);
	device_remove(&f->b->dev);
	f->b->dev.ops->destroy(&f->b->dev);
	assert_int_equal(f->root->conflicts, 0);
	assert_int_equal(at(f, 0xc0000000), NOBODY);
}

static void test_power_state(void **state)
{
	struct fixture *f = *state;
	unsigned pmcsr = fake_pci_cap(f->fv, A, PCI_CAP_PM, 0) + PCI_PM_PMCSR;

	fake_pci_bar_write(f->fv, A, 0, 0xc0000000);
	command(f, A, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_true(pci_bus_master(&f->a->func));
	fake_cfg_write(f->fv, A, pmcsr, PCI_PMCSR_D3HOT, 2);
	assert_int_equal(at(f, 0xc0000000), NOBODY);
	assert_false(pci_bus_master(&f->a->func));
	assert_int_equal(fake_cfg_read(f->fv, A, 0, 2), TOY_VENDOR);
	fake_cfg_write(f->fv, A, pmcsr, 0, 2);
	assert_int_equal(at(f, 0xc0000000), MARK(f->a, 0));
	assert_true(pci_bus_master(&f->a->func));
}

/* --- behind the port --- */

static void window(struct fixture *f, uint16_t base, uint16_t limit)
{
	fake_cfg_write(f->fv, PORT, PCI_MEMORY_BASE, base | (uint32_t)limit << 16, 4);
}

static void prefetch_window(struct fixture *f, uint64_t base, uint64_t last)
{
	fake_cfg_write(f->fv, PORT, PCI_PREFETCH_BASE,
		       ((uint32_t)(base >> 16) & 0xfff0) | ((uint32_t)last & 0xfff00000), 4);
	fake_cfg_write(f->fv, PORT, PCI_PREFETCH_BASE_UPPER, (uint32_t)(base >> 32), 4);
	fake_cfg_write(f->fv, PORT, PCI_PREFETCH_LIMIT_UPPER, (uint32_t)(last >> 32), 4);
}

static void test_port_registers(void **state)
{
	struct fixture *f = *state;
	unsigned exp = fake_pci_cap(f->fv, PORT, PCI_CAP_EXPRESS, 0);
	struct pci_bus *empty;
	uint32_t v;

	assert_int_equal(fake_cfg_read(f->fv, PORT, 8, 4), 0x06040000);
	assert_int_equal(fake_cfg_read(f->fv, PORT, PCI_HEADER_TYPE, 1), 1);
	/* No I/O window, no BARs, no ROM; the memory windows start closed. */
	static const uint32_t expect[16] = {
		[1] = 0x0546,	  [3] = 0xff,	     [6] = 0x00ffffff,	[8] = 0xfff0fff0,
		[9] = 0xfff0fff0, [10] = 0xffffffff, [11] = 0xffffffff, [15] = 0x004300ff,
	};
	assert_int_equal(fake_cfg_read(f->fv, PORT, 0x1c, 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, PORT, 0x20, 4), 0x0000fff0);
	assert_int_equal(fake_cfg_read(f->fv, PORT, 0x24, 4), 0x0001fff1);
	for (unsigned i = 0; i < 16; i++) {
		fake_cfg_write(f->fv, PORT, 4 * i, UINT32_MAX, 4);
		v = fake_cfg_read(f->fv, PORT, 4 * i, 4);
		fake_cfg_write(f->fv, PORT, 4 * i, 0, 4);
		assert_int_equal(v ^ fake_cfg_read(f->fv, PORT, 4 * i, 4), expect[i]);
	}
	assert_int_equal(fake_cfg_read(f->fv, PORT, 0x24, 4), 0x00010001);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_FLAGS, 2), 0x142);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_SLTCAP, 4),
			 1u << 19 | 1u << 18);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_SLTSTA, 2), 0x40);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_LNKSTA, 2), 0x2011);
	v = fake_pci_cap(f->fv, PORT, PCI_CAP_SSVID, 0);
	assert_int_equal(fake_cfg_read(f->fv, PORT, v + 4, 4), 0x11001af4);
	assert_int_not_equal(fake_pci_cap(f->fv, PORT, PCI_CAP_MSI, 0), 0);
	assert_int_not_equal(fake_pci_cap(f->fv, PORT, PCI_CAP_PM, 0), 0);

	/* Nothing behind it: no presence, no link; each port gets a slot number of its own. */
	assert_int_equal(
		pcie_root_port_new(&f->fv->vm, f->root,
				   &(struct pcie_root_port_config){.id = "rp2", .devfn = 0x28},
				   &empty, NULL),
		0);
	exp = fake_pci_cap(f->fv, 0x28, PCI_CAP_EXPRESS, 0);
	assert_int_equal(fake_cfg_read(f->fv, 0x28, exp + PCI_EXP_SLTSTA, 2), 0);
	assert_int_equal(fake_cfg_read(f->fv, 0x28, exp + PCI_EXP_LNKSTA, 2), 0);
	assert_int_equal(fake_cfg_read(f->fv, 0x28, exp + PCI_EXP_SLTCAP, 4) >> 19, 2);
}

static void test_port_refused(void **state)
{
	struct fixture *f = *state;
	struct pcie_root_port_config cfg = {.id = "p1", .devfn = -1, .chassis = 3, .slot = 4};
	struct err err = {0};
	struct pci_bus *sec;

	assert_int_equal(pcie_root_port_new(&f->fv->vm, f->root, &cfg, &sec, &err), 0);
	cfg.id = "p2";
	assert_int_equal(pcie_root_port_new(&f->fv->vm, f->root, &cfg, &sec, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "'p1'"));
	cfg.slot = 8192;
	assert_int_equal(pcie_root_port_new(&f->fv->vm, f->root, &cfg, &sec, &err), -EINVAL);
	cfg.slot = 0;
	assert_int_equal(pcie_root_port_new(&f->fv->vm, sec, &cfg, &sec, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "root bus"));
	cfg.id = "p1"; /* the id is taken: everything is undone */
	assert_int_equal(pcie_root_port_new(&f->fv->vm, f->root, &cfg, &sec, &err), -EEXIST);
	assert_int_equal(fake_cfg_read(f->fv, 0x28, 0, 4), NOBODY);
}

static void test_bus_numbers(void **state)
{
	struct fixture *f = *state;

	/* Reset state: secondary 0 leads nowhere. */
	assert_int_equal(fake_cfg_read(f->fv, 0x100, 0, 4), NOBODY);
	fake_cfg_write(f->fv, PORT, PCI_PRIMARY_BUS, 0x050500, 4);
	assert_int_equal(fake_cfg_read(f->fv, 0x500, 2, 2), TOY_DEVICE);
	assert_int_equal(fake_cfg_read(f->fv, 0x501, 2, 2), 0xffff);
	assert_int_equal(fake_cfg_read(f->fv, 0x508, 2, 2), 0xffff); /* one slot */
	assert_int_equal(fake_pci_find(f->fv, TOY_VENDOR, TOY_DEVICE, 2), 0x500);
	fake_cfg_write(f->fv, 0x500, PCI_INTERRUPT_LINE, 0x77, 1);
	/* Renumbered: the same function, elsewhere. */
	fake_cfg_write(f->fv, PORT, PCI_PRIMARY_BUS, 0xff0900, 4);
	assert_int_equal(fake_cfg_read(f->fv, 0x500, 2, 2), 0xffff);
	assert_int_equal(fake_cfg_read(f->fv, 0x900, PCI_INTERRUPT_LINE, 1), 0x77);
	/* A number between secondary and subordinate, where nothing is. */
	assert_int_equal(fake_cfg_read(f->fv, 0xa00, 0, 4), NOBODY);
	/* Subordinate below secondary: closed. */
	fake_cfg_write(f->fv, PORT, PCI_PRIMARY_BUS, 0x080900, 4);
	assert_int_equal(fake_cfg_read(f->fv, 0x900, 0, 4), NOBODY);
	/* Behind a port: a plain endpoint with a link. */
	fake_cfg_write(f->fv, PORT, PCI_PRIMARY_BUS, 0x010100, 4);
	assert_int_equal(fake_cfg_read(f->fv, 0x100,
				       fake_pci_cap(f->fv, 0x100, PCI_CAP_EXPRESS, 0) + 2, 2),
			 2);
	assert_int_equal(
		fake_cfg_read(f->fv, 0x100,
			      fake_pci_cap(f->fv, 0x100, PCI_CAP_EXPRESS, 0) + PCI_EXP_LNKSTA,
			      2),
		0x11);
}

static void test_windows(void **state)
{
	struct fixture *f = *state;

	fake_cfg_write(f->fv, PORT, PCI_PRIMARY_BUS, 0x010100, 4);
	fake_pci_bar_write(f->fv, 0x100, 0, 0xc0100000);
	fake_pci_bar_write(f->fv, 0x100, 2, 0x4000000000);
	fake_pci_bar_write(f->fv, 0x100, 4, 0x6000);
	command(f, 0x100, 7);
	assert_int_equal(at(f, 0xc0100000), NOBODY);
	/* Open, but the bridge does not decode; then it does. */
	window(f, 0xc010, 0xc010);
	assert_int_equal(at(f, 0xc0100000), NOBODY);
	command(f, PORT, PCI_COMMAND_MEMORY);
	assert_int_equal(at(f, 0xc0100000), MARK(f->c, 0));
	assert_int_equal(at(f, 0x4000000000), NOBODY);
	prefetch_window(f, 0x4000000000, 0x40000fffff);
	assert_int_equal(at(f, 0x4000000000), MARK(f->c, 2));
	/* There is no I/O window. */
	assert_int_equal(fake_pio_read(f->fv, 0x6000, 4), NOBODY);
	/* The edges of the window, and just outside. */
	fake_pci_bar_write(f->fv, 0x100, 0, 0xc01ff000);
	assert_int_equal(at(f, 0xc01ff000), MARK(f->c, 0));
	fake_pci_bar_write(f->fv, 0x100, 0, 0xc0200000);
	assert_int_equal(at(f, 0xc0200000), NOBODY);
	fake_pci_bar_write(f->fv, 0x100, 0, 0xc00ff000);
	assert_int_equal(at(f, 0xc00ff000), NOBODY);
	/* The window moves under it. */
	window(f, 0xc000, 0xc000);
	assert_int_equal(at(f, 0xc00ff000), MARK(f->c, 0));
	/* Closed: base above limit. */
	window(f, 0xc010, 0xc000);
	assert_int_equal(at(f, 0xc00ff000), NOBODY);
	prefetch_window(f, 0x4000000000, 0x3fffffffff);
	assert_int_equal(at(f, 0x4000000000), NOBODY);
	/* Any BAR passes by either window. */
	prefetch_window(f, 0xc0000000, 0xc00fffff);
	assert_int_equal(at(f, 0xc00ff000), MARK(f->c, 0));
	command(f, PORT, 0);
	assert_int_equal(at(f, 0xc00ff000), NOBODY);
	assert_int_equal(f->root->conflicts, 0);
}

static void test_bus_reset_and_link(void **state)
{
	struct fixture *f = *state;
	unsigned exp = fake_pci_cap(f->fv, PORT, PCI_CAP_EXPRESS, 0);
	unsigned pmcsr = fake_pci_cap(f->fv, PORT, PCI_CAP_PM, 0) + PCI_PM_PMCSR;

	fake_cfg_write(f->fv, PORT, PCI_PRIMARY_BUS, 0x010100, 4);
	window(f, 0xc000, 0xc000);
	command(f, PORT, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	fake_pci_bar_write(f->fv, 0x100, 0, 0xc0000000);
	command(f, 0x100, 6);
	assert_int_equal(at(f, 0xc0000000), MARK(f->c, 0));
	assert_true(pci_bus_master(&f->c->func));
	command(f, PORT, PCI_COMMAND_MEMORY);
	assert_false(pci_bus_master(&f->c->func)); /* the port does not pass requests up */
	command(f, PORT, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	/* In D3hot the port passes nothing, but nothing is forgotten. */
	fake_cfg_write(f->fv, PORT, pmcsr, PCI_PMCSR_D3HOT, 2);
	assert_int_equal(at(f, 0xc0000000), NOBODY);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, 0, 2), 0xffff);
	fake_cfg_write(f->fv, PORT, pmcsr, 0, 2);
	assert_int_equal(at(f, 0xc0000000), MARK(f->c, 0));
	assert_int_equal(f->c->bus_resets, 0);

	/* Secondary bus reset: gone while it is held, reset once, unassigned afterwards. */
	fake_cfg_write(f->fv, PORT, PCI_BRIDGE_CONTROL, PCI_BRIDGE_RESET, 2);
	assert_int_equal(f->c->bus_resets, 1);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, 0, 2), 0xffff);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_LNKSTA, 2), 0);
	assert_int_equal(at(f, 0xc0000000), NOBODY);
	fake_cfg_write(f->fv, PORT, PCI_BRIDGE_CONTROL, PCI_BRIDGE_RESET, 2);
	fake_cfg_write(f->fv, PORT, PCI_BRIDGE_CONTROL, 0, 2);
	assert_int_equal(f->c->bus_resets, 1);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_LNKSTA, 2), 0x2011);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, PCI_BAR0, 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, PCI_COMMAND, 2), 0);

	/* Link disable does the same. */
	fake_cfg_write(f->fv, PORT, exp + PCI_EXP_LNKCTL, PCI_EXP_LNKCTL_DISABLE, 2);
	assert_int_equal(f->c->bus_resets, 2);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, 0, 2), 0xffff);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_SLTSTA, 2), 0x40);
	fake_cfg_write(f->fv, PORT, exp + PCI_EXP_LNKCTL, 0, 2);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, 0, 2), TOY_VENDOR);
	/* Retrain Link is done at once and reads 0. */
	fake_cfg_write(f->fv, PORT, exp + PCI_EXP_LNKCTL, 0x20, 2);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_LNKCTL, 2), 0);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_LNKSTA, 2), 0x2011);
	/* A machine reset while the bus is held in reset lets go of it. */
	fake_cfg_write(f->fv, PORT, PCI_BRIDGE_CONTROL, PCI_BRIDGE_RESET, 2);
	device_list_reset(&f->fv->devices);
	assert_int_equal(fake_cfg_read(f->fv, PORT, exp + PCI_EXP_LNKSTA, 2), 0x2011);
}

/* Two machines in one process do not know of each other. */
static void test_two_machines(void **state)
{
	struct fixture *f = *state;
	struct fake_vm *other = fake_vm_new(NULL);
	struct pci_bus *root = fake_pci_host(other);
	struct toy *t = toy_new(&other->vm, root, A, TOY_NVEC, 9);

	fake_pci_bar_write(f->fv, A, 0, 0xc0000000);
	command(f, A, PCI_COMMAND_MEMORY);
	assert_int_equal(fake_mmio_read(other, 0xc0000000, 4), NOBODY);
	fake_pci_bar_write(other, A, 0, 0xc0000000);
	fake_cfg_write(other, A, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_int_equal(fake_mmio_read(other, 0xc0000000, 4), MARK(t, 0));
	assert_int_equal(at(f, 0xc0000000), MARK(f->a, 0));
	fake_pio_write(other, 0xcf8, 0x80000000, 4);
	assert_int_equal(fake_pio_read(f->fv, 0xcf8, 4), 0);
	fake_vm_free(other);
	assert_int_equal(at(f, 0xc0000000), MARK(f->a, 0));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_sizing),	      T(test_moving_under_decode), T(test_changing_places),
		T(test_overlaps),     T(test_power_state),	   T(test_port_registers),
		T(test_port_refused), T(test_bus_numbers),	   T(test_windows),
		T(test_two_machines), T(test_bus_reset_and_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
