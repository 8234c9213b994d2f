/*
 * Interrupts: struct irqchip on KVM's GSI routing table (api.rst 4.52 KVM_SET_GSI_ROUTING,
 * 4.70 KVM_SIGNAL_MSI, 4.75 KVM_IRQFD).
 *
 * With a split irqchip KVM has no pins: every route is an MSI. GSIs 0..23 stand for the pins of
 * the IOAPIC in user space, whose routes make KVM report EOIs; the rest is for devices.
 * The table is kept as KVM takes it and handed over whole at each change, so a change costs one
 * system call and a grace period in the kernel: an unchanged route is not sent again.
 *
 * Invariants: entry[gsi] - 1 is the position of the one entry with that GSI; entries are dense.
 * Threads: routes by the control loop; msi_send by any thread (KVM serialises).
 * Untrusted: message addresses and data come from the guest; KVM checks them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kvm/kvm_int.h"
#include "kvm/trace.h"

static struct kvm_vm *irq_vm(struct irqchip *c)
{
	return container_of(c, struct kvm_vm, irqs.chip);
}

/* KVM_X2APIC_API: bits 31:8 of the upper half are bits 31:8 of the destination. A guest with
 * KVM_FEATURE_MSI_EXT_DEST_ID puts bits 14:8 into bits 11:5 of the address instead. */
static void irq_split_address(const struct kvm_vm *vm, uint64_t addr, uint32_t *lo,
			      uint32_t *hi)
{
	*lo = (uint32_t)addr;
	*hi = (uint32_t)(addr >> 32);
	if (vm->irqs.ext_dest) {
		*hi |= (*lo & 0xFE0) << 3;
		*lo &= ~0xFE0u;
	}
}

/* #ioctls(main, vcpu, io): KVM_SIGNAL_MSI */
static int irq_msi_send(struct irqchip *c, uint64_t addr, uint32_t data, uint32_t source)
{
	struct kvm_vm *vm = irq_vm(c);
	struct kvm_msi msi = {.data = data};
	int r;

	trace_kvm_msi_send(addr, data);
	irq_split_address(vm, addr, &msi.address_lo, &msi.address_hi);
	if (vm->irqs.devid) {
		msi.flags = KVM_MSI_VALID_DEVID;
		msi.devid = source;
	}
	r = kvm_ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
	return r < 0 ? r : 0; /* 0 and 1: masked by the guest or delivered */
}

static bool irq_used(const struct kvm_irqs *q, unsigned gsi)
{
	return q->used[gsi / 64] >> (gsi % 64) & 1;
}

static int irq_gsi_alloc(struct irqchip *c)
{
	struct kvm_irqs *q = &irq_vm(c)->irqs;

	for (unsigned w = 0; w < q->max / 64; w++) {
		if (~q->used[w]) {
			unsigned gsi = w * 64 + __builtin_ctzll(~q->used[w]);

			q->used[w] |= UINT64_C(1) << (gsi % 64);
			return gsi;
		}
	}
	return -ENOSPC;
}

/* #ioctls(main): KVM_SET_GSI_ROUTING */
static int irq_commit(struct kvm_vm *vm)
{
	return kvm_ioctl(vm->fd, KVM_SET_GSI_ROUTING, vm->irqs.table);
}

static int irq_reserve(struct kvm_irqs *q)
{
	unsigned n = q->capacity ? q->capacity * 2 : 64;
	struct kvm_irq_routing *t;

	if (q->table && q->table->nr < q->capacity) {
		return 0;
	}
	t = realloc(q->table, sizeof(*t) + n * sizeof(t->entries[0]));
	if (!t) {
		return -ENOMEM;
	}
	if (!q->table) {
		t->nr = t->flags = 0;
	}
	q->table = t;
	q->capacity = n;
	return 0;
}

static int irq_route_remove(struct kvm_vm *vm, unsigned gsi)
{
	struct kvm_irqs *q = &vm->irqs;
	struct kvm_irq_routing_entry *last;
	unsigned pos;

	if (!q->entry[gsi]) {
		return 0;
	}
	pos = q->entry[gsi] - 1;
	last = &q->table->entries[q->table->nr - 1];
	q->table->entries[pos] = *last;
	q->entry[last->gsi] = pos + 1;
	q->entry[gsi] = 0;
	q->table->nr--;
	return irq_commit(vm);
}

static int irq_route_set(struct irqchip *c, int gsi, bool valid, uint64_t addr, uint32_t data,
			 uint32_t source)
{
	struct kvm_vm *vm = irq_vm(c);
	struct kvm_irqs *q = &vm->irqs;
	struct kvm_irq_routing_entry e = {.type = KVM_IRQ_ROUTING_MSI, .u.msi.data = data};
	struct kvm_irq_routing_entry *slot, old;
	bool fresh;
	int r;

	if (gsi < 0 || (unsigned)gsi >= q->max || !irq_used(q, gsi)) {
		return -EINVAL;
	}
	trace_kvm_irq_route(gsi, valid, addr, data);
	if (!valid) {
		return irq_route_remove(vm, gsi);
	}
	e.gsi = gsi;
	irq_split_address(vm, addr, &e.u.msi.address_lo, &e.u.msi.address_hi);
	if (q->devid) {
		e.flags = KVM_MSI_VALID_DEVID;
		e.u.msi.devid = source;
	}
	fresh = !q->entry[gsi];
	if (fresh) {
		r = irq_reserve(q);
		if (r < 0) {
			return r;
		}
		q->entry[gsi] = ++q->table->nr;
	}
	slot = &q->table->entries[q->entry[gsi] - 1];
	if (!fresh && slot->u.msi.address_lo == e.u.msi.address_lo &&
	    slot->u.msi.address_hi == e.u.msi.address_hi && slot->u.msi.data == data &&
	    slot->u.msi.devid == e.u.msi.devid) {
		return 0;
	}
	old = *slot;
	*slot = e;
	r = irq_commit(vm);
	if (r < 0) {
		/* KVM kept its table: keep ours the same */
		if (fresh) {
			q->table->nr--;
			q->entry[gsi] = 0;
		} else {
			*slot = old;
		}
		return r;
	}
	return 0;
}

static void irq_gsi_free(struct irqchip *c, int gsi)
{
	struct kvm_vm *vm = irq_vm(c);
	struct kvm_irqs *q = &vm->irqs;

	if (gsi < KVM_IOAPIC_PINS || (unsigned)gsi >= q->max) {
		return;
	}
	irq_route_remove(vm, gsi);
	q->used[gsi / 64] &= ~(UINT64_C(1) << (gsi % 64));
}

/* #ioctls(main): KVM_IRQFD */
static int irq_irqfd(struct irqchip *c, int gsi, int fd, bool assign)
{
	struct kvm_vm *vm = irq_vm(c);
	struct kvm_irqfd ifd = {.fd = fd, .gsi = gsi};

	if (gsi < 0 || (unsigned)gsi >= vm->irqs.max || !irq_used(&vm->irqs, gsi)) {
		return -EINVAL;
	}
	if (!assign) {
		ifd.flags = KVM_IRQFD_FLAG_DEASSIGN;
	}
	return kvm_ioctl(vm->fd, KVM_IRQFD, &ifd);
}

static const struct irqchip_ops kvm_irqchip_ops = {
	.msi_send = irq_msi_send,
	.gsi_alloc = irq_gsi_alloc,
	.gsi_free = irq_gsi_free,
	.route_set = irq_route_set,
	.irqfd = irq_irqfd,
};

int kvm_irqs_init(struct kvm_vm *vm, struct err *err)
{
	struct kvm_irqs *q = &vm->irqs;

	/* positions fit 16 bits; the bitmap has whole words */
	q->max = kvm_cap(vm, KVM_CAP_IRQ_ROUTING);
	q->max = MIN(q->max, 32768) / 64 * 64;
	if (q->max < 2 * 64) {
		return err_set(err, ENOTSUP,
			       "KVM has only %u interrupt routes: use a newer "
			       "host kernel",
			       q->max);
	}
	q->ext_dest = vm->cfg.msi_ext_dest_id;
	q->used = calloc(q->max / 64, sizeof(q->used[0]));
	q->entry = calloc(q->max, sizeof(q->entry[0]));
	if (!q->used || !q->entry || irq_reserve(q) < 0) {
		kvm_irqs_fini(vm);
		return err_set(err, ENOMEM, "no memory for interrupt routes");
	}
	q->used[0] = (UINT64_C(1) << KVM_IOAPIC_PINS) - 1;
	q->chip.ops = &kvm_irqchip_ops;
	return 0;
}

void kvm_irqs_fini(struct kvm_vm *vm)
{
	free(vm->irqs.used);
	free(vm->irqs.entry);
	free(vm->irqs.table);
}

struct irqchip *kvm_vm_irqchip(struct kvm_vm *vm)
{
	return &vm->irqs.chip;
}
