/*
 * A small encoder for the AML that varies from machine to machine. ACPI 6.5, chapters 20 (AML)
 * and 6.4 (resource descriptors).
 *
 * The buffer grows; when memory runs out `failed` is set and every further call does nothing,
 * so the caller checks once at the end. Names and nesting are ours: mistakes are asserted.
 */
#ifndef FIRMWARE_ACPI_AML_H
#define FIRMWARE_ACPI_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *data; /* malloc()ed; free with aml_free() */
	size_t len, cap;
	bool failed;
};

void aml_free(struct aml *a);
void aml_bytes(struct aml *a, const void *p, size_t len);
void aml_zeros(struct aml *a, size_t len);
void aml_u8(struct aml *a, uint8_t v);
void aml_u16(struct aml *a, uint16_t v);
void aml_u32(struct aml *a, uint32_t v);
void aml_u64(struct aml *a, uint64_t v);

/* "\\_SB.PCI0" or "_UID"; segments of up to four characters are padded with '_'. */
void aml_path(struct aml *a, const char *path);
void aml_int(struct aml *a, uint64_t v); /* the shortest form */
void aml_string(struct aml *a, const char *s);

/* Blocks: what comes between begin and end is inside; the value goes from one to the other. */
size_t aml_scope_begin(struct aml *a, const char *path);
size_t aml_device_begin(struct aml *a, const char *name);
void aml_end(struct aml *a, size_t mark);

void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_string(struct aml *a, const char *name, const char *s);
/* Name (name, ResourceTemplate): crs holds descriptors; the end tag is added. */
void aml_name_crs(struct aml *a, const char *name, const struct aml *crs);

/* Resource descriptors, into the raw buffer for aml_name_crs(). Ranges are produced (by a
 * bridge), fixed at both ends, end inclusive. */
void crs_io(struct aml *crs, uint16_t base, uint8_t len); /* consumed, 16-bit decoding */
void crs_mem64(struct aml *crs, uint64_t first, uint64_t last); /* consumed */
void crs_bus_window(struct aml *crs, uint16_t first, uint16_t last);
void crs_io_window(struct aml *crs, uint16_t first, uint16_t last);
void crs_mem32_window(struct aml *crs, uint32_t first, uint32_t last);
void crs_mem64_window(struct aml *crs, uint64_t first, uint64_t last);

#endif
