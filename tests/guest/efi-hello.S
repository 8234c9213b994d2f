/*
 * A UEFI application for the boot tests: prints a line and fails, so that the firmware goes on to
 * its next boot option. The line is 32 characters of UTF-16 that a test overwrites in the file
 * (tests/system/efi.py). Microsoft PE and COFF Specification; UEFI 2.10, 4.3 and 12.4.
 *
 * The headers are written by hand and the code is relative to itself, so there is nothing to
 * relocate and the assembler's output needs no linker for PE.
 */
#define ALIGN_FILE   0x200
#define ALIGN_MEMORY 0x1000

	.section .image, "awx"
	.code64
image:
	.ascii "MZ"
	.org 0x3c
	.long pe - image
pe:
	.ascii "PE\0\0"
	.short 0x8664			/* x86-64 */
	.short 1			/* sections */
	.long 0, 0, 0			/* time, symbols */
	.short sections - optional
	.short 0x0022			/* executable, large addresses */
optional:
	.short 0x020b			/* PE32+ */
	.byte 0, 0
	.long end - code, 0, 0		/* sizes of code and data */
	.long ALIGN_MEMORY, ALIGN_MEMORY /* entry, base of code */
	.quad 0				/* preferred address */
	.long ALIGN_MEMORY, ALIGN_FILE
	.short 0, 0, 0, 0, 0, 0		/* versions */
	.long 0
	.long 2 * ALIGN_MEMORY		/* size in memory */
	.long ALIGN_FILE		/* size of headers */
	.long 0
	.short 10			/* EFI application */
	.short 0
	.quad 0, 0, 0, 0		/* stack, heap */
	.long 0
	.long 6				/* directories, all empty */
	.fill 6, 8, 0
sections:
	.ascii ".text\0\0\0"
	.long end - code, ALIGN_MEMORY	/* in memory */
	.long end - code, ALIGN_FILE	/* in the file */
	.long 0, 0
	.short 0, 0
	.long 0xe0000020		/* code: execute, read, write */

	.org ALIGN_FILE
code:					/* RCX: image handle, RDX: system table */
	subq $40, %rsp			/* the callee's home space, aligned */
	movq 64(%rdx), %rcx		/* ConOut */
	leaq text(%rip), %rdx
	call *8(%rcx)			/* OutputString(ConOut, text) */
	movabsq $0x800000000000000e, %rax /* EFI_NOT_FOUND */
	addq $40, %rsp
	ret
	.balign 2
text:
	.short 13, 10
	.fill 32, 2, 0x40 /* '@' */
	.short 13, 10, 0
	.org 2 * ALIGN_FILE
end:
	.section .note.GNU-stack, "", @progbits
