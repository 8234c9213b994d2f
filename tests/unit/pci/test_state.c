/*
 * State of PCI functions: saved in the middle of things, loaded into another machine, which
 * goes on from there; streams of other devices and hostile ones are refused, or are at worst
 * what a guest could have written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/fake_pci.h"
#include "pci/msi.h"
#include "pci/msix.h"
#include "spec/pci.h"
#include "toy.h"

#define A    0x10u
#define PORT 0x20u
#define B    0x100u /* behind the port */

struct side {
	struct fake_vm *fv;
	struct pci_bus *root, *sec;
	struct toy *a, *b;
};

static struct side side_new(void)
{
	struct side s;

	s.fv = fake_vm_new(NULL);
	s.root = fake_pci_host(s.fv);
	s.a = toy_new(&s.fv->vm, s.root, A, TOY_NVEC, 1);
	assert_int_equal(
		pcie_root_port_new(&s.fv->vm, s.root,
				   &(struct pcie_root_port_config){.id = "rp", .devfn = PORT},
				   &s.sec, NULL),
		0);
	s.b = toy_new(&s.fv->vm, s.sec, -1, 5, 2);
	return s;
}

static void test_round_trip(void **state)
{
	struct side x = side_new(), y = side_new();
	struct err err = {0};
	unsigned msi;

	fake_pci_assign(x.fv, x.root);
	/* In the middle of things: a masked vector with something pending, a live one, a bus
	 * behind a port, the latch half way through an access, a half-moved BAR. */
	fake_msix_control(x.fv, A, true, false);
	fake_msix_program(x.fv, A, 0, FAKE_MSI_ADDR, 10, false);
	fake_msix_program(x.fv, A, 1, FAKE_MSI_ADDR, 11, true);
	fake_msix_control(x.fv, B, true, false);
	fake_msix_program(x.fv, B, 4, FAKE_MSI_ADDR, 24, false);
	msix_trigger(&x.a->func, 0);
	msix_trigger(&x.a->func, 1);
	assert_int_equal(fake_irq_data_count(&x.fv->irq, 10), 1);
	fake_pio_write(x.fv, 0xcf8, 0x80001040, 4);
	fake_cfg_write(x.fv, A, PCI_BAR0 + 12, 0x41, 4);
	msi = fake_pci_cap(x.fv, PORT, PCI_CAP_MSI, 0);
	fake_cfg_write(x.fv, PORT, msi + PCI_MSI_ADDRESS, (uint32_t)FAKE_MSI_ADDR, 4);
	fake_cfg_write(x.fv, PORT, msi + PCI_MSI_DATA, 77, 2);
	fake_cfg_write(x.fv, PORT, msi + PCI_MSI_MASK, 1, 4);
	fake_cfg_write(x.fv, PORT, msi + PCI_MSI_CONTROL, PCI_MSI_ENABLE, 2);
	msi_trigger(x.sec->bridge, 0);

	fake_vm_pause(x.fv);
	fake_vm_pause(y.fv);
	assert_int_equal(fake_vm_transfer(x.fv, y.fv, &err), 0);

	assert_int_equal(fake_pio_read(y.fv, 0xcf8, 4), 0x80001040);
	for (unsigned bdf = 0; bdf < 0x108; bdf += 8) {
		for (unsigned off = 0; off < 0x100; off += 4) {
			assert_int_equal(fake_cfg_read(y.fv, bdf, off, 4),
					 fake_cfg_read(x.fv, bdf, off, 4));
		}
	}
	for (unsigned bar = 0; bar < 4; bar += 2) {
		assert_int_equal(y.a->addr[bar], x.a->addr[bar]);
		assert_int_equal(y.b->addr[bar], x.b->addr[bar]);
		assert_int_not_equal(y.b->addr[bar], 0);
	}
	assert_int_equal(fake_mmio_read(y.fv, y.b->addr[2], 4), TOY_MARK + 2 + 2 * 256);
	assert_int_equal(fake_irq_total(&y.fv->irq), 0); /* nothing twice */
	msix_trigger(&y.a->func, 0);
	msix_trigger(&y.b->func, 4);
	assert_int_equal(fake_irq_data_count(&y.fv->irq, 10), 1);
	assert_int_equal(fake_irq_data_count(&y.fv->irq, 24), 1);
	fake_msix_mask(y.fv, A, 1, false);
	assert_int_equal(fake_irq_data_count(&y.fv->irq, 11), 1);
	fake_cfg_write(y.fv, PORT, msi + PCI_MSI_MASK, 0, 4);
	assert_int_equal(fake_irq_data_count(&y.fv->irq, 77), 1);
	/* Reset brings the machine's own beginning back, not the stream's. */
	device_list_reset(&y.fv->devices);
	assert_int_equal(fake_cfg_read(y.fv, A, PCI_BAR0, 4), 0);
	assert_int_equal(fake_cfg_read(y.fv, PORT, PCI_PRIMARY_BUS, 4), 0);
	fake_vm_free(x.fv);
	fake_vm_free(y.fv);
}

/* Devices come in the order of their creation; loading must not depend on it. */
static void test_any_order(void **state)
{
	static struct pci_func_state port, dev;
	struct side x = side_new(), y = side_new();
	struct err err = {0};

	fake_pci_assign(x.fv, x.root);
	fake_msix_control(x.fv, B, true, false);
	fake_msix_program(x.fv, B, 0, FAKE_MSI_ADDR, 9, false);
	pci_func_save(x.sec->bridge, &port);
	pci_func_save(&x.b->func, &dev);
	dev.vec[0].pending = true; /* saved while the port did not pass requests */
	assert_int_equal(pci_func_load(&y.b->func, &dev, &err), 0);
	assert_int_equal(y.b->addr[0], 0); /* the port's windows are still closed */
	assert_int_equal(fake_irq_total(&y.fv->irq), 0);
	assert_int_equal(pci_func_load(y.sec->bridge, &port, &err), 0);
	assert_int_equal(y.b->addr[0], x.b->addr[0]);
	assert_int_equal(fake_irq_data_count(&y.fv->irq, 9), 1);
	fake_vm_free(x.fv);
	fake_vm_free(y.fv);
}

static void expect_refused(struct pci_func *f, const struct pci_func_state *st, const char *why)
{
	uint8_t before[PCI_CFG_SIZE];
	struct err err = {0};

	memcpy(before, f->cfg, sizeof(before));
	assert_int_equal(pci_func_load(f, st, &err), -EINVAL);
	assert_non_null(strstr(err.msg, f->name));
	assert_non_null(strstr(err.msg, why));
	assert_memory_equal(before, f->cfg, sizeof(before));
}

static void test_refused(void **state)
{
	static struct pci_func_state good, st;
	struct side x = side_new();
	struct pci_func *f = &x.a->func;
	unsigned exp = fake_pci_cap(x.fv, A, PCI_CAP_EXPRESS, 0);

	fake_pci_assign(x.fv, x.root);
	pci_func_save(f, &good);
#define BAD(off_, v_, why_) (st = good, st.cfg[off_] = (v_), expect_refused(f, &st, why_))
	BAD(PCI_VENDOR_ID, 0, "another device");
	BAD(PCI_DEVICE_ID + 1, 0, "another device");
	BAD(PCI_CLASS_CODE + 2, 1, "another device");
	BAD(PCI_HEADER_TYPE, PCI_HEADER_TYPE_1, "another device");
	BAD(PCI_BAR0, PCI_BAR_IO_SPACE, "another device");
	BAD(PCI_BAR0, PCI_BAR_MEM_64, "another device");
	BAD(PCI_BAR0 + 1, 0x08, "another device"); /* within the size */
	BAD(PCI_BAR0 + 4, 1, "another device");	   /* a BAR that is not there */
	BAD(PCI_BAR0 + 8, 0, "another device");
	BAD(PCI_CAPABILITIES, 0, "another device");
	BAD(PCI_INTERRUPT_PIN, 1, "another device");
	BAD(0x40, PCI_CAP_MSI, "capabilities");
	BAD(exp + PCI_CAP_NEXT, 0xff, "capabilities");
	BAD(0x40 + PCI_PM_PMCSR, 1, "power state");
	st = good;
	st.nvec = TOY_NVEC - 1;
	expect_refused(f, &st, "interrupt vectors");
	st.nvec = 0;
	expect_refused(f, &st, "interrupt vectors");
	expect_refused(x.sec->bridge, &good, "another device");
	assert_int_equal(pci_func_load(f, &good, NULL), 0);
	fake_vm_free(x.fv);
}

/* Valid as registers, nonsense as a configuration: taken as from a guest, nothing breaks. */
static void test_nonsense(void **state)
{
	static struct pci_func_state good, st;
	struct side x = side_new();
	struct toy *c = toy_new(&x.fv->vm, x.root, 0x30, TOY_NVEC, 3);
	struct pci_func *f = &c->func;
	struct err err = {0};

	fake_pci_assign(x.fv, x.root);
	pci_func_save(f, &good);
	/* On top of another device's BAR, of ECAM. */
	st = good;
	memcpy(&st.cfg[PCI_BAR0], &x.a->func.cfg[PCI_BAR0], 4);
	memcpy(&st.cfg[PCI_BAR0 + 8], &(uint64_t){FAKE_ECAM | 0xc}, 8);
	assert_int_equal(pci_func_load(f, &st, &err), 0);
	assert_int_equal(c->addr[0], 0);
	assert_int_equal(c->addr[2], 0);
	assert_int_equal(x.root->conflicts, 2);
	assert_int_not_equal(x.a->addr[0], 0);
	/* All bits that are writable set: bus numbers, windows, BARs at the top, every control.
	 */
	for (int i = 0; i < 2; i++) {
		struct pci_func *g = i ? x.sec->bridge : f;

		memset(&st, 0, sizeof(st));
		pci_func_save(g, &st);
		for (unsigned off = 0; off < PCI_CFG_SIZE; off++) {
			st.cfg[off] |= g->wmask[off] | g->w1c[off];
		}
		for (unsigned v = 0; v < st.nvec; v++) {
			st.vec[v] = (struct pci_vec_state){UINT64_MAX, UINT32_MAX, v % 2, true};
		}
		st.msi_pending = UINT32_MAX;
		assert_int_equal(pci_func_load(g, &st, &err), 0);
	}
	assert_int_equal(x.root->conflicts, 0);
	assert_int_equal(c->addr[0], 0);
	/* And it is still a device that can be put right. */
	device_list_reset(&x.fv->devices);
	fake_pci_assign(x.fv, x.root);
	assert_int_not_equal(c->addr[0], 0);
	assert_int_equal(fake_mmio_read(x.fv, c->addr[0], 4), TOY_MARK + 3 * 256);
	fake_vm_free(x.fv);
}

/* Single bits of a state flipped at random: refused without a trace, or loaded. */
static void test_flipped_bits(void **state)
{
	static struct pci_func_state good, st;
	struct side x = side_new();
	unsigned refused = 0, taken = 0;
	uint8_t before[PCI_CFG_SIZE];

	fake_pci_assign(x.fv, x.root);
	fake_msix_control(x.fv, B, true, false);
	fake_msix_program(x.fv, B, 1, FAKE_MSI_ADDR, 1, false);
	pci_func_save(&x.b->func, &good);
	srand(1);
	for (int i = 0; i < 3000; i++) {
		struct pci_func *f = &x.b->func;

		st = good;
		st.cfg[rand() % 256] ^= (uint8_t)(1 << rand() % 8);
		st.vec[rand() % 5].ctrl = (uint32_t)rand() % 2;
		st.vec[rand() % 5].pending = rand() % 2;
		memcpy(before, f->cfg, sizeof(before));
		if (pci_func_load(f, &st, NULL) == 0) {
			taken++;
			/* What is fixed is fixed. */
			for (unsigned off = 0; off < PCI_CFG_SIZE; off++) {
				assert_int_equal((f->cfg[off] ^ before[off]) &
							 ~(f->wmask[off] | f->w1c[off]),
						 0);
			}
		} else {
			refused++;
			assert_memory_equal(f->cfg, before, sizeof(before));
		}
	}
	assert_true(taken > 500);
	assert_true(refused > 100);
	assert_int_equal(pci_func_load(&x.b->func, &good, NULL), 0);
	assert_int_not_equal(x.b->addr[0], 0);
	fake_vm_free(x.fv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_any_order),
		cmocka_unit_test(test_refused),	     cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_flipped_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
