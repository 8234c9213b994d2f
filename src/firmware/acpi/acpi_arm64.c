/*
 * The ACPI tables of the AArch64 machine. ACPI 6.5, chapter 5, hardware-reduced (4.1); the SBBR's
 * list of tables. One function a table, one row for each in acpi_rows; tables.c has what is
 * common. Reset and power-off are PSCI's, so the FADT has no registers. Nothing here is the guest's.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "firmware/acpi/acpi_int.h"
#include "firmware/acpi/dsdt_aml.h"
#include "spec/acpi_arm.h"
#include "spec/platform_arm64.h"

static void build_dsdt(struct acpi_builder *b)
{
	acpi_dsdt(b, dsdt_aml, sizeof(dsdt_aml));
}

/* A table that is one structure. */
static void whole(struct acpi_builder *b, const char *sig, uint8_t revision, const void *t,
		  size_t size)
{
	acpi_table_begin(b, sig, revision);
	aml_bytes(&b->out, (const uint8_t *)t + sizeof(struct acpi_header),
		  size - sizeof(struct acpi_header));
	acpi_table_end(b);
}

static void build_ssdt(struct acpi_builder *b)
{
	const struct acpi_facts *f = b->facts;
	struct aml *a = &b->out, windows = {0}, ecam = {0};

	acpi_table_begin(b, "SSDT", 2);
	acpi_ssdt_cpus(a, f);
	crs_bus_window(&windows, 0, f->last_bus);
	crs_mem32_window(&windows, (uint32_t)PLAT_MMIO32_BASE, (uint32_t)(PLAT_MMIO32_END - 1));
	crs_mem64_window(&windows, f->mem64_base, f->mem64_end - 1);
	acpi_ssdt_crs(a, "\\_SB.PCI0", &windows);
	crs_mem64(&ecam, f->ecam_base, f->ecam_base + PLAT_ECAM_SIZE - 1);
	acpi_ssdt_crs(a, "\\_SB.MBRD", &ecam);
	if (!f->uart) {
		acpi_ssdt_absent(a, "\\_SB.COM0");
	}
	acpi_table_end(b);
}

static void build_fadt(struct acpi_builder *b)
{
	struct acpi_fadt f = {
		.flags = le32_of(ACPI_FADT_PWR_BUTTON | ACPI_FADT_SLP_BUTTON |
				 ACPI_FADT_HW_REDUCED),
		.arm_boot_arch = le16_of(ACPI_ARM_PSCI | ACPI_ARM_PSCI_HVC),
	};

	acpi_fadt(b, &f);
}

static void build_madt(struct acpi_builder *b)
{
	const struct acpi_facts *f = b->facts;
	const struct acpi_madt_gicd gicd = {
		.type = ACPI_MADT_GICD,
		.length = sizeof(gicd),
		.base = le64_of(PLAT_GICD_BASE),
		.version = ACPI_GIC_V3,
	};
	const struct acpi_madt_its its = {
		.type = ACPI_MADT_ITS,
		.length = sizeof(its),
		.base = le64_of(PLAT_ITS_BASE),
	};

	acpi_table_begin(b, "APIC", 5);
	aml_zeros(&b->out, 8); /* no local APIC, no flags */
	aml_bytes(&b->out, &gicd, sizeof(gicd));
	for (unsigned i = 0; i < f->ncpus; i++) {
		const struct acpi_madt_gicc e = {
			.type = ACPI_MADT_GICC,
			.length = sizeof(e),
			.cpu_interface_number = le32_of(i),
			.processor_uid = le32_of(i),
			.flags = le32_of(ACPI_MADT_ENABLED),
			.performance_gsiv = le32_of(f->cpu[i].pmu ? PLAT_PPI_PMU : 0),
			.mpidr = le64_of(f->cpu[i].mpidr),
		};

		aml_bytes(&b->out, &e, sizeof(e));
	}
	for (unsigned i = 0; i < 2 && f->redist_cpus[i]; i++) {
		const struct acpi_madt_gicr e = {
			.type = ACPI_MADT_GICR,
			.length = sizeof(e),
			.base = le64_of(f->redist_base[i]),
			.size = le32_of((uint32_t)(f->redist_cpus[i] * PLAT_GICR_CPU)),
		};

		aml_bytes(&b->out, &e, sizeof(e));
	}
	aml_bytes(&b->out, &its, sizeof(its));
	acpi_table_end(b);
}

static void build_gtdt(struct acpi_builder *b)
{
	const le32 flags = le32_of(ACPI_GTDT_ALWAYS_ON);
	const struct acpi_gtdt t = {
		.cnt_control_base = le64_of(UINT64_MAX), /* there is no memory-mapped timer */
		.secure_el1_gsiv = le32_of(PLAT_PPI_S_TIMER),
		.secure_el1_flags = flags,
		.nonsecure_el1_gsiv = le32_of(PLAT_PPI_TIMER),
		.nonsecure_el1_flags = flags,
		.virtual_gsiv = le32_of(PLAT_PPI_VTIMER),
		.virtual_flags = flags,
		.el2_gsiv = le32_of(PLAT_PPI_EL2_TIMER),
		.el2_flags = flags,
		.cnt_read_base = le64_of(UINT64_MAX),
	};

	whole(b, "GTDT", 2, &t, sizeof(t));
}

static struct acpi_gas uart_address(void)
{
	return (struct acpi_gas){
		.space_id = ACPI_SPACE_MEMORY,
		.bit_width = 32,
		.access_size = ACPI_ACCESS_DWORD,
		.address = le64_of(PLAT_UART_BASE),
	};
}

static void build_spcr(struct acpi_builder *b)
{
	const struct acpi_spcr t = {
		.interface_type = ACPI_SPCR_PL011,
		.base = uart_address(),
		.interrupt_type = ACPI_SPCR_GIC,
		.gsiv = le32_of(PLAT_FIRST_SPI + PLAT_SPI_UART),
		.baud_rate = ACPI_SPCR_115200,
		.stop_bits = ACPI_SPCR_1_STOP_BIT,
		.pci_device_id = le16_of(0xffff),
		.pci_vendor_id = le16_of(0xffff),
	};

	if (b->facts->uart) {
		whole(b, "SPCR", 2, &t, sizeof(t));
	}
}

static void build_dbg2(struct acpi_builder *b)
{
	const size_t device = offsetof(struct acpi_dbg2, revision);
	const struct acpi_dbg2 t = {
		.info_offset = le32_of((uint32_t)device),
		.info_count = le32_of(1),
		.length = le16_of((uint16_t)(sizeof(t) - device)),
		.registers = 1,
		.name_length = le16_of(sizeof(t.name)),
		.name_offset = le16_of((uint16_t)(offsetof(struct acpi_dbg2, name) - device)),
		.port_type = le16_of(ACPI_DBG2_SERIAL),
		.port_subtype = le16_of(ACPI_DBG2_PL011),
		.base_offset = le16_of((uint16_t)(offsetof(struct acpi_dbg2, base) - device)),
		.size_offset = le16_of((uint16_t)(offsetof(struct acpi_dbg2, size) - device)),
		.base = uart_address(),
		.size = le32_of((uint32_t)PLAT_DEVICE_SIZE),
		.name = ACPI_DBG2_NAME,
	};

	if (b->facts->uart) {
		whole(b, "DBG2", 0, &t, sizeof(t));
	}
}

/* Every function's messages go to the one ITS, with the requester id as device id. */
static void build_iort(struct acpi_builder *b)
{
	struct acpi_iort t = {
		.nodes = le32_of(2),
		.node_offset = le32_of(offsetof(struct acpi_iort, group)),
		.group.type = ACPI_IORT_ITS_GROUP,
		.group.length = le16_of(sizeof(t.group)),
		.group.count = le32_of(1),
		.root.type = ACPI_IORT_ROOT_COMPLEX,
		.root.length = le16_of(sizeof(t.root)),
		.root.revision = 1,
		.root.mappings = le32_of(1),
		.root.cache_coherent = le32_of(1),
		.root.memory_flags = ACPI_IORT_CPM_DACS,
		.root.address_size = 64,
		.root.map.count = le32_of(0xffff), /* less one */
	};

	t.root.mapping_offset = le32_of((uint32_t)(offsetof(struct acpi_iort, root.map) -
						   offsetof(struct acpi_iort, root)));
	t.root.map.reference = le32_of(offsetof(struct acpi_iort, group));
	whole(b, "IORT", 0, &t, sizeof(t));
}

/* Sockets, in them cores, in them threads where a core has several. */
static void build_pptt(struct acpi_builder *b)
{
	const struct acpi_facts *f = b->facts;
	unsigned per_socket = f->cores * f->threads;
	uint32_t start, socket = 0, core = 0;

	acpi_table_begin(b, "PPTT", 2);
	start = b->t->table[b->t->ntables - 1].off;
	for (unsigned i = 0; i < f->ncpus; i++) {
		struct acpi_pptt_processor p = {.length = sizeof(p)};

		if (i % per_socket == 0) {
			p.flags = le32_of(ACPI_PPTT_PACKAGE);
			p.uid = le32_of(i / per_socket);
			socket = (uint32_t)b->out.len - start;
			aml_bytes(&b->out, &p, sizeof(p));
		}
		if (f->threads > 1 && i % f->threads == 0) {
			p.flags = le32_of(0);
			p.uid = le32_of(i / f->threads);
			p.parent = le32_of(socket);
			core = (uint32_t)b->out.len - start;
			aml_bytes(&b->out, &p, sizeof(p));
		}
		p.flags = le32_of(ACPI_PPTT_UID_VALID | ACPI_PPTT_LEAF |
				  (f->threads > 1 ? ACPI_PPTT_THREAD : 0));
		p.uid = le32_of(i);
		p.parent = le32_of(f->threads > 1 ? core : socket);
		aml_bytes(&b->out, &p, sizeof(p));
	}
	acpi_table_end(b);
}

void acpi_srat_cpu(struct aml *a, unsigned uid, const struct acpi_cpu *cpu)
{
	const struct acpi_srat_gicc e = {
		.type = ACPI_SRAT_GICC,
		.length = sizeof(e),
		.domain = le32_of(cpu->node),
		.processor_uid = le32_of(uid),
		.flags = le32_of(ACPI_SRAT_ENABLED),
	};

	aml_bytes(a, &e, sizeof(e));
}

/* AAVMF's map of memory has the flash as write-back, so Linux takes it for memory; and memory that is
 * in no node makes it forget all nodes. */
void acpi_srat_firmware(struct aml *a)
{
	acpi_srat_memory(a, PLAT_FLASH_BASE, 2 * PLAT_FLASH_BANK, 0);
}

acpi_row *const acpi_rows[] = {
	build_dsdt,	 build_fadt,	  build_ssdt,	   build_madt,	    build_gtdt,
	acpi_build_mcfg, build_spcr,	  build_dbg2,	   build_iort,	    build_pptt,
	acpi_build_srat, acpi_build_slit, acpi_build_hmat, acpi_build_xsdt, NULL,
};
