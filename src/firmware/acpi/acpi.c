/*
 * The ACPI tables of the x86-64 machine. ACPI 6.5, chapter 5, hardware-reduced (4.1). One function
 * a table, one row for each in acpi_rows; tables.c has what is common.
 *
 * Deliberately absent: FACS and PM1/GPE registers (hardware-reduced), _PRT (no INTx), interrupt
 * source overrides (GSIs 0-23 are the IOAPIC's pins), PCAT_COMPAT (no 8259). The PM timer is
 * given in the FADT although hardware-reduced systems may ignore it: Linux uses it to calibrate
 * the TSC when there is neither a PIT nor kvmclock.
 *
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

/* --- DSDT, SSDT --- */

static void build_dsdt(struct acpi_builder *b)
{
	acpi_dsdt(b, dsdt_aml, sizeof(dsdt_aml));
}

static void ssdt_pci(struct aml *a, const struct acpi_facts *f)
{
	struct aml crs = {0};

	crs_bus_window(&crs, 0, f->last_bus);
	crs_io(&crs, 0xcf8, 8); /* CF8/CFC */
	crs_io_window(&crs, PLAT_PCI_IO_BASE, (uint16_t)(PLAT_PCI_IO_END - 1));
	crs_mem32_window(&crs, (uint32_t)PLAT_MMIO32_BASE, (uint32_t)(PLAT_MMIO32_END - 1));
	if (f->mem64_base < f->mem64_end) {
		crs_mem64_window(&crs, f->mem64_base, f->mem64_end - 1);
	}
	acpi_ssdt_crs(a, "\\_SB.PCI0", &crs);
}

static void build_ssdt(struct acpi_builder *b)
{
	struct aml *a = &b->out;

	acpi_table_begin(b, "SSDT", 2);
	acpi_ssdt_cpus(a, b->facts);
	ssdt_pci(a, b->facts);
	if (!b->facts->uart) {
		acpi_ssdt_absent(a, "\\_SB.COM1");
	}
	acpi_table_end(b);
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

static void build_fadt(struct acpi_builder *b)
{
	struct acpi_fadt f = {
		.iapc_boot_arch = le16_of(ACPI_BOOT_VGA_NOT_PRESENT),
		.flags = le32_of(ACPI_FADT_WBINVD | ACPI_FADT_PROC_C1 | ACPI_FADT_PWR_BUTTON |
				 ACPI_FADT_SLP_BUTTON | ACPI_FADT_FIX_RTC |
				 ACPI_FADT_RESET_REG_SUP | ACPI_FADT_HW_REDUCED),
		.reset_reg = port(PLAT_RESET_PORT, 8, ACPI_ACCESS_BYTE),
		.reset_value = PLAT_RESET_VALUE,
		.century = RTC_CENTURY,
		.pm_tmr_blk = le32_of(PLAT_PM_TIMER_PORT),
		.pm_tmr_len = 4,
		.x_pm_tmr_blk = port(PLAT_PM_TIMER_PORT, 32, ACPI_ACCESS_DWORD),
		.sleep_control_reg = port(PLAT_SLEEP_CTL_PORT, 8, ACPI_ACCESS_BYTE),
		.sleep_status_reg = port(PLAT_SLEEP_STS_PORT, 8, ACPI_ACCESS_BYTE),
	};

	acpi_fadt(b, &f);
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

static void build_madt(struct acpi_builder *b)
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

	acpi_table_begin(b, "APIC", 5);
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
	acpi_table_end(b);
}

/* --- SRAT --- */

void acpi_srat_cpu(struct aml *a, unsigned uid, const struct acpi_cpu *cpu)
{
	/* as the MADT has it: 255 means all in the short form */
	if (cpu->apic_id < 255 && uid < 255) {
		struct acpi_srat_lapic e = {
			.type = ACPI_SRAT_LAPIC,
			.length = sizeof(e),
			.domain_low = (uint8_t)cpu->node,
			.apic_id = (uint8_t)cpu->apic_id,
			.flags = le32_of(ACPI_SRAT_ENABLED),
		};

		aml_bytes(a, &e, sizeof(e)); /* at most ACPI_MAX_NODES: domain_high is 0 */
	} else {
		struct acpi_srat_x2apic e = {
			.type = ACPI_SRAT_X2APIC,
			.length = sizeof(e),
			.domain = le32_of(cpu->node),
			.x2apic_id = le32_of(cpu->apic_id),
			.flags = le32_of(ACPI_SRAT_ENABLED),
		};

		aml_bytes(a, &e, sizeof(e));
	}
}

void acpi_srat_firmware(struct aml *a)
{
	(void)a; /* firmware has no memory in the guest's map but RAM */
}

/* --- all of them --- */

acpi_row *const acpi_rows[] = {
	build_dsdt, build_fadt, build_ssdt, build_madt, acpi_build_mcfg, acpi_build_srat,
	acpi_build_slit, acpi_build_hmat, acpi_build_xsdt,
	NULL,
};
