/*
 * Register states in which a vCPU starts. See regs.h.
 *
 * Segments carry what the processor has in their hidden parts; VMX checks them on entry, so
 * they are complete even where real mode ignores them.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86/regs.h"
#include "base/wire.h"
#include "spec/x86.h"

#define PAGE UINT64_C(4096)

/* Inside the tables of 64-bit mode. */
#define TABLE_GDT  (0 * PAGE)
#define TABLE_PML4 (1 * PAGE)
#define TABLE_PDPT (2 * PAGE)
#define TABLE_PD   (3 * PAGE) /* four pages, one per GiB */

/* boot.rst: __BOOT_CS and __BOOT_DS */
#define BOOT_CS 0x10
#define BOOT_DS 0x18

static struct kvm_segment real_segment(uint16_t selector, uint64_t base, uint8_t type, bool s)
{
	return (struct kvm_segment){
		.base = base,
		.limit = 0xFFFF,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = s,
	};
}

void x86_regs_reset(struct kvm_regs *regs, struct kvm_sregs *sregs, bool boot_cpu,
		    uint32_t signature)
{
	struct kvm_segment data = real_segment(0, 0, SEG_TYPE_DATA_RW_A, true);

	*regs = (struct kvm_regs){.rip = 0xFFF0, .rflags = 2, .rdx = signature};
	*sregs = (struct kvm_sregs){
		.cs = real_segment(0xF000, 0xFFFF0000, SEG_TYPE_CODE_RX_A, true),
		.ds = data,
		.es = data,
		.fs = data,
		.gs = data,
		.ss = data,
		.tr = real_segment(0, 0, SEG_TYPE_TSS_BUSY, false),
		.ldt = real_segment(0, 0, SEG_TYPE_LDT, false),
		.gdt = {.limit = 0xFFFF},
		.idt = {.limit = 0xFFFF},
		.cr0 = CR0_CD | CR0_NW | CR0_ET,
		.apic_base = APIC_DEFAULT_BASE | APIC_BASE_EN | (boot_cpu ? APIC_BASE_BSP : 0),
	};
}

void x86_regs_long_mode(struct kvm_regs *regs, struct kvm_sregs *sregs, gpa_t tables,
			uint64_t entry, uint64_t boot_params)
{
	struct kvm_segment code = {
		.limit = 0xFFFFFFFF,
		.selector = BOOT_CS,
		.type = SEG_TYPE_CODE_RX_A,
		.present = 1,
		.s = 1,
		.l = 1,
		.g = 1,
	};
	struct kvm_segment data = {
		.limit = 0xFFFFFFFF,
		.selector = BOOT_DS,
		.type = SEG_TYPE_DATA_RW_A,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
	};

	x86_regs_reset(regs, sregs, true, 0);
	*regs = (struct kvm_regs){.rip = entry, .rsi = boot_params, .rflags = 2};
	sregs->cs = code;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->gdt = (struct kvm_dtable){.base = tables + TABLE_GDT, .limit = 4 * 8 - 1};
	sregs->idt = (struct kvm_dtable){0};
	sregs->cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE;
	sregs->cr3 = tables + TABLE_PML4;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
}

void x86_regs_pvh(struct kvm_regs *regs, struct kvm_sregs *sregs, uint32_t entry,
		  uint32_t start_info)
{
	struct kvm_segment data = {
		.limit = 0xFFFFFFFF,
		.selector = BOOT_DS,
		.type = SEG_TYPE_DATA_RW_A,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
	};

	x86_regs_reset(regs, sregs, true, 0);
	*regs = (struct kvm_regs){.rip = entry, .rbx = start_info, .rflags = 2};
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->cs = data;
	sregs->cs.selector = BOOT_CS;
	sregs->cs.type = SEG_TYPE_CODE_RX_A;
	sregs->tr.limit = 0x67;
	sregs->gdt = sregs->idt = (struct kvm_dtable){0};
	sregs->cr0 = CR0_ET | CR0_PE; /* ET is fixed; the caches are on, which CD is to say */
}

int x86_boot_tables_write(struct mem *m, gpa_t at, struct err *err)
{
	le64 page[PAGE / 8];
	int r;

	memset(page, 0, sizeof(page));
	page[BOOT_CS / 8] =
		le64_of(UINT64_C(0x00AF9B000000FFFF)); /* 64-bit, execute and read */
	page[BOOT_DS / 8] = le64_of(UINT64_C(0x00CF93000000FFFF)); /* flat, read and write */
	r = mem_write(m, at + TABLE_GDT, page, sizeof(page));

	memset(page, 0, sizeof(page));
	page[0] = le64_of((at + TABLE_PDPT) | PTE_P | PTE_RW);
	r = r ? r : mem_write(m, at + TABLE_PML4, page, sizeof(page));

	memset(page, 0, sizeof(page));
	for (unsigned i = 0; i < 4; i++) {
		page[i] = le64_of((at + TABLE_PD + i * PAGE) | PTE_P | PTE_RW);
	}
	r = r ? r : mem_write(m, at + TABLE_PDPT, page, sizeof(page));

	for (unsigned i = 0; i < 4; i++) {
		for (uint64_t j = 0; j < PAGE / 8; j++) {
			page[j] = le64_of((((i * (PAGE / 8)) + j) << 21) | PTE_P | PTE_RW |
					  PTE_PS);
		}
		r = r ? r : mem_write(m, at + TABLE_PD + i * PAGE, page, sizeof(page));
	}
	if (r < 0) {
		return err_set(err, -r,
			       "no guest memory at %#jx for the boot page tables: use "
			       "a larger -m",
			       (uintmax_t)at);
	}
	return 0;
}
