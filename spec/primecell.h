/*
 * PrimeCell real time clock (PL031, ARM DDI 0224C, section 3) and GPIO (PL061, ARM DDI 0190B,
 * section 3).
 */
#ifndef SPEC_PRIMECELL_H
#define SPEC_PRIMECELL_H

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

#define PRIMECELL_ID 0xfe0 /* eight words up to the end of the page */
/* What the first four of them say. */
#define PL011_PERIPH_ID 0x00341011 /* revision r1p5 */
#define PL031_PERIPH_ID 0x00041031
#define PL061_PERIPH_ID 0x00041061

#endif
