/*
 * The interrupt controller: KVM's GICv3 with an ITS, through device attributes. Documentation/
 * virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst; vcpu.rst for the PMU's interrupt.
 *
 * Lines of platform devices are shared peripheral interrupts, raised by KVM_IRQ_LINE; messages of
 * PCI functions go to the ITS, by irqfd where they can (irq.c). Threads: the control loop, but
 * lines by any. Untrusted: nothing here, the guest's side is KVM's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kvm/arm64_int.h"

#define FIRST_SPI 32u

/* #ioctls(main): KVM_GET_DEVICE_ATTR */
int arm64_attr_get(int fd, uint32_t group, uint64_t attr, void *value)
{
	struct kvm_device_attr a = {.group = group, .attr = attr, .addr = (uintptr_t)value};

	return kvm_ioctl(fd, KVM_GET_DEVICE_ATTR, &a);
}

/* #ioctls(main): KVM_SET_DEVICE_ATTR */
int arm64_attr_set(int fd, uint32_t group, uint64_t attr, const void *value)
{
	struct kvm_device_attr a = {.group = group, .attr = attr, .addr = (uintptr_t)value};

	return kvm_ioctl(fd, KVM_SET_DEVICE_ATTR, &a);
}

/* #ioctls(start): KVM_CREATE_DEVICE */
static int device_create(struct kvm_vm *vm, uint32_t type, int *fd)
{
	struct kvm_create_device d = {.type = type};
	int r = kvm_ioctl(vm->fd, KVM_CREATE_DEVICE, &d);

	*fd = r < 0 ? -1 : (int)d.fd;
	return r;
}

/* With any number of regions, or, before Linux 4.18, one. */
static int add_redists(struct arm64_gic *g)
{
	for (unsigned i = 0; i < KVM_GIC_REGIONS && g->cfg.redist[i].cpus; i++) {
		uint64_t region =
			(uint64_t)g->cfg.redist[i].cpus << 52 | g->cfg.redist[i].base | i;
		int r = arm64_attr_set(g->fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
				       KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, &region);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int make_gic(struct kvm_vm *vm, struct arm64_gic *g)
{
	uint32_t nr = FIRST_SPI + g->cfg.spis;
	int r = device_create(vm, KVM_DEV_TYPE_ARM_VGIC_V3, &g->fd);

	r = r < 0 ? r : arm64_attr_set(g->fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &nr);
	r = r < 0 ? r
		  : arm64_attr_set(g->fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST,
				   &g->cfg.dist);
	r = r < 0 ? r : add_redists(g);
	return r < 0 ? r
		     : arm64_attr_set(g->fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
				      KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

static int make_its(struct kvm_vm *vm, struct arm64_gic *g)
{
	int r = device_create(vm, KVM_DEV_TYPE_ARM_VGIC_ITS, &g->its_fd);

	r = r < 0 ? r
		  : arm64_attr_set(g->its_fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE,
				   &g->cfg.its);
	return r < 0 ? r
		     : arm64_attr_set(g->its_fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
				      KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

/* After the GIC, whose interrupt it is. #ioctls(start): KVM_SET_DEVICE_ATTR */
static int start_pmu(struct kvm_vcpu *v, unsigned ppi)
{
	int irq = (int)ppi, r;

	if (!kvm_vcpu_has_pmu(v)) {
		return 0;
	}
	r = arm64_attr_set(v->fd, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ, &irq);
	return r < 0 ? r
		     : arm64_attr_set(v->fd, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT,
				      NULL);
}

int kvm_gic_new(struct kvm_vm *vm, const struct kvm_gic_config *cfg, struct err *err)
{
	struct arm64_gic *g = calloc(1, sizeof(*g));
	int r;

	if (!g) {
		return err_set(err, ENOMEM, "no memory for the interrupt controller");
	}
	vm->gic = g;
	g->cfg = *cfg;
	g->fd = g->its_fd = -1;
	r = make_gic(vm, g);
	if (r < 0) {
		return err_set(err, -r, "KVM cannot make a GICv3 for %u vCPUs: %s",
			       vm->vcpu_count, strerror(-r));
	}
	r = make_its(vm, g);
	if (r < 0) {
		return err_set(err, -r, "KVM cannot make an interrupt translation service: %s",
			       strerror(-r));
	}
	vm->irqs.devid = true;
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		r = start_pmu(vm->vcpus[i], cfg->pmu_ppi);
		if (r < 0) {
			return err_set(err, -r,
				       "KVM cannot start the performance counters of %s: "
				       "%s; -cpu host,pmu=off does without",
				       vm->vcpus[i]->name, strerror(-r));
		}
	}
	return arm64_gic_remember(vm, err);
}

/* #ioctls(main, vcpu, io): KVM_IRQ_LINE */
static void spi_set(void *opaque, unsigned pin, bool level)
{
	struct kvm_vm *vm = opaque;
	struct kvm_irq_level l = {
		.irq = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (FIRST_SPI + pin),
		.level = level,
	};

	kvm_ioctl(vm->fd, KVM_IRQ_LINE, &l);
}

struct irq_line kvm_gic_spi(struct kvm_vm *vm, unsigned spi)
{
	return (struct irq_line){.set = spi_set, .opaque = vm, .pin = spi};
}
