/*
 * MSI-X on one thread: masks at every level, pending bits, eventfds for kernel back ends, the
 * table's accesses, running out of interrupt routes, reset.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "fakes/fake_pci.h"
#include "pci/msix.h"
#include "spec/pci.h"
#include "toy.h"

#define BDF  0x10u
#define ADDR UINT64_C(0x1fee00000)

struct fixture {
	struct fake_vm *fv;
	struct pci_bus *root;
	struct toy *t;
	struct pci_func *f;
};

static int setup(void **state)
{
	static struct fixture f;

	f.fv = fake_vm_new(NULL);
	f.root = fake_pci_host(f.fv);
	f.t = toy_new(&f.fv->vm, f.root, BDF, TOY_NVEC, 1);
	f.f = &f.t->func;
	fake_pci_assign(f.fv, f.root);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_vm_free(f->fv);
	return 0;
}

static uint64_t fired(struct fixture *f, uint32_t data)
{
	return fake_irq_msi_count(&f->fv->irq, ADDR, data);
}

static uint64_t pba(struct fixture *f)
{
	return fake_mmio_read(f->fv, fake_msix_pba(f->fv, BDF), 8);
}

static void test_fire(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(msix_nvec(f->f), TOY_NVEC);
	assert_false(msix_enabled(f->f));
	fake_msix_program(f->fv, BDF, 0, ADDR, 100, false);
	fake_msix_program(f->fv, BDF, 39, ADDR, 139, false);
	msix_trigger(f->f, 0); /* off: forgotten */
	assert_int_equal(pba(f), 0);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);

	fake_msix_control(f->fv, BDF, true, false);
	assert_true(msix_enabled(f->f));
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 2); /* those unmasked, no others */
	assert_int_equal(fake_irq_total(&f->fv->irq), 0);
	/* messages carry the requester id, by which an ITS goes */
	assert_int_equal(f->fv->irq.gsi[f->fv->irq.gsi_first].source, BDF);
	msix_trigger(f->f, 0);
	msix_trigger(f->f, 39);
	msix_trigger(f->f, 39);
	assert_int_equal(fired(f, 100), 1);
	assert_int_equal(fired(f, 139), 2);
	/* Masked from the start: waits. */
	msix_trigger(f->f, 5);
	assert_int_equal(pba(f), 1 << 5);
	/* Vectors that do not exist. */
	msix_trigger(f->f, 40);
	msix_trigger(f->f, UINT32_MAX);
	assert_int_equal(fake_irq_total(&f->fv->irq), 3);
	/* Off again: what was pending is gone, and nothing fires. */
	fake_msix_control(f->fv, BDF, false, false);
	assert_int_equal(pba(f), 0);
	msix_trigger(f->f, 0);
	fake_msix_control(f->fv, BDF, true, false);
	fake_msix_mask(f->fv, BDF, 5, false);
	assert_int_equal(fake_irq_total(&f->fv->irq), 3);
	msix_trigger(f->f, 0);
	assert_int_equal(fired(f, 100), 2);
}

static void test_vector_mask(void **state)
{
	struct fixture *f = *state;

	fake_msix_control(f->fv, BDF, true, false);
	fake_msix_program(f->fv, BDF, 3, ADDR, 3, false);
	fake_msix_mask(f->fv, BDF, 3, true);
	msix_trigger(f->f, 3);
	msix_trigger(f->f, 3);
	msix_trigger(f->f, 3);
	assert_int_equal(fired(f, 3), 0);
	assert_int_equal(pba(f), 8);
	/* A new message takes effect before the pending one goes out, once. */
	fake_msix_program(f->fv, BDF, 3, ADDR, 33, false);
	assert_int_equal(fired(f, 3), 0);
	assert_int_equal(fired(f, 33), 1);
	assert_int_equal(pba(f), 0);
	/* Masking and unmasking without a trigger fires nothing. */
	fake_msix_mask(f->fv, BDF, 3, true);
	fake_msix_mask(f->fv, BDF, 3, false);
	fake_msix_mask(f->fv, BDF, 3, false);
	assert_int_equal(fired(f, 33), 1);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 1);
	/* Changed while unmasked: what comes next uses it. */
	fake_mmio_write(f->fv, fake_msix_entry(f->fv, BDF, 3) + 8, 34, 4);
	msix_trigger(f->f, 3);
	assert_int_equal(fired(f, 33), 1);
	assert_int_equal(fired(f, 34), 1);
}

static void test_function_mask_and_master(void **state)
{
	struct fixture *f = *state;
	unsigned pmcsr = fake_pci_cap(f->fv, BDF, PCI_CAP_PM, 0) + PCI_PM_PMCSR;
	uint32_t command = fake_cfg_read(f->fv, BDF, PCI_COMMAND, 2);

	fake_msix_control(f->fv, BDF, true, true);
	fake_msix_program(f->fv, BDF, 0, ADDR, 1, false);
	fake_msix_program(f->fv, BDF, 1, ADDR, 2, true);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);
	msix_trigger(f->f, 0);
	msix_trigger(f->f, 1);
	assert_int_equal(pba(f), 3);
	fake_msix_control(f->fv, BDF, true, false);
	assert_int_equal(fired(f, 1), 1);
	assert_int_equal(fired(f, 2), 0);
	assert_int_equal(pba(f), 2); /* its own mask bit still holds */
	fake_msix_mask(f->fv, BDF, 1, false);
	assert_int_equal(fired(f, 2), 1);

	/* Without bus mastering nothing may be sent: it waits. */
	fake_cfg_write(f->fv, BDF, PCI_COMMAND, command & ~(uint32_t)PCI_COMMAND_MASTER, 2);
	msix_trigger(f->f, 0);
	assert_int_equal(fired(f, 1), 1);
	assert_int_equal(pba(f), 1);
	fake_cfg_write(f->fv, BDF, PCI_COMMAND, command, 2);
	assert_int_equal(fired(f, 1), 2);
	/* So it does in D3hot (where the table cannot be reached). */
	fake_cfg_write(f->fv, BDF, pmcsr, PCI_PMCSR_D3HOT, 2);
	msix_trigger(f->f, 1);
	assert_int_equal(fired(f, 2), 1);
	fake_cfg_write(f->fv, BDF, pmcsr, 0, 2);
	assert_int_equal(fired(f, 2), 2);
}

static void test_eventfd(void **state)
{
	struct fixture *f = *state;
	uint64_t one = 1;
	int fd = msix_eventfd(f->f, 7);

	assert_true(fd >= 0);
	assert_int_equal(msix_eventfd(f->f, 7), fd);
	assert_int_equal(msix_eventfd(f->f, 40), -EINVAL);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);
	/* While MSI-X is off, a kernel back end's signal is forgotten as a device's is. */
	assert_int_equal(write(fd, &one, 8), 8);
	fake_msix_control(f->fv, BDF, true, false);
	assert_int_equal(pba(f), 0);
	/* Masked: pending. */
	assert_int_equal(write(fd, &one, 8), 8);
	assert_int_equal(write(fd, &one, 8), 8);
	assert_int_equal(pba(f), 1 << 7);
	assert_int_equal(write(fd, &one, 8), 8);
	fake_msix_program(f->fv, BDF, 7, ADDR, 7, false);
	assert_int_equal(fired(f, 7), 1);
	assert_int_equal(pba(f), 0);
	/* Live: at once. */
	assert_int_equal(write(fd, &one, 8), 8);
	assert_int_equal(fired(f, 7), 2);
	/* Masked again, not looked at, unmasked. */
	fake_msix_mask(f->fv, BDF, 7, true);
	assert_int_equal(write(fd, &one, 8), 8);
	assert_int_equal(fired(f, 7), 2);
	fake_msix_mask(f->fv, BDF, 7, false);
	assert_int_equal(fired(f, 7), 3);
	assert_int_equal(f->fv->irq.lost, 0);
}

static void test_table_accesses(void **state)
{
	struct fixture *f = *state;
	uint64_t e = fake_msix_entry(f->fv, BDF, 2), p = fake_msix_pba(f->fv, BDF);

	assert_int_equal(fake_mmio_read(f->fv, e, 8), 0);
	assert_int_equal(fake_mmio_read(f->fv, e + 8, 8), UINT64_C(1) << 32);
	fake_mmio_write(f->fv, e, UINT64_C(0x1122334455667789), 8);
	assert_int_equal(fake_mmio_read(f->fv, e, 8), UINT64_C(0x1122334455667788));
	fake_mmio_write(f->fv, e + 8, UINT64_C(0xfffffffeaabbccdd), 8);
	assert_int_equal(fake_mmio_read(f->fv, e + 8, 4), 0xaabbccdd);
	assert_int_equal(fake_mmio_read(f->fv, e + 12, 4), 0);
	/* Less than a dword or across dwords: no such access. */
	assert_int_equal(fake_mmio_read(f->fv, e, 2), 0xffff);
	assert_int_equal(fake_mmio_read(f->fv, e + 2, 4), 0xffffffff);
	fake_mmio_write(f->fv, e + 12, 1, 1);
	fake_mmio_write(f->fv, e + 10, 0xffffffff, 4);
	assert_int_equal(fake_mmio_read(f->fv, e + 8, 8), 0xaabbccdd);
	/* One past the last entry. */
	assert_int_equal(fake_mmio_read(f->fv, fake_msix_entry(f->fv, BDF, 40), 4), 0xffffffff);

	fake_msix_control(f->fv, BDF, true, true);
	msix_trigger(f->f, 0);
	msix_trigger(f->f, 33);
	fake_mmio_write(f->fv, p, 0, 8); /* read-only */
	assert_int_equal(fake_mmio_read(f->fv, p, 4), 1);
	assert_int_equal(fake_mmio_read(f->fv, p + 4, 4), 2);
	assert_int_equal(fake_mmio_read(f->fv, p, 8), 1 | UINT64_C(1) << 33);
	assert_int_equal(fake_mmio_read(f->fv, p, 1), 0xff);
	assert_int_equal(fake_mmio_read(f->fv, p + 2, 4), 0xffffffff);
	assert_int_equal(fake_mmio_read(f->fv, p + 8, 8), UINT64_MAX);
}

static void test_out_of_routes(void **state)
{
	struct fixture *f = *state;
	uint64_t one = 1;

	f->fv->irq.gsi_limit = f->fv->irq.gsi_first + 1;
	fake_msix_control(f->fv, BDF, true, false);
	fake_msix_program(f->fv, BDF, 0, ADDR, 1, false);
	fake_msix_program(f->fv, BDF, 1, ADDR, 2, false);
	msix_trigger(f->f, 0);
	assert_int_equal(fired(f, 1), 1);
	/* The second has none: the control loop sends for it. */
	msix_trigger(f->f, 1);
	fake_vm_settle(f->fv);
	assert_int_equal(fired(f, 2), 1);
	assert_int_equal(f->fv->irq.direct, 1);
	assert_int_equal(write(msix_eventfd(f->f, 1), &one, 8), 8);
	fake_vm_settle(f->fv);
	assert_int_equal(fired(f, 2), 2);
	/* Masks hold for it as for the others. */
	fake_msix_mask(f->fv, BDF, 1, true);
	msix_trigger(f->f, 1);
	fake_vm_settle(f->fv);
	assert_int_equal(fired(f, 2), 2);
	assert_int_equal(pba(f), 2);
	/* A route comes free: the next unmasking takes it. */
	f->fv->irq.gsi_limit = FAKE_GSIS;
	fake_msix_program(f->fv, BDF, 1, ADDR, 22, false);
	assert_int_equal(fired(f, 22), 1);
	assert_int_equal(f->fv->irq.direct, 2);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 2);
}

static void test_reset_and_removal(void **state)
{
	struct fixture *f = *state;

	fake_msix_control(f->fv, BDF, true, false);
	for (unsigned i = 0; i < TOY_NVEC; i++) {
		fake_msix_program(f->fv, BDF, i, ADDR, i, i % 2);
	}
	msix_trigger(f->f, 1);
	msix_trigger(f->f, 2);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), TOY_NVEC / 2);
	device_list_reset(&f->fv->devices);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);
	assert_false(msix_enabled(f->f));
	fake_pci_assign(f->fv, f->root);
	for (unsigned i = 0; i < TOY_NVEC; i++) {
		assert_int_equal(fake_mmio_read(f->fv, fake_msix_entry(f->fv, BDF, i), 8), 0);
		assert_int_equal(fake_mmio_read(f->fv, fake_msix_entry(f->fv, BDF, i) + 8, 8),
				 UINT64_C(1) << 32);
	}
	fake_msix_control(f->fv, BDF, true, false);
	assert_int_equal(pba(f), 0);
	fake_msix_program(f->fv, BDF, 1, ADDR, 1, false);
	assert_int_equal(fired(f, 1), 0);
	/* Its routes go with it. */
	device_remove(&f->t->dev);
	f->t->dev.ops->destroy(&f->t->dev);
	assert_int_equal(fake_irq_gsis_used(&f->fv->irq), 0);
	assert_int_equal(f->fv->irq.binds, f->fv->irq.unbinds);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_fire),
		T(test_vector_mask),
		T(test_function_mask_and_master),
		T(test_eventfd),
		T(test_table_accesses),
		T(test_out_of_routes),
		T(test_reset_and_removal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
