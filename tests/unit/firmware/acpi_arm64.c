/*
 * The ACPI tables of the Arm machine: each has its checksum and length, says what the facts say,
 * and goes through iasl where there is one; the DSDT has the addresses of the platform contract.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "firmware/acpi/acpi.h"
#include "firmware/acpi/dsdt_aml.h"
#include "spec/acpi_arm.h"
#include "spec/platform_arm64.h"

#define MAX_CPUS   200
#define GICR2_BASE (PLAT_HIGH(40) + PLAT_GICR2_OFF)
#define ECAM_BASE  (PLAT_HIGH(40) + PLAT_ECAM_OFF)

static struct acpi_cpu cpus[MAX_CPUS];

static struct acpi_facts facts_of(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		cpus[i] = (struct acpi_cpu){
			.mpidr = (i & 15) | (uint64_t)(i / 16) << 8, .present = true, .pmu = true,
		};
	}
	return (struct acpi_facts){
		.cpu = cpus,
		.ncpus = n,
		.cores = n,
		.threads = 1,
		.uart = true,
		.mem64_base = PLAT_MMIO64_BASE,
		.mem64_end = PLAT_MMIO64_END,
		.ecam_base = ECAM_BASE,
		.redist_base = {PLAT_GICR_BASE, GICR2_BASE},
		.redist_cpus = {n > 123 ? 123 : n, n > 123 ? n - 123 : 0},
	};
}

static const void *find(const struct acpi_tables *t, const char *sig, size_t *len)
{
	const struct acpi_table_ref *r = acpi_find(t, sig);

	assert_non_null(r);
	*len = r->len;
	return t->data + r->off;
}

static void test_all_there(void **state)
{
	static const char *const sigs[] = {"DSDT", "FACP", "SSDT", "APIC", "GTDT", "MCFG",
					   "SPCR", "DBG2", "IORT", "PPTT", "XSDT"};
	struct acpi_facts f = facts_of(4);
	struct acpi_tables t;

	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	assert_int_equal(t.ntables, sizeof(sigs) / sizeof(sigs[0]));
	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++) {
		size_t len;
		const uint8_t *p = find(&t, sigs[i], &len);
		const struct acpi_header *h = (const void *)p;
		uint8_t sum = 0;

		for (size_t b = 0; b < len; b++) {
			sum = (uint8_t)(sum + p[b]);
		}
		assert_int_equal(sum, 0);
		assert_int_equal(le32_get(h->length), len);
	}
	acpi_free(&t);
	f.uart = false;
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	assert_null(acpi_find(&t, "SPCR"));
	assert_null(acpi_find(&t, "DBG2"));
	acpi_free(&t);
}

/* Processors, RAM, and the flash, which firmware calls memory. */
static void test_srat(void **state)
{
	static const struct acpi_numa_mem ram[2] = {{PLAT_RAM_BASE, 1 << 28, 0},
						    {PLAT_RAM_BASE + (1 << 28), 1 << 28, 1}};
	struct acpi_numa numa = {.nodes = 2, .mem = ram, .nmem = 2};
	struct acpi_facts f = facts_of(3);
	struct acpi_srat_memory m[3];
	struct acpi_tables t;
	const uint8_t *p;
	size_t len;

	f.numa = &numa;
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	p = find(&t, "SRAT", &len);
	assert_int_equal(len, sizeof(struct acpi_header) + 12 +
				      3 * sizeof(struct acpi_srat_gicc) + sizeof(m));
	memcpy(m, p + len - sizeof(m), sizeof(m));
	assert_int_equal(le64_get(m[1].base), ram[1].base);
	assert_int_equal(le32_get(m[1].domain), 1);
	assert_int_equal(m[2].type, ACPI_SRAT_MEMORY);
	assert_int_equal(le64_get(m[2].base), PLAT_FLASH_BASE);
	assert_int_equal(le64_get(m[2].size), 2 * PLAT_FLASH_BANK);
	assert_int_equal(le32_get(m[2].domain), 0);
	assert_int_equal(le32_get(m[2].flags), ACPI_SRAT_ENABLED);
	acpi_free(&t);
}

static void test_madt(void **state)
{
	struct acpi_facts f = facts_of(MAX_CPUS);
	unsigned gicc = 0, gicr = 0, its = 0, gicd = 0;
	struct acpi_tables t;
	const uint8_t *p;
	size_t len;

	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	p = find(&t, "APIC", &len);
	for (size_t at = sizeof(struct acpi_madt); at < len; at += p[at + 1]) {
		const struct acpi_madt_gicc *c = (const void *)(p + at);
		const struct acpi_madt_gicr *r = (const void *)(p + at);

		assert_true(p[at + 1] >= 2 && at + p[at + 1] <= len);
		switch (p[at]) {
		case ACPI_MADT_GICC:
			assert_int_equal(le64_get(c->mpidr), cpus[gicc].mpidr);
			assert_int_equal(le32_get(c->processor_uid), gicc);
			assert_int_equal(le32_get(c->performance_gsiv), PLAT_PPI_PMU);
			gicc++;
			break;
		case ACPI_MADT_GICR:
			assert_int_equal(le64_get(r->base), gicr ? GICR2_BASE : PLAT_GICR_BASE);
			assert_int_equal(le32_get(r->size), (gicr ? 77 : 123) * PLAT_GICR_CPU);
			gicr++;
			break;
		case ACPI_MADT_GICD:
			gicd++;
			break;
		case ACPI_MADT_ITS:
			its++;
			break;
		default:
			fail();
		}
	}
	assert_int_equal(gicc, MAX_CPUS);
	assert_int_equal(gicr, 2);
	assert_int_equal(its + gicd, 2);
	acpi_free(&t);
}

static void test_fadt_and_pptt(void **state)
{
	struct acpi_facts f = facts_of(8);
	const struct acpi_fadt *fadt;
	unsigned leaves = 0, packages = 0, all = 0;
	struct acpi_tables t;
	const uint8_t *p;
	size_t len;

	f.cores = 2;
	f.threads = 2;
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	fadt = find(&t, "FACP", &len);
	assert_int_equal(le16_get(fadt->arm_boot_arch), ACPI_ARM_PSCI | ACPI_ARM_PSCI_HVC);
	assert_true(le32_get(fadt->flags) & ACPI_FADT_HW_REDUCED);
	assert_int_equal(le64_get(fadt->x_dsdt), acpi_find(&t, "DSDT")->off);
	p = find(&t, "PPTT", &len);
	for (size_t at = sizeof(struct acpi_header); at < len; at += p[at + 1]) {
		const struct acpi_pptt_processor *n = (const void *)(p + at);
		uint32_t flags = le32_get(n->flags);

		leaves += (flags & ACPI_PPTT_LEAF) != 0;
		packages += (flags & ACPI_PPTT_PACKAGE) != 0;
		all++;
		assert_true(le32_get(n->parent) < at); /* what comes before */
		assert_int_equal(!le32_get(n->parent), (flags & ACPI_PPTT_PACKAGE) != 0);
	}
	assert_int_equal(leaves, 8);
	assert_int_equal(packages, 2);
	assert_int_equal(all, 8 + 4 + 2);
	acpi_free(&t);
}

static bool has(const uint8_t *in, size_t size, const void *p, size_t len)
{
	for (size_t i = 0; i + len <= size; i++) {
		if (!memcmp(in + i, p, len)) {
			return true;
		}
	}
	return false;
}

static void test_dsdt_addresses(void **state)
{
	const uint32_t fixed[] = {PLAT_UART_BASE, PLAT_FW_CFG_BASE, PLAT_GED_BASE,
				  PLAT_FIRST_SPI + PLAT_SPI_UART, PLAT_FIRST_SPI + PLAT_SPI_GED};
	const uint64_t ecam[2] = {ECAM_BASE, ECAM_BASE + PLAT_ECAM_SIZE - 1};
	const uint64_t window[2] = {PLAT_MMIO64_BASE, PLAT_MMIO64_END - 1};
	struct acpi_facts f = facts_of(1);
	struct acpi_tables t;
	const uint8_t *ssdt;
	size_t len;

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		assert_true(has(dsdt_aml, sizeof(dsdt_aml), &fixed[i], sizeof(fixed[i])));
	}
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	ssdt = find(&t, "SSDT", &len);
	assert_true(has(ssdt, len, ecam, sizeof(ecam)));
	assert_true(has(ssdt, len, window, sizeof(window)));
	acpi_free(&t);
}

static void test_iasl(void **state)
{
	struct acpi_facts f = facts_of(5);
	char dir[] = "/tmp/nemu-acpi-XXXXXX", path[96], command[256];
	struct acpi_tables t;

	if (system("command -v iasl > /dev/null")) {
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	for (unsigned i = 0; i < t.ntables; i++) {
		FILE *file;

		if (!strcmp(t.table[i].sig, "SSDT")) {
			continue; /* refers to the DSDT: the system test has both */
		}
		snprintf(path, sizeof(path), "%s/%s.dat", dir, t.table[i].sig);
		file = fopen(path, "w");
		assert_int_equal(fwrite(t.data + t.table[i].off, t.table[i].len, 1, file), 1);
		fclose(file);
		snprintf(command, sizeof(command),
			 "cd %s && iasl -d %s.dat > log 2>&1 && ! grep -iE 'warning|error' log && "
			 "iasl %s.dsl > log 2>&1 && grep -q '0 Errors, 0 Warnings' log || { cat log; false; }",
			 dir, t.table[i].sig, t.table[i].sig);
		if (strcmp(t.table[i].sig, "XSDT")) {
			assert_int_equal(system(command), 0);
		}
	}
	acpi_free(&t);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_there),      cmocka_unit_test(test_srat),
		cmocka_unit_test(test_madt),	       cmocka_unit_test(test_fadt_and_pptt),
		cmocka_unit_test(test_dsdt_addresses), cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
