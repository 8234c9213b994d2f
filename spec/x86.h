/*
 * x86-64 constants: Intel SDM vol. 3 and 4, AMD APM vol. 2, with the manuals' names. KVM's own
 * MSRs are in <asm/kvm_para.h>.
 */
#ifndef SPEC_X86_H
#define SPEC_X86_H

/* control registers, SDM vol. 3A 2.5 */
#define CR0_PE 0x00000001u
#define CR0_MP 0x00000002u
#define CR0_ET 0x00000010u
#define CR0_NE 0x00000020u
#define CR0_WP 0x00010000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x00000020u

/* extended feature enable register, SDM vol. 3A 2.2.1 */
#define EFER_LME 0x00000100u
#define EFER_LMA 0x00000400u

/* page table entries, SDM vol. 3A 4.5 */
#define PTE_P  0x001u
#define PTE_RW 0x002u
#define PTE_PS 0x080u

/* segment types, SDM vol. 3A 3.4.5.1 and 3.5 */
#define SEG_TYPE_DATA_RW_A 3u
#define SEG_TYPE_CODE_RX_A 11u
#define SEG_TYPE_LDT       2u
#define SEG_TYPE_TSS_BUSY  11u

/* local APIC, SDM vol. 3A 11.4 */
#define APIC_DEFAULT_BASE 0xFEE00000u
#define APIC_BASE_BSP     0x00000100u
#define APIC_BASE_EXTD    0x00000400u
#define APIC_BASE_EN      0x00000800u

/* model-specific registers, SDM vol. 4 chapter 2 */
#define MSR_IA32_TSC          0x00000010u
#define MSR_IA32_APIC_BASE    0x0000001Bu
#define MSR_MTRRphysBase0     0x00000200u
#define MSR_MTRRfix64K_00000  0x00000250u
#define MSR_MTRRfix16K_80000  0x00000258u
#define MSR_MTRRfix16K_A0000  0x00000259u
#define MSR_MTRRfix4K_C0000   0x00000268u
#define MSR_MTRRdefType       0x000002FFu
#define MSR_IA32_MC0_CTL      0x00000400u
#define MSR_IA32_TSC_DEADLINE 0x000006E0u

/* the synthetic MSRs of Hyper-V, TLFS appendix "Hypervisor Synthetic MSRs" */
#define MSR_HV_FIRST 0x40000000u
#define MSR_HV_LAST  0x400001FFu

#endif
