/*
 * PrimeCells: UART (PL011, ARM DDI 0183G, section 3), real time clock (PL031, ARM DDI 0224C,
 * section 3), GPIO (PL061, ARM DDI 0190B, section 3).
 */
#ifndef SPEC_PRIMECELL_H
#define SPEC_PRIMECELL_H

#define PRIMECELL_SIZE 0x1000
#define PRIMECELL_ID   0xfe0 /* eight words up to the end of the page */

#define PL011_DR    0x000
#define PL011_RSR   0x004 /* and ECR */
#define PL011_FR    0x018
#define PL011_ILPR  0x020
#define PL011_IBRD  0x024
#define PL011_FBRD  0x028
#define PL011_LCRH  0x02c
#define PL011_CR    0x030
#define PL011_IFLS  0x034
#define PL011_IMSC  0x038
#define PL011_RIS   0x03c
#define PL011_MIS   0x040
#define PL011_ICR   0x044
#define PL011_DMACR 0x048

#define PL011_DR_BE	(1u << 10)
#define PL011_DR_OE	(1u << 11)
#define PL011_DR_ERRORS 0xf00u
#define PL011_FR_CTS	(1u << 0)
#define PL011_FR_DSR	(1u << 1)
#define PL011_FR_DCD	(1u << 2)
#define PL011_FR_BUSY	(1u << 3)
#define PL011_FR_RXFE	(1u << 4)
#define PL011_FR_TXFF	(1u << 5)
#define PL011_FR_RXFF	(1u << 6)
#define PL011_FR_TXFE	(1u << 7)
#define PL011_LCRH_FEN	(1u << 4)
#define PL011_CR_UARTEN (1u << 0)
#define PL011_CR_LBE	(1u << 7)
#define PL011_CR_TXE	(1u << 8)
#define PL011_CR_RXE	(1u << 9)
#define PL011_INT_RX	(1u << 4)
#define PL011_INT_TX	(1u << 5)
#define PL011_INT_RT	(1u << 6)
#define PL011_INT_BE	(1u << 9)
#define PL011_INT_OE	(1u << 10)
#define PL011_INT_MASK	0x7ffu
#define PL011_FIFO_SIZE 16

#define PL031_DR   0x000
#define PL031_MR   0x004
#define PL031_LR   0x008
#define PL031_CR   0x00c
#define PL031_IMSC 0x010
#define PL031_RIS  0x014
#define PL031_MIS  0x018
#define PL031_ICR  0x01c

#define PL061_DATA     0x000 /* address bits 9:2 are the mask */
#define PL061_DATA_END 0x400
#define PL061_DIR      0x400
#define PL061_IS       0x404
#define PL061_IBE      0x408
#define PL061_IEV      0x40c
#define PL061_IE       0x410
#define PL061_RIS      0x414
#define PL061_MIS      0x418
#define PL061_IC       0x41c
#define PL061_AFSEL    0x420

/* What the first four words of PRIMECELL_ID say. */
#define PL011_PERIPH_ID 0x00341011 /* revision r1p5 */
#define PL031_PERIPH_ID 0x00041031
#define PL061_PERIPH_ID 0x00041061

#endif
