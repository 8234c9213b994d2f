/*
 * unsigned spin(uint64_t *counter, uint64_t rounds): counts in a register and in memory at once,
 * and looks in each round whether they agree and every other general register still holds its
 * pattern. 0, or the number of the register that does not. The state guest spends its time here,
 * so that is where it is stopped.
 */
	.text
	.global spin
spin:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov (%rdi), %r15
	movabs $0x1111111111111111, %rbx
	movabs $0x2222222222222222, %rbp
	movabs $0x8888888888888888, %r8
	movabs $0x9999999999999999, %r9
	movabs $0xaaaaaaaaaaaaaaaa, %r10
	movabs $0xbbbbbbbbbbbbbbbb, %r11
	movabs $0xcccccccccccccccc, %r12
	movabs $0xdddddddddddddddd, %r13
	movabs $0xeeeeeeeeeeeeeeee, %r14
	.macro check reg, pattern, number
	mov $\number, %eax
	movabs $\pattern, %rcx
	cmp %rcx, %\reg
	jne 2f
	.endm
1:	inc %r15
	incq (%rdi)
	mov $15, %eax
	cmp (%rdi), %r15
	jne 2f
	check rbx, 0x1111111111111111, 1
	check rbp, 0x2222222222222222, 2
	check r8, 0x8888888888888888, 8
	check r9, 0x9999999999999999, 9
	check r10, 0xaaaaaaaaaaaaaaaa, 10
	check r11, 0xbbbbbbbbbbbbbbbb, 11
	check r12, 0xcccccccccccccccc, 12
	check r13, 0xdddddddddddddddd, 13
	check r14, 0xeeeeeeeeeeeeeeee, 14
	dec %rsi
	jnz 1b
	xor %eax, %eax
2:	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.section .note.GNU-stack, "", @progbits
