/*
 * The transport's registers and the split ring, with an echo device behind them and a driver in
 * front that goes through configuration space, BAR and doorbells as a guest does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "echo.h"
#include "pci/host.h"
#include "spec/pci.h"

#define F(bit)	(UINT64_C(1) << (bit))
#define ALL	(F(VIRTIO_F_INDIRECT_DESC) | F(VIRTIO_F_EVENT_IDX) | F(VIRTIO_F_RING_RESET))
#define RUNNING 0x0f
#define DATA	ECHO_DATA

/* --- features, status, registers --- */

static void test_negotiation(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	assert_int_equal(vdrv_status(d), 0);
	assert_int_equal(vdrv_offered(d),
			 ALL | F(VIRTIO_F_VERSION_1) | F(3) | F(ECHO_F_REFUSED) | d->always);
	VDRV_COMMON_SET(d, device_feature_select, 2);
	assert_int_equal(VDRV_COMMON(d, device_feature), 0);
	VDRV_COMMON_SET(d, device_feature_select, 0xffffffff);
	assert_int_equal(VDRV_COMMON(d, device_feature), 0);

	/* without VERSION_1 */
	vdrv_status_set(d, 3);
	VDRV_COMMON_SET(d, driver_feature_select, 0);
	VDRV_COMMON_SET(d, driver_feature, 0);
	vdrv_status_set(d, 0xb);
	assert_int_equal(vdrv_status(d), 3);
	/* with a bit that was not offered */
	assert_true(vdrv_reset(d));
	vdrv_status_set(d, 3);
	VDRV_COMMON_SET(d, driver_feature_select, 1);
	VDRV_COMMON_SET(d, driver_feature, 1 | 2);
	vdrv_status_set(d, 0xb);
	assert_int_equal(vdrv_status(d), 3);
	/* with one that the device refuses in this set */
	assert_true(vdrv_reset(d));
	assert_false(vdrv_negotiate(d, F(ECHO_F_REFUSED)));
	assert_int_equal(vdrv_status(d), 3);
	/* right, and then settled */
	assert_true(vdrv_reset(d));
	assert_true(vdrv_negotiate(d, F(VIRTIO_F_EVENT_IDX)));
	VDRV_COMMON_SET(d, driver_feature_select, 0);
	VDRV_COMMON_SET(d, driver_feature, 0);
	assert_int_equal(f.e->vd.acked,
			 F(VIRTIO_F_VERSION_1) | F(VIRTIO_F_EVENT_IDX) | d->always);
	/* bits are not taken back, unknown ones not taken on */
	vdrv_status_set(d, 0x30 | 1);
	assert_int_equal(vdrv_status(d), 0xb);
	echo_rig_fini(&f);
	(void)state;
}

static void test_driver_ok_too_early(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_status_set(d, 7);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_status(d), 3 | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
	vdrv_start(d, ALL, 0);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

static void test_registers(void **state)
{
	const unsigned desc = offsetof(struct virtio_pci_common_cfg, queue_desc);
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	assert_int_equal(VDRV_COMMON(d, num_queues), ECHO_QUEUES);
	/* a queue that is not there */
	VDRV_COMMON_SET(d, queue_select, ECHO_QUEUES);
	assert_int_equal(VDRV_COMMON(d, queue_size), 0);
	VDRV_COMMON_SET(d, queue_size, 16);
	VDRV_COMMON_SET(d, queue_enable, 1);
	VDRV_COMMON_SET(d, queue_msix_vector, 0);
	assert_int_equal(VDRV_COMMON(d, queue_size), 0);
	assert_int_equal(VDRV_COMMON(d, queue_enable), 0);
	assert_int_equal(VDRV_COMMON(d, queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
	VDRV_COMMON_SET(d, queue_select, 0xffff);
	assert_int_equal(VDRV_COMMON(d, queue_size), 0);

	VDRV_COMMON_SET(d, queue_select, 1);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	assert_int_equal(VDRV_COMMON(d, queue_notify_off), 1);
	/* impossible sizes are not taken */
	VDRV_COMMON_SET(d, queue_size, 48);
	VDRV_COMMON_SET(d, queue_size, 0);
	VDRV_COMMON_SET(d, queue_size, 128);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	VDRV_COMMON_SET(d, queue_size, 8);
	assert_int_equal(VDRV_COMMON(d, queue_size), 8);
	/* 64 bits as two halves, in any order; as one access; byte by byte nothing is written
	 */
	vdrv_common_set(d, desc + 4, 4, 0x12345678);
	vdrv_common_set(d, desc, 4, 0x9abcdef0);
	assert_int_equal(vdrv_read(d, d->common + desc, 8), 0x123456789abcdef0);
	vdrv_write(d, d->common + desc, 0x1111222233334440, 8);
	assert_int_equal(vdrv_read(d, d->common + desc, 8), 0x1111222233334440);
	vdrv_common_set(d, desc, 1, 0xff);
	vdrv_common_set(d, desc + 2, 2, 0xffff);
	assert_int_equal(vdrv_read(d, d->common + desc, 8), 0x1111222233334440);
	assert_int_equal(vdrv_common(d, desc + 1, 1), 0x44);
	/* a field is written whole or not at all */
	VDRV_COMMON_SET(d, queue_select, 1);
	vdrv_common_set(d, offsetof(struct virtio_pci_common_cfg, queue_select), 1, 0);
	vdrv_common_set(d, offsetof(struct virtio_pci_common_cfg, queue_select), 4, 0);
	assert_int_equal(VDRV_COMMON(d, queue_select), 1);
	/* beyond the structure */
	assert_int_equal(vdrv_common(d, 60, 4), 0);
	vdrv_common_set(d, 60, 4, 1);
	/* vectors that do not exist read back as none */
	VDRV_COMMON_SET(d, queue_msix_vector, ECHO_QUEUES + 1);
	assert_int_equal(VDRV_COMMON(d, queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
	VDRV_COMMON_SET(d, queue_msix_vector, ECHO_QUEUES);
	assert_int_equal(VDRV_COMMON(d, queue_msix_vector), ECHO_QUEUES);
	VDRV_COMMON_SET(d, config_msix_vector, 0x100);
	assert_int_equal(VDRV_COMMON(d, config_msix_vector), VIRTIO_MSI_NO_VECTOR);
	/* read-only ones stay */
	VDRV_COMMON_SET(d, num_queues, 7);
	VDRV_COMMON_SET(d, config_generation, 7);
	assert_int_equal(VDRV_COMMON(d, num_queues), ECHO_QUEUES);
	/* all of it is back after a reset */
	vdrv_status_set(d, 1);
	assert_true(vdrv_reset(d));
	VDRV_COMMON_SET(d, queue_select, 1);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	assert_int_equal(VDRV_COMMON(d, queue_msix_vector), VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(vdrv_read(d, d->common + desc, 8), 0);
	echo_rig_fini(&f);
	(void)state;
}

static void test_config_space(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint8_t gen;

	echo_rig_init(&f);
	vdrv_start(d, ALL, 0);
	assert_int_equal(d->device_len, ECHO_CONFIG);
	gen = (uint8_t)VDRV_COMMON(d, config_generation);
	vdrv_config_set(d, 4, 4, 0xa1b2c3d4);
	assert_int_equal(vdrv_config(d, 4, 4), 0xa1b2c3d4);
	assert_int_equal(vdrv_config(d, 5, 1), 0xc3);
	assert_int_equal(vdrv_config(d, 0, 8), 0xa1b2c3d400000000);
	assert_int_equal((uint8_t)VDRV_COMMON(d, config_generation), (uint8_t)(gen + 1));
	assert_int_equal(vdrv_irqs(d, 0), 1);
	/* beyond the device's configuration */
	vdrv_config_set(d, ECHO_CONFIG, 4, 0xffffffff);
	vdrv_config_set(d, ECHO_CONFIG - 2, 4, 0xffffffff);
	assert_int_equal(vdrv_config(d, ECHO_CONFIG, 4), 0);
	assert_int_equal(vdrv_config(d, ECHO_CONFIG - 2, 2), 0);
	echo_rig_fini(&f);
	(void)state;
}

/* --- the window in configuration space --- */

static void window_set(struct vdrv *d, uint8_t bar, uint32_t off, uint32_t len)
{
	pci_cfg_write(d->root, 0, d->devfn, d->pci_cfg_cap + 4, 1, bar);
	pci_cfg_write(d->root, 0, d->devfn, d->pci_cfg_cap + 8, 4, off);
	pci_cfg_write(d->root, 0, d->devfn, d->pci_cfg_cap + 12, 4, len);
}

static uint32_t window_read(struct vdrv *d, uint8_t bar, uint32_t off, uint32_t len)
{
	window_set(d, bar, off, len);
	return pci_cfg_read(d->root, 0, d->devfn, d->pci_cfg_cap + 16, len == 3 ? 4 : len);
}

static void window_write(struct vdrv *d, uint8_t bar, uint32_t off, uint32_t len, uint32_t v)
{
	window_set(d, bar, off, len);
	pci_cfg_write(d->root, 0, d->devfn, d->pci_cfg_cap + 16, len, v);
}

static void test_pci_cfg_window(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint32_t common, device, notify, before;

	echo_rig_init(&f);
	common = (uint32_t)(d->common - d->bar);
	device = (uint32_t)(d->device - d->bar);
	notify = (uint32_t)(d->notify - d->bar);
	assert_int_equal(window_read(d, 4, common + 18, 2), ECHO_QUEUES);
	window_write(d, 4, common + 20, 1, 3);
	assert_int_equal(vdrv_status(d), 3);
	assert_int_equal(window_read(d, 4, common + 20, 1), 3);
	window_write(d, 4, device + 4, 4, 0x01020304);
	assert_int_equal(vdrv_config(d, 4, 4), 0x01020304);
	/* what the window may not do: another BAR, odd lengths and places, past the areas */
	before = window_read(d, 4, device + 4, 4);
	assert_int_equal(window_read(d, 0, common + 20, 4), before);
	assert_int_equal(window_read(d, 4, common + 20, 3), before);
	assert_int_equal(window_read(d, 4, device + 6, 4), before);
	assert_int_equal(window_read(d, 4, 0xfffffffc, 4), before);
	window_write(d, 4, 0x7ffc, 4, 0x55);
	window_write(d, 3, common + 20, 1, 0);
	assert_int_equal(vdrv_status(d), 3);
	/* a kick */
	vdrv_start(d, 0, 0);
	vdrv_add(&d->q[1], (struct vdrv_seg[]){{f.out, DATA}, {f.in, DATA}}, 1, 1, 0);
	window_write(d, 4, notify + 4, 2, 1);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_used_total(&d->q[1]), 1);
	echo_rig_fini(&f);
	(void)state;
}

/* --- requests --- */

static void run_echo(uint64_t features, unsigned flags)
{
	struct echo_rig f;

	echo_rig_init(&f);
	vdrv_start(&f.r.d, features, 0);
	for (unsigned i = 0; i < 300; i++) {
		echo_once(&f, i % ECHO_QUEUES, flags);
	}
	assert_int_equal(atomic_load(&f.e->served), 300);
	echo_rig_fini(&f);
}

static void test_echo_plain(void **state)
{
	run_echo(0, 0);
	(void)state;
}

static void test_echo_indirect_event_idx(void **state)
{
	run_echo(ALL, VDRV_INDIRECT);
	(void)state;
}

/* Indices wrap after 65536 entries; sizes 1 and 2 wrap all the time. */
static void test_wrap(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint16_t head, sizes[] = {2, 4, ECHO_QUEUE_SIZE};
	uint32_t len;

	echo_rig_init(&f);
	for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
		vdrv_start(d, F(VIRTIO_F_EVENT_IDX), sizes[s]);
		for (unsigned i = 0; i < 70000; i++) {
			struct vdrv_seg seg[2] = {{f.out, 1}, {f.in, 1}};

			assert_true(vdrv_add(&d->q[0], seg, 1, 1, 0) >= 0);
			vdrv_kick(&d->q[0]);
			while (!vdrv_used(&d->q[0], &head, &len)) {
				loop_step(f.r.fv->vm.loop, 0);
			}
			assert_int_equal(len, 1);
		}
	}
	echo_rig_fini(&f);
	(void)state;
}

static void test_full_ring_one_kick(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	uint64_t irqs;
	uint16_t head;
	uint32_t len;

	echo_rig_init(&f);
	vdrv_start(d, F(VIRTIO_F_EVENT_IDX), 0);
	irqs = vdrv_irqs(d, 1);
	while (vdrv_add(&d->q[0], (struct vdrv_seg[]){{f.out, 8}, {f.in, 8}}, 1, 1, 0) >= 0) {
	}
	vdrv_kick(&d->q[0]);
	for (unsigned i = 0; i < ECHO_QUEUE_SIZE / 2; i++) {
		assert_true(vdrv_wait(&d->q[0], &head, &len));
	}
	assert_false(vdrv_used(&d->q[0], &head, &len));
	/* one interrupt for the batch */
	assert_int_equal(vdrv_irqs(d, 1), irqs + 1);
	echo_rig_fini(&f);
	(void)state;
}

static void interrupts(uint64_t features)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, features, 0);
	vdrv_irq_on(&d->q[0]);
	echo_once(&f, 0, 0);
	assert_int_equal(vdrv_irqs(d, 1), 1);
	vdrv_irq_off(&d->q[0]);
	echo_once(&f, 0, 0);
	echo_once(&f, 0, 0);
	assert_int_equal(vdrv_irqs(d, 1), 1);
	vdrv_irq_on(&d->q[0]);
	echo_once(&f, 0, 0);
	assert_int_equal(vdrv_irqs(d, 1), 2);
	assert_int_equal(vdrv_irqs(d, 2), 0);
	/* no vector: nothing */
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_msix_vector, VIRTIO_MSI_NO_VECTOR);
	vdrv_irq_on(&d->q[0]);
	echo_once(&f, 0, 0);
	assert_int_equal(vdrv_irqs(d, 1), 2);
	echo_rig_fini(&f);
}

static void test_interrupts_flag(void **state)
{
	interrupts(0);
	(void)state;
}

static void test_interrupts_event_idx(void **state)
{
	interrupts(F(VIRTIO_F_EVENT_IDX));
	(void)state;
}

/* A driver that polls, as firmware does: no MSI-X, ISR bits instead. */
static void test_isr(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	pci_cfg_write(&f.r.root, 0, d->devfn, d->msix_cap + 2, 2, 0);
	vdrv_start(d, 0, 0);
	assert_int_equal(vdrv_read(d, d->isr, 1), 0);
	echo_once(&f, 0, 0);
	assert_int_equal(vdrv_read(d, d->isr, 1), VIRTIO_PCI_ISR_QUEUE);
	assert_int_equal(vdrv_read(d, d->isr, 1), 0);
	vdrv_config_set(d, 0, 1, 1);
	assert_int_equal(vdrv_read(d, d->isr, 4), VIRTIO_PCI_ISR_CONFIG);
	assert_int_equal(vdrv_read(d, d->isr, 1), 0);
	assert_int_equal(fake_irq_total(&f.r.fv->irq), 0);
	echo_rig_fini(&f);
	(void)state;
}

static void test_kick_suppressed(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct vdrv_seg seg[2] = {{0, 8}, {0, 8}};

	echo_rig_init(&f);
	seg[0].addr = f.out;
	seg[1].addr = f.in;
	vdrv_start(d, F(VIRTIO_F_EVENT_IDX), 0);
	vdrv_add(&d->q[0], seg, 1, 1, 0);
	assert_true(vdrv_kick_wanted(&d->q[0]));
	vdrv_kick(&d->q[0]);
	/* The device has not seen it yet: a second one needs no kick. */
	vdrv_add(&d->q[0], seg, 1, 1, 0);
	assert_false(vdrv_kick_wanted(&d->q[0]));
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_used_total(&d->q[0]), 2);
	echo_rig_fini(&f);
	(void)state;
}

/* Kicks that do not go through an ioeventfd, at odd widths and places. */
static void test_doorbell_in_user_space(void **state)
{
	struct echo_rig f;
	struct vdrv *d = &f.r.d;
	struct bus_reader *rd;
	uint32_t v = 0;

	echo_rig_init(&f);
	vdrv_start(d, 0, 0);
	assert_int_equal(bus_reader_new(f.r.fv->vm.bus, &rd), 0);
	vdrv_add(&d->q[1], (struct vdrv_seg[]){{f.out, DATA}, {f.in, DATA}}, 1, 1, 0);
	bus_write(rd, BUS_MMIO, d->q[1].notify + 1, &v, 1);
	bus_write(rd, BUS_MMIO, d->notify + 4 * ECHO_QUEUES, &v, 4);
	bus_write(rd, BUS_MMIO, d->notify + 0xffc, &v, 4);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_used_total(&d->q[1]), 0);
	bus_write(rd, BUS_MMIO, d->q[1].notify, &v, 4);
	fake_vm_settle(f.r.fv);
	assert_int_equal(vdrv_used_total(&d->q[1]), 1);
	v = 0xffffffff;
	bus_read(rd, BUS_MMIO, d->q[1].notify, &v, 4);
	assert_int_equal(v, 0);
	bus_reader_free(rd);
	echo_rig_fini(&f);
	(void)state;
}

/* What is fixed while a queue is enabled, and that it is enabled only once. */
static void test_enabled_is_fixed(void **state)
{
	const unsigned desc = offsetof(struct virtio_pci_common_cfg, queue_desc);
	struct echo_rig f;
	struct vdrv *d = &f.r.d;

	echo_rig_init(&f);
	vdrv_start(d, 0, 0);
	VDRV_COMMON_SET(d, queue_select, 0);
	VDRV_COMMON_SET(d, queue_size, 2);
	vdrv_common_set(d, desc, 4, 0);
	VDRV_COMMON_SET(d, queue_enable, 0);
	VDRV_COMMON_SET(d, queue_enable, 2);
	assert_int_equal(VDRV_COMMON(d, queue_enable), 1);
	assert_int_equal(VDRV_COMMON(d, queue_size), ECHO_QUEUE_SIZE);
	assert_int_equal(vdrv_common(d, desc, 4), (uint32_t)d->q[0].desc_gpa);
	/* no RING_RESET: queue_reset does nothing */
	VDRV_COMMON_SET(d, queue_reset, 1);
	assert_int_equal(VDRV_COMMON(d, queue_reset), 0);
	assert_int_equal(VDRV_COMMON(d, queue_enable), 1);
	assert_int_equal(atomic_load(&f.e->starts), ECHO_QUEUES);
	echo_once(&f, 0, 0);
	echo_rig_fini(&f);
	(void)state;
}

/* A conventional function on the root bus, a PCI Express endpoint behind a port. */
static void test_capabilities(void **state)
{
	const struct pcie_root_port_config port = {.id = "rp0", .devfn = PCI_DEVFN(5, 0)};
	struct virtio_pci_config cfg = {.id = "behind", .devfn = -1};
	const struct pci_func *on_root, *behind;
	struct echo_rig f;
	struct vm *vm;

	echo_rig_init(&f);
	vm = &f.r.fv->vm;
	on_root = f.r.root.func[PCI_DEVFN(3, 0)];
	assert_int_equal(on_root->exp_cap, 0);
	assert_int_equal(on_root->pm_cap, 0);
	assert_int_equal(pcie_root_port_new(vm, &f.r.root, &port, &cfg.bus, NULL), 0);
	assert_int_equal(virtio_pci_new(vm, &echo_new(vm, "behind", vm->loop)->vd, &cfg,
					&(struct device *){0}, NULL),
			 0);
	behind = cfg.bus->func[0];
	assert_int_equal(pci_get16(behind, behind->exp_cap + PCI_EXP_FLAGS),
			 PCI_EXP_FLAGS_VERSION_2 | PCI_EXP_TYPE_ENDPOINT
							   << PCI_EXP_FLAGS_TYPE_SHIFT);
	assert_true(behind->pm_cap);
	echo_rig_fini(&f);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_negotiation),
		cmocka_unit_test(test_driver_ok_too_early),
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_config_space),
		cmocka_unit_test(test_pci_cfg_window),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_echo_plain),
		cmocka_unit_test(test_echo_indirect_event_idx),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_full_ring_one_kick),
		cmocka_unit_test(test_interrupts_flag),
		cmocka_unit_test(test_interrupts_event_idx),
		cmocka_unit_test(test_isr),
		cmocka_unit_test(test_kick_suppressed),
		cmocka_unit_test(test_doorbell_in_user_space),
		cmocka_unit_test(test_enabled_is_fixed),
	};

	return cmocka_run_group_tests_name("virtio core", tests, NULL, NULL);
}
