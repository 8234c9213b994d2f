/* arch/x86/regs.h: the reset state, the state of the 64-bit entry and its page tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "arch/x86/regs.h"
#include "base/util.h"

static void test_reset(void **state)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	memset(&r, 0xFF, sizeof(r));
	memset(&s, 0xFF, sizeof(s));
	x86_regs_reset(&r, &s, true, 0xA10F11);
	assert_int_equal(s.cs.base + r.rip, 0xFFFFFFF0);
	assert_int_equal(s.cs.selector, 0xF000);
	assert_int_equal(r.rdx, 0xA10F11);
	assert_int_equal(r.rflags, 2);
	assert_int_equal(s.cr0, 0x60000010);
	assert_int_equal(s.cr4 | s.cr3 | s.efer, 0);
	assert_int_equal(s.apic_base, 0xFEE00900);
	assert_int_equal(s.ss.limit, 0xFFFF);
	assert_int_equal(s.idt.limit, 0xFFFF);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(s.interrupt_bitmap[i], 0);
	}
	x86_regs_reset(&r, &s, false, 0);
	assert_int_equal(s.apic_base, 0xFEE00800);
}

/* As the processor walks: SDM vol. 3A 4.5. */
static uint64_t walk(struct mem *m, uint64_t cr3, uint64_t va)
{
	uint64_t e, at = cr3 & ~UINT64_C(0xFFF);

	for (int level = 3; level >= 1; level--) {
		assert_int_equal(mem_read(m, at + (va >> (12 + 9 * level) & 0x1FF) * 8, &e, 8),
				 0);
		assert_int_equal(e & 3, 3); /* present, writable */
		at = e & UINT64_C(0xFFFFFFFFFF000);
		if (e & 0x80) {
			assert_int_equal(level, 1);
			return at + (va & 0x1FFFFF);
		}
	}
	fail_msg("no page at %#jx", (uintmax_t)va);
	return 0;
}

static void test_long_mode(void **state)
{
	struct mem_region *region;
	struct kvm_regs r;
	struct kvm_sregs s;
	struct mem *m;
	uint64_t gdt[4];

	assert_int_equal(mem_new(&m), 0);
	assert_int_equal(mem_region_add(m, "ram", 0, MiB, MEM_RAM, 0, &region, NULL), 0);
	assert_int_equal(x86_boot_tables_write(m, 0x1000, NULL), 0);
	x86_regs_long_mode(&r, &s, 0x1000, 0x1000200, 0x8000);

	assert_int_equal(r.rip, 0x1000200);
	assert_int_equal(r.rsi, 0x8000);
	assert_int_equal(r.rflags & 0x200, 0); /* interrupts off */
	assert_int_equal(s.cr0 & 0x80000001, 0x80000001);
	assert_int_equal(s.cr4 & 0x20, 0x20);
	assert_int_equal(s.efer, 0x500);
	assert_int_equal(s.cs.selector, 0x10);
	assert_int_equal(s.ss.selector, 0x18);
	assert_true(s.cs.l && !s.cs.db);
	for (uint64_t va = 0; va < 4 * GiB; va += 511 * MiB + 4097) {
		assert_int_equal(walk(m, s.cr3, va), va);
	}
	assert_int_equal(walk(m, s.cr3, 4 * GiB - 1), 4 * GiB - 1);

	/* the hidden parts are what the table holds: 64-bit code, flat data, DPL 0 */
	assert_int_equal(s.gdt.limit, sizeof(gdt) - 1);
	assert_int_equal(mem_read(m, s.gdt.base, gdt, sizeof(gdt)), 0);
	assert_int_equal(gdt[0], 0);
	assert_int_equal(gdt[2] >> 40 & 0xFF, 0x80 | 0x10 | s.cs.type);
	assert_int_equal(gdt[2] >> 53 & 1, 1);
	assert_int_equal(gdt[3] >> 40 & 0xFF, 0x80 | 0x10 | s.ds.type);
	mem_free(m);
}

/* What the ABI demands, and no stale state of the reset vector. */
static void test_pvh(void **state)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	x86_regs_pvh(&r, &s, 0x1000850, 0x8000);
	assert_int_equal(r.rip, 0x1000850);
	assert_int_equal(r.rbx, 0x8000);
	assert_int_equal(r.rflags, 2);
	assert_int_equal(s.cr0 & ~0x10u, 1); /* PE; ET cannot be cleared */
	assert_int_equal(s.cr4, 0);
	assert_int_equal(s.efer, 0);
	for (unsigned i = 0; i < 4; i++) {
		const struct kvm_segment *seg =
			(const struct kvm_segment *[]){&s.cs, &s.ds, &s.es, &s.ss}[i];

		assert_int_equal(seg->base, 0);
		assert_int_equal(seg->limit, 0xFFFFFFFF);
		assert_true(seg->db && !seg->l && seg->g && seg->present && seg->s);
		assert_int_equal(seg->type, i ? 3 : 11);
	}
	assert_int_equal(s.tr.base, 0);
	assert_int_equal(s.tr.limit, 0x67);
	assert_int_equal(s.tr.type, 11);
}

static void test_no_memory(void **state)
{
	struct mem_region *region;
	struct err err = {0};
	struct mem *m;

	assert_int_equal(mem_new(&m), 0);
	assert_int_equal(mem_region_add(m, "ram", 0, 16 * KiB, MEM_RAM, 0, &region, NULL), 0);
	assert_int_equal(x86_boot_tables_write(m, 0x1000, &err), -EFAULT);
	assert_non_null(strstr(err.msg, "-m"));
	mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_long_mode),
		cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
