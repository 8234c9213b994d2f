/*
 * First instructions of a bare-metal Arm guest, which is a firmware image: the boot CPU starts at
 * address 0, others (PSCI CPU_ON) at secondary with their number in x0. MMU and caches stay off, so
 * all memory is device memory: no unaligned accesses, no exclusives.
 *
 * An exception skips the instruction and is counted: what aborts is then as if it had not been.
 */
#define STACKS 0x40800000
#define STACK_SHIFT 14

	.section .start, "ax"
	.global _start, secondary
_start:
	mov	x0, #0
	ldr	x1, =__bss_start
	ldr	x2, =__bss_end
1:	cmp	x1, x2
	b.hs	secondary
	str	xzr, [x1], #8
	b	1b
secondary:
	ldr	x1, =STACKS
	add	x2, x0, #1
	add	x1, x1, x2, lsl #STACK_SHIFT
	mov	sp, x1
	adr	x1, vectors
	msr	vbar_el1, x1
	isb
	bl	guest_main
2:	wfi
	b	2b

	.balign	2048
vectors:
	.rept	16
	.balign	128
	b	exception
	.endr
exception:
	stp	x0, x1, [sp, #-16]!
	mrs	x0, elr_el1
	add	x0, x0, #4
	msr	elr_el1, x0
	ldr	x0, =guest_exceptions
	ldr	w1, [x0]
	add	w1, w1, #1
	str	w1, [x0]
	ldp	x0, x1, [sp], #16
	eret
