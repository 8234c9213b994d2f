/* bootindex= and -boot order= as OpenFirmware paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/fake_pci.h"
#include "machine/bootorder.h"
#include "pci/host.h"

struct fixture {
	struct fake_vm *fv;
	struct pci_bus *root;
	struct bootorder b;
	struct pci_func func[8];
	unsigned nfuncs;
};

static void add(struct fixture *f, const char *id, struct pci_bus *bus, int devfn,
		enum boot_kind kind, uint32_t index)
{
	static const struct pci_func_ops ops;
	struct pci_func *p = &f->func[f->nfuncs++];

	p->multifunction = !(devfn & 7);
	assert_int_equal(pci_func_add(p, bus, devfn, id, &ops, NULL), 0);
	assert_int_equal(bootorder_add(&f->b, id, kind, index, NULL), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct pcie_root_port_config c = {.id = "rp", .devfn = PCI_DEVFN(0x1a, 0), .slot = 1};
	struct pci_bus *behind;

	f->fv = fake_vm_new(NULL);
	f->root = fake_pci_host(f->fv);
	assert_int_equal(pcie_root_port_new(&f->fv->vm, f->root, &c, &behind, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < f->nfuncs; i++) {
		pci_func_remove(&f->func[i]);
	}
	bootorder_fini(&f->b);
	fake_vm_free(f->fv);
	free(f);
	return 0;
}

static void expect(struct fixture *f, const char *order, const char *want)
{
	char *text = NULL;

	assert_int_equal(bootorder_text(&f->b, f->root, order, &text, NULL), 0);
	if (want) {
		assert_non_null(text);
		assert_string_equal(text, want);
	} else {
		assert_null(text);
	}
	free(text);
}

static void test_index(void **state)
{
	struct fixture *f = *state;
	struct pci_bus *behind = pci_bus_by_name(f->root, "rp");
	struct err err = {0};
	char *text;

	expect(f, "", NULL);
	add(f, "a", f->root, PCI_DEVFN(4, 0), BOOT_DISK, 7);
	add(f, "b", f->root, PCI_DEVFN(0x1e, 0), BOOT_NET, 0);
	add(f, "c", f->root, PCI_DEVFN(4, 3), BOOT_DISK, 3);
	add(f, "d", behind, 0, BOOT_DISK, INT32_MAX);
	add(f, "e", f->root, PCI_DEVFN(5, 0), BOOT_DISK, BOOTINDEX_NONE);
	expect(f, "",
	       "/pci@i0cf8/ethernet@1e/ethernet-phy@0\n"
	       "/pci@i0cf8/scsi@4,3/disk@0,0\n"
	       "/pci@i0cf8/scsi@4/disk@0,0\n"
	       "/pci@i0cf8/pci-bridge@1a/scsi@0/disk@0,0\n");
	assert_int_equal(bootorder_add(&f->b, "f", BOOT_NET, 3, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "bootindex=3 is that of c"));
	assert_int_equal(bootorder_text(&f->b, f->root, "c", &text, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-boot order=c"));
}

static void test_order(void **state)
{
	struct fixture *f = *state;

	add(f, "a", f->root, PCI_DEVFN(6, 0), BOOT_DISK, BOOTINDEX_NONE);
	add(f, "b", f->root, PCI_DEVFN(5, 0), BOOT_NET, BOOTINDEX_NONE);
	add(f, "c", f->root, PCI_DEVFN(4, 0), BOOT_DISK, BOOTINDEX_NONE);
	expect(f, "", NULL);
	expect(f, "n", "/pci@i0cf8/ethernet@5/ethernet-phy@0\n");
	expect(f, "nc",
	       "/pci@i0cf8/ethernet@5/ethernet-phy@0\n"
	       "/pci@i0cf8/scsi@4/disk@0,0\n"
	       "/pci@i0cf8/scsi@6/disk@0,0\n");
	expect(f, "c", "/pci@i0cf8/scsi@4/disk@0,0\n/pci@i0cf8/scsi@6/disk@0,0\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_index, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
