/*
 * The machinery of the ACPI tables, and the tables that are the same on every machine. ACPI 6.5,
 * chapter 5, hardware-reduced (4.1).
 *
 * All tables stand in one buffer, each at a multiple of 16, in the order of the architecture's
 * rows (acpi.c, acpi_arm64.c), the XSDT last. A pointer between tables is written as an offset
 * into the buffer and noted in pointer[], so that the same bytes serve the loader script of
 * fw_cfg and a direct boot.
 *
 * Invariants
 *  1. Every table's checksum is right when acpi_build() and acpi_relocate() return.
 *  2. Equal facts give equal bytes.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "firmware/acpi/acpi_int.h"
#include "spec/acpi.h"

#define OEM_ID	     "NEMU\0" /* 6 bytes with the literal's own NUL; as iasl pads it */
#define OEM_TABLE_ID "NEMUVIRT"
#define CREATOR_ID   "NEMU"

/* --- tables in the buffer --- */

void acpi_table_begin(struct acpi_builder *b, const char *sig, uint8_t revision)
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

void acpi_table_end(struct acpi_builder *b)
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
void acpi_pointer_add(struct acpi_builder *b, uint32_t at, uint8_t size, uint32_t target)
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

/* --- what is on every machine --- */

void acpi_dsdt(struct acpi_builder *b, const uint8_t *aml, size_t len)
{
	struct acpi_table_ref *ref = &b->t->table[b->t->ntables++];

	memcpy(ref->sig, "DSDT", 5);
	ref->off = (uint32_t)b->out.len;
	ref->len = (uint32_t)len;
	aml_bytes(&b->out, aml, len);
}

void acpi_fadt(struct acpi_builder *b, struct acpi_fadt *f)
{
	const struct acpi_table_ref *dsdt = acpi_find(b->t, "DSDT");
	uint32_t off;

	f->fadt_minor_version = 3;
	memcpy(f->hypervisor_vendor, "NEMU", 4);
	f->x_dsdt = le64_of(dsdt->off);
	acpi_table_begin(b, "FACP", 6);
	off = b->t->table[b->t->ntables - 1].off;
	aml_bytes(&b->out, (uint8_t *)f + sizeof(f->header), sizeof(*f) - sizeof(f->header));
	acpi_pointer_add(b, off + (uint32_t)offsetof(struct acpi_fadt, x_dsdt), 8, dsdt->off);
	acpi_table_end(b);
}

void acpi_ssdt_crs(struct aml *a, const char *device, struct aml *crs)
{
	size_t scope = aml_scope_begin(a, device);

	aml_name_crs(a, "_CRS", crs);
	aml_free(crs);
	aml_end(a, scope);
}

void acpi_ssdt_absent(struct aml *a, const char *device)
{
	size_t scope = aml_scope_begin(a, device);

	aml_name_int(a, "_STA", 0);
	aml_end(a, scope);
}

void acpi_ssdt_cpus(struct aml *a, const struct acpi_facts *f)
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

/*
 * --- MCFG ---
 *
 * No more buses than there are: Linux looks at 32 slots of each bus that this table has and the
 * host bridge's tree has not, through CF8 and CFC, so each bus costs 64 exits.
 */

void acpi_build_mcfg(struct acpi_builder *b)
{
	struct acpi_mcfg_allocation e = {
		.base = le64_of(b->facts->ecam_base),
		.segment = le16_of(0),
		.start_bus = 0,
		.end_bus = b->facts->last_bus,
	};

	acpi_table_begin(b, "MCFG", 1);
	aml_zeros(&b->out, 8); /* reserved */
	aml_bytes(&b->out, &e, sizeof(e));
	acpi_table_end(b);
}

/* --- NUMA: numa.c --- */

void acpi_build_srat(struct acpi_builder *b)
{
	if (b->facts->numa) {
		acpi_table_begin(b, "SRAT", 3);
		acpi_srat_body(&b->out, b->facts);
		acpi_table_end(b);
	}
}

void acpi_build_slit(struct acpi_builder *b)
{
	if (b->facts->numa && b->facts->numa->distance) {
		acpi_table_begin(b, "SLIT", 1);
		acpi_slit_body(&b->out, b->facts);
		acpi_table_end(b);
	}
}

void acpi_build_hmat(struct acpi_builder *b)
{
	if (b->facts->numa && b->facts->numa->hmat) {
		acpi_table_begin(b, "HMAT", 2);
		acpi_hmat_body(&b->out, b->facts);
		acpi_table_end(b);
	}
}

/* --- XSDT: every table so far except the DSDT, which the FADT points to --- */

void acpi_build_xsdt(struct acpi_builder *b)
{
	unsigned n = b->t->ntables;

	acpi_table_begin(b, "XSDT", 1);
	for (unsigned i = 0; i < n; i++) {
		const struct acpi_table_ref *ref = &b->t->table[i];

		if (strcmp(ref->sig, "DSDT")) {
			acpi_pointer_add(b, (uint32_t)b->out.len, 8, ref->off);
			aml_u64(&b->out, ref->off);
		}
	}
	acpi_table_end(b);
}

/* --- all of them --- */

int acpi_build(struct acpi_tables *t, const struct acpi_facts *facts, struct err *err)
{
	struct acpi_builder b = {.t = t, .facts = facts};

	*t = (struct acpi_tables){0};
	if (facts->ncpus > ACPI_MAX_CPUS) {
		return err_set(err, EINVAL,
			       "%u processors cannot be described to the guest, at "
			       "most %d can",
			       facts->ncpus, ACPI_MAX_CPUS);
	}
	for (unsigned i = 0; acpi_rows[i]; i++) {
		acpi_rows[i](&b);
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
