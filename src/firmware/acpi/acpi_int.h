/*
 * What the files of firmware/acpi/ share: how tables are built, those that every machine has, and
 * the bodies (what follows the header) of tables that have a file of their own.
 */
#ifndef FIRMWARE_ACPI_ACPI_INT_H
#define FIRMWARE_ACPI_ACPI_INT_H

#include "firmware/acpi/acpi.h"
#include "firmware/acpi/aml.h"
#include "spec/acpi.h"

struct acpi_builder {
	struct acpi_tables *t;
	const struct acpi_facts *facts;
	struct aml out;
};
/* A table from its header on; end fills in the length. */
void acpi_table_begin(struct acpi_builder *b, const char *sig, uint8_t revision);
void acpi_table_end(struct acpi_builder *b);
/* Notes that the `size` bytes at `at` are a pointer to the table at target. */
void acpi_pointer_add(struct acpi_builder *b, uint32_t at, uint8_t size, uint32_t target);
void acpi_dsdt(struct acpi_builder *b, const uint8_t *aml, size_t len);
void acpi_ssdt_cpus(struct aml *a, const struct acpi_facts *f);
/* In the SSDT, of a device that the DSDT has: its resources (crs is freed); that it is not there. */
void acpi_ssdt_crs(struct aml *a, const char *device, struct aml *crs);
void acpi_ssdt_absent(struct aml *a, const char *device);
/* The FADT, which points to the DSDT. */
void acpi_fadt(struct acpi_builder *b, struct acpi_fadt *f);

/* The tables of the architecture, in order; NULL at the end. acpi.c (x86), acpi_arm64.c. */
typedef void acpi_row(struct acpi_builder *b);
extern acpi_row *const acpi_rows[];
acpi_row acpi_build_mcfg, acpi_build_srat, acpi_build_slit, acpi_build_hmat, acpi_build_xsdt;

/* acpi.c, acpi_arm64.c: a processor's entry in the SRAT */
void acpi_srat_cpu(struct aml *a, unsigned uid, const struct acpi_cpu *cpu);
/* The same: what has to be in the SRAT beside RAM. */
void acpi_srat_firmware(struct aml *a);
void acpi_srat_memory(struct aml *a, uint64_t base, uint64_t size, uint32_t node);
/* numa.c; f->numa is there, and for the SLIT its distances, for the HMAT its flag */
void acpi_srat_body(struct aml *a, const struct acpi_facts *f);
void acpi_slit_body(struct aml *a, const struct acpi_facts *f);
void acpi_hmat_body(struct aml *a, const struct acpi_facts *f);

#endif
