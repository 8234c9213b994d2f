/*
 * Bodies of tables that have a file of their own: what follows the table's header.
 */
#ifndef FIRMWARE_ACPI_ACPI_INT_H
#define FIRMWARE_ACPI_ACPI_INT_H

#include "firmware/acpi/acpi.h"
#include "firmware/acpi/aml.h"

/* numa.c; f->numa is there, and for the SLIT its distances, for the HMAT its flag */
void acpi_srat_body(struct aml *a, const struct acpi_facts *f);
void acpi_slit_body(struct aml *a, const struct acpi_facts *f);
void acpi_hmat_body(struct aml *a, const struct acpi_facts *f);

#endif
