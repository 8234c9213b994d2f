/* MSI: number of vectors, per-vector masking and pending bits, bus mastering, state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "fakes/fake_pci.h"
#include "pci/msi.h"
#include "spec/pci.h"

#define BDF  0x10u
#define ADDR UINT64_C(0x2fee01000)

struct fixture {
	struct fake_vm *fv;
	struct pci_func fn;
	unsigned cap;
};

static int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	f.fv = fake_vm_new(NULL);
	assert_int_equal(pci_func_add(&f.fn, fake_pci_host(f.fv), BDF, "msi", NULL, NULL), 0);
	pci_set_ids(&f.fn, 0x1b36, 1, 0xff0000, 0, 0, 0);
	assert_int_equal(msi_init(&f.fn, 8, NULL), 0);
	f.cap = fake_pci_cap(f.fv, BDF, PCI_CAP_MSI, 0);
	fake_cfg_write(f.fv, BDF, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	fake_cfg_write(f.fv, BDF, f.cap + PCI_MSI_ADDRESS, (uint32_t)ADDR, 4);
	fake_cfg_write(f.fv, BDF, f.cap + PCI_MSI_UPPER_ADDRESS, ADDR >> 32, 4);
	fake_cfg_write(f.fv, BDF, f.cap + PCI_MSI_DATA, 0x4105, 2);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pci_func_remove(&f->fn);
	msi_fini(&f->fn);
	msi_fini(&f->fn);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);
	fake_vm_free(f->fv);
	return 0;
}

static uint64_t fired(struct fixture *f, uint32_t data)
{
	return fake_irq_msi_count(&f->fv->irq, ADDR, data);
}

static void enable(struct fixture *f, unsigned log2)
{
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_CONTROL, PCI_MSI_ENABLE | log2 << 4, 2);
}

static void mask(struct fixture *f, uint32_t bits)
{
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_MASK, bits, 4);
}

static uint32_t pending(struct fixture *f)
{
	return fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_PENDING, 4);
}

static void test_registers(void **state)
{
	struct fixture *f = *state;

	/* 64-bit, maskable, capable of 8. */
	assert_int_equal(fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_CONTROL, 2), 0x0186);
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_CONTROL, 0xffff, 2);
	assert_int_equal(fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_CONTROL, 2), 0x01f7);
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_ADDRESS, 0xffffffff, 4);
	assert_int_equal(fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_ADDRESS, 4), 0xfffffffc);
	mask(f, 0xffffffff);
	assert_int_equal(fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_MASK, 4), 0xff);
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_PENDING, 0xffffffff, 4);
	assert_int_equal(pending(f), 0);
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_DATA, 0xffffffff, 4);
	assert_int_equal(fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_DATA, 4), 0xffff);
}

static void test_vectors(void **state)
{
	struct fixture *f = *state;

	msi_trigger(&f->fn, 0);
	assert_false(msi_enabled(&f->fn));
	enable(f, 0);
	assert_true(msi_enabled(&f->fn));
	assert_int_equal(fake_irq_total(&f->fv->irq), 0);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 1);
	/* One message: every vector is it, with the data as written. */
	msi_trigger(&f->fn, 0);
	msi_trigger(&f->fn, 5);
	msi_trigger(&f->fn, 8); /* there is no such */
	assert_int_equal(fired(f, 0x4105), 2);
	/* Four: the low two bits say which. */
	enable(f, 2);
	for (unsigned i = 0; i < 8; i++) {
		msi_trigger(&f->fn, i);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fired(f, 0x4104 + i), i == 1 ? 4 : 2);
	}
	/* More than it can is as many as it can (7 is reserved). */
	enable(f, 7);
	msi_trigger(&f->fn, 7);
	assert_int_equal(fired(f, 0x4107), 1 + 2);
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_CONTROL, 0, 2);
	msi_trigger(&f->fn, 7);
	assert_int_equal(fired(f, 0x4107), 3);
}

static void test_mask_and_pending(void **state)
{
	struct fixture *f = *state;

	enable(f, 3);
	mask(f, 0x0a);
	for (unsigned i = 0; i < 8; i++) {
		msi_trigger(&f->fn, i);
	}
	msi_trigger(&f->fn, 3);
	assert_int_equal(pending(f), 0x0a);
	assert_int_equal(fired(f, 0x4101), 0);
	assert_int_equal(fired(f, 0x4102), 1);
	mask(f, 0x02);
	assert_int_equal(fired(f, 0x4103), 1);
	assert_int_equal(pending(f), 0x02);
	/* No bus mastering: everything waits. */
	fake_cfg_write(f->fv, BDF, PCI_COMMAND, 0, 2);
	msi_trigger(&f->fn, 0);
	assert_int_equal(pending(f), 0x03);
	fake_cfg_write(f->fv, BDF, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	assert_int_equal(fired(f, 0x4100), 2);
	assert_int_equal(pending(f), 0x02);
	/* A new message while it waits. */
	fake_cfg_write(f->fv, BDF, f->cap + PCI_MSI_DATA, 0x5550, 2);
	mask(f, 0);
	assert_int_equal(fired(f, 0x4101), 0);
	assert_int_equal(fired(f, 0x5551), 1);
}

static void test_state_and_reset(void **state)
{
	struct fixture *f = *state;
	static struct pci_func_state st;

	enable(f, 3);
	mask(f, 0x0c);
	msi_trigger(&f->fn, 2);
	msi_trigger(&f->fn, 0);
	assert_int_equal(fired(f, 0x4100), 1);
	memset(&st, 0, sizeof(st));
	pci_func_save(&f->fn, &st);
	assert_int_equal(st.msi_pending, 4);
	pci_func_reset(&f->fn);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);
	assert_int_equal(pending(f), 0);
	assert_int_equal(fake_cfg_read(f->fv, BDF, f->cap + PCI_MSI_CONTROL, 2), 0x0186);
	assert_int_equal(pci_func_load(&f->fn, &st, NULL), 0);
	assert_int_equal(pending(f), 4);
	mask(f, 0);
	assert_int_equal(fired(f, 0x4102), 1);
	/* Pending and unmasked at once is no state of ours, but it only fires. */
	st.msi_pending = UINT32_MAX;
	st.cfg[f->cap + PCI_MSI_MASK] = 0;
	assert_int_equal(pci_func_load(&f->fn, &st, NULL), 0);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(fired(f, 0x4100 + i), i == 0 || i == 2 ? 2 : 1);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers),
		T(test_vectors),
		T(test_mask_and_pending),
		T(test_state_and_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
