/*
 * The shortest way to a sign of life: the first instructions after reset write one byte to the
 * serial port, then the processor sleeps. For measuring the time from exec to the guest.
 * 64 KiB, which QEMU wants; both place it so that it ends at 4 GiB.
 */
	.section .image, "ax"
	.fill 65536 - 16, 1, 0
	.code16
	mov $0x3f8, %dx
	mov $'!', %al
	out %al, %dx
	cli
1:	hlt
	jmp 1b
	.balign 16, 0
	.section .note.GNU-stack, "", @progbits
