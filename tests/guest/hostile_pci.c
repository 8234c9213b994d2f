/*
 * The hostile guest (hostile.c) and PCI: configuration space both ways, BARs, and the enumeration that
 * brings order into it again.
 */
#include "hostile.h"
#include "spec/ioapic.h"
#include "spec/pci.h"
#include "spec/platform_x86.h"
#include "spec/virtio_pci.h"

#define BUS_WINDOW 0x00100000u /* behind each root port */
#define PORT_BASE  (PLAT_MMIO32_BASE + 0x10000000u)

struct fn fns[MAX_FN];
unsigned nfns;

/* Configuration registers through 0xCF8 and 0xCFC, any lane. */
static void mechanism1(struct cpu *c, uint32_t bdf, unsigned reg, bool write)
{
	unsigned lane = noise(c) % 4, len = 1u << noise(c) % 3;
	uint16_t port = (uint16_t)(0xcfc + lane);

	outl(0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
	if (!write) {
		len == 1 ? (void)inb(port) : len == 2 ? (void)inw(port) : (void)inl(port);
	} else if (len == 1) {
		outb(port, (uint8_t)value(c));
	} else if (len == 2) {
		outw(port, (uint16_t)value(c));
	} else {
		outl(port, (uint32_t)value(c));
	}
}

uintptr_t ecam(uint32_t bdf, unsigned reg)
{
	return PLAT_ECAM_BASE + ((uintptr_t)bdf << PCI_ECAM_DEVFN_SHIFT) + reg;
}

void config(struct cpu *c, uint32_t bdf)
{
	for (unsigned reg = 0; reg < 0x1000; reg += full || reg < 0x140 ? 4 : 0x40) {
		uint32_t was = pci_read32(bdf, reg);

		pci_write32(bdf, reg, 0xffffffff);
		pci_read8(bdf, reg + 3);
		pci_write32(bdf, reg, 0);
		pci_write32(bdf, reg, (uint32_t)value(c));
		poke(ecam(bdf, reg + 1), value(c), 2);
		poke(ecam(bdf, reg + 3), value(c), reg < 0xffc ? 4 : 1);
		if (!(reg & 4)) {
			poke(ecam(bdf, reg), value(c), 8);
			peek(ecam(bdf, reg), 8);
		}
		pci_read16(bdf, reg + 2);
		if (reg < 0x100) {
			mechanism1(c, bdf, reg, true);
			mechanism1(c, bdf, reg, false);
		}
		pci_write32(bdf, reg, was);
	}
}

void config_random(struct cpu *c, const struct fn *f)
{
	for (unsigned i = 0; i < 12; i++) {
		unsigned reg = noise(c) % (noise(c) % 4 ? 0x100 : 0x1000),
			 len = 1u << noise(c) % 4;

		if (noise(c) % 3) {
			poke(ecam(f->bdf, reg), value(c), len);
		} else {
			peek(ecam(f->bdf, reg), len);
		}
	}
	/* the window into the BAR: any bar, offset and length */
	if (f->pci_cfg) {
		pci_write32(f->bdf, f->pci_cfg + 4, noise(c) % 4 ? 4 : noise(c));
		pci_write32(f->bdf, f->pci_cfg + 8,
			    noise(c) % 4 ? noise(c) % 0x8000 : noise(c));
		pci_write32(f->bdf, f->pci_cfg + 12, 1u << noise(c) % 5);
		pci_read32(f->bdf, f->pci_cfg + 16);
		pci_write32(f->bdf, f->pci_cfg + 16, (uint32_t)value(c));
	}
	mechanism1(c, f->bdf, noise(c), true);
}

/* The memory BARs get addresses from *next on. */
static void place_bars(struct fn *f, uint32_t *next, unsigned bars)
{
	for (unsigned reg = PCI_BAR0; reg < PCI_BAR0 + 4 * bars; reg += 4) {
		uint32_t kind = pci_read32(f->bdf, reg), size;

		pci_write32(f->bdf, reg, 0xffffffff);
		size = ~(pci_read32(f->bdf, reg) & ~0xfu) + 1;
		if (!size || kind & PCI_BAR_IO_SPACE) {
			continue;
		}
		*next = (*next + size - 1) & ~(size - 1);
		pci_write32(f->bdf, reg, *next);
		f->bar_reg = reg;
		f->bar_size = size;
		f->bar = *next;
		*next += size;
		if (kind & PCI_BAR_MEM_64) {
			reg += 4;
			pci_write32(f->bdf, reg, 0);
		}
	}
}

static void place_virtio(struct fn *f)
{
	unsigned at = 0;

	f->virtio = (pci_read32(f->bdf, 0) >> 16) - VIRTIO_PCI_DEVICE_ID_BASE;
	while ((at = pci_cap(f->bdf, PCI_CAP_VENDOR, at))) {
		unsigned type = pci_read8(f->bdf, at + 3);
		uintptr_t where = f->bar + pci_read32(f->bdf, at + 8);

		if (type == VIRTIO_PCI_CAP_COMMON_CFG) {
			f->common = where;
		} else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
			f->notify = where;
			f->notify_mult = pci_read32(f->bdf, at + 16);
		} else if (type == VIRTIO_PCI_CAP_ISR_CFG) {
			f->isr = where;
		} else if (type == VIRTIO_PCI_CAP_DEVICE_CFG) {
			f->device = where;
		} else if (type == VIRTIO_PCI_CAP_PCI_CFG) {
			f->pci_cfg = at;
		}
	}
	f->msix = pci_cap(f->bdf, PCI_CAP_MSIX, 0);
	if (!f->common || !f->notify || !f->isr || !f->pci_cfg || !f->msix) {
		guest_fail("a virtio device has lost its capabilities");
	}
}

/* Power state D0, the link up, nothing decoded. */
static void wake(uint32_t bdf)
{
	unsigned at;

	if (pci_read32(bdf, 0) == 0xffffffff) {
		return;
	}
	pci_write16(bdf, PCI_COMMAND, 0);
	at = pci_cap(bdf, PCI_CAP_PM, 0);
	if (at) {
		pci_write16(bdf, at + PCI_PM_PMCSR, 0);
	}
	at = pci_cap(bdf, PCI_CAP_EXPRESS, 0);
	if (at) {
		pci_write16(bdf, at + PCI_EXP_LNKCTL, 0);
	}
}

/* Finds every function of bus 0 and of the buses behind its bridges, and puts them into order. */
void place(void)
{
	uint32_t next = PLAT_MMIO32_BASE, bus = 0, under = 0;

	nfns = 0;
	for (uint32_t devfn = 0; devfn < 256; devfn++) {
		wake(devfn);
		if ((pci_read8(devfn, PCI_HEADER_TYPE) & 0x7f) == 1) {
			pci_write32(devfn, PCI_PRIMARY_BUS, 0); /* no two for one bus */
		}
	}
	for (uint32_t bdf = 0; bdf < 256 && nfns < MAX_FN; bdf++) {
		struct fn *f = &fns[nfns];

		if (pci_read32(bdf, 0) == 0xffffffff) {
			continue;
		}
		nfns++;
		*f = (struct fn){.bdf = bdf};
		if ((pci_read8(bdf, PCI_HEADER_TYPE) & 0x7f) == 1) {
			uint32_t base = (uint32_t)PORT_BASE + under * BUS_WINDOW;

			bus++;
			pci_write32(bdf, PCI_PRIMARY_BUS, bus << 16 | bus << 8);
			pci_write32(bdf, PCI_MEMORY_BASE,
				    (base + BUS_WINDOW - 1) >> 16 << 16 | base >> 16);
			pci_write32(bdf, 0x24, 0x0000fff0);
			pci_write32(bdf, 0x28, 0);
			pci_write32(bdf, 0x2c, 0);
			pci_write16(bdf, PCI_BRIDGE_CONTROL,
				    0); /* no reset is held behind it */
			pci_write16(bdf, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
			place_bars(f, &next, 2);
			under++;
			if (pci_read32(bus << 8, 0) == 0xffffffff || nfns == MAX_FN) {
				continue;
			}
			f = &fns[nfns++];
			*f = (struct fn){.bdf = bus << 8};
			wake(f->bdf);
			place_bars(f, &base, 6);
		} else {
			place_bars(f, &next, 6);
		}
		pci_write16(f->bdf, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		if ((pci_read32(f->bdf, 0) & 0xffff) == VIRTIO_PCI_VENDOR_ID &&
		    pci_read32(f->bdf, 0) >> 16 > VIRTIO_PCI_DEVICE_ID_BASE) {
			place_virtio(f);
		}
	}
}

/* Every vector live once, so that what the host keeps for it is there from now on: of fixed mode,
 * to this processor, which takes no interrupts. */
void vectors(const struct fn *f)
{
	unsigned msi = pci_cap(f->bdf, PCI_CAP_MSI, 0);

	if (msi) {
		pci_write32(f->bdf, msi + PCI_MSI_ADDRESS, (uint32_t)MSI_ADDR_BASE);
		pci_write32(f->bdf, msi + PCI_MSI_UPPER_ADDRESS, 0);
		pci_write32(f->bdf, msi + PCI_MSI_DATA, IRQ_FIRST);
		pci_write16(f->bdf, msi + PCI_MSI_CONTROL, PCI_MSI_ENABLE);
		pci_write16(f->bdf, msi + PCI_MSI_CONTROL, 0);
	}
	if (f->msix) {
		unsigned n = (pci_read16(f->bdf, f->msix + PCI_MSIX_CONTROL) & 0x7ffu) + 1;

		for (unsigned i = 0; i < n; i++) {
			pci_msix(f->bdf, i, 0, IRQ_FIRST);
		}
		pci_write16(f->bdf, f->msix + PCI_MSIX_CONTROL, 0xffff);
		pci_write16(f->bdf, f->msix + PCI_MSIX_CONTROL, 0);
	}
}

/* Every register of the BAR, then all widths anywhere, over its end too. */
void bar(struct cpu *c, const struct fn *f)
{
	uintptr_t end = f->bar + f->bar_size;

	if (!f->bar_reg) {
		return;
	}
	for (uintptr_t a = f->bar; a < end; a += full || a - f->bar < 0x100 ? 4 : 0x74) {
		peek(a, 4);
		poke(a, value(c), 4);
		peek(a + 1, 2);
	}
	for (unsigned i = 0; i < 200; i++) {
		uintptr_t a = f->bar + noise(c) % (uint32_t)f->bar_size;

		poke(a, value(c), 1u << noise(c) % 4);
		peek(a, 1u << noise(c) % 4);
	}
	for (unsigned len = 2; len <= 8; len *= 2) {
		poke(end - 1, value(c), len);
		peek(end - 1, len);
	}
}

void bar_random(struct cpu *c, const struct fn *f)
{
	/* what is of interest, and anything */
	const uintptr_t at[] = {f->common, f->notify, f->isr, f->device, f->bar, f->bar};

	for (unsigned i = 0; f->bar_reg && i < 16; i++) {
		unsigned k = noise(c) % 6;
		uintptr_t a = at[k] + noise(c) % (k == 5 ? (uint32_t)f->bar_size : 0x48);

		if (a >= f->bar && a < f->bar + f->bar_size) {
			if (noise(c) % 4) {
				poke(a, value(c), 1u << noise(c) % 4);
			} else {
				peek(a, 1u << noise(c) % 4);
			}
		}
	}
}

/* A BAR on top of RAM, ECAM, the I/O APIC, the ROM, another BAR, at the end of the world. */
void bar_move(struct cpu *c, const struct fn *f)
{
	static const uint64_t at[] = {0,
				      0x100000,
				      PLAT_ECAM_BASE,
				      PLAT_IOAPIC_BASE,
				      PLAT_LAPIC_BASE,
				      PLAT_REGS_BASE,
				      0xffff8000u,
				      PLAT_HIGH_RAM_BASE,
				      UINT64_C(0xffffffffffff8000),
				      UINT64_C(0xffffff8000),
				      PLAT_MMIO32_BASE,
				      PORT_BASE,
				      PLAT_MMIO32_END - 0x1000};
	uint64_t to = at[noise(c) % (sizeof(at) / sizeof(at[0]))];
	uint32_t high;

	if (!f->bar_reg) {
		return;
	}
	high = pci_read32(f->bdf, f->bar_reg) & PCI_BAR_MEM_64;
	pci_write32(f->bdf, f->bar_reg, (uint32_t)to);
	if (high) {
		pci_write32(f->bdf, f->bar_reg + 4, (uint32_t)(to >> 32));
	}
	/* RAM and ROM stay what they are, and so do the fixed registers */
	if (to >= PLAT_ECAM_BASE && to < PLAT_HIGH_RAM_BASE && to != PLAT_LAPIC_BASE) {
		peek((uintptr_t)to, 4);
		peek((uintptr_t)to + 0x10, 4);
	}
	pci_write32(f->bdf, f->bar_reg, (uint32_t)f->bar);
	if (high) {
		pci_write32(f->bdf, f->bar_reg + 4, 0);
	}
}
