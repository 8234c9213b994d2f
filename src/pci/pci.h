/*
 * PCI functions, buses and bridges.
 *
 * A device embeds a struct pci_func, fills its header with the helpers below and hands over a
 * const table. Configuration space has a write mask and a write-1-to-clear mask per byte;
 * header type 0 and 1, BARs, capabilities, command register and bridge windows are handled
 * here, so a device sees only what is its own. No INTx: the interrupt pin reads 0.
 *
 * BARs follow what the guest writes: a BAR is on the bus when it is assigned, memory (or I/O)
 * decoding is on, and every bridge above forwards its range. Overlaps are logged and the later
 * one is not decoded.
 *
 * Threads: configuration writes run on the control loop (the vCPU waits), reads on any thread
 * (bytes are read with relaxed atomics). Untrusted: the guest.
 * PCI Express Base Specification 5.0 chapter 7; PCI Local Bus 3.0 chapter 6.
 */
#ifndef PCI_PCI_H
#define PCI_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/bus.h"
#include "core/vm.h"
#include "state/state.h"

#define PCI_CFG_SIZE	    4096u
#define PCI_DEVFN(slot, fn) ((uint8_t)((slot) << 3 | (fn)))

struct pci_func;
struct pci_bus;
struct msix;
struct msi;

enum pci_bar_flags {
	PCI_BAR_IO = 1,
	PCI_BAR_64 = 2,
	PCI_BAR_PREFETCH = 4,
};
struct pci_bar {
	uint64_t size; /* 0: not there; power of two, at least 16 (memory: 4096) */
	unsigned flags;
	/* The regions inside the BAR, offsets relative to it, given by pci_bar_region(). */
	unsigned nregions;
	struct bus_region region[6];
	uint64_t region_off[6];
	bool mapped;
	bool conflict; /* decoding is on, but something else is there; pci/ only */
	uint64_t mapped_addr;
};

struct pci_func_ops {
	/* After a write to config space outside the standard header was merged. May be NULL. */
	void (*cfg_written)(struct pci_func *f, unsigned off, unsigned len);
	/* Before a config read of [off, off+len) outside the standard header (virtio's PCI_CFG
	 * window): bring cfg[] up to date. Runs on the reader's thread. May be NULL. */
	void (*cfg_reading)(struct pci_func *f, unsigned off, unsigned len);
	/* A BAR went to addr or away (mapped=false): doorbells move here. May be NULL. */
	void (*bar_changed)(struct pci_func *f, unsigned bar, bool mapped, uint64_t addr);
	/* The guest reset the bus that the function is on (Secondary Bus Reset, Link Disable):
	 * the device does what its struct device_ops reset does, pci_func_reset() included.
	 * NULL: only pci_func_reset(). */
	void (*bus_reset)(struct pci_func *f);
};

struct pci_func {
	const struct pci_func_ops *ops;
	struct vm *vm;
	struct pci_bus *bus; /* the bus it sits on */
	uint8_t devfn;
	char name[64]; /* for logs: the device id */
	bool multifunction;
	_Alignas(8) uint8_t cfg[PCI_CFG_SIZE]; /* through pci_get*() and pci_set*() */
	uint8_t wmask[PCI_CFG_SIZE];
	uint8_t w1c[PCI_CFG_SIZE];
	struct pci_bar bar[6];
	uint16_t cap_end; /* next free byte for a capability */
	uint16_t ext_cap_last;
	struct msix *msix;	   /* NULL: none */
	struct pci_bus *secondary; /* bridges: the bus behind; set before pci_func_add() */
	/* pci/ only */
	struct msi *msi;		 /* NULL: none */
	uint16_t ext_cap_end;		 /* next free byte for an extended capability */
	uint16_t pm_cap, exp_cap;	 /* offsets; 0: none */
	bool created;			 /* the guest has come: cfg_reset holds */
	uint8_t cfg_reset[PCI_CFG_SIZE]; /* what the guest found at first */
};

/* A bus: the root bus (parent NULL) or the one behind a type-1 function. */
struct pci_bus {
	struct vm *vm;
	char name[64];		 /* "pcie.0" or the root port's id: -device bus= */
	struct pci_func *bridge; /* NULL: root */
	struct pci_func *func[256];
	unsigned slots;		    /* 32 on the root, 1 behind a port */
	unsigned conflicts;	    /* root: BARs that wait for a place; pci/ only */
	uint64_t need[2], align[2]; /* scratch of pci_assign() */
};

/* --- for devices; control loop, before the guest runs --- */
/* Puts f (zeroed but for multifunction and secondary) on the bus and makes its header. devfn
 * -1: the first free slot. -EBUSY / -ENOSPC / -EINVAL with a sentence. */
int pci_func_add(struct pci_func *f, struct pci_bus *bus, int devfn, const char *name,
		 const struct pci_func_ops *ops, struct err *err);
void pci_func_remove(struct pci_func *f); /* off the bus, BARs too; harmless if not on one */
/* "4" or "4.0", hexadecimal as in QEMU's addr=; -1 in *devfn if text is NULL. */
int pci_parse_addr(const char *text, int *devfn, struct err *err);
/* class_code: base class, sub-class, interface: 0x010000. A bridge takes no subsystem ids. */
void pci_set_ids(struct pci_func *f, uint16_t vendor, uint16_t device, uint32_t class_code,
		 uint8_t rev, uint16_t sub_vendor, uint16_t sub_device);
/* Standard capability of len bytes (with the 2 header bytes): its offset. Asserts on overflow.
 */
unsigned pci_cap_add(struct pci_func *f, uint8_t id, unsigned len);
unsigned pci_ext_cap_add(struct pci_func *f, uint16_t id, uint8_t ver, unsigned len);
/* PCI Express capability: port type 0 = endpoint (9 = root complex integrated is chosen for
 * functions on the root bus), 4 = root port. */
unsigned pci_express_cap_add(struct pci_func *f, unsigned port_type, unsigned slot_number);
/* Power management with D0 and D3hot, as every PCI Express function has to have: in D3hot
 * nothing is decoded and no interrupt is sent, and nothing is lost. */
unsigned pci_pm_cap_add(struct pci_func *f);
void pci_bar_init(struct pci_func *f, unsigned bar, uint64_t size, unsigned flags);
/* Part of a BAR that handlers serve; owner as in struct bus_region. */
void pci_bar_region(struct pci_func *f, unsigned bar, uint64_t off, uint64_t size,
		    const char *name, const struct bus_ops *ops, void *opaque,
		    struct loop *owner);
/* Makes config space what it was after creation (command, BARs, bridge numbers, MSI-X). */
void pci_func_reset(struct pci_func *f);

uint16_t pci_get16(const struct pci_func *f, unsigned off);
uint32_t pci_get32(const struct pci_func *f, unsigned off);
void pci_set8(struct pci_func *f, unsigned off, uint8_t v); /* host side: ignores the masks */
void pci_set16(struct pci_func *f, unsigned off, uint16_t v);
void pci_set32(struct pci_func *f, unsigned off, uint32_t v);
/* May the function send memory requests, through every bridge above it? Any thread. */
bool pci_bus_master(const struct pci_func *f);

/* --- the host side --- */
void pci_bus_init(struct pci_bus *b, struct vm *vm, const char *name, struct pci_func *bridge,
		  unsigned slots);
/* The function that answers to bus:devfn below this root, following secondary bus numbers. */
struct pci_func *pci_find(struct pci_bus *root, uint8_t bus, uint8_t devfn);
/* len 1, 2, 4, aligned; absent: all ones. Any thread. */
uint32_t pci_cfg_read(struct pci_bus *root, uint8_t bus, uint8_t devfn, unsigned off,
		      unsigned len);
/* Control loop. */
void pci_cfg_write(struct pci_bus *root, uint8_t bus, uint8_t devfn, unsigned off, unsigned len,
		   uint32_t value);
/* Calls fn for every function below root, bridges before what is behind them. */
int pci_for_each(struct pci_bus *root, int (*fn)(struct pci_func *f, void *arg), void *arg);

/* Assigns bus numbers, bridge windows and BARs in the two windows and turns decoding on, for
 * boots without firmware (direct kernel boot). -ENOSPC with a sentence. */
int pci_assign(struct pci_bus *root, uint64_t mem32_base, uint64_t mem32_end,
	       uint64_t mem64_base, uint64_t mem64_end, struct err *err);
/* The lowest and one past the highest assigned 64-bit BAR address above 4 GiB and window of a
 * bridge, for _CRS; false if there is none. */
bool pci_mem64_extent(struct pci_bus *root, uint64_t *base, uint64_t *end);
/* The highest bus number that a bridge below root has been given; 0 without bridges. */
uint8_t pci_last_bus(struct pci_bus *root);

/* State of a function: config space bytes that the guest may write, MSI-X table, pending bits
 * of MSI. */
struct pci_vec_state {
	uint64_t addr;
	uint32_t data, ctrl;
	bool pending;
};
struct pci_func_state {
	uint8_t cfg[PCI_CFG_SIZE];
	uint32_t nvec; /* of MSI-X */
	struct pci_vec_state vec[256];
	uint32_t msi_pending;
};
extern const struct state_desc pci_func_state_desc;
void pci_func_save(struct pci_func *f, struct pci_func_state *st);
/* -EINVAL with a sentence if it is the state of another function. */
int pci_func_load(struct pci_func *f, const struct pci_func_state *st, struct err *err);

#endif
