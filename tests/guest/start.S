/*
 * From the reset vector to main() in long mode, the interrupt entries, and the same way for the
 * application processors. Intel SDM volume 3A, 9.1.4 (first instruction), 9.8.5 (IA-32e mode),
 * 8.4 (MP initialisation).
 *
 * Few instructions: some KVM hosts emulate kernel-mode code at a microsecond each, and loop on an
 * exception in real mode. Where the processor has 1 GiB pages the page tables are five entries.
 *
 * Memory: 0x1000 PML4, 0x2000 PDPT, 0x3000-0x6fff page directories (only without 1 GiB pages),
 * 0x8000 way of the application processors, 0x100000 image, then stacks in .keep.
 */
#define PML4	  0x1000
#define PDPT	  0x2000
#define PD	  0x3000
#define AP_START  0x8000
#define CODE32	  0x08
#define DATA	  0x10
#define CODE64	  0x18
#define MAX_CPUS  1024
#define STACK	  4096
#define CR0_BITS  0x80000033 /* PG NE ET MP PE; neither CD nor EM nor TS */
#define CR4_BITS  0x620      /* PAE OSFXSR OSXMMEXCPT */
#define MSR_EFER  0xc0000080
#define EFER_LME  0x100
#define PTE	  0x63       /* present, writable, accessed, dirty */
#define PTE_LARGE 0xe3
#define PTE_UC    0xfb       /* large, PWT and PCD: the last GiB is devices */

	.section .reset, "ax"
	.code16
	jmp boot16

	.section .boot, "ax"
boot_base:
	.global boot16
boot16:
	cli
	lgdtl %cs:(gdtr - boot_base + 0xfd00)
	mov $0x33, %eax
	mov %eax, %cr0
	ljmpl $CODE32, $boot32

	.code32
boot32:
	mov $DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	movl $PDPT + PTE, PML4
	mov $0x80000001, %eax
	cpuid
	bt $26, %edx
	jnc small_pages
	movl $PTE_LARGE, PDPT
	movl $0x40000000 + PTE_LARGE, PDPT + 8
	movl $0x80000000 + PTE_LARGE, PDPT + 16
	movl $0xc0000000 + PTE_UC, PDPT + 24
tables_done:
	mov $CR4_BITS, %eax
	mov %eax, %cr4
	mov $PML4, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	xor %edx, %edx
	mov $EFER_LME, %eax
	wrmsr
	mov $CR0_BITS, %eax
	mov %eax, %cr0
	ljmpl $CODE64, $boot64

small_pages:
	movl $PD + PTE, PDPT
	movl $PD + 0x1000 + PTE, PDPT + 8
	movl $PD + 0x2000 + PTE, PDPT + 16
	movl $PD + 0x3000 + PTE, PDPT + 24
	mov $PD, %edi
	mov $PTE_LARGE, %eax
1:	mov %eax, (%edi)
	add $8, %edi
	add $0x200000, %eax
	jnc 1b
	jmp tables_done

	.code64
boot64:
	mov $image_rom, %esi
	mov $image_start, %edi
	mov $image_end, %ecx
	sub %edi, %ecx
	shr $3, %ecx
	rep movsq
	mov $bss_start, %edi
	mov $bss_end, %ecx
	sub %edi, %ecx
	shr $3, %ecx
	xor %eax, %eax
	rep stosq
	mov $stacks + STACK, %esp
	mov $main, %eax
	call *%rax
	mov $halt, %eax
	jmp *%rax

	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* 32-bit code, accessed: this is read-only memory */
	.quad 0x00cf93000000ffff /* data */
	.quad 0x00af9b000000ffff /* 64-bit code */
gdtr:
	.word 31
	.long gdt

/* --- application processors: copied to AP_START, started there by SIPI vector 8 --- */
	.section .text
	.code16
	.global ap_code, ap_code_end
	.weak ap_main /* a guest with one processor has none */
ap_code:
	cli
	mov %cs, %ax
	mov %ax, %ds
	lgdtl ap_gdtr - ap_code
	mov $0x33, %eax
	mov %eax, %cr0
	ljmpl $CODE32, $(AP_START + ap32 - ap_code)
	.code32
ap32:
	mov $DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $CR4_BITS, %eax
	mov %eax, %cr4
	mov $PML4, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	xor %edx, %edx
	mov $EFER_LME, %eax
	wrmsr
	mov $CR0_BITS, %eax
	mov %eax, %cr0
	ljmpl $CODE64, $(AP_START + ap64 - ap_code)
	.code64
ap64:
	mov $1, %edi
	lock xadd %edi, cpus_started
	mov %edi, %eax
	inc %eax
	shl $12, %eax
	add $stacks, %eax
	mov %eax, %esp
	lidt idtr
	mov $ap_main, %eax
	call *%rax
	mov $halt, %eax
	jmp *%rax
	.balign 4
ap_gdtr:
	.word 31
	.long gdt
ap_code_end:

/* --- interrupts --- */
/* A stub for each vector of isr_vectors: pushes an error code where the processor does not. */
	.altmacro
	.macro stub n
isr_\n:
	.if !((\n == 8) || ((\n >= 10) && (\n <= 14)) || (\n == 17) || (\n == 21))
	push $0
	.endif
	push $\n
	jmp isr_common
	.endm
	.set i, 0
	.rept 32
	stub %i
	.set i, i + 1
	.endr
	.set i, 0x40
	.rept 4
	stub %i
	.set i, i + 1
	.endr

isr_common:
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	mov 72(%rsp), %rdi /* vector */
	mov 80(%rsp), %rsi /* error code */
	mov 88(%rsp), %rdx /* address */
	call interrupt
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

	.global halt
halt:
	hlt
	jmp halt

/* Addresses of the stubs: 32 exceptions, then IRQ_FIRST and on. */
	.section .rodata
	.balign 4
	.global isr_table
	.macro entry n
	.long isr_\n
	.endm
isr_table:
	.set i, 0
	.rept 32
	entry %i
	.set i, i + 1
	.endr
	.set i, 0x40
	.rept 4
	entry %i
	.set i, i + 1
	.endr

	.section .data
	.global idtr, cpus_started
idtr:
	.word 0x44 * 16 - 1
	.quad idt
cpus_started: /* the boot processor is one */
	.long 1

	.section .bss
	.balign 16
idt:
	.skip 0x44 * 16
	.global idt

	.section .keep, "aw", @nobits
	.balign 16
stacks:
	.skip MAX_CPUS * STACK
	.section .note.GNU-stack, "", @progbits
