/* pci_assign(): bus numbers, windows and BARs without firmware; what does not fit; extents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/fake_pci.h"
#include "spec/pci.h"
#include "toy.h"

/* A function with BARs as the test wants them, without regions. */
static struct pci_func *plain(struct pci_bus *bus, uint64_t size0, unsigned flags0,
			      uint64_t size2, unsigned flags2)
{
	struct pci_func *f = calloc(1, sizeof(*f));

	assert_int_equal(pci_func_add(f, bus, -1, "plain", NULL, NULL), 0);
	pci_set_ids(f, 0x1b36, 0x1234, 0xff0000, 0, 0, 0);
	if (size0) {
		pci_bar_init(f, 0, size0, flags0);
	}
	if (size2) {
		pci_bar_init(f, 2, size2, flags2);
	}
	return f;
}

static void drop(struct pci_func *f)
{
	pci_func_remove(f);
	free(f);
}

static struct pci_bus *port(struct fake_vm *fv, struct pci_bus *root, const char *id)
{
	struct pci_bus *sec;

	assert_int_equal(
		pcie_root_port_new(&fv->vm, root,
				   &(struct pcie_root_port_config){.id = id, .devfn = -1}, &sec,
				   NULL),
		0);
	return sec;
}

/* Each BAR that has a size: aligned, in one of the windows, apart from all others. */
struct seen {
	uint64_t base[64], last[64];
	unsigned n;
};

static int check_bars(struct pci_func *f, void *arg)
{
	struct seen *s = arg;

	for (unsigned i = 0; i < 6; i++) {
		uint64_t base, last;

		if (!f->bar[i].size || f->bar[i].flags & PCI_BAR_IO) {
			continue;
		}
		base = pci_get32(f, PCI_BAR0 + 4 * i) & ~15u;
		if (f->bar[i].flags & PCI_BAR_64) {
			base |= (uint64_t)pci_get32(f, PCI_BAR0 + 4 * i + 4) << 32;
		}
		last = base + f->bar[i].size - 1;
		assert_int_equal(base % f->bar[i].size, 0);
		assert_true((base >= FAKE_MEM32 && last < FAKE_MEM32_END) ||
			    (base >= FAKE_MEM64 && last < FAKE_MEM64_END));
		assert_true(f->bar[i].mapped && f->bar[i].mapped_addr == base);
		for (unsigned k = 0; k < s->n; k++) {
			assert_true(last < s->base[k] || base > s->last[k]);
		}
		s->base[s->n] = base;
		s->last[s->n++] = last;
	}
	assert_true(pci_get16(f, PCI_COMMAND) & PCI_COMMAND_MEMORY);
	return 0;
}

static void test_layout(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct pci_bus *root = fake_pci_host(fv), *p1, *p2, *p3;
	struct pci_func *f[6];
	struct seen s = {0};
	uint64_t base, end;

	assert_false(pci_mem64_extent(root, &base, &end));
	assert_int_equal(pci_last_bus(root), 0);
	p1 = port(fv, root, "p1");
	p2 = port(fv, root, "p2"); /* stays empty */
	p3 = port(fv, root, "p3");
	f[0] = plain(root, 4096, 0, 1 * GiB, PCI_BAR_64);
	f[1] = plain(p1, 64 * MiB, 0, 16 * KiB, PCI_BAR_64 | PCI_BAR_PREFETCH);
	f[2] = plain(p3, 4096, 0, 1 * MiB, PCI_BAR_64); /* 64 bits but not prefetchable */
	f[3] = plain(root, 2 * MiB, PCI_BAR_PREFETCH, 8 * GiB, PCI_BAR_64 | PCI_BAR_PREFETCH);
	f[4] = plain(root, 8192, 0, 32, PCI_BAR_IO);
	f[5] = plain(root, 0, 0, 0, 0);
	fake_pci_assign(fv, root);

	pci_for_each(root, check_bars, &s);
	assert_int_equal(s.n, 9);
	assert_int_equal(f[0]->bar[2].mapped_addr >= FAKE_MEM64, 1);
	assert_int_equal(f[1]->bar[2].mapped_addr >= FAKE_MEM64, 1);
	assert_int_equal(f[2]->bar[2].mapped_addr < FAKE_MEM32_END, 1);
	assert_false(f[4]->bar[2].mapped);
	assert_int_equal(root->conflicts, 0);
	assert_int_equal(pci_last_bus(root), 3);
	/* Bus numbers in the order of the ports; the empty one's windows are closed. */
	assert_ptr_equal(pci_find(root, 1, 0), f[1]);
	assert_null(pci_find(root, 2, 0));
	assert_ptr_equal(pci_find(root, 3, 0), f[2]);
	assert_int_equal(pci_get32(p2->bridge, PCI_PRIMARY_BUS), 0x020200);
	assert_int_equal(pci_get32(p2->bridge, PCI_MEMORY_BASE), 0x0000fff0);
	assert_int_equal(pci_get32(p3->bridge, PCI_PREFETCH_BASE), 0x0001fff1);
	assert_int_equal(pci_get16(p1->bridge, PCI_COMMAND), 6);
	/* Largest first from the base: no hole before the 8 GiB. */
	assert_int_equal(f[3]->bar[2].mapped_addr, FAKE_MEM64);
	assert_true(pci_mem64_extent(root, &base, &end));
	assert_int_equal(base, FAKE_MEM64);
	assert_int_equal(end, FAKE_MEM64 + 9 * GiB + 1 * MiB); /* p1's window is the last */

	/* Once more: the same. */
	base = f[1]->bar[0].mapped_addr;
	fake_pci_assign(fv, root);
	assert_int_equal(f[1]->bar[0].mapped_addr, base);

	/* Without a 64-bit window everything has to go below 4 GiB, which it does not. */
	struct err err = {0};
	assert_int_equal(pci_assign(root, FAKE_MEM32, FAKE_MEM32_END, 0, 0, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "do not fit"));
	drop(f[3]);
	drop(f[0]);
	assert_int_equal(pci_assign(root, FAKE_MEM32, FAKE_MEM32_END, 0, 0, &err), 0);
	assert_false(pci_mem64_extent(root, &base, &end));
	assert_true(f[1]->bar[2].mapped);
	assert_int_equal(f[1]->bar[2].mapped_addr < FAKE_MEM32_END, 1);
	drop(f[1]);
	drop(f[2]);
	drop(f[4]);
	drop(f[5]);
	fake_vm_free(fv);
}

static void test_exact_fit(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct pci_bus *root = fake_pci_host(fv);
	struct pci_func *a = plain(root, 1 * MiB, 0, 0, 0), *b = plain(root, 2 * MiB, 0, 0, 0);
	struct err err = {0};

	assert_int_equal(pci_assign(root, 0xc0000000, 0xc0300000, 0, 0, &err), 0);
	assert_int_equal(b->bar[0].mapped_addr, 0xc0000000);
	assert_int_equal(a->bar[0].mapped_addr, 0xc0200000);
	assert_int_equal(pci_assign(root, 0xc0000000, 0xc02fffff, 0, 0, &err), -ENOSPC);
	/* From a base that is not aligned. */
	assert_int_equal(pci_assign(root, 0xc0100000, 0xc0500000, 0, 0, &err), 0);
	assert_int_equal(b->bar[0].mapped_addr, 0xc0200000);
	drop(a);
	drop(b);
	fake_vm_free(fv);
}

/* Every slot of the root bus a port with eight functions: 240 ports, 240 devices. */
static void test_many_ports(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct pci_bus *root = fake_pci_host(fv), *sec;
	struct pci_func *f[240];
	unsigned n = 0;

	for (unsigned slot = 1; slot <= 30; slot++) {
		for (unsigned fn = 0; fn < 8; fn++) {
			char id[16];
			struct pcie_root_port_config cfg = {
				.id = id,
				.devfn = (int)PCI_DEVFN(slot, fn),
				.multifunction = true,
			};

			snprintf(id, sizeof(id), "p%u", n);
			assert_int_equal(pcie_root_port_new(&fv->vm, root, &cfg, &sec, NULL),
					 0);
			f[n++] = plain(sec, 4096, 0, 16 * KiB, PCI_BAR_64 | PCI_BAR_PREFETCH);
		}
	}
	fake_pci_assign(fv, root);
	for (unsigned i = 0; i < n; i++) {
		assert_ptr_equal(pci_find(root, (uint8_t)(i + 1), 0), f[i]);
		assert_true(f[i]->bar[0].mapped && f[i]->bar[2].mapped);
		assert_int_equal(f[i]->bar[0].mapped_addr, FAKE_MEM32 + i * MiB);
	}
	for (unsigned i = 0; i < n; i++) {
		drop(f[i]);
	}
	fake_vm_free(fv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_exact_fit),
		cmocka_unit_test(test_many_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
