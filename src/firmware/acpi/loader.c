/*
 * Delivery of the ACPI tables to firmware through fw_cfg.
 *
 * Firmware reads etc/table-loader, a script of 128-byte entries, allocates the files that it
 * names, adds their addresses to the pointers and computes checksums. It then installs each
 * table it finds behind a pointer and makes RSDP and XSDT itself (OVMF), or uses ours (others).
 * So a table that holds pointers has checksum 0 in the file and gets one from the script, after
 * its pointers; the other tables come with theirs.
 * The script: QEMU, BIOS linker/loader; struct loader_entry in spec/acpi.h.
 *
 * The three files must fit each other although they are fetched one by one: they are made
 * together, and again only when the facts have changed. A guest that moves BARs between two
 * fetches gets parts of different generations, which may disagree in lengths only; the tables
 * it builds from them are its own problem.
 *
 * Threads: control loop. Untrusted: the guest decides when the facts are asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "firmware/acpi/acpi.h"
#include "spec/acpi.h"

#define FILE_TABLES "etc/acpi/tables"
#define FILE_RSDP   "etc/acpi/rsdp"
#define FILE_LOADER "etc/table-loader"

/* two allocations, every pointer and the RSDP's, a checksum for each table and two for the RSDP */
#define MAX_ENTRIES (2 + ACPI_MAX_POINTERS + 1 + ACPI_MAX_TABLES + 2)

struct acpi_loader {
	acpi_facts_fn *get_facts;
	void *opaque;

	bool built;
	struct acpi_facts facts; /* that the files were made from; cpu is a copy */
	struct acpi_cpu *cpu;

	struct acpi_tables tables;
	uint8_t rsdp[ACPI_RSDP_LEN];
	struct loader_entry script[MAX_ENTRIES];
	unsigned nscript;
};

/* --- the script --- */

static struct loader_entry *script_add(struct acpi_loader *l, uint32_t command)
{
	struct loader_entry *e = &l->script[l->nscript++];

	memset(e, 0, sizeof(*e));
	e->command = le32_of(command);
	return e;
}

static void script_alloc(struct acpi_loader *l, const char *file, uint32_t align, uint8_t zone)
{
	struct loader_entry *e = script_add(l, LOADER_ALLOCATE);

	strcpy(e->alloc.file, file);
	e->alloc.align = le32_of(align);
	e->alloc.zone = zone;
}

static void script_pointer(struct acpi_loader *l, const char *file, uint32_t off, uint8_t size)
{
	struct loader_entry *e = script_add(l, LOADER_ADD_POINTER);

	strcpy(e->pointer.pointer_file, file);
	strcpy(e->pointer.pointee_file, FILE_TABLES);
	e->pointer.offset = le32_of(off);
	e->pointer.size = size;
}

static void script_checksum(struct acpi_loader *l, const char *file, uint8_t *data, uint32_t at,
			    uint32_t start, uint32_t len)
{
	struct loader_entry *e = script_add(l, LOADER_ADD_CHECKSUM);

	strcpy(e->checksum.file, file);
	e->checksum.result_offset = le32_of(at);
	e->checksum.start = le32_of(start);
	e->checksum.length = le32_of(len);
	data[at] = 0;
}

static bool has_pointers(const struct acpi_tables *t, const struct acpi_table_ref *ref)
{
	for (unsigned i = 0; i < t->npointers; i++) {
		if (t->pointer[i].at >= ref->off && t->pointer[i].at < ref->off + ref->len) {
			return true;
		}
	}
	return false;
}

static void script_build(struct acpi_loader *l)
{
	struct acpi_tables *t = &l->tables;

	l->nscript = 0;
	script_alloc(l, FILE_TABLES, 64, LOADER_ZONE_HIGH);
	script_alloc(l, FILE_RSDP, 16, LOADER_ZONE_FSEG);
	for (unsigned i = 0; i < t->npointers; i++) {
		script_pointer(l, FILE_TABLES, t->pointer[i].at, t->pointer[i].size);
	}
	for (unsigned i = 0; i < t->ntables; i++) {
		const struct acpi_table_ref *ref = &t->table[i];

		if (has_pointers(t, ref)) {
			uint32_t at =
				ref->off + (uint32_t)offsetof(struct acpi_header, checksum);

			script_checksum(l, FILE_TABLES, t->data, at, ref->off, ref->len);
		}
	}
	acpi_rsdp(l->rsdp, acpi_find(t, "XSDT")->off);
	script_pointer(l, FILE_RSDP, offsetof(struct acpi_rsdp, xsdt_address), 8);
	script_checksum(l, FILE_RSDP, l->rsdp, offsetof(struct acpi_rsdp, checksum), 0, 20);
	script_checksum(l, FILE_RSDP, l->rsdp, offsetof(struct acpi_rsdp, extended_checksum), 0,
			ACPI_RSDP_LEN);
}

/* --- the files --- */

static bool facts_equal(const struct acpi_facts *a, const struct acpi_facts *b)
{
	if (a->ncpus != b->ncpus || a->mem64_base != b->mem64_base ||
	    a->mem64_end != b->mem64_end || a->uart != b->uart ||
	    a->last_bus != b->last_bus) {
		return false;
	}
	for (unsigned i = 0; i < a->ncpus; i++) {
		if (a->cpu[i].apic_id != b->cpu[i].apic_id ||
		    a->cpu[i].present != b->cpu[i].present) {
			return false;
		}
	}
	return true;
}

/* Brings the three files up to date. On error the previous ones stay. */
static int loader_update(struct acpi_loader *l, struct err *err)
{
	struct acpi_facts now = {0};
	struct acpi_tables t;
	struct acpi_cpu *cpu;
	int ret;

	l->get_facts(l->opaque, &now);
	if (l->built && facts_equal(&now, &l->facts)) {
		return 0;
	}
	ret = acpi_build(&t, &now, err);
	if (ret) {
		return ret;
	}
	cpu = calloc(now.ncpus ? now.ncpus : 1, sizeof(*cpu));
	if (!cpu) {
		acpi_free(&t);
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	}
	memcpy(cpu, now.cpu, now.ncpus * sizeof(*cpu));
	free(l->cpu);
	l->cpu = cpu;
	l->facts = now;
	l->facts.cpu = cpu;
	acpi_free(&l->tables);
	l->tables = t;
	script_build(l);
	l->built = true;
	return 0;
}

static void refresh(struct acpi_loader *l)
{
	struct err err;

	if (loader_update(l, &err)) {
		log_guest("acpi", "%s; the guest gets the previous tables", err.msg);
	}
}

static const void *refresh_tables(void *opaque, size_t *len)
{
	struct acpi_loader *l = opaque;

	refresh(l);
	*len = l->tables.len;
	return l->tables.data;
}

static const void *refresh_rsdp(void *opaque, size_t *len)
{
	struct acpi_loader *l = opaque;

	refresh(l);
	*len = sizeof(l->rsdp);
	return l->rsdp;
}

static const void *refresh_script(void *opaque, size_t *len)
{
	struct acpi_loader *l = opaque;

	refresh(l);
	*len = l->nscript * sizeof(l->script[0]);
	return l->script;
}

int acpi_loader_new(struct fw_cfg *fw, acpi_facts_fn *facts, void *opaque,
		    struct acpi_loader **out, struct err *err)
{
	struct acpi_loader *l = calloc(1, sizeof(*l));
	int ret;

	if (!l) {
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	}
	l->get_facts = facts;
	l->opaque = opaque;
	/* Made once now: what is wrong with the facts at start is the user's to hear. */
	ret = loader_update(l, err);
	if (ret) {
		goto free_loader;
	}
	if ((ret = fw_cfg_add_file_refresh(fw, FILE_TABLES, refresh_tables, l, err)) ||
	    (ret = fw_cfg_add_file_refresh(fw, FILE_RSDP, refresh_rsdp, l, err)) ||
	    (ret = fw_cfg_add_file_refresh(fw, FILE_LOADER, refresh_script, l, err))) {
		/* Names that exist already are a mistake of ours that ends the start; what was
		 * added before it must not be asked for again. */
		goto free_loader;
	}
	*out = l;
	return 0;

free_loader:
	acpi_loader_free(l);
	return ret;
}

void acpi_loader_free(struct acpi_loader *l)
{
	if (l) {
		acpi_free(&l->tables);
		free(l->cpu);
		free(l);
	}
}
