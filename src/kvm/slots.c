/*
 * Guest memory as KVM sees it: one slot per region (api.rst 4.35 KVM_SET_USER_MEMORY_REGION),
 * and the pages that vCPUs wrote (4.8 KVM_GET_DIRTY_LOG, 4.117 KVM_CLEAR_DIRTY_LOG).
 *
 * KVM is the one listener that also takes firmware: read-only slots, to which a guest's write
 * becomes an MMIO exit. Where KVM lets us clear the log ourselves, that is done in pieces,
 * because KVM holds its page table lock for the length of one clear.
 *
 * Threads: control loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "kvm/kvm_int.h"

/* Pages per KVM_CLEAR_DIRTY_LOG: 256 MiB, a multiple of 64 pages as KVM demands. */
#define CLEAR_PAGES (UINT64_C(1) << 16)

static struct kvm_vm *slots_vm(struct mem_listener *l)
{
	return container_of(l, struct kvm_vm, slots.listener);
}

static struct kvm_slot *slot_find(struct kvm_slots *s, const struct mem_region *r)
{
	for (unsigned i = 0; i < s->max; i++) {
		if (s->slot[i].region == r) {
			return &s->slot[i];
		}
	}
	return NULL;
}

/* log: whether KVM should record writes. size 0 removes the slot.
 * #ioctls(main): KVM_SET_USER_MEMORY_REGION */
static int slot_set(struct kvm_vm *vm, struct kvm_slot *slot, uint64_t size, bool log)
{
	struct mem_region *r = slot->region;
	struct kvm_userspace_memory_region u = {
		.slot = slot - vm->slots.slot,
		.guest_phys_addr = mem_region_gpa(r),
		.memory_size = size,
		.userspace_addr = (uintptr_t)mem_region_host(r),
	};

	if (mem_region_kind(r) == MEM_FIRMWARE || (mem_region_flags(r) & MEM_READONLY)) {
		u.flags |= KVM_MEM_READONLY;
	}
	if (log) {
		u.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	}
	return kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &u);
}

static bool slot_logs(const struct kvm_slot *slot)
{
	return mem_region_kind(slot->region) == MEM_RAM &&
	       !(mem_region_flags(slot->region) & MEM_READONLY);
}

static int slot_alloc_bitmap(struct kvm_slot *slot)
{
	slot->words = (mem_region_pages(slot->region) + 63) / 64;
	slot->bitmap = calloc(slot->words, sizeof(slot->bitmap[0]));
	return slot->bitmap ? 0 : -ENOMEM;
}

static void slot_free_bitmap(struct kvm_slot *slot)
{
	free(slot->bitmap);
	slot->bitmap = NULL;
	slot->words = 0;
}

static int slots_region_add(struct mem_listener *l, struct mem_region *r, struct err *err)
{
	struct kvm_vm *vm = slots_vm(l);
	struct kvm_slots *s = &vm->slots;
	struct kvm_slot *slot = slot_find(s, NULL);
	int rc;

	if (!slot) {
		return err_set(err, ENOSPC, "KVM has no memory slot left for '%s'",
			       mem_region_name(r));
	}
	slot->region = r;
	if (s->logging && slot_logs(slot)) {
		rc = slot_alloc_bitmap(slot);
		if (rc < 0) {
			slot->region = NULL;
			return err_set(err, -rc, "no memory for the dirty log of '%s'",
				       mem_region_name(r));
		}
	}
	rc = slot_set(vm, slot, mem_region_size(r), slot->bitmap != NULL);
	if (rc < 0) {
		slot_free_bitmap(slot);
		slot->region = NULL;
		return err_set(err, -rc, "KVM refuses guest memory '%s' at %#jx: %s",
			       mem_region_name(r), (uintmax_t)mem_region_gpa(r), strerror(-rc));
	}
	return 0;
}

static void slots_region_del(struct mem_listener *l, struct mem_region *r)
{
	struct kvm_vm *vm = slots_vm(l);
	struct kvm_slot *slot = slot_find(&vm->slots, r);
	int rc;

	if (!slot) {
		return;
	}
	rc = slot_set(vm, slot, 0, false);
	if (rc < 0) {
		log_err("kvm", "memory slot of '%s' cannot be removed: %s", mem_region_name(r),
			strerror(-rc));
	}
	slot_free_bitmap(slot);
	slot->region = NULL;
}

static void slots_log_stop(struct mem_listener *l)
{
	struct kvm_vm *vm = slots_vm(l);

	vm->slots.logging = false;
	for (unsigned i = 0; i < vm->slots.max; i++) {
		struct kvm_slot *slot = &vm->slots.slot[i];

		if (slot->region && slot->bitmap) {
			slot_set(vm, slot, mem_region_size(slot->region), false);
			slot_free_bitmap(slot);
		}
	}
}

static int slots_log_start(struct mem_listener *l)
{
	struct kvm_vm *vm = slots_vm(l);
	int rc = 0;

	for (unsigned i = 0; i < vm->slots.max; i++) {
		struct kvm_slot *slot = &vm->slots.slot[i];

		if (!slot->region || !slot_logs(slot)) {
			continue;
		}
		rc = slot_alloc_bitmap(slot);
		if (rc == 0) {
			rc = slot_set(vm, slot, mem_region_size(slot->region), true);
		}
		if (rc < 0) {
			slots_log_stop(l);
			return rc;
		}
	}
	vm->slots.logging = true;
	return 0;
}

/* #ioctls(main): KVM_CLEAR_DIRTY_LOG */
static int slot_clear(struct kvm_vm *vm, struct kvm_slot *slot)
{
	uint64_t pages = mem_region_pages(slot->region);

	for (uint64_t first = 0; first < pages; first += CLEAR_PAGES) {
		uint64_t n = MIN(CLEAR_PAGES, pages - first);
		const uint64_t *words = slot->bitmap + first / 64;
		struct kvm_clear_dirty_log c = {
			.slot = slot - vm->slots.slot,
			.first_page = first,
			.num_pages = n,
			.dirty_bitmap = (void *)words,
		};
		bool any = false;
		int rc;

		for (uint64_t i = 0; i < (n + 63) / 64 && !any; i++) {
			any = words[i];
		}
		if (!any) {
			continue;
		}
		rc = kvm_ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &c);
		if (rc < 0) {
			return rc;
		}
	}
	return 0;
}

/* #ioctls(main): KVM_GET_DIRTY_LOG */
static int slots_log_sync(struct mem_listener *l, struct mem_region *r)
{
	struct kvm_vm *vm = slots_vm(l);
	struct kvm_slot *slot = slot_find(&vm->slots, r);
	struct kvm_dirty_log d;
	int rc;

	if (!slot || !slot->bitmap) {
		return 0;
	}
	d = (struct kvm_dirty_log){
		.slot = slot - vm->slots.slot,
		.dirty_bitmap = slot->bitmap,
	};
	rc = kvm_ioctl(vm->fd, KVM_GET_DIRTY_LOG, &d);
	if (rc == 0 && vm->slots.manual) {
		rc = slot_clear(vm, slot);
	}
	if (rc < 0) {
		return rc;
	}
	mem_region_dirty_or(r, slot->bitmap, slot->words);
	return 0;
}

static const struct mem_listener_ops kvm_slots_ops = {
	.name = "kvm",
	.firmware = true,
	.region_add = slots_region_add,
	.region_del = slots_region_del,
	.log_start = slots_log_start,
	.log_stop = slots_log_stop,
	.log_sync = slots_log_sync,
};

int kvm_slots_init(struct kvm_vm *vm, struct err *err)
{
	struct kvm_slots *s = &vm->slots;
	struct kvm_enable_cap ec = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE},
	};
	int rc;

	s->max = kvm_cap(vm, KVM_CAP_NR_MEMSLOTS);
	s->max = MIN(s->max, MEM_MAX_REGIONS);
	s->listener.ops = &kvm_slots_ops;
	s->manual = kvm_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &&
		    kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &ec) >= 0;
	rc = mem_listener_add(vm->cfg.mem, &s->listener, err);
	s->added = rc == 0;
	return rc;
}

void kvm_slots_fini(struct kvm_vm *vm)
{
	if (vm->slots.added) {
		mem_listener_del(vm->cfg.mem, &vm->slots.listener);
	}
}
