/*
 * Configuration space as the guest sees it: ECAM and CF8/CFC widths, absent functions, the
 * write mask of every standard register, capability lists, reset.
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

#define TOY_BDF 0x10u /* 00:02.0 */

struct fixture {
	struct fake_vm *fv;
	struct pci_bus *root, *sec;
	struct toy *toy;
};

static int setup(void **state)
{
	static struct fixture f;

	f.fv = fake_vm_new(NULL);
	f.root = fake_pci_host(f.fv);
	f.toy = toy_new(&f.fv->vm, f.root, TOY_BDF, TOY_NVEC, 1);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_vm_free(f->fv);
	return 0;
}

static uint64_t ecam(unsigned bdf, unsigned off)
{
	return FAKE_ECAM + ((uint64_t)bdf << 12) + off;
}

static void test_ecam_widths(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 0, 4), TOY_DEVICE << 16 | TOY_VENDOR);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 2, 2), TOY_DEVICE);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 1, 1), TOY_VENDOR >> 8);
	assert_int_equal(fake_mmio_read(f->fv, ecam(TOY_BDF, 8), 8),
			 fake_cfg_read(f->fv, TOY_BDF, 8, 4) |
				 (uint64_t)fake_cfg_read(f->fv, TOY_BDF, 12, 4) << 32);
	/* Unaligned: no such access. */
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 1, 2), 0xffff);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 2, 4), 0xffffffff);
	fake_cfg_write(f->fv, TOY_BDF, PCI_INTERRUPT_LINE, 0x12, 1);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_INTERRUPT_LINE, 1), 0x12);
	fake_cfg_write(f->fv, TOY_BDF, PCI_INTERRUPT_LINE - 1, 0x3456, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_INTERRUPT_LINE, 1), 0x12);
	fake_cfg_write(f->fv, TOY_BDF, PCI_INTERRUPT_LINE, 0xffffff56, 4);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_INTERRUPT_LINE, 4), 0x56);
	/* The last register, the first one after it. */
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 0xffc, 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF + 1, 0, 4), 0xffffffff);
	/* Absent: function, slot, bus, the end of ECAM. */
	assert_int_equal(fake_cfg_read(f->fv, 0x18, 0, 2), 0xffff);
	assert_int_equal(fake_cfg_read(f->fv, 0x100, 0, 1), 0xff);
	assert_int_equal(fake_cfg_read(f->fv, 0xffff, 0xffc, 4), 0xffffffff);
	fake_cfg_write(f->fv, 0xffff, 0, 0, 4);
	assert_int_equal(fake_mmio_read(f->fv, FAKE_ECAM + PCI_ECAM_SIZE, 4), 0xffffffff);
}

static void test_config_mechanism_1(void **state)
{
	struct fixture *f = *state;
	uint32_t toy = 0x80000000u | TOY_BDF << 8;

	/* How Linux asks whether the mechanism exists. */
	fake_pio_write(f->fv, 0xcfb, 1, 1);
	fake_pio_write(f->fv, 0xcf8, 0x80000000u, 4);
	assert_int_equal(fake_pio_read(f->fv, 0xcf8, 4), 0x80000000u);
	/* Reserved bits read zero; smaller accesses do not reach the latch. */
	fake_pio_write(f->fv, 0xcf8, 0xffffffffu, 4);
	assert_int_equal(fake_pio_read(f->fv, 0xcf8, 4), 0x80fffffcu);
	fake_pio_write(f->fv, 0xcf8, 0, 2);
	fake_pio_write(f->fv, 0xcf8, 0, 1);
	fake_pio_write(f->fv, 0xcfa, 0, 2);
	assert_int_equal(fake_pio_read(f->fv, 0xcf8, 4), 0x80fffffcu);
	assert_int_equal(fake_pio_read(f->fv, 0xcf8, 1), 0xff);
	assert_int_equal(fake_pio_read(f->fv, 0xcfa, 2), 0xffff);
	assert_int_equal(fake_pio_read(f->fv, 0xcfc, 4), 0xffffffff); /* nothing is there */

	fake_pio_write(f->fv, 0xcf8, toy, 4);
	assert_int_equal(fake_pio_read(f->fv, 0xcfc, 4), TOY_DEVICE << 16 | TOY_VENDOR);
	assert_int_equal(fake_pio_read(f->fv, 0xcfc, 2), TOY_VENDOR);
	assert_int_equal(fake_pio_read(f->fv, 0xcfe, 2), TOY_DEVICE);
	assert_int_equal(fake_pio_read(f->fv, 0xcfd, 2),
			 (TOY_DEVICE & 0xff) << 8 | TOY_VENDOR >> 8);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fake_pio_read(f->fv, (uint16_t)(0xcfc + i), 1),
				 ((TOY_DEVICE << 16 | TOY_VENDOR) >> 8 * i) & 0xff);
	}
	assert_int_equal(fake_pio_read(f->fv, 0xcfe, 4), 0xffffffff); /* past CFF */
	assert_int_equal(fake_pio_read(f->fv, 0xcff, 2), 0xffff);

	/* Writes: each width and lane, into a BAR, whose bits above the size all stick. */
	fake_pio_write(f->fv, 0xcf8, toy | PCI_BAR0, 4);
	fake_pio_write(f->fv, 0xcfc, 0x12345678, 4);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_BAR0, 4), 0x12345000);
	fake_pio_write(f->fv, 0xcff, 0xab, 1);
	fake_pio_write(f->fv, 0xcfd, 0xcdef, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_BAR0, 4), 0xabcde000);
	fake_pio_write(f->fv, 0xcfe, 0x1122, 2);
	assert_int_equal(fake_pio_read(f->fv, 0xcfc, 4), 0x1122e000);
	/* Without the enable bit nobody listens. */
	fake_pio_write(f->fv, 0xcf8, (toy | PCI_BAR0) & 0x7fffffff, 4);
	fake_pio_write(f->fv, 0xcfc, 0, 4);
	assert_int_equal(fake_pio_read(f->fv, 0xcfc, 4), 0xffffffff);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_BAR0, 4), 0x1122e000);
	device_list_reset(&f->fv->devices);
	assert_int_equal(fake_pio_read(f->fv, 0xcf8, 4), 0);
}

static void test_reset_register(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fake_pio_read(f->fv, 0xcf9, 1), 0);
	fake_pio_write(f->fv, 0xcf9, 0x02, 1);
	assert_int_equal(f->fv->power.count[POWER_RESET], 0);
	assert_int_equal(fake_pio_read(f->fv, 0xcf9, 1), 0x02);
	fake_pio_write(f->fv, 0xcf9, 0x06, 1);
	assert_int_equal(f->fv->power.count[POWER_RESET], 1);
	assert_int_equal(fake_pio_read(f->fv, 0xcf9, 1), 0x06);
	fake_pio_write(f->fv, 0xcf9, 0x0e, 1);
	assert_int_equal(f->fv->power.count[POWER_RESET], 2);
	/* Wider accesses are the latch's, or nobody's. */
	fake_pio_write(f->fv, 0xcf9, 0x0606, 2);
	fake_pio_write(f->fv, 0xcf8, 0x80000600, 4);
	assert_int_equal(f->fv->power.count[POWER_RESET], 2);
	device_list_reset(&f->fv->devices);
	assert_int_equal(fake_pio_read(f->fv, 0xcf9, 1), 0);
}

/* Writes all ones, then all zeros: which bits of the register took them? */
static uint32_t writable(struct fake_vm *fv, unsigned bdf, unsigned off)
{
	uint32_t ones, zeros;

	fake_cfg_write(fv, bdf, off, UINT32_MAX, 4);
	ones = fake_cfg_read(fv, bdf, off, 4);
	fake_cfg_write(fv, bdf, off, 0, 4);
	zeros = fake_cfg_read(fv, bdf, off, 4);
	return ones ^ zeros;
}

static void test_masks_type_0(void **state)
{
	struct fixture *f = *state;
	static const uint32_t expect[16] = {
		[1] = 0x0547, /* command; status takes nothing */
		[3] = 0xff,   /* cache line size */
		[4] = 0xfffff000, [5] = 0,     [6] = 0xffffc000, [7] = 0xffffffff,
		[8] = 0xffffffe0, [15] = 0xff, /* interrupt line; the pin stays 0 */
	};
	uint32_t before[16];

	for (unsigned i = 0; i < 16; i++) {
		before[i] = fake_cfg_read(f->fv, TOY_BDF, 4 * i, 4);
	}
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(writable(f->fv, TOY_BDF, 4 * i), expect[i]);
		assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 4 * i, 4),
				 before[i] & ~expect[i]);
	}
	assert_int_equal(before[2], 0xff000003);
	assert_int_equal(before[4], 0);
	assert_int_equal(before[6], PCI_BAR_MEM_64 | PCI_BAR_PREFETCHABLE);
	assert_int_equal(before[8], PCI_BAR_IO_SPACE);
	assert_int_equal(before[11], 0x11001af4);
	assert_int_equal(before[15], 0);
	/* The host bridge has nothing behind its BARs, nor in PCIEXBAR. */
	for (unsigned off = 0x10; off < 0x100; off += 4) {
		assert_int_equal(writable(f->fv, 0, off), off == 0x3c ? 0xff : 0);
	}
	assert_int_equal(fake_cfg_read(f->fv, 0, 0, 4), 0x29c08086);
	assert_int_equal(fake_cfg_read(f->fv, 0, 8, 4), 0x06000000);
	assert_int_equal(fake_cfg_read(f->fv, 0, 0x2c, 4), 0x11001af4);
	assert_int_equal(fake_cfg_read(f->fv, 0, 0x34, 1), 0);
	assert_int_equal(fake_cfg_read(f->fv, 0, PCI_INTERRUPT_PIN, 1), 0);
}

static void test_lpc(void **state)
{
	struct fixture *f = *state;

	/* The writes that OVMF makes change nothing. */
	fake_cfg_write(f->fv, 0xf8, 0x40, 0xabc1, 4);
	fake_cfg_write(f->fv, 0xf8, 0x44, 0, 1);
	fake_cfg_write(f->fv, 0xf8, 0xf0, 0xfed1c001, 4);
	assert_int_equal(fake_cfg_read(f->fv, 0xf8, 0x40, 4), FAKE_PM_BASE | 1);
	assert_int_equal(fake_cfg_read(f->fv, 0xf8, 0x44, 1), 0x80);
	assert_int_equal(fake_cfg_read(f->fv, 0xf8, 0xf0, 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, 0xf8, 0x0a, 2), 0x0601);
	assert_int_not_equal(fake_cfg_read(f->fv, 0xf8, 0, 2), 0x8086);
	fake_pio_write(f->fv, 0xcf8, 0x8000f840, 4);
	assert_int_equal(fake_pio_read(f->fv, 0xcfc, 4), FAKE_PM_BASE | 1);
}

static void test_write_one_to_clear(void **state)
{
	struct fixture *f = *state;
	struct pci_func *fn = &f->toy->func;

	pci_set16(fn, PCI_STATUS, pci_get16(fn, PCI_STATUS) | PCI_STATUS_RW1C);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_STATUS, 2),
			 PCI_STATUS_RW1C | PCI_STATUS_CAPABILITIES);
	fake_cfg_write(f->fv, TOY_BDF, PCI_STATUS, 0, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_STATUS, 2),
			 PCI_STATUS_RW1C | PCI_STATUS_CAPABILITIES);
	fake_cfg_write(f->fv, TOY_BDF, PCI_STATUS, 0x8000, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_STATUS, 2),
			 (PCI_STATUS_RW1C & ~0x8000) | PCI_STATUS_CAPABILITIES);
	/* A dword write to the command clears what it writes as 1 next door, no more. */
	fake_cfg_write(f->fv, TOY_BDF, PCI_COMMAND, 0x01000002, 4);
	assert_int_equal(
		fake_cfg_read(f->fv, TOY_BDF, PCI_COMMAND, 4),
		(uint32_t)((PCI_STATUS_RW1C & ~0x8100) | PCI_STATUS_CAPABILITIES) << 16 | 2);
	fake_cfg_write(f->fv, TOY_BDF, PCI_STATUS, 0xffff, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
}

static void test_capabilities(void **state)
{
	struct fixture *f = *state;
	unsigned exp = fake_pci_cap(f->fv, TOY_BDF, PCI_CAP_EXPRESS, 0);
	unsigned pm = fake_pci_cap(f->fv, TOY_BDF, PCI_CAP_PM, 0);
	unsigned x = fake_pci_cap(f->fv, TOY_BDF, PCI_CAP_MSIX, 0);
	struct pci_func *fn = &f->toy->func;
	unsigned a, b;

	assert_int_equal(pm, 0x40);
	assert_true(exp && x);
	assert_int_equal(fake_pci_cap(f->fv, TOY_BDF, PCI_CAP_MSI, 0), 0);
	assert_int_equal(fake_pci_cap(f->fv, TOY_BDF, PCI_CAP_PM, pm), 0);
	/* On the root bus: integrated endpoint, version 2, no link. */
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, exp + PCI_EXP_FLAGS, 2), 0x92);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, exp + PCI_EXP_LNKCAP, 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, exp + PCI_EXP_LNKSTA, 2), 0);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, exp + PCI_EXP_DEVCTL, 2), 0x2810);
	assert_int_equal(writable(f->fv, TOY_BDF, exp + PCI_EXP_DEVCTL), 0x781f);
	assert_int_equal(writable(f->fv, TOY_BDF, x), 0xc0000000);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, x + 2, 2), TOY_NVEC - 1);
	assert_int_equal(writable(f->fv, TOY_BDF, x + 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, x + 4, 4), 0x1000 | 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, x + 8, 4), 0x2000 | 2);

	/* Power states: D1 and D2 do not exist. */
	fake_cfg_write(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 1, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 2), 8);
	fake_cfg_write(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 3, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 2), 0xb);
	fake_cfg_write(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 2, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 2), 0xb);
	fake_cfg_write(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 0, 2);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, pm + PCI_PM_PMCSR, 2), 8);

	/* Extended ones are chained, too; none reads 0 at 0x100. */
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, 0x100, 4), 0);
	a = pci_ext_cap_add(fn, 3, 1, 12);
	b = pci_ext_cap_add(fn, 0xb, 2, 17);
	assert_int_equal(a, 0x100);
	assert_int_equal(b, 0x10c);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, a, 4), 0x10c10003);
	assert_int_equal(fake_cfg_read(f->fv, TOY_BDF, b, 4), 0x0002000b);
	assert_int_equal(f->toy->cfg_writes > 0, 1);
}

/* Without the PCI Express capability there are 256 bytes. */
static void test_conventional(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fake_cfg_read(f->fv, 0, 0xfc, 4), 0);
	assert_int_equal(fake_cfg_read(f->fv, 0, 0x100, 4), 0xffffffff);
	assert_int_equal(fake_cfg_read(f->fv, 0, 0xfff, 1), 0xff);
	fake_cfg_write(f->fv, 0, 0x100, 0, 4);
	assert_int_equal(fake_cfg_read(f->fv, 0, 0x100, 4), 0xffffffff);
}

/* A machine without ports has no function of its own, and slot 0 stays free. */
static void test_host_without_ports(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct pci_func fn = {0};
	struct pci_host *h;

	(void)state;
	assert_int_equal(pci_host_new(&fv->vm, FAKE_ECAM, false, 0, &h, NULL), 0);
	for (unsigned bdf = 0; bdf < 256; bdf++) {
		assert_int_equal(fake_cfg_read(fv, bdf, 0, 4), 0xffffffff);
	}
	assert_int_equal(fake_pio_read(fv, 0xcf8, 4), 0xffffffff);
	assert_int_equal(pci_func_add(&fn, pci_host_bus(h), -1, "x", NULL, NULL), 0);
	assert_int_equal(fn.devfn, PCI_DEVFN(1, 0));
	pci_func_remove(&fn);
	fake_vm_free(fv);
}

static void test_places(void **state)
{
	struct fixture *f = *state;
	struct pci_func fn[4] = {0};
	struct pci_bus *sec;
	struct err err = {0};
	int devfn;

	assert_int_equal(pci_func_add(&fn[0], f->root, TOY_BDF, "x", NULL, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "toy-1"));
	/* Function 0 says that it is alone; neither order is taken. */
	assert_int_equal(pci_func_add(&fn[0], f->root, TOY_BDF + 1, "x", NULL, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "multifunction=on"));
	assert_int_equal(pci_func_add(&fn[0], f->root, PCI_DEVFN(9, 1), "x", NULL, &err), 0);
	assert_int_equal(pci_func_add(&fn[1], f->root, PCI_DEVFN(9, 0), "y", NULL, &err),
			 -EBUSY);
	fn[1].multifunction = true;
	assert_int_equal(pci_func_add(&fn[1], f->root, PCI_DEVFN(9, 0), "y", NULL, &err), 0);
	assert_int_equal(fake_cfg_read(f->fv, PCI_DEVFN(9, 0), PCI_HEADER_TYPE, 1), 0x80);
	/* The first free slot: 0 and 2 are taken. */
	assert_int_equal(pci_func_add(&fn[2], f->root, -1, "z", NULL, &err), 0);
	assert_int_equal(fn[2].devfn, PCI_DEVFN(1, 0));
	for (int i = 0; i < 3; i++) {
		pci_func_remove(&fn[i]);
		pci_func_remove(&fn[i]);
	}
	assert_int_equal(fake_cfg_read(f->fv, PCI_DEVFN(1, 0), 0, 4), 0xffffffff);

	assert_int_equal(
		pcie_root_port_new(&f->fv->vm, f->root,
				   &(struct pcie_root_port_config){.id = "rp", .devfn = 0x20},
				   &sec, &err),
		0);
	assert_int_equal(pci_func_add(&fn[3], sec, 8, "x", NULL, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "'rp'"));
	assert_int_equal(pci_func_add(&fn[3], sec, -1, "x", NULL, &err), 0);
	memset(&fn[2], 0, sizeof(fn[2]));
	assert_int_equal(pci_func_add(&fn[2], sec, -1, "y", NULL, &err), -ENOSPC);
	assert_ptr_equal(pci_bus_by_name(f->root, "rp"), sec);
	assert_ptr_equal(pci_bus_by_name(f->root, "pcie.0"), f->root);
	assert_null(pci_bus_by_name(f->root, "pci.0"));
	pci_func_remove(&fn[3]);

	assert_int_equal(pci_parse_addr("1f.7", &devfn, &err), 0);
	assert_int_equal(devfn, 0xff);
	assert_int_equal(pci_parse_addr("a", &devfn, &err), 0);
	assert_int_equal(devfn, 0x50);
	assert_int_equal(pci_parse_addr(NULL, &devfn, &err), 0);
	assert_int_equal(devfn, -1);
	for (const char *const *p =
		     (const char *const[]){"", ".", "20", "1.8", "1.", "-1", " 1", "0x1",
					   "1.0.0", "1f.10", "1 ", NULL};
	     *p; p++) {
		assert_int_equal(pci_parse_addr(*p, &devfn, &err), -EINVAL);
	}
}

static void test_reset(void **state)
{
	struct fixture *f = *state;
	unsigned exp = fake_pci_cap(f->fv, TOY_BDF, PCI_CAP_EXPRESS, 0);
	uint8_t before[PCI_CFG_SIZE];

	memcpy(before, f->toy->func.cfg, sizeof(before));
	for (unsigned off = 0; off < PCI_CFG_SIZE; off += 4) {
		if (off != 0x40 + PCI_PM_PMCSR) { /* not into D3hot */
			fake_cfg_write(f->fv, TOY_BDF, off, 0xffffffff, 4);
		}
	}
	fake_cfg_write(f->fv, TOY_BDF, exp + PCI_EXP_DEVCTL, 0, 2);
	fake_pci_bar_write(f->fv, TOY_BDF, 0, 0xc0000000);
	fake_cfg_write(f->fv, TOY_BDF, PCI_COMMAND, 7, 2);
	assert_int_equal(f->toy->addr[0], 0xc0000000);
	device_list_reset(&f->fv->devices);
	assert_memory_equal(f->toy->func.cfg, before, sizeof(before));
	assert_int_equal(f->toy->addr[0], 0);
	assert_int_equal(fake_mmio_read(f->fv, 0xc0000000, 4), 0xffffffff);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_ecam_widths),
		T(test_config_mechanism_1),
		T(test_reset_register),
		T(test_masks_type_0),
		T(test_lpc),
		T(test_write_one_to_clear),
		T(test_capabilities),
		T(test_conventional),
		cmocka_unit_test(test_host_without_ports),
		T(test_places),
		T(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
