/*
 * A machine with one virtio device: see rig.h.
 */
#include "rig.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool rig_packed(void)
{
	const char *ring = getenv("NEMU_TEST_RING");

	return ring && !strcmp(ring, "packed");
}

void rig_init(struct rig *r, bool with_iothread, unsigned ram_high_mib)
{
	int rc;

	memset(r, 0, sizeof(*r));
	r->fv = fake_vm_new(&(struct fake_vm_config){
		.ram_mib = 32,
		.ram_high_mib = ram_high_mib,
		.real_clock = with_iothread,
	});
	pci_bus_init(&r->root, &r->fv->vm, "pcie.0", NULL, 32);
	if (with_iothread) {
		rc = loop_new(&r->iothread, "io", 0);
		assert(rc == 0);
		rc = loop_thread_start(r->iothread, NULL, NULL);
		assert(rc == 0);
	}
}

void rig_add(struct rig *r, struct virtio_dev *vd, const char *id)
{
	struct err err = {.msg = ""};
	int rc = virtio_pci_new(&r->fv->vm, vd,
				&(struct virtio_pci_config){
					.id = id,
					.bus = &r->root,
					.devfn = PCI_DEVFN(3, 0),
				},
				&r->dev, &err);

	assert(rc == 0);
	if (rig_packed()) {
		virtio_offer_packed(vd);
	}
	vdrv_init(&r->d, r->fv, &r->root, PCI_DEVFN(3, 0), RIG_BAR);
	if (rig_packed()) {
		r->d.always = UINT64_C(1) << VIRTIO_F_RING_PACKED;
	}
}

void rig_fini(struct rig *r)
{
	struct device_list *l = &r->fv->devices;
	struct list *pos;
	bool paused = false;

	list_for_each (pos, &l->devices) {
		paused |= list_entry(pos, struct device, node)->paused;
	}
	if (!paused) {
		fake_vm_pause(r->fv);
	}
	device_list_destroy(l);
	if (r->iothread) {
		loop_thread_join(r->iothread);
		loop_free(r->iothread);
	}
	fake_vm_free(r->fv);
}

bool rig_until(struct rig *r, bool (*cond)(void *arg), void *arg)
{
	uint64_t since = now_ns();

	while (!cond(arg)) {
		if (now_ns() - since > UINT64_C(10000000000)) {
			return false;
		}
		vdrv_settle(&r->d);
	}
	return true;
}
