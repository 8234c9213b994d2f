/*
 * The ACPI tables of the x86-64 machine. ACPI 6.5, chapter 5, hardware-reduced (4.1).
 *
 * One function a table, one row for each in `rows`; a further table is one more of both. All
 * tables stand in one buffer, each at a multiple of 16, in the order of the rows, the XSDT last.
 * A pointer between tables is written as an offset into the buffer and noted in pointer[], so
 * that the same bytes serve the loader script of fw_cfg and a direct boot.
 *
 * Deliberately absent: FACS and PM1/GPE registers (hardware-reduced), _PRT (no INTx), interrupt
 * source overrides (GSIs 0-23 are the IOAPIC's pins), PCAT_COMPAT (no 8259). The PM timer is
 * given in the FADT although hardware-reduced systems may ignore it: Linux uses it to calibrate
 * the TSC when there is neither a PIT nor kvmclock.
 *
 * Invariants
 *  1. Every table's checksum is right when acpi_build() and acpi_relocate() return.
 *  2. Equal facts give equal bytes.
 * Untrusted: mem64_base and mem64_end follow BARs that the guest wrote; they are only numbers in
 * a descriptor here.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/acpi/acpi_int.h"
#include "firmware/acpi/dsdt_aml.h"
#include "spec/acpi.h"
#include "spec/mc146818.h"
#include "spec/platform_x86.h"

#define OEM_ID	     "NEMU\0" /* 6 bytes with the literal's own NUL; as iasl pads it */
#define OEM_TABLE_ID "NEMUVIRT"
#define CREATOR_ID   "NEMU"

struct builder {
	struct acpi_tables *t;
	const struct acpi_facts *facts;
	struct aml out;
};

/* --- tables in the buffer --- */

static void table_begin(struct builder *b, const char *sig, uint8_t revision)
{
	struct acpi_table_ref *ref = &b->t->table[b->t->ntables++];
	struct acpi_header h = {
		.revision = revision,
		.oem_revision = le32_of(1),
		.creator_revision = le32_of(1),
	};

	assert(b->t->ntables <= ACPI_MAX_TABLES && strlen(sig) == 4);
	aml_zeros(&b->out, align_up(b->out.len, 16) - b->out.len);
	memcpy(ref->sig, sig, 5);
	ref->off = (uint32_t)b->out.len;
	memcpy(h.signature, sig, sizeof(h.signature));
	memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
	memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
	memcpy(h.creator_id, CREATOR_ID, sizeof(h.creator_id));
	aml_bytes(&b->out, &h, sizeof(h));
}

static void table_end(struct builder *b)
{
	struct acpi_table_ref *ref = &b->t->table[b->t->ntables - 1];
	le32 len;

	ref->len = (uint32_t)b->out.len - ref->off;
	len = le32_of(ref->len);
	if (!b->out.failed) {
		memcpy(b->out.data + ref->off + offsetof(struct acpi_header, length), &len,
		       sizeof(len));
	}
}

/* Notes that the `size` bytes at `at` are a pointer to the table. */
static void pointer_add(struct builder *b, uint32_t at, uint8_t size, uint32_t target)
{
	assert(b->t->npointers < ACPI_MAX_POINTERS);
	b->t->pointer[b->t->npointers++] =
		(struct acpi_pointer){.at = at, .target = target, .size = size};
}

static void checksum(uint8_t *data, size_t len, size_t at)
{
	uint8_t sum = 0;

	data[at] = 0;
	for (size_t i = 0; i < len; i++) {
		sum = (uint8_t)(sum + data[i]);
	}
	data[at] = (uint8_t)-sum;
}

static void checksum_all(struct acpi_tables *t)
{
	for (unsigned i = 0; i < t->ntables; i++) {
		checksum(t->data + t->table[i].off, t->table[i].len,
			 offsetof(struct acpi_header, checksum));
	}
}

/* --- DSDT, SSDT --- */

static void build_dsdt(struct builder *b)
{
	struct acpi_table_ref *ref = &b->t->table[b->t->ntables++];

	memcpy(ref->sig, "DSDT", 5);
	ref->off = (uint32_t)b->out.len;
	ref->len = sizeof(dsdt_aml);
	aml_bytes(&b->out, dsdt_aml, sizeof(dsdt_aml));
}

static void ssdt_cpus(struct aml *a, const struct acpi_facts *f)
{
	size_t scope = aml_scope_begin(a, "\\_SB");

	for (unsigned i = 0; i < f->ncpus; i++) {
		char name[5];
		size_t dev;

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		dev = aml_device_begin(a, name);
		aml_name_string(a, "_HID", "ACPI0007");
		aml_name_int(a, "_UID", i);
		if (!f->cpu[i].present) {
			aml_name_int(a, "_STA", 0);
		}
		aml_end(a, dev);
	}
	aml_end(a, scope);
}

static void ssdt_pci(struct aml *a, const struct acpi_facts *f)
{
	size_t scope = aml_scope_begin(a, "\\_SB.PCI0");
	struct aml crs = {0};

	crs_bus_window(&crs, 0, f->last_bus);
	crs_io(&crs, 0xcf8, 8); /* CF8/CFC */
	crs_io_window(&crs, PLAT_PCI_IO_BASE, (uint16_t)(PLAT_PCI_IO_END - 1));
	crs_mem32_window(&crs, (uint32_t)PLAT_MMIO32_BASE, (uint32_t)(PLAT_MMIO32_END - 1));
	if (f->mem64_base < f->mem64_end) {
		crs_mem64_window(&crs, f->mem64_base, f->mem64_end - 1);
	}
	aml_name_crs(a, "_CRS", &crs);
	aml_free(&crs);
	aml_end(a, scope);
}

static void build_ssdt(struct builder *b)
{
	struct aml *a = &b->out;

	table_begin(b, "SSDT", 2);
	ssdt_cpus(a, b->facts);
	ssdt_pci(a, b->facts);
	if (!b->facts->uart) {
		size_t scope = aml_scope_begin(a, "\\_SB.COM1");

		aml_name_int(a, "_STA", 0);
		aml_end(a, scope);
	}
	table_end(b);
}

/* --- FADT --- */

static struct acpi_gas port(uint16_t addr, uint8_t bits, uint8_t access)
{
	return (struct acpi_gas){
		.space_id = ACPI_SPACE_IO,
		.bit_width = bits,
		.access_size = access,
		.address = le64_of(addr),
	};
}

static void build_fadt(struct builder *b)
{
	const struct acpi_table_ref *dsdt = acpi_find(b->t, "DSDT");
	struct acpi_fadt f = {
		.iapc_boot_arch = le16_of(ACPI_BOOT_VGA_NOT_PRESENT),
		.flags = le32_of(ACPI_FADT_WBINVD | ACPI_FADT_PROC_C1 | ACPI_FADT_PWR_BUTTON |
				 ACPI_FADT_SLP_BUTTON | ACPI_FADT_FIX_RTC |
				 ACPI_FADT_RESET_REG_SUP | ACPI_FADT_HW_REDUCED),
		.reset_reg = port(PLAT_RESET_PORT, 8, ACPI_ACCESS_BYTE),
		.reset_value = PLAT_RESET_VALUE,
		.century = RTC_CENTURY,
		.fadt_minor_version = 3,
		.pm_tmr_blk = le32_of(PLAT_PM_TIMER_PORT),
		.pm_tmr_len = 4,
		.x_pm_tmr_blk = port(PLAT_PM_TIMER_PORT, 32, ACPI_ACCESS_DWORD),
		.sleep_control_reg = port(PLAT_SLEEP_CTL_PORT, 8, ACPI_ACCESS_BYTE),
		.sleep_status_reg = port(PLAT_SLEEP_STS_PORT, 8, ACPI_ACCESS_BYTE),
		.hypervisor_vendor = "NEMU",
		.x_dsdt = le64_of(dsdt->off),
	};
	uint32_t off;

	table_begin(b, "FACP", 6);
	off = b->t->table[b->t->ntables - 1].off;
	aml_bytes(&b->out, (uint8_t *)&f + sizeof(f.header), sizeof(f) - sizeof(f.header));
	pointer_add(b, off + (uint32_t)offsetof(struct acpi_fadt, x_dsdt), 8, dsdt->off);
	table_end(b);
}

/* --- MADT --- */

static void madt_cpu(struct aml *a, unsigned uid, const struct acpi_cpu *cpu)
{
	le32 flags = le32_of(cpu->present ? ACPI_MADT_ENABLED : ACPI_MADT_ONLINE_CAPABLE);

	/* 255 means all processors in both bytes of the short form */
	if (cpu->apic_id < 255 && uid < 255) {
		struct acpi_madt_lapic e = {
			.type = ACPI_MADT_LAPIC,
			.length = sizeof(e),
			.processor_uid = (uint8_t)uid,
			.apic_id = (uint8_t)cpu->apic_id,
			.flags = flags,
		};

		aml_bytes(a, &e, sizeof(e));
	} else {
		struct acpi_madt_x2apic e = {
			.type = ACPI_MADT_X2APIC,
			.length = sizeof(e),
			.x2apic_id = le32_of(cpu->apic_id),
			.flags = flags,
			.processor_uid = le32_of(uid),
		};

		aml_bytes(a, &e, sizeof(e));
	}
}

static void build_madt(struct builder *b)
{
	const struct acpi_facts *f = b->facts;
	le32 lapic = le32_of((uint32_t)PLAT_LAPIC_BASE), flags = le32_of(0);
	struct acpi_madt_ioapic io = {
		.type = ACPI_MADT_IOAPIC,
		.length = sizeof(io),
		.id = PLAT_IOAPIC_ID,
		.address = le32_of((uint32_t)PLAT_IOAPIC_BASE),
		.gsi_base = le32_of(0),
	};
	struct acpi_madt_lapic_nmi nmi = {
		.type = ACPI_MADT_LAPIC_NMI,
		.length = sizeof(nmi),
		.processor_uid = 0xff,
		.lint = 1,
	};
	struct acpi_madt_x2apic_nmi nmi2 = {
		.type = ACPI_MADT_X2APIC_NMI,
		.length = sizeof(nmi2),
		.processor_uid = le32_of(UINT32_MAX),
		.lint = 1,
	};
	bool x2apic = false;

	table_begin(b, "APIC", 5);
	aml_bytes(&b->out, &lapic, sizeof(lapic));
	aml_bytes(&b->out, &flags, sizeof(flags));
	for (unsigned i = 0; i < f->ncpus; i++) {
		madt_cpu(&b->out, i, &f->cpu[i]);
		x2apic |= f->cpu[i].apic_id >= 255 || i >= 255;
	}
	aml_bytes(&b->out, &io, sizeof(io));
	aml_bytes(&b->out, &nmi, sizeof(nmi));
	if (x2apic) {
		aml_bytes(&b->out, &nmi2, sizeof(nmi2));
	}
	table_end(b);
}

/*
 * --- MCFG ---
 *
 * No more buses than there are: Linux looks at 32 slots of each bus that this table has and the
 * host bridge's tree has not, through CF8 and CFC, so each bus costs 64 exits.
 */

static void build_mcfg(struct builder *b)
{
	struct acpi_mcfg_allocation e = {
		.base = le64_of(PLAT_ECAM_BASE),
		.segment = le16_of(0),
		.start_bus = 0,
		.end_bus = b->facts->last_bus,
	};

	table_begin(b, "MCFG", 1);
	aml_zeros(&b->out, 8); /* reserved */
	aml_bytes(&b->out, &e, sizeof(e));
	table_end(b);
}

/* --- NUMA: numa.c --- */

static void build_srat(struct builder *b)
{
	if (b->facts->numa) {
		table_begin(b, "SRAT", 3);
		acpi_srat_body(&b->out, b->facts);
		table_end(b);
	}
}

static void build_slit(struct builder *b)
{
	if (b->facts->numa && b->facts->numa->distance) {
		table_begin(b, "SLIT", 1);
		acpi_slit_body(&b->out, b->facts);
		table_end(b);
	}
}

static void build_hmat(struct builder *b)
{
	if (b->facts->numa && b->facts->numa->hmat) {
		table_begin(b, "HMAT", 2);
		acpi_hmat_body(&b->out, b->facts);
		table_end(b);
	}
}

/* --- XSDT: every table so far except the DSDT, which the FADT points to --- */

static void build_xsdt(struct builder *b)
{
	unsigned n = b->t->ntables;

	table_begin(b, "XSDT", 1);
	for (unsigned i = 0; i < n; i++) {
		const struct acpi_table_ref *ref = &b->t->table[i];

		if (strcmp(ref->sig, "DSDT")) {
			pointer_add(b, (uint32_t)b->out.len, 8, ref->off);
			aml_u64(&b->out, ref->off);
		}
	}
	table_end(b);
}

/* --- all of them --- */

static void (*const rows[])(struct builder *b) = {
	build_dsdt, build_fadt, build_ssdt, build_madt, build_mcfg, build_srat,
	build_slit, build_hmat, build_xsdt,
};

int acpi_build(struct acpi_tables *t, const struct acpi_facts *facts, struct err *err)
{
	struct builder b = {.t = t, .facts = facts};

	*t = (struct acpi_tables){0};
	if (facts->ncpus > ACPI_MAX_CPUS) {
		return err_set(err, EINVAL,
			       "%u processors cannot be described to the guest, at "
			       "most %d can",
			       facts->ncpus, ACPI_MAX_CPUS);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		rows[i](&b);
	}
	if (b.out.failed) {
		aml_free(&b.out);
		*t = (struct acpi_tables){0};
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	}
	t->data = b.out.data;
	t->len = b.out.len;
	checksum_all(t);
	return 0;
}

void acpi_free(struct acpi_tables *t)
{
	free(t->data);
	*t = (struct acpi_tables){0};
}

const struct acpi_table_ref *acpi_find(const struct acpi_tables *t, const char *sig)
{
	for (unsigned i = 0; i < t->ntables; i++) {
		if (!strcmp(t->table[i].sig, sig)) {
			return &t->table[i];
		}
	}
	return NULL;
}

void acpi_relocate(struct acpi_tables *t, uint64_t base)
{
	for (unsigned i = 0; i < t->npointers; i++) {
		const struct acpi_pointer *p = &t->pointer[i];
		le64 v = le64_of(base + p->target);

		assert(p->size == 8);
		memcpy(t->data + p->at, &v, sizeof(v));
	}
	checksum_all(t);
}

void acpi_rsdp(uint8_t out[ACPI_RSDP_LEN], uint64_t xsdt)
{
	struct acpi_rsdp r = {
		.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
		.revision = 2,
		.length = le32_of(sizeof(r)),
		.xsdt_address = le64_of(xsdt),
	};

	memcpy(r.oem_id, OEM_ID, sizeof(r.oem_id));
	memcpy(out, &r, sizeof(r));
	checksum(out, 20, offsetof(struct acpi_rsdp, checksum));
	checksum(out, sizeof(r), offsetof(struct acpi_rsdp, extended_checksum));
}
