/*
 * ACPI tables: built from facts, then either handed to firmware (fw_cfg files with a script
 * that links them) or placed in guest memory for a direct boot.
 *
 * Hardware-reduced ACPI 6: DSDT (constant, from dsdt.asl), SSDT (what varies: processors, the
 * windows of the PCI root), FADT, MADT, MCFG, where asked SRAT, SLIT and HMAT, XSDT. Fixed
 * addresses come from the platform contract, so the facts hold only what differs from machine to
 * machine. Control loop.
 */
#ifndef FIRMWARE_ACPI_ACPI_H
#define FIRMWARE_ACPI_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "firmware/fw_cfg.h"
#include "mem/mem.h"

/* As many as fit in the names C000..CFFF. */
#define ACPI_MAX_CPUS 4096

/* A processor; its ACPI UID is its index. */
struct acpi_cpu {
	uint32_t apic_id; /* x86 */
	bool present; /* false: may be plugged in later */
	uint32_t node; /* of acpi_facts.numa */
	uint64_t mpidr; /* Arm, as pmu */
	bool pmu;
};

/* --- NUMA: SRAT, SLIT, HMAT. Nodes are numbered from 0 without gaps. --- */
#define ACPI_MAX_NODES 32
struct acpi_numa_mem { /* RAM of a node; a node may have none, or several */
	uint64_t base, size;
	uint32_t node;
};
enum acpi_hmat_level { HMAT_MEMORY, HMAT_FIRST_LEVEL, HMAT_SECOND_LEVEL, HMAT_THIRD_LEVEL };
#define HMAT_LEVELS 4
enum acpi_hmat_type { /* as in the table: latencies first */
	HMAT_ACCESS_LATENCY, HMAT_READ_LATENCY, HMAT_WRITE_LATENCY,
	HMAT_ACCESS_BANDWIDTH, HMAT_READ_BANDWIDTH, HMAT_WRITE_BANDWIDTH,
};
#define HMAT_TYPES 6
struct acpi_hmat_lb {
	enum acpi_hmat_level level;
	enum acpi_hmat_type type;
	uint32_t initiator, target;
	uint64_t value; /* ps, MiB/s */
};
struct acpi_hmat_cache { /* a memory-side cache */
	uint32_t node;
	uint64_t size;
	unsigned level;		/* 1.. */
	unsigned associativity; /* 0 none, 1 direct, 2 complex */
	unsigned policy;	/* 0 none, 1 write-back, 2 write-through */
	uint16_t line;
};
struct acpi_numa {
	unsigned nodes;
	const struct acpi_numa_mem *mem;
	unsigned nmem;
	const uint8_t *distance; /* nodes * nodes, row: from; NULL: no SLIT */
	bool hmat;
	bool initiator[ACPI_MAX_NODES];	  /* has a processor */
	uint32_t nearest[ACPI_MAX_NODES]; /* the node whose processors are next to its memory */
	const struct acpi_hmat_lb *lb;
	unsigned nlb;
	const struct acpi_hmat_cache *cache;
	unsigned ncache;
};
/* HMAT has 16-bit multiples of a unit: the unit that holds all values of lb[] with this level
 * and type exactly, or 0 if there is none. */
uint64_t acpi_hmat_unit(const struct acpi_hmat_lb *lb, unsigned nlb, enum acpi_hmat_level level,
			enum acpi_hmat_type type);
struct acpi_facts {
	const struct acpi_cpu *cpu;
	unsigned ncpus;
	/* The window of 64-bit BARs, [base, end), end exclusive; equal: there is none. */
	uint64_t mem64_base, mem64_end;
	bool uart; /* COM1 is there */
	const struct acpi_numa *numa; /* NULL: none of its tables */
	uint64_t ecam_base;
	/* Arm: the topology (cores of a socket, threads of a core), place and processors of each
	 * redistributor region */
	unsigned cores, threads;
	uint64_t redist_base[2];
	unsigned redist_cpus[2];
	uint8_t last_bus; /* the highest PCI bus number that is in use */
};

/* --- all tables in one buffer, linked by relative offsets --- */
struct acpi_table_ref { /* a table inside the buffer */
	char sig[5];
	uint32_t off, len;
};
struct acpi_pointer {
	uint32_t at;	 /* where the pointer stands, of `size` bytes */
	uint32_t target; /* offset of what it points to; the buffer holds this number there */
	uint8_t size;
};
#define ACPI_MAX_TABLES	  16
#define ACPI_MAX_POINTERS 32
struct acpi_tables {
	uint8_t *data;
	size_t len;
	struct acpi_table_ref table[ACPI_MAX_TABLES]; /* the XSDT is the last */
	unsigned ntables;
	struct acpi_pointer pointer[ACPI_MAX_POINTERS];
	unsigned npointers;
};
/* Builds the tables with all checksums as if the buffer were at address 0. -EINVAL (too many
 * processors), -ENOMEM. */
int acpi_build(struct acpi_tables *t, const struct acpi_facts *facts, struct err *err);
void acpi_free(struct acpi_tables *t);
const struct acpi_table_ref *acpi_find(const struct acpi_tables *t, const char *sig);
/* Adds base to every pointer and makes the checksums right again. */
void acpi_relocate(struct acpi_tables *t, uint64_t base);

#define ACPI_RSDP_LEN 36
/* The root pointer (revision 2, no RSDT) for an XSDT at this address. */
void acpi_rsdp(uint8_t rsdp[ACPI_RSDP_LEN], uint64_t xsdt);

/* --- delivery --- */
/* Fills in the facts as they are now; what it points to stays valid until the next call. */
typedef void acpi_facts_fn(void *opaque, struct acpi_facts *facts);

struct acpi_loader;
/* Adds etc/acpi/tables, etc/acpi/rsdp and etc/table-loader to fw_cfg. They are built when the
 * guest fetches them, with the facts of that moment: firmware does so after it has assigned the
 * BARs. Free with acpi_loader_free() after fw is gone. */
int acpi_loader_new(struct fw_cfg *fw, acpi_facts_fn *facts, void *opaque,
		    struct acpi_loader **out, struct err *err);
void acpi_loader_free(struct acpi_loader *l);

/* Where a direct boot finds the tables. */
struct acpi_placed {
	uint64_t rsdp;
	uint64_t base,
		size; /* taken from RAM above 1 MiB, to be reserved in e820; size 0: none */
};
/* Writes RSDP and tables to [0xE0000, 0xF0000), or the tables to the top of low RAM [0, low) if
 * they do not fit there, and an instruction sequence that resets the machine to 0xFFFF0, see
 * place_x86.c. -ENOSPC, -EFAULT. */
int acpi_place(struct mem *m, uint64_t low, const struct acpi_facts *facts,
	       struct acpi_placed *out, struct err *err);

#endif
