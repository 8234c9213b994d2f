/*
 * Between the files of the hostile guest: see hostile.c.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "guest.h"

#define MAX_CPUS 8u
#define MAX_FN	 16u
#define ARENA	 0x100000u /* bytes of the victim memory that a processor has its rings in */

/* A processor: its random numbers, its window to high addresses, its part of the memory. */
struct cpu {
	unsigned index;
	uint64_t state;
	uintptr_t arena;
};

/* A PCI function as place() found and put it. */
struct fn {
	uint32_t bdf;
	unsigned virtio; /* device type, 0: not virtio */
	uintptr_t bar;	 /* of a virtio device, all of it is in one BAR */
	uintptr_t common, notify, isr, device;
	uint32_t notify_mult;
	unsigned msix, pci_cfg; /* capabilities */
	unsigned bar_reg;	/* 0: no memory BAR */
	uint64_t bar_size;
};

/* What noise may hit: the upper half of RAM. Nothing of ours is there, so that a length that
 * runs on to the end of RAM harms nobody. */
extern uintptr_t victim, ram_end;
extern struct fn fns[MAX_FN];
extern unsigned nfns;

uint32_t noise(struct cpu *c);
uint64_t noise64(struct cpu *c);
/* All-ones, zero, one bit, or random; never the address of a local APIC, so that nobody sends
 * INIT or SMI to this guest by chance. */
uint64_t value(struct cpu *c);
/* An address for a device: mostly of the victim memory, else at the edges and outside. */
uint64_t address(struct cpu *c);
/* A write of 1, 2, 4 or 8 bytes. */
void poke(uintptr_t at, uint64_t v, unsigned len);
void peek(uintptr_t at, unsigned len);

extern bool full; /* everything, not a sample */

/* hostile_pci.c */
uintptr_t ecam(uint32_t bdf, unsigned reg);
/* Finds every function of bus 0 and of the buses behind its bridges, and puts them into order. */
void place(void);
void config(struct cpu *c, uint32_t bdf); /* every register */
void config_random(struct cpu *c, const struct fn *f);
void vectors(const struct fn *f); /* all of them live, then off */
/* Every register of the BAR, then all widths anywhere, over its end too. */
void bar(struct cpu *c, const struct fn *f);
void bar_random(struct cpu *c, const struct fn *f);
/* To where something else is, and back. */
void bar_move(struct cpu *c, const struct fn *f);

/* hostile_io.c */
void ports(struct cpu *c); /* every one */
uint16_t port_of_device(struct cpu *c);
void port_touch(struct cpu *c, uint16_t port);
void uart_back(void); /* it speaks again, whatever was done to it */
void windows_init(void);
void touch(struct cpu *c, uintptr_t page);
void high(struct cpu *c); /* somewhere above 4 GiB */
void ioapic(struct cpu *c);
void memory(struct cpu *c); /* all of the address space outside RAM */
void dma(struct cpu *c);    /* fw_cfg's */
void flash(struct cpu *c);
void flash_works(void);

/* hostile_rings.c */
/* One driver's life with nonsense in it. */
void storm(struct cpu *c, const struct fn *f);
/* The device after a reset does its work, or the guest fails. */
void works(struct cpu *c, const struct fn *f);

#endif
